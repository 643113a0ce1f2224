from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from imgassets.imaging.background import (
    _are_background,
    _box_of_smooth_region,
    _faint_extent,
    _floods_into_box,
    _is_small_product,
    _nearly_contains,
    _scale_box,
    _snap_to_border,
    _undo_uncertain_cuts,
    find_by_background,
)
from imgassets.imaging.image import Box, Pixels
from imgassets.imaging.trim import Trim, find_trim
from imgassets.settings import TrimSettings

SETTINGS = TrimSettings(method="background")
SHIRT = Box(90, 110, 120, 200)


def _scene(background: ArrayLike, product: ArrayLike, box: Box = SHIRT) -> Pixels:
    """A plain product on a background, with a camera's noise."""
    pixels = np.empty((420, 300, 3), np.float32)
    pixels[:] = np.asarray(background)
    pixels[box.y : box.y + box.height, box.x : box.x + box.width] = np.asarray(product)
    pixels += np.random.default_rng(5).normal(0, 0.4, pixels.shape[:2])[:, :, None]
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _gradient(low: float, high: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.linspace(low, high, 420)[:, None, None]


def _contains(found: Trim, box: Box, slack: int = 3) -> bool:
    """Whether the found box contains a box with at most `slack` pixels more on each side."""
    actual = found.box
    gaps = (
        box.x - actual.x,
        box.y - actual.y,
        actual.x + actual.width - box.x - box.width,
        actual.y + actual.height - box.y - box.height,
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
        ((150, 150, 150), (150, 160, 120)),  # the same brightness: only the colour differs
    ],
)
def test_the_box_is_that_of_the_product_on_any_background(
    background: ArrayLike, product: ArrayLike
) -> None:
    assert _contains(find_trim(_scene(background, product), SETTINGS), SHIRT)


def test_a_soft_shadow_is_cut_off() -> None:
    shadow = np.zeros((420, 300), np.float32)
    shadow[140:350, 60:240] = 1
    soft = np.asarray(cv2.GaussianBlur(shadow, (0, 0), 12))
    pixels = _scene(255 - 40 * soft[:, :, None], (30, 60, 120))
    assert _contains(find_trim(pixels, SETTINGS), SHIRT)


def test_thin_straps_are_kept() -> None:
    pixels = _scene(250, (80, 90, 200), Box(90, 200, 120, 110))
    for x in (110, 188):
        pixels[60:200, x : x + 2] = (80, 90, 200)
    assert _contains(find_trim(pixels, SETTINGS), Box(90, 60, 120, 250))


def test_dust_is_not_part_of_the_product() -> None:
    pixels = _scene(250, 60)
    pixels[20:22, 20:22] = 200
    pixels[400:402, 280:283] = 210
    assert _contains(find_trim(pixels, SETTINGS), SHIRT)


def test_a_product_that_the_border_cuts_is_kept_up_to_the_border() -> None:
    found = find_trim(_scene(230, 60, Box(90, 0, 120, 420)), SETTINGS)
    assert _contains(found, Box(90, 0, 120, 420))


def test_a_plain_skirt_that_fills_the_bottom_is_not_cut_off_as_background() -> None:
    pixels = _scene(240, (60, 50, 140), Box(0, 200, 300, 220))
    pixels[60:200, 100:200] = (60, 50, 140)
    box = find_trim(pixels, SETTINGS).box
    assert box.y + box.height == 420
    assert (box.x, box.width) == (0, 300)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_empty_image_is_left_as_it_is(level: int) -> None:
    pixels = np.full((420, 300, 3), level, np.uint8)
    assert find_trim(pixels, SETTINGS) == Trim(Box(0, 0, 300, 420), None)
    assert find_trim(_scene(level, level), SETTINGS) == Trim(Box(0, 0, 300, 420), None)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (5, 4), (3000, 2)])
def test_tiny_and_narrow_images_are_left_as_they_are(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (*size, 3), dtype=np.uint8)
    assert find_trim(pixels, SETTINGS) == Trim(Box(0, 0, size[1], size[0]), None)


def test_the_box_of_a_large_image_is_in_its_own_pixels() -> None:
    large = cv2.resize(_scene(200, 90), (1200, 1680), interpolation=cv2.INTER_CUBIC)
    found = find_trim(np.asarray(large, np.uint8), SETTINGS)
    assert _contains(found, Box(360, 440, 480, 800), slack=16)


def test_the_background_beside_a_person_at_the_border_is_cut_off() -> None:
    pixels = _scene(190, (60, 50, 40), Box(0, 60, 120, 360))
    pixels[:60, 30:90] = (60, 50, 40)  # the neck, where the face was cut off
    assert find_trim(pixels, SETTINGS).box.width <= 124


def test_a_plain_area_beyond_a_straight_seam_is_kept_because_it_may_be_cloth() -> None:
    pixels = _scene(190, (60, 50, 40), Box(0, 0, 120, 420))
    assert find_trim(pixels, SETTINGS).box.width == 300


@pytest.mark.parametrize(
    "box",
    [Box(120, 190, 60, 40), Box(100, 180, 110, 50), Box(140, 60, 20, 300)],
)
@pytest.mark.parametrize(("background", "product"), [(255, 60), (228, (40, 90, 150)), (255, 235)])
def test_a_small_product_on_a_plain_background_is_trimmed(
    box: Box, background: ArrayLike, product: ArrayLike
) -> None:
    found = find_trim(_compressed(_scene(background, product, box)), SETTINGS)
    assert _contains(found, box, slack=20)


@pytest.mark.parametrize(
    "box",
    [
        Box(150, 210, 3, 3),  # dust
        Box(10, 10, 60, 50),  # a logo in a corner
        Box(120, 395, 80, 15),  # a line of text at the bottom
        Box(60, 210, 180, 4),  # a hair
    ],
)
def test_a_small_mark_that_is_not_a_product_leaves_the_image_as_it_is(box: Box) -> None:
    found = find_trim(_compressed(_scene(255, 40, box)), SETTINGS)
    assert found == Trim(Box(0, 0, 300, 420), None)


def test_the_print_of_a_pale_shirt_is_not_a_small_product() -> None:
    pixels = _scene(255, 252)
    pixels[190:230, 130:170] = 40
    assert _contains(find_trim(_compressed(pixels), SETTINGS), SHIRT, slack=20)


def test_a_small_product_on_a_textured_background_is_left_as_it_is() -> None:
    pixels = _textured_scene(60, Box(130, 190, 50, 50))
    assert find_trim(pixels, SETTINGS) == Trim(Box(0, 0, 300, 420), None)


def test_a_product_on_a_textured_background_is_trimmed() -> None:
    assert _contains(find_trim(_textured_scene(60, SHIRT), SETTINGS), SHIRT, slack=8)


def test_an_outline_no_steeper_than_the_noise_leaves_the_image_as_it_is() -> None:
    pixels = _textured_scene(225, Box(0, 0, 1, 1)).astype(np.float32)
    pixels[SHIRT.y : SHIRT.y + SHIRT.height, SHIRT.x : SHIRT.x + SHIRT.width] += 9
    found = find_trim(pixels.astype(np.uint8), SETTINGS)
    assert found == Trim(Box(0, 0, 300, 420), None)


def test_a_margin_of_a_few_pixels_is_kept() -> None:
    found = find_trim(_scene(200, 60, Box(90, 0, 120, 412)), SETTINGS)
    assert found.box.y + found.box.height == 420


@pytest.mark.parametrize("width", [3, 4])
def test_a_pale_chain_that_fades_on_one_side_is_kept(width: int) -> None:
    pixels = np.full((420, 300), 245, np.float32)
    cv2.ellipse(pixels, (150, 210), (100, 100), 0, 40, 320, 215, width)
    cv2.ellipse(pixels, (150, 210), (100, 100), 0, -40, 40, 243.2, width)
    assert _contains(find_trim(_with_noise(pixels), SETTINGS), Box(50, 110, 201, 201), slack=5)


def test_a_pale_stripe_beyond_a_dark_one_is_kept() -> None:
    pixels = np.full((420, 300), 247, np.float32)
    for top in range(110, 300, 18):
        pixels[top : top + 9, 90:210] = 170
        pixels[top + 9 : top + 14, 90:210] = 243
    found = find_trim(_with_noise(pixels), SETTINGS)
    assert _contains(found, Box(90, 110, 120, 194), slack=6)


def _cut_by_the_top(*patches: tuple[Box, ArrayLike]) -> Pixels:
    """A dark garment from the top border down, and more, on white."""
    return _with(_plain(300, 420), (Box(90, 0, 120, 200), 40), *patches)


@pytest.mark.parametrize("level", [249, 251])
def test_faint_level_marks_beside_a_person_are_cut_off(level: int) -> None:
    marks = [(Box(x, y, 26, 3), level) for x, y in ((20, 300), (250, 340), (230, 390))]
    box = find_trim(_cut_by_the_top(*marks), SETTINGS).box
    assert box == Box(87, 0, 126, 203)


@pytest.mark.parametrize(
    "mark",
    [
        Box(20, 300, 3, 40),  # upright: the side of a pale garment
        Box(20, 300, 130, 3),  # long: its hem
        Box(120, 300, 26, 3),  # below the person
    ],
)
def test_faint_marks_that_may_belong_to_a_person_are_kept(mark: Box) -> None:
    box = find_trim(_cut_by_the_top((mark, 249)), SETTINGS).box
    assert box.x <= mark.x
    assert box.right >= mark.right
    assert box.bottom >= mark.bottom


def test_faint_level_marks_beside_a_product_that_reaches_no_border_are_kept() -> None:
    pixels = _with(_plain(300, 420), (Box(90, 100, 120, 100), 40), (Box(120, 300, 26, 3), 249))
    assert find_trim(pixels, SETTINGS).box.bottom >= 303


def test_a_pale_garment_below_a_dark_one_is_kept() -> None:
    pixels = _cut_by_the_top((Box(70, 200, 160, 180), 250), (Box(148, 240, 4, 140), 255))
    assert _contains(find_trim(pixels, SETTINGS), Box(70, 0, 160, 380))


def test_the_box_does_not_grow_into_a_faintly_textured_background() -> None:
    noise = np.random.default_rng(8).normal(0, 1.6, (420, 300)).astype(np.float32)
    pixels = np.asarray(200 + cv2.GaussianBlur(noise, (3, 3), 0), np.float32)
    pixels[110:310, 90:210] = 60
    assert _contains(find_trim(_with_noise(pixels), SETTINGS), SHIRT, slack=4)


def test_a_margin_is_kept_on_a_textured_background() -> None:
    box = find_trim(_textured_scene(60, SHIRT), SETTINGS).box
    assert SHIRT.x - box.x >= 3
    assert SHIRT.y - box.y >= 3


def _with_noise(grey: NDArray[np.float32]) -> Pixels:
    """Three equal channels with a camera's noise, after JPEG compression."""
    noise = np.random.default_rng(5).normal(0, 0.4, grey.shape)
    rounded = np.clip(np.rint(grey + noise), 0, 255).astype(np.uint8)
    return _compressed(np.repeat(rounded[:, :, None], 3, axis=2))


def _compressed(pixels: Pixels) -> Pixels:
    """The pixels after JPEG compression."""
    file = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8)


def _textured_scene(product: ArrayLike, box: Box) -> Pixels:
    """A smooth product on a background like plaster."""
    noise = np.random.default_rng(3).normal(0, 9, (420, 300)).astype(np.float32)
    background = 220 + cv2.GaussianBlur(noise, (3, 3), 0)
    pixels = np.repeat(background[:, :, None], 3, axis=2)
    pixels[box.y : box.y + box.height, box.x : box.x + box.width] = np.asarray(product)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


# Exact boxes: images without noise, in integers, so that nothing depends on rounding.


def _plain(width: int, height: int, colour: ArrayLike = 255) -> Pixels:
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = colour
    return pixels


def _with(pixels: Pixels, *patches: tuple[Box, ArrayLike]) -> Pixels:
    for box, colour in patches:
        pixels[box.y : box.y + box.height, box.x : box.x + box.width] = colour
    return pixels


def _textured_background(amplitude: int) -> Pixels:
    """Noise of 300x420 pixels, smoothed with a 3x3 kernel in integer arithmetic."""
    noise = np.random.default_rng(3).integers(-amplitude, amplitude + 1, (422, 302))
    noise = noise[:-2] + 2 * noise[1:-1] + noise[2:]
    noise = noise[:, :-2] + 2 * noise[:, 1:-1] + noise[:, 2:]
    return np.repeat((200 + noise // 16).astype(np.uint8)[:, :, None], 3, axis=2)


def _mirrored(pixels: Pixels, *, across: bool, down: bool) -> Pixels:
    return np.ascontiguousarray(pixels[:: -1 if down else 1, :: -1 if across else 1])


def _found(pixels: Pixels, min_side: float = 0.25, *, upright: bool = False) -> Trim:
    """The trim of an image; asserts that its mirror images and their transposes give the same.

    Args:
        pixels: Image with even sides, so that pairs of pixels are the same from either end.
        min_side: The setting `trim.min_side`.
        upright: Leave out the transposes: the areas above and below the product are judged by
            other rules than those beside it.
    """
    height, width = pixels.shape[:2]
    settings = TrimSettings(method="background", min_side=min_side)
    found: set[Trim] = set()
    for transposed in (False,) if upright else (False, True):
        for across in (False, True):
            for down in (False, True):
                seen = _mirrored(pixels, across=across, down=down)
                if transposed:
                    seen = np.ascontiguousarray(seen.transpose(1, 0, 2))
                trim = find_trim(seen, settings)
                x, y, wide, high = trim.box.as_list()
                if transposed:
                    x, y, wide, high = y, x, high, wide
                x = width - x - wide if across else x
                y = height - y - high if down else y
                found.add(Trim(Box(x, y, wide, high), trim.threshold))
    assert len(found) == 1
    return found.pop()


PRODUCT = Box(100, 60, 110, 90)


@pytest.mark.parametrize(
    ("level", "margin", "threshold"),
    [
        (20, 3, 1.2),
        (246, 3, 1.2),
        (250, 2, 1.2),
        (252, 1, 1.2),
        (253, 1, 0.72),  # found once the threshold is relaxed
        (254, 1, 0.432),  # found once it is relaxed twice
    ],
)
def test_the_box_contains_the_product_with_a_margin_of_few_pixels(
    level: int, margin: int, threshold: float
) -> None:
    x, y, width, height = PRODUCT.as_list()
    box = Box(x - margin, y - margin, width + 2 * margin, height + 2 * margin)
    found = _found(_with(_plain(300, 200), (PRODUCT, level)))
    assert found.box == box
    assert found.threshold == pytest.approx(threshold)


@pytest.mark.parametrize("size", [(301, 200), (300, 201), (301, 201)])
def test_odd_sides_of_the_image_do_not_change_the_box(size: tuple[int, int]) -> None:
    found = find_trim(_with(_plain(*size), (PRODUCT, 20)), SETTINGS)
    assert found == Trim(Box(97, 57, 116, 96), 1.2)


@pytest.mark.parametrize(
    ("size", "product", "expected"),
    [
        ((448, 300), PRODUCT, Box(97, 57, 116, 96)),
        ((896, 600), Box(200, 120, 220, 180), Box(194, 114, 232, 192)),
        ((1344, 900), Box(300, 180, 330, 270), Box(291, 171, 348, 288)),
    ],
)
def test_a_large_image_is_searched_at_reduced_size(
    size: tuple[int, int], product: Box, expected: Box
) -> None:
    assert _found(_with(_plain(*size), (product, 20))) == Trim(expected, 1.2)


def test_noise_is_averaged_when_a_large_image_is_reduced() -> None:
    noise = np.random.default_rng(3).integers(-9, 10, (900, 1344, 1))
    pixels = (_plain(1344, 900, 200) + noise).astype(np.uint8)
    found = find_trim(_with(pixels, (Box(300, 180, 330, 270), 20)), SETTINGS)
    # With nearest-neighbour interpolation the noise would raise the threshold above 5.
    assert found.threshold is not None
    assert found.threshold < 4


def test_an_image_with_a_side_below_16_pixels_is_left_as_it_is() -> None:
    for height, cut in ((15, False), (16, True)):
        pixels = _with(_plain(300, height), (Box(100, 0, 100, height), 0))
        expected = Box(97, 0, 106, height) if cut else Box(0, 0, 300, height)
        assert _found(pixels, upright=True).box == expected
        transposed = np.ascontiguousarray(pixels.transpose(1, 0, 2))
        expected = Box(0, 97, height, 106) if cut else Box(0, 0, height, 300)
        assert find_trim(transposed, SETTINGS).box == expected


@pytest.mark.parametrize("length", [2000, 5000, 20_000])
def test_an_image_that_is_too_narrow_at_reduced_size_is_left_as_it_is(length: int) -> None:
    pixels = _with(_plain(length, 16), (Box(length // 4, 0, length // 2, 16), 0))
    assert _found(pixels) == Trim(Box(0, 0, length, 16), None)


def test_all_rows_of_a_long_and_narrow_image_are_searched() -> None:
    # It is reduced to two rows, one of which contains the product.
    pixels = _plain(3600, 20)
    for x in range(900, 2700, 64):
        _with(pixels, (Box(x, 14, 32, 6), 0))
    assert _found(pixels, upright=True) == Trim(Box(883, 0, 1858, 20), 1.2)
    transposed = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    assert _found(transposed, upright=True) == Trim(Box(0, 883, 20, 1858), 1.2)


def test_a_textured_background_in_a_long_and_narrow_image_is_left_as_it_is() -> None:
    noise = np.random.default_rng(1).integers(-40, 41, (40, 4000, 1))
    pixels = (_plain(4000, 40, 200) + noise).astype(np.uint8)
    assert find_trim(pixels, SETTINGS) == Trim(Box(0, 0, 4000, 40), None)
    transposed = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    assert find_trim(transposed, SETTINGS) == Trim(Box(0, 0, 40, 4000), None)


@pytest.mark.parametrize(
    ("width", "height", "min_side", "kept"),
    [
        # The image is 300x200. The box is two pixels larger than the product on each side.
        (26, 60, 0.1, True),
        (26, 60, 0.101, False),
        (60, 16, 0.1, True),
        (60, 16, 0.101, False),
        (56, 46, 0.2, True),
        (56, 46, 0.25, False),
        (72, 46, 0.25, True),
        (70, 46, 0.25, False),
        (72, 44, 0.25, False),
    ],
)
def test_a_box_off_centre_is_accepted_from_the_minimum_side_on(
    width: int, height: int, min_side: float, kept: bool
) -> None:
    pixels = _with(_plain(300, 200), (Box(20, 20, width, height), 0))
    expected = Box(17, 17, width + 6, height + 6) if kept else Box(0, 0, 300, 200)
    assert _found(pixels, min_side).box == expected


@pytest.mark.parametrize(
    ("faint", "threshold"),
    [
        (None, 0.432),  # nothing else is visible at a third of the threshold
        (254, None),  # something is visible at a third
        (253, None),  # something is visible at two thirds
    ],
)
def test_a_small_product_is_accepted_if_nothing_fainter_is_visible(
    faint: int | None, threshold: float | None
) -> None:
    pixels = _plain(300, 200)
    if faint is not None:
        _with(pixels, (Box(134, 80, 70, 44), faint))
    _with(pixels, (Box(134, 80, 34, 34), 0))
    expected = Box(131, 77, 40, 40) if threshold else Box(0, 0, 300, 200)
    found = _found(pixels, 0.4)
    assert found.box == expected
    assert found.threshold == (threshold and pytest.approx(threshold))


def test_the_size_of_a_small_product_is_relative_to_the_image() -> None:
    pixels = _with(_plain(896, 600), (Box(400, 250, 100, 100), 0))
    assert _found(pixels).box == Box(394, 242, 112, 116)


def test_a_small_product_on_a_steep_gradient_is_left_as_it_is() -> None:
    # One level/pixel: the threshold is then as high as on a textured background.
    levels = np.arange(20, 220, dtype=np.uint8)[None, :, None]
    pixels = np.ascontiguousarray(np.broadcast_to(levels, (300, 200, 3)))
    _with(pixels, (Box(84, 130, 34, 44), 255))
    assert _found(pixels) == Trim(Box(0, 0, 200, 300), None)


def test_a_pale_product_around_a_dark_print_is_kept() -> None:
    found = _found(_with(_plain(300, 200), (PRODUCT, 253), (Box(140, 90, 30, 30), 0)))
    assert found.box == Box(99, 59, 112, 92)
    assert found.threshold == pytest.approx(0.72)


@pytest.mark.parametrize(
    ("above", "below", "box"),
    [
        (255, 255, Box(0, 67, 300, 66)),
        (200, 200, Box(0, 67, 300, 66)),
        # Strips that differ by up to 80 levels may be one background.
        (180, 100, Box(0, 67, 300, 66)),
        ((180, 100, 90), (100, 180, 90), Box(0, 67, 300, 66)),
        (181, 100, Box(0, 0, 300, 200)),
        ((90, 181, 90), (90, 100, 90), Box(0, 0, 300, 200)),
        # From 235 on a strip is nearly white, and cut off whatever the opposite one is.
        (235, 100, Box(0, 67, 300, 133)),
        (234, 100, Box(0, 0, 300, 200)),
        ((255, 234, 255), 100, Box(0, 0, 300, 200)),
        # There is no opposite strip.
        (235, None, Box(0, 67, 300, 133)),
        (234, None, Box(0, 0, 300, 200)),
    ],
)
def test_a_plain_strip_above_or_below_is_cut_off_only_if_it_is_certainly_background(
    above: ArrayLike, below: ArrayLike | None, box: Box
) -> None:
    pixels = _with(_plain(300, 200, above), (Box(0, 70, 300, 130), (40, 20, 0)))
    _with(pixels, (Box(140, 100, 20, 100), (90, 70, 50)))  # so that edges reach the bottom
    if below is not None:
        _with(pixels, (Box(0, 130, 300, 70), below))
    assert _found(pixels, upright=True).box == box


@pytest.mark.parametrize("size", [(301, 201), (896, 600), (900, 602)])
@pytest.mark.parametrize(("other", "cut"), [(180, True), (181, False)])
def test_strips_of_odd_and_of_large_images_are_compared(
    size: tuple[int, int], other: int, cut: bool
) -> None:
    width, height = size
    half_and_band = (
        (Box(0, height // 2, width, height), Box(0, height // 3, width, height // 3)),
        (Box(width // 2, 0, width, height), Box(width // 5, 0, width * 3 // 5, height)),
    )
    for half, band in half_and_band:
        pixels = _with(_plain(width, height, other), (half, 100), (band, 0))
        found = find_trim(pixels, SETTINGS)
        if cut:
            assert _contains(found, band, slack=8)
        else:
            assert found.box == Box(0, 0, width, height)


def test_a_product_that_reaches_no_border_is_cut_out_of_a_gradient() -> None:
    # The areas above and below differ by far; the product has nine tenths of the width.
    levels = np.linspace(230, 60, 420).astype(np.uint8)[:, None, None]
    pixels = np.ascontiguousarray(np.broadcast_to(levels, (420, 448, 3)))
    found = find_trim(_with(pixels, (Box(24, 150, 400, 120), 20)), SETTINGS)
    assert found.box == Box(21, 147, 406, 126)


@pytest.mark.parametrize(("amplitude", "transposed"), [(16, False), (34, True)])
def test_strips_of_a_textured_background_are_compared(amplitude: int, transposed: bool) -> None:
    # The margin on a textured background ends at the border; and the flood fill does not cross the
    # stronger noise.
    background = _textured_background(amplitude).astype(np.int64)
    background[210:] -= 100
    pixels = _with(np.clip(background, 0, 255).astype(np.uint8), (Box(0, 190, 300, 40), 30))
    if transposed:
        pixels = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    found = find_by_background(pixels, 0.05)
    assert found is not None
    assert found[0] == Box(0, 0, pixels.shape[1], pixels.shape[0])


@pytest.mark.parametrize(
    ("left", "right", "box"),
    [
        (255, 255, Box(57, 0, 186, 200)),
        (180, 100, Box(57, 0, 186, 200)),
        (181, 100, Box(0, 0, 300, 200)),
        ((90, 181, 90), (90, 100, 90), Box(0, 0, 300, 200)),
        (235, 100, Box(57, 0, 243, 200)),
        (234, 100, Box(0, 0, 300, 200)),
    ],
)
def test_a_plain_strip_beyond_a_straight_seam_is_cut_off_only_if_it_is_certainly_background(
    left: ArrayLike, right: ArrayLike, box: Box
) -> None:
    pixels = _with(
        _plain(300, 200, left), (Box(60, 0, 180, 200), (40, 20, 0)), (Box(240, 0, 60, 200), right)
    )
    assert _found(pixels, upright=True).box == box


@pytest.mark.parametrize(
    ("notch", "cut"),
    [
        (Box(60, 0, 20, 60), True),  # above a shoulder
        (Box(60, 0, 9, 60), True),
        (Box(60, 0, 4, 60), False),
        (Box(60, 140, 20, 60), True),  # below a hem
        (Box(80, 60, 40, 60), False),  # behind an arm: not connected with the outside
    ],
)
@pytest.mark.parametrize("drop", [0, 60])
def test_a_background_that_continues_behind_the_product_is_cut_off(
    notch: Box, cut: bool, drop: int
) -> None:
    # The product is at the right border; the flood fill follows the background's gradient.
    background = np.linspace(190, 190 - drop, 200).astype(np.uint8)[:, None, None]
    pixels = np.ascontiguousarray(np.broadcast_to(background, (200, 300, 3)))
    behind = pixels.copy()
    _with(pixels, (Box(60, 0, 240, 200), (60, 50, 40)), (Box(250, 80, 50, 60), 120))
    rows, columns = slice(notch.y, notch.y + notch.height), slice(notch.x, notch.x + notch.width)
    pixels[rows, columns] = behind[rows, columns]
    expected = Box(57, 0, 243, 200) if cut else Box(0, 0, 300, 200)
    assert _found(pixels, upright=True).box == expected


@pytest.mark.parametrize(
    ("stripes", "level", "bottom"),
    [
        (0, 253, 153),
        (1, 253, 154),
        (5, 253, 179),
        (9, 253, 203),
        (5, 254, 153),  # too faint
    ],
)
def test_the_box_includes_a_fading_hem_on_any_side(stripes: int, level: int, bottom: int) -> None:
    pixels = _with(_plain(300, 240), (PRODUCT, 246))
    for number in range(stripes):
        _with(pixels, (Box(100, 152 + 6 * number, 110, 3), level))
    assert _found(pixels) == Trim(Box(97, 57, 116, bottom - 57), 1.2)


@pytest.mark.parametrize(
    ("x", "width", "included"),
    [(211, 60, False), (40, 58, False), (195, 60, True), (60, 60, True)],
)
def test_faint_edges_beyond_a_corner_are_not_included(x: int, width: int, included: bool) -> None:
    pixels = _with(_plain(300, 240), (PRODUCT, 246))
    for number in range(5):
        _with(pixels, (Box(x, 152 + 6 * number, width, 3), 253))
    assert _found(pixels).box == Box(97, 57, 116, 122 if included else 96)


@pytest.mark.parametrize(("gap", "bottom"), [(7, 163), (10, 167), (11, 153), (20, 153)])
def test_the_box_includes_a_faint_hem_beyond_a_narrow_gap(gap: int, bottom: int) -> None:
    pixels = _with(_plain(300, 240), (PRODUCT, 246), (Box(120, 150 + gap, 70, 6), 253))
    assert _found(pixels).box == Box(97, 57, 116, bottom - 57)


@pytest.mark.parametrize(("width", "bottom"), [(8, 153), (9, 155)])
def test_the_box_includes_a_faint_mark_from_a_few_pixels_on(width: int, bottom: int) -> None:
    pixels = _with(_plain(300, 240), (PRODUCT, 246), (Box(140, 152, width, 3), 253))
    assert _found(pixels).box == Box(97, 57, 116, bottom - 57)


def test_the_box_includes_a_hem_that_differs_only_in_colour() -> None:
    pixels = _with(_plain(300, 240, 150), (PRODUCT, 140))
    for number in range(4):
        _with(pixels, (Box(104 + 28 * number, 150, 2, 24), (156, 149, 150)))
    assert _found(pixels).box == Box(97, 57, 116, 116)


@pytest.mark.parametrize(
    ("counts", "rows"),
    [
        ([], 0),
        ([0] * 8, 0),
        # If the usual count is 0, a row needs three faint pixels.
        ([2] * 4 + [0] * 6, 0),
        ([3] * 4 + [0] * 6, 4),
        # A gap of two rows is crossed, before the outline and within it.
        ([0, 0, 3] + [0] * 7, 3),
        ([0, 0, 0, 3] + [0] * 7, 0),
        ([3, 0, 0, 3] + [0] * 7, 4),
        ([3, 0, 0, 0, 3] + [0] * 7, 1),
        ([3, 3, 3, 0, 3] + [0] * 7, 5),
        # If the usual count is 9, a row needs more than 9 + 3 * 3 + 2.
        ([21, 21, 0, 0, 0] + [9] * 5, 2),
        ([20, 20, 0, 0, 0] + [9] * 5, 0),
        # The usual count is the upper median of the outer half.
        ([3, 3, 50, 0, 0, 50], 6),
        ([21, 0, 0, 9], 1),
        ([20, 0, 0, 9], 0),
    ],
)
def test_a_faint_outline_continues_while_rows_have_more_faint_pixels_than_usual(
    counts: list[int], rows: int
) -> None:
    assert _faint_extent(counts) == rows


@pytest.mark.parametrize(
    ("amplitude", "found"),
    [
        (4, Trim(Box(87, 107, 126, 206), 1.3125)),
        # From 1.25 times the minimum threshold on a background is textured: a margin is kept.
        (5, Trim(Box(85, 102, 130, 218), 1.640625)),
        (16, Trim(Box(85, 102, 130, 218), 4.8125)),
    ],
)
def test_the_margin_grows_with_the_noise_of_the_background(amplitude: int, found: Trim) -> None:
    pixels = _with(_textured_background(amplitude), (Box(90, 110, 120, 200), 60))
    assert find_trim(pixels, SETTINGS) == found


@pytest.mark.parametrize(("contrast", "box"), [(12, None), (13, Box(85, 105, 130, 210))])
def test_an_outline_on_a_textured_background_must_exceed_1_5_times_the_threshold(
    contrast: int, box: Box | None
) -> None:
    pixels = _textured_background(16)
    pixels[110:310, 90:210] -= np.uint8(contrast)
    found = find_by_background(pixels, 0.25)
    assert (found and found[0]) == box


@pytest.mark.parametrize(
    ("end", "box"),
    [
        (240, Box(85, 102, 130, 144)),
        (250, Box(85, 102, 130, 144)),
        # If edges cover too little of the cloth, nothing is cut off.
        (252, Box(0, 0, 300, 420)),
        (300, Box(0, 0, 300, 420)),
    ],
)
def test_pale_cloth_that_is_smoother_than_a_textured_background_is_product(
    end: int, box: Box
) -> None:
    pixels = _with(_textured_background(16), (Box(90, 110, 120, end - 110), 200))
    _with(pixels, (Box(90, 110, 120, 130), 60))
    assert find_trim(pixels, SETTINGS).box == box


def _cells(*patches: tuple[Box, int], textured: int = 100) -> NDArray[np.uint8]:
    """Gradients of 96x80 pixels in cells of 8x8: twelve across, ten down."""
    cells = np.full((10, 12), textured, np.uint8)
    for box, gradient in patches:
        cells[box.y : box.y + box.height, box.x : box.x + box.width] = gradient
    return np.kron(cells, np.ones((8, 8), np.uint8))


@pytest.mark.parametrize(
    ("patches", "expected"),
    [
        ([], None),
        ([(Box(5, 4, 2, 2), 0)], None),  # of 3x3 cells only four are smooth
        # Averaged over 3x3 cells, column 6 of rows 4 and 5 is smooth; two cells are added on each
        # side.
        ([(Box(5, 4, 3, 2), 0)], Box(32, 16, 40, 48)),
        ([(Box(5, 4, 2, 3), 0)], Box(24, 24, 48, 40)),
        ([(Box(5, 3, 3, 3), 32)], Box(24, 8, 56, 56)),
        ([(Box(5, 3, 3, 3), 51)], Box(32, 16, 40, 40)),
        ([(Box(5, 3, 3, 3), 58)], None),
        ([(Box(0, 0, 3, 3), 0)], Box(0, 0, 40, 40)),
        ([(Box(9, 7, 3, 3), 0)], Box(56, 40, 40, 40)),
        ([(Box(0, 0, 12, 10), 0), (Box(0, 0, 12, 1), 100)], None),
        # The median along the borders needs all four of them.
        (
            [(Box(2, 1, 8, 3), 50), (Box(11, 4, 1, 2), 0), (Box(1, 2, 9, 6), 50)],
            Box(0, 0, 88, 72),
        ),
    ],
)
def test_a_region_smoother_than_the_borders_is_found_in_cells(
    patches: list[tuple[Box, int]], expected: Box | None
) -> None:
    assert _box_of_smooth_region(_cells(*patches)) == expected
    mirrored = _cells(*patches)[::-1, ::-1]
    if expected is not None:
        x, y, width, height = expected.as_list()
        expected = Box(96 - x - width, 80 - y - height, width, height)
    assert _box_of_smooth_region(np.ascontiguousarray(mirrored)) == expected


@pytest.mark.parametrize("transposed", [False, True])
def test_a_side_of_less_than_two_cells_is_one_cell(transposed: bool) -> None:
    gradient = np.full((80, 12), 100, np.uint8)
    # One cell has a mean of 47, the borders of 82. Of two cells, the right one would be smooth,
    # because the blur reflects at the border.
    gradient[24:56, :8] = 20
    assert _box_of_smooth_region(gradient.T.copy() if transposed else gradient) is None
    gradient[24:56, :8] = 0
    found = _box_of_smooth_region(gradient.T.copy() if transposed else gradient)
    assert found == (Box(16, 0, 48, 12) if transposed else Box(0, 16, 12, 48))


@pytest.mark.parametrize(
    ("box", "contained"),
    [
        (Box(50, 60, 100, 80), True),
        (Box(0, 0, 500, 500), True),
        (Box(70, 60, 80, 80), True),
        (Box(71, 60, 79, 80), False),
        (Box(50, 80, 100, 60), True),
        (Box(50, 81, 100, 59), False),
        (Box(50, 60, 80, 80), True),
        (Box(50, 60, 79, 80), False),
        (Box(50, 60, 100, 60), True),
        (Box(50, 60, 100, 59), False),
        (Box(70, 80, 60, 40), True),
        (None, False),
    ],
)
def test_a_box_nearly_contains_another_if_at_most_20_pixels_are_missing_per_side(
    box: Box | None, contained: bool
) -> None:
    assert _nearly_contains(box, Box(50, 60, 100, 80)) is contained


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [
        # 0.03 * 200 = 6
        ((200, 100), Box(6, 6, 187, 87), Box(0, 0, 193, 93)),
        ((200, 100), Box(7, 7, 187, 87), Box(7, 7, 193, 93)),
        ((200, 100), Box(7, 6, 186, 87), Box(7, 0, 186, 93)),
        ((100, 200), Box(6, 7, 87, 186), Box(0, 7, 93, 186)),
        ((100, 200), Box(7, 6, 87, 187), Box(7, 0, 93, 193)),
        # 0.03 * 250 = 7.5
        ((250, 100), Box(8, 9, 100, 50), Box(0, 9, 108, 50)),
    ],
)
def test_sides_close_to_the_border_of_the_image_are_moved_onto_it(
    size: tuple[int, int], box: Box, expected: Box
) -> None:
    assert _snap_to_border(box, size) == expected


@pytest.mark.parametrize(
    ("box", "size", "full", "expected"),
    [
        (Box(1, 1, 2, 2), (10, 5), (25, 16), Box(2, 3, 6, 7)),  # 2.5, 3.2 to 7.5, 9.6
        (Box(1, 1, 2, 2), (5, 10), (16, 25), Box(3, 2, 7, 6)),
        (Box(8, 3, 2, 2), (10, 5), (25, 16), Box(20, 9, 5, 7)),
        (Box(3, 2, 4, 1), (10, 5), (20, 10), Box(6, 4, 8, 2)),
        (Box(0, 0, 10, 5), (10, 5), (25, 16), Box(0, 0, 25, 16)),
        # 7 * (29 / 7) is more than 29 in floating point.
        (Box(0, 0, 7, 7), (7, 7), (29, 29), Box(0, 0, 29, 29)),
    ],
)
def test_a_box_in_another_size_is_rounded_outwards(
    box: Box, size: tuple[int, int], full: tuple[int, int], expected: Box
) -> None:
    assert _scale_box(box, size, full) == expected


@pytest.mark.parametrize(
    ("first", "last", "small"),
    [
        # In an image of 400x200, the centre of the box is within 100, 50 to 300, 150, ...
        (Box(180, 90, 60, 6), Box(180, 90, 60, 6), True),
        (Box(70, 90, 60, 6), Box(70, 90, 60, 6), True),
        (Box(69, 90, 60, 6), Box(69, 90, 60, 6), False),
        (Box(270, 90, 60, 6), Box(270, 90, 60, 6), True),
        (Box(271, 90, 60, 6), Box(271, 90, 60, 6), False),
        (Box(180, 47, 60, 6), Box(180, 47, 60, 6), True),
        (Box(180, 46, 60, 6), Box(180, 46, 60, 6), False),
        (Box(180, 147, 60, 6), Box(180, 147, 60, 6), True),
        (Box(180, 148, 60, 6), Box(180, 148, 60, 6), False),
        # ... its longer side is at least 0.15 of the image's, and its shorter 0.03, ...
        (Box(180, 90, 59, 6), Box(180, 90, 59, 6), False),
        (Box(180, 90, 60, 5), Box(180, 90, 60, 5), False),
        (Box(194, 85, 12, 30), Box(194, 85, 12, 30), True),
        (Box(194, 85, 6, 30), Box(194, 85, 12, 30), True),
        (Box(194, 85, 12, 29), Box(194, 85, 12, 29), False),
        (Box(194, 85, 11, 30), Box(194, 85, 11, 30), False),
        # ... and the last threshold adds at most 20 pixels per side.
        (Box(180, 90, 40, 30), Box(180, 90, 60, 30), True),
        (Box(180, 90, 39, 30), Box(180, 90, 60, 30), False),
        (Box(180, 90, 60, 30), Box(180, 90, 20, 30), True),
    ],
)
def test_a_small_product_is_larger_than_dust_and_near_the_centre(
    first: Box, last: Box, small: bool
) -> None:
    assert _is_small_product(first, last, (400, 200)) is small
    first, last = (Box(box.y, box.x, box.height, box.width) for box in (first, last))
    assert _is_small_product(first, last, (200, 400)) is small


def test_the_colour_of_a_strip_is_the_median_of_every_fourth_pixel() -> None:
    dark, spotted = _plain(40, 40, 20), _plain(40, 40, 20)
    spotted[::4, ::4] = 250
    assert _are_background(spotted, dark) == (True, False)
    assert _are_background(dark, spotted) == (False, True)
    spotted[16::4] = 20  # six of ten rows
    assert _are_background(spotted, dark) == (True, True)  # now the same colour


@pytest.mark.parametrize(
    ("speck", "cut"),
    [
        (Box(0, 90, 1, 20), False),  # at the seed of the flood fill
        (Box(2, 90, 1, 20), True),
        (Box(0, 60, 1, 20), True),
    ],
)
def test_the_flood_fill_starts_from_the_middle_of_the_border(speck: Box, cut: bool) -> None:
    pixels = _with(_plain(300, 200, 190), (Box(60, 0, 240, 200), 40), (Box(60, 0, 40, 60), 190))
    _with(pixels, (speck, 120))
    box = Box(60, 0, 240, 200)
    assert _undo_uncertain_cuts(box, pixels) == (box if cut else Box(0, 0, 300, 200))
    mirrored = _mirrored(pixels, across=True, down=False)
    box = Box(0, 0, 240, 200)
    assert _undo_uncertain_cuts(box, mirrored) == (box if cut else Box(0, 0, 300, 200))


@pytest.mark.parametrize(
    ("seed", "floods"),
    [
        ((9, 40), True),
        ((10, 20), False),
        ((39, 59), False),
        ((40, 40), True),
        ((20, 19), True),
        ((20, 60), True),
    ],
)
def test_a_seed_inside_the_box_does_not_flood_into_it(seed: tuple[int, int], floods: bool) -> None:
    assert _floods_into_box(_plain(60, 80), Box(10, 20, 30, 40), seed) is floods


@pytest.mark.parametrize(
    ("seam", "crossed"),
    [
        (108, True),
        (109, False),
        (91, True),
        (90, False),
        ((109, 100, 100), False),
        ((100, 109, 100), False),
        ((100, 100, 109), False),
    ],
)
def test_the_flood_fill_crosses_a_faint_seam(seam: ArrayLike, crossed: bool) -> None:
    pixels = _with(_plain(60, 80, 100), (Box(20, 0, 1, 80), seam))
    assert _floods_into_box(pixels, Box(30, 0, 30, 80), (0, 40)) is crossed


@pytest.mark.parametrize(
    ("notch", "floods"),
    [
        # The blur takes a pixel off each side of a notch that is not at the border. 150 of the
        # box's 100x100 pixels are a share of 0.015.
        (Box(20, 0, 16, 11), True),
        (Box(20, 0, 15, 11), False),
        (Box(20, 89, 16, 11), True),
        (Box(20, 89, 15, 11), False),
        (Box(20, 40, 16, 12), True),
        (Box(20, 40, 16, 11), False),
        (Box(0, 0, 0, 0), False),
    ],
)
def test_the_flood_fill_must_cover_a_share_of_the_box(notch: Box, floods: bool) -> None:
    pixels = _with(_plain(120, 100, 200), (Box(20, 0, 100, 100), 0), (notch, 200))
    assert _floods_into_box(pixels, Box(20, 0, 100, 100), (0, 50)) is floods
    mirrored = _mirrored(pixels, across=True, down=False)
    assert _floods_into_box(mirrored, Box(0, 0, 100, 100), (119, 50)) is floods


@pytest.mark.parametrize(
    ("rows", "below", "floods"),
    [(4, 0, True), (3, 0, False), (3, 103, True), (3, 102, False)],
)
def test_the_flood_fill_may_reach_the_opposite_border(rows: int, below: int, floods: bool) -> None:
    # The blur removes the last row of a passage along the top, and the first of two columns that
    # lead down from it along the right border.
    pixels = _with(_plain(120, 200, 200), (Box(20, rows, 100, 200 - rows), 0))
    _with(pixels, (Box(118, 0, 2, below), 200))
    assert _floods_into_box(pixels, Box(20, 0, 100, 200), (0, 100)) is floods


def test_strips_that_may_be_cloth_are_restored_up_to_the_border() -> None:
    pixels = _with(_plain(300, 200, 181), (Box(0, 100, 300, 100), 100))
    assert _undo_uncertain_cuts(Box(0, 70, 300, 60), pixels) == Box(0, 0, 300, 200)
    pixels = _with(_plain(300, 200, 181), (Box(60, 0, 180, 200), 20), (Box(240, 0, 60, 200), 100))
    assert _undo_uncertain_cuts(Box(60, 0, 180, 200), pixels) == Box(0, 0, 300, 200)


@pytest.mark.parametrize("colour", [(150, 139, 172), (200, 140, 150)])
def test_a_product_of_the_backgrounds_brightness_is_found_by_its_colour(colour: ArrayLike) -> None:
    # More red or more blue, and less green for the same luma.
    found = _found(_with(_plain(300, 200, 150), (PRODUCT, colour)))
    assert found == Trim(Box(97, 57, 116, 96), 1.2)


@pytest.mark.parametrize(
    ("level", "thickness", "length", "bottom"),
    [
        (250, 2, 12, None),
        (250, 2, 14, 174),
        # A line with more contrast may be shorter.
        (240, 1, 8, None),
        (240, 1, 10, 174),
        (200, 1, 4, None),
        (200, 1, 6, 175),
    ],
)
def test_a_line_apart_from_the_product_is_kept_from_a_minimum_length_on(
    level: int, thickness: int, length: int, bottom: int | None
) -> None:
    line = Box(140, 170, length, thickness)
    pixels = _with(_plain(300, 240), (Box(100, 40, 110, 90), 246), (line, level))
    assert _found(pixels).box == Box(97, 37, 116, (bottom or 133) - 37)
