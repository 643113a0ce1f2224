from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgassets.imaging.image import Box, Pixels
from imgassets.imaging.trim import Trim, find_by_variance, find_trim
from imgassets.settings import TrimSettings

PLAIN = TrimSettings(method="variance")


def _trim_by_definition(pixels: Pixels, settings: TrimSettings) -> Trim:
    """The definition, in exact arithmetic and without any shortcut."""
    blurred = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), [settings.blur] * 2, 0)
    grey = np.asarray(blurred).tolist()
    height, width = len(grey), len(grey[0])
    columns = [_variance([row[x] for row in grey]) for x in range(width)]
    rows = [_variance(row) for row in grey]
    threshold = settings.threshold
    while threshold > 0:
        xs = [x for x in range(width) if columns[x] > threshold]
        ys = [y for y in range(height) if rows[y] > threshold]
        if xs and ys:
            box = Box(xs[0], ys[0], xs[-1] - xs[0] + 1, ys[-1] - ys[0] + 1)
            least = settings.min_side * width, settings.min_side * height
            if box.width >= least[0] and box.height >= least[1]:
                return Trim(box, threshold)
        threshold -= settings.step
    return Trim(Box(0, 0, width, height), None)


def _variance(values: Sequence[int]) -> Fraction:
    count = len(values)
    return Fraction(count * sum(v * v for v in values) - sum(values) ** 2, count**2)


def _unblurred(**settings: float) -> TrimSettings:
    return TrimSettings.model_validate({"method": "variance", "blur": 1, **settings})


def _on_white(level: int, x: int, y: int, width: int, height: int) -> Pixels:
    """A plain patch on white, 200x200 pixels."""
    pixels = np.full((200, 200, 3), 255, np.uint8)
    pixels[y : y + height, x : x + width] = level
    return pixels


def test_the_box_contains_the_product_and_no_more_than_the_blur_adds(product: Pixels) -> None:
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


def test_a_product_that_fills_an_axis_does_not_lower_the_threshold() -> None:
    pixels = np.full((200, 200, 3), 255, np.uint8)
    pixels[:, 60:140] = np.random.default_rng(2).integers(0, 255, (200, 80, 3), dtype=np.uint8)
    found = find_by_variance(pixels, TrimSettings(method="variance", blur=1))
    assert found.threshold == 250
    assert found.box == Box(60, 0, 80, 200)


def test_the_threshold_steps_down_until_the_box_is_large_enough() -> None:
    pixels = np.full((200, 200, 3), 255, np.uint8)
    pixels[90:110, 90:110] = 0
    # A pale patch around the small dark one, with a variance of about 100 per row.
    pixels[50:150, 50:150] = np.minimum(pixels[50:150, 50:150], 235)
    found = find_by_variance(pixels, TrimSettings(method="variance", blur=1))
    assert found == Trim(Box(50, 50, 100, 100), 75)


def test_a_plain_image_is_left_as_it_is() -> None:
    pixels = np.full((80, 60, 3), 200, np.uint8)
    assert find_by_variance(pixels, PLAIN) == Trim(Box(0, 0, 60, 80), None)


def test_an_image_of_one_pixel_is_left_as_it_is() -> None:
    assert find_by_variance(np.zeros((1, 1, 3), np.uint8), PLAIN) == Trim(Box(0, 0, 1, 1), None)


def test_an_image_without_variance_along_one_axis_is_left_as_it_is() -> None:
    pixels = np.full((100, 100, 3), 255, np.uint8)
    pixels[40:60] = 0  # no row has any variance
    found = find_by_variance(pixels, TrimSettings(method="variance", blur=1))
    assert found == Trim(Box(0, 0, 100, 100), None)


@pytest.mark.parametrize(
    ("threshold", "side"),
    [
        (200, 100),
        (224.5, 100),
        (225, 60),  # a variance equal to the threshold is background
        (1000, 60),
    ],
)
def test_the_threshold_of_the_settings_decides_what_is_background(
    threshold: float, side: int
) -> None:
    # The variance is 30^2 / 4 = 225 in the pale patch, and above 4000 in the dark one.
    pixels = _on_white(225, 50, 50, 100, 100)
    pixels[70:130, 70:130] = 0
    at = (200 - side) // 2
    found = find_by_variance(pixels, _unblurred(threshold=threshold))
    assert found == Trim(Box(at, at, side, side), threshold)


@pytest.mark.parametrize(("step", "threshold"), [(25, 75), (60, 70), (99, 52), (160, 90)])
def test_the_threshold_is_lowered_by_the_step_of_the_settings(
    step: float, threshold: float
) -> None:
    pixels = _on_white(235, 50, 50, 100, 100)  # a variance of 100
    found = find_by_variance(pixels, _unblurred(step=step))
    assert found == Trim(Box(50, 50, 100, 100), threshold)


@pytest.mark.parametrize("step", [125, 250, 300])
def test_a_threshold_of_zero_is_not_tried(step: float) -> None:
    # 250 and 125 are too high, and at 0 the faintest noise would count as product.
    pixels = _on_white(235, 50, 50, 100, 100)
    assert find_by_variance(pixels, _unblurred(step=step)) == Trim(Box(0, 0, 200, 200), None)


def test_a_threshold_below_one_is_tried() -> None:
    pixels = _on_white(253, 50, 50, 100, 100)  # a variance of 1
    found = find_by_variance(pixels, _unblurred(threshold=1.5, step=1))
    assert found == Trim(Box(50, 50, 100, 100), 0.5)


@pytest.mark.parametrize(
    ("width", "height", "min_side", "kept"),
    [
        (20, 20, 0.1, True),
        (20, 20, 0.11, False),
        (100, 20, 0.1, True),
        (20, 100, 0.1, True),
        (100, 20, 0.11, False),
        (20, 100, 0.11, False),
        (100, 100, 0.5, True),
        (100, 100, 0.51, False),
        (50, 50, 0.25, True),
        (49, 50, 0.25, False),
        (50, 49, 0.25, False),
    ],
)
def test_a_box_is_accepted_from_the_minimum_side_on(
    width: int, height: int, min_side: float, kept: bool
) -> None:
    pixels = _on_white(0, 60, 40, width, height)
    found = find_by_variance(pixels, _unblurred(min_side=min_side))
    assert found == (
        Trim(Box(60, 40, width, height), 250) if kept else Trim(Box(0, 0, 200, 200), None)
    )


def test_the_minimum_side_is_a_share_of_the_same_axis() -> None:
    # 40 of 400 across and 30 of 100 down: below a quarter only across.
    pixels = np.full((100, 400, 3), 255, np.uint8)
    pixels[30:60, 100:140] = 0
    assert find_by_variance(pixels, _unblurred()) == Trim(Box(0, 0, 400, 100), None)
    found = find_by_variance(pixels, _unblurred(min_side=0.1))
    assert found == Trim(Box(100, 30, 40, 30), 250)


@pytest.mark.parametrize(("blur", "box"), [(1, Box(10, 20, 140, 130)), (9, Box(48, 48, 104, 104))])
def test_the_blur_of_the_settings_removes_dust(blur: int, box: Box) -> None:
    pixels = _on_white(0, 50, 50, 100, 100)
    pixels[20, 10] = 0
    settings = TrimSettings(method="variance", blur=blur)
    assert find_by_variance(pixels, settings) == Trim(box, 250)


def test_grey_values_weight_the_channels_by_perceived_brightness() -> None:
    # A pure blue of 120 has a grey value of 14, and a pure green one of 70.
    for channel, kept in ((0, False), (1, True)):
        pixels = np.zeros((200, 200, 3), np.uint8)
        pixels[50:150, 50:150, channel] = 120
        found = find_by_variance(pixels, _unblurred(step=300))
        assert (found.threshold == 250) is kept


def test_the_method_of_the_settings_is_used() -> None:
    # All columns of a steep gradient vary: only the method `background` finds the product.
    pixels = np.repeat(np.linspace(80, 200, 400).astype(np.uint8)[:, None, None], 300, axis=1)
    pixels = np.repeat(pixels, 3, axis=2)
    pixels[100:300, 90:210] = 20
    variance = find_trim(pixels, TrimSettings(method="variance"))
    assert variance == find_by_variance(pixels, PLAIN)
    assert variance.box.width == 300
    # The box is three pixels larger on each side; the gradient raises the threshold.
    background = find_trim(pixels, TrimSettings(method="background"))
    assert background == Trim(Box(87, 97, 126, 206), 1.3125)


def test_the_background_method_leaves_a_plain_image_as_it_is() -> None:
    pixels = np.full((80, 60, 3), 200, np.uint8)
    assert find_trim(pixels, TrimSettings(method="background")) == Trim(Box(0, 0, 60, 80), None)


@pytest.mark.parametrize(
    ("min_side", "expected"),
    [(0.1, Trim(Box(17, 17, 66, 46), 1.2)), (0.25, Trim(Box(0, 0, 200, 200), None))],
)
def test_the_background_method_applies_the_minimum_side(min_side: float, expected: Trim) -> None:
    # In a corner it is a logo, unless the settings allow such small products.
    pixels = _on_white(0, 20, 20, 60, 40)
    assert find_trim(pixels, TrimSettings(method="background", min_side=min_side)) == expected


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(0, 2**31),
    st.sampled_from([4, 16, 40, 120, 255]),
    st.builds(
        TrimSettings,
        method=st.just("variance"),
        threshold=st.sampled_from([1.0, 60.0, 250.0, 2000.0]),
        step=st.sampled_from([0.5, 25.0, 40.0]),
        min_side=st.sampled_from([0.1, 0.25, 0.5, 0.9]),
        blur=st.sampled_from([1, 5, 9]),
    ),
)
def test_the_box_matches_the_definition(
    height: int, width: int, seed: int, contrast: int, trim: TrimSettings
) -> None:
    random = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 255, np.uint8)
    x, y = int(random.integers(0, width)), int(random.integers(0, height))
    part = pixels[y : y + int(random.integers(1, 60)), x : x + int(random.integers(1, 60))]
    part -= random.integers(0, contrast, part.shape, dtype=np.uint8, endpoint=True)
    assert find_by_variance(pixels, trim) == _trim_by_definition(pixels, trim)
