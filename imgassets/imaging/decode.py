"""Decode an image file to upright sRGB pixels.

Pillow identifies the file (format, EXIF, ICC profile). libjpeg-turbo, through simplejpeg, decodes
the common case, RGB and grey JPEGs: it is the only binding that reports a truncated file instead of
filling the rest with grey, and it decodes at 1/2, 1/4 or 1/8 of the size at a fraction of the cost.
Pillow decodes all other files. Colour profiles are converted in `colour`; the steps that change the
pixels afterwards are not part of this module.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, UnidentifiedImageError
from PIL import Image as PILImage

from imgassets.errors import UnreadableImageError
from imgassets.imaging.colour import to_srgb
from imgassets.imaging.image import Image, Pixels
from imgassets.manifests import Outcome
from imgassets.settings import DecodeSettings

Shrink = Callable[[int, int], int]
"""From the upright width and height (px) to the maximum factor by which decoding may shrink."""

# The transform that makes an image of each EXIF orientation upright (TIFF 6.0, tag 274).
_TRANSFORMS: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],
    7: lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
}
_SWAPS_SIDES = (5, 6, 7, 8)  # orientations that swap width and height


def full_size(_width: int, _height: int) -> int:
    """Decode at full size: the default `Shrink`."""
    return 1


def decode(data: bytes, settings: DecodeSettings, shrink: Shrink = full_size) -> Image:
    """Decode an image file to upright sRGB pixels, on a background colour if it is transparent.

    Of an animation, the first frame is decoded.

    Args:
        data: Bytes of the file.
        settings: The background colour and the maximum number of pixels.
        shrink: Function that returns the factor to shrink by (1, 2, 4 or 8) for the width and
            height of the upright image. Only used for formats that support it (JPEG).

    Returns:
        The image, with its position in the served image.

    Raises:
        UnreadableImageError: The bytes are not an image, the image is truncated, damaged or of a
            kind that is not supported, or it has more than `settings.max_pixels` pixels.
    """
    try:
        with PILImage.open(io.BytesIO(data)) as image:
            pixels, size = _decode_pixels(image, data, settings, shrink)
    except UnreadableImageError:
        raise
    except PILImage.DecompressionBombError as error:
        raise UnreadableImageError(Outcome.TOO_MANY_PIXELS, str(error)) from None
    except UnidentifiedImageError:
        raise UnreadableImageError(Outcome.NOT_AN_IMAGE, "not a known image format") from None
    except Exception as error:  # decoders raise exceptions of any class
        raise UnreadableImageError(Outcome.CORRUPT, f"{type(error).__name__}: {error}") from error
    scale_x, scale_y = size[0] / pixels.shape[1], size[1] / pixels.shape[0]
    return Image(np.ascontiguousarray(pixels), size, scale_x=scale_x, scale_y=scale_y)


def _decode_pixels(
    image: PILImage.Image, data: bytes, settings: DecodeSettings, shrink: Shrink
) -> tuple[Pixels, tuple[int, int]]:
    """Returns the upright pixels, and the upright width and height at full size."""
    if image.width * image.height > settings.max_pixels:
        raise UnreadableImageError(
            Outcome.TOO_MANY_PIXELS,
            f"{image.width} x {image.height} pixels, more than {settings.max_pixels:,} "
            "(decode.max_pixels)",
        )
    profile = image.info.get("icc_profile")
    if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
        orientation = _orientation(image)
        size = _upright_size(image.size, orientation)
        pixels = _decode_jpeg(image, data, shrink(*size))
        if profile is not None:
            grey = image.mode == "L"
            decoded = PILImage.fromarray(pixels[:, :, 0] if grey else pixels[:, :, ::-1])
            pixels = to_srgb(decoded, profile)
        return _make_upright(pixels, orientation), size
    image.load()
    # Read after loading, because Pillow itself makes TIFFs upright while it loads them.
    orientation = _orientation(image)
    pixels = _make_upright(_flatten(_to_eight_bit(image), profile, settings), orientation)
    return pixels, (pixels.shape[1], pixels.shape[0])


def _decode_jpeg(image: PILImage.Image, data: bytes, factor: int) -> Pixels:
    width, height = (-(-side // factor) for side in image.size)
    # libjpeg-turbo chooses the smallest size that is at least this one, which is exactly `factor`
    # because it rounds sides up too.
    try:
        decoded = simplejpeg.decode_jpeg(
            data, "BGR", min_width=width, min_height=height, strict=True
        )
    except ValueError as error:
        # Its interface knows the six usual sampling factors only; the decoder itself knows all.
        if "subsampling level" not in str(error):
            raise
        decoded = np.asarray(image.convert("RGB"))[:, :, ::-1]
    return np.asarray(decoded, dtype=np.uint8)


def _to_eight_bit(image: PILImage.Image) -> PILImage.Image:
    """Convert 16-bit grey levels to their high bytes; Pillow would clip them at 255."""
    if image.mode.startswith("I;16") or image.mode == "I":
        deep = np.asarray(image).astype(np.int64)
        return PILImage.fromarray((np.clip(deep, 0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise UnreadableImageError(
            Outcome.UNSUPPORTED_FORMAT, "images with floating-point pixels are not supported"
        )
    return image


def _flatten(image: PILImage.Image, profile: bytes | None, settings: DecodeSettings) -> Pixels:
    """Convert to sRGB, and blend transparent pixels with the background colour."""
    if not image.has_transparency_data:
        return to_srgb(image, profile)
    rgba = image.convert("RGBA")
    # A grey profile does not fit the pixels, which are RGB now.
    fits = image.mode.startswith(("RGB", "P"))
    pixels = to_srgb(rgba.convert("RGB"), profile if fits else None)
    alpha = np.asarray(rgba.getchannel("A"))
    if alpha.min() == 255:
        return pixels
    opacity = alpha[:, :, None].astype(np.float32) / 255
    background = np.array(settings.background[::-1], dtype=np.float32)
    return np.rint(pixels * opacity + background * (1 - opacity)).astype(np.uint8)


def _orientation(image: PILImage.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  (broken EXIF data: the image itself may be fine)
        return 1


def _upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation in _SWAPS_SIDES else size


def _make_upright(pixels: Pixels, orientation: int) -> Pixels:
    transform = _TRANSFORMS.get(orientation)
    return pixels if transform is None else transform(pixels)
