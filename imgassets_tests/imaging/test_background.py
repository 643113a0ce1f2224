from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import ArrayLike

from imgassets.imaging.picture import Box, Pixels
from imgassets.imaging.trim import Trim, find
from imgassets.settings import TrimSettings

SETTINGS = TrimSettings(method="background")
SHIRT = Box(90, 110, 120, 200)


def _scene(background: ArrayLike, product: ArrayLike, box: Box = SHIRT) -> Pixels:
    """A plain product on a background, with a camera's grain."""
    pixels = np.empty((420, 300, 3), np.float32)
    pixels[:] = np.asarray(background)
    pixels[box.y : box.y + box.height, box.x : box.x + box.width] = np.asarray(product)
    pixels += np.random.default_rng(5).normal(0, 0.4, pixels.shape[:2])[:, :, None]
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _gradient(low: float, high: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.linspace(low, high, 420)[:, None, None]


def _holds(found: Trim, box: Box, slack: int = 3) -> bool:
    made = found.box
    gaps = (
        box.x - made.x,
        box.y - made.y,
        made.x + made.width - box.x - box.width,
        made.y + made.height - box.y - box.height,
    )
    return all(0 <= gap <= slack for gap in gaps)


@pytest.mark.parametrize(
    ("background", "product"),
    [
        (255, 40),
        (255, 248),  # white on white
        (22, 38),  # dark on dark
        (180, 210),
        (_gradient(120, 210), 60),
        (_gradient(200, 255), 245),
        ((60, 120, 200), (70, 170, 120)),
        ((150, 150, 150), (150, 160, 120)),  # of one brightness: only the colour differs
    ],
)
def test_the_box_is_the_products_whatever_is_behind_it(
    background: ArrayLike, product: ArrayLike
) -> None:
    assert _holds(find(_scene(background, product), SETTINGS), SHIRT)


def test_a_soft_shadow_is_cut_off() -> None:
    shadow = np.zeros((420, 300), np.float32)
    shadow[140:350, 60:240] = 1
    soft = np.asarray(cv2.GaussianBlur(shadow, (0, 0), 12))
    pixels = _scene(255 - 40 * soft[:, :, None], (30, 60, 120))
    assert _holds(find(pixels, SETTINGS), SHIRT)


def test_thin_straps_are_kept() -> None:
    pixels = _scene(250, (80, 90, 200), Box(90, 200, 120, 110))
    for x in (110, 188):
        pixels[60:200, x : x + 2] = (80, 90, 200)
    assert _holds(find(pixels, SETTINGS), Box(90, 60, 120, 250))


def test_dust_is_no_product() -> None:
    pixels = _scene(250, 60)
    pixels[20:22, 20:22] = 200
    pixels[400:402, 280:283] = 210
    assert _holds(find(pixels, SETTINGS), SHIRT)


def test_a_product_cut_by_the_edges_keeps_them() -> None:
    found = find(_scene(230, 60, Box(90, 0, 120, 420)), SETTINGS)
    assert _holds(found, Box(90, 0, 120, 420))


def test_a_plain_skirt_that_fills_the_foot_is_not_taken_for_background() -> None:
    pixels = _scene(240, (60, 50, 140), Box(0, 200, 300, 220))
    pixels[60:200, 100:200] = (60, 50, 140)
    box = find(pixels, SETTINGS).box
    assert box.y + box.height == 420
    assert (box.x, box.width) == (0, 300)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_empty_picture_is_left_as_it_is(level: int) -> None:
    pixels = np.full((420, 300, 3), level, np.uint8)
    assert find(pixels, SETTINGS) == Trim(Box(0, 0, 300, 420), None)
    assert find(_scene(level, level), SETTINGS) == Trim(Box(0, 0, 300, 420), None)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (5, 4), (3000, 2)])
def test_tiny_and_narrow_pictures_pass(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (*size, 3), dtype=np.uint8)
    found = find(pixels, SETTINGS)
    assert found.box.width <= size[1]
    assert found.box.height <= size[0]
    assert found.box.area > 0


def test_a_large_picture_gets_the_same_box_in_its_own_pixels() -> None:
    large = cv2.resize(_scene(200, 90), (1200, 1680), interpolation=cv2.INTER_CUBIC)
    found = find(np.asarray(large, np.uint8), SETTINGS)
    assert _holds(found, Box(360, 440, 480, 800), slack=16)


def test_a_wall_beside_a_person_who_stands_at_the_edge_is_cut_off() -> None:
    pixels = _scene(190, (60, 50, 40), Box(0, 60, 120, 360))
    pixels[:60, 30:90] = (60, 50, 40)  # the neck, where the face was cut off
    assert find(pixels, SETTINGS).box.width <= 124


def test_a_plain_area_beyond_a_straight_seam_may_be_cloth_and_is_kept() -> None:
    pixels = _scene(190, (60, 50, 40), Box(0, 0, 120, 420))
    assert find(pixels, SETTINGS).box.width == 300
