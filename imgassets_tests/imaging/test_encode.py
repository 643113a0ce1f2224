from __future__ import annotations

import io
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from imgassets.imaging.encode import encode, suffix
from imgassets.imaging.image import Pixels
from imgassets.settings import EncodeSettings


def _read(file: bytes) -> Image.Image:
    return Image.open(io.BytesIO(file))


def _bgr(file: bytes) -> Pixels:
    return np.asarray(_read(file).convert("RGB"))[:, :, ::-1]


@pytest.mark.parametrize(("format_", "name"), [("jpeg", "jpg"), ("png", "png"), ("webp", "webp")])
@pytest.mark.parametrize("optimize", [False, True])
def test_each_format_holds_the_picture_and_is_the_same_every_time(
    product: Pixels, format_: Literal["jpeg", "png", "webp"], name: str, optimize: bool
) -> None:
    settings = EncodeSettings(format=format_, optimize=optimize)
    file = encode(product, settings, b"")
    assert suffix(file) == name
    assert encode(product, settings, b"") == file
    difference = np.abs(_bgr(file).astype(int) - product)
    assert difference.mean() < 3
    if format_ == "png":
        assert difference.max() == 0


@pytest.mark.parametrize("optimize", [False, True])
def test_full_colour_resolution_keeps_red_stripes_red(optimize: bool) -> None:
    stripes = np.full((64, 64, 3), 255, np.uint8)
    stripes[:, ::2] = (0, 0, 255)
    away = {}
    for subsampling in ("4:4:4", "4:2:0"):
        settings = EncodeSettings(subsampling=subsampling, optimize=optimize)
        away[subsampling] = np.abs(
            _bgr(encode(stripes, settings, b"")).astype(int) - stripes
        ).mean()
    assert away["4:4:4"] < 5 < away["4:2:0"]


@pytest.mark.parametrize(
    ("format_", "optimize"), [("jpeg", False), ("jpeg", True), ("webp", False)]
)
def test_the_quality_of_the_settings_decides_size_and_likeness(
    photos: dict[str, bytes], format_: Literal["jpeg", "webp"], optimize: bool
) -> None:
    pixels = np.ascontiguousarray(_bgr(photos["portrait_a"])[:200, :200])
    sizes, away = [], []
    for quality in (20, 60, 95, 100):
        settings = EncodeSettings(format=format_, quality=quality, optimize=optimize)
        file = encode(pixels, settings, b"")
        sizes.append(len(file))
        away.append(float(np.abs(_bgr(file).astype(int) - pixels).mean()))
    assert sizes == sorted(set(sizes))
    assert away == sorted(set(away), reverse=True)


@pytest.mark.parametrize("format_", ["jpeg", "png"])
def test_optimising_makes_a_file_smaller_and_changes_no_pixel(
    photos: dict[str, bytes], format_: Literal["jpeg", "png"]
) -> None:
    pixels = np.ascontiguousarray(_bgr(photos["portrait_a"])[:200, :200])
    plain, optimized = (
        encode(pixels, EncodeSettings(format=format_, optimize=optimize, quality=90), b"")
        for optimize in (False, True)
    )
    assert len(optimized) < len(plain)
    assert np.abs(_bgr(plain).astype(int) - _bgr(optimized)).mean() < 0.5


def test_a_jpeg_is_optimised_by_more_than_another_encoder(product: Pixels) -> None:
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(product[:, :, ::-1]))
    image.save(file, "JPEG", quality=95, subsampling="4:2:0")
    made = encode(product, EncodeSettings(optimize=True), b"")
    assert len(made) < len(file.getvalue())


@pytest.mark.parametrize(
    ("format_", "expected"),
    [
        ("JPEG", "jpg"),
        ("PNG", "png"),
        ("WEBP", "webp"),
        ("GIF", "gif"),
        ("BMP", "bmp"),
        ("TIFF", "tif"),
        ("AVIF", "avif"),
        ("ICO", "ico"),
        ("PPM", "ppm"),
    ],
)
def test_the_suffix_of_a_file_follows_its_bytes(format_: str, expected: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 100, 50)).save(file, format_)
    assert suffix(file.getvalue()) == expected


@pytest.mark.parametrize(
    ("format_", "made"), [("JPEG", "JPEG"), ("WEBP", "WEBP"), ("PNG", "PNG"), ("GIF", "PNG")]
)
def test_as_served_keeps_the_format_where_it_is_one_to_train_on(
    product: Pixels, format_: str, made: str
) -> None:
    served = io.BytesIO()
    Image.fromarray(product).save(served, format_)
    file = encode(product, EncodeSettings(format="served"), served.getvalue())
    assert _read(file).format == made


def test_a_part_of_a_larger_picture_is_encoded(product: Pixels) -> None:
    part = product[90:250, 70:170]
    assert _bgr(encode(part, EncodeSettings(format="png"), b"")).tolist() == part.tolist()
    for optimize in (False, True):
        made = _bgr(encode(part, EncodeSettings(optimize=optimize), b""))
        assert made.shape == (160, 100, 3)
        assert np.abs(made.astype(int) - part).mean() < 6
