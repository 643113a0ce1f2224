from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from imgassets.imaging.picture import Box, Pixels
from imgassets.imaging.trim import Trim, find_by_variance
from imgassets.settings import TrimSettings

PLAIN = TrimSettings(method="variance")


def _by_the_book(pixels: Pixels) -> Trim:
    """The issue's words, written as slowly as they are read."""
    grey = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), (9, 9), 0)
    height, width = grey.shape
    columns = [float(np.var(grey[:, x].astype(float))) for x in range(width)]
    rows = [float(np.var(grey[y, :].astype(float))) for y in range(height)]
    for threshold in range(250, 0, -25):
        xs = [x for x in range(width) if columns[x] > threshold]
        ys = [y for y in range(height) if rows[y] > threshold]
        if not xs or not ys:
            continue
        box = Box(xs[0], ys[0], xs[-1] - xs[0] + 1, ys[-1] - ys[0] + 1)
        if box.width >= 0.25 * width and box.height >= 0.25 * height:
            return Trim(box, threshold)
    return Trim(Box(0, 0, width, height), None)


def test_the_box_holds_the_product_and_no_more_than_the_blur_adds(product: Pixels) -> None:
    found = find_by_variance(product, PLAIN)
    box = found.box
    assert found.threshold == 250
    assert box.x <= 70
    assert box.y <= 90
    assert box.x + box.width >= 170
    assert box.y + box.height >= 250
    assert box.width <= 110
    assert box.height <= 170


def test_the_last_row_and_column_that_vary_are_kept() -> None:
    pixels = np.full((100, 100, 3), 255, np.uint8)
    pixels[20:80, 20:80] = 0
    found = find_by_variance(pixels, TrimSettings(method="variance", blur=1))
    assert found == Trim(Box(20, 20, 60, 60), 250)


def test_a_product_that_fills_an_axis_is_no_reason_to_step_down() -> None:
    pixels = np.full((200, 200, 3), 255, np.uint8)
    pixels[:, 60:140] = np.random.default_rng(2).integers(0, 255, (200, 80, 3), dtype=np.uint8)
    found = find_by_variance(pixels, TrimSettings(method="variance", blur=1))
    assert found.threshold == 250
    assert found.box == Box(60, 0, 80, 200)


def test_the_threshold_steps_down_until_the_box_is_large_enough() -> None:
    pixels = np.full((200, 200, 3), 255, np.uint8)
    pixels[90:110, 90:110] = 0
    # Beside the small dark patch a pale one, whose rows vary by about 100.
    pixels[50:150, 50:150] = np.minimum(pixels[50:150, 50:150], 235)
    found = find_by_variance(pixels, TrimSettings(method="variance", blur=1))
    assert found == Trim(Box(50, 50, 100, 100), 75)


def test_a_plain_picture_is_left_as_it_is() -> None:
    pixels = np.full((80, 60, 3), 200, np.uint8)
    assert find_by_variance(pixels, PLAIN) == Trim(Box(0, 0, 60, 80), None)


def test_a_picture_of_one_pixel_is_left_as_it_is() -> None:
    assert find_by_variance(np.zeros((1, 1, 3), np.uint8), PLAIN) == Trim(Box(0, 0, 1, 1), None)


def test_stripes_that_say_nothing_of_one_axis_are_left_as_they_are() -> None:
    pixels = np.full((100, 100, 3), 255, np.uint8)
    pixels[40:60] = 0  # every row is even: nothing can be said of rows
    found = find_by_variance(pixels, TrimSettings(method="variance", blur=1))
    assert found == Trim(Box(0, 0, 100, 100), None)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(0, 2**31),
    st.sampled_from([4, 16, 40, 120, 255]),
)
def test_the_box_is_the_one_of_the_definition(
    height: int, width: int, seed: int, contrast: int
) -> None:
    random = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 255, np.uint8)
    x, y = int(random.integers(0, width)), int(random.integers(0, height))
    part = pixels[y : y + int(random.integers(1, 60)), x : x + int(random.integers(1, 60))]
    part -= random.integers(0, contrast, part.shape, dtype=np.uint8, endpoint=True)
    assert find_by_variance(pixels, PLAIN) == _by_the_book(pixels)
