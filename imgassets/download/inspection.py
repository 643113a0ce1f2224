"""Identify an image file from its bytes: format, dimensions and whether the file is complete.

The file name and the Content-Type header are ignored. The common formats of catalogues (JPEG, PNG,
WebP, GIF) are not decoded, only their headers and structure are read, which takes less than 0.1 ms
per image. Damage inside the compressed pixels is found when `imaging` decodes the image.
"""

from __future__ import annotations

import re
import struct
import threading
from dataclasses import dataclass
from io import BytesIO

from imgassets.errors import UnreadableImageError
from imgassets.imaging import jpeg, optional_formats, png
from imgassets.manifests import Outcome


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Format and dimensions of an image file.

    Attributes:
        format: A key of `manifests.FORMAT_EXTENSIONS`.
        width: Width in pixels, before any EXIF orientation.
        height: Height in pixels, before any EXIF orientation.
    """

    format: str
    width: int
    height: int


def inspect(data: bytes, max_pixels: int) -> ImageInfo:
    """Identify an image file.

    Args:
        data: The whole file.
        max_pixels: Maximum width x height in pixels.

    Returns:
        Format and dimensions.

    Raises:
        UnreadableImageError: The file is not an image, is incomplete, or has more than `max_pixels`
            pixels.
    """
    if not data:
        raise UnreadableImageError(Outcome.EMPTY, "the server sent no bytes")
    if data.startswith(jpeg.SIGNATURE):
        info = _read_jpeg(data)
    elif data.startswith(png.SIGNATURE):
        info = _read_png(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        info = _read_webp(data)
    elif data.startswith((b"GIF87a", b"GIF89a")):
        info = _read_gif(data)
    elif (rare := _detect_rare_format(data, max_pixels)) is not None:
        return _decode(data, rare, max_pixels)
    else:
        raise _not_an_image(data)
    if info.width < 1 or info.height < 1:
        raise _corrupt(f"the header says {info.width} x {info.height} pixels")
    _check_pixels(info, max_pixels)
    return info


def _check_pixels(info: ImageInfo, max_pixels: int) -> None:
    if info.width * info.height > max_pixels:
        raise UnreadableImageError(
            Outcome.TOO_MANY_PIXELS,
            f"{info.width} x {info.height} pixels, more than {max_pixels:,} (download.max_pixels)",
        )


def _corrupt(reason: str) -> UnreadableImageError:
    return UnreadableImageError(Outcome.CORRUPT, reason)


def _truncated(format_: str) -> UnreadableImageError:
    return _corrupt(f"the {format_} file is truncated")


def _read_jpeg(data: bytes) -> ImageInfo:
    """Walk the markers up to the end of the image (ITU-T T.81, annex B).

    The file is complete if it has a frame header, a scan and an end-of-image marker.
    """
    size: tuple[int, int] | None = None
    scans = 0
    pos = 2
    while True:
        # Skip bytes between segments, as decoders do.
        match = jpeg.NEXT_MARKER.search(data, pos)
        if match is None:
            raise _truncated("JPEG")
        marker = data[match.start() + 1]
        pos = match.end()
        if marker == jpeg.END_OF_IMAGE:
            if size is None or not scans:
                raise _corrupt("the JPEG file contains no image")
            return ImageInfo("jpeg", *size)
        if marker in jpeg.MARKERS_WITHOUT_LENGTH:
            continue
        if marker < 0xC0:
            raise _corrupt(f"the JPEG file contains an unknown marker FF{marker:02X}")
        if pos + 2 > len(data):
            raise _truncated("JPEG")
        length = int.from_bytes(data[pos : pos + 2])
        if length < 2:
            raise _corrupt(f"the JPEG file contains a segment of {length} bytes")
        if pos + length > len(data):
            raise _truncated("JPEG")
        if marker in jpeg.FRAME_MARKERS and size is None:
            if length < 8:
                raise _corrupt("the JPEG file's frame header is too short")
            height, width = struct.unpack_from(">HH", data, pos + 3)
            size = (width, height)
        scans += marker == jpeg.START_OF_SCAN
        pos += length


def _read_png(data: bytes) -> ImageInfo:
    """Walk the chunks up to IEND and verify the checksums of the critical ones."""
    chunks = png.read(data)
    return ImageInfo("png", chunks.width, chunks.height)


def _read_webp(data: bytes) -> ImageInfo:
    """Walk the RIFF chunks up to the image data (RFC 9649, 2.3 to 2.7)."""
    end = int.from_bytes(data[4:8], "little") + 8
    if end > len(data):
        raise _truncated("WebP")
    canvas: tuple[int, int] | None = None
    pos = 12
    while pos + 8 <= end:
        kind = data[pos : pos + 4]
        body = pos + 8
        length = int.from_bytes(data[pos + 4 : body], "little")
        if body + length > end:
            raise _truncated("WebP")
        if length >= 10 and kind == b"VP8X":
            canvas = (
                int.from_bytes(data[body + 4 : body + 7], "little") + 1,
                int.from_bytes(data[body + 7 : body + 10], "little") + 1,
            )
        elif kind == b"ANMF" and canvas is not None:
            return ImageInfo("webp", *canvas)
        elif length >= 10 and kind == b"VP8 " and data[body + 3 : body + 6] == b"\x9d\x01\x2a":
            width, height = struct.unpack_from("<HH", data, body + 6)
            return ImageInfo("webp", *(canvas or (width & 0x3FFF, height & 0x3FFF)))
        elif length >= 5 and kind == b"VP8L" and data[body] == 0x2F:
            bits = int.from_bytes(data[body + 1 : body + 5], "little")
            lossless = ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
            return ImageInfo("webp", *(canvas or lossless))
        pos = body + length + (length & 1)
    raise _corrupt("the WebP file contains no image")


def _read_gif(data: bytes) -> ImageInfo:
    """Walk the blocks up to the end of the first frame, which must be complete (GIF89a)."""
    try:
        width, height, flags = struct.unpack_from("<HHB", data, 6)
        pos = 13 + _colour_table_size(flags)
        while data[pos] == 0x21:
            pos = _skip_sub_blocks(data, pos + 2)
        if data[pos] != 0x2C:
            raise _corrupt("the GIF file contains no image")
        pos += 10 + _colour_table_size(data[pos + 9])
        _skip_sub_blocks(data, pos + 1)
    except (IndexError, struct.error):
        raise _truncated("GIF") from None
    return ImageInfo("gif", width, height)


def _colour_table_size(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_sub_blocks(data: bytes, pos: int) -> int:
    while length := data[pos]:
        pos += 1 + length
    return pos + 1


# Sizes of the headers of OS/2 and Windows bitmaps (bytes).
_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}


def _detect_rare_format(data: bytes, max_pixels: int) -> str | None:
    # Some programs write something into the four reserved bytes.
    if (
        data.startswith(b"BM")
        and len(data) >= 26
        and (data[6:10] == bytes(4) or int.from_bytes(data[14:18], "little") in _BMP_HEADERS)
    ):
        return "bmp"
    if data.startswith((b"II*\0", b"MM\0*")):
        return "tiff"
    if optional_formats.is_avif(data):
        return "avif"
    if (optional := optional_formats.identify(data)) is not None:
        if not optional_formats.is_installed(optional):
            raise UnreadableImageError(
                Outcome.UNSUPPORTED_FORMAT, optional_formats.missing(optional)
            )
        if optional == optional_formats.JPEG_XL:
            # Its package decodes the pixels before it tells how many there are.
            _check_pixels(ImageInfo(optional, *optional_formats.jpeg_xl_size(data)), max_pixels)
        return optional
    return None


# One image at a time: decoding in every thread would exceed the memory that `max_pixels` limits.
_decode_lock = threading.Lock()


def _decode(data: bytes, format_: str, max_pixels: int) -> ImageInfo:
    """Decode a file of a rare format, whose structure does not show whether it is complete."""
    from PIL import Image as PILImage

    from imgassets.imaging import bmp

    if format_ == "bmp":
        data = bmp.in_usual_form(data)
    name = optional_formats.PILLOW_NAMES.get(format_, format_.upper())
    with _decode_lock:
        try:
            with PILImage.open(BytesIO(data), formats=[name]) as image:
                info = ImageInfo(format_, *image.size)
                _check_pixels(info, max_pixels)
                image.load()
        except (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning) as error:
            raise UnreadableImageError(Outcome.TOO_MANY_PIXELS, str(error)) from error
        except UnreadableImageError:
            raise
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise _corrupt(f"the {name} file is broken: {reason}") from error
    return info


# Possessive quantifiers: with backtracking, a page with many comments would take forever.
_HTML = re.compile(
    rb"\s*+(?:<!--.*?-->\s*+)*+<(?:!doctype html|html|head|body|script|title)\b", re.I | re.S
)
_SVG = re.compile(rb"<svg[\s>]", re.I)
_UNSUPPORTED = (
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"\0\0\x01\0[\x01-\x20]\0", re.S), "ICO"),
    (re.compile(rb"8BPS"), "PSD"),
    (re.compile(rb"%PDF-"), "PDF"),
    (re.compile(rb"%!PS"), "PostScript"),
)


def _not_an_image(data: bytes) -> UnreadableImageError:
    head = data[:2048].removeprefix(b"\xef\xbb\xbf")
    if _HTML.match(head):
        return UnreadableImageError(Outcome.NOT_AN_IMAGE, "an HTML page")
    if _SVG.search(head):
        return UnreadableImageError(Outcome.UNSUPPORTED_FORMAT, "SVG files are not supported")
    for pattern, name in _UNSUPPORTED:
        if pattern.match(head):
            return UnreadableImageError(
                Outcome.UNSUPPORTED_FORMAT, f"{name} files are not supported"
            )
    return UnreadableImageError(
        Outcome.NOT_AN_IMAGE, f"not an image; the file starts with {head[:16]!r}"
    )
