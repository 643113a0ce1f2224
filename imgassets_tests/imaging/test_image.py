from __future__ import annotations

import numpy as np
import pytest

from imgassets.imaging.image import Box, Image, Pixels


def _plane(width: int, height: int) -> Pixels:
    """An array in which each pixel contains its own row and column."""
    rows, columns = np.mgrid[:height, :width]
    return np.dstack([rows, columns, np.zeros_like(rows)]).astype(np.uint8)


def _at(left: float, top: float, scale_x: float, scale_y: float) -> Image:
    """An image of 40x30 px that is part of an original image of 1000x600 px."""
    return Image(_plane(40, 30), (1000, 600), left, top, scale_x, scale_y)


def test_the_area_of_a_box_is_its_width_times_its_height() -> None:
    assert Box(2, 3, 5, 7).area == 35


def test_a_box_from_its_edges_has_these_edges() -> None:
    box = Box.from_edges(2, 3, 7, 10)
    assert box == Box(2, 3, 5, 7)
    assert (box.right, box.bottom) == (7, 10)


def test_a_box_as_a_list_is_left_top_width_height() -> None:
    assert Box(2, 3, 5, 7).as_list() == [2, 3, 5, 7]


def test_width_and_height_are_those_of_the_pixels() -> None:
    image = _at(0, 0, 2, 2)
    assert (image.width, image.height) == (40, 30)


def test_an_unprocessed_image_shows_the_whole_original() -> None:
    image = Image(_plane(40, 30), (40, 30))
    assert image.box_in_original == Box(0, 0, 40, 30)
    assert image.to_original(Box(3, 4, 5, 6)) == Box(3, 4, 5, 6)


def test_a_crop_is_a_view_of_the_pixels_in_the_box() -> None:
    image = _at(0, 0, 1, 1)
    part = image.crop(Box(3, 5, 20, 10))
    assert part.pixels.shape == (10, 20, 3)
    assert part.pixels[0, 0].tolist() == [5, 3, 0]
    assert part.pixels[-1, -1].tolist() == [14, 22, 0]
    assert np.shares_memory(part.pixels, image.pixels)


def test_a_crop_knows_its_position_in_the_original_image() -> None:
    part = _at(100, 50, 2, 4).crop(Box(3, 5, 20, 10))
    assert (part.left, part.top) == (106, 70)
    assert (part.scale_x, part.scale_y, part.full_size) == (2, 4, (1000, 600))
    assert part.box_in_original == Box(106, 70, 40, 40)


def test_a_crop_of_a_crop_adds_both_corners() -> None:
    part = _at(100, 50, 2, 4).crop(Box(3, 5, 20, 10)).crop(Box(1, 2, 4, 5))
    assert part.box_in_original == Box(108, 78, 8, 20)


def test_a_scaled_image_shows_the_same_part_of_the_original() -> None:
    image = _at(100, 50, 2, 4)
    smaller = image.scaled(_plane(10, 15))
    assert smaller.pixels.shape == (15, 10, 3)
    assert (smaller.left, smaller.top, smaller.full_size) == (100, 50, (1000, 600))
    assert (smaller.scale_x, smaller.scale_y) == (8, 8)
    assert smaller.box_in_original == image.box_in_original == Box(100, 50, 80, 120)


def test_a_padded_image_keeps_its_position_and_scale() -> None:
    image = _at(100, 50, 2, 4)
    padded = image.padded(_plane(60, 50), 7, 11)
    assert padded.pixels.shape == (50, 60, 3)
    assert (padded.left, padded.top) == (100 - 14, 50 - 44)
    assert (padded.scale_x, padded.scale_y, padded.full_size) == (2, 4, (1000, 600))
    # The former upper left corner is now at 7, 11.
    assert padded.to_original(Box(7, 11, 40, 30)) == image.to_original(Box(0, 0, 40, 30))


def test_a_box_is_converted_to_pixels_of_the_original_image() -> None:
    assert _at(100, 50, 2, 4).to_original(Box(3, 5, 7, 11)) == Box(106, 70, 14, 44)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        # Edges at 10.3 + 1.5 x and 20.6 + 1.25 y; each is rounded separately, to the nearest.
        (Box(0, 0, 1, 1), Box(10, 21, 2, 1)),  # 10.3 to 11.8, 20.6 to 21.85
        (Box(1, 1, 1, 1), Box(12, 22, 1, 1)),  # 11.8 to 13.3, 21.85 to 23.1
        (Box(2, 3, 5, 7), Box(13, 24, 8, 9)),  # 13.3 to 20.8, 24.35 to 33.1
        (Box(0, 0, 4, 3), Box(10, 21, 6, 3)),  # 10.3 to 16.3, 20.6 to 24.35
    ],
)
def test_the_edges_of_a_box_are_rounded_to_the_nearest_pixel(box: Box, expected: Box) -> None:
    assert _at(10.3, 20.6, 1.5, 1.25).to_original(box) == expected


def test_padding_is_outside_the_original_image() -> None:
    whole = Image(_plane(40, 30), (40, 30))
    assert whole.padded(_plane(60, 50), 8, 15).box_in_original == Box(0, 0, 40, 30)
    # A box in the padding is outside the original image.
    assert whole.padded(_plane(60, 50), 8, 15).to_original(Box(0, 0, 60, 50)) == Box(
        -8, -15, 60, 50
    )


@pytest.mark.parametrize(
    ("left", "top", "expected"),
    [
        (-30, 100, Box(0, 100, 50, 120)),
        (100, -30, Box(100, 0, 80, 90)),
        (950, 100, Box(950, 100, 50, 120)),
        (100, 550, Box(100, 550, 80, 50)),
        (-200, 100, Box(0, 100, 0, 120)),
        (1100, 700, Box(1000, 600, 0, 0)),
    ],
)
def test_the_box_in_the_original_is_clipped_to_its_edges(
    left: float, top: float, expected: Box
) -> None:
    # 40x30 px, each of them 2 px wide and 4 px high in the original.
    assert _at(left, top, 2, 4).box_in_original == expected
