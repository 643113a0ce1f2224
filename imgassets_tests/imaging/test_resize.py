from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image as PILImage

from imgassets.imaging.decode import decode
from imgassets.imaging.image import Box, Image, Pixels
from imgassets.imaging.resize import resize, shrunk
from imgassets.settings import DecodeSettings, ResizeSettings


def _picture(width: int, height: int, value: int = 50) -> Image:
    return Image(np.full((height, width, 3), value, np.uint8), (width, height))


@pytest.mark.parametrize(
    ("size", "made"),
    [((1000, 1500), (299, 448)), ((1500, 1000), (448, 299)), ((448, 100), (448, 100))],
)
def test_the_longer_side_is_at_most_the_maximum(
    size: tuple[int, int], made: tuple[int, int]
) -> None:
    picture = resize(_picture(*size), ResizeSettings())
    assert (picture.width, picture.height) == made
    assert picture.box_in_original == Box(0, 0, *size)


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
    made = resize(Image(stripes, (900, 900)), ResizeSettings(max_side=300))
    assert made.pixels.std() < 40  # nearest neighbour gives 100
    quarter = resize(Image(stripes, (900, 900)), ResizeSettings(max_side=450))
    assert (quarter.pixels == 100).all()


@pytest.mark.parametrize("share", [0.3, 0.505, 0.52, 0.6, 0.67, 0.75, 0.82, 0.86, 0.88, 0.95])
@pytest.mark.parametrize("name", ["portrait_a", "astronaut"])
def test_a_photograph_shrinks_as_by_an_ideal_filter(
    photos: dict[str, bytes], name: str, share: float
) -> None:
    pixels = decode(photos[name], DecodeSettings()).pixels
    size = round(pixels.shape[1] * share), round(pixels.shape[0] * share)
    area = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    made = shrunk(pixels, size)
    ideal = np.asarray(PILImage.fromarray(pixels).resize(size, PILImage.Resampling.LANCZOS))
    assert _difference(made, ideal) <= 1.1 * _difference(area, ideal)
    assert _sharpness(made) > 0.94 * _sharpness(area)


@pytest.mark.parametrize("share", [0.52, 0.6, 0.67, 0.75, 0.8, 0.86])
def test_edges_get_no_more_of_a_halo_than_by_an_ideal_filter(share: float) -> None:
    bands = np.where(np.arange(300) // 37 % 2, 200, 60).astype(np.uint8)
    edges = np.dstack([np.minimum.outer(bands, bands)] * 3)
    size = round(300 * share), round(300 * share)
    made = shrunk(edges, size)
    ideal = np.asarray(PILImage.fromarray(edges).resize(size, PILImage.Resampling.LANCZOS))
    assert made.max() <= ideal.max()
    assert made.min() >= ideal.min()


@pytest.mark.parametrize("share", [0.52, 0.6, 0.67, 0.72, 0.75, 0.8, 0.86])
def test_the_finest_cloth_gives_no_more_moire_than_by_the_area_filter(share: float) -> None:
    weave = np.zeros((900, 900, 3), np.uint8)
    weave[::2], weave[:, ::2] = 200, 150
    size = round(900 * share), round(900 * share)
    area = cv2.resize(weave, size, interpolation=cv2.INTER_AREA)
    assert shrunk(weave, size).std() <= area.std() + 0.5


def _difference(made: Pixels, ideal: Pixels) -> float:
    """Root of the mean squared difference, levels."""
    return float(np.sqrt(np.square(made.astype(float) - ideal).mean()))


def _sharpness(pixels: Pixels) -> float:
    return float(cv2.Laplacian(pixels, cv2.CV_32F).std())


def test_an_exact_size_is_padded_evenly_in_the_colour() -> None:
    settings = ResizeSettings(size=(100, 200), padding=(1, 2, 3))
    made = resize(_picture(400, 400), settings)
    assert made.pixels.shape == (200, 100, 3)
    assert made.pixels[0, 0].tolist() == [3, 2, 1]
    assert (made.pixels[50:150] == 50).all()
    assert made.box_in_original == Box(0, 0, 400, 400)


def test_an_exact_size_does_not_enlarge_unless_asked() -> None:
    made = resize(_picture(10, 20), ResizeSettings(size=(100, 100)))
    assert int((made.pixels == 50).all(axis=2).sum()) == 200
    large = resize(_picture(10, 20), ResizeSettings(size=(100, 100), enlarge=True))
    assert int((large.pixels == 50).all(axis=2).sum()) == 5000


def test_a_very_narrow_picture_keeps_a_pixel() -> None:
    made = resize(_picture(2, 5000), ResizeSettings())
    assert (made.width, made.height) == (1, 448)


def test_a_padded_image_keeps_the_place_of_its_pixels() -> None:
    # An odd pixel of padding is at the foot, and at the right.
    picture = _picture(60, 82)
    made = resize(picture, ResizeSettings(size=(31, 199), padding=(0, 0, 0)))
    inner = np.flatnonzero((made.pixels > 0).any(axis=(1, 2)))
    assert (inner[0], inner[-1]) == (78, 119)
    assert made.to_original(Box(0, 78, 31, 42)) == Box(0, 0, 60, 82)
    made = resize(picture, ResizeSettings(size=(199, 41), padding=(0, 0, 0)))
    inner = np.flatnonzero((made.pixels > 0).any(axis=(0, 2)))
    assert (inner[0], inner[-1]) == (84, 113)
    assert made.to_original(Box(84, 0, 30, 41)) == Box(0, 0, 60, 82)


def test_an_enlarged_image_is_smooth_and_keeps_its_edges() -> None:
    bands = np.repeat(np.array([60, 60, 60, 200, 200, 200], np.uint8), 4)
    pixels = np.dstack([np.tile(bands, (24, 1))] * 3)
    settings = ResizeSettings(max_side=96, enlarge=True)
    made = resize(Image(pixels, (24, 24)), settings).pixels[48, :, 0].astype(int)
    steps = np.abs(np.diff(made))
    assert steps.max() < 60  # the nearest pixel gives a step of 140
    assert made.min() < 60  # straight lines between pixels exceed neither level
    assert made.max() > 200


def test_sides_that_shrink_by_different_shares_are_softened_by_their_own() -> None:
    # Across hardly anything is lost, down two of five rows.
    stripes = np.zeros((300, 300, 3), np.uint8)
    stripes[:, ::2] = 200
    across = shrunk(stripes, (297, 180))
    assert across.std() > 30
    assert shrunk(np.ascontiguousarray(stripes.transpose(1, 0, 2)), (297, 180)).std() < 30


def test_the_edges_of_a_shrunk_image_keep_their_colour() -> None:
    for share in (0.3, 0.6, 0.8, 0.95):
        size = round(200 * share), round(200 * share)
        assert (shrunk(_picture(200, 200, 180).pixels, size) == 180).all()


@pytest.mark.parametrize("size", [(100, 190), (190, 100)])
def test_the_area_filter_is_used_where_one_side_shrinks_to_half(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    area = cv2.resize(noise, size, interpolation=cv2.INTER_AREA)
    assert (shrunk(noise, size) == area).all()
