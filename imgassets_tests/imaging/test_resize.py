from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image as PILImage

from imgassets.imaging.decode import decode
from imgassets.imaging.image import Box, Image, Pixels
from imgassets.imaging.resize import resize, shrink, shrink_by_factor
from imgassets.settings import DecodeSettings, ResizeSettings


def _plain(width: int, height: int, value: int = 50) -> Image:
    return Image(np.full((height, width, 3), value, np.uint8), (width, height))


@pytest.mark.parametrize(
    ("size", "resized"),
    [((1000, 1500), (299, 448)), ((1500, 1000), (448, 299)), ((448, 100), (448, 100))],
)
def test_the_longer_side_is_at_most_the_maximum(
    size: tuple[int, int], resized: tuple[int, int]
) -> None:
    image = resize(_plain(*size), ResizeSettings())
    assert (image.width, image.height) == resized
    assert image.box_in_original == Box(0, 0, *size)


def test_a_small_image_is_enlarged_only_if_enabled() -> None:
    small = _plain(20, 30)
    assert resize(small, ResizeSettings()) is small
    large = resize(small, ResizeSettings(enlarge=True))
    assert (large.width, large.height) == (299, 448)


def test_an_image_keeps_its_size_without_a_maximum() -> None:
    assert resize(_plain(3000, 20), ResizeSettings(max_side=None)).width == 3000


def test_fine_stripes_become_their_mean_without_moire() -> None:
    stripes = np.zeros((900, 900, 3), np.uint8)
    stripes[::2] = 200
    resized = resize(Image(stripes, (900, 900)), ResizeSettings(max_side=300))
    assert resized.pixels.std() < 40  # nearest neighbour gives 100
    quarter = resize(Image(stripes, (900, 900)), ResizeSettings(max_side=450))
    assert (quarter.pixels == 100).all()


@pytest.mark.parametrize("scale", [0.3, 0.505, 0.52, 0.6, 0.67, 0.75, 0.82, 0.86, 0.88, 0.95])
@pytest.mark.parametrize("name", ["portrait_a", "astronaut"])
def test_a_photograph_is_shrunk_nearly_as_by_an_ideal_filter(
    photos: dict[str, bytes], name: str, scale: float
) -> None:
    pixels = decode(photos[name], DecodeSettings()).pixels
    size = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
    area = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    resized = shrink(pixels, size)
    ideal = np.asarray(PILImage.fromarray(pixels).resize(size, PILImage.Resampling.LANCZOS))
    assert _difference(resized, ideal) <= 1.1 * _difference(area, ideal)
    assert _sharpness(resized) > 0.94 * _sharpness(area)


@pytest.mark.parametrize("scale", [0.52, 0.6, 0.67, 0.75, 0.8, 0.86])
def test_edges_get_no_more_overshoot_than_by_an_ideal_filter(scale: float) -> None:
    bands = np.where(np.arange(300) // 37 % 2, 200, 60).astype(np.uint8)
    edges = np.dstack([np.minimum.outer(bands, bands)] * 3)
    size = round(300 * scale), round(300 * scale)
    resized = shrink(edges, size)
    ideal = np.asarray(PILImage.fromarray(edges).resize(size, PILImage.Resampling.LANCZOS))
    assert resized.max() <= ideal.max()
    assert resized.min() >= ideal.min()


@pytest.mark.parametrize("scale", [0.52, 0.6, 0.67, 0.72, 0.75, 0.8, 0.86])
def test_fine_cloth_gets_no_more_moire_than_by_the_area_filter(scale: float) -> None:
    weave = np.zeros((900, 900, 3), np.uint8)
    weave[::2], weave[:, ::2] = 200, 150
    size = round(900 * scale), round(900 * scale)
    area = cv2.resize(weave, size, interpolation=cv2.INTER_AREA)
    assert shrink(weave, size).std() <= area.std() + 0.5


def _difference(resized: Pixels, ideal: Pixels) -> float:
    """Root mean square difference in levels."""
    return float(np.sqrt(np.square(resized.astype(float) - ideal).mean()))


def _sharpness(pixels: Pixels) -> float:
    return float(cv2.Laplacian(pixels, cv2.CV_32F).std())


def test_an_exact_size_is_padded_evenly_in_the_colour_of_the_settings() -> None:
    settings = ResizeSettings(size=(100, 200), padding=(1, 2, 3))
    resized = resize(_plain(400, 400), settings)
    assert resized.pixels.shape == (200, 100, 3)
    assert resized.pixels[0, 0].tolist() == [3, 2, 1]
    assert (resized.pixels[50:150] == 50).all()
    assert resized.box_in_original == Box(0, 0, 400, 400)


def test_an_exact_size_enlarges_only_if_enabled() -> None:
    resized = resize(_plain(10, 20), ResizeSettings(size=(100, 100)))
    assert int((resized.pixels == 50).all(axis=2).sum()) == 200
    large = resize(_plain(10, 20), ResizeSettings(size=(100, 100), enlarge=True))
    assert int((large.pixels == 50).all(axis=2).sum()) == 5000


def test_a_very_narrow_image_keeps_at_least_one_pixel() -> None:
    resized = resize(_plain(2, 5000), ResizeSettings())
    assert (resized.width, resized.height) == (1, 448)


def test_a_padded_image_maps_its_pixels_to_the_served_image() -> None:
    # An odd pixel of padding goes to the bottom and to the right.
    image = _plain(60, 82)
    resized = resize(image, ResizeSettings(size=(31, 199), padding=(0, 0, 0)))
    inner = np.flatnonzero((resized.pixels > 0).any(axis=(1, 2)))
    assert (inner[0], inner[-1]) == (78, 119)
    assert resized.to_original(Box(0, 78, 31, 42)) == Box(0, 0, 60, 82)
    resized = resize(image, ResizeSettings(size=(199, 41), padding=(0, 0, 0)))
    inner = np.flatnonzero((resized.pixels > 0).any(axis=(0, 2)))
    assert (inner[0], inner[-1]) == (84, 113)
    assert resized.to_original(Box(84, 0, 30, 41)) == Box(0, 0, 60, 82)


def test_an_enlarged_image_is_smooth_and_keeps_its_edges() -> None:
    bands = np.repeat(np.array([60, 60, 60, 200, 200, 200], np.uint8), 4)
    pixels = np.dstack([np.tile(bands, (24, 1))] * 3)
    settings = ResizeSettings(max_side=96, enlarge=True)
    resized = resize(Image(pixels, (24, 24)), settings).pixels[48, :, 0].astype(int)
    steps = np.abs(np.diff(resized))
    assert steps.max() < 60  # nearest neighbour gives a step of 140
    assert resized.min() < 60  # linear interpolation exceeds neither level
    assert resized.max() > 200


def test_each_axis_is_filtered_according_to_its_own_scale() -> None:
    # A scale of 0.99 across and 0.6 down.
    stripes = np.zeros((300, 300, 3), np.uint8)
    stripes[:, ::2] = 200
    across = shrink(stripes, (297, 180))
    assert across.std() > 30
    assert shrink(np.ascontiguousarray(stripes.transpose(1, 0, 2)), (297, 180)).std() < 30


def test_the_borders_of_a_shrunk_image_keep_their_colour() -> None:
    for scale in (0.3, 0.6, 0.8, 0.95):
        size = round(200 * scale), round(200 * scale)
        assert (shrink(_plain(200, 200, 180).pixels, size) == 180).all()


@pytest.mark.parametrize("size", [(100, 190), (190, 100)])
def test_the_area_filter_is_used_if_one_side_shrinks_to_half(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    area = cv2.resize(noise, size, interpolation=cv2.INTER_AREA)
    assert (shrink(noise, size) == area).all()


@pytest.mark.parametrize(
    ("size", "factor", "shrunk"),
    [
        ((7, 5), 2, (3, 2)),
        ((7, 5), 1, (7, 5)),
        ((6, 2), 2, (3, 1)),
        ((2, 6), 2, (1, 3)),
        ((5, 1), 2, (5, 1)),  # no whole pixel would be left
        ((1, 5), 2, (1, 5)),
    ],
)
def test_an_integer_factor_gives_the_mean_of_whole_blocks(
    size: tuple[int, int], factor: int, shrunk: tuple[int, int]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    pixels = shrink_by_factor(image, factor)
    assert pixels.shape == (shrunk[1], shrunk[0], 3)
    if shrunk == size:
        assert pixels is image
    else:
        means = image[:factor, :factor].mean(axis=(0, 1))
        np.testing.assert_allclose(pixels[0, 0], means, atol=0.5)
