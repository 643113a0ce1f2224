"""Served bytes -> what they are: judged by the bytes, not by a name or a Content-Type.

Here lives the look at headers and structure that every download gets: format, size in pixels, and
whether the file is whole. Nothing is decoded for the formats of catalogues (JPEG, PNG, WebP, GIF),
which keeps this below a tenth of a millisecond a picture; damage inside the compressed pixels of a
whole file shows when the picture is decoded, in `imaging`.
"""

from __future__ import annotations

import re
import struct
import threading
import zlib
from dataclasses import dataclass
from io import BytesIO

from imgassets.errors import UnreadableImageError
from imgassets.manifests import Outcome

EXTENSIONS = {
    "jpeg": "jpg",
    "png": "png",
    "webp": "webp",
    "gif": "gif",
    "bmp": "bmp",
    "tiff": "tif",
    "avif": "avif",
}


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What a file is."""

    format: str
    """A key of `EXTENSIONS`."""
    width: int
    height: int
    """Pixels, before any EXIF orientation."""


def inspect(data: bytes, max_pixels: int) -> ImageInfo:
    """Say what a file is, from its bytes.

    Raises:
        UnreadableImageError: it is no picture, not a whole one, or one of more than `max_pixels`.
    """
    if not data:
        raise UnreadableImageError(Outcome.EMPTY, "the server sent no bytes")
    if data.startswith(b"\xff\xd8\xff"):
        picture = _jpeg(data)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        picture = _png(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        picture = _webp(data)
    elif data.startswith((b"GIF87a", b"GIF89a")):
        picture = _gif(data)
    elif (rare := _rare_format(data)) is not None:
        return _decoded(data, rare, max_pixels)
    else:
        raise _no_picture(data)
    if picture.width < 1 or picture.height < 1:
        raise _corrupt(f"its header says {picture.width} x {picture.height} pixels")
    _check_pixels(picture, max_pixels)
    return picture


def _check_pixels(picture: ImageInfo, max_pixels: int) -> None:
    if picture.width * picture.height > max_pixels:
        raise UnreadableImageError(
            Outcome.TOO_MANY_PIXELS,
            f"{picture.width} x {picture.height} pixels; allowed: {max_pixels}",
        )


def _corrupt(why: str) -> UnreadableImageError:
    return UnreadableImageError(Outcome.CORRUPT, why)


def _cut_off(format_: str) -> UnreadableImageError:
    return _corrupt(f"the {format_} file is cut off")


# ITU-T T.81, table B.1: frame headers are C0 to CF without DHT (C4), JPG (C8) and DAC (CC).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
# Inside a scan FF is followed by a stuffed zero, a restart marker, or a fill byte.
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def _jpeg(data: bytes) -> ImageInfo:
    """Walk the markers (ITU-T T.81, annex B): whole when a scan is followed by an end of image."""
    size: tuple[int, int] | None = None
    scans = 0
    pos = 2
    while True:
        # Decoders skip bytes between segments too.
        found = _END_OF_SCAN.search(data, pos)
        if found is None:
            raise _cut_off("JPEG")
        marker = data[found.start() + 1]
        pos = found.end()
        if marker == _END_OF_IMAGE:
            if size is None or not scans:
                raise _corrupt("the JPEG file holds no picture")
            return ImageInfo("jpeg", *size)
        if marker in _WITHOUT_LENGTH:
            continue
        if marker < 0xC0:
            raise _corrupt(f"the JPEG file holds an unknown marker FF{marker:02X}")
        if pos + 2 > len(data):
            raise _cut_off("JPEG")
        length = int.from_bytes(data[pos : pos + 2])
        if length < 2:
            raise _corrupt(f"the JPEG file holds a segment of {length} bytes")
        if pos + length > len(data):
            raise _cut_off("JPEG")
        if marker in _FRAMES and size is None:
            if length < 8:
                raise _corrupt("the JPEG file's frame header is too short")
            height, width = struct.unpack_from(">HH", data, pos + 3)
            size = (width, height)
        scans += marker == _START_OF_SCAN
        pos += length


def _png(data: bytes) -> ImageInfo:
    """Walk the chunks (PNG specification, 5.3) and check their checksums, up to IEND."""
    view = memoryview(data)
    pos = 8
    size: tuple[int, int] | None = None
    pixels = False
    while pos + 12 <= len(data):
        length = int.from_bytes(data[pos : pos + 4])
        end = pos + 12 + length
        if end > len(data):
            break
        kind = data[pos + 4 : pos + 8]
        if zlib.crc32(view[pos + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise _corrupt("a checksum in the PNG file is wrong")
        if size is None:
            if kind != b"IHDR" or length != 13:
                raise _corrupt("the PNG file does not start with its header")
            size = struct.unpack_from(">II", data, pos + 8)
        pixels |= kind == b"IDAT"
        if kind == b"IEND":
            if not pixels:
                raise _corrupt("the PNG file holds no pixels")
            return ImageInfo("png", *size)
        pos = end
    raise _cut_off("PNG")


def _webp(data: bytes) -> ImageInfo:
    """Walk the RIFF chunks up to the picture (RFC 9649, 2.3 to 2.7)."""
    end = int.from_bytes(data[4:8], "little") + 8
    if end > len(data):
        raise _cut_off("WebP")
    canvas: tuple[int, int] | None = None
    pos = 12
    while pos + 8 <= end:
        kind = data[pos : pos + 4]
        body = pos + 8
        length = int.from_bytes(data[pos + 4 : body], "little")
        if body + length > end:
            raise _cut_off("WebP")
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
    raise _corrupt("the WebP file holds no picture")


def _gif(data: bytes) -> ImageInfo:
    """Walk the blocks (GIF89a specification) past the first frame, whose end must be there."""
    try:
        width, height, flags = struct.unpack_from("<HHB", data, 6)
        pos = 13 + _colour_table(flags)
        while data[pos] == 0x21:
            pos = _after_blocks(data, pos + 2)
        if data[pos] != 0x2C:
            raise _corrupt("the GIF file holds no picture")
        pos += 10 + _colour_table(data[pos + 9])
        _after_blocks(data, pos + 1)
    except (IndexError, struct.error):
        raise _cut_off("GIF") from None
    return ImageInfo("gif", width, height)


def _colour_table(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(data: bytes, pos: int) -> int:
    while length := data[pos]:
        pos += 1 + length
    return pos + 1


def _rare_format(data: bytes) -> str | None:
    if data.startswith(b"BM") and len(data) >= 26 and data[6:10] == bytes(4):
        return "bmp"
    if data.startswith((b"II*\0", b"MM\0*")):
        return "tiff"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "avif"
    return None


# One at a time: decoded pixels of many threads would be the memory that the guards bound.
_decoding = threading.Lock()


def _decoded(data: bytes, format_: str, max_pixels: int) -> ImageInfo:
    """Formats that catalogues hardly use are decoded: their structure tells too little."""
    from PIL import Image

    with _decoding:
        try:
            with Image.open(BytesIO(data), formats=[format_.upper()]) as image:
                picture = ImageInfo(format_, *image.size)
                _check_pixels(picture, max_pixels)
                image.load()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise UnreadableImageError(Outcome.TOO_MANY_PIXELS, str(error)) from error
        except UnreadableImageError:
            raise
        except Exception as error:
            raise _corrupt(f"the {format_.upper()} file is broken: {error}") from error
    return picture


# Possessive, or a page of many comments would take for ever.
_HTML = re.compile(
    rb"\s*+(?:<!--.*?-->\s*+)*+<(?:!doctype html|html|head|body|script|title)\b", re.I | re.S
)
_SVG = re.compile(rb"<svg[\s>]", re.I)
_UNSUPPORTED = (
    (re.compile(rb"....ftyp(hei[cxms]|hev[cx]|mif1|msf1)", re.S), "HEIC"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "JPEG XL"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"\0\0\x01\0[\x01-\x20]\0", re.S), "ICO"),
    (re.compile(rb"8BPS"), "PSD"),
    (re.compile(rb"%PDF-"), "PDF"),
    (re.compile(rb"%!PS"), "PostScript"),
)


def _no_picture(data: bytes) -> UnreadableImageError:
    head = data[:2048].removeprefix(b"\xef\xbb\xbf")
    if _HTML.match(head):
        return UnreadableImageError(Outcome.NOT_AN_IMAGE, "an HTML page")
    if _SVG.search(head):
        return UnreadableImageError(Outcome.UNSUPPORTED_FORMAT, "an SVG drawing")
    for pattern, name in _UNSUPPORTED:
        if pattern.match(head):
            return UnreadableImageError(Outcome.UNSUPPORTED_FORMAT, f"a {name} file")
    return UnreadableImageError(Outcome.NOT_AN_IMAGE, f"no picture; it starts with {head[:16]!r}")
