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
from PIL import ExifTags, Image, UnidentifiedImageError

from imgassets.imaging.colour import to_srgb
from imgassets.imaging.picture import Picture, Pixels
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


class Unreadable(Exception):  # noqa: N818  (what a file is, not a fault of the program)
    """The bytes give no whole picture; the message says why."""


class NotAnImage(Unreadable):
    """The bytes are of no known picture format."""


class TooManyPixels(Unreadable):
    """The picture is larger than the settings allow; it was not decoded."""


def full_size(_width: int, _height: int) -> int:
    """The `Shrink` that shrinks nothing."""
    return 1


def decode(data: bytes, settings: DecodeSettings, shrink: Shrink = full_size) -> Picture:
    """Decode a picture file: upright, in sRGB, on a background where it is transparent.

    Animations give their first picture.

    Args:
        data: the file.
        settings: the background colour, the largest size.
        shrink: asked with the size of the upright picture; a factor of 2, 4 or 8 that it allows is
            used where the format can do it (JPEG).

    Raises:
        NotAnImage: the bytes are no picture.
        TooManyPixels: the picture is larger than `settings.max_pixels`.
        Unreadable: the picture is cut off, broken, or of a kind that is not supported.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels, size = _decoded(image, data, settings, shrink)
    except Unreadable:
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixels(str(error)) from None
    except UnidentifiedImageError:
        raise NotAnImage("no known picture format") from None
    except Exception as error:  # decoders raise whatever the broken bytes lead to
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    scale_x, scale_y = size[0] / pixels.shape[1], size[1] / pixels.shape[0]
    return Picture(np.ascontiguousarray(pixels), size, scale_x=scale_x, scale_y=scale_y)


def _decoded(
    image: Image.Image, data: bytes, settings: DecodeSettings, shrink: Shrink
) -> tuple[Pixels, tuple[int, int]]:
    """Upright pixels, and the upright width and height at full size."""
    if image.width * image.height > settings.max_pixels:
        raise TooManyPixels(
            f"{image.width}x{image.height} pixels, more than {settings.max_pixels:,} "
            "(decode.max_pixels)"
        )
    profile = image.info.get("icc_profile")
    if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
        orientation = _orientation(image)
        size = _turned(image.size, orientation)
        pixels = _jpeg(data, image.size, shrink(*size))
        if profile is not None:
            grey = image.mode == "L"
            seen = Image.fromarray(pixels[:, :, 0] if grey else pixels[:, :, ::-1])
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


def _eight_bit(image: Image.Image) -> Image.Image:
    """Pillow's conversion of deep grey pictures clips their values; their high byte is meant."""
    if image.mode.startswith("I;16") or image.mode == "I":
        deep = np.asarray(image).astype(np.int64)
        return Image.fromarray((np.clip(deep, 0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise Unreadable("floating-point pixels have no agreed range")
    return image


def _on_background(image: Image.Image, profile: bytes | None, settings: DecodeSettings) -> Pixels:
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


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  (broken EXIF data says nothing; the picture is whole)
        return 1


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation in _TURNED else size


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    turn = _UPRIGHT.get(orientation)
    return pixels if turn is None else turn(pixels)
