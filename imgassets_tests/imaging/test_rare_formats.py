"""GIF, BMP, AVIF, HEIC and JPEG XL as shops and browsers have them."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401  (registers itself with Pillow)
import pytest
from PIL import Image as PILImage

from imgassets.download.inspection import ImageInfo, inspect
from imgassets.errors import UnreadableImageError
from imgassets.imaging import optional_formats
from imgassets.imaging.decode import decode
from imgassets.manifests import Outcome
from imgassets.settings import DecodeSettings

SETTINGS = DecodeSettings(background=(9, 8, 7))
FILES = Path(__file__).with_name("files")
BACKGROUND = [7, 8, 9]
POINTS = [(200, 5), (5, 5), (60, 80), (180, 80), (60, 240), (180, 240)]
DRAWING = [[250] * 3, [0] * 3, [40, 30, 200], [60, 160, 30], [190, 60, 40], [250, 191, 191]]


def _shows_the_drawing(data: bytes) -> bool:
    found = decode(data, SETTINGS).pixels
    assert found.shape == (320, 240, 3)
    points = np.array([found[y, x] for x, y in POINTS], int)
    return bool(np.abs(points - np.array(DRAWING)).max() <= 3)


# GIF


def gif(frame: tuple[int, int, int, int], *, local: bool = False) -> bytes:
    """A canvas of 60 x 50 px with a background colour of its own and one red frame on it."""
    left, top, right, bottom = frame
    file = io.BytesIO()
    image = PILImage.new("P", (right - left, bottom - top), 0)
    image.putpalette([200, 30, 40, 0, 0, 255])
    image.save(file, "GIF")
    data = file.getvalue()
    table = data[13 : 13 + 3 * 2 ** ((data[10] & 7) + 1)]
    start = data.index(b"\x2c", 13 + len(table))
    descriptor = b"\x2c" + struct.pack("<4H", left, top, right - left, bottom - top)
    screen = b"GIF89a" + struct.pack("<HHBBB", 60, 50, data[10], 1, 0) + table
    colours = bytes([0x80 | data[10] & 7]) + table if local else b"\0"
    return screen + descriptor + colours + data[start + 10 :]


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("frame", [(20, 10, 40, 35), (0, 0, 60, 49), (59, 49, 60, 50)])
def test_outside_its_frame_a_gif_shows_the_background(
    frame: tuple[int, int, int, int], local: bool
) -> None:
    data = gif(frame, local=local)
    assert inspect(data, 10**6) == ImageInfo("gif", 60, 50)
    expected = np.full((50, 60, 3), BACKGROUND)
    expected[frame[1] : frame[3], frame[0] : frame[2]] = (40, 30, 200)
    assert (decode(data, SETTINGS).pixels == expected).all()


def test_a_frame_as_large_as_its_canvas_covers_it() -> None:
    assert (decode(gif((0, 0, 60, 50)), SETTINGS).pixels == (40, 30, 200)).all()


def test_the_trial_gif_shows_the_background() -> None:
    found = decode((FILES / "gif_offset.gif").read_bytes(), SETTINGS).pixels
    outside = np.ones((60, 60), bool)
    outside[20:40, 20:40] = False
    assert (found[outside] == BACKGROUND).all()
    assert (found[~outside] != BACKGROUND).any(axis=1).all()


# WebP


def test_outside_its_frame_an_animated_webp_shows_the_background() -> None:
    file = io.BytesIO()
    red, blue = (PILImage.new("RGB", (40, 30), colour) for colour in ((200, 30, 40), (0, 0, 255)))
    red.save(file, "WEBP", lossless=True, save_all=True, append_images=[blue])
    data = bytearray(file.getvalue())
    assert data[12:16] == b"VP8X"
    data[24:30] = (59).to_bytes(3, "little") + (49).to_bytes(3, "little")
    assert inspect(bytes(data), 10**6) == ImageInfo("webp", 60, 50)
    expected = np.full((50, 60, 3), BACKGROUND)
    expected[:30, :40] = (40, 30, 200)
    assert (decode(bytes(data), SETTINGS).pixels == expected).all()


# BMP


def bmp(
    header: int,
    bits: int,
    rows: bytes,
    *,
    height: int = 2,
    masks: tuple[int, ...] = (),
    palette: bytes = b"",
    reserved: int = 0,
) -> bytes:
    """A bitmap of 3 x 2 px."""
    if header == 12:
        dib = struct.pack("<IHHHH", 12, 3, height, 1, bits)
    else:
        compression = 3 if masks else 0
        dib = struct.pack("<IiiHHIIiiII", 40, 3, height, 1, bits, compression, 0, 0, 0, 0, 0)
        dib = struct.pack("<I", header) + dib[4:] + b"".join(struct.pack("<I", m) for m in masks)
        dib = dib.ljust(header, b"\0")
    start = 14 + len(dib) + len(palette)
    head = b"BM" + struct.pack("<III", start + len(rows), reserved, start)
    return head + dib + palette + rows


BGR = np.random.default_rng(8).integers(0, 256, (2, 3, 3), dtype=np.uint8)


def _rows(samples: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    """Rows from the bottom to the top, padded to four bytes."""
    rows = [row.tobytes() for row in samples[::-1]]
    return b"".join(row + b"\0" * (-len(row) % 4) for row in rows)


@pytest.mark.parametrize("header", [12, 40, 52, 56, 64, 108, 124])
@pytest.mark.parametrize("reserved", [0, 0x12345678])
def test_bitmaps_with_every_header_are_decoded(header: int, reserved: int) -> None:
    data = bmp(header, 24, _rows(BGR), reserved=reserved)
    assert inspect(data, 10**6) == ImageInfo("bmp", 3, 2)
    assert (decode(data, SETTINGS).pixels == BGR).all()


def test_a_bitmap_from_the_top_to_the_bottom_is_decoded() -> None:
    data = bmp(40, 24, _rows(BGR[::-1]), height=-2)
    assert (decode(data, SETTINGS).pixels == BGR).all()


@pytest.mark.parametrize("alpha", [0, 255, 128])
def test_the_alpha_of_a_bitmap_counts_only_if_it_is_not_zero_everywhere(alpha: int) -> None:
    samples = np.dstack([BGR, np.full((2, 3), alpha, np.uint8)])
    data = bmp(108, 32, _rows(samples), masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000))
    opacity = alpha / 255 if alpha else 1
    expected = BGR * opacity + np.array(BACKGROUND) * (1 - opacity)
    assert np.abs(decode(data, SETTINGS).pixels - expected).max() <= 0.51


@pytest.mark.parametrize("compression", [3, 6])
@pytest.mark.parametrize("header", [40, 56, 108, 124])
@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, (0x0F00, 0x00F0, 0x000F, 0xF000)),
        (16, (0xF000, 0x0F00, 0x00F0, 0x000F)),
        (16, (0x7C00, 0x03E0, 0x001F, 0x8000)),
        (32, (0x3FF00000, 0x000FFC00, 0x000003FF, 0xC0000000)),
        (32, (0x000000FF, 0x0000FF00, 0x00FF0000, 0xFF000000)),
        (32, (0x00F00000, 0x0000FFFF, 0xFE000000, 0x000F0000)),
        (16, (0xC000, 0x3000, 0x0F00, 0)),
        (32, (0x000000FF, 0x0000FF00, 0x00FF0000, 0)),
        (32, (0xFFE00000, 0x001FFC00, 0x000003FF, 0)),
    ],
)
def test_bitmaps_with_any_colour_masks_are_decoded(
    bits: int, masks: tuple[int, ...], header: int, compression: int
) -> None:
    if header == 40 and compression == 3:
        masks = (*masks[:3], 0)  # this header has no mask of alpha
    share = np.random.default_rng(9).random((2, 3, 4))
    share[0, 0, 3] = 1
    stored = np.zeros((2, 3), np.uint64)
    shown = np.ones((2, 3, 4))
    for channel, mask in enumerate(masks):
        if mask:
            shift = (mask & -mask).bit_length() - 1
            value = np.rint(share[:, :, channel] * (mask >> shift))
            stored |= value.astype(np.uint64) << np.uint64(shift)
            shown[:, :, channel] = value / (mask >> shift)
    rows = _rows(stored.astype(f"<u{bits // 8}")[:, :, None].view(np.uint8))
    given = masks if header > 40 or compression == 6 else masks[:3]
    data = bytearray(bmp(header, bits, rows, masks=given))
    data[30] = compression
    assert inspect(bytes(data), 10**6) == ImageInfo("bmp", 3, 2)
    alpha = shown[:, :, 3:]
    expected = 255 * shown[:, :, 2::-1] * alpha + np.array(BACKGROUND) * (1 - alpha)
    assert np.abs(decode(bytes(data), SETTINGS).pixels - expected).max() <= 1.01
    padding = 2 if bits == 16 else 0  # bytes at the end of each row
    without_padding = decode(bytes(data[: len(data) - padding]), SETTINGS)
    assert np.abs(without_padding.pixels - expected).max() <= 1.01
    with pytest.raises(UnreadableImageError) as caught:
        decode(bytes(data[: len(data) - padding - 1]), SETTINGS)
    assert caught.value.outcome is Outcome.CORRUPT


@pytest.mark.parametrize("used", [257, 300, 2**31])
def test_a_bitmap_that_declares_more_colours_than_it_can_use_is_decoded(used: int) -> None:
    palette = bytes([10, 20, 30, 0, 200, 100, 50, 0]) + bytes(254 * 4)
    data = bytearray(bmp(40, 8, b"\0\1\0\0" + b"\1\1\0\0", palette=palette + bytes(44 * 4)))
    data[46:50] = struct.pack("<I", used)
    assert inspect(bytes(data), 10**6) == ImageInfo("bmp", 3, 2)
    first, second = [10, 20, 30], [200, 100, 50]
    assert decode(bytes(data), SETTINGS).pixels.tolist() == [
        [second, second, first],
        [first, second, first],
    ]


def test_a_bitmap_with_a_short_os2_header_is_decoded() -> None:
    palette = bytes([10, 20, 30, 0, 200, 100, 50, 0]) + bytes(254 * 4)
    rows = b"\0\1\0\0" + b"\1\1\0\0"
    start = 14 + 16 + len(palette)
    head = b"BM" + struct.pack("<III", start + len(rows), 0, start)
    data = head + struct.pack("<IIIHH", 16, 3, 2, 1, 8) + palette + rows
    assert inspect(data, 10**6) == ImageInfo("bmp", 3, 2)
    first, second = [10, 20, 30], [200, 100, 50]
    assert decode(data, SETTINGS).pixels.tolist() == [
        [second, second, first],
        [first, second, first],
    ]


# AVIF, HEIC and JPEG XL


def test_an_avif_file_of_which_the_major_brand_is_mif1_is_decoded() -> None:
    data = (FILES / "avif_mif1_brand.avif").read_bytes()
    assert inspect(data, 10**6) == ImageInfo("avif", 240, 320)
    same = data.replace(b"mif1", b"avif", 1)
    assert (decode(data, SETTINGS).pixels == decode(same, SETTINGS).pixels).all()


@pytest.mark.parametrize("major", [b"mif1", b"msf1", b"avif", b"miaf", b"MA1B"])
def test_a_file_is_avif_by_any_of_its_brands(major: bytes) -> None:
    data = b"\0\0\0\x1cftyp" + major + b"\0\0\0\0mif1avifmiaf" + bytes(40)
    with pytest.raises(UnreadableImageError, match=r"^the AVIF file is broken: ") as caught:
        inspect(data, 10**6)
    assert caught.value.outcome is Outcome.CORRUPT


@pytest.mark.parametrize(
    ("data", "message"),
    [
        *(
            (b"\0\0\0\x18ftyp" + brand + bytes(12), "HEIC files need the extra imgassets[heic]")
            for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
        ),
        (b"\0\0\0\x18ftypmiaf\0\0\0\0mif1heic", "HEIC files need the extra imgassets[heic]"),
        (b"\xff\x0a\0\0", "JPEG XL files need the extra imgassets[jxl]"),
        (
            b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\0",
            "JPEG XL files need the extra imgassets[jxl]",
        ),
    ],
)
def test_a_format_without_its_package_is_unsupported_and_the_extra_is_named(
    data: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optional_formats, "is_installed", lambda _format: False)
    for read in (lambda: inspect(data, 10**6), lambda: decode(data, SETTINGS)):
        with pytest.raises(UnreadableImageError) as caught:
            read()
        assert caught.value.outcome is Outcome.UNSUPPORTED_FORMAT
        assert str(caught.value) == message


def test_a_jpeg_xl_file_is_decoded() -> None:
    data = (FILES / "x.jxl").read_bytes()
    assert inspect(data, 10**6) == ImageInfo("jxl", 240, 320)
    assert _shows_the_drawing(data)
    for cut in (data[:1000], data[:-200]):
        with pytest.raises(UnreadableImageError) as caught:
            inspect(cut, 10**6)
        assert caught.value.outcome is Outcome.CORRUPT


@pytest.mark.parametrize("size", [(8, 8), (64, 8), (240, 320), (300, 200), (700, 9), (9000, 2)])
def test_the_size_of_a_jpeg_xl_file_is_read_from_its_header(size: tuple[int, int]) -> None:
    file = io.BytesIO()
    PILImage.new("RGB", size).save(file, "JXL")
    assert optional_formats.jpeg_xl_size(file.getvalue()) == size


def test_too_many_pixels_of_a_jpeg_xl_file_are_found_before_they_are_decoded() -> None:
    # 2**30 rows, and as many columns (ratio 1).
    bits = 0 | 3 << 1 | (2**30 - 1) << 3 | 1 << 33
    data = b"\xff\x0a" + bits.to_bytes(12, "little")
    assert optional_formats.jpeg_xl_size(data) == (2**30, 2**30)
    for read in (lambda: inspect(data, 10**6), lambda: decode(data, SETTINGS)):
        with pytest.raises(UnreadableImageError, match="1073741824 x 1073741824") as caught:
            read()
        assert caught.value.outcome is Outcome.TOO_MANY_PIXELS


def test_a_heic_file_is_decoded() -> None:
    pillow_heif.register_heif_opener()
    file = io.BytesIO()
    image = PILImage.new("RGB", (64, 48), (200, 30, 40))
    image.paste((30, 160, 60), (0, 0, 32, 48))
    image.save(file, "HEIF", quality=95)
    data = file.getvalue()
    assert inspect(data, 10**6) == ImageInfo("heic", 64, 48)
    found = decode(data, SETTINGS).pixels.astype(int)
    assert np.abs(found[24, 48] - (40, 30, 200)).max() <= 4
    assert np.abs(found[24, 16] - (60, 160, 30)).max() <= 4
    with pytest.raises(UnreadableImageError) as caught:
        inspect(data[: len(data) - 60], 10**6)
    assert caught.value.outcome is Outcome.CORRUPT


def test_an_avif_file_is_decoded_as_before_beside_the_package_for_heic() -> None:
    optional_formats.is_installed(optional_formats.HEIC)
    data = (FILES / "avif_mif1_brand.avif").read_bytes()
    assert inspect(data, 10**6) == ImageInfo("avif", 240, 320)
    assert decode(data, SETTINGS).full_size == (240, 320)
