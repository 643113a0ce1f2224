from __future__ import annotations

import numpy as np
import pytest

from imgassets.imaging.image import Box, Image, Pixels


def _plane(width: int, height: int) -> Pixels:
    """Pixels that each hold their own row and column."""
    rows, columns = np.mgrid[:height, :width]
    return np.dstack([rows, columns, np.zeros_like(rows)]).astype(np.uint8)


def _at(left: float, top: float, scale_x: float, scale_y: float) -> Image:
    """An image of 40x30 pixels, somewhere in a served image of 1000x600."""
    return Image(_plane(40, 30), (1000, 600), left, top, scale_x, scale_y)


def test_the_area_of_a_box_is_its_width_times_its_height() -> None:
    assert Box(2, 3, 5, 7).area == 35


def test_a_box_is_stored_as_left_top_width_height() -> None:
    assert Box(2, 3, 5, 7).as_list() == [2, 3, 5, 7]


def test_width_and_height_are_those_of_the_pixels() -> None:
    picture = _at(0, 0, 2, 2)
    assert (picture.width, picture.height) == (40, 30)


def test_an_image_as_it_was_served_shows_all_of_it() -> None:
    picture = Image(_plane(40, 30), (40, 30))
    assert picture.served_box == Box(0, 0, 40, 30)
    assert picture.served(Box(3, 4, 5, 6)) == Box(3, 4, 5, 6)


def test_a_cut_keeps_the_pixels_of_the_box_without_a_copy() -> None:
    picture = _at(0, 0, 1, 1)
    part = picture.cut(Box(3, 5, 20, 10))
    assert part.pixels.shape == (10, 20, 3)
    assert part.pixels[0, 0].tolist() == [5, 3, 0]
    assert part.pixels[-1, -1].tolist() == [14, 22, 0]
    assert np.shares_memory(part.pixels, picture.pixels)


def test_a_cut_lies_at_the_place_of_its_corner_in_the_served_image() -> None:
    part = _at(100, 50, 2, 4).cut(Box(3, 5, 20, 10))
    assert (part.left, part.top) == (106, 70)
    assert (part.scale_x, part.scale_y, part.full) == (2, 4, (1000, 600))
    assert part.served_box == Box(106, 70, 40, 40)


def test_a_cut_of_a_cut_adds_both_corners() -> None:
    part = _at(100, 50, 2, 4).cut(Box(3, 5, 20, 10)).cut(Box(1, 2, 4, 5))
    assert part.served_box == Box(108, 78, 8, 20)


def test_an_image_in_another_size_shows_the_same_part() -> None:
    picture = _at(100, 50, 2, 4)
    smaller = picture.scaled(_plane(10, 15))
    assert smaller.pixels.shape == (15, 10, 3)
    assert (smaller.left, smaller.top, smaller.full) == (100, 50, (1000, 600))
    assert (smaller.scale_x, smaller.scale_y) == (8, 8)
    assert smaller.served_box == picture.served_box == Box(100, 50, 80, 120)


def test_a_padded_image_keeps_its_place_and_scale() -> None:
    picture = _at(100, 50, 2, 4)
    padded = picture.padded(_plane(60, 50), 7, 11)
    assert padded.pixels.shape == (50, 60, 3)
    assert (padded.left, padded.top) == (100 - 14, 50 - 44)
    assert (padded.scale_x, padded.scale_y, padded.full) == (2, 4, (1000, 600))
    # What was at the corner before is at 7, 11 now.
    assert padded.served(Box(7, 11, 40, 30)) == picture.served(Box(0, 0, 40, 30))


def test_a_box_is_found_again_in_the_served_image() -> None:
    assert _at(100, 50, 2, 4).served(Box(3, 5, 7, 11)) == Box(106, 70, 14, 44)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        # Edges at 10.3 + 1.5 x and 20.6 + 1.25 y; each is rounded by itself, to the nearest.
        (Box(0, 0, 1, 1), Box(10, 21, 2, 1)),  # 10.3 to 11.8, 20.6 to 21.85
        (Box(1, 1, 1, 1), Box(12, 22, 1, 1)),  # 11.8 to 13.3, 21.85 to 23.1
        (Box(2, 3, 5, 7), Box(13, 24, 8, 9)),  # 13.3 to 20.8, 24.35 to 33.1
        (Box(0, 0, 4, 3), Box(10, 21, 6, 3)),  # 10.3 to 16.3, 20.6 to 24.35
    ],
)
def test_the_edges_of_a_served_box_are_rounded_to_the_nearest_pixel(
    box: Box, expected: Box
) -> None:
    assert _at(10.3, 20.6, 1.5, 1.25).served(box) == expected


def test_padding_lies_outside_the_served_image() -> None:
    whole = Image(_plane(40, 30), (40, 30))
    assert whole.padded(_plane(60, 50), 8, 15).served_box == Box(0, 0, 40, 30)
    # The served box of a place within the padding may lie outside of the image.
    assert whole.padded(_plane(60, 50), 8, 15).served(Box(0, 0, 60, 50)) == Box(-8, -15, 60, 50)


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
def test_what_is_shown_of_the_served_image_ends_at_its_edges(
    left: float, top: float, expected: Box
) -> None:
    # 40x30 pixels, each of which stands for two across and four down.
    assert _at(left, top, 2, 4).served_box == expected
