"""The size of a picture."""

from __future__ import annotations

import cv2
import numpy as np

from imgassets.imaging.picture import Picture
from imgassets.settings import ResizeSettings


def resize(picture: Picture, settings: ResizeSettings) -> Picture:
    """Shrink a picture so that its longer side is at most the maximum; never enlarge it."""
    if settings.max_side is None:
        return picture
    scale = settings.max_side / max(picture.width, picture.height)
    if scale >= 1:
        return picture
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    # The area filter averages all pixels that a new one stands for: no moire in woven cloth.
    small = cv2.resize(picture.pixels, size, interpolation=cv2.INTER_AREA)
    return picture.scaled(np.asarray(small, dtype=np.uint8))
