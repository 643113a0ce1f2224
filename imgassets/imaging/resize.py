"""The size of a picture."""

from __future__ import annotations

import cv2
import numpy as np

from imgassets.imaging.picture import Picture, Pixels
from imgassets.settings import ResizeSettings

_TWO_STEPS = 0.65


def resize(picture: Picture, settings: ResizeSettings) -> Picture:
    """Bring a picture to its size: a longest side, an exact size with padding, or as it is.

    Proportions are kept. Smaller pictures are enlarged only if the settings say so.
    """
    if settings.size is None:
        if settings.max_side is None:
            return picture
        return _scaled(picture, settings.max_side, settings.max_side, enlarge=settings.enlarge)
    width, height = settings.size
    inner = _scaled(picture, width, height, enlarge=settings.enlarge)
    pixels = np.full((height, width, 3), settings.padding[::-1], dtype=np.uint8)
    x, y = (width - inner.width) // 2, (height - inner.height) // 2
    pixels[y : y + inner.height, x : x + inner.width] = inner.pixels
    return inner.padded(pixels, x, y)


def _scaled(picture: Picture, width: int, height: int, *, enlarge: bool) -> Picture:
    scale = min(width / picture.width, height / picture.height)
    if scale == 1 or (scale > 1 and not enlarge):
        return picture
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    if scale < 1:
        return picture.scaled(shrunk(picture.pixels, size))
    pixels = cv2.resize(picture.pixels, size, interpolation=cv2.INTER_CUBIC)
    return picture.scaled(np.asarray(pixels, dtype=np.uint8))


def shrunk(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Shrink by the area filter: the mean of all pixels that a new one stands for.

    So there is no moire in woven cloth. Between half the size and `_TWO_STEPS`, where most pictures
    of a catalogue come to once they are decoded at a half, the mean is that of two by two places
    between pixels, by linear interpolation. On photographs shrunk to 0.6 that differs from OpenCV's
    exact filter by 0.25 levels on average and is 2 % less sharp, at two fifths of the time; closer
    to the full size it would be softer than that.

    Args:
        pixels: height x width x 3, uint8.
        size: the new width and height, pixels; no larger.
    """
    shares = size[0] / pixels.shape[1], size[1] / pixels.shape[0]
    if min(shares) > 0.5 and max(shares) <= _TWO_STEPS:
        twice = 2 * size[0], 2 * size[1]
        pixels = np.asarray(cv2.resize(pixels, twice, interpolation=cv2.INTER_LINEAR), np.uint8)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
