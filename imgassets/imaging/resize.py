"""The size of a picture."""

from __future__ import annotations

import cv2
import numpy as np

from imgassets.imaging.picture import Picture
from imgassets.settings import ResizeSettings


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
    # The area filter averages all pixels that a new one stands for: no moire in woven cloth.
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.scaled(
        np.asarray(cv2.resize(picture.pixels, size, interpolation=how), dtype=np.uint8)
    )
