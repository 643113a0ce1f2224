from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from imgassets.imaging.background import (
    _box_of_smooth,
    _followed,
    _is_small_product,
    _nearly_holds,
    _plain_background,
    _runs_on,
    _scaled,
    _to_close_edges,
    _unless_unsure,
    find_by_background,
)
from imgassets.imaging.image import Box, Pixels
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
def test_tiny_and_narrow_pictures_are_left_as_they_are(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (*size, 3), dtype=np.uint8)
    assert find(pixels, SETTINGS) == Trim(Box(0, 0, size[1], size[0]), None)


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


# Exact boxes: images without grain, in whole numbers, so that nothing depends on rounding.


def _plain(width: int, height: int, colour: ArrayLike = 255) -> Pixels:
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = colour
    return pixels


def _with(pixels: Pixels, *patches: tuple[Box, ArrayLike]) -> Pixels:
    for box, colour in patches:
        pixels[box.y : box.y + box.height, box.x : box.x + box.width] = colour
    return pixels


def _rough_wall(amplitude: int) -> Pixels:
    """Noise of 300x420 pixels, averaged by whole numbers over three by three of them."""
    noise = np.random.default_rng(3).integers(-amplitude, amplitude + 1, (422, 302))
    noise = noise[:-2] + 2 * noise[1:-1] + noise[2:]
    noise = noise[:, :-2] + 2 * noise[:, 1:-1] + noise[:, 2:]
    return np.repeat((200 + noise // 16).astype(np.uint8)[:, :, None], 3, axis=2)


def _mirrored(pixels: Pixels, *, across: bool, down: bool) -> Pixels:
    return np.ascontiguousarray(pixels[:: -1 if down else 1, :: -1 if across else 1])


def _found(pixels: Pixels, min_side: float = 0.25, *, upright: bool = False) -> Trim:
    """The box of an image, which is the same in all its mirror images, and on its side.

    Args:
        pixels: of even sides, of which edges fall into the same pairs from either end.
        min_side: of the settings.
        upright: whether what is above and below is judged otherwise than what is beside.
    """
    height, width = pixels.shape[:2]
    settings = TrimSettings(method="background", min_side=min_side)
    found: set[Trim] = set()
    for turned in (False,) if upright else (False, True):
        for across in (False, True):
            for down in (False, True):
                seen = _mirrored(pixels, across=across, down=down)
                if turned:
                    seen = np.ascontiguousarray(seen.transpose(1, 0, 2))
                trim = find(seen, settings)
                x, y, wide, high = trim.box.as_list()
                if turned:
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
        (253, 1, 0.72),  # seen once the condition is relaxed
        (254, 1, 0.432),  # seen once it is relaxed twice
    ],
)
def test_the_box_holds_a_product_with_a_margin_of_few_pixels(
    level: int, margin: int, threshold: float
) -> None:
    x, y, width, height = PRODUCT.as_list()
    box = Box(x - margin, y - margin, width + 2 * margin, height + 2 * margin)
    found = _found(_with(_plain(300, 200), (PRODUCT, level)))
    assert found.box == box
    assert found.threshold == pytest.approx(threshold)


@pytest.mark.parametrize("size", [(301, 200), (300, 201), (301, 201)])
def test_odd_sides_change_nothing_within(size: tuple[int, int]) -> None:
    found = find(_with(_plain(*size), (PRODUCT, 20)), SETTINGS)
    assert found == Trim(Box(97, 57, 116, 96), 1.2)


@pytest.mark.parametrize(
    ("size", "product", "expected"),
    [
        ((448, 300), PRODUCT, Box(97, 57, 116, 96)),
        ((896, 600), Box(200, 120, 220, 180), Box(194, 114, 232, 192)),
        ((1344, 900), Box(300, 180, 330, 270), Box(291, 171, 348, 288)),
    ],
)
def test_the_box_of_a_large_image_is_found_in_a_small_one(
    size: tuple[int, int], product: Box, expected: Box
) -> None:
    assert _found(_with(_plain(*size), (product, 20))) == Trim(expected, 1.2)


def test_grain_is_averaged_where_a_large_image_is_looked_at() -> None:
    noise = np.random.default_rng(3).integers(-9, 10, (900, 1344, 1))
    pixels = (_plain(1344, 900, 200) + noise).astype(np.uint8)
    found = find(_with(pixels, (Box(300, 180, 330, 270), 20)), SETTINGS)
    # Interpolated from the nearest pixels alone, the noise would ask for more than 5.
    assert found.threshold is not None
    assert found.threshold < 4


def test_of_an_image_with_a_side_below_16_pixels_nothing_is_said() -> None:
    for height, cut in ((15, False), (16, True)):
        pixels = _with(_plain(300, height), (Box(100, 0, 100, height), 0))
        expected = Box(97, 0, 106, height) if cut else Box(0, 0, 300, height)
        assert _found(pixels, upright=True).box == expected
        on_its_side = np.ascontiguousarray(pixels.transpose(1, 0, 2))
        expected = Box(0, 97, height, 106) if cut else Box(0, 0, height, 300)
        assert find(on_its_side, SETTINGS).box == expected


@pytest.mark.parametrize("length", [2000, 5000, 20_000])
def test_an_image_that_is_too_narrow_to_be_looked_at_is_left_as_it_is(length: int) -> None:
    pixels = _with(_plain(length, 16), (Box(length // 4, 0, length // 2, 16), 0))
    assert _found(pixels) == Trim(Box(0, 0, length, 16), None)


def test_no_row_of_a_long_and_narrow_image_is_left_out() -> None:
    # It is looked at in two rows, of which one has the product.
    pixels = _plain(3600, 20)
    for x in range(900, 2700, 64):
        _with(pixels, (Box(x, 14, 32, 6), 0))
    assert _found(pixels, upright=True) == Trim(Box(883, 0, 1858, 20), 1.2)
    on_its_side = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    assert _found(on_its_side, upright=True) == Trim(Box(0, 883, 20, 1858), 1.2)


def test_a_rough_wall_in_a_long_and_narrow_image_is_left_as_it_is() -> None:
    noise = np.random.default_rng(1).integers(-40, 41, (40, 4000, 1))
    pixels = (_plain(4000, 40, 200) + noise).astype(np.uint8)
    assert find(pixels, SETTINGS) == Trim(Box(0, 0, 4000, 40), None)
    on_its_side = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    assert find(on_its_side, SETTINGS) == Trim(Box(0, 0, 40, 4000), None)


@pytest.mark.parametrize(
    ("width", "height", "min_side", "kept"),
    [
        # The image is 300x200. Of a box, two pixels on either side of the product count.
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
def test_a_box_beside_the_middle_is_believed_from_the_least_side_of_the_settings_on(
    width: int, height: int, min_side: float, kept: bool
) -> None:
    pixels = _with(_plain(300, 200), (Box(20, 20, width, height), 0))
    expected = Box(17, 17, width + 6, height + 6) if kept else Box(0, 0, 300, 200)
    assert _found(pixels, min_side).box == expected


@pytest.mark.parametrize(
    ("faint", "threshold"),
    [
        (None, 0.432),  # nothing else is seen at a third of the threshold
        (254, None),  # something is seen at a third
        (253, None),  # something is seen at two thirds
    ],
)
def test_a_small_product_is_believed_where_nothing_fainter_is_seen(
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


def test_a_small_product_in_a_large_image_is_measured_by_its_share() -> None:
    pixels = _with(_plain(896, 600), (Box(400, 250, 100, 100), 0))
    assert _found(pixels).box == Box(394, 242, 112, 116)


def test_a_small_product_on_a_steep_gradient_is_left_as_it_is() -> None:
    # One level a pixel: the least slope of an edge is then as large as on a rough wall.
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
        # As much as 80 levels apart, both may be one wall.
        (180, 100, Box(0, 67, 300, 66)),
        ((180, 100, 90), (100, 180, 90), Box(0, 67, 300, 66)),
        (181, 100, Box(0, 0, 300, 200)),
        ((90, 181, 90), (90, 100, 90), Box(0, 0, 300, 200)),
        # From 235 on a strip is white by itself, and cut off whatever is opposite.
        (235, 100, Box(0, 67, 300, 133)),
        (234, 100, Box(0, 0, 300, 200)),
        ((255, 234, 255), 100, Box(0, 0, 300, 200)),
        # There is no strip opposite.
        (235, None, Box(0, 67, 300, 133)),
        (234, None, Box(0, 0, 300, 200)),
    ],
)
def test_a_plain_strip_above_or_below_is_cut_off_if_it_is_surely_background(
    above: ArrayLike, below: ArrayLike | None, box: Box
) -> None:
    pixels = _with(_plain(300, 200, above), (Box(0, 70, 300, 130), (40, 20, 0)))
    _with(pixels, (Box(140, 100, 20, 100), (90, 70, 50)))  # so that edges reach the foot
    if below is not None:
        _with(pixels, (Box(0, 130, 300, 70), below))
    assert _found(pixels, upright=True).box == box


@pytest.mark.parametrize("size", [(301, 201), (896, 600), (900, 602)])
@pytest.mark.parametrize(("other", "cut"), [(180, True), (181, False)])
def test_strips_of_odd_and_of_large_images_are_looked_at(
    size: tuple[int, int], other: int, cut: bool
) -> None:
    width, height = size
    half_and_band = (
        (Box(0, height // 2, width, height), Box(0, height // 3, width, height // 3)),
        (Box(width // 2, 0, width, height), Box(width // 5, 0, width * 3 // 5, height)),
    )
    for half, band in half_and_band:
        pixels = _with(_plain(width, height, other), (half, 100), (band, 0))
        found = find(pixels, SETTINGS)
        if cut:
            assert _holds(found, band, slack=8)
        else:
            assert found.box == Box(0, 0, width, height)


def test_a_product_that_reaches_no_side_is_cut_out_of_a_gradient() -> None:
    # What is above is far from what is below, and as wide as nine tenths of the image.
    levels = np.linspace(230, 60, 420).astype(np.uint8)[:, None, None]
    pixels = np.ascontiguousarray(np.broadcast_to(levels, (420, 448, 3)))
    found = find(_with(pixels, (Box(24, 150, 400, 120), 20)), SETTINGS)
    assert found.box == Box(21, 147, 406, 126)


@pytest.mark.parametrize(("amplitude", "on_its_side"), [(16, False), (34, True)])
def test_strips_of_a_rough_wall_are_looked_at(amplitude: int, on_its_side: bool) -> None:
    # More than the box is kept on a rough wall, but not beyond the image; and the coarser grain is
    # too rough to be followed into the box.
    wall = _rough_wall(amplitude).astype(np.int64)
    wall[210:] -= 100
    pixels = _with(np.clip(wall, 0, 255).astype(np.uint8), (Box(0, 190, 300, 40), 30))
    if on_its_side:
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
def test_a_plain_strip_beyond_a_straight_seam_is_cut_off_if_it_is_surely_background(
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
        (Box(80, 60, 40, 60), False),  # behind an arm: nothing joins it with the outside
    ],
)
@pytest.mark.parametrize("slope", [0, 60])
def test_a_wall_that_runs_on_behind_the_product_is_cut_off(
    notch: Box, cut: bool, slope: int
) -> None:
    # The product stands at the right; a gradient of the wall is followed up and down.
    wall = np.linspace(190, 190 - slope, 200).astype(np.uint8)[:, None, None]
    pixels = np.ascontiguousarray(np.broadcast_to(wall, (200, 300, 3)))
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
def test_a_hem_that_fades_is_followed_on_whatever_side(
    stripes: int, level: int, bottom: int
) -> None:
    pixels = _with(_plain(300, 240), (PRODUCT, 246))
    for number in range(stripes):
        _with(pixels, (Box(100, 152 + 6 * number, 110, 3), level))
    assert _found(pixels) == Trim(Box(97, 57, 116, bottom - 57), 1.2)


@pytest.mark.parametrize(
    ("x", "width", "followed"),
    [(211, 60, False), (40, 58, False), (195, 60, True), (60, 60, True)],
)
def test_what_is_faint_beyond_a_corner_is_not_followed(x: int, width: int, followed: bool) -> None:
    pixels = _with(_plain(300, 240), (PRODUCT, 246))
    for number in range(5):
        _with(pixels, (Box(x, 152 + 6 * number, width, 3), 253))
    assert _found(pixels).box == Box(97, 57, 116, 122 if followed else 96)


@pytest.mark.parametrize(("gap", "bottom"), [(7, 163), (10, 167), (11, 153), (20, 153)])
def test_a_faint_hem_is_followed_across_a_narrow_gap(gap: int, bottom: int) -> None:
    pixels = _with(_plain(300, 240), (PRODUCT, 246), (Box(120, 150 + gap, 70, 6), 253))
    assert _found(pixels).box == Box(97, 57, 116, bottom - 57)


@pytest.mark.parametrize(("width", "bottom"), [(8, 153), (9, 155)])
def test_a_faint_mark_counts_from_a_few_pixels_on(width: int, bottom: int) -> None:
    pixels = _with(_plain(300, 240), (PRODUCT, 246), (Box(140, 152, width, 3), 253))
    assert _found(pixels).box == Box(97, 57, 116, bottom - 57)


def test_a_hem_that_differs_by_its_colour_alone_is_followed() -> None:
    pixels = _with(_plain(300, 240, 150), (PRODUCT, 140))
    for number in range(4):
        _with(pixels, (Box(104 + 28 * number, 150, 2, 24), (156, 149, 150)))
    assert _found(pixels).box == Box(97, 57, 116, 116)


@pytest.mark.parametrize(
    ("counts", "rows"),
    [
        ([], 0),
        ([0] * 8, 0),
        # Where a row usually has none, three faint pixels make a trace.
        ([2] * 4 + [0] * 6, 0),
        ([3] * 4 + [0] * 6, 4),
        # A gap of two rows is crossed, before the trace and within it.
        ([0, 0, 3] + [0] * 7, 3),
        ([0, 0, 0, 3] + [0] * 7, 0),
        ([3, 0, 0, 3] + [0] * 7, 4),
        ([3, 0, 0, 0, 3] + [0] * 7, 1),
        ([3, 3, 3, 0, 3] + [0] * 7, 5),
        # Where nine are usual, 9 + 3 * 3 + 2 are not exceeded by chance.
        ([21, 21, 0, 0, 0] + [9] * 5, 2),
        ([20, 20, 0, 0, 0] + [9] * 5, 0),
        # Usual is the median of the outer half, rounded upwards.
        ([3, 3, 50, 0, 0, 50], 6),
        ([21, 0, 0, 9], 1),
        ([20, 0, 0, 9], 0),
    ],
)
def test_a_faint_outline_goes_on_while_rows_have_more_than_usual(
    counts: list[int], rows: int
) -> None:
    assert _followed(counts) == rows


@pytest.mark.parametrize(
    ("amplitude", "found"),
    [
        (4, Trim(Box(87, 107, 126, 206), 1.3125)),
        # From 1.25 times the faintest edge on a wall is rough: more is kept.
        (5, Trim(Box(85, 102, 130, 218), 1.640625)),
        (16, Trim(Box(85, 102, 130, 218), 4.8125)),
    ],
)
def test_the_margin_of_a_product_grows_with_the_grain_of_the_wall(
    amplitude: int, found: Trim
) -> None:
    pixels = _with(_rough_wall(amplitude), (Box(90, 110, 120, 200), 60))
    assert find(pixels, SETTINGS) == found


@pytest.mark.parametrize(("contrast", "box"), [(12, None), (13, Box(85, 105, 130, 210))])
def test_on_a_rough_wall_an_outline_must_be_half_as_steep_again_as_the_grain(
    contrast: int, box: Box | None
) -> None:
    pixels = _rough_wall(16)
    pixels[110:310, 90:210] -= np.uint8(contrast)
    found = find_by_background(pixels, 0.25)
    assert (found and found[0]) == box


@pytest.mark.parametrize(
    ("end", "box"),
    [
        (240, Box(85, 102, 130, 144)),
        (250, Box(85, 102, 130, 144)),
        # Where edges show too little of the cloth, nothing is cut off.
        (252, Box(0, 0, 300, 420)),
        (300, Box(0, 0, 300, 420)),
    ],
)
def test_pale_cloth_that_is_smoother_than_a_rough_wall_is_product(end: int, box: Box) -> None:
    pixels = _with(_rough_wall(16), (Box(90, 110, 120, end - 110), 200))
    _with(pixels, (Box(90, 110, 120, 130), 60))
    assert find(pixels, SETTINGS).box == box


def _cells(*patches: tuple[Box, int], rough: int = 100) -> NDArray[np.uint8]:
    """Slopes of a wall of 96x80 pixels, in cells of eight by eight: twelve across, ten down."""
    cells = np.full((10, 12), rough, np.uint8)
    for box, slope in patches:
        cells[box.y : box.y + box.height, box.x : box.x + box.width] = slope
    return np.kron(cells, np.ones((8, 8), np.uint8))


@pytest.mark.parametrize(
    ("patches", "expected"),
    [
        ([], None),
        ([(Box(5, 4, 2, 2), 0)], None),  # of three by three cells only four are smooth
        # Averaged over three by three cells, columns 6 of rows 4 and 5 are smooth; two are kept on
        # each side.
        ([(Box(5, 4, 3, 2), 0)], Box(32, 16, 40, 48)),
        ([(Box(5, 4, 2, 3), 0)], Box(24, 24, 48, 40)),
        ([(Box(5, 3, 3, 3), 32)], Box(24, 8, 56, 56)),
        ([(Box(5, 3, 3, 3), 51)], Box(32, 16, 40, 40)),
        ([(Box(5, 3, 3, 3), 58)], None),
        ([(Box(0, 0, 3, 3), 0)], Box(0, 0, 40, 40)),
        ([(Box(9, 7, 3, 3), 0)], Box(56, 40, 40, 40)),
        ([(Box(0, 0, 12, 10), 0), (Box(0, 0, 12, 1), 100)], None),
        # All four sides are needed to tell what is usual along them.
        (
            [(Box(2, 1, 8, 3), 50), (Box(11, 4, 1, 2), 0), (Box(1, 2, 9, 6), 50)],
            Box(0, 0, 88, 72),
        ),
    ],
)
def test_what_is_smoother_than_the_sides_is_found_in_cells(
    patches: list[tuple[Box, int]], expected: Box | None
) -> None:
    assert _box_of_smooth(_cells(*patches)) == expected
    mirrored = _cells(*patches)[::-1, ::-1]
    if expected is not None:
        x, y, width, height = expected.as_list()
        expected = Box(96 - x - width, 80 - y - height, width, height)
    assert _box_of_smooth(np.ascontiguousarray(mirrored)) == expected


@pytest.mark.parametrize("on_its_side", [False, True])
def test_less_than_two_cells_are_one(on_its_side: bool) -> None:
    slopes = np.full((80, 12), 100, np.uint8)
    # In one cell 47 on average, where 82 are usual; of two, the right one would be smooth.
    slopes[24:56, :8] = 20
    assert _box_of_smooth(slopes.T.copy() if on_its_side else slopes) is None
    slopes[24:56, :8] = 0
    found = _box_of_smooth(slopes.T.copy() if on_its_side else slopes)
    assert found == (Box(16, 0, 48, 12) if on_its_side else Box(0, 16, 12, 48))


@pytest.mark.parametrize(
    ("box", "held"),
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
def test_a_box_nearly_holds_another_if_it_lacks_20_pixels_at_most(
    box: Box | None, held: bool
) -> None:
    assert _nearly_holds(box, Box(50, 60, 100, 80)) is held


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [
        # 0.045 * 200 = 9
        ((200, 100), Box(9, 9, 181, 81), Box(0, 0, 190, 90)),
        ((200, 100), Box(10, 10, 181, 81), Box(10, 10, 190, 90)),
        ((200, 100), Box(10, 9, 180, 81), Box(10, 0, 180, 90)),
        ((100, 200), Box(9, 10, 81, 180), Box(0, 10, 90, 180)),
        ((100, 200), Box(10, 9, 81, 181), Box(10, 0, 90, 190)),
        # 0.045 * 234 = 10.5
        ((234, 100), Box(11, 12, 100, 50), Box(0, 12, 111, 50)),
    ],
)
def test_sides_close_to_the_edges_of_an_image_are_moved_there(
    size: tuple[int, int], box: Box, expected: Box
) -> None:
    assert _to_close_edges(box, size) == expected


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
    assert _scaled(box, size, full) == expected


@pytest.mark.parametrize(
    ("first", "last", "small"),
    [
        # Of an image of 400x200: the middle of the box from 100, 50 to 300, 150, ...
        (Box(180, 90, 60, 6), Box(180, 90, 60, 6), True),
        (Box(70, 90, 60, 6), Box(70, 90, 60, 6), True),
        (Box(69, 90, 60, 6), Box(69, 90, 60, 6), False),
        (Box(270, 90, 60, 6), Box(270, 90, 60, 6), True),
        (Box(271, 90, 60, 6), Box(271, 90, 60, 6), False),
        (Box(180, 47, 60, 6), Box(180, 47, 60, 6), True),
        (Box(180, 46, 60, 6), Box(180, 46, 60, 6), False),
        (Box(180, 147, 60, 6), Box(180, 147, 60, 6), True),
        (Box(180, 148, 60, 6), Box(180, 148, 60, 6), False),
        # ... at least 0.15 of the width or the height, and 0.03 of the other, ...
        (Box(180, 90, 59, 6), Box(180, 90, 59, 6), False),
        (Box(180, 90, 60, 5), Box(180, 90, 60, 5), False),
        (Box(194, 85, 12, 30), Box(194, 85, 12, 30), True),
        (Box(194, 85, 6, 30), Box(194, 85, 12, 30), True),
        (Box(194, 85, 12, 29), Box(194, 85, 12, 29), False),
        (Box(194, 85, 11, 30), Box(194, 85, 11, 30), False),
        # ... and nothing more than 20 pixels beyond is seen at the last threshold.
        (Box(180, 90, 40, 30), Box(180, 90, 60, 30), True),
        (Box(180, 90, 39, 30), Box(180, 90, 60, 30), False),
        (Box(180, 90, 60, 30), Box(180, 90, 20, 30), True),
    ],
)
def test_a_small_product_is_no_dust_and_lies_in_the_middle(
    first: Box, last: Box, small: bool
) -> None:
    assert _is_small_product(first, last, (400, 200)) is small
    first, last = (Box(box.y, box.x, box.height, box.width) for box in (first, last))
    assert _is_small_product(first, last, (200, 400)) is small


def test_the_colour_of_a_strip_is_the_median_of_every_fourth_pixel() -> None:
    dark, spotted = _plain(40, 40, 20), _plain(40, 40, 20)
    spotted[::4, ::4] = 250
    assert _plain_background(spotted, dark) == (True, False)
    assert _plain_background(dark, spotted) == (False, True)
    spotted[16::4] = 20  # six of ten rows
    assert _plain_background(spotted, dark) == (True, True)  # of one colour by now


@pytest.mark.parametrize(
    ("speck", "cut"),
    [
        (Box(0, 90, 1, 20), False),  # at the very place from which the wall is followed
        (Box(2, 90, 1, 20), True),
        (Box(0, 60, 1, 20), True),
    ],
)
def test_a_wall_is_followed_from_the_middle_of_its_edge(speck: Box, cut: bool) -> None:
    pixels = _with(_plain(300, 200, 190), (Box(60, 0, 240, 200), 40), (Box(60, 0, 40, 60), 190))
    _with(pixels, (speck, 120))
    box = Box(60, 0, 240, 200)
    assert _unless_unsure(box, pixels) == (box if cut else Box(0, 0, 300, 200))
    mirrored = _mirrored(pixels, across=True, down=False)
    box = Box(0, 0, 240, 200)
    assert _unless_unsure(box, mirrored) == (box if cut else Box(0, 0, 300, 200))


@pytest.mark.parametrize(
    ("seed", "runs_on"),
    [
        ((9, 40), True),
        ((10, 20), False),
        ((39, 59), False),
        ((40, 40), True),
        ((20, 19), True),
        ((20, 60), True),
    ],
)
def test_what_is_in_the_box_does_not_run_on_into_it(seed: tuple[int, int], runs_on: bool) -> None:
    assert _runs_on(_plain(60, 80), Box(10, 20, 30, 40), seed) is runs_on


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
def test_a_faint_seam_is_crossed(seam: ArrayLike, crossed: bool) -> None:
    pixels = _with(_plain(60, 80, 100), (Box(20, 0, 1, 80), seam))
    assert _runs_on(pixels, Box(30, 0, 30, 80), (0, 40)) is crossed


@pytest.mark.parametrize(
    ("notch", "runs_on"),
    [
        # The blur takes a pixel off each side of a notch that is within the image. Of the box,
        # 100x100 pixels, 150 are a share of 0.015.
        (Box(20, 0, 16, 11), True),
        (Box(20, 0, 15, 11), False),
        (Box(20, 89, 16, 11), True),
        (Box(20, 89, 15, 11), False),
        (Box(20, 40, 16, 12), True),
        (Box(20, 40, 16, 11), False),
        (Box(0, 0, 0, 0), False),
    ],
)
def test_a_wall_runs_on_from_a_share_of_the_box_on(notch: Box, runs_on: bool) -> None:
    pixels = _with(_plain(120, 100, 200), (Box(20, 0, 100, 100), 0), (notch, 200))
    assert _runs_on(pixels, Box(20, 0, 100, 100), (0, 50)) is runs_on
    mirrored = _mirrored(pixels, across=True, down=False)
    assert _runs_on(mirrored, Box(0, 0, 100, 100), (119, 50)) is runs_on


@pytest.mark.parametrize(
    ("rows", "below", "runs_on"),
    [(4, 0, True), (3, 0, False), (3, 103, True), (3, 102, False)],
)
def test_a_wall_may_run_on_to_the_opposite_edge(rows: int, below: int, runs_on: bool) -> None:
    # The blur takes the last row of a passage along the top, and the first of two columns that
    # lead down from it along the right edge.
    pixels = _with(_plain(120, 200, 200), (Box(20, rows, 100, 200 - rows), 0))
    _with(pixels, (Box(118, 0, 2, below), 200))
    assert _runs_on(pixels, Box(20, 0, 100, 200), (0, 100)) is runs_on


def test_strips_that_may_be_cloth_are_given_back_up_to_the_edge() -> None:
    pixels = _with(_plain(300, 200, 181), (Box(0, 100, 300, 100), 100))
    assert _unless_unsure(Box(0, 70, 300, 60), pixels) == Box(0, 0, 300, 200)
    pixels = _with(_plain(300, 200, 181), (Box(60, 0, 180, 200), 20), (Box(240, 0, 60, 200), 100))
    assert _unless_unsure(Box(60, 0, 180, 200), pixels) == Box(0, 0, 300, 200)


@pytest.mark.parametrize("colour", [(150, 139, 172), (200, 140, 150)])
def test_a_product_of_the_walls_brightness_is_found_by_its_colour(colour: ArrayLike) -> None:
    # More red, or more blue, and so much less green.
    found = _found(_with(_plain(300, 200, 150), (PRODUCT, colour)))
    assert found == Trim(Box(97, 57, 116, 96), 1.2)


@pytest.mark.parametrize(
    ("level", "thickness", "length", "bottom"),
    [
        (250, 2, 12, None),
        (250, 2, 14, 174),
        # The more it stands out, the shorter a line may be.
        (240, 1, 8, None),
        (240, 1, 10, 174),
        (200, 1, 4, None),
        (200, 1, 6, 175),
    ],
)
def test_a_line_apart_from_the_product_is_kept_from_a_length_on(
    level: int, thickness: int, length: int, bottom: int | None
) -> None:
    line = Box(140, 170, length, thickness)
    pixels = _with(_plain(300, 240), (Box(100, 40, 110, 90), 246), (line, level))
    assert _found(pixels).box == Box(97, 37, 116, (bottom or 133) - 37)
