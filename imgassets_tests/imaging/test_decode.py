from __future__ import annotations

import io
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageChops, ImageCms
from PIL.PngImagePlugin import PngInfo

from imgassets.errors import UnreadableImageError
from imgassets.imaging.decode import decode, full_size
from imgassets.imaging.image import Pixels
from imgassets.manifests import Outcome
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
FILES = Path(__file__).with_name("files")


@contextmanager
def _unreadable(
    outcome: Outcome, match: str | None = None
) -> Iterator[pytest.ExceptionInfo[UnreadableImageError]]:
    """Expect an `UnreadableImageError` with this outcome and message."""
    with pytest.raises(UnreadableImageError, match=match) as caught:
        yield caught
    assert caught.value.outcome is outcome


def _file(image: PILImage.Image, format_: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def _scene(width: int = 120, height: int = 80) -> PILImage.Image:
    """Four plain quadrants: red, green / blue, grey; smooth, so that JPEG hardly changes them."""
    pixels = np.empty((height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    pixels[:h, :w], pixels[:h, w:] = (200, 30, 40), (40, 170, 60)
    pixels[h:, :w], pixels[h:, w:] = (30, 60, 190), (128, 128, 128)
    return PILImage.fromarray(pixels)


def _rgb(data: bytes, settings: DecodeSettings = SETTINGS) -> np.ndarray[Any, np.dtype[np.int64]]:
    return decode(data, settings).pixels[:, :, ::-1].astype(np.int64)


def _difference(data: bytes, expected: PILImage.Image) -> float:
    """Maximum over the quadrants of the difference of the mean colour in their centre, levels."""
    actual, wanted = _rgb(data), np.asarray(expected.convert("RGB"), np.int64)
    assert actual.shape == wanted.shape
    height, width = actual.shape[0] // 2, actual.shape[1] // 2
    parts = [
        (slice(y + height // 4, y + 3 * height // 4), slice(x + width // 4, x + 3 * width // 4))
        for y in (0, height)
        for x in (0, width)
    ]
    return max(float(np.abs(actual[p].mean((0, 1)) - wanted[p].mean((0, 1))).max()) for p in parts)


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
def test_each_format_that_shops_serve_is_decoded_with_its_colours(
    format_: str, options: dict[str, Any]
) -> None:
    assert _difference(_file(_scene(), format_, **options), _scene()) < 4


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_made_upright(format_: str, orientation: int) -> None:
    undo = {
        2: PILImage.Transpose.FLIP_LEFT_RIGHT,
        3: PILImage.Transpose.ROTATE_180,
        4: PILImage.Transpose.FLIP_TOP_BOTTOM,
        5: PILImage.Transpose.TRANSPOSE,
        6: PILImage.Transpose.ROTATE_90,
        7: PILImage.Transpose.TRANSVERSE,
        8: PILImage.Transpose.ROTATE_270,
    }
    stored = _scene() if orientation == 1 else _scene().transpose(undo[orientation])
    exif = PILImage.Exif()
    exif[0x0112] = orientation
    data = _file(stored, format_, exif=exif)
    assert _difference(data, _scene()) < 5
    image = decode(data, SETTINGS)
    assert image.full_size == (120, 80)
    assert (image.scale_x, image.scale_y) == (1, 1)


@pytest.mark.parametrize("orientation", [0, 9, 274])
@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_an_unknown_orientation_is_ignored(format_: str, orientation: int) -> None:
    exif = PILImage.Exif()
    exif[0x0112] = orientation
    assert _difference(_file(_scene(), format_, exif=exif), _scene()) < 4


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_in_xmp_is_ignored(format_: str, orientation: int) -> None:
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="{orientation}"></x:xmpmeta>'
    if format_ == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp)
        data = _file(_scene(), format_, pnginfo=info)
    elif format_ == "TIFF":
        data = _file(_scene(), format_, tiffinfo={700: xmp.encode()})
    else:
        data = _file(_scene(), format_, xmp=xmp.encode())
    assert b"tiff:Orientation" in data
    assert _difference(data, _scene()) < 5


@pytest.mark.parametrize("format_", ["JPEG", "WEBP"])
def test_the_exif_orientation_counts_where_xmp_says_something_else(format_: str) -> None:
    exif = PILImage.Exif()
    exif[0x0112] = 3
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"></x:xmpmeta>'
    stored = _scene().transpose(PILImage.Transpose.ROTATE_180)
    assert _difference(_file(stored, format_, exif=exif, xmp=xmp), _scene()) < 5


@pytest.mark.parametrize("name", ["xmp_orient6_noexif.jpg", "xmp_orient6.webp"])
def test_the_trial_files_with_an_orientation_in_xmp_stay_upright(name: str) -> None:
    image = decode((FILES / name).read_bytes(), SETTINGS)
    assert image.full_size == (240, 320)
    assert image.pixels[5, 5].max() <= 3  # the black mark is at the top left


@pytest.mark.parametrize("mode", ["CMYK", "YCCK"])
def test_cmyk_jpegs_with_adobe_marker_are_not_inverted(mode: str) -> None:
    data = _file(_scene().convert("CMYK"), "JPEG", quality=95)
    if mode == "YCCK":
        data = _as_ycck(_scene())
    assert _difference(data, _scene()) < 6


def _as_ycck(image: PILImage.Image) -> bytes:
    """A YCCK file: Pillow cannot write one, so a CMYK file gets its channels and is relabelled."""
    # An Adobe file stores 255 - ink; libjpeg stores the YCC of 255 - that value, and Pillow inverts
    # once more when it writes.
    inks = ImageChops.invert(image).convert("YCbCr").split()
    none = PILImage.new("L", image.size, 0)
    stored = PILImage.merge("CMYK", [*(ImageChops.invert(ink) for ink in inks), none])
    data = bytearray(_file(stored, "JPEG", quality=95, subsampling=0))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


@pytest.mark.parametrize("name", ["samp_2x4", "samp_3x1"])
def test_a_jpeg_with_unusual_sampling_factors_is_decoded(name: str) -> None:
    data = (FILES / f"{name}.jpg").read_bytes()
    image = decode(data, SETTINGS, lambda _width, _height: 2)
    assert image.full_size == (240, 320)
    # The corner of the drawing, its black mark, and one point of each of its four fields.
    points = [(200, 5), (5, 5), (60, 80), (180, 80), (60, 240), (180, 240)]
    found = [image.pixels[y * image.height // 320, x * image.width // 240] for x, y in points]
    expected = [250] * 3, [0] * 3, [39, 30, 200], [60, 160, 30], [189, 61, 40], [249, 192, 190]
    assert np.abs(np.array(found).astype(int) - np.array(expected)).max() <= 3
    with _unreadable(Outcome.CORRUPT, "truncated"):
        decode(data[: len(data) // 2], SETTINGS)


def test_a_cmyk_profile_is_converted() -> None:
    def lab(c: int, m: int, y: int, k: int) -> tuple[float, float, float]:
        return (100 - 90 * k - 3 * (c + m + y), -40.0 * c, 30.0 * y)

    ink = PILImage.new("CMYK", (32, 32), (255, 0, 0, 0))
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
    # The expected colour is computed with the matrix, independently of LittleCMS.
    to_xyz = np.array(primaries).T
    srgb = np.array(
        ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))
    ).T
    linear = np.linalg.inv(srgb) @ to_xyz @ ((stored / 255) ** gamma)
    curve = np.where(
        linear <= 0.0031308, linear * 12.92, 1.055 * linear.clip(0) ** (1 / 2.4) - 0.055
    )
    expected = (curve * 255).clip(0, 255)
    image = PILImage.new("RGB", (64, 64), tuple(int(v) for v in stored))
    options = {} if format_ in ("PNG", "TIFF") else {"quality": 98}
    data = _file(image, format_, icc_profile=rgb_profile(primaries, gamma), **options)
    decoded = _rgb(data)[32, 32]
    assert np.abs(decoded - expected).max() <= 4
    assert np.abs(stored - expected).max() > 8


@pytest.mark.parametrize("mode", ["RGBA", "P", "PA", "RGB"])
def test_the_profile_of_a_transparent_image_is_converted(mode: str) -> None:
    profile = rgb_profile(ADOBE_RGB, 2.2)
    opaque = PILImage.new("RGB", (16, 16), (120, 160, 90))
    expected = _rgb(_file(opaque, "PNG", icc_profile=profile))[8, 8]
    assert expected[0] < 110  # far from the stored value
    image, format_ = opaque.convert("RGBA"), "PNG"
    options: dict[str, Any] = {"icc_profile": profile}
    image.paste((0, 0, 0, 0), (0, 0, 4, 16))
    if mode == "RGB":
        # One colour is transparent, as in PNGs without an alpha channel.
        image, options = image.convert("RGB"), options | {"transparency": (0, 0, 0)}
    elif mode == "P":
        image, options = image.convert("RGB").quantize(2), options | {"transparency": b"\xff\xff"}
        options["transparency"] = bytes(255 * (image.getpixel((8, 8)) == entry) for entry in (0, 1))
    elif mode == "PA":
        image, format_ = image.convert("PA"), "TIFF"
    decoded = _rgb(_file(image, format_, **options))
    assert PILImage.open(io.BytesIO(_file(image, format_, **options))).mode == mode
    assert tuple(decoded[8, 8]) == tuple(expected)
    assert tuple(decoded[8, 2]) == (255, 255, 255)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "AVIF"])
def test_an_rgb_profile_of_a_grey_image_is_used_as_in_browsers(format_: str) -> None:
    data = _file(PILImage.new("L", (16, 16), 100), format_, icc_profile=rgb_profile(PROPHOTO, 1.0))
    assert (_rgb(data)[8, 8] == 168).all()


def test_an_rgb_profile_of_a_transparent_grey_image_is_used() -> None:
    image = PILImage.new("LA", (16, 16), (100, 255))
    image.paste((0, 0), (0, 0, 4, 16))
    decoded = _rgb(_file(image, "PNG", icc_profile=rgb_profile(PROPHOTO, 1.0)))
    assert tuple(decoded[8, 8]) == (168, 168, 168)
    assert tuple(decoded[8, 2]) == (255, 255, 255)


def test_an_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = _file(_scene(), "PNG")
    assert (_rgb(_file(_scene(), "PNG", icc_profile=profile)) == _rgb(plain)).all()


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_a_grey_profile_is_converted(format_: str) -> None:
    grey = PILImage.new("L", (32, 32), 100)
    decoded = _rgb(_file(grey, format_, icc_profile=grey_profile(1.0)))[16, 16]
    assert np.abs(decoded - 167).max() <= 2  # the sRGB value of a linear intensity of 100 / 255


@pytest.mark.parametrize("profile", [b"no profile at all", grey_profile(1.0)])
def test_a_profile_that_is_broken_or_for_another_mode_is_ignored(profile: bytes) -> None:
    assert _difference(_file(_scene(), "JPEG", quality=95, icc_profile=profile), _scene()) < 4


def test_threads_convert_profiles_in_parallel() -> None:
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
    decoded = _rgb(_file(image, format_, **options), DecodeSettings(background=background))
    assert np.abs(decoded[20, 90] - background).max() <= 3
    assert np.abs(decoded[20, 30] - (200, 30, 40)).max() <= 6


def test_partly_transparent_pixels_are_blended_with_the_background() -> None:
    image = PILImage.new("RGBA", (5, 1))
    for x, alpha in enumerate((0, 1, 128, 254, 255)):
        image.putpixel((x, 0), (200, 0, 50, alpha))
    decoded = decode(_file(image, "PNG"), DecodeSettings(background=(10, 201, 90)))
    assert _is_pixels(decoded.pixels)
    assert decoded.pixels[0, :, ::-1].tolist() == [
        [10, 201, 90],
        [11, 200, 90],
        [105, 100, 70],  # 200 * 128 / 255 + 10 * 127 / 255 = 105.4, ...
        [199, 1, 50],
        [200, 0, 50],
    ]


def test_an_image_with_an_alpha_channel_may_be_opaque() -> None:
    image = PILImage.new("RGBA", (8, 8), (200, 0, 50, 255))
    assert (_rgb(_file(image, "PNG")) == (200, 0, 50)).all()


def test_the_transparent_level_of_a_grey_png_shows_the_background() -> None:
    image = PILImage.new("L", (8, 8), 100)
    image.paste(40, (0, 0, 4, 8))
    decoded = _rgb(_file(image, "PNG", transparency=40), DecodeSettings(background=(1, 2, 3)))
    assert decoded[4, 2].tolist() == [1, 2, 3]
    assert decoded[4, 6].tolist() == [100, 100, 100]


@pytest.mark.parametrize("mode", ["P", "L", "1", "LA"])
def test_palette_and_grey_pngs_are_decoded(mode: str) -> None:
    image = _scene().convert("L").convert(mode)
    assert _difference(_file(image, "PNG"), image) < 2


def test_a_palette_with_a_transparent_entry_shows_the_background() -> None:
    image = PILImage.new("P", (16, 16), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, 8, 16))
    decoded = _rgb(_file(image, "PNG", transparency=0))
    assert tuple(decoded[8, 12]) == (255, 255, 255)
    assert tuple(decoded[8, 4]) == (200, 100, 50)


def _deep_ramp() -> NDArray[np.uint16]:
    """All high bytes, each with a very different low byte."""
    high = np.arange(256, dtype=np.uint16)
    return np.tile(high * 256 + (high + 128) % 256, (16, 1))


@pytest.mark.parametrize(
    ("format_", "mode", "type_"),
    [
        ("PNG", "I;16", "<u2"),
        ("TIFF", "I;16", "<u2"),
        ("TIFF", "I;16B", ">u2"),
        ("TIFF", "I", "<i4"),
        ("PPM", "I", "<i4"),
    ],
)
def test_16_bit_grey_images_become_their_high_byte(format_: str, mode: str, type_: str) -> None:
    data = _file(PILImage.fromarray(_deep_ramp().astype(type_)), format_)
    assert PILImage.open(io.BytesIO(data)).mode == mode
    assert (_rgb(data) == np.arange(256)[None, :, None]).all()


def test_grey_levels_outside_16_bits_are_clipped() -> None:
    levels = np.array([[-70_000, -1, 0, 255, 256, 65_535, 65_536, 2**31 - 1]], np.int32)
    decoded = _rgb(_file(PILImage.fromarray(levels), "TIFF"))
    assert decoded[0, :, 0].tolist() == [0, 0, 0, 0, 1, 255, 255, 255]


def test_16_bit_colour_images_become_their_high_bytes() -> None:
    ramp = _deep_ramp()
    data = cv2.imencode(".png", np.dstack([ramp, ramp[:, ::-1], ramp // 2]))[1].tobytes()
    decoded, levels = _rgb(data)[8], np.arange(256)
    assert (decoded[:, 2] == levels).all()
    assert (decoded[:, 1] == levels[::-1]).all()
    assert (decoded[:, 0] == levels // 2).all()


def test_floating_point_pixels_are_not_supported() -> None:
    data = _file(PILImage.new("F", (8, 8), 0.5), "TIFF")
    with _unreadable(
        Outcome.UNSUPPORTED_FORMAT, r"^images with floating-point pixels are not supported$"
    ):
        decode(data, SETTINGS)


@pytest.mark.parametrize("format_", ["WEBP", "GIF", "PNG"])
def test_the_first_frame_of_an_animation_is_decoded(format_: str) -> None:
    frames = [PILImage.new("RGB", (40, 30), colour) for colour in ((200, 0, 0), (0, 0, 200))]
    data = _file(frames[0], format_, save_all=True, append_images=frames[1:])
    assert np.abs(_rgb(data)[15, 20] - (200, 0, 0)).max() <= 4


@pytest.mark.parametrize("options", [{"quality": 80}, {"lossless": True}])
@pytest.mark.parametrize("profile", [None, b"no profile at all"])
@pytest.mark.parametrize("size", [(512, 512), (511, 307)])
def test_an_opaque_webp_file_has_the_pixels_that_pillow_decodes(
    photos: dict[str, bytes],
    options: dict[str, Any],
    profile: bytes | None,
    size: tuple[int, int],
) -> None:
    image = PILImage.open(io.BytesIO(photos["astronaut"])).convert("RGB").crop((0, 0, *size))
    data = _file(image, "WEBP", icc_profile=profile, **options)
    expected = np.asarray(PILImage.open(io.BytesIO(data)))
    assert expected.shape == (*size[::-1], 3)
    assert (_rgb(data) == expected).all()
    with _unreadable(Outcome.CORRUPT):
        decode(data[:10_000] + data[10_200:], SETTINGS)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_truncated_file_is_unreadable(
    photos: dict[str, bytes], format_: str, share: float
) -> None:
    whole = _file(PILImage.open(io.BytesIO(photos["astronaut"])), format_)
    assert decode(whole, SETTINGS).pixels.shape == (512, 512, 3)
    # The format of a truncated AVIF file is not recognised.
    with _unreadable(Outcome.NOT_AN_IMAGE if format_ == "AVIF" else Outcome.CORRUPT):
        decode(whole[: int(len(whole) * share)], SETTINGS)


def test_any_exception_of_a_decoder_becomes_an_unreadable_image_error() -> None:
    data = _file(_scene(), "AVIF")
    blank = data[: data.index(b"mdat") + 4].ljust(len(data), b"\0")
    with _unreadable(Outcome.CORRUPT, r"^RuntimeError: Failed to decode") as caught:
        decode(blank, SETTINGS)
    assert type(caught.value.__cause__) is RuntimeError


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_last_bytes_is_unreadable(
    photos: dict[str, bytes], progressive: bool
) -> None:
    image = PILImage.open(io.BytesIO(photos["astronaut"]))
    whole = _file(image, "JPEG", progressive=progressive)
    for shrink in (full_size, lambda _w, _h: 8):
        with _unreadable(Outcome.CORRUPT, r"^ValueError: Premature end of JPEG file$"):
            decode(whole[:-200], SETTINGS, shrink)


def test_bytes_after_the_end_of_the_image_are_ignored(photos: dict[str, bytes]) -> None:
    whole = photos["astronaut"]
    assert (_rgb(whole + b"\0" * 999) == _rgb(whole)).all()


def test_a_png_with_damaged_data_is_unreadable() -> None:
    data = bytearray(_file(_scene(), "PNG"))
    start = data.index(b"IDAT")
    data[start + 10] ^= 0xFF
    with _unreadable(Outcome.CORRUPT, r"^a checksum in the PNG file is wrong$"):
        decode(bytes(data), SETTINGS)
    end = data.index(b"IEND") - 8
    data[end : end + 4] = _crc(bytes(data[start:end])).to_bytes(4)
    with _unreadable(Outcome.CORRUPT, r"^OSError: broken data stream"):
        decode(bytes(data), SETTINGS)


@pytest.mark.parametrize(
    "data", [b"", b"<!DOCTYPE html><html>", b"%PDF-1.7", b"\xff\xd8", b"\0" * 99]
)
def test_bytes_that_are_not_an_image_are_reported(data: bytes) -> None:
    with _unreadable(Outcome.NOT_AN_IMAGE, r"^not a known image format$"):
        decode(data, SETTINGS)


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_an_image_with_the_maximum_number_of_pixels_is_decoded(format_: str) -> None:
    data = _file(_scene(), format_)
    assert decode(data, DecodeSettings(max_pixels=9600)).full_size == (120, 80)
    rejected = r"^120 x 80 pixels, more than 9,599 \(decode\.max_pixels\)$"
    with _unreadable(Outcome.TOO_MANY_PIXELS, rejected):
        decode(data, DecodeSettings(max_pixels=9599))


def test_a_decompression_bomb_is_rejected_before_it_is_decoded() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", _crc(kind + data))

    for width, height, rejected in (
        (20_000, 3_000, "^20000 x 3000 pixels, more than 50,000,000 "),
        (60_000, 60_000, r"^Image size \(3600000000 pixels\) exceeds limit"),
    ):
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
        with _unreadable(Outcome.TOO_MANY_PIXELS, rejected):
            decode(bomb, SETTINGS)


def _crc(data: bytes) -> int:
    import zlib

    return zlib.crc32(data)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_an_image_with_broken_exif_data_is_decoded() -> None:
    for exif in (b"Exif\0\0MM\0*\0\0\xff\xff broken", b"Exif\0\0 no TIFF"):
        assert _difference(_file(_scene(), "JPEG", quality=95, exif=exif), _scene()) < 4


@pytest.mark.parametrize("letter", ["x", "6"])
@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_an_orientation_that_is_not_a_number_is_ignored(format_: str, letter: str) -> None:
    # One entry: the orientation as a string of one letter.
    exif = (
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01"
        + struct.pack(">HHI", 0x0112, 2, 2)
        + letter.encode()
        + b"\0\0\0"
        + b"\0" * 4
    )
    data = _file(_scene(), format_, exif=exif)
    assert PILImage.open(io.BytesIO(data)).getexif()[0x0112] == letter
    assert _difference(data, _scene()) < 4


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_shrunk_jpeg_shows_the_same_part_of_the_served_image(factor: int) -> None:
    exif = PILImage.Exif()
    exif[0x0112] = 6
    data = _file(_scene(400, 303), "JPEG", quality=95, exif=exif)
    requested: list[tuple[int, int]] = []

    def shrink(width: int, height: int) -> int:
        requested.append((width, height))
        return factor

    full, small = decode(data, SETTINGS), decode(data, SETTINGS, shrink)
    assert requested == [(303, 400)]
    assert small.pixels.shape == (-(-400 // factor), -(-303 // factor), 3)
    assert small.full_size == full.full_size == (303, 400)
    assert small.scale_x == 303 / small.width
    assert small.scale_y == 400 / small.height
    assert small.box_in_original == full.box_in_original
    enlarged = cv2.resize(small.pixels, (303, 400), interpolation=cv2.INTER_LINEAR)
    assert np.abs(enlarged.astype(int) - full.pixels).mean() < 3


@pytest.mark.parametrize(
    ("size", "factor", "expected"),
    [
        ((9, 9), 2, (5, 5)),
        ((9, 9), 4, (3, 3)),
        ((9, 9), 8, (2, 2)),
        ((1, 400), 4, (1, 100)),
        ((400, 1), 4, (100, 1)),
        ((17, 9), 4, (5, 3)),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_sides_of_a_shrunk_jpeg_are_rounded_up(
    mode: str, size: tuple[int, int], factor: int, expected: tuple[int, int]
) -> None:
    image = decode(_file(PILImage.new(mode, size), "JPEG"), SETTINGS, lambda _w, _h: factor)
    assert (image.width, image.height) == expected
    assert image.full_size == size


def test_the_first_image_of_a_multi_picture_jpeg_is_decoded_at_the_requested_size() -> None:
    images = [_scene(), PILImage.new("RGB", (120, 80), (0, 0, 200))]
    data = _file(images[0], "MPO", save_all=True, append_images=images[1:], quality=95)
    assert PILImage.open(io.BytesIO(data)).format == "MPO"
    assert _difference(data, _scene()) < 4
    assert decode(data, SETTINGS, lambda _w, _h: 2).pixels.shape == (40, 60, 3)


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "GIF", "TIFF"])
def test_formats_other_than_jpeg_are_decoded_at_full_size(format_: str) -> None:
    image = decode(_file(_scene(), format_), SETTINGS, lambda _w, _h: 4)
    assert image.pixels.shape == (80, 120, 3)
    assert image.full_size == (120, 80)
    assert (image.scale_x, image.scale_y) == (1, 1)


@pytest.mark.parametrize("factor", [1, 4])
def test_a_profile_is_converted_in_an_image_that_is_rotated_and_shrunk(factor: int) -> None:
    exif = PILImage.Exif()
    exif[0x0112] = 6
    stored = _scene().transpose(PILImage.Transpose.ROTATE_90)
    profile = rgb_profile(DISPLAY_P3, 2.2)
    plain = _file(_scene(), "PNG", icc_profile=profile)
    data = _file(stored, "JPEG", quality=95, exif=exif, icc_profile=profile)
    image = decode(data, SETTINGS, lambda _w, _h: factor)
    assert image.pixels.shape == (80 // factor, 120 // factor, 3)
    expected = decode(plain, SETTINGS).pixels[::factor, ::factor].astype(int)
    for y, x in ((20, 30), (20, 90), (60, 30), (60, 90)):
        at = y // factor, x // factor
        assert np.abs(image.pixels[at] - expected[at]).max() <= 4


def _is_pixels(pixels: Pixels) -> bool:
    return pixels.dtype == np.uint8 and pixels.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF"])
def test_pixels_are_contiguous_8_bit_arrays(format_: str) -> None:
    exif = PILImage.Exif()
    exif[0x0112] = 3
    options = {} if format_ == "GIF" else {"exif": exif}
    assert _is_pixels(decode(_file(_scene(), format_, **options), SETTINGS).pixels)
