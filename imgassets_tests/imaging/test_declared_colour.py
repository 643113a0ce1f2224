"""Colours that are declared by numbers; expected values come from the standards' formulas."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PILImage

from imgassets.imaging.declared_colour import from_cicp, icc_profile, of_container
from imgassets.imaging.decode import decode
from imgassets.settings import DecodeSettings
from imgassets_tests.imaging.icc import ADOBE_RGB, DISPLAY_P3, rgb_profile
from imgassets_tests.imaging.test_png import (
    GREY,
    GREY_ALPHA,
    PALETTE,
    PALETTE_COLOURS,
    RGB,
    chunk,
    png,
)

SETTINGS = DecodeSettings()
FILES = Path(__file__).with_name("files")
# To linear sRGB, of the same white (D65), from the primaries' published matrices.
TO_SRGB = {
    "P3": np.array(((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979))),
    "BT.2020": np.array(
        ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))
    ),
    "BT.709": np.eye(3),
}
COLOURS = ((200, 120, 90), (90, 140, 110), (100, 110, 160), (128, 128, 128), (255, 255, 255))
P3_XY = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
SRGB_XY = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def _encode(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def _linear(stored: NDArray[np.float64]) -> NDArray[np.float64]:
    value = stored / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _expected(primaries: str, exponent: float | None = None) -> NDArray[np.float64]:
    stored = np.array(COLOURS, np.float64)
    linear = _linear(stored) if exponent is None else (stored / 255) ** exponent
    return _encode(linear @ TO_SRGB[primaries].T)


def _png(*metadata: bytes) -> bytes:
    return png(np.array([COLOURS], np.uint16), RGB, 8, *metadata)


def _rgb(data: bytes) -> NDArray[np.int64]:
    return decode(data, SETTINGS).pixels[0, :, ::-1].astype(np.int64)


def _gamma(gamma: float) -> bytes:
    return chunk(b"gAMA", round(gamma * 100_000).to_bytes(4))


def _iccp(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"n\0\0" + zlib.compress(profile))


@pytest.mark.parametrize(
    ("metadata", "primaries", "exponent"),
    [
        ([chunk(b"cICP", b"\x0c\x0d\0\1")], "P3", None),
        ([chunk(b"cICP", b"\x09\x0d\0\1")], "BT.2020", None),
        ([chunk(b"cICP", b"\x09\x0f\0\1")], "BT.2020", 2.4),
        ([chunk(b"cICP", b"\x01\x01\0\1")], "BT.709", 2.4),
        ([chunk(b"cICP", b"\x0c\x06\0\1")], "P3", 2.4),
        ([chunk(b"cICP", b"\x01\x0d\0\1")], "BT.709", None),
        ([chunk(b"cICP", b"\x01\x08\0\1")], "BT.709", 1.0),
        ([chunk(b"cICP", b"\x01\x04\0\1")], "BT.709", 2.2),
        ([chunk(b"cICP", b"\x0c\x08\0\1")], "P3", 1.0),
        ([chunk(b"cICP", b"\x02\x02\0\1")], "BT.709", None),
        ([_gamma(1.0)], "BT.709", 1.0),
        ([_gamma(1 / 1.8)], "BT.709", 1.8),
        ([_gamma(0.45455)], "BT.709", None),
        ([_gamma(0.45)], "BT.709", None),
        ([chunk(b"cHRM", SRGB_XY)], "BT.709", None),
        # Beside cHRM, gAMA means what it says.
        ([_gamma(0.45455), chunk(b"cHRM", SRGB_XY)], "BT.709", 2.2),
        ([_gamma(0.45455), chunk(b"cHRM", P3_XY)], "P3", 2.2),
        ([_gamma(1.0), chunk(b"cHRM", P3_XY)], "P3", 1.0),
        # Precedence: cICP, iCCP, sRGB, gAMA and cHRM.
        ([_gamma(1.0), chunk(b"cHRM", P3_XY), chunk(b"sRGB", b"\0")], "BT.709", None),
        ([_gamma(1.0), chunk(b"sRGB", b"\0"), chunk(b"cICP", b"\x0c\x0d\0\1")], "P3", None),
        ([_iccp(rgb_profile(ADOBE_RGB, 2.2)), chunk(b"cICP", b"\x0c\x0d\0\1")], "P3", None),
        ([_gamma(1.0), chunk(b"sRGB", b"\0"), _iccp(rgb_profile(DISPLAY_P3, 2.2))], "P3", 2.2),
        # What is no declaration, as in Chromium 156.
        ([chunk(b"cHRM", P3_XY)], "BT.709", None),
        ([chunk(b"cICP", b"\x0c\x0d\0\0")], "BT.709", None),
        ([chunk(b"cICP", b"\2\2\0\1"), _gamma(1.0)], "BT.709", 1.0),
        ([chunk(b"cICP", b"\x0c\2\0\1"), _gamma(1.0)], "BT.709", 1.0),
        ([chunk(b"sRGB", b"\4"), _gamma(1.0)], "BT.709", 1.0),
        ([_iccp(b"no profile" * 20), _gamma(1.0)], "BT.709", 1.0),
        ([_gamma(1.0), chunk(b"cHRM", bytes(32))], "BT.709", None),
        ([_gamma(1.0), chunk(b"cHRM", b"\xff" * 32)], "BT.709", None),
        ([_gamma(1.0), chunk(b"cHRM", P3_XY[:-1])], "BT.709", 1.0),
        ([_gamma(0.0)], "BT.709", None),
        ([chunk(b"cICP", b"\x0c\x0d\1\1")], "BT.709", None),
        ([chunk(b"cICP", b"\xfe\x0d\0\1")], "BT.709", None),
        ([chunk(b"cICP", b"\x0c\xfe\0\1")], "BT.709", None),
        ([chunk(b"cICP", b"\xfe\x0d\0\1"), _gamma(1.0)], "BT.709", 1.0),
        ([chunk(b"cHRM", bytes(32))], "BT.709", None),
        ([chunk(b"cHRM", b"\xff" * 32)], "BT.709", None),
        ([chunk(b"cHRM", struct.pack(">8I", *[31270, 32900] * 4))], "BT.709", None),
        ([chunk(b"cHRM", struct.pack(">II", 90000, 5000) + SRGB_XY[8:])], "BT.709", None),
    ],
)  # fmt: skip
def test_the_declared_colours_of_a_png_are_converted(
    metadata: list[bytes], primaries: str, exponent: float | None
) -> None:
    found = _rgb(_png(*metadata))
    assert np.abs(found - _expected(primaries, exponent)).max() <= 1.5


def test_a_declaration_that_means_srgb_changes_no_pixel() -> None:
    for metadata in ([_gamma(0.45455)], [_gamma(0.47)], [chunk(b"cICP", b"\1\x0d\0\1")]):
        assert (_rgb(_png(*metadata)) == np.array(COLOURS)).all()


@pytest.mark.parametrize(
    "metadata", [_gamma(1.0), chunk(b"cICP", b"\x0c\x0d\0\1"), _iccp(rgb_profile(DISPLAY_P3, 1.0))]
)
def test_metadata_behind_the_pixels_is_ignored(metadata: bytes) -> None:
    data = _png()
    assert (_rgb(data[:-12] + metadata + data[-12:]) == np.array(COLOURS)).all()


@pytest.mark.parametrize("declaration", [_gamma(1.0), chunk(b"cICP", b"\x01\x08\0\1")])
@pytest.mark.parametrize("extra", [b"", chunk(b"cHRM", P3_XY)])
def test_the_declared_gamma_of_a_grey_png_is_converted(declaration: bytes, extra: bytes) -> None:
    levels = np.array([[[10], [100], [255]]], np.uint16)
    expected = _encode(levels[0] / 255)
    metadata = [declaration, *([extra] if extra else [])]
    assert np.abs(_rgb(png(levels, GREY, 8, *metadata)) - expected).max() <= 1
    with_alpha = np.concatenate([levels, np.array([[[255], [255], [0]]], np.uint16)], axis=2)
    expected[2] = 255  # the background
    assert np.abs(_rgb(png(with_alpha, GREY_ALPHA, 8, *metadata)) - expected).max() <= 1


def test_the_declared_colours_of_a_palette_are_converted() -> None:
    levels = np.arange(40, dtype=np.uint16).reshape(1, 40, 1)
    expected = _encode(PALETTE_COLOURS[:40] / 255)
    assert np.abs(_rgb(png(levels, PALETTE, 8, _gamma(1.0))) - expected).max() <= 1


def _avif(colour: tuple[int, int, int], primaries: int, transfer: int) -> bytes:
    file = io.BytesIO()
    image = PILImage.new("RGB", (64, 64), colour)
    image.save(file, "AVIF", quality=100, subsampling="4:4:4")
    data = file.getvalue()
    pos = data.index(b"colrnclx") + 8
    return data[:pos] + struct.pack(">HH", primaries, transfer) + data[pos + 4 :]


@pytest.mark.parametrize(
    ("numbers", "primaries", "exponent"),
    [
        ((1, 13), "BT.709", None),
        ((12, 13), "P3", None),
        ((9, 13), "BT.2020", None),
        ((9, 1), "BT.2020", None),
        ((2, 2), "BT.709", None),
        ((1, 1), "BT.709", None),
        ((12, 8), "P3", 1.0),
        ((99, 13), "BT.709", None),
    ],
)
def test_the_declared_colours_of_an_avif_are_converted(
    numbers: tuple[int, int], primaries: str, exponent: float | None
) -> None:
    expected = _expected(primaries, exponent)
    for colour, wanted in zip(COLOURS, expected, strict=True):
        found = decode(_avif(colour, *numbers), SETTINGS).pixels[32, 32, ::-1]
        # One level of AVIF's YCbCr is several of a channel that the conversion leaves near zero.
        assert np.abs(found - wanted).max() <= 8


def test_the_profile_of_an_avif_counts_rather_than_its_numbers() -> None:
    file = io.BytesIO()
    image = PILImage.new("RGB", (64, 64), COLOURS[0])
    profile = rgb_profile(DISPLAY_P3, 2.2)
    image.save(file, "AVIF", quality=100, subsampling="4:4:4", icc_profile=profile)
    found = decode(file.getvalue(), SETTINGS).pixels[32, 32, ::-1]
    assert np.abs(found - _expected("P3", 2.2)[0]).max() <= 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(99),
        b"\0\0\0\x08meta",
        b"\0\0\0\x10metacolrnclx",
        b"\0\0\0\x12metacolrnclx\0\x0c",
        b"\0\0\0\x18mdatcolrnclx\0\x0c\0\x0d\0\0\0\0",
        b"\xff\xff\xff\xffmeta",
    ],
)
def test_a_container_without_usable_numbers_declares_nothing(data: bytes) -> None:
    assert of_container(data) is None


def test_the_profile_of_srgb_has_its_published_primaries() -> None:
    space = from_cicp(1, 13)
    assert space is not None
    profile = icc_profile(space)
    expected = (
        (0.43607, 0.22249, 0.01392),
        (0.38515, 0.71687, 0.09708),
        (0.14307, 0.06061, 0.7141),
    )
    for tag, wanted in zip((b"rXYZ", b"gXYZ", b"bXYZ"), expected, strict=True):
        offset = int.from_bytes(profile[profile.index(tag) + 4 :][:4])
        found = np.frombuffer(profile[offset + 8 : offset + 20], ">i4") / 65536
        assert np.abs(found - wanted).max() < 0.0003


def _pq(nits: float) -> int:
    root = (nits / 10_000) ** 0.1593017578125
    level = ((0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root)) ** 78.84375
    return round(255 * float(level))


def _level_of(transfer: int, level: int) -> int:
    data = png(
        np.full((300, 1, 3), level, np.uint16), RGB, 8, chunk(b"cICP", bytes([9, transfer, 0, 1]))
    )
    found = decode(data, SETTINGS).pixels
    assert (found == found[0, 0]).all()
    assert found.shape == (300, 1, 3)
    return int(found[0, 0, 0])


@pytest.mark.parametrize(
    ("transfer", "expected"),
    [
        (16, [0, 1, 4, 13, 26, 42, 61, 85, 114, 150, 193, 221, 242, 255, 255, 255, 255, 255]),
        (18, [0, 2, 13, 26, 39, 52, 66, 79, 92, 106, 122, 142, 166, 194, 214, 229, 243, 255]),
    ],
)
def test_hdr_grey_is_shown_as_in_chromium(transfer: int, expected: list[int]) -> None:
    assert [_level_of(transfer, level) for level in range(0, 256, 15)] == expected


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((9, 16), (4, 24, 55, 98, 158, 242, 255)),
        ((1, 16), (2, 17, 42, 76, 125, 194, 255)),
        ((9, 18), (10, 35, 59, 84, 108, 137, 176)),
        ((1, 18), (6, 25, 44, 64, 83, 106, 137)),
    ],
)
def test_hdr_red_is_shown_as_in_chromium(
    numbers: tuple[int, int], expected: tuple[int, ...]
) -> None:
    levels = np.array([[(level, 0, 0) for level in range(25, 176, 25)]], np.uint16)
    found = _rgb(png(levels, RGB, 8, chunk(b"cICP", bytes([*numbers, 0, 1]))))
    assert np.abs(found[:, 0] - expected).max() <= 1
    assert not found[:, 1:].any()


def test_up_to_white_pq_is_halved() -> None:
    for nits in (20, 80, 203):
        assert abs(_level_of(16, _pq(nits)) - float(_encode(np.array(nits / 406)))) <= 3


def test_hdr_is_mapped_from_black_to_white_without_a_step_back() -> None:
    for transfer in (16, 18):
        mapped = [_level_of(transfer, level) for level in range(0, 256, 5)]
        assert mapped[0] == 0
        assert mapped[-1] == 255
        assert mapped == sorted(mapped)


def test_hdr_keeps_hue_and_opacity() -> None:
    levels = np.array([[[_pq(100), _pq(40), _pq(20), 255], [0, 0, 0, 0]]], np.uint16)
    red, green, blue = _rgb(png(levels, 6, 8, chunk(b"cICP", b"\x01\x10\0\1")))[0] / 255
    linear = _linear(np.array((red, green, blue)) * 255)
    assert abs(linear[0] / linear[1] - 2.5) < 0.15
    assert abs(linear[1] / linear[2] - 2.0) < 0.15
    assert _rgb(png(levels, 6, 8, chunk(b"cICP", b"\x01\x10\0\1")))[1].tolist() == [255] * 3


@pytest.mark.parametrize(
    "name", ["png_cicp_p3.png", "iccp_1.2MB.png", "avif_nclx_p3.avif", "png_gama1.0.png"]
)
def test_the_trial_files_with_declared_colours_are_converted(name: str) -> None:
    found = decode((FILES / name).read_bytes(), SETTINGS).pixels
    stored = np.array(((200, 30, 40), (30, 160, 60), (40, 60, 190)), np.float64)
    if "gama" in name:
        expected = _encode(stored / 255)
    else:
        expected = _encode(_linear(stored) @ TO_SRGB["P3"].T)
    points = np.array([found[y, x, ::-1] for x, y in ((60, 80), (180, 80), (60, 240))])
    assert np.abs(points - expected).max() <= (4 if name.endswith("avif") else 1.5)
