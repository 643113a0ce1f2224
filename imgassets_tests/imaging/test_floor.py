from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import ArrayLike

from imgassets.imaging.image import Box, Pixels
from imgassets.imaging.trim import find_trim
from imgassets.settings import TrimSettings

SETTINGS = TrimSettings(method="background")
WHOLE = Box(0, 0, 300, 420)
SKIRT = (60, 50, 140)


def _plain(colour: ArrayLike) -> Pixels:
    pixels = np.empty((420, 300, 3), np.uint8)
    pixels[:] = colour
    return pixels


def _with(pixels: Pixels, *patches: tuple[Box, ArrayLike]) -> Pixels:
    for box, colour in patches:
        pixels[box.y : box.bottom, box.x : box.right] = colour
    return pixels


def _person(pixels: Pixels) -> Pixels:
    """Draw a torso, legs and shoes: from column 100 to 200, down to row 390."""
    return _with(
        pixels,
        (Box(110, 0, 80, 200), (120, 60, 40)),
        (Box(116, 200, 26, 180), (60, 50, 40)),
        (Box(158, 200, 26, 180), (60, 50, 40)),
        (Box(100, 366, 42, 24), (30, 30, 200)),
        (Box(158, 366, 42, 24), (30, 30, 200)),
    )


def _room(floor: ArrayLike = (150, 160, 170), seam: int = 300) -> Pixels:
    return _with(_plain(220), (Box(0, seam, 300, 420 - seam), floor))


def _box(pixels: Pixels) -> Box:
    return find_trim(pixels, SETTINGS).box


def _assert_person(box: Box, bottom: int = 396) -> None:
    """Assert that a box contains the person with a margin of few pixels, or down to a row."""
    assert 88 <= box.x <= 100
    assert 200 <= box.right <= 212
    assert 390 <= box.bottom <= bottom


@pytest.mark.parametrize("floor", [(150, 160, 170), (212, 212, 212), 235, 90])
def test_the_floor_beside_a_person_is_cut_off(floor: ArrayLike) -> None:
    _assert_person(_box(_person(_room(floor))))


def test_planks_and_a_skirting_board_are_cut_off() -> None:
    room = _room()
    for row in (320, 350, 400):
        _with(room, (Box(0, row, 300, 2), 100))
    # Within the person's columns the plank below the shoes stays.
    _assert_person(_box(_person(room)), bottom=406)


def test_a_sloping_seam_is_cut_off() -> None:
    room = _plain(220)
    cv2.fillPoly(room, [np.array([[0, 296], [300, 308], [300, 420], [0, 420]])], (150, 160, 170))
    _assert_person(_box(_person(room)))


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_floor_that_is_visible_on_one_side_only_is_cut_off(mirrored: bool) -> None:
    room = _room(floor=(190, 195, 200))
    # To the left the floor begins softly.
    soft = 220 - np.linspace(0, 1, 120)[:, None, None] * np.array([40, 35, 30])
    room[300:, :115] = np.rint(soft).astype(np.uint8)
    pixels = _person(room)
    # The soft and the other half meet below the person.
    box = _box(np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels)
    _assert_person(box, bottom=420)


def test_a_shoe_that_points_sideways_is_kept() -> None:
    # It is too flat for an upright outline; its colour tells it from the floor.
    assert _box(_with(_person(_room()), (Box(190, 372, 60, 14), (30, 30, 200)))).right >= 250


@pytest.mark.parametrize(
    "train",
    [
        [[190, 340], [290, 390], [190, 390]],
        [[190, 310], [300, 330], [300, 390], [190, 390]],
        [[110, 310], [0, 330], [0, 390], [110, 390]],
    ],
)
def test_a_train_on_the_floor_is_kept(train: list[list[int]]) -> None:
    pixels = _person(_room())
    cv2.fillPoly(pixels, [np.array(train)], (120, 60, 40))
    assert _box(pixels) == WHOLE


@pytest.mark.parametrize("reach", [0, 10])
@pytest.mark.parametrize("cloth", [(120, 60, 40), (190, 180, 190)])
def test_a_gown_that_covers_the_floor_is_kept(cloth: tuple[int, int, int], reach: int) -> None:
    pixels = _with(_room(), (Box(115, 0, 70, 200), cloth))
    corners = [[115, 200], [185, 200], [300 - reach, 380], [300 - reach, 420]]
    corners += [[reach, 420], [reach, 380]]
    cv2.fillPoly(pixels, [np.array(corners)], cloth)
    assert _box(pixels) == WHOLE


@pytest.mark.parametrize(
    "details",
    [
        [],
        [(Box(144, 220, 12, 200), (20, 20, 20))],  # a placket
        [(Box(112, 220, 4, 200), (40, 30, 110)), (Box(184, 220, 4, 200), (40, 30, 110))],  # folds
    ],
)
@pytest.mark.parametrize("top", [SKIRT, (200, 90, 40)])
def test_a_skirt_that_fills_the_width_is_no_floor(
    top: ArrayLike, details: list[tuple[Box, ArrayLike]]
) -> None:
    pixels = _with(_plain(220), (Box(110, 0, 80, 220), top), (Box(0, 220, 300, 200), SKIRT))
    assert _box(_with(pixels, *details)) == WHOLE


@pytest.mark.parametrize(
    "patches",
    [
        # A belt, a watch with its strap, a bag with a thin strap, a bag on a table.
        [(Box(0, 200, 300, 40), (40, 60, 90)), (Box(120, 180, 60, 80), (160, 160, 170))],
        [(Box(0, 200, 300, 40), (40, 60, 90)), (Box(100, 110, 100, 220), (160, 160, 170))],
        [(Box(0, 220, 300, 3), (40, 40, 160)), (Box(100, 100, 100, 250), (40, 40, 160))],
        [(Box(0, 280, 300, 140), (90, 120, 160)), (Box(100, 120, 100, 160), (40, 40, 160))],
    ],
)
def test_a_belt_a_strap_and_a_table_across_the_width_are_kept(
    patches: list[tuple[Box, ArrayLike]],
) -> None:
    box = _box(_with(_plain(240), *patches))
    assert (box.x, box.width) == (0, 300)


def test_a_level_line_without_a_floor_is_kept() -> None:
    pixels = _with(_plain(220), (Box(0, 300, 300, 2), 120))
    assert _box(_person(pixels)) == WHOLE


def test_a_person_who_reaches_a_border_above_the_floor_keeps_it() -> None:
    pixels = _with(_person(_room()), (Box(0, 60, 110, 40), (120, 60, 40)))
    assert _box(pixels) == WHOLE
