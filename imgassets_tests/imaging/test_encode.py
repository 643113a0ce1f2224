from __future__ import annotations

import io
from typing import Literal

import numpy as np
import pytest
from PIL import Image as PILImage

from imgassets.imaging.encode import encode, extension
from imgassets.imaging.image import Pixels
from imgassets.settings import EncodeSettings


def _read(file: bytes) -> PILImage.Image:
    return PILImage.open(io.BytesIO(file))


def _bgr(file: bytes) -> Pixels:
    return np.asarray(_read(file).convert("RGB"))[:, :, ::-1]


@pytest.mark.parametrize(("format_", "name"), [("jpeg", "jpg"), ("png", "png"), ("webp", "webp")])
@pytest.mark.parametrize("optimize", [False, True])
def test_each_format_preserves_the_image_and_gives_equal_bytes_every_time(
    product: Pixels, format_: Literal["jpeg", "png", "webp"], name: str, optimize: bool
) -> None:
    settings = EncodeSettings(format=format_, optimize=optimize)
    file = encode(product, settings, b"")
    assert extension(file) == name
    assert encode(product, settings, b"") == file
    difference = np.abs(_bgr(file).astype(int) - product)
    assert difference.mean() < 3
    if format_ == "png":
        assert difference.max() == 0


@pytest.mark.parametrize("optimize", [False, True])
def test_full_colour_resolution_keeps_red_stripes_red(optimize: bool) -> None:
    stripes = np.full((64, 64, 3), 255, np.uint8)
    stripes[:, ::2] = (0, 0, 255)
    errors = {}
    for subsampling in ("4:4:4", "4:2:0"):
        settings = EncodeSettings(subsampling=subsampling, optimize=optimize)
        errors[subsampling] = np.abs(
            _bgr(encode(stripes, settings, b"")).astype(int) - stripes
        ).mean()
    assert errors["4:4:4"] < 5 < errors["4:2:0"]


@pytest.mark.parametrize(
    ("format_", "optimize"), [("jpeg", False), ("jpeg", True), ("webp", False)]
)
def test_a_higher_quality_gives_larger_files_and_smaller_errors(
    photos: dict[str, bytes], format_: Literal["jpeg", "webp"], optimize: bool
) -> None:
    pixels = np.ascontiguousarray(_bgr(photos["portrait_a"])[:200, :200])
    sizes, errors = [], []
    for quality in (20, 60, 95, 100):
        settings = EncodeSettings(format=format_, quality=quality, optimize=optimize)
        file = encode(pixels, settings, b"")
        sizes.append(len(file))
        errors.append(float(np.abs(_bgr(file).astype(int) - pixels).mean()))
    assert sizes == sorted(set(sizes))
    assert errors == sorted(set(errors), reverse=True)


@pytest.mark.parametrize("format_", ["jpeg", "png"])
def test_optimisation_makes_files_smaller_without_visible_changes(
    photos: dict[str, bytes], format_: Literal["jpeg", "png"]
) -> None:
    pixels = np.ascontiguousarray(_bgr(photos["portrait_a"])[:200, :200])
    plain, optimized = (
        encode(pixels, EncodeSettings(format=format_, optimize=optimize, quality=90), b"")
        for optimize in (False, True)
    )
    assert len(optimized) < len(plain)
    assert np.abs(_bgr(plain).astype(int) - _bgr(optimized)).mean() < 0.5


def test_an_optimised_jpeg_is_smaller_than_pillows_default(
    product: Pixels,
) -> None:
    file = io.BytesIO()
    image = PILImage.fromarray(np.ascontiguousarray(product[:, :, ::-1]))
    image.save(file, "JPEG", quality=95, subsampling="4:2:0")
    encoded = encode(product, EncodeSettings(optimize=True), b"")
    assert len(encoded) < len(file.getvalue())


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
    PILImage.new("RGB", (32, 32), (200, 100, 50)).save(file, format_)
    assert extension(file.getvalue()) == expected


@pytest.mark.parametrize(
    ("served_format", "encoded_format"),
    [("JPEG", "JPEG"), ("WEBP", "WEBP"), ("PNG", "PNG"), ("GIF", "PNG")],
)
def test_the_served_format_is_kept_if_it_is_jpeg_webp_or_png(
    product: Pixels, served_format: str, encoded_format: str
) -> None:
    served = io.BytesIO()
    PILImage.fromarray(product).save(served, served_format)
    file = encode(product, EncodeSettings(format="served"), served.getvalue())
    assert _read(file).format == encoded_format


def test_a_view_of_a_larger_image_is_encoded(product: Pixels) -> None:
    part = product[90:250, 70:170]
    assert _bgr(encode(part, EncodeSettings(format="png"), b"")).tolist() == part.tolist()
    for optimize in (False, True):
        encoded = _bgr(encode(part, EncodeSettings(optimize=optimize), b""))
        assert encoded.shape == (160, 100, 3)
        assert np.abs(encoded.astype(int) - part).mean() < 6
