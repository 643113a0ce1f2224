"""Decode an image file to upright sRGB pixels.

Pillow identifies the file (format, EXIF, ICC profile) unless it is a JPEG without metadata.
libjpeg-turbo, through simplejpeg, decodes JPEGs: it is the only binding that reports a truncated
file instead of filling the rest with grey, and it decodes at 1/2, 1/4 or 1/8 of the size at a
fraction of the cost. OpenCV decodes opaque WebP files, Pillow all others. What is unusual in a file
but harmless is taken out before: in `jpeg`, `png` and `bmp`. Colours are converted in `colour`; the
steps that change the pixels afterwards are not part of this module.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, UnidentifiedImageError
from PIL import Image as PILImage
from PIL.ImageFile import ImageFile

from imgassets.errors import UnreadableImageError
from imgassets.imaging import bmp, declared_colour, jpeg, optional_formats, png
from imgassets.imaging.colour import to_srgb
from imgassets.imaging.declared_colour import ColourSpace
from imgassets.imaging.image import Image, Pixels
from imgassets.manifests import Outcome
from imgassets.settings import DecodeSettings

Shrink = Callable[[int, int], int]
"""From the upright width and height (px) to the maximum factor by which decoding may shrink."""

_Decoded: TypeAlias = tuple[Pixels, tuple[int, int]]
"""The upright pixels, and the upright width and height at full size (px)."""

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
_PIXELS_PER_BLOCK = 1 << 18
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_WEBP_ANIMATION, _WEBP_ALPHA = 0x02, 0x10
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
        if data.startswith(png.SIGNATURE):
            pixels, size = _decode_png(data, settings)
        elif (plain := _decode_plain_jpeg(data, settings, shrink)) is not None:
            pixels, size = plain
        else:
            pixels, size = _decode_other(data, settings, shrink)
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


def _decode_other(data: bytes, settings: DecodeSettings, shrink: Shrink) -> _Decoded:
    formats = None
    if (optional := optional_formats.identify(data)) is not None:
        if not optional_formats.is_installed(optional):
            raise UnreadableImageError(
                Outcome.UNSUPPORTED_FORMAT, optional_formats.missing(optional)
            )
        if optional == optional_formats.JPEG_XL:
            # Its package decodes the pixels before it tells how many there are.
            _check_pixels(optional_formats.jpeg_xl_size(data), settings)
        formats = [optional_formats.PILLOW_NAMES[optional]]
    elif optional_formats.is_avif(data):
        formats = ["AVIF"]  # the package for HEIC would decode them, too
    elif data.startswith(b"BM"):
        data = bmp.in_usual_form(data)
    elif data.startswith(b"RIFF"):
        data = _with_transparent_canvas(data)
    try:
        with PILImage.open(io.BytesIO(data), formats=formats) as image:
            return _decode_opened(image, data, settings, shrink)
    except (UnreadableImageError, PILImage.DecompressionBombError):
        raise
    except Exception:
        if not data.startswith(jpeg.SIGNATURE):
            raise
    # Only files with a fault pay for the second attempt; damage to the pixels fails again.
    data = jpeg.without_faulty_metadata(data)
    with PILImage.open(io.BytesIO(data)) as image:
        return _decode_opened(image, data, settings, shrink)


def _with_transparent_canvas(data: bytes) -> bytes:
    """Set the alpha flag of an animated WebP file (RFC 9649, 2.7.1).

    Without it, Pillow shows black where the first frame does not cover the canvas.
    """
    if data[12:16] != b"VP8X" or not data[20] & _WEBP_ANIMATION:
        return data
    return data[:20] + bytes([data[20] | _WEBP_ALPHA]) + data[21:]


def _decode_opened(
    image: ImageFile, data: bytes, settings: DecodeSettings, shrink: Shrink
) -> _Decoded:
    _check_pixels(image.size, settings)
    profile = image.info.get("icc_profile")
    if profile is None and image.format in ("AVIF", "HEIF"):
        profile = declared_colour.of_container(data)
    if image.format in ("JPEG", "MPO"):
        orientation = _orientation(image)
        size = _upright_size(image.size, orientation)
        pixels = _decode_jpeg(image, data, shrink(*size))
        if image.mode == "CMYK":
            inks = 255 - pixels  # as Photoshop stores them, and browsers assume
            pixels = to_srgb(PILImage.frombytes("CMYK", inks.shape[1::-1], inks.tobytes()), profile)
        elif profile is not None:
            grey = image.mode == "L"
            decoded = PILImage.fromarray(pixels[:, :, 0] if grey else pixels[:, :, ::-1])
            pixels = to_srgb(decoded, profile)
        return _make_upright(pixels, orientation), size
    if image.format == "WEBP" and (opaque := _decode_opaque_webp(image, data)) is not None:
        if profile is not None:
            opaque = to_srgb(PILImage.fromarray(opaque[:, :, ::-1]), profile)
        orientation = _orientation(image)
        return _make_upright(opaque, orientation), _upright_size(image.size, orientation)
    if image.format == "TIFF":
        image.info.pop("xmp", None)  # Pillow would turn the image as its XMP says
    frame = image.tile[0].extents if image.format == "GIF" else None
    image.load()
    # Read after loading, because Pillow itself makes TIFFs upright while it loads them.
    orientation = _orientation(image)
    pixels = _flatten(_to_eight_bit(image), profile, settings)
    if frame is not None:
        pixels = _on_background(pixels, frame, settings)
    pixels = _make_upright(pixels, orientation)
    return pixels, (pixels.shape[1], pixels.shape[0])


def _on_background(
    pixels: Pixels, frame: tuple[int, int, int, int], settings: DecodeSettings
) -> Pixels:
    """Show the configured background, not the one of the file, outside the frame of a GIF."""
    left, top, right, bottom = frame
    canvas = np.full_like(pixels, settings.background[::-1])
    canvas[top:bottom, left:right] = pixels[top:bottom, left:right]
    return canvas


def _check_pixels(size: tuple[int, int], settings: DecodeSettings) -> None:
    width, height = size
    if width * height > settings.max_pixels:
        raise UnreadableImageError(
            Outcome.TOO_MANY_PIXELS,
            f"{width} x {height} pixels, more than {settings.max_pixels:,} (decode.max_pixels)",
        )


def _decode_plain_jpeg(data: bytes, settings: DecodeSettings, shrink: Shrink) -> _Decoded | None:
    """Decode a JPEG without metadata, as most shops serve it; None if it has some, or a fault.

    Without Pillow, processing takes 2 % less time.
    """
    size = jpeg.plain_size(data) if data.startswith(jpeg.SIGNATURE) else None
    if size is None or size[0] * size[1] > settings.max_pixels:
        return None
    try:
        return _decode_with_libjpeg(data, "BGR", size, shrink(*size)), size
    except ValueError:
        return None


def _decode_with_libjpeg(
    data: bytes, mode: str, size: tuple[int, int], factor: int
) -> NDArray[np.uint8]:
    # libjpeg-turbo chooses the smallest size that is at least this one, which is exactly `factor`
    # because it rounds sides up too.
    width, height = (-(-side // factor) for side in size)
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
        data, mode, min_width=width, min_height=height, strict=True
    )
    return pixels


def _decode_jpeg(image: PILImage.Image, data: bytes, factor: int) -> NDArray[np.uint8]:
    """Decode to BGR, or to four inverted inks if the file is CMYK."""
    mode = "CMYK" if image.mode == "CMYK" else "BGR"
    try:
        return _decode_with_libjpeg(data, mode, image.size, factor)
    except ValueError as error:
        if (left_over := _LEFT_OVER.search(str(error))) is not None:
            count, marker = int(left_over[1]), int(left_over[2], 16)
            trimmed = jpeg.without_padding(data, count, marker)
            if trimmed is not None:
                return _decode_jpeg(image, trimmed, factor)
        # Its interface knows the six usual sampling factors only; the decoder itself knows all.
        if "subsampling level" not in str(error):
            raise
        if mode == "CMYK":
            decoded = 255 - np.asarray(image)
        else:
            decoded = np.asarray(image.convert("RGB"))[:, :, ::-1]
    return np.asarray(decoded, dtype=np.uint8)


def _decode_opaque_webp(image: PILImage.Image, data: bytes) -> Pixels | None:
    """Decode a WebP file with OpenCV, in two thirds of Pillow's time, to the same pixels.

    Returns:
        The pixels; None if the file is transparent, an animation or damaged.
    """
    import cv2

    extended = data[12:16] == b"VP8X" and data[20] & (_WEBP_ANIMATION | _WEBP_ALPHA)
    if extended or image.mode != "RGB":
        return None
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None or pixels.shape[1::-1] != image.size:
        return None
    return np.asarray(pixels, np.uint8)


def _decode_png(data: bytes, settings: DecodeSettings) -> _Decoded:
    chunks = png.read(data)
    try:
        return _decode_chunks(chunks, settings)
    except OSError:
        mended = chunks.with_right_checksum()
        if mended is None:
            raise
    return _decode_chunks(mended, settings)


def _decode_chunks(chunks: png.Png, settings: DecodeSettings) -> _Decoded:
    transparency = chunks.transparency
    # Pillow knows the upper half of 16-bit samples only.
    deep = chunks.depth == 16 and transparency is not None
    file = chunks.without_metadata(None if deep else _as_eight_bit(transparency, chunks))
    with PILImage.open(io.BytesIO(file)) as image:
        _check_pixels(image.size, settings)
        image.load()
        # Pillow leaves missing pixels zero, and is silent about them if the compressed data ends
        # properly. Most images show by their last row that nothing is missing.
        may_lack_pixels = chunks.interlaced or _is_blank(image, image.height - 1)
        if may_lack_pixels and not chunks.has_all_pixels():
            raise UnreadableImageError(Outcome.CORRUPT, "the PNG file lacks some of its pixels")
        flat = _to_eight_bit(image)
        if deep and transparency is not None:
            flat.putalpha(PILImage.fromarray(_opacity(file, transparency)))
        pixels = _make_upright(
            _flatten(flat, declared_colour.of_png(chunks), settings), _orientation(image)
        )
    return pixels, (pixels.shape[1], pixels.shape[0])


def _as_eight_bit(transparency: bytes | None, chunks: png.Png) -> bytes | None:
    """Convert the transparent grey level or colour as Pillow converts the pixels, to 8 bits."""
    if transparency is None or chunks.colour_type == png.PALETTE:
        return transparency
    highest = 2**chunks.depth - 1
    # Higher bits mean nothing (PNG specification, 11.3.1.1).
    levels = np.frombuffer(transparency, ">u2").astype(int) & highest
    return bytes((levels * (255 // highest)).astype(">u2"))


def _opacity(file: bytes, transparency: bytes) -> NDArray[np.uint8]:
    """The opacity of 16-bit samples: 0 where all are those of the tRNS chunk, 255 elsewhere."""
    import cv2

    samples = np.asarray(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED))
    colour = np.frombuffer(transparency, ">u2")[::-1]  # OpenCV returns BGR
    opaque = (samples.reshape(*samples.shape[:2], -1) != colour).any(axis=2)
    return np.where(opaque, np.uint8(255), np.uint8(0))


def _is_blank(image: PILImage.Image, row: int) -> bool:
    return not np.asarray(image.crop((0, row, image.width, row + 1))).any()


def _is_invisible(image: PILImage.Image) -> bool:
    return image.getchannel("A").getextrema() == (0, 0)


def _to_eight_bit(image: PILImage.Image) -> PILImage.Image:
    """Convert 16-bit grey levels to their high bytes; Pillow would clip them at 255."""
    if image.format == "BMP" and image.mode == "RGBA" and _is_invisible(image):
        return image.convert("RGB")  # as browsers do: the fourth byte has not been filled in
    if image.mode.startswith("I;16") or image.mode == "I":
        deep = np.asarray(image).astype(np.int64)
        return PILImage.fromarray((np.clip(deep, 0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise UnreadableImageError(
            Outcome.UNSUPPORTED_FORMAT, "images with floating-point pixels are not supported"
        )
    return image


def _flatten(
    image: PILImage.Image, profile: bytes | ColourSpace | None, settings: DecodeSettings
) -> Pixels:
    """Convert to sRGB, and blend transparent pixels with the background colour."""
    if not image.has_transparency_data:
        return to_srgb(image, profile)
    # Grey stays grey for the conversion, because a grey profile fits no other pixels.
    modes = ("LA", "L") if image.mode in ("1", "L", "LA", "La") else ("RGBA", "RGB")
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    background = np.array(settings.background[::-1], np.float32)
    # In blocks, so that the copies of the image in other modes and types are small.
    rows = max(_PIXELS_PER_BLOCK // image.width, 1)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        block = image.crop((0, top, image.width, bottom)).convert(modes[0])
        colours = to_srgb(block.convert(modes[1]), profile)
        alpha = np.asarray(block.getchannel("A"))
        if alpha.min() < 255:
            opacity = alpha[:, :, None].astype(np.float32) / 255
            colours = np.rint(colours * opacity + background * (1 - opacity)).astype(np.uint8)
        pixels[top:bottom] = colours
    return pixels


def _orientation(image: PILImage.Image) -> int:
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return 1  # its own orientation counts, which the decoder has applied
    exif = PILImage.Exif()
    try:
        # Not `image.getexif()`, which turns to XMP; browsers do not.
        exif.load(image.info.get("exif", b""))
        orientation = exif.get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001  (broken EXIF data: the image itself may be fine)
        return 1
    return orientation if isinstance(orientation, int) else 1


def _upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation in _SWAPS_SIDES else size


def _make_upright(pixels: Pixels, orientation: int) -> Pixels:
    transform = _TRANSFORMS.get(orientation)
    return pixels if transform is None else transform(pixels)
