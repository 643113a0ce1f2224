from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import ArrayLike

from imgassets.imaging.frame import find_bars, find_hairlines, find_padded
from imgassets.imaging.image import Box, Pixels
from imgassets.imaging.trim import Trim, find_trim
from imgassets.settings import TrimSettings

SETTINGS = TrimSettings(method="background")
PRODUCT = Box(100, 60, 110, 90)


def _plain(width: int, height: int, colour: ArrayLike = 255) -> Pixels:
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = colour
    return pixels


def _with(pixels: Pixels, *patches: tuple[Box, ArrayLike]) -> Pixels:
    for box, colour in patches:
        pixels[box.y : box.bottom, box.x : box.right] = colour
    return pixels


def _framed(pixels: Pixels, colour: ArrayLike, width: int = 1) -> Pixels:
    pixels[:width] = pixels[-width:] = colour
    pixels[:, :width] = pixels[:, -width:] = colour
    return pixels


def _scene(width: int, height: int) -> Pixels:
    """Coloured noise, coarse and fine: a picture that is not trimmed."""
    random = np.random.default_rng(3)
    coarse = random.integers(40, 216, (height // 10, width // 10, 3), dtype=np.uint8)
    smooth = np.asarray(cv2.resize(coarse, (width, height)), np.int16)
    return (smooth + random.integers(-20, 21, smooth.shape)).astype(np.uint8)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_line_of_one_pixel_at_a_border_does_not_disable_the_trim(turns: int) -> None:
    pixels = _plain(600, 600)
    cv2.ellipse(pixels, (300, 300), (150, 150), 0, 0, 360, (60, 80, 120), -1)
    pixels[:, -1] = 250
    box = find_trim(np.ascontiguousarray(np.rot90(pixels, turns)), SETTINGS).box
    assert min(box.x, box.y) >= 140
    assert max(box.x, box.y) <= 150
    assert min(box.right, box.bottom) >= 451
    assert max(box.right, box.bottom) <= 460


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("colour", [0, 128, 250, (200, 120, 60)])
def test_a_thin_frame_is_cut_off(colour: ArrayLike, width: int) -> None:
    pixels = _framed(_with(_plain(300, 200), (PRODUCT, 20)), colour, width)
    box = find_trim(pixels, SETTINGS).box
    assert PRODUCT.x - 5 <= box.x <= PRODUCT.x
    assert PRODUCT.y - 5 <= box.y <= PRODUCT.y
    assert PRODUCT.right <= box.right <= PRODUCT.right + 5
    assert PRODUCT.bottom <= box.bottom <= PRODUCT.bottom + 5


def test_a_product_that_the_frame_cuts_is_kept_up_to_the_border() -> None:
    pixels = _framed(_with(_plain(300, 200), (Box(100, 60, 110, 140), 20)), 128)
    assert find_trim(pixels, SETTINGS).box.bottom == 200


@pytest.mark.parametrize("patch", [Box(299, 20, 1, 120), Box(299, 10, 1, 180)])
@pytest.mark.parametrize("link", [Box(210, 60, 90, 2), Box(0, 0, 0, 0)])
def test_a_strap_of_one_pixel_at_a_border_is_kept(patch: Box, link: Box) -> None:
    pixels = _with(_plain(300, 200), (PRODUCT, 20), (patch, 20), (link, 20))
    box = find_trim(pixels, SETTINGS).box
    assert box.right == 300
    assert box.y <= patch.y
    assert box.bottom >= patch.bottom


@pytest.mark.parametrize(
    ("pixels", "widths"),
    [
        (_plain(300, 200), (0, 0, 0, 0)),
        (_framed(_plain(300, 200), 250), (1, 1, 1, 1)),
        (_framed(_plain(300, 200), 250, 3), (3, 3, 3, 3)),
        (_framed(_plain(300, 200), 250, 4), (0, 0, 0, 0)),
        (_with(_plain(300, 200), (Box(0, 0, 2, 200), 0)), (2, 0, 0, 0)),
        (_with(_plain(300, 200), (Box(0, 0, 2, 190), 0)), (0, 0, 0, 0)),
    ],
)
def test_a_hairline_covers_a_border_with_up_to_three_pixels(
    pixels: Pixels, widths: tuple[int, int, int, int]
) -> None:
    assert find_hairlines(pixels) == widths


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_gradient_has_no_hairlines(step: int) -> None:
    levels = np.minimum(np.arange(200) * step, 255).astype(np.uint8)
    pixels = np.ascontiguousarray(np.broadcast_to(levels[:, None, None], (200, 300, 3)))
    assert find_hairlines(pixels) == (0, 0, 0, 0)
    assert find_hairlines(np.ascontiguousarray(pixels.transpose(1, 0, 2))) == (0, 0, 0, 0)


def test_a_scene_has_neither_hairlines_nor_bars() -> None:
    assert find_hairlines(_scene(300, 300)) == (0, 0, 0, 0)
    assert find_bars(_scene(300, 300)) == (0, 0, 0, 0)


@pytest.mark.parametrize("colour", [0, 255, 235])
@pytest.mark.parametrize(
    "inner",
    [Box(0, 0, 400, 240), Box(0, 60, 400, 240), Box(0, 30, 400, 240), Box(40, 0, 320, 300)],
)
def test_bars_beside_a_scene_are_cut_off(colour: int, inner: Box) -> None:
    pixels = _plain(400, 300, colour)
    pixels[inner.y : inner.bottom, inner.x : inner.right] = _scene(inner.width, inner.height)
    box = find_trim(pixels, SETTINGS).box
    gaps = (inner.x - box.x, inner.y - box.y, box.right - inner.right, box.bottom - inner.bottom)
    assert all(0 <= gap <= 4 for gap in gaps)


def test_the_picture_beside_a_bar_has_no_threshold() -> None:
    pixels = _plain(400, 300)
    pixels[:, :300] = _scene(300, 300)
    assert find_trim(pixels, SETTINGS) == Trim(Box(0, 0, 300, 300), None)


@pytest.mark.parametrize(("wall", "colour"), [(180, 0), (180, 20), (100, 225)])
def test_a_skirt_that_fills_the_bottom_is_no_bar(wall: int, colour: int) -> None:
    pixels = _with(_plain(300, 420, wall), (Box(0, 300, 300, 120), colour))
    _with(pixels, (Box(100, 60, 100, 240), colour))
    assert find_trim(pixels, SETTINGS).box.bottom == 420


def test_a_picture_between_two_bars_is_trimmed() -> None:
    pixels = _with(_plain(400, 300, 235), (Box(60, 0, 280, 300), 252))
    _with(pixels, (Box(150, 80, 90, 120), (60, 60, 200)))
    assert find_padded(pixels) == Box(60, 0, 280, 300)
    assert find_trim(pixels, SETTINGS).box == Box(147, 77, 96, 126)


@pytest.mark.parametrize(
    "patches",
    [
        [(Box(60, 0, 280, 300), (200, 120, 60)), (Box(150, 80, 90, 120), (60, 60, 200))],
        [(Box(x, 0, 20, 300), (200, 120, 60)) for x in range(60, 340, 40)],
        [(Box(60, y, 280, 20), (200, 120, 60)) for y in range(0, 300, 40)],
        [(Box(60, 0, 260, 300), 252), (Box(150, 80, 90, 120), (60, 60, 200))],
    ],
)
def test_a_towel_between_two_strips_of_background_is_kept(
    patches: list[tuple[Box, ArrayLike]],
) -> None:
    box = find_trim(_with(_plain(400, 300, 235), *patches), SETTINGS).box
    assert box.x <= 60
    assert box.right >= max(patch.right for patch, _ in patches)
    assert (box.y, box.height) == (0, 300)
