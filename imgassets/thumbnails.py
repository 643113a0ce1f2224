"""Scale images down for people to look at, hide faces in them, and encode them in few bytes.

Which images are shown is decided in `review` and `checks`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from PIL import ExifTags, Image, ImageOps

FaceBox: TypeAlias = Sequence[int]
"""x, y, width and height, in pixels of the upright image."""
Scale: TypeAlias = tuple[float, float]
"""Pixels of the scaled image per pixel of the image file, horizontal and vertical."""

# Across a face box. `imaging.removal` covers 1.3 times the box with 4 squares, which are as large;
# here, the neck and the cut below the box stay visible.
_SQUARES = 3
_SWAPS_SIDES = range(5, 9)  # EXIF orientations that swap width and height


def load_scaled(data: bytes, cell: tuple[int, int]) -> tuple[Image.Image, Scale]:
    """Decode an image file, upright, RGB, scaled down into a cell.

    Args:
        data: The bytes of the image file; transparent areas become white.
        cell: Maximum width and height, in pixels.

    Returns:
        The image and its scale.

    Raises:
        Exception: The file is broken. Decoders raise `OSError`, `ValueError` and others.
    """
    with Image.open(io.BytesIO(data)) as file:
        width, height = file.size
        if file.getexif().get(ExifTags.Base.Orientation) in _SWAPS_SIDES:
            width, height = height, width
        # Decodes a JPEG at 1/2, 1/4 or 1/8 of its size if that still fills the cell.
        file.draft("RGB", (max(cell), max(cell)))
        image = ImageOps.exif_transpose(file)
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        image = image.convert("RGB")
    image.thumbnail(cell, Image.Resampling.BOX, reducing_gap=None)
    return image, (image.width / width, image.height / height)


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
