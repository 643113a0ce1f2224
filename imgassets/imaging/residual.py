"""A second look at processed pictures: is a face left?

Here lives the look, over one picture or a sample of a partition. What is made of the answer is the
asset check's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from imgassets.errors import UnreadableImageError
from imgassets.imaging.decode import decode
from imgassets.imaging.faces import Face, FaceDetector, load_detector
from imgassets.imaging.image import Pixels
from imgassets.manifests import Outcome, ProcessedRow
from imgassets.settings import DecodeSettings, RetailerSettings
from imgassets.storage import Folder

# Longer sides that a picture is looked at in. The pictures made are smaller than those served, so
# that the first shows all that is there; the second finds a face of 4 % of the height (27 pixels;
# YuNet finds 23 of 26 of that size). 1280 would find little more, at ten times the cost.
_SIDE = 448
_LARGER_SIDE = 672

# Enlarged, the pattern of a tie looks like faces of 6 to 8 pixels, at scores of up to 0.84 (seen in
# the demo's pictures); faces of real people in them scored 0.91 and more, at 40 pixels and more.
_MIN_HEIGHT = 12

# A face of that height in a picture of this side is 27 pixels high in the first look, which is what
# the larger one is there for. A smaller picture is enlarged no more than that, and not looked at
# a third time: that would only find what does not count.
_LARGER_FROM = 200
_ROUNDED_TO = 32  # pixels; the network pads to them anyway


@dataclass(frozen=True, slots=True)
class Residual:
    """What the second look found.

    Attributes:
        looked_at: pictures.
        with_face: keys of those in which a face was found.
        unreadable: keys of pictures that are gone or broken, and could not be looked at.
    """

    looked_at: int
    with_face: list[str]
    unreadable: list[str]

    @property
    def share(self) -> float:
        """Pictures with a face / pictures looked at; 0 where none was."""
        return len(self.with_face) / self.looked_at if self.looked_at else 0.0


def faces_left(
    pixels: Pixels, detector: Callable[[int], FaceDetector], min_score: float
) -> list[Face]:
    """The faces that a second look finds: upright, upside down, and upright at a larger scale.

    A thumbnail is not looked at at a larger scale.

    Args:
        pixels: the processed picture; height x width x 3, uint8, BGR.
        detector: gives one that looks at a picture in a size (longer side, pixels).
        min_score: detections below it do not count.

    Returns:
        What the first look that finds something found; boxes as it saw them.
    """
    longer = max(pixels.shape[:2])
    side = min(_SIDE, -(-longer * _SIDE // (_LARGER_FROM * _ROUNDED_TO)) * _ROUNDED_TO)
    down = np.asarray(cv2.rotate(pixels, cv2.ROTATE_180), dtype=np.uint8)
    looks = [(side, pixels), (side, down)]
    if longer > _LARGER_FROM:
        looks.append((_LARGER_SIDE, pixels))
    for size, seen in looks:
        found = [
            face
            for face in detector(size).find(seen)
            if face.score >= min_score and face.height >= _MIN_HEIGHT
        ]
        if found:
            return found
    return []


def check_residual(
    rows: Sequence[ProcessedRow],
    folder: Folder,
    settings: RetailerSettings,
    model: Path,
    *,
    threads: int,
) -> Residual:
    """Look a second time at a sample of the pictures of a partition.

    Pictures in which a face was found and removed come first, since those can be left with one;
    the rest of the sample is spread evenly over the others. Where faces are not to be removed,
    nothing is looked at.

    Args:
        rows: the manifest of `processed_images`.
        folder: that its paths are relative to.
        settings: of the retailer; `checks.residual_sample` is the size of the sample.
        model: the detector's file.
        threads: pictures looked at at the same time.

    Raises:
        ModelError: the model cannot be loaded.
    """
    if settings.faces.action == "none" or "remove_face" not in settings.process.steps:
        return Residual(0, [], [])
    local = threading.local()

    def detector(side: int) -> FaceDetector:
        known: dict[int, FaceDetector] = local.__dict__.setdefault("known", {})
        if side not in known:
            looks = {"detect_side": side, "first_side": None}
            known[side] = load_detector(model, settings.faces.model_copy(update=looks))
        return known[side]

    def look(row: ProcessedRow) -> bool | None:
        try:
            pixels = decode(folder.read(str(row.path)), DecodeSettings()).pixels
        except (FileNotFoundError, UnreadableImageError):
            return None
        return bool(faces_left(pixels, detector, settings.checks.residual_min_score))

    chosen = sample(rows, settings.checks.residual_sample)
    with ThreadPoolExecutor(threads, thread_name_prefix="residual") as pool:
        found = list(zip(chosen, pool.map(look, chosen), strict=True))
    unreadable = [row.key for row, face in found if face is None]
    with_face = [row.key for row, face in found if face]
    return Residual(len(found) - len(unreadable), with_face, unreadable)


def sample(rows: Sequence[ProcessedRow], size: int) -> list[ProcessedRow]:
    """The rows to look at: with a face first, evenly spread where there are too many."""
    made = [row for row in rows if row.outcome == Outcome.OK and row.path is not None]
    had = [row for row in made if row.face_count]
    others = [row for row in made if not row.face_count]
    first = _spread(had, size)
    return first + _spread(others, size - len(first))


def _spread(rows: Sequence[ProcessedRow], size: int) -> list[ProcessedRow]:
    if len(rows) <= size:
        return list(rows)
    return [rows[len(rows) * place // size] for place in range(size)]
