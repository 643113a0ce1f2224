"""Measure what the check `residual_faces` finds on real catalogue photographs, and what it costs.

    IMGASSETS_REAL_PHOTOS=<folder> python -m benchmarks.quality.residual

The folder holds `images/` and `labels.json`: by file name, `boxes` of faces (x, y, width, height in
pixels), `missed` (kind of a face that was once missed, x and y of its centre as shares of width and
height) and `printed` (a face on the product). The photographs belong to others, so the project does
not contain them. Choices are made on half 0 of them (by the CRC-32 of the file name) and reported
on both.

The other looks are the passes that the check made before: without a band, at another scale, upside
down. A box counts as a face if it lies on a labelled one; every other box in an image as the
current settings process it is a false alarm.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np

from imgassets.errors import UnreadableImageError
from imgassets.imaging.decode import decode
from imgassets.imaging.encode import encode
from imgassets.imaging.faces import Face, FaceDetector, load_detector
from imgassets.imaging.image import Box, Image, Pixels
from imgassets.imaging.models import ensure_model
from imgassets.imaging.pipeline import process_image
from imgassets.imaging.residual import find_residual_faces
from imgassets.imaging.resize import resize
from imgassets.imaging.trim import find_trim
from imgassets.imaging.yunet import Network, load_shared_network
from imgassets.settings import RetailerSettings

FOLDER = "IMGASSETS_REAL_PHOTOS"
SCORES = (0.85, 0.75, 0.7, 0.65, 0.6)
LOWEST_SCORE = min(SCORES)
# Where a face is cut, in face heights from the foot of its box; a cut at -0.5 leaves nose or mouth.
CUTS = (-0.5, 0.0, 0.04, 0.14)

Look: TypeAlias = Callable[[Pixels], list[Face]]


@dataclass(frozen=True, slots=True)
class Shown:
    """A processed image, and the labelled faces that it can show.

    Attributes:
        group: What the image is for: `nothing removed`, `processed`, or a cut.
        half: 0 or 1.
        pixels: height x width x 3, uint8, BGR.
        faces: Boxes (x, y, width, height) of the faces that were found, in pixels of the image.
        missed: Centres (x, y) of the faces that were missed, in pixels of the image.
        printed: Whether there is a face on the product.
    """

    group: str
    half: int
    pixels: Pixels
    faces: Sequence[Sequence[float]]
    missed: Sequence[tuple[float, float]]
    printed: bool


def photographs(folder: Path, detector: FaceDetector) -> Iterator[Shown]:
    """Yield all images to look at.

    Args:
        folder: The folder of the photographs.
        detector: The detector of the default settings.
    """
    settings = RetailerSettings()
    labels: Mapping[str, Any] = json.loads((folder / "labels.json").read_text())
    for name, label in labels.items():
        data = (folder / "images" / name).read_bytes()
        try:
            served = decode(data, settings.decode)
        except UnreadableImageError:
            continue
        parts = {"nothing removed": served}
        file, record = process_image(data, settings, detector)
        boxes = label.get("boxes", [])
        if boxes:
            _, top, _, height = max(boxes, key=lambda box: float(box[1] + box[3]))
            for cut in CUTS:
                row = max(0, math.ceil(top + height * (1 + cut)))
                below = Box(0, row, served.width, served.height - row)
                parts[f"cut at {cut:+.2f}"] = served.crop(below)
        shown = {group: _finish(part, settings, data) for group, part in parts.items()}
        if file is not None and record.kept_box and record.face_rule != "printed":
            shown["processed"] = (_decode(file), Box(*record.kept_box))
        for group, (pixels, kept) in shown.items():
            scale_x, scale_y = pixels.shape[1] / kept.width, pixels.shape[0] / kept.height
            missed = []
            if "missed" in label:
                _, x, y = label["missed"]
                left, top = x * served.width - kept.x, y * served.height - kept.y
                missed.append((left * scale_x, max(0.0, top * scale_y)))
            yield Shown(
                group,
                zlib.crc32(name.encode()) % 2,
                pixels,
                [
                    ((x - kept.x) * scale_x, (y - kept.y) * scale_y, w * scale_x, h * scale_y)
                    for x, y, w, h in boxes
                ],
                missed,
                label.get("printed", False),
            )


def _decode(file: bytes) -> Pixels:
    return np.asarray(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def _finish(image: Image, settings: RetailerSettings, data: bytes) -> tuple[Pixels, Box]:
    """Resize, trim and encode an image; return its pixels and the served region that it shows."""
    small = resize(image, settings.resize)
    small = small.crop(find_trim(small.pixels, settings.trim).box)
    return _decode(encode(small.pixels, settings.encode, data)), small.box_in_original


def looks(network: Network) -> dict[str, Look]:
    """The look of the check, and the passes that it made before, at the lowest score."""

    def without_band(side: int, *, turn: bool = False) -> Look:
        def find(pixels: Pixels) -> list[Face]:
            height, width = pixels.shape[:2]
            scale = side / max(height, width)
            size = max(1, round(width * scale)), max(1, round(height * scale))
            filter_ = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            shown = cv2.resize(pixels, size, interpolation=filter_)
            if turn:
                shown = cv2.rotate(shown, cv2.ROTATE_180)
            found = network.find(np.asarray(shown, np.uint8), LOWEST_SCORE).tolist()
            faces = [
                Face(x / scale, y / scale, w / scale, h / scale, score)
                for x, y, w, h, *_, score in found
            ]
            if turn:
                faces = [
                    Face(width - f.x - f.width, height - f.y - f.height, f.width, f.height, f.score)
                    for f in faces
                ]
            return [face for face in faces if face.height >= 12]

        return find

    return {
        "the check": lambda pixels: find_residual_faces(pixels, network, LOWEST_SCORE),
        "448 px, no band": without_band(448),
        "448 px upside down": without_band(448, turn=True),
        "672 px, no band": without_band(672),
    }


def _is_near(face: Face, x: float, y: float, size: float) -> bool:
    """Whether the centre of a face is within a face's size of a point."""
    across, down = face.x + face.width / 2 - x, face.y + face.height / 2 - y
    return abs(across) < max(size, face.width) and abs(down) < max(size, face.height)


def _is_missed(face: Face, shown: Shown) -> bool:
    return any(_is_near(face, x, y, 0) for x, y in shown.missed)


def _per_half(images: Sequence[Shown], count: Callable[[Shown], int]) -> str:
    return " + ".join(
        str(sum(count(shown) for shown in images if shown.half == half)) for half in (0, 1)
    )


def _report(images: Sequence[Shown], name: str, look: Look) -> None:
    """Print the rows of one look: figures are sums of half 0 + half 1."""
    start = time.thread_time()
    found = {id(shown): look(shown.pixels) for shown in images}
    milliseconds = (time.thread_time() - start) / len(images) * 1000
    groups = {group: [s for s in images if s.group == group] for group in _groups(images)}

    for min_score in SCORES:

        def faces(shown: Shown, min_score: float = min_score) -> list[Face]:
            return [face for face in found[id(shown)] if face.score >= min_score]

        def labelled(shown: Shown) -> int:
            return sum(
                any(_is_near(face, x + w / 2, y + h / 2, h / 2) for face in faces(shown))
                for x, y, w, h in shown.faces
            )

        def false(shown: Shown) -> bool:
            return any(not _is_missed(face, shown) for face in faces(shown))

        cells = [
            name,
            f"{min_score}",
            _per_half(
                groups["nothing removed"], lambda s: any(_is_missed(face, s) for face in faces(s))
            ),
            _per_half(groups["nothing removed"], labelled),
            _per_half(groups["processed"], lambda s: not s.printed and false(s)),
            _per_half(groups["processed"], lambda s: s.printed and false(s)),
            *(_per_half(groups[f"cut at {cut:+.2f}"], lambda s: bool(faces(s))) for cut in CUTS),
            f"{milliseconds:.1f}",
        ]
        print("| " + " | ".join(cells) + " |")


def _groups(images: Sequence[Shown]) -> list[str]:
    return list(dict.fromkeys(shown.group for shown in images))


def main() -> None:
    """Look at the photographs and print the table."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    folder = Path(os.environ.get(FOLDER, ""))
    if not os.environ.get(FOLDER) or not (folder / "labels.json").is_file():
        print(f"There is no folder of labelled photographs: set {FOLDER}.")
        return
    cv2.setNumThreads(1)
    faces = RetailerSettings().faces
    with tempfile.TemporaryDirectory() as models:
        model = ensure_model(faces, Path(models))
        images = list(photographs(folder, load_detector(model, faces)))
        network = load_shared_network(model)
    whole = [shown for shown in images if shown.group == "nothing removed"]
    print(
        f"{len(whole)} photographs (half 0 + half 1: {_per_half(whole, lambda _: 1)}); "
        f"faces once missed: {_per_half(whole, lambda s: len(s.missed))}; "
        f"other faces: {_per_half(whole, lambda s: len(s.faces))}\n"
    )
    cuts = " | ".join(f"cut at {cut:+.2f}" for cut in CUTS)
    print(f"| look | score | missed found | others found | false | printed | {cuts} | CPU ms |")
    print("|---" * (7 + len(CUTS)) + "|")
    for name, look in looks(network).items():
        _report(images, name, look)


if __name__ == "__main__":
    main()
