"""Convert images of another colour space to sRGB, with LittleCMS (Pillow's ImageCms).

Reading the file is in `decode`, spaces that are declared without a profile in `declared_colour`.
"""

from __future__ import annotations

import io
import threading
from functools import lru_cache

import numpy as np
from PIL import Image as PILImage
from PIL import ImageCms

from imgassets.imaging.declared_colour import ColourSpace, icc_profile, tone_mapped
from imgassets.imaging.image import Pixels

_CACHED_TRANSFORMS = 64  # per thread; a shop uses a few profiles
# As Photoshop and browsers convert: white maps to white, and the darkest colour to the darkest.
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION

# Most embedded profiles are variants of sRGB. A profile that changes no colour of this grid by more
# than one level is treated as sRGB, which saves the conversion.
_GRID = np.stack(np.meshgrid(*[np.linspace(0, 255, 9)] * 3, indexing="ij"), axis=-1)
_PROBE = PILImage.fromarray(_GRID.reshape(27, 27, 3).astype(np.uint8))

# LittleCMS does not document that a transform may be shared between threads.
_local = threading.local()


def to_srgb(image: PILImage.Image, profile: bytes | ColourSpace | None) -> Pixels:
    """Convert an image to sRGB pixels.

    Args:
        image: Image without transparency, in any mode that Pillow converts to RGB.
        profile: The embedded ICC profile, the declared colour space, or None. A profile that is
            broken or made for another mode (a grey profile in an RGB file) is ignored, as browsers
            do; one for RGB is used for grey, too.

    Returns:
        Pixels of shape height x width x 3, uint8, BGR.
    """
    needs_rgb = isinstance(profile, ColourSpace) or (profile or b"")[16:20] == b"RGB "
    if image.mode not in ("RGB", "CMYK", "L") or (image.mode == "L" and needs_rgb):
        image = image.convert("RGB")
    if isinstance(profile, ColourSpace):
        if profile.hdr is not None:
            image = tone_mapped(image, profile)
        profile = icc_profile(profile)
    transform = None if profile is None else _cached_transform(profile, image.mode)
    if transform is not None:
        converted = transform.apply(image)
    elif image.mode != "RGB":
        converted = image.convert("RGB")
    else:
        converted = image
    return np.asarray(converted)[:, :, ::-1]


def _cached_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    if not hasattr(_local, "transforms"):
        _local.transforms = lru_cache(_CACHED_TRANSFORMS)(_build_transform)
    transform: ImageCms.ImageCmsTransform | None = _local.transforms(profile, mode)
    return transform


def _build_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the transform to sRGB; None if the profile is unusable or equivalent to sRGB."""
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
        change = np.asarray(transform.apply(_PROBE)).astype(int) - np.asarray(_PROBE)
        if np.abs(change).max() <= 1:
            return None
    return transform
