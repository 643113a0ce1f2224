"""Scale images down for people to look at, hide faces in them, and encode them in few bytes.

Which images are shown is decided in `review` and `checks`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import cv2
from PIL import Image

from imgassets.imaging.decode import decode
from imgassets.imaging.resize import shrink
from imgassets.settings import DecodeSettings

FaceBox: TypeAlias = Sequence[int]
"""x, y, width and height, in pixels of the upright image."""
Scale: TypeAlias = tuple[float, float]
"""Pixels of the scaled image per pixel of the image file, horizontal and vertical."""

# Across a face box. `imaging.removal` covers 1.3 times the box with 4 squares, which are as large;
# here, the neck and the cut below the box stay visible.
_SQUARES = 3
_DECODING = DecodeSettings(max_pixels=89_000_000)  # the highest value of any retailer's settings


def load_scaled(data: bytes, cell: tuple[int, int]) -> tuple[Image.Image, Scale]:
    """Decode an image file as `processed_images` does, scaled down into a cell.

    Args:
        data: The bytes of the image file; transparent areas become white.
        cell: Maximum width and height, in pixels.

    Returns:
        The upright RGB image and its scale.

    Raises:
        UnreadableImageError: The file is broken or of a kind that is not supported.
    """
    image = decode(data, _DECODING, lambda width, height: _shrink_factor((width, height), cell))
    full_size = image.full_size
    size = _fit(full_size, cell)
    pixels = image.pixels if size == full_size else shrink(image.pixels, size)
    scaled = Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    return scaled, (size[0] / full_size[0], size[1] / full_size[1])


def _fit(size: tuple[int, int], cell: tuple[int, int]) -> tuple[int, int]:
    """The size of an image that is scaled down into a cell, in pixels."""
    scale = min(1.0, cell[0] / size[0], cell[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _shrink_factor(size: tuple[int, int], cell: tuple[int, int]) -> int:
    """By how much an image can be shrunk while it is decoded, and still fill its cell."""
    width, height = _fit(size, cell)
    factors = (8, 4, 2)
    return next((f for f in factors if size[0] >= width * f and size[1] >= height * f), 1)


def pixelate_faces(image: Image.Image, boxes: Iterable[FaceBox], scale: Scale) -> None:
    """Pixelate faces in a scaled image, in place.

    Args:
        image: The scaled image.
        boxes: Boxes of the faces, in pixels of the image file; they may extend beyond the image.
        scale: The scale of the image.
    """
    for x, y, width, height in boxes:
        left, top = max(0, math.floor(x * scale[0])), max(0, math.floor(y * scale[1]))
        right = min(image.width, math.ceil((x + width) * scale[0]))
        bottom = min(image.height, math.ceil((y + height) * scale[1]))
        if left < right and top < bottom:
            box = (left, top, right, bottom)
            squares = image.crop(box).resize((_SQUARES, _SQUARES), Image.Resampling.BOX)
            size = (right - left, bottom - top)
            image.paste(squares.resize(size, Image.Resampling.NEAREST), box)


def encode_webp(image: Image.Image, quality: int) -> bytes:
    """Encode an image as WebP, as small as the format allows.

    Args:
        image: The image.
        quality: From 0 to 100.
    """
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality, method=6)
    return file.getvalue()


def encode_avif(image: Image.Image, quality: int) -> bytes:
    """Encode an image as AVIF, which at low quality looks better than WebP of the same size.

    Args:
        image: The image.
        quality: From 0 to 100.
    """
    file = io.BytesIO()
    # At speed 6, the default, the file is as large and takes three times the CPU.
    image.save(file, "AVIF", quality=quality, speed=8, max_threads=1)
    return file.getvalue()
