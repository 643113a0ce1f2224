"""Tests that files are identified by their bytes: format, dimensions, complete or not."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image as PILImage

from imgassets.download.inspection import ImageInfo, inspect
from imgassets.errors import UnreadableImageError
from imgassets.manifests import Outcome
from imgassets_tests.download.images import image_bytes, png_of

NO_LIMIT = 80_000_000


def outcome_of(data: bytes, max_pixels: int = NO_LIMIT) -> Outcome:
    with pytest.raises(UnreadableImageError) as caught:
        inspect(data, max_pixels)
    return caught.value.outcome


@pytest.mark.parametrize("format_", ["jpeg", "png", "webp", "gif", "bmp", "tiff", "avif"])
def test_format_and_dimensions_are_read_from_the_bytes(format_: str) -> None:
    assert inspect(image_bytes(format_.upper(), 61, 37), NO_LIMIT) == ImageInfo(format_, 61, 37)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_image_is_corrupt(format_: str, share: float) -> None:
    data = image_bytes(format_)
    assert outcome_of(data[: int(len(data) * share)]) is Outcome.CORRUPT


def test_a_jpeg_without_its_last_two_bytes_is_corrupt() -> None:
    assert outcome_of(image_bytes()[:-2]) is Outcome.CORRUPT


def test_bytes_after_the_end_of_a_jpeg_are_ignored() -> None:
    assert inspect(image_bytes() + b"\0" * 100, NO_LIMIT).format == "jpeg"


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_jpeg() -> None:
    thumbnail = image_bytes(width=20, height=20)
    exif = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2) + thumbnail
    whole = image_bytes()
    with_thumbnail = whole[:2] + exif + whole[2:]
    assert inspect(with_thumbnail, NO_LIMIT) == ImageInfo("jpeg", 60, 90)
    assert outcome_of(with_thumbnail[:-10]) is Outcome.CORRUPT


def test_a_progressive_jpeg_truncated_between_two_scans_is_corrupt() -> None:
    buffer = io.BytesIO()
    PILImage.open(io.BytesIO(image_bytes())).save(buffer, format="JPEG", progressive=True)
    data = buffer.getvalue()
    assert inspect(data, NO_LIMIT) == ImageInfo("jpeg", 60, 90)
    assert outcome_of(data[: data.rindex(b"\xff\xda")]) is Outcome.CORRUPT


def test_a_png_with_a_changed_byte_is_corrupt() -> None:
    data = bytearray(image_bytes("PNG"))
    data[len(data) // 2] ^= 1
    assert outcome_of(bytes(data)) is Outcome.CORRUPT


def test_a_png_of_40000_x_40000_pixels_has_too_many_pixels() -> None:
    bomb = png_of(40_000, 40_000)
    assert len(bomb) < 300_000
    assert outcome_of(bomb) is Outcome.TOO_MANY_PIXELS


@pytest.mark.parametrize("format_", ["BMP", "TIFF", "AVIF"])
def test_max_pixels_also_applies_to_rare_formats(format_: str) -> None:
    assert outcome_of(image_bytes(format_), max_pixels=5399) is Outcome.TOO_MANY_PIXELS


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (b"", Outcome.EMPTY),
        (b"<!DOCTYPE html><html><body>gone</body></html>", Outcome.NOT_AN_IMAGE),
        (b"\n\n <!-- x --> <HTML>", Outcome.NOT_AN_IMAGE),
        (b'{"error": "no"}', Outcome.NOT_AN_IMAGE),
        (b"<!---->" * 290 + b"<p>", Outcome.NOT_AN_IMAGE),
        (b"BM" + bytes(24), Outcome.CORRUPT),
        (b"II*\0" + bytes(100), Outcome.CORRUPT),
        (b"\0" * 5000, Outcome.NOT_AN_IMAGE),
        (
            b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
            Outcome.UNSUPPORTED_FORMAT,
        ),
        (b"%PDF-1.7", Outcome.UNSUPPORTED_FORMAT),
        (b"\xff\xd8\xff\xd9", Outcome.CORRUPT),
        (b"\xff\xd8\xff", Outcome.CORRUPT),
        (b"\x89PNG\r\n\x1a\n", Outcome.CORRUPT),
        (b"RIFF\x04\0\0\0WEBP", Outcome.CORRUPT),
        (b"GIF89a", Outcome.CORRUPT),
        (png_of(0, 5), Outcome.CORRUPT),
    ],
)
def test_a_file_that_is_not_a_complete_image_has_the_matching_outcome(
    data: bytes, outcome: Outcome
) -> None:
    assert outcome_of(data) is outcome


def error_of(data: bytes) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        inspect(data, NO_LIMIT)
    assert caught.value.outcome is Outcome.CORRUPT
    return str(caught.value)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_an_image_may_have_exactly_max_pixels(format_: str) -> None:
    data = image_bytes(format_)
    assert inspect(data, 60 * 90).width == 60
    with pytest.raises(UnreadableImageError, match="60 x 90 pixels, more than 5,399 ") as caught:
        inspect(data, 60 * 90 - 1)
    assert caught.value.outcome is Outcome.TOO_MANY_PIXELS


# JPEG, segment by segment.


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(data) + 2).to_bytes(2) + data


def frame(width: int = 60, height: int = 90, marker: int = 0xC0) -> bytes:
    return segment(marker, struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0))


SCAN = segment(0xDA, b"\x01\x01\0\0\x3f\0") + b"\x12\xff\0\x34\xff\xd0\x56"
SOI, EOI = b"\xff\xd8", b"\xff\xd9"


@pytest.mark.parametrize(
    "parts",
    [
        [frame(), SCAN],
        *([frame(marker=marker), SCAN] for marker in (0xC1, 0xC2, 0xC3, 0xC5, 0xC9, 0xCF)),
        # Tables whose markers are between the frame markers.
        *([segment(marker, bytes(range(1, 30))), frame(), SCAN] for marker in (0xC4, 0xC8, 0xCC)),
        [frame(), frame(7, 8), SCAN],
        [frame(), SCAN, SCAN, SCAN],
        # Markers without a length, an empty segment, fill bytes, bytes between segments.
        [b"\xff\x01", frame(), SCAN],
        [b"\xff\xd8", frame(), SCAN],
        [b"\xff\xd3", frame(), SCAN],
        [segment(0xFE, b""), frame(), SCAN],
        [b"\xff\xff\xff", frame(), SCAN],
        [frame(), b"between", SCAN],
    ],
)
def test_the_dimensions_of_a_jpeg_are_those_of_its_first_frame(parts: list[bytes]) -> None:
    assert inspect(SOI + b"".join(parts) + EOI, NO_LIMIT) == ImageInfo("jpeg", 60, 90)


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ([frame()], "the JPEG file contains no image"),
        ([SCAN], "the JPEG file contains no image"),
        ([frame(), b"\xff\x02", SCAN], "the JPEG file contains an unknown marker FF02"),
        ([b"\xff\xfe\0\0", frame(), SCAN], "the JPEG file contains a segment of 0 bytes"),
        ([b"\xff\xfe\0\1", frame(), SCAN], "the JPEG file contains a segment of 1 bytes"),
        ([segment(0xC0, bytes(5)), SCAN], "the JPEG file's frame header is too short"),
        ([frame(0, 90), SCAN], "the header says 0 x 90 pixels"),
        ([frame(60, 0), SCAN], "the header says 60 x 0 pixels"),
    ],
)
def test_a_jpeg_with_an_invalid_structure_is_corrupt(parts: list[bytes], error: str) -> None:
    assert error_of(SOI + b"".join(parts) + EOI) == error


def test_a_jpeg_that_ends_too_early_is_truncated() -> None:
    data = SOI + segment(0xFE, b"a comment") + frame() + SCAN + EOI
    assert inspect(data, NO_LIMIT) == ImageInfo("jpeg", 60, 90)
    for length in range(3, len(data)):
        assert error_of(data[:length]) == "the JPEG file is truncated"


# PNG, chunk by chunk.


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return len(data).to_bytes(4) + kind + data + checksum.to_bytes(4)


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 60, 90, 8, 2, 0, 0, 0))
PIXELS, END = chunk(b"IDAT", b"pixels"), chunk(b"IEND", b"")


def test_a_png_is_complete_only_with_its_end_chunk() -> None:
    data = png(HEADER, chunk(b"tEXt", b"a comment"), PIXELS, PIXELS, END)
    assert inspect(data + b"more", NO_LIMIT) == ImageInfo("png", 60, 90)
    for length in range(8, len(data)):
        assert error_of(data[:length]) == "the PNG file is truncated"


@pytest.mark.parametrize(
    ("chunks", "error"),
    [
        ([PIXELS, HEADER, END], "the PNG file does not start with a header"),
        ([chunk(b"IHDR", bytes(12)), PIXELS, END], "the PNG file does not start with a header"),
        ([chunk(b"IHDX", bytes(13)), PIXELS, END], "the PNG file does not start with a header"),
        ([HEADER, END], "the PNG file contains no pixels"),
        ([HEADER, PIXELS.replace(b"IDAT", b"IDAX"), END], "a checksum in the PNG file is wrong"),
        ([HEADER, PIXELS.replace(b"pix", b"pox"), END], "a checksum in the PNG file is wrong"),
        ([HEADER, PIXELS[:-1] + b"!", END], "a checksum in the PNG file is wrong"),
    ],
)
def test_a_png_with_an_invalid_structure_is_corrupt(chunks: list[bytes], error: str) -> None:
    assert error_of(png(*chunks)) == error


# WebP, chunk by chunk.


def riff_chunk(kind: bytes, data: bytes) -> bytes:
    return kind + len(data).to_bytes(4, "little") + data + b"\0" * (len(data) % 2)


def webp(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def lossy(width: int, height: int) -> bytes:
    return riff_chunk(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height))


def lossless(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14 | 1 << 28
    return riff_chunk(b"VP8L", b"\x2f" + bits.to_bytes(4, "little"))


# Canvas width and height take three bytes each and are stored minus one.
CANVAS = riff_chunk(b"VP8X", bytes(4) + (69_999).to_bytes(3, "little") + b"\x09\0\0")


@pytest.mark.parametrize(
    ("chunks", "size"),
    [
        ([lossy(60, 90)], (60, 90)),
        ([lossy(60 | 0x4000, 90 | 0x8000)], (60, 90)),  # the upper bits are for scaling
        ([lossless(60, 90)], (60, 90)),
        ([lossless(16_384, 300)], (16_384, 300)),
        ([riff_chunk(b"ICCP", b"odd"), lossy(60, 90)], (60, 90)),
        ([riff_chunk(b"ICCP", b"even"), lossless(60, 90)], (60, 90)),
        ([CANVAS, lossy(60, 90)], (70_000, 10)),
        ([CANVAS, riff_chunk(b"ALPH", b"odd"), lossless(60, 90)], (70_000, 10)),
        ([CANVAS, riff_chunk(b"ANMF", bytes(20))], (70_000, 10)),
    ],
)
def test_the_dimensions_of_a_webp_are_those_of_its_canvas_or_image_data(
    chunks: list[bytes], size: tuple[int, int]
) -> None:
    assert inspect(webp(*chunks), NO_LIMIT) == ImageInfo("webp", *size)


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [CANVAS],
        [riff_chunk(b"ANMF", bytes(20))],
        [riff_chunk(b"VP8 ", bytes(10))],
        [riff_chunk(b"VP8L", bytes(5))],
        [riff_chunk(b"VP8L", b"\x2f\0\0\0")],
    ],
)
def test_a_webp_without_image_data_is_corrupt(chunks: list[bytes]) -> None:
    assert error_of(webp(*chunks)) == "the WebP file contains no image"


def test_a_webp_that_ends_too_early_is_truncated() -> None:
    data = webp(CANVAS, lossy(60, 90))
    for length in range(12, len(data)):
        assert error_of(data[:length]) == "the WebP file is truncated"
    # A chunk that is longer than the RIFF header allows.
    assert error_of(webp(lossy(60, 90)[:-1])) == "the WebP file is truncated"


# GIF, block by block.


def gif(*blocks: bytes, flags: int = 0, table: int = 0) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", 60, 90, flags, 0, 0) + bytes(table) + b"".join(blocks)


COMMENT = b"\x21\xfe\x03abc\x02de\x00"


def frame_blocks(flags: int = 0, table: int = 0) -> bytes:
    descriptor = b"\x2c" + struct.pack("<HHHHB", 0, 0, 60, 90, flags)
    return descriptor + bytes(table) + b"\x02\x04data\x01x\x00"


@pytest.mark.parametrize(
    "data",
    [
        gif(frame_blocks()),
        gif(frame_blocks()).replace(b"GIF89a", b"GIF87a"),
        gif(COMMENT, COMMENT, COMMENT, frame_blocks()),
        gif(frame_blocks(), flags=0x80, table=6),
        gif(COMMENT, frame_blocks(), flags=0xF7, table=768),
        gif(frame_blocks(), flags=0x07),
        gif(frame_blocks(flags=0x81, table=12), flags=0x82, table=24),
    ],
)
def test_a_gif_is_complete_with_the_end_of_its_first_frame(data: bytes) -> None:
    assert inspect(data, NO_LIMIT) == ImageInfo("gif", 60, 90)
    for length in range(6, len(data)):
        assert error_of(data[:length]) == "the GIF file is truncated"


def test_a_gif_without_a_frame_is_corrupt() -> None:
    assert error_of(gif(COMMENT, b"\x3b")) == "the GIF file contains no image"


# Rare formats, and files that are not images.


def test_a_tiff_may_be_big_endian() -> None:
    buffer = io.BytesIO()
    PILImage.new("I;16B", (6, 4)).save(buffer, format="TIFF")
    assert buffer.getvalue().startswith(b"MM")
    assert inspect(buffer.getvalue(), NO_LIMIT) == ImageInfo("tiff", 6, 4)


def test_an_avif_sequence_is_recognised_as_avif() -> None:
    assert error_of(b"\0\0\0\x1cftypavis" + bytes(40)).startswith("the AVIF file is broken: ")


def test_a_bmp_so_large_that_pillow_refuses_it_has_too_many_pixels() -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 40_000, 40_000, 1, 1, 0, 0, 0, 0, 0, 0)
    bomb = b"BM" + struct.pack("<IHHI", 0, 0, 0, 62) + header + bytes(8)
    assert outcome_of(bomb) is Outcome.TOO_MANY_PIXELS


@pytest.mark.parametrize(
    "data",
    [
        b"RIFF\x24\0\0\0WAVEfmt " + bytes(20),
        b"BM" + bytes(23),
        b"BMW is a brand of cars, not an image.",
        b"\0\0\0\x18ftypisom" + bytes(20),
        b"<p>see the <a href='x.svg'>svg</a></p>",
    ],
)
def test_bytes_that_only_start_like_an_image_are_not_an_image(data: bytes) -> None:
    with pytest.raises(UnreadableImageError, match="not an image; the file starts with ") as caught:
        inspect(data, NO_LIMIT)
    assert caught.value.outcome is Outcome.NOT_AN_IMAGE


@pytest.mark.parametrize(
    "page",
    [
        b"\xef\xbb\xbf<!DOCTYPE html>",
        b"<Head>",
        b"<body class='x'>",
        b"<script>",
        b"<title>",
        b" \n<!-- a -->\n<!-- b --> <html>",
    ],
)
def test_an_html_page_is_named_in_the_error(page: bytes) -> None:
    with pytest.raises(UnreadableImageError, match=r"^an HTML page$"):
        inspect(page, NO_LIMIT)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\xef\xbb\xbf<svg>", "SVG"),
        (b"<?xml version='1.0'?><!--" + b"x" * 1900 + b"--><SVG width='1'>", "SVG"),
        (b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51\0", "JPEG 2000"),
        (b"\0\0\x01\0\x01\0\x10\x10", "ICO"),
        (b"8BPS\0\x01", "PSD"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe", "PostScript"),
    ],
)
def test_an_unsupported_format_is_named_in_the_error(data: bytes, name: str) -> None:
    with pytest.raises(UnreadableImageError, match=f"^{name} files are not supported$") as caught:
        inspect(data, NO_LIMIT)
    assert caught.value.outcome is Outcome.UNSUPPORTED_FORMAT
