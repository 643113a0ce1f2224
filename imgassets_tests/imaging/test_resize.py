from __future__ import annotations

import numpy as np
import pytest

from imgassets.imaging.picture import Box, Picture
from imgassets.imaging.resize import resize
from imgassets.settings import ResizeSettings


def _picture(width: int, height: int, value: int = 50) -> Picture:
    return Picture(np.full((height, width, 3), value, np.uint8), (width, height))


@pytest.mark.parametrize(
    ("size", "made"),
    [((1000, 1500), (299, 448)), ((1500, 1000), (448, 299)), ((448, 100), (448, 100))],
)
def test_the_longer_side_is_at_most_the_maximum(
    size: tuple[int, int], made: tuple[int, int]
) -> None:
    picture = resize(_picture(*size), ResizeSettings())
    assert (picture.width, picture.height) == made
    assert picture.served_box == Box(0, 0, *size)


def test_a_small_picture_is_enlarged_only_if_asked() -> None:
    small = _picture(20, 30)
    assert resize(small, ResizeSettings()) is small
    large = resize(small, ResizeSettings(enlarge=True))
    assert (large.width, large.height) == (299, 448)


def test_no_maximum_leaves_the_size() -> None:
    assert resize(_picture(3000, 20), ResizeSettings(max_side=None)).width == 3000


def test_fine_stripes_become_their_mean_and_no_pattern() -> None:
    stripes = np.zeros((900, 900, 3), np.uint8)
    stripes[::2] = 200
    made = resize(Picture(stripes, (900, 900)), ResizeSettings(max_side=300))
    assert made.pixels.std() < 40  # nearest neighbour gives 100
    quarter = resize(Picture(stripes, (900, 900)), ResizeSettings(max_side=450))
    assert (quarter.pixels == 100).all()


def test_an_exact_size_is_padded_evenly_in_the_colour() -> None:
    settings = ResizeSettings(size=(100, 200), padding=(1, 2, 3))
    made = resize(_picture(400, 400), settings)
    assert made.pixels.shape == (200, 100, 3)
    assert made.pixels[0, 0].tolist() == [3, 2, 1]
    assert (made.pixels[50:150] == 50).all()
    assert made.served_box == Box(0, 0, 400, 400)


def test_an_exact_size_does_not_enlarge_unless_asked() -> None:
    made = resize(_picture(10, 20), ResizeSettings(size=(100, 100)))
    assert int((made.pixels == 50).all(axis=2).sum()) == 200
    large = resize(_picture(10, 20), ResizeSettings(size=(100, 100), enlarge=True))
    assert int((large.pixels == 50).all(axis=2).sum()) == 5000


def test_a_very_narrow_picture_keeps_a_pixel() -> None:
    made = resize(_picture(2, 5000), ResizeSettings())
    assert (made.width, made.height) == (1, 448)
