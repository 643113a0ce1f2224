"""Pixels to the bytes of a picture file; equal pixels and settings give equal bytes."""

from __future__ import annotations

import io
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from imgassets.imaging.image import Pixels
from imgassets.settings import EncodeSettings

_JPEG = b"\xff\xd8\xff"
_SUFFIXES = {
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tif",
    "AVIF": "avif",
}

_OWN_FORMATS: dict[str, Literal["jpeg", "png", "webp"]] = {"jpg": "jpeg", "webp": "webp"}
_SUBSAMPLING = {"4:4:4": "444", "4:2:0": "420"}
_PNG_LEVEL, _PNG_LEVEL_OPTIMIZED = 3, 9


def encode(pixels: Pixels, settings: EncodeSettings, served: bytes) -> bytes:
    """Encode a picture as the settings say.

    Args:
        pixels: height x width x 3, uint8, BGR.
        settings: format and quality.
        served: the file that the picture was made of, which decides the format `served`.
    """
    kind = settings.format
    if kind == "served":
        kind = _OWN_FORMATS.get(suffix(served), "png")
    if kind == "jpeg":
        return _jpeg(pixels, settings)
    if kind == "png":
        level = _PNG_LEVEL_OPTIMIZED if settings.optimize else _PNG_LEVEL
        _, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, level])
    else:
        _, data = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, settings.quality])
    return data.tobytes()


def suffix(file: bytes) -> str:
    """The usual suffix of a picture file's name, without a dot, judged by its bytes."""
    if file.startswith(_JPEG):
        return "jpg"
    with Image.open(io.BytesIO(file)) as image:
        return _SUFFIXES.get(str(image.format), str(image.format).lower())


def _jpeg(pixels: Pixels, settings: EncodeSettings) -> bytes:
    if settings.optimize:
        file = io.BytesIO()
        Image.fromarray(pixels[:, :, ::-1]).save(
            file,
            "JPEG",
            quality=settings.quality,
            subsampling=settings.subsampling,
            optimize=True,
        )
        return file.getvalue()
    data: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels),
        settings.quality,
        "BGR",
        _SUBSAMPLING[settings.subsampling],
        fastdct=False,
    )
    return data
