"""Encode pixels as an image file; equal pixels and settings give equal bytes."""

from __future__ import annotations

import io
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from PIL import Image as PILImage

from imgassets.imaging.image import Pixels
from imgassets.manifests import FORMAT_EXTENSIONS
from imgassets.settings import EncodeSettings

_JPEG = b"\xff\xd8\xff"
_SERVED_FORMATS: dict[str, Literal["jpeg", "png", "webp"]] = {"jpg": "jpeg", "webp": "webp"}
_SUBSAMPLING = {"4:4:4": "444", "4:2:0": "420"}
_PNG_LEVEL, _PNG_LEVEL_OPTIMIZED = 3, 9


def encode(pixels: Pixels, settings: EncodeSettings, served: bytes) -> bytes:
    """Encode an image in the format of the settings.

    Args:
        pixels: Image of shape height x width x 3, uint8, BGR.
        settings: Format, quality and optimisation.
        served: Bytes of the served file, which has the format that `served` refers to. Formats
            other than JPEG and WebP become PNG.

    Returns:
        Bytes of the file.
    """
    format_ = settings.format
    if format_ == "served":
        format_ = _SERVED_FORMATS.get(extension(served), "png")
    if format_ == "jpeg":
        return _encode_jpeg(pixels, settings)
    if format_ == "png":
        level = _PNG_LEVEL_OPTIMIZED if settings.optimize else _PNG_LEVEL
        _, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, level])
    else:
        _, data = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, settings.quality])
    return data.tobytes()


def extension(file: bytes) -> str:
    """The usual extension of an image file, without the dot, according to its bytes."""
    if file.startswith(_JPEG):
        return "jpg"
    with PILImage.open(io.BytesIO(file)) as image:
        format_ = str(image.format).lower()
        return FORMAT_EXTENSIONS.get(format_, format_)


def _encode_jpeg(pixels: Pixels, settings: EncodeSettings) -> bytes:
    if settings.optimize:
        file = io.BytesIO()
        PILImage.fromarray(pixels[:, :, ::-1]).save(
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
