"""Remove detected faces from an image: crop them off, or cover them.

Detecting faces is in `faces`; choosing what to record about them is in `pipeline`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from imgassets.imaging.faces import Face
from imgassets.imaging.image import Box, Image, Pixels
from imgassets.imaging.prints import find_printed_faces
from imgassets.imaging.resize import shrink_by_area
from imgassets.settings import FaceSettings

# From this score on, a face is not a pattern: nine in ten real faces score higher, and none of the
# false ones in benchmarks/quality.
_CLEAR_SCORE = 0.85
# Axes of the covering ellipse / sides of the face box: it hides hair and ears too (deface's
# default).
_COVER_SCALE = 1.3
# The most detail in which YuNet finds no face at any scale (at a score of 0.75): it found faces
# blurred to 3 tones, and faces of 5 squares.
_BLUR_CELLS = 2  # tones across a blurred face
_MOSAIC_CELLS = 4  # squares across a pixelated face


@dataclass(frozen=True, slots=True)
class Removal:
    """The result of removing an image's faces.

    Attributes:
        image: The image after the removal; None if it is to be skipped.
        action: The action taken: a value of `faces.action`, or `crop_and_blur`.
        rule: The rule that applied; see `manifests.ProcessedRow.face_rule`.
        cropped: Whether rows were cut off.
        removed: Whether the faces of all people were removed; None if there are none.
    """

    image: Image | None
    action: str
    rule: str | None = None
    cropped: bool = False
    removed: bool | None = True

    @property
    def too_close(self) -> bool:
        """Whether every cut below a chin would leave too little of the image."""
        return self.rule == "too_close"


def chin_row(face: Face, image: Image, settings: FaceSettings) -> float:
    """Compute the row below a face's chin: the bottom of its box plus the margin of the settings.

    Returns:
        The row, in pixels of the image; not rounded.
    """
    if settings.margin_pixels is not None:
        return face.y + face.height + settings.margin_pixels / image.scale_y
    return face.y + face.height * (1 + settings.margin)


def remove_faces(image: Image, faces: Sequence[Face], settings: FaceSettings) -> Removal:
    """Remove the faces of the people in an image by the action of the settings.

    Faces that are printed on a product stay.

    Args:
        image: The image; it is not changed.
        faces: All faces of the image, at least one.
        settings: The action, its margins and its limits.
    """
    if settings.action == "none":
        return Removal(image, "none", removed=False)
    printed = find_printed_faces(image.pixels, faces)
    people = [face for face in faces if face not in printed]
    if not people:
        return Removal(image, "none", "printed", removed=None)
    if settings.action == "crop":
        return _crop(image, people, settings)
    covered = cover_faces(image, people, settings.action, settings.fill)
    return Removal(covered, settings.action)


def _crop(image: Image, faces: Sequence[Face], settings: FaceSettings) -> Removal:
    chin_rows = {face: math.ceil(chin_row(face, image, settings)) for face in faces}
    lowest_cut = image.height - max(1.0, settings.min_left * image.height)
    fitting = {face: row for face, row in chin_rows.items() if row <= lowest_cut}
    if not fitting:
        if settings.too_close == "blur":
            blurred = cover_faces(image, faces, "blur", settings.fill)
            return Removal(blurred, "blur", "too_close")
        kept = image if settings.too_close == "keep" else None
        return Removal(kept, "none", "too_close", removed=False)
    shared = _lowest_shared_row(fitting, settings.max_extra_cut)
    cut = max(0, shared)
    below = [face for face, row in chin_rows.items() if row > cut]
    rest = image.crop(Box(0, cut, image.width, image.height - cut))
    if not below:
        return Removal(rest, "crop", "lowest_chin", cropped=True)
    moved = [replace(face, y=face.y - cut) for face in below]
    blurred = cover_faces(rest, moved, "blur", settings.fill)
    rule = "lowest_that_fits" if shared == max(fitting.values()) else "other_person"
    return Removal(blurred, "crop_and_blur", rule, cropped=True)


def _lowest_shared_row(chin_rows: Mapping[Face, int], max_extra_cut: float) -> int:
    """The lowest row that is at most `max_extra_cut` face heights below each clear face's chin.

    Doubtful faces do not limit the row: one of them may be a pattern, in the background above the
    person.
    """
    best = max(face.score for face in chin_rows)
    clear = [face for face in chin_rows if face.y < 0 or face.score >= min(_CLEAR_SCORE, best)]
    return max(
        row
        for row in chin_rows.values()
        if all(row - chin_rows[face] <= max_extra_cut * face.height for face in clear)
    )


def cover_faces(
    image: Image, faces: Sequence[Face], action: str, colour: tuple[int, int, int]
) -> Image:
    """Copy an image and blur, pixelate or fill the faces in the copy.

    Args:
        image: The image; it is not changed.
        faces: The faces to cover.
        action: `blur`, `pixelate` or `fill`.
        colour: Red, green and blue of `fill`, each from 0 to 255.
    """
    pixels = image.pixels.copy()
    for face in faces:
        width, height = face.width * _COVER_SCALE, face.height * _COVER_SCALE
        left, top = face.x - (width - face.width) / 2, face.y - (height - face.height) / 2
        x, y = max(0, math.floor(left)), max(0, math.floor(top))
        right = min(image.width, math.ceil(left + width))
        bottom = min(image.height, math.ceil(top + height))
        if x >= right or y >= bottom:
            continue
        part = pixels[y:bottom, x:right]
        rows, columns = np.ogrid[y:bottom, x:right]
        inside = (
            ((columns + 0.5 - left) / width - 0.5) ** 2 + ((rows + 0.5 - top) / height - 0.5) ** 2
        ) <= 0.25
        part[inside] = _COVERS[action](part, colour)[inside]
    return replace(image, pixels=pixels)


def _blur(part: Pixels, _: tuple[int, int, int]) -> Pixels:
    # Much cheaper than a filter, and as wide as needed.
    return _shrink_and_enlarge(part, _BLUR_CELLS, cv2.INTER_CUBIC)


def _pixelate(part: Pixels, _: tuple[int, int, int]) -> Pixels:
    return _shrink_and_enlarge(part, _MOSAIC_CELLS, cv2.INTER_NEAREST)


def _shrink_and_enlarge(part: Pixels, cells: int, method: int) -> Pixels:
    height, width = part.shape[:2]
    small = shrink_by_area(part, (cells, cells))
    return np.asarray(cv2.resize(small, (width, height), interpolation=method), dtype=np.uint8)


def _fill(part: Pixels, colour: tuple[int, int, int]) -> Pixels:
    return np.full_like(part, colour[::-1])


_COVERS: dict[str, Callable[[Pixels, tuple[int, int, int]], Pixels]] = {
    "blur": _blur,
    "pixelate": _pixelate,
    "fill": _fill,
}
