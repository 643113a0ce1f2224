"""Bytes of a picture file to upright sRGB pixels.

Here lives reading what a shop serves. Pillow says what a file is (format, EXIF, ICC profile) and
decodes the rest; libjpeg-turbo, through simplejpeg, decodes the common case, RGB and grey JPEGs:
it is the only binding that reports a file that is cut off instead of filling it up with grey, and
it can decode at a half, a quarter or an eighth of the size for a share of the cost. Colour
profiles are in `colour`. What is then done with the pixels is in the steps.
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
"""By how much a picture of that width and height may be shrunk while it is decoded."""

# EXIF orientation to what makes the picture upright (TIFF 6.0, tag 274).
_UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],
    7: lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
}
_TURNED = (5, 6, 7, 8)


def full_size(_width: int, _height: int) -> int:
    """The `Shrink` that shrinks nothing."""
    return 1


def decode(data: bytes, settings: DecodeSettings, shrink: Shrink = full_size) -> Image:
    """Decode a picture file: upright, in sRGB, on a background where it is transparent.

    Animations give their first picture.

    Args:
        data: the file.
        settings: the background colour, the largest size.
        shrink: asked with the size of the upright picture; a factor of 2, 4 or 8 that it allows is
            used where the format can do it (JPEG).

    Raises:
        UnreadableImageError: The bytes are not an image, the image is truncated, damaged or of a
            kind that is not supported, or it has more than `settings.max_pixels` pixels.
    """
    try:
        with PILImage.open(io.BytesIO(data)) as image:
            pixels, size = _decoded(image, data, settings, shrink)
    except UnreadableImageError:
        raise
    except PILImage.DecompressionBombError as error:
        raise UnreadableImageError(Outcome.TOO_MANY_PIXELS, str(error)) from None
    except UnidentifiedImageError:
        raise UnreadableImageError(Outcome.NOT_AN_IMAGE, "no known picture format") from None
    except Exception as error:  # decoders raise whatever the broken bytes lead to
        raise UnreadableImageError(Outcome.CORRUPT, f"{type(error).__name__}: {error}") from error
    scale_x, scale_y = size[0] / pixels.shape[1], size[1] / pixels.shape[0]
    return Image(np.ascontiguousarray(pixels), size, scale_x=scale_x, scale_y=scale_y)


def _decoded(
    image: PILImage.Image, data: bytes, settings: DecodeSettings, shrink: Shrink
) -> tuple[Pixels, tuple[int, int]]:
    """Upright pixels, and the upright width and height at full size."""
    if image.width * image.height > settings.max_pixels:
        raise UnreadableImageError(
            Outcome.TOO_MANY_PIXELS,
            f"{image.width}x{image.height} pixels, more than {settings.max_pixels:,} "
            "(decode.max_pixels)",
        )
    profile = image.info.get("icc_profile")
    if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
        orientation = _orientation(image)
        size = _turned(image.size, orientation)
        pixels = _jpeg(data, image.size, shrink(*size))
        if profile is not None:
            grey = image.mode == "L"
            seen = PILImage.fromarray(pixels[:, :, 0] if grey else pixels[:, :, ::-1])
            pixels = to_srgb(seen, profile)
        return _upright(pixels, orientation), size
    image.load()
    # Asked after loading, since Pillow turns TIFFs by itself.
    orientation = _orientation(image)
    pixels = _upright(_on_background(_eight_bit(image), profile, settings), orientation)
    return pixels, (pixels.shape[1], pixels.shape[0])


def _jpeg(data: bytes, size: tuple[int, int], factor: int) -> Pixels:
    width, height = (-(-side // factor) for side in size)
    # libjpeg-turbo scales to the smallest size that is at least this: exactly our factor, since
    # it rounds sides up as well.
    decoded = simplejpeg.decode_jpeg(data, "BGR", min_width=width, min_height=height, strict=True)
    return np.asarray(decoded, dtype=np.uint8)


def _eight_bit(image: PILImage.Image) -> PILImage.Image:
    """Pillow's conversion of deep grey pictures clips their values; their high byte is meant."""
    if image.mode.startswith("I;16") or image.mode == "I":
        deep = np.asarray(image).astype(np.int64)
        return PILImage.fromarray((np.clip(deep, 0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise UnreadableImageError(Outcome.CORRUPT, "floating-point pixels have no agreed range")
    return image


def _on_background(
    image: PILImage.Image, profile: bytes | None, settings: DecodeSettings
) -> Pixels:
    if not image.has_transparency_data:
        return to_srgb(image, profile)
    rgba = image.convert("RGBA")
    # Grey profiles no longer fit the pixels, which are RGB by now.
    fits = image.mode.startswith(("RGB", "P"))
    pixels = to_srgb(rgba.convert("RGB"), profile if fits else None)
    alpha = np.asarray(rgba.getchannel("A"))
    if alpha.min() == 255:
        return pixels
    share = alpha[:, :, None].astype(np.float32) / 255
    background = np.array(settings.background[::-1], dtype=np.float32)
    return np.rint(pixels * share + background * (1 - share)).astype(np.uint8)


def _orientation(image: PILImage.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  (broken EXIF data says nothing; the picture is whole)
        return 1


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation in _TURNED else size


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    turn = _UPRIGHT.get(orientation)
    return pixels if turn is None else turn(pixels)
