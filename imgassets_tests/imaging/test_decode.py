from __future__ import annotations

import io
import struct
import threading
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageChops, ImageCms

from imgassets.imaging.decode import NotAnImage, TooManyPixels, Unreadable, decode
from imgassets.imaging.picture import Pixels
from imgassets.settings import DecodeSettings
from imgassets_tests.imaging.icc import (
    ADOBE_RGB,
    DISPLAY_P3,
    PROPHOTO,
    cmyk_profile,
    grey_profile,
    rgb_profile,
)

SETTINGS = DecodeSettings()


def _file(image: Image.Image, format_: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def _scene(width: int = 120, height: int = 80) -> Image.Image:
    """Four plain quarters: red, green / blue, grey; smooth, so that JPEG keeps it."""
    pixels = np.empty((height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    pixels[:h, :w], pixels[:h, w:] = (200, 30, 40), (40, 170, 60)
    pixels[h:, :w], pixels[h:, w:] = (30, 60, 190), (128, 128, 128)
    return Image.fromarray(pixels)


def _rgb(data: bytes, settings: DecodeSettings = SETTINGS) -> np.ndarray[Any, np.dtype[np.int64]]:
    return decode(data, settings).pixels[:, :, ::-1].astype(np.int64)


def _away(data: bytes, expected: Image.Image) -> float:
    """The largest mean difference of a quarter's middle, in levels."""
    made, wanted = _rgb(data), np.asarray(expected.convert("RGB"), np.int64)
    assert made.shape == wanted.shape
    height, width = made.shape[0] // 2, made.shape[1] // 2
    parts = [
        (slice(y + height // 4, y + 3 * height // 4), slice(x + width // 4, x + 3 * width // 4))
        for y in (0, height)
        for x in (0, width)
    ]
    return max(float(np.abs(made[p].mean((0, 1)) - wanted[p].mean((0, 1))).max()) for p in parts)


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "subsampling": 1}),
        ("JPEG", {"quality": 95, "keep_rgb": True}),
        ("PNG", {}),
        ("WEBP", {"quality": 95}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("AVIF", {"quality": 95}),
    ],
)
def test_each_format_that_shops_serve_is_read_in_its_colours(
    format_: str, options: dict[str, Any]
) -> None:
    assert _away(_file(_scene(), format_, **options), _scene()) < 4


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_made_upright(format_: str, orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = _scene() if orientation == 1 else _scene().transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert _away(_file(stored, format_, exif=exif), _scene()) < 5


@pytest.mark.parametrize("mode", ["CMYK", "YCCK"])
def test_cmyk_jpegs_with_adobe_marker_are_not_inverted(mode: str) -> None:
    data = _file(_scene().convert("CMYK"), "JPEG", quality=95)
    if mode == "YCCK":
        data = _as_ycck(_scene())
    assert _away(data, _scene()) < 6


def _as_ycck(image: Image.Image) -> bytes:
    """A YCCK file: Pillow writes none, so its channels are put into a CMYK one and relabelled."""
    # An Adobe file holds 255 less the ink; libjpeg stores YCC of what is missing to 255 of that,
    # and Pillow inverts once more when it writes.
    inks = ImageChops.invert(image).convert("YCbCr").split()
    none = Image.new("L", image.size, 0)
    stored = Image.merge("CMYK", [*(ImageChops.invert(ink) for ink in inks), none])
    data = bytearray(_file(stored, "JPEG", quality=95, subsampling=0))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def test_a_cmyk_profile_decides_the_colours() -> None:
    def lab(c: int, m: int, y: int, k: int) -> tuple[float, float, float]:
        return (100 - 90 * k - 3 * (c + m + y), -40.0 * c, 30.0 * y)

    ink = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    plain = _rgb(_file(ink, "JPEG", quality=95))[16, 16]
    profile = cmyk_profile(lab)
    converted = _rgb(_file(ink, "JPEG", quality=95, icc_profile=profile))[16, 16]
    expected = ImageCms.profileToProfile(
        ink,
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        "RGB",
        inPlace=False,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert expected is not None
    assert np.abs(converted - np.array(expected.getpixel((16, 16)))).max() <= 4
    assert np.abs(converted - plain).max() > 40


@pytest.mark.parametrize(
    ("primaries", "gamma"), [(ADOBE_RGB, 2.2), (DISPLAY_P3, 2.2), (PROPHOTO, 1.8)]
)
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_embedded_profiles_are_converted_to_srgb(
    format_: str, primaries: tuple[tuple[float, ...], ...], gamma: float
) -> None:
    stored = np.array((120, 160, 90))
    # The colour by the matrix, independent of LittleCMS.
    to_xyz = np.array(primaries).T
    srgb = np.array(
        ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))
    ).T
    linear = np.linalg.inv(srgb) @ to_xyz @ ((stored / 255) ** gamma)
    curve = np.where(
        linear <= 0.0031308, linear * 12.92, 1.055 * linear.clip(0) ** (1 / 2.4) - 0.055
    )
    expected = (curve * 255).clip(0, 255)
    image = Image.new("RGB", (64, 64), tuple(int(v) for v in stored))
    options = {} if format_ in ("PNG", "TIFF") else {"quality": 98}
    data = _file(image, format_, icc_profile=rgb_profile(primaries, gamma), **options)
    made = _rgb(data)[32, 32]
    assert np.abs(made - expected).max() <= 4
    assert np.abs(stored - expected).max() > 8


def test_an_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = _file(_scene(), "PNG")
    assert (_rgb(_file(_scene(), "PNG", icc_profile=profile)) == _rgb(plain)).all()


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_a_grey_profile_lightens_a_grey_picture(format_: str) -> None:
    grey = Image.new("L", (32, 32), 100)
    made = _rgb(_file(grey, format_, icc_profile=grey_profile(1.0)))[16, 16]
    assert np.abs(made - 167).max() <= 2  # (100 / 255) of the light, in sRGB


@pytest.mark.parametrize("profile", [b"no profile at all", grey_profile(1.0)])
def test_a_profile_that_is_broken_or_of_another_kind_is_passed_over(profile: bytes) -> None:
    assert _away(_file(_scene(), "JPEG", quality=95, icc_profile=profile), _scene()) < 4


def test_threads_share_no_transform() -> None:
    data = _file(_scene(), "JPEG", icc_profile=rgb_profile(DISPLAY_P3, 2.2))
    expected = _rgb(data)
    wrong: list[bool] = []

    def work() -> None:
        wrong.extend(bool((_rgb(data) != expected).any()) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 80
    assert not any(wrong)


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "GIF", "TIFF", "AVIF"])
@pytest.mark.parametrize("background", [(255, 255, 255), (10, 200, 90)])
def test_transparency_shows_the_background(format_: str, background: tuple[int, int, int]) -> None:
    image = _scene().convert("RGBA")
    image.paste((0, 0, 0, 0), (60, 0, 120, 40))
    options: dict[str, Any] = {"lossless": True} if format_ == "WEBP" else {}
    made = _rgb(_file(image, format_, **options), DecodeSettings(background=background))
    assert np.abs(made[20, 90] - background).max() <= 3
    assert np.abs(made[20, 30] - (200, 30, 40)).max() <= 6


def test_half_transparent_pixels_are_mixed() -> None:
    image = Image.new("RGBA", (8, 8), (200, 0, 0, 128))
    assert np.abs(_rgb(_file(image, "PNG"))[4, 4] - (227, 127, 127)).max() <= 1


@pytest.mark.parametrize("mode", ["P", "L", "1", "LA"])
def test_palette_and_grey_pngs_are_read(mode: str) -> None:
    image = _scene().convert("L").convert(mode)
    assert _away(_file(image, "PNG"), image) < 2


def test_a_palette_with_a_transparent_entry_shows_the_background() -> None:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, 8, 16))
    made = _rgb(_file(image, "PNG", transparency=0))
    assert tuple(made[8, 12]) == (255, 255, 255)
    assert tuple(made[8, 4]) == (200, 100, 50)


def test_sixteen_bit_pictures_keep_their_tones() -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (16, 1))
    grey = cv2.imencode(".png", ramp)[1].tobytes()
    assert np.abs(_rgb(grey)[8, :, 0] - np.arange(256)).max() <= 1
    colour = cv2.imencode(".png", np.dstack([ramp, ramp[:, ::-1], ramp // 2]))[1].tobytes()
    made = _rgb(colour)
    assert np.abs(made[8, :, 2] - np.arange(256)).max() <= 1
    assert np.abs(made[8, :, 0] - np.arange(256) / 2).max() <= 1


@pytest.mark.parametrize("format_", ["WEBP", "GIF", "PNG"])
def test_an_animation_gives_its_first_picture(format_: str) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ((200, 0, 0), (0, 0, 200))]
    data = _file(frames[0], format_, save_all=True, append_images=frames[1:])
    assert np.abs(_rgb(data)[15, 20] - (200, 0, 0)).max() <= 4


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_unreadable(
    photos: dict[str, bytes], format_: str, share: float
) -> None:
    whole = _file(Image.open(io.BytesIO(photos["astronaut"])), format_)
    assert decode(whole, SETTINGS).pixels.shape == (512, 512, 3)
    with pytest.raises(Unreadable):
        decode(whole[: int(len(whole) * share)], SETTINGS)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_last_bytes_is_unreadable(
    photos: dict[str, bytes], progressive: bool
) -> None:
    image = Image.open(io.BytesIO(photos["astronaut"]))
    whole = _file(image, "JPEG", progressive=progressive)
    with pytest.raises(Unreadable):
        decode(whole[:-200], SETTINGS)
    with pytest.raises(Unreadable):
        decode(whole[:-200], SETTINGS, lambda _w, _h: 8)


def test_bytes_after_the_end_do_no_harm(photos: dict[str, bytes]) -> None:
    whole = photos["astronaut"]
    assert (_rgb(whole + b"\0" * 999) == _rgb(whole)).all()


def test_a_png_with_a_wrong_checksum_is_unreadable() -> None:
    data = bytearray(_file(_scene(), "PNG"))
    data[data.index(b"IDAT") + 10] ^= 0xFF
    with pytest.raises(Unreadable):
        decode(bytes(data), SETTINGS)


@pytest.mark.parametrize(
    "data", [b"", b"<!DOCTYPE html><html>", b"%PDF-1.7", b"\xff\xd8", b"\0" * 99]
)
def test_what_is_no_picture_is_told(data: bytes) -> None:
    with pytest.raises(NotAnImage):
        decode(data, SETTINGS)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", _crc(kind + data))

    for width, height in ((20_000, 3_000), (60_000, 60_000)):
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
        with pytest.raises(TooManyPixels):
            decode(bomb, SETTINGS)


def _crc(data: bytes) -> int:
    import zlib

    return zlib.crc32(data)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_cost_the_picture() -> None:
    data = _file(_scene(), "JPEG", quality=95, exif=b"Exif\0\0MM\0*\0\0\xff\xff broken")
    assert _away(data, _scene()) < 4


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_shrunk_jpeg_shows_the_same_in_its_place(factor: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = _file(_scene(400, 303), "JPEG", quality=95, exif=exif)
    asked: list[tuple[int, int]] = []

    def shrink(width: int, height: int) -> int:
        asked.append((width, height))
        return factor

    full, small = decode(data, SETTINGS), decode(data, SETTINGS, shrink)
    assert asked == [(303, 400)]
    assert small.pixels.shape == (-(-400 // factor), -(-303 // factor), 3)
    assert small.served_box == full.served_box
    again = cv2.resize(small.pixels, (303, 400), interpolation=cv2.INTER_LINEAR)
    assert np.abs(again.astype(int) - full.pixels).mean() < 3


def _is_pixels(pixels: Pixels) -> bool:
    return pixels.dtype == np.uint8 and pixels.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF"])
def test_pixels_are_what_opencv_takes(format_: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    options = {} if format_ == "GIF" else {"exif": exif}
    assert _is_pixels(decode(_file(_scene(), format_, **options), SETTINGS).pixels)
