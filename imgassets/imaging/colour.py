"""Colour profiles: what a shop's picture means by its numbers, in sRGB.

Here lives converting embedded ICC profiles with LittleCMS (Pillow's ImageCms). Reading the file is
in `decode`.
"""

from __future__ import annotations

import io
import threading
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from imgassets.imaging.image import Pixels

_KEPT = 64  # profiles a process remembers; a shop uses a few
# As Photoshop and browsers convert: white on white, and the darkest on the darkest.
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION

# Most embedded profiles are sRGB in one of its many writings. One that moves no colour of this
# grid by more than a level is taken for sRGB, and the conversion is saved.
_GRID = np.stack(np.meshgrid(*[np.linspace(0, 255, 9)] * 3, indexing="ij"), axis=-1)
_PROBE = Image.fromarray(_GRID.reshape(27, 27, 3).astype(np.uint8))

# A transform is not said to be safe across threads.
_local = threading.local()


def to_srgb(image: Image.Image, profile: bytes | None) -> Pixels:
    """The pixels of a picture in sRGB.

    Args:
        image: of any mode that Pillow converts to RGB; without transparency.
        profile: the embedded ICC profile. One that is broken, or made for another kind of picture
            (a grey profile in an RGB file), is passed over, as browsers do.

    Returns:
        Height x width x 3, uint8, BGR.
    """
    if image.mode not in ("RGB", "CMYK", "L"):
        image = image.convert("RGB")
    transform = None if profile is None else _transform(profile, image.mode)
    if transform is not None:
        converted = transform.apply(image)
    elif image.mode != "RGB":
        converted = image.convert("RGB")
    else:
        converted = image
    return np.asarray(converted)[:, :, ::-1]


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    if not hasattr(_local, "transforms"):
        _local.transforms = lru_cache(_KEPT)(_made)
    made: ImageCms.ImageCmsTransform | None = _local.transforms(profile, mode)
    return made


def _made(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            _INTENT,
            _FLAGS,
        )
    except (ImageCms.PyCMSError, OSError):
        return None
    if mode == "RGB":
        moved = np.asarray(transform.apply(_PROBE)).astype(int) - np.asarray(_PROBE)
        if np.abs(moved).max() <= 1:
            return None
    return transform
