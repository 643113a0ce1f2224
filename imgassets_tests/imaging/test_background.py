from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

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


@pytest.mark.parametrize(
    "box",
    [Box(120, 190, 60, 40), Box(100, 180, 110, 50), Box(140, 60, 20, 300)],
)
@pytest.mark.parametrize(("ground", "product"), [(255, 60), (228, (40, 90, 150)), (255, 235)])
def test_a_small_product_on_a_plain_ground_is_trimmed(
    box: Box, ground: ArrayLike, product: ArrayLike
) -> None:
    found = find(_served(_scene(ground, product, box)), SETTINGS)
    assert _holds(found, box, slack=20)


@pytest.mark.parametrize(
    "box",
    [
        Box(150, 210, 3, 3),  # dust
        Box(10, 10, 60, 50),  # a logo in a corner
        Box(120, 395, 80, 15),  # a line of text at the foot
        Box(60, 210, 180, 4),  # a hair
    ],
)
def test_what_is_small_and_no_product_leaves_the_picture_as_it_is(box: Box) -> None:
    found = find(_served(_scene(255, 40, box)), SETTINGS)
    assert found == Trim(Box(0, 0, 300, 420), None)


def test_the_print_of_a_pale_shirt_is_not_taken_for_a_small_product() -> None:
    pixels = _scene(255, 252)
    pixels[190:230, 130:170] = 40
    assert _holds(find(_served(pixels), SETTINGS), SHIRT, slack=20)


def test_a_small_product_on_a_rough_wall_is_left_as_it_is() -> None:
    pixels = _on_plaster(60, Box(130, 190, 50, 50))
    assert find(pixels, SETTINGS) == Trim(Box(0, 0, 300, 420), None)


def test_a_product_on_a_rough_wall_is_trimmed() -> None:
    assert _holds(find(_on_plaster(60, SHIRT), SETTINGS), SHIRT, slack=8)


def test_smooth_cloth_whose_outline_a_rough_wall_drowns_is_not_cut() -> None:
    pixels = _on_plaster(225, SHIRT)
    pixels[110:140, 90:210] = 60  # all that a look at edges is sure of
    box = find(pixels, SETTINGS).box
    assert box.y <= SHIRT.y
    assert box.y + box.height >= SHIRT.y + SHIRT.height


def test_an_outline_no_steeper_than_the_walls_grain_leaves_the_picture_as_it_is() -> None:
    pixels = _on_plaster(225, Box(0, 0, 1, 1)).astype(np.float32)
    pixels[SHIRT.y : SHIRT.y + SHIRT.height, SHIRT.x : SHIRT.x + SHIRT.width] += 9
    found = find(pixels.astype(np.uint8), SETTINGS)
    assert found == Trim(Box(0, 0, 300, 420), None)


def test_a_margin_of_a_few_pixels_is_kept() -> None:
    found = find(_scene(200, 60, Box(90, 0, 120, 412)), SETTINGS)
    assert found.box.y + found.box.height == 420


@pytest.mark.parametrize("width", [3, 4])
def test_a_pale_chain_that_nearly_vanishes_at_one_side_is_kept(width: int) -> None:
    pixels = np.full((420, 300), 245, np.float32)
    cv2.ellipse(pixels, (150, 210), (100, 100), 0, 40, 320, 215, width)
    cv2.ellipse(pixels, (150, 210), (100, 100), 0, -40, 40, 243.2, width)
    assert _holds(find(_with_grain(pixels), SETTINGS), Box(50, 110, 201, 201), slack=5)


def test_a_pale_stripe_beyond_a_dark_one_is_kept() -> None:
    pixels = np.full((420, 300), 247, np.float32)
    for top in range(110, 300, 18):
        pixels[top : top + 9, 90:210] = 170
        pixels[top + 9 : top + 14, 90:210] = 243
    found = find(_with_grain(pixels), SETTINGS)
    assert _holds(found, Box(90, 110, 120, 194), slack=6)


def test_a_faint_wall_all_around_is_not_followed() -> None:
    noise = np.random.default_rng(8).normal(0, 1.6, (420, 300)).astype(np.float32)
    pixels = np.asarray(200 + cv2.GaussianBlur(noise, (3, 3), 0), np.float32)
    pixels[110:310, 90:210] = 60
    assert _holds(find(_with_grain(pixels), SETTINGS), SHIRT, slack=4)


def test_more_is_kept_on_a_rough_wall() -> None:
    box = find(_on_plaster(60, SHIRT), SETTINGS).box
    assert SHIRT.x - box.x >= 3
    assert SHIRT.y - box.y >= 3


def _with_grain(grey: NDArray[np.float32]) -> Pixels:
    """A camera's grain, and JPEG."""
    grain = np.random.default_rng(5).normal(0, 0.4, grey.shape)
    rounded = np.clip(np.rint(grey + grain), 0, 255).astype(np.uint8)
    return _served(np.repeat(rounded[:, :, None], 3, axis=2))


def _served(pixels: Pixels) -> Pixels:
    """Through JPEG, as shops send it."""
    file = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8)


def _on_plaster(product: ArrayLike, box: Box) -> Pixels:
    """A smooth product on a wall with grain of its own."""
    noise = np.random.default_rng(3).normal(0, 9, (420, 300)).astype(np.float32)
    wall = 220 + cv2.GaussianBlur(noise, (3, 3), 0)
    pixels = np.repeat(wall[:, :, None], 3, axis=2)
    pixels[box.y : box.y + box.height, box.x : box.x + box.width] = np.asarray(product)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
