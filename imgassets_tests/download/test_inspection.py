from __future__ import annotations

import pytest

from imgassets.download.inspection import NotAPictureError, Picture, inspect
from imgassets.manifests import Outcome
from imgassets_tests.download.pictures import picture, png_of

MANY = 80_000_000


def outcome_of(data: bytes, max_pixels: int = MANY) -> Outcome:
    with pytest.raises(NotAPictureError) as caught:
        inspect(data, max_pixels)
    return caught.value.outcome


@pytest.mark.parametrize("format_", ["jpeg", "png", "webp", "gif", "bmp", "tiff", "avif"])
def test_format_and_size_are_read_from_the_bytes(format_: str) -> None:
    assert inspect(picture(format_.upper(), 61, 37), MANY) == Picture(format_, 61, 37)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_picture_that_is_cut_off_is_corrupt(format_: str, share: float) -> None:
    data = picture(format_)
    assert outcome_of(data[: int(len(data) * share)]) is Outcome.CORRUPT


def test_a_jpeg_without_its_last_two_bytes_is_corrupt() -> None:
    assert outcome_of(picture()[:-2]) is Outcome.CORRUPT


def test_bytes_after_the_end_of_a_jpeg_do_no_harm() -> None:
    assert inspect(picture() + b"\0" * 100, MANY).format == "jpeg"


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_jpeg() -> None:
    thumbnail = picture(width=20, height=20)
    exif = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2) + thumbnail
    whole = picture()
    with_thumbnail = whole[:2] + exif + whole[2:]
    assert inspect(with_thumbnail, MANY) == Picture("jpeg", 60, 90)
    assert outcome_of(with_thumbnail[:-10]) is Outcome.CORRUPT


def test_a_progressive_jpeg_cut_off_between_two_scans_is_corrupt() -> None:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.open(io.BytesIO(picture())).save(buffer, format="JPEG", progressive=True)
    data = buffer.getvalue()
    assert inspect(data, MANY) == Picture("jpeg", 60, 90)
    assert outcome_of(data[: data.rindex(b"\xff\xda")]) is Outcome.CORRUPT


def test_a_changed_byte_in_a_png_is_corrupt() -> None:
    data = bytearray(picture("PNG"))
    data[len(data) // 2] ^= 1
    assert outcome_of(bytes(data)) is Outcome.CORRUPT


def test_a_png_of_forty_thousand_pixels_a_side_has_too_many() -> None:
    bomb = png_of(40_000, 40_000)
    assert len(bomb) < 300_000
    assert outcome_of(bomb) is Outcome.TOO_MANY_PIXELS


@pytest.mark.parametrize("format_", ["BMP", "TIFF", "AVIF"])
def test_rare_formats_have_their_pixels_counted_too(format_: str) -> None:
    assert outcome_of(picture(format_), max_pixels=5399) is Outcome.TOO_MANY_PIXELS


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
        (b"\0\0\0\x18ftypheic\0\0\0\0", Outcome.UNSUPPORTED_FORMAT),
        (b"%PDF-1.7", Outcome.UNSUPPORTED_FORMAT),
        (b"\xff\xd8\xff\xd9", Outcome.CORRUPT),
        (b"\xff\xd8\xff", Outcome.CORRUPT),
        (b"\x89PNG\r\n\x1a\n", Outcome.CORRUPT),
        (b"RIFF\x04\0\0\0WEBP", Outcome.CORRUPT),
        (b"GIF89a", Outcome.CORRUPT),
        (png_of(0, 5), Outcome.CORRUPT),
    ],
)
def test_what_is_no_whole_picture_has_its_outcome(data: bytes, outcome: Outcome) -> None:
    assert outcome_of(data) is outcome
