from __future__ import annotations

import io
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from imgassets.imaging.encode import encode, suffix
from imgassets.imaging.picture import Pixels
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


def test_full_colour_resolution_keeps_red_stripes_red() -> None:
    stripes = np.full((64, 64, 3), 255, np.uint8)
    stripes[:, ::2] = (0, 0, 255)
    away = {
        subsampling: np.abs(
            _bgr(encode(stripes, EncodeSettings(subsampling=subsampling), b"")).astype(int)
            - stripes
        ).mean()
        for subsampling in ("4:4:4", "4:2:0")
    }
    assert away["4:4:4"] < 5 < away["4:2:0"]


def test_a_lower_quality_and_optimising_make_files_smaller(product: Pixels) -> None:
    plain = len(encode(product, EncodeSettings(), b""))
    assert len(encode(product, EncodeSettings(quality=50), b"")) < plain
    assert len(encode(product, EncodeSettings(optimize=True), b"")) < plain


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
    assert _read(encode(part, EncodeSettings(), b"")).size == (100, 160)
