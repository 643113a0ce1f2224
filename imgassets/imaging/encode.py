"""Pixels to the bytes of a picture file; equal pixels and settings give equal bytes."""

from __future__ import annotations

import cv2

from imgassets.imaging.picture import Pixels
from imgassets.settings import EncodeSettings

SUFFIX = {"jpeg": "jpg", "png": "png", "webp": "webp"}


def encode(pixels: Pixels, settings: EncodeSettings) -> bytes:
    """Encode a picture (height x width x 3, uint8, BGR) as the settings say."""
    flags = {
        "jpeg": [cv2.IMWRITE_JPEG_QUALITY, settings.quality],
        "png": [],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, settings.quality],
    }[settings.format]
    _, data = cv2.imencode(f".{SUFFIX[settings.format]}", pixels, flags)
    return data.tobytes()
