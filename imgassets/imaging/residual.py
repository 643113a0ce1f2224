"""A second look at processed pictures: is a face left?

Here lives the look, over one picture or a sample of a partition. What is made of the answer is the
asset check's.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from imgassets.imaging.decode import decode
from imgassets.imaging.faces import Face, FaceDetector, load_detector
from imgassets.imaging.picture import Pixels
from imgassets.manifests import Outcome, ProcessedRow
from imgassets.settings import DecodeSettings, RetailerSettings
from imgassets.storage import Folder

_LARGER = 2  # the second scale: finds faces of half the height


@dataclass(frozen=True, slots=True)
class Residual:
    """What the second look found.

    Attributes:
        looked_at: pictures.
        with_face: keys of those in which a face was found.
    """

    looked_at: int
    with_face: list[str]

    @property
    def share(self) -> float:
        """Pictures with a face / pictures looked at; 0 where none was."""
        return len(self.with_face) / self.looked_at if self.looked_at else 0.0


def faces_left(pixels: Pixels, detector: FaceDetector, larger: FaceDetector) -> list[Face]:
    """The faces that a second look finds: upright and upside down, at both scales.

    Args:
        pixels: the processed picture; height x width x 3, uint8, BGR.
        detector: as the picture was processed with.
        larger: one that looks at a larger scale.

    Returns:
        What the first look that finds something found; boxes as it saw them.
    """
    down = np.asarray(cv2.rotate(pixels, cv2.ROTATE_180), dtype=np.uint8)
    for eye in (detector, larger):
        for seen in (pixels, down):
            if found := eye.find(seen):
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
        return Residual(0, [])
    local = threading.local()
    wide = settings.faces.model_copy(update={"detect_side": settings.faces.detect_side * _LARGER})

    def look(row: ProcessedRow) -> str | None:
        if not hasattr(local, "detectors"):
            local.detectors = (load_detector(model, settings.faces), load_detector(model, wide))
        picture = decode(folder.read(str(row.path)), DecodeSettings())
        return row.key if faces_left(picture.pixels, *local.detectors) else None

    looked_at = sample(rows, settings.checks.residual_sample)
    with ThreadPoolExecutor(threads, thread_name_prefix="residual") as pool:
        found = list(pool.map(look, looked_at))
    return Residual(len(found), [key for key in found if key is not None])


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
