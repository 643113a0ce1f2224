"""PNG files with faults and unusual metadata, written chunk by chunk."""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from imgassets.download.inspection import inspect
from imgassets.errors import UnreadableImageError
from imgassets.imaging.decode import decode
from imgassets.imaging.image import Pixels
from imgassets.manifests import Outcome
from imgassets.settings import DecodeSettings
from imgassets_tests.imaging.icc import DISPLAY_P3, rgb_profile

SETTINGS = DecodeSettings(background=(1, 2, 3))
FILES = Path(__file__).with_name("files")
SIZE = 11, 9  # px; no multiple of 8
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
KINDS = [
    *((GREY, depth) for depth in (1, 2, 4, 8, 16)),
    *((PALETTE, depth) for depth in (1, 2, 4, 8)),
    *((colour_type, depth) for colour_type in (RGB, GREY_ALPHA, RGBA) for depth in (8, 16)),
]


def chunk(kind: bytes, content: bytes, checksum_error: int = 0) -> bytes:
    checksum = zlib.crc32(kind + content) ^ checksum_error
    return len(content).to_bytes(4) + kind + content + checksum.to_bytes(4)


def samples(colour_type: int, depth: int) -> NDArray[np.uint16]:
    """Random samples, height x width x channels, none zero in the last row, opaque."""
    shape = (SIZE[1], SIZE[0], CHANNELS[colour_type])
    levels = np.random.default_rng(3).integers(1, 2**depth, shape).astype(np.uint16)
    if colour_type in (GREY_ALPHA, RGBA):
        levels[:, :, -1] = 2**depth - 1
    return levels


def rows(levels: NDArray[np.uint16], depth: int) -> bytes:
    """Rows without filter, each with its filter number."""
    packed = b""
    for row in levels.reshape(len(levels), -1):
        bits = np.unpackbits(row.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)
        packed += b"\0" + np.packbits(bits[:, 16 - depth :].reshape(-1)).tobytes()
    return packed


PASSES = (
    (slice(0, None, 8), slice(0, None, 8)),
    (slice(0, None, 8), slice(4, None, 8)),
    (slice(4, None, 8), slice(0, None, 4)),
    (slice(0, None, 4), slice(2, None, 4)),
    (slice(2, None, 4), slice(0, None, 2)),
    (slice(0, None, 2), slice(1, None, 2)),
    (slice(1, None, 2), slice(0, None, 1)),
)


def png(
    levels: NDArray[np.uint16],
    colour_type: int,
    depth: int,
    *metadata: bytes,
    interlaced: bool = False,
    missing: int = 0,
    pieces: int = 1,
) -> bytes:
    """A PNG file; `missing` bytes lack at the end of the pixel data before it is compressed."""
    height, width = levels.shape[:2]
    raw = (
        b"".join(rows(levels[part], depth) for part in PASSES if levels[part].size)
        if interlaced
        else rows(levels, depth)
    )
    packed = zlib.compress(raw[: len(raw) - missing])
    cut = [len(packed) * part // pieces for part in range(pieces + 1)]
    data = b"".join(chunk(b"IDAT", packed[a:b]) for a, b in pairwise(cut))
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    palette = chunk(b"PLTE", PALETTE_COLOURS.tobytes()) if colour_type == PALETTE else b""
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *(m for m in metadata if m[4:8] != b"tRNS"),
            palette,
            *(m for m in metadata if m[4:8] == b"tRNS"),
            data,
            chunk(b"IEND", b""),
        ]
    )


PALETTE_COLOURS = np.random.default_rng(4).integers(0, 256, (256, 3), dtype=np.uint8)


def shown(levels: NDArray[np.uint16], colour_type: int, depth: int) -> Pixels:
    """The BGR pixels that these samples stand for."""
    if colour_type == PALETTE:
        return PALETTE_COLOURS[levels[:, :, 0]][:, :, ::-1]
    eight = levels >> 8 if depth == 16 else levels * (255 // (2**depth - 1))
    colours = eight[:, :, : 1 if colour_type in (GREY, GREY_ALPHA) else 3]
    return np.broadcast_to(colours, (*levels.shape[:2], 3)).astype(np.uint8)[:, :, ::-1]


def pixels(data: bytes) -> Pixels:
    assert inspect(data, 10**8).format == "png"
    return decode(data, SETTINGS).pixels


def assert_corrupt(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason) as caught:
        decode(data, SETTINGS)
    assert caught.value.outcome is Outcome.CORRUPT


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour_type", "depth"), KINDS)
def test_every_kind_of_pixels_is_decoded(colour_type: int, depth: int, interlaced: bool) -> None:
    levels = samples(colour_type, depth)
    data = png(levels, colour_type, depth, interlaced=interlaced, pieces=3)
    assert (pixels(data) == shown(levels, colour_type, depth)).all()


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour_type", "depth"), KINDS)
def test_pixel_data_that_lacks_its_end_is_corrupt(
    colour_type: int, depth: int, interlaced: bool
) -> None:
    levels = samples(colour_type, depth)
    for missing in (1, 20):
        data = png(levels, colour_type, depth, interlaced=interlaced, missing=missing)
        assert inspect(data, 10**8).format == "png"  # its compressed data ends properly
        assert_corrupt(data, "lacks some of its pixels|truncated")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour_type", "depth"), KINDS)
def test_a_wrong_checksum_behind_the_pixel_data_is_ignored(
    colour_type: int, depth: int, interlaced: bool
) -> None:
    levels = samples(colour_type, depth)
    data = _with_wrong_adler(png(levels, colour_type, depth, interlaced=interlaced, pieces=3))
    assert (pixels(data) == shown(levels, colour_type, depth)).all()
    data = _with_wrong_adler(png(levels, colour_type, depth, interlaced=interlaced, missing=1))
    assert_corrupt(data, "lacks some of its pixels|truncated|broken data stream")


def _with_wrong_adler(data: bytes) -> bytes:
    """The file with another checksum behind the pixel data, and right ones of the chunks."""
    pos = data.rindex(b"IDAT")
    content = data[pos + 4 : pos + 4 + int.from_bytes(data[pos - 4 : pos])]
    wrong = content[:-4] + bytes(byte ^ 1 for byte in content[-4:])
    return data.replace(chunk(b"IDAT", content), chunk(b"IDAT", wrong))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("interlaced", [False, True])
def test_large_pixel_data_that_lacks_its_end_is_corrupt(share: float, interlaced: bool) -> None:
    levels = np.random.default_rng(6).integers(1, 256, (300, 200, 3)).astype(np.uint16)
    missing = int(300 * 601 * share)
    data = png(levels, RGB, 8, interlaced=interlaced, missing=missing, pieces=5)
    assert_corrupt(data, "lacks some of its pixels|truncated")


def test_an_interlaced_file_with_fewer_than_seven_passes_is_corrupt() -> None:
    levels = samples(RGB, 8)
    sizes = [len(rows(levels[part], 8)) for part in PASSES]
    for count in range(7):
        data = png(levels, RGB, 8, interlaced=True, missing=sum(sizes[count:]))
        assert_corrupt(data, "lacks some of its pixels|truncated")


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 8])
def test_small_interlaced_files_have_fewer_passes(width: int, height: int) -> None:
    levels = samples(RGB, 8)[:height, :width]
    assert (pixels(png(levels, RGB, 8, interlaced=True)) == shown(levels, RGB, 8)).all()


@pytest.mark.parametrize(("colour_type", "depth"), KINDS)
def test_a_black_last_row_is_not_taken_for_a_missing_one(colour_type: int, depth: int) -> None:
    levels = samples(colour_type, depth)
    levels[-3:, :, : 1 if colour_type == GREY_ALPHA else 3] = 0
    expected = shown(levels, colour_type, depth)
    assert (pixels(png(levels, colour_type, depth)) == expected).all()


@pytest.mark.parametrize("name", ["zlib_ends_early_half_photo", "adam7_only_pass1"])
def test_the_trial_files_without_all_pixels_are_corrupt(name: str) -> None:
    assert_corrupt((FILES / f"{name}.png").read_bytes(), "lacks some of its pixels")


@pytest.mark.parametrize(
    "name", ["ztxt_1.2MB", "phys_short", "trns_long_rgb", "ztxt_bad", "text_badcrc_before"]
)
def test_the_trial_files_with_bad_metadata_show_their_drawing(name: str) -> None:
    found = pixels((FILES / f"{name}.png").read_bytes())
    points = [(200, 5), (5, 5), (60, 80), (180, 80), (60, 240), (180, 240)]
    colours = [tuple(found[y, x, ::-1].tolist()) for x, y in points]
    assert colours[:2] == [(250, 250, 250), (0, 0, 0)]
    assert colours[2:5] == [(200, 30, 40), (30, 160, 60), (40, 60, 190)]


def _compressed(name: bytes, size: int) -> bytes:
    return name + b"\0\0" + zlib.compress(bytes(size))


ANCILLARY = {
    b"tEXt": [b"", b"no separator", b"key\0" + b"x" * 2_000_000],
    b"zTXt": [b"", b"key\0\0not zlib", b"key\0\x05" + b"x", b"key", _compressed(b"k", 3_000_000)],
    b"iTXt": [
        b"",
        b"key\0\1\0\0\0not zlib",
        b"key\0",
        b"key\0\1\0\0\0" + zlib.compress(bytes(9**7)),
    ],
    b"iCCP": [b"", b"name", b"name\0\0not zlib", b"name\0\1", _compressed(b"n", 30_000_000)],
    b"pHYs": [b"", bytes(3), bytes(99)],
    b"gAMA": [b"", bytes(3), bytes(4), bytes(9)],
    b"cHRM": [b"", bytes(5), bytes(32), bytes(40)],
    b"sRGB": [b"", b"\x09", bytes(4)],
    b"cICP": [b"", bytes(3), bytes(9), b"\xff\xff\0\1"],
    b"tRNS": [b"", bytes(300)],
    b"eXIf": [b"", b"MM", b"no TIFF", b"II*\0\xff\xff\xff\xff"],
    b"tIME": [b"", bytes(2)],
    b"bKGD": [b"", bytes(99)],
    b"acTL": [b"", bytes(3), bytes(8), b"\xff" * 8],
    b"fcTL": [b"", bytes(26), b"\xff" * 26],
    b"fdAT": [b"", b"\0\0\0\1junk"],
    b"iDOT": [b"", bytes(28)],
    b"caBX": [bytes(100)],
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("kind", ANCILLARY)
@pytest.mark.parametrize(("colour_type", "depth"), [(RGB, 8), (GREY, 8), (PALETTE, 4), (RGBA, 8)])
def test_malformed_metadata_is_ignored(kind: bytes, colour_type: int, depth: int) -> None:
    levels = samples(colour_type, depth)
    expected = shown(levels, colour_type, depth)
    for content in ANCILLARY[kind]:
        data = png(levels, colour_type, depth, chunk(kind, content))
        assert (pixels(data) == expected).all(), content[:20]


@pytest.mark.parametrize(("colour_type", "depth"), [(RGB, 8), (GREY, 8), (GREY, 16), (RGBA, 8)])
@pytest.mark.parametrize("length", [1, 3, 5, 7])
def test_a_transparent_colour_of_a_wrong_length_is_ignored(
    colour_type: int, depth: int, length: int
) -> None:
    levels = samples(colour_type, depth)
    content = levels[0, 0].astype(">u2").tobytes().ljust(7, b"\0")[:length]
    data = png(levels, colour_type, depth, chunk(b"tRNS", content))
    assert (pixels(data) == shown(levels, colour_type, depth)).all()


@pytest.mark.parametrize(
    ("exif", "is_turned"), [(b"", True), (b"Exif\0\0", False)], ids=["as in PNG", "as in JPEG"]
)
@pytest.mark.parametrize("place", [b"IDAT", b"IEND"])
def test_the_orientation_counts_where_browsers_read_it(
    exif: bytes, is_turned: bool, place: bytes
) -> None:
    levels = samples(RGB, 8)
    whole = png(levels, RGB, 8)
    # One entry: the orientation (274), one number of 16 bits, 3.
    content = exif + b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\3\0\0\0\0\0\0"
    pos = whole.index(place) - 4
    found = pixels(whole[:pos] + chunk(b"eXIf", content) + whole[pos:])
    is_turned = is_turned and place == b"IDAT"
    assert (found == shown(levels[::-1, ::-1] if is_turned else levels, RGB, 8)).all()


@pytest.mark.parametrize("kind", ANCILLARY)
@pytest.mark.parametrize("place", [b"IDAT", b"IEND"])
def test_metadata_with_a_wrong_checksum_is_ignored(kind: bytes, place: bytes) -> None:
    levels = samples(RGB, 8)
    whole = png(levels, RGB, 8)
    pos = whole.index(place) - 4
    broken = whole[:pos] + chunk(kind, bytes(6), checksum_error=1) + whole[pos:]
    assert (pixels(broken) == shown(levels, RGB, 8)).all()


def test_metadata_between_the_pixels_is_ignored() -> None:
    levels = samples(RGB, 8)
    whole = png(levels, RGB, 8, pieces=2)
    pos = whole.rindex(b"IDAT") - 4
    assert (
        pixels(whole[:pos] + chunk(b"tEXt", b"k\0v") + whole[pos:]) == shown(levels, RGB, 8)
    ).all()


@pytest.mark.parametrize("size", [0, 1_200_000, 4_000_000])
def test_a_profile_of_any_usual_size_is_converted(size: int) -> None:
    profile = rgb_profile(DISPLAY_P3, 2.2)
    large = (len(profile) + size).to_bytes(4) + profile[4:] + bytes(size)
    levels = samples(RGB, 8)

    def converted(content: bytes) -> Pixels:
        return pixels(png(levels, RGB, 8, chunk(b"iCCP", b"P3\0\0" + zlib.compress(content))))

    assert (converted(profile) != shown(levels, RGB, 8)).any()
    assert (converted(large) == converted(profile)).all()


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"IDAT", b"IEND"])
def test_a_critical_chunk_with_a_wrong_checksum_is_corrupt(kind: bytes) -> None:
    whole = bytearray(png(samples(PALETTE, 8), PALETTE, 8))
    pos = whole.index(kind)
    whole[pos + 4 + int.from_bytes(whole[pos - 4 : pos])] ^= 1
    assert_corrupt(bytes(whole), "^a checksum in the PNG file is wrong$")


def test_a_critical_chunk_that_is_unknown_or_missing_is_corrupt() -> None:
    levels = samples(PALETTE, 8)
    whole = png(levels, PALETTE, 8, chunk(b"ABCD", b""))
    assert_corrupt(whole, r"^the PNG file contains an unknown critical chunk \(ABCD\)$")
    whole = png(levels, PALETTE, 8)
    palette = chunk(b"PLTE", PALETTE_COLOURS.tobytes())
    assert_corrupt(whole.replace(palette, b""), "^the PNG file has no palette$")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *SIZE, 8, 5, 0, 0, 0))
    assert_corrupt(whole[:8] + header + whole[33:], "^the PNG file has an unknown colour type, 5$")


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_level_of_a_grey_png_shows_the_background(depth: int) -> None:
    levels = samples(GREY, depth)
    level = int(levels[4, 4, 0])
    expected = shown(levels, GREY, depth).copy()
    expected[levels[:, :, 0] == level] = (3, 2, 1)
    for bits in {level, level | 0xFFFF << depth & 0xFFFF}:  # higher bits mean nothing
        data = png(levels, GREY, depth, chunk(b"tRNS", bits.to_bytes(2)))
        assert (pixels(data) == expected).all()


def test_the_transparent_level_of_a_16_bit_grey_png_is_exact() -> None:
    levels = np.array([[[0x1234], [0x1235]]], np.uint16)
    found = pixels(png(levels, GREY, 16, chunk(b"tRNS", b"\x12\x34")))
    assert found.tolist() == [[[3, 2, 1], [0x12] * 3]]


@pytest.mark.parametrize("interlaced", [False, True])
def test_the_transparent_colour_of_a_16_bit_rgb_png_is_exact(interlaced: bool) -> None:
    colour = (0x1234, 0x5678, 0x9ABC)
    other = [(0x1235, *colour[1:]), (colour[0], 0x5600, colour[2]), (*colour[:2], 0x9ABB)]
    levels = np.array([[colour, *other]], np.uint16)
    content = b"".join(level.to_bytes(2) for level in colour)
    found = pixels(png(levels, RGB, 16, chunk(b"tRNS", content), interlaced=interlaced))
    assert found.tolist() == [[[3, 2, 1], *[[0x9A, 0x56, 0x12]] * 3]]


@pytest.mark.parametrize("depth", [8, 16])
def test_the_transparent_colour_of_an_rgb_png_shows_the_background(depth: int) -> None:
    levels = samples(RGB, depth)
    expected = shown(levels, RGB, depth).copy()
    expected[4, 4] = (3, 2, 1)
    colour = levels[4, 4].astype(">u2").tobytes()
    assert (pixels(png(levels, RGB, depth, chunk(b"tRNS", colour))) == expected).all()


def test_opacities_beyond_the_palette_are_ignored() -> None:
    short = chunk(b"PLTE", PALETTE_COLOURS[:4].tobytes())
    data = png(np.array([[[0], [3]]], np.uint16), PALETTE, 2, chunk(b"tRNS", b"\xff\xff\xff\0\0"))
    data = data.replace(chunk(b"PLTE", PALETTE_COLOURS.tobytes()), short)
    assert pixels(data).tolist() == [[PALETTE_COLOURS[0, ::-1].tolist(), [3, 2, 1]]]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_the_opacity_of_palette_entries_is_blended(depth: int) -> None:
    levels = samples(PALETTE, depth)
    opacities = np.random.default_rng(7).integers(0, 256, 2**depth).astype(np.uint8)
    alpha = opacities[levels] / 255
    expected = np.rint(shown(levels, PALETTE, depth) * alpha + np.array((3, 2, 1)) * (1 - alpha))
    found = pixels(png(levels, PALETTE, depth, chunk(b"tRNS", opacities.tobytes())))
    assert np.abs(found - expected).max() <= 1
