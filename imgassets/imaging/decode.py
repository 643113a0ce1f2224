"""Bytes of a picture file to pixels.

Here lives reading what a shop serves. What is then done with the pixels is in the steps.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from imgassets.imaging.picture import Pixels


class Unreadable(Exception):  # noqa: N818  (what a file is, not a fault of the program)
    """The bytes give no whole picture; the message says why."""


class NotAnImage(Unreadable):
    """The bytes are of no known picture format."""


def decode(data: bytes) -> Pixels:
    """Decode a picture file, its EXIF orientation applied.

    Returns:
        Height x width x 3, uint8, BGR.

    Raises:
        NotAnImage: the bytes are no picture.
        Unreadable: the picture is cut off or broken.
    """
    try:
        with warnings.catch_warnings():
            # What Pillow warns of (broken metadata) does not touch the pixels.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                upright = ImageOps.exif_transpose(image)
                rgb = np.asarray(_on_white(upright))
    except UnidentifiedImageError:
        raise NotAnImage("no known picture format") from None
    except Exception as error:  # decoders raise whatever the broken bytes lead to
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")
