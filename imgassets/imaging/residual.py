"""Detect faces again in processed images, to find those where a face is left.

This covers one image, or a sample of a partition. The asset check `residual_faces`, which evaluates
the result, is in `imgassets.checks.residual_faces`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from imgassets.errors import UnreadableImageError
from imgassets.imaging.decode import decode
from imgassets.imaging.faces import Face, FaceDetector, load_detector
from imgassets.imaging.image import Pixels
from imgassets.manifests import Outcome, ProcessedRow
from imgassets.settings import DecodeSettings, RetailerSettings
from imgassets.storage import Storage

# Detector input sizes (longer side, px). Processed images are smaller than the served ones, so the
# first size shows all detail; the second finds a face of 4 % of the height (27 px; YuNet finds 23
# of 26 of that size). 1280 px would find little more, at ten times the cost.
_SIDE = 448
_LARGER_SIDE = 672

# Enlarged, the pattern of a tie looks like faces of 6 to 8 px, with scores up to 0.84 (in the
# demo's images); faces of real people in them scored 0.91 and more, at 40 px and more.
_MIN_HEIGHT = 12

# In an image with this longer side (px), a face of `_MIN_HEIGHT` is 27 px high in the first pass,
# the height that the larger size is there for. Smaller images are enlarged by the same factor at
# most and get no pass at the larger size: it would only find faces below `_MIN_HEIGHT`.
_LARGER_FROM = 200
_ROUNDED_TO = 32  # px; the network pads to multiples of it anyway


@dataclass(frozen=True, slots=True)
class ResidualFaces:
    """The images of a partition in which a face is left.

    Attributes:
        checked: Number of images that were checked.
        with_face: Boxes (x, y, width, height) of the found faces, in pixels of the image, by the
            key of the image.
        unreadable: Keys of the images that could not be checked, because the file is missing or
            damaged.
    """

    checked: int
    with_face: dict[str, list[list[int]]]
    unreadable: list[str]


def find_residual_faces(
    pixels: Pixels, detector_for: Callable[[int], FaceDetector], min_score: float
) -> list[Face]:
    """Find the faces left in a processed image.

    The passes are upright, upside down, and upright at a larger scale; thumbnails get no pass at
    the larger scale.

    Args:
        pixels: The processed image; height x width x 3, uint8, BGR.
        detector_for: Returns the detector for an input size (longer side, px).
        min_score: The lowest score that counts as a face, from 0 to 1.

    Returns:
        The faces of the first pass that finds any, in pixels of the processed image; without
        landmarks if it is upside down.
    """
    longer = max(pixels.shape[:2])
    side = min(_SIDE, -(-longer * _SIDE // (_LARGER_FROM * _ROUNDED_TO)) * _ROUNDED_TO)
    upside_down = np.asarray(cv2.rotate(pixels, cv2.ROTATE_180), dtype=np.uint8)
    passes = [(side, pixels), (side, upside_down)]
    if longer > _LARGER_FROM:
        passes.append((_LARGER_SIDE, pixels))
    for size, image in passes:
        found = [
            face
            for face in detector_for(size).find(image)
            if face.score >= min_score and face.height >= _MIN_HEIGHT
        ]
        if found:
            return [_turn(face, pixels) for face in found] if image is upside_down else found
    return []


def _turn(face: Face, pixels: Pixels) -> Face:
    """Convert a face in an upside-down image to pixels of the upright one."""
    height, width = pixels.shape[:2]
    x, y = width - face.x - face.width, height - face.y - face.height
    return replace(face, x=x, y=y, landmarks=())


def detect_residual_faces(
    rows: Sequence[ProcessedRow],
    storage: Storage,
    settings: RetailerSettings,
    model: Path,
    *,
    threads: int,
) -> ResidualFaces:
    """Detect faces again in a sample of a partition's processed images.

    The sample starts with images in which a face was found and removed, because they are the ones
    that can still show one; the rest is spread evenly over the other images. Images that another
    partition processed are not checked again. If the settings do not remove faces, no image is
    checked.

    Args:
        rows: The manifest of `processed_images`.
        storage: The storage.
        settings: The retailer's settings; `checks.residual_sample` is the size of the sample.
        model: The detector's model file.
        threads: Number of images checked at the same time.

    Returns:
        How many images were checked, and in which of them a face was found.

    Raises:
        ModelError: The model cannot be loaded.
    """
    if settings.faces.action == "none" or "remove_face" not in settings.process.steps:
        return ResidualFaces(0, {}, [])
    local = threading.local()

    def detector_for(side: int) -> FaceDetector:
        detectors: dict[int, FaceDetector] = local.__dict__.setdefault("detectors", {})
        if side not in detectors:
            sides = {"detect_side": side, "first_side": None}
            detectors[side] = load_detector(model, settings.faces.model_copy(update=sides))
        return detectors[side]

    def find_boxes(row: ProcessedRow) -> list[list[int]] | None:
        try:
            pixels = decode(storage.read(str(row.path)), DecodeSettings()).pixels
        except (FileNotFoundError, UnreadableImageError):
            return None
        faces = find_residual_faces(pixels, detector_for, settings.checks.residual_min_score)
        return [
            [round(side) for side in (face.x, face.y, face.width, face.height)] for face in faces
        ]

    sample = choose_sample(rows, settings.checks.residual_sample)
    with ThreadPoolExecutor(threads, thread_name_prefix="residual") as pool:
        found = list(zip(sample, pool.map(find_boxes, sample), strict=True))
    unreadable = [row.key for row, boxes in found if boxes is None]
    with_face = {row.key: boxes for row, boxes in found if boxes}
    return ResidualFaces(len(found) - len(unreadable), with_face, unreadable)


def choose_sample(rows: Sequence[ProcessedRow], size: int) -> list[ProcessedRow]:
    """Choose the rows to check: those that had a face first, evenly spread if there are too many.

    Args:
        rows: The manifest of `processed_images`; rows without an image, and images that another
            partition processed, are left out.
        size: The largest number of rows to return.
    """
    # By path: several rows may have one image.
    by_path = {
        row.path: row
        for row in rows
        if row.outcome == Outcome.OK and row.path is not None and row.reused_from is None
    }
    processed = list(by_path.values())
    had_face = [row for row in processed if row.face_count]
    others = [row for row in processed if not row.face_count]
    first = _spread(had_face, size)
    return first + _spread(others, size - len(first))


def _spread(rows: Sequence[ProcessedRow], size: int) -> list[ProcessedRow]:
    """Choose `size` rows at even distances, or all rows if there are fewer."""
    if len(rows) <= size:
        return list(rows)
    return [rows[len(rows) * index // size] for index in range(size)]
