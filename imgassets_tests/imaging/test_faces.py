from __future__ import annotations

import hashlib
import math
import re
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from imgassets.errors import ModelError
from imgassets.imaging.decode import decode
from imgassets.imaging.faces import Face, FaceDetector, foreground_roi, load_detector
from imgassets.imaging.image import Box, Pixels
from imgassets.imaging.models import ensure_model
from imgassets.settings import DecodeSettings, FaceSettings


def _canvas(photo: Pixels, x: int, y: int, scale: float) -> Pixels:
    canvas = np.full((1500, 1000, 3), 255, np.uint8)
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas[y : y + small.shape[0], x : x + small.shape[1]] = small
    return canvas


def _pixels(photos: dict[str, bytes], name: str) -> Pixels:
    return decode(photos[name], DecodeSettings()).pixels


@pytest.mark.parametrize("name", ["portrait_a", "portrait_b", "portrait_c", "astronaut"])
def test_a_face_is_found_once_with_its_landmarks_in_the_box(
    photos: dict[str, bytes], detector: FaceDetector, name: str
) -> None:
    (face,) = detector.find(_pixels(photos, name))
    assert face.score > 0.9
    xs, ys = face.landmarks[::2], face.landmarks[1::2]
    assert all(face.x < x < face.x + face.width for x in xs)
    assert all(face.y < y < face.y + face.height for y in ys)
    assert ys[0] < ys[2] < ys[3]  # an eye, the nose, the mouth


def test_a_face_on_an_empty_background_is_found_in_its_position(
    photos: dict[str, bytes], detector: FaceDetector
) -> None:
    photo = _pixels(photos, "portrait_c")
    (alone,) = detector.find(photo)
    (face,) = detector.find(_canvas(photo, 600, 900, 0.4))
    for found, wanted in (
        (face.x, 600 + 0.4 * alone.x),
        (face.y, 900 + 0.4 * alone.y),
        (face.width, 0.4 * alone.width),
        (face.height, 0.4 * alone.height),
        (face.landmarks[4], 600 + 0.4 * alone.landmarks[4]),
    ):
        assert abs(found - wanted) < 12


def _cloth(seed: int) -> Pixels:
    """An image of 1000x1500 px full of a coarse pattern that does not resemble a face."""
    coarse = np.random.default_rng(seed).integers(90, 200, (50, 34, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (1000, 1500), interpolation=cv2.INTER_CUBIC), np.uint8)


def _with_face(photo: Pixels, canvas: Pixels, x: int, y: int, height: int) -> None:
    """Paste portrait_c, with a face 249 px high, into a canvas, scaled to this face height."""
    scale = height / 249
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    part = canvas[y : y + small.shape[0], x : x + small.shape[1]]
    part[:] = small[: part.shape[0], : part.shape[1]]


@pytest.mark.parametrize(("x", "y"), [(0, 0), (431, 707), (897, 211)])
def test_a_small_face_that_the_first_pass_alone_would_miss_is_found(
    photos: dict[str, bytes], model: Path, detector: FaceDetector, x: int, y: int
) -> None:
    canvas = _cloth(7)
    _with_face(_pixels(photos, "portrait_c")[:, 250:480], canvas, x, y, 60)
    first = FaceSettings().first_side
    assert first is not None
    alone = load_detector(model, FaceSettings(first_side=None, detect_side=first))
    assert alone.find(canvas) == []
    (face,) = detector.find(canvas)
    (same,) = load_detector(model, FaceSettings(first_side=None)).find(canvas)
    assert 40 < face.height < 75
    assert abs(face.x - same.x) < 6
    assert abs(face.y + face.height - same.y - same.height) < 6


@pytest.mark.parametrize(("x", "y"), [(100, 100), (700, 500), (1290, 700)])
def test_a_small_face_in_a_wide_image_is_found(
    photos: dict[str, bytes], detector: FaceDetector, x: int, y: int
) -> None:
    canvas = np.ascontiguousarray(np.rot90(_cloth(7)))
    _with_face(_pixels(photos, "portrait_c")[:, 250:480], canvas, x, y, 45)  # 4.5 % of its height
    (face,) = detector.find(canvas)
    assert 30 < face.height < 60
    assert x < face.x < x + 45


def test_a_small_face_next_to_a_large_one_is_found(
    photos: dict[str, bytes], detector: FaceDetector
) -> None:
    canvas = _cloth(8)
    photo = _pixels(photos, "portrait_c")
    _with_face(photo, canvas, 50, 700, 240)
    _with_face(photo[:, 250:480], canvas, 700, 200, 60)
    small, large = sorted(detector.find(canvas), key=lambda face: face.height)
    assert 45 < small.height < 80
    assert small.y < 400
    assert large.height > 180


@pytest.mark.parametrize(("x", "y"), [(400, 300), (30, 1200)])
def test_a_tiny_face_in_a_plain_image_is_found(
    photos: dict[str, bytes], detector: FaceDetector, x: int, y: int
) -> None:
    # The face is 114 px high in the photo, and 2 % of the image height here.
    (face,) = detector.find(_canvas(_pixels(photos, "astronaut"), x, y, 32 / 114))
    assert 20 < face.height < 45


def test_a_large_face_without_a_clear_score_must_be_found_in_the_close_up_pass(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []

    class Network:
        """Takes a torso for a face of 0.80 in the first pass, as YuNet did."""

        def find(self, pixels: Pixels, _: float) -> NDArray[np.float32]:
            shapes.append(pixels.shape[:2])
            torso = [20.0, 30, 100, 150, *[50.0] * 10, 0.80]
            return np.array([torso] if len(shapes) == 1 else [], np.float32).reshape(-1, 15)

    detector = load_detector(model, FaceSettings())
    monkeypatch.setattr(detector, "_network", Network())
    assert detector.find(_cloth(1)) == []
    assert shapes[1] == (96, 96)


def test_no_face_is_found_in_a_pattern(detector: FaceDetector) -> None:
    assert [face for seed in range(5) for face in detector.find(_cloth(seed))] == []


@pytest.mark.parametrize("size", [(4000, 6000), (300, 450), (1500, 1000), (3000, 300)])
def test_a_face_is_found_in_images_of_all_sizes(
    photos: dict[str, bytes], detector: FaceDetector, size: tuple[int, int]
) -> None:
    width, height = size
    canvas = np.full((height, width, 3), 200, np.uint8)
    _with_face(_pixels(photos, "portrait_c"), canvas, width // 20, 0, height // 4)
    (face,) = detector.find(canvas)
    assert abs(face.height / (height / 4) - 1) < 0.3


def test_the_foreground_roi_contains_the_product_and_not_the_wall() -> None:
    wall = np.linspace(150, 230, 1500)[:, None, None] * np.ones((1, 1000, 3))
    pixels = wall.astype(np.uint8)
    assert foreground_roi(pixels) is None
    pixels[600:900, 300:500] = 40
    box = foreground_roi(pixels)
    assert box is not None
    assert box.x <= 300 - 40
    assert box.y <= 600 - 40
    assert box.x + box.width >= 540
    assert box.y + box.height >= 940
    assert box.area < 0.3 * 1500 * 1000


def test_no_face_is_found_in_a_plain_image(detector: FaceDetector) -> None:
    assert detector.find(np.full((300, 200, 3), 255, np.uint8)) == []


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 50), (50, 1), (7, 3), (2000, 1), (1, 2000), (3000, 17), (17, 3000)]
)
def test_no_face_is_found_in_tiny_or_narrow_images(
    model: Path, detector: FaceDetector, size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (*size, 3), dtype=np.uint8)
    assert detector.find(pixels) == []
    assert load_detector(model, FaceSettings(first_side=None)).find(pixels) == []
    # The others are less than two pixels wide or high in the edge map.
    assert (foreground_roi(pixels) is None) == (size != (7, 3))


def test_res10_finds_the_faces_of_portraits_and_none_without_a_head(
    photos: dict[str, bytes], tmp_path: Path
) -> None:
    settings = FaceSettings(model="res10")
    detector = load_detector(ensure_model(settings, tmp_path), settings)
    for name in ("portrait_a", "portrait_b", "portrait_c", "astronaut"):
        (face,) = detector.find(_pixels(photos, name))
        assert face.score > 0.9
        (same,) = load_detector(ensure_model(FaceSettings(), tmp_path), FaceSettings()).find(
            _pixels(photos, name)
        )
        middle = face.x + face.width / 2, face.y + face.height / 2
        assert same.x < middle[0] < same.x + same.width
        assert same.y < middle[1] < same.y + same.height
    assert detector.find(_pixels(photos, "cutout_no_head")) == []


Answer = list[list[float]] | Callable[[Pixels], list[list[float]]]


class Network:
    """Fake network: records its inputs, and returns the given rows, one list per call.

    An answer may be a function that computes the rows from the input.
    """

    def __init__(self, *answers: Answer) -> None:
        self.answers = iter(answers)
        self.images: list[Pixels] = []
        self.scores: list[float] = []

    def find(self, pixels: Pixels, min_score: float) -> NDArray[np.float32]:
        assert pixels.dtype == np.uint8
        self.images.append(pixels.copy())
        self.scores.append(min_score)
        answer = next(self.answers, [])
        rows = answer(pixels) if callable(answer) else answer
        return np.array(rows, np.float32).reshape(-1, 15)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of each input."""
        return [(image.shape[1], image.shape[0]) for image in self.images]

    @property
    def close_ups(self) -> list[Pixels]:
        """The inputs of 96x96 px: the first windows around the candidates."""
        return [image for image in self.images if image.shape[:2] == (96, 96)]


FindWith = Callable[..., tuple[list[Face], Network]]


@pytest.fixture
def find_with(model: Path, monkeypatch: pytest.MonkeyPatch) -> FindWith:
    """Find faces in an image with a network that returns these answers one after the other."""

    def find(pixels: Pixels, *answers: Answer, **settings: Any) -> Any:
        sides = {"first_side": 256, "detect_side": 512}
        network = Network(*answers)
        yunet = load_detector(model, FaceSettings(**(sides | settings)))
        monkeypatch.setattr(yunet, "_network", network)
        return yunet.find(pixels), network

    return find


def _row(x: float, y: float, width: float, height: float, score: float = 0.5) -> list[float]:
    """The network's row for a face; the landmarks are the corners and the centre of its box."""
    right, bottom = x + width, y + height
    middle = (x + width / 2, y + height / 2)
    return [x, y, width, height, x, y, right, y, *middle, x, bottom, right, bottom, score]


def _found(x: float, y: float, width: float, height: float, score: float = 0.5) -> Face:
    """The face of the same `_row`."""
    return Face(x, y, width, height, score, tuple(_row(x, y, width, height)[4:14]))


def _numbers(faces: list[Face]) -> list[float]:
    """All numbers of the faces, for `pytest.approx`."""
    return [
        number
        for face in faces
        for number in (face.x, face.y, face.width, face.height, face.score, *face.landmarks)
    ]


def _same(found: list[Face], wanted: list[Face]) -> bool:
    return _numbers(found) == pytest.approx(_numbers(wanted), abs=0.001)


def _noise(width: int, height: int) -> Pixels:
    """An image of random pixels below a plain top edge, which needs no look of its own."""
    pixels = np.random.default_rng(9).integers(0, 255, (height, width, 3), dtype=np.uint8)
    top = max(2, math.ceil(max(width, height) / 75))
    if height > 2 * top:
        pixels[:top] = 128
    return pixels


def _block(width: int, height: int, box: Box, tone: int = 40) -> Pixels:
    """A plain image of level 200 with a block of another level."""
    pixels = np.full((height, width, 3), 200, np.uint8)
    pixels[box.y : box.y + box.height, box.x : box.x + box.width] = tone
    return pixels


def _shrink(pixels: Pixels, width: int, height: int) -> Pixels:
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _interpolate(pixels: Pixels, width: int, height: int) -> Pixels:
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


@pytest.mark.parametrize(
    ("size", "block", "roi"),
    [
        # The edge map has full size up to 319 px, then half, and so on. An edge belongs to the
        # pixel before it; the margin is five pixels.
        ((100, 80), Box(30, 20, 40, 30), Box(24, 14, 51, 41)),
        ((319, 100), Box(30, 20, 40, 30), Box(24, 14, 51, 41)),
        ((320, 100), Box(30, 20, 40, 30), Box(18, 8, 62, 52)),
        ((100, 479), Box(30, 20, 40, 30), Box(18, 8, 62, 52)),
        ((800, 1600), Box(300, 600, 200, 300), Box(240, 540, 310, 410)),
        # The margin ends at the edge of the image.
        ((100, 80), Box(3, 2, 90, 70), Box(0, 0, 98, 77)),
        ((100, 80), Box(6, 6, 90, 70), Box(0, 0, 100, 80)),
        ((100, 80), Box(7, 7, 90, 70), Box(1, 1, 99, 79)),
        ((101, 83), Box(50, 40, 51, 43), Box(44, 34, 11, 11)),
        ((2, 2), Box(0, 0, 1, 1), Box(0, 0, 2, 2)),
        ((2, 30), Box(0, 0, 1, 9), Box(0, 3, 2, 11)),
        ((30, 2), Box(0, 0, 9, 1), Box(3, 0, 11, 2)),
        # A line of pixels, and stripes, which have edges in one direction only.
        ((1, 30), Box(0, 0, 1, 9), None),
        ((30, 1), Box(0, 0, 9, 1), None),
        ((100, 80), Box(0, 20, 100, 30), None),
        ((100, 80), Box(30, 0, 40, 80), None),
        ((100, 80), Box(0, 0, 100, 80), None),
    ],
)
def test_the_foreground_roi_is_the_box_of_all_edges_plus_a_margin(
    size: tuple[int, int], block: Box, roi: Box | None
) -> None:
    assert foreground_roi(_block(*size, block)) == roi


@pytest.mark.parametrize(("tone", "plain"), [(200, True), (192, True), (208, True), (191, False)])
def test_an_edge_is_more_than_eight_levels(tone: int, plain: bool) -> None:
    assert (foreground_roi(_block(100, 80, Box(30, 20, 40, 30), tone)) is None) == plain


def test_all_pixels_of_a_large_image_count_for_edges() -> None:
    for x, y in ((100, 100), (101, 101)):
        pixels = np.full((320, 320, 3), 200, np.uint8)
        pixels[y, x] = 180  # one of four averaged pixels: 5 levels
        assert foreground_roi(pixels) is None
        pixels[y, x] = 160
        assert foreground_roi(pixels) == Box(88, 88, 24, 24)


@pytest.mark.parametrize(
    ("stripe", "box"),
    [
        ((8, 8), Box(24, 14, 51, 41)),
        ((9, 8), Box(4, 14, 71, 41)),
        ((8, 9), Box(24, 0, 51, 55)),
    ],
)
def test_an_edge_along_the_left_or_upper_side_counts_from_nine_levels(
    stripe: tuple[int, int], box: Box
) -> None:
    pixels = _block(100, 80, Box(30, 20, 40, 30))
    pixels[:, :10] += np.uint8(stripe[0])
    pixels[:5] += np.uint8(stripe[1])
    assert foreground_roi(pixels) == box


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({"first_side": None, "min_score": 0.6}, 0.6),
        ({"first_side": 512, "min_score": 0.6}, 0.6),
        ({"first_side": 600, "min_score": 0.6}, 0.6),
        ({"min_score": 0.6}, 0.05),
        ({"min_score": 0.04}, 0.04),
    ],
)
def test_the_first_of_two_passes_uses_a_lower_minimum_score(
    find_with: FindWith, settings: dict[str, float], least: float
) -> None:
    _, network = find_with(_noise(300, 512), **settings)
    assert network.scores == [least]


def test_with_a_single_pass_the_foreground_roi_is_searched_at_detect_side(
    find_with: FindWith,
) -> None:
    pixels = _block(640, 400, Box(100, 100, 200, 200))
    answer = [_row(10, 20, 30, 40, 0.06)]
    faces, network = find_with(pixels, answer, first_side=None, detect_side=320)
    np.testing.assert_array_equal(network.images[0], _shrink(pixels[76:320, 76:320], 122, 122))
    assert len(network.images) == 1
    assert _same(faces, [_found(76 + 20, 76 + 40, 60, 80, 0.06)])


def test_the_network_does_not_run_on_a_plain_image(find_with: FindWith) -> None:
    plain = np.full((300, 200, 3), 255, np.uint8)
    for first_side in (None, 256):
        faces, network = find_with(plain, first_side=first_side)
        assert (faces, network.images) == ([], [])


@pytest.mark.parametrize(
    ("size", "inputs"),
    [((64, 16), 1), ((64, 15), 0), ((16, 64), 1), ((15, 64), 0)],
)
def test_the_network_does_not_run_on_an_input_narrower_than_a_face(
    find_with: FindWith, size: tuple[int, int], inputs: int
) -> None:
    _, network = find_with(_noise(*size), first_side=None, detect_side=64)
    assert len(network.images) == inputs


@pytest.mark.parametrize(
    ("size", "sides", "input_size"),
    [
        # The height becomes `first_side`; an integer factor may miss it by up to a tenth.
        ((64, 64), (64, 128), (64, 64)),
        ((58, 58), (64, 128), (64, 64)),
        ((60, 60), (64, 128), (60, 60)),
        ((70, 70), (64, 128), (64, 64)),
        ((100, 80), (64, 128), (80, 64)),
        ((50, 100), (64, 128), (32, 64)),
        ((128, 128), (64, 128), (64, 64)),
        ((150, 150), (64, 128), (64, 64)),
        ((190, 190), (64, 128), (63, 63)),
        # From a tenth on, the height becomes `first_side`, before it is reduced to save padding.
        ((60, 60), (66, 128), (64, 64)),
        ((77, 77), (70, 128), (64, 64)),
        # A very wide image becomes as wide as `detect_side`.
        ((256, 64), (64, 128), (128, 32)),
        ((1024, 64), (64, 128), (128, 8)),
        ((512, 128), (64, 256), (256, 64)),
        # Slightly smaller if that saves the network a row of cells: 72 is 32 * 2.25.
        ((72, 64), (64, 128), (64, 57)),
        ((73, 64), (64, 128), (73, 64)),
        ((64, 65), (64, 128), (63, 64)),
        ((100, 64), (64, 128), (96, 61)),
        ((90, 70), (70, 128), (82, 64)),
        ((90, 80), (64, 128), (64, 57)),
        # The smallest image that is searched.
        ((2, 2), (64, 128), (64, 64)),
    ],
)
def test_the_first_pass_scales_the_height_to_first_side(
    find_with: FindWith,
    size: tuple[int, int],
    sides: tuple[int, int],
    input_size: tuple[int, int],
) -> None:
    _, network = find_with(_noise(*size), first_side=sides[0], detect_side=sides[1])
    # The smallest image, without a plain top edge, is searched there as well.
    assert network.sizes[:1] == ([input_size] if min(input_size) >= 16 else [])


def test_the_first_pass_shrinks_the_image_by_an_integer_factor(find_with: FindWith) -> None:
    pixels = _noise(513, 512)  # the last column is dropped
    _, network = find_with(pixels)
    assert len(network.images) == 1
    np.testing.assert_array_equal(network.images[0], _shrink(pixels[:, :512], 256, 256))


def test_the_first_pass_scales_the_shrunk_image_to_first_side(find_with: FindWith) -> None:
    # 600 is shrunk to 300 by an integer factor, and then to 256.
    pixels = _noise(600, 600)
    _, network = find_with(pixels, detect_side=600)
    wanted = _interpolate(_shrink(pixels, 300, 300), 256, 256)
    np.testing.assert_array_equal(network.images[0], wanted)
    # 400 would be shrunk to 200 and enlarged again: the image itself is shrunk to 256.
    pixels = _noise(400, 400)
    _, network = find_with(pixels)
    np.testing.assert_array_equal(network.images[0], _shrink(pixels, 256, 256))
    # A smaller image is enlarged.
    pixels = _noise(200, 200)
    _, network = find_with(pixels)
    np.testing.assert_array_equal(network.images[0], _interpolate(pixels, 256, 256))


def test_from_four_fifths_of_the_size_on_an_image_is_interpolated_linearly(
    find_with: FindWith,
) -> None:
    for side, shrink in ((100, _interpolate), (101, _shrink)):
        pixels = _noise(side, side)
        _, network = find_with(pixels, first_side=None, detect_side=80)
        np.testing.assert_array_equal(network.images[0], shrink(pixels, 80, 80))
    # The scale of the width decides; by rounding, that of the height can differ.
    for width, height, side, size in ((20, 99, 78, (16, 78)), (100, 60, 85, (85, 51))):
        pixels = _noise(width, height)
        _, network = find_with(pixels, first_side=None, detect_side=side)
        np.testing.assert_array_equal(network.images[0], _interpolate(pixels, *size))


def test_an_image_of_four_pixels_is_searched_at_detect_side(
    find_with: FindWith,
) -> None:
    pixels = _block(2, 2, Box(0, 0, 1, 1))
    _, network = find_with(pixels, first_side=None, detect_side=64)
    np.testing.assert_array_equal(network.images[0], _interpolate(pixels, 64, 64))
    # The close-up pass uses the scale of `detect_side`, 32.5.
    _, network = find_with(pixels, [_row(14, 14, 36, 36, 0.6)], first_side=64, detect_side=65)
    padded = np.zeros((96, 96, 3), np.uint8)
    padded[:65, :65] = _interpolate(pixels, 65, 65)
    np.testing.assert_array_equal(network.images[1], padded)


@pytest.mark.parametrize("size", [(2000, 20), (20, 2000)])
def test_no_face_is_found_in_an_image_narrower_than_its_shrink_factor(
    find_with: FindWith, size: tuple[int, int]
) -> None:
    faces, network = find_with(_noise(*size), first_side=64, detect_side=65)
    assert (faces, network.images) == ([], [])


@pytest.mark.parametrize(
    ("size", "block", "sides", "roi_and_input"),
    [
        # 51x41 of 100x80 px: the scale is sqrt(0.3 * 8000 / 2091) times that of the image, 0.8.
        ((100, 80), Box(30, 20, 40, 30), (64, 128), ((51, 41), (44, 35))),
        ((100, 80), Box(30, 20, 10, 10), (64, 128), ((21, 21), (27, 27))),
        # At most the scale of `detect_side`.
        ((100, 80), Box(30, 20, 10, 10), (64, 100), ((21, 21), (21, 21))),
        ((100, 80), Box(30, 20, 10, 10), (64, 90), ((21, 21), (19, 19))),
        ((80, 90), Box(20, 30, 10, 10), (64, 80), ((21, 21), (19, 19))),
        # 76x72 px are more than 0.3 of the area: they are only shrunk slightly.
        ((100, 80), Box(12, 2, 65, 65), (80, 128), ((76, 72), (68, 64))),
        # 35x60 px are exactly 0.3 of 100x70 px: no longer small.
        ((100, 70), Box(10, 10, 24, 49), (70, 128), ((35, 60), (32, 55))),
        ((100, 70), Box(10, 10, 23, 49), (70, 128), ((34, 60), (34, 61))),
    ],
)
def test_a_small_foreground_roi_is_searched_at_a_larger_scale(
    find_with: FindWith,
    size: tuple[int, int],
    block: Box,
    sides: tuple[int, int],
    roi_and_input: tuple[tuple[int, int], tuple[int, int]],
) -> None:
    pixels = _block(*size, block)
    box = foreground_roi(pixels)
    assert box is not None
    _, network = find_with(pixels, first_side=sides[0], detect_side=sides[1])
    assert ((box.width, box.height), *network.sizes) == roi_and_input


def test_a_small_foreground_roi_of_a_large_image_is_cropped_from_the_full_image(
    find_with: FindWith,
) -> None:
    pixels = _block(512, 512, Box(200, 200, 40, 40))
    pixels[201:239, 201:239] = _noise(38, 38)
    # 31 of 256 px, from 94 on, are searched at the scale of `detect_side`, which is 1.
    _, network = find_with(pixels, [_row(20, 10, 12, 18, 0.9)])
    np.testing.assert_array_equal(network.images[0], pixels[188:250, 188:250])
    # The centre of the face is at 214, 207; its 18 px are enlarged to 32.
    wanted = _interpolate(pixels[180:234, 187:241], 96, 96)
    np.testing.assert_array_equal(network.images[1], wanted)


@pytest.mark.parametrize(("height", "windows"), [(28, 0), (27.5, 1)])
def test_a_face_is_large_by_its_height_in_the_first_pass_at_any_scale(
    find_with: FindWith, height: float, windows: int
) -> None:
    pixels = _block(512, 512, Box(200, 200, 40, 40))
    _, network = find_with(pixels, [_row(20, 10, 20, height, 0.9)])
    assert network.sizes[0] == (62, 62)  # at the scale of the image
    assert len(network.close_ups) == windows
    _, network = find_with(_noise(380, 380), [_row(20, 10, 20, height, 0.9)])
    assert network.sizes[0] == (256, 256)  # at two thirds of it
    assert len(network.close_ups) == windows


def test_boxes_are_scaled_back_separately_for_each_axis(find_with: FindWith) -> None:
    row = _row(13, 4, 26, 8, 0.9)
    faces, network = find_with(_noise(99, 20), [row], first_side=None, detect_side=78)
    assert network.sizes == [(78, 16)]
    assert _same(faces, [_found(13 * 99 / 78, 5, 26 * 99 / 78, 10, 0.9)])


def _count_windows(find_with: FindWith, *rows: list[float], **settings: float) -> int:
    """Number of close-up windows for an image of 512x512 px; rows are in pixels of half of it."""
    _, network = find_with(_noise(512, 512), list(rows), **settings)
    return len(network.close_ups)


@pytest.mark.parametrize(
    ("height", "score", "windows"),
    [
        (7.5, 0.999, 0),
        (7.5, 1, 1),
        (8, 0.16, 1),
        (8, 0.14, 0),
        (9.5, 0.16, 1),
        (9.5, 0.14, 0),
        (10, 0.051, 1),
        (10, 0.049, 0),
        (19.5, 0.051, 1),
        (19.5, 0.049, 0),
        (20, 0.41, 1),
        (20, 0.39, 0),
        (27.5, 0.41, 1),
        (27.5, 0.39, 0),
        (28, 0.5, 1),
        (28, 0.499, 0),
        (90, 0.5, 1),
        (90, 0.499, 0),
    ],
)
def test_the_minimum_score_of_a_candidate_depends_on_its_height(
    find_with: FindWith, height: float, score: float, windows: int
) -> None:
    # The width of the face does not matter.
    for width in (5, 40):
        assert _count_windows(find_with, _row(100, 100, width, height, score)) == windows


def test_with_a_single_pass_only_min_score_of_the_settings_counts(
    find_with: FindWith,
) -> None:
    rows = [_row(100, 100, 5, 7, 0.5), _row(200, 100, 20, 30, 0.45)]
    faces, network = find_with(_noise(256, 256), rows, first_side=None, detect_side=256)
    assert len(network.images) == 1
    assert _same(faces, [_found(100, 100, 5, 7, 0.5), _found(200, 100, 20, 30, 0.45)])


@pytest.mark.parametrize(
    ("height", "score", "min_score", "windows"),
    [
        (28, 0.85, 0.75, 0),
        (27.5, 0.85, 0.75, 1),
        (28, 0.83, 0.75, 1),
        (28, 0.85, 0.875, 1),
        (28, 0.875, 0.875, 0),
        (100, 0.99, 0.75, 0),
    ],
)
def test_a_large_face_with_a_clear_score_is_accepted_from_the_first_pass(
    find_with: FindWith, height: float, score: float, min_score: float, windows: int
) -> None:
    row = _row(10, 20, 30, height, score)
    faces, network = find_with(_noise(512, 512), [row], min_score=min_score)
    assert len(network.close_ups) == windows
    assert _same(faces, [] if windows else [_found(20, 40, 60, 2 * height, score)])


@pytest.mark.parametrize(
    ("height", "side", "shrink"),
    [
        # At the scale of `detect_side`, here 1, the face is between 32 and 40 px high: the window
        # is 96 px of the image.
        (16, 96, _interpolate),
        (18, 96, _interpolate),
        (20, 96, _interpolate),
        # Otherwise the scale makes it 32 or 40 px high.
        (12, 72, _interpolate),
        (10, 60, _interpolate),
        (22, 106, _interpolate),
        (30, 144, _shrink),
        (39, 187, _shrink),
    ],
)
def test_a_window_is_scaled_so_that_the_face_is_32_to_40_pixels_high(
    find_with: FindWith, height: float, side: int, shrink: Callable[[Pixels, int, int], Pixels]
) -> None:
    pixels = _noise(512, 512)
    # Its centre is at 250, 170 in the image, and at half of that in the first pass.
    row = _row(125 - 6, 85 - height / 2, 12, height, 0.7)
    faces, network = find_with(pixels, [row], [_row(33, 28, 30, 40, 0.9)], min_score=0.6)
    assert network.scores == [0.05, 0.6]
    left, top = 250 - side // 2, 170 - side // 2
    if side % 2:
        left, top = round(250 - side / 2), round(170 - side / 2)
    part = pixels[top : top + side, left : left + side]
    np.testing.assert_array_equal(network.images[1], shrink(part, 96, 96))
    share = side / 96
    wanted = _found(left + 33 * share, top + 28 * share, 30 * share, 40 * share, 0.9)
    assert _same(faces, [wanted])


@pytest.mark.parametrize(
    ("height", "side", "shrink"),
    [(40, 96, _shrink), (50, 120, _interpolate), (60, 144, _shrink)],
)
def test_the_window_of_a_large_face_is_cropped_from_the_shrunk_image(
    find_with: FindWith, height: float, side: int, shrink: Callable[[Pixels, int, int], Pixels]
) -> None:
    pixels = _noise(512, 512)
    row = _row(125 - 20, 85 - height / 2, 40, height, 0.7)
    other = _row(175 - 20, 185 - height / 2, 40, height, 0.6)
    close = _row(33, 28, 30, 40, 0.9)
    faces, network = find_with(pixels, [row, other], [close], [close])
    half = _shrink(pixels, 256, 256)
    for image, x, y in zip(network.images[1:], (125, 175), (85, 185), strict=True):
        top, left = min(y, 256 - side // 2) - side // 2, x - side // 2
        part = half[top : top + side, left : left + side]
        np.testing.assert_array_equal(image, shrink(part, 96, 96))
    share = 2 * side / 96
    lefts = 250 - side, 350 - side
    tops = 170 - side, min(370, 512 - side) - side
    wanted = [
        _found(left + 33 * share, top + 28 * share, 30 * share, 40 * share, 0.9)
        for left, top in zip(lefts, tops, strict=True)
    ]
    assert _same(faces, wanted)


def test_the_window_of_a_face_of_80_pixels_is_cropped_from_the_image_at_half_size(
    find_with: FindWith,
) -> None:
    # It is 40 px high at half size, as wanted; its centre is inside a pixel of the half.
    pixels = _noise(512, 512)
    _, network = find_with(pixels, [_row(125.5 - 20, 85.5 - 20, 40, 40, 0.7)])
    half = _shrink(pixels, 256, 256)
    np.testing.assert_array_equal(network.images[1], half[38 : 38 + 96, 78 : 78 + 96])


@pytest.mark.parametrize(
    ("middle", "corner"),
    [
        ((10, 250), (0, 202)),
        ((48, 48), (0, 0)),
        ((49, 52), (1, 4)),
        ((250, 10), (202, 0)),
        ((500, 250), (416, 202)),
        ((460, 461), (412, 413)),
        ((250, 505), (202, 416)),
    ],
)
def test_a_window_stays_inside_the_image(
    find_with: FindWith, middle: tuple[float, float], corner: tuple[int, int]
) -> None:
    pixels = _noise(512, 512)
    row = _row(middle[0] / 2 - 6, middle[1] / 2 - 9, 12, 18, 0.7)
    faces, network = find_with(pixels, [row], [_row(10, 20, 30, 40, 0.9)])
    x, y = corner
    np.testing.assert_array_equal(network.images[1], pixels[y : y + 96, x : x + 96])
    assert _same(faces, [_found(x + 10, y + 20, 30, 40, 0.9)])


def test_a_window_larger_than_the_image_is_padded_with_black(find_with: FindWith) -> None:
    for width, height, row, corner in (
        (60, 512, _row(10, 100, 9, 12, 0.7), (0, 176)),  # in the first pass, at half size
        (512, 60, _row(200, 20, 18, 24, 0.7), (173, 0)),  # at full size
    ):
        pixels = _noise(width, height)
        faces, network = find_with(pixels, [row], [_row(16, 32, 8, 4, 0.9)])
        # 72 px become 96, and 60 become 80.
        size = (80, 96) if height > width else (96, 80)
        part = pixels[corner[1] :, corner[0] :][:72, :72]
        padded = np.zeros((96, 96, 3), np.uint8)
        padded[: size[1], : size[0]] = _interpolate(part, *size)
        np.testing.assert_array_equal(network.images[1], padded)
        assert _same(faces, [_found(corner[0] + 12, corner[1] + 24, 6, 3, 0.9)])


@pytest.mark.parametrize(
    ("away", "height", "windows"),
    [
        # A window of 96 px covers all faces with a centre less than a quarter of that away.
        ((11.5, 0), 18, 1),
        ((-11.5, 0), 18, 1),
        ((0, 11.5), 18, 1),
        ((0, -11.5), 18, 1),
        ((11.5, -11.5), 18, 1),
        ((12, 0), 18, 2),
        ((-12, 0), 18, 2),
        ((0, 12), 18, 2),
        ((0, -12), 18, 2),
        ((12.5, 3), 18, 2),
        ((40, 40), 18, 2),
    ],
)
def test_candidates_close_to_each_other_share_a_window(
    find_with: FindWith, away: tuple[float, float], height: float, windows: int
) -> None:
    first = _row(100, 100, 12, 18, 0.6)
    second = _row(100 + away[0], 100 + away[1], 12, height, 0.5)
    assert _count_windows(find_with, first, second) == windows
    assert _count_windows(find_with, second, first) == windows


@pytest.mark.parametrize(("heights", "windows"), [((50, 40), 1), ((40, 50), 2)])
def test_the_side_of_the_existing_window_limits_the_distance(
    find_with: FindWith, heights: tuple[float, float], windows: int
) -> None:
    # A quarter of the windows is 30 and 24 px of the first pass; the faces are 27 px apart.
    first = _row(100, 100 - heights[0] / 2, 12, heights[0], 0.7)
    second = _row(127, 100 - heights[1] / 2, 12, heights[1], 0.6)
    assert _count_windows(find_with, first, second) == windows


@pytest.mark.parametrize(
    ("height", "other", "windows"),
    [(67.5, 40.5, 2), (67, 41, 1), (50, 79.5, 1), (50, 80, 2), (60, 60, 1), (60, 30, 2)],
)
def test_candidates_of_different_heights_get_separate_windows(
    find_with: FindWith, height: float, other: float, windows: int
) -> None:
    # Both have the same centre; the first has the higher score.
    first = _row(100, 100 - height / 2, 12, height, 0.7)
    second = _row(100, 100 - other / 2, 12, other, 0.6)
    assert _count_windows(find_with, first, second) == windows


def test_the_four_candidates_with_the_highest_scores_get_windows(
    find_with: FindWith,
) -> None:
    pixels = _noise(512, 512)
    places = {0.3: (30, 30), 0.7: (120, 30), 0.4: (210, 30), 0.6: (30, 120), 0.5: (120, 120)}
    rows = [_row(x - 6, y - 9, 12, 18, score) for score, (x, y) in places.items()]
    _, network = find_with(pixels, rows)
    wanted = [places[score] for score in (0.7, 0.6, 0.5, 0.4)]
    for image, (x, y) in zip(network.close_ups, wanted, strict=True):
        left, top = min(max(2 * x - 48, 0), 416), min(max(2 * y - 48, 0), 416)
        np.testing.assert_array_equal(image, pixels[top : top + 96, left : left + 96])


def test_a_large_clear_face_counts_next_to_any_number_of_small_ones(find_with: FindWith) -> None:
    small = [_row(x, y, 12, 18, 0.95) for x in (20, 120, 220) for y in (20, 100)]
    faces, network = find_with(_noise(512, 512), [*small, _row(100, 170, 50, 70, 0.9)])
    assert len(network.close_ups) == 4
    assert _same(faces, [_found(200, 340, 100, 140, 0.9)])


@pytest.mark.parametrize(
    ("score", "found", "inputs"), [(0.19, True, 2), (0.21, True, 1), (0.19, False, 1)]
)
def test_a_faint_candidate_that_is_found_is_checked_in_the_mirrored_window(
    find_with: FindWith, score: float, found: bool, inputs: int
) -> None:
    close = [_row(30, 20, 30, 40, 0.9)] if found else []
    _, network = find_with(_noise(512, 512), [_row(100, 60, 12, 18, score)], close)
    assert len(network.images) - 1 == inputs
    if inputs == 2:
        np.testing.assert_array_equal(network.images[2], network.images[1][:, ::-1])


def test_a_faint_candidate_in_a_narrow_image_is_checked_in_the_mirrored_window(
    find_with: FindWith,
) -> None:
    # 53 px are shrunk to 32, where the face is smaller than in the close-up pass.
    first, close = [_row(10, 100, 10, 19.5, 0.1)], [_row(20, 30, 30, 40, 0.9)]
    faces, network = find_with(_noise(53, 380), first, close, detect_side=257)
    assert network.sizes == [(32, 228), (96, 96), (96, 96)]
    assert faces == []


@pytest.mark.parametrize(
    ("mirrored", "counts"),
    [
        # 96 px wide: a box that starts at 20 and is 30 wide starts at 46 in the mirror image.
        ([_row(46, 30, 30, 40)], True),
        ([_row(55.5, 30, 30, 40)], True),
        ([_row(36.5, 30, 30, 40)], True),
        ([_row(46, 39.5, 30, 40)], True),
        ([_row(46, 20.5, 30, 40)], True),
        ([_row(56, 30, 30, 40)], False),
        ([_row(36, 30, 30, 40)], False),
        ([_row(46, 40, 30, 40)], False),
        ([_row(46, 20, 30, 40)], False),
        ([_row(20, 30, 30, 40)], False),
        # The centre counts, and the height of the face in the unmirrored window.
        ([_row(51, 40, 20, 20)], True),
        ([_row(42, 32, 20, 20)], True),
        ([_row(31, 10, 60, 80)], True),
        ([_row(43, 10, 60, 80)], False),
        # One of several is enough.
        ([_row(0, 0, 30, 40), _row(46, 30, 30, 40)], True),
        ([_row(0, 0, 30, 40), _row(60, 30, 30, 40)], False),
        ([], False),
    ],
)
def test_a_faint_candidate_counts_if_it_has_the_same_position_in_the_mirrored_window(
    find_with: FindWith, mirrored: list[list[float]], counts: bool
) -> None:
    first, close = [_row(100, 60, 12, 18, 0.1)], [_row(20, 30, 30, 40, 0.9)]
    faces, _ = find_with(_noise(512, 512), first, close, mirrored)
    # The window starts at 212 - 48, 138 - 48.
    assert _same(faces, [_found(164 + 20, 90 + 30, 30, 40, 0.9)] if counts else [])


def test_each_face_of_a_window_is_checked_in_the_mirrored_window(find_with: FindWith) -> None:
    first = [_row(100, 60, 12, 18, 0.1)]
    close = [_row(20, 30, 30, 40, 0.9), _row(60, 60, 20, 30, 0.8)]
    faces, _ = find_with(_noise(512, 512), first, close, [_row(16, 60, 20, 30, 0.8)])
    assert _same(faces, [_found(164 + 60, 90 + 60, 20, 30, 0.8)])


@pytest.mark.parametrize(
    ("box", "scores"),
    [
        # Boxes of 60x60 px share 33 of 87 px, or 27 of 93: 0.38 and 0.29.
        ((227, 200), [0.95]),
        ((233, 200), [0.95, 0.875]),
        ((200, 233), [0.95, 0.875]),
        ((200, 227), [0.95]),
        ((300, 300), [0.95, 0.875]),
    ],
)
def test_a_face_that_is_found_twice_counts_once_with_its_higher_score(
    find_with: FindWith, box: tuple[int, int], scores: list[float]
) -> None:
    # Both are large and clear, so that the first pass, at half size, is enough.
    x, y = box
    rows = [_row(100, 100, 30, 30, 0.875), _row(x / 2, y / 2, 30, 30, 0.95)]
    faces, _ = find_with(_noise(512, 512), rows)
    boxes = {0.95: box, 0.875: (200, 200)}
    assert _same(faces, [_found(*boxes[score], 60, 60, score) for score in scores])


def _in_the_middle(pixels: Pixels) -> list[list[float]]:
    """A face in the middle of a window."""
    return [_row(pixels.shape[1] / 2 - 15, pixels.shape[0] / 2 - 20, 30, 40, 0.9)]


def _doubtful_in_the_middle(pixels: Pixels) -> list[list[float]]:
    return [[*row[:-1], 0.82] for row in _in_the_middle(pixels)]


def _in_a_corner(_: Pixels) -> list[list[float]]:
    """A face in the upper left corner of a window."""
    return [_row(2, 2, 20, 25, 0.9)]


def _nowhere(_: Pixels) -> list[list[float]]:
    return []


def _centre(face: Face) -> tuple[float, float]:
    return face.x + face.width / 2, face.y + face.height / 2


@pytest.mark.parametrize("first", [_nowhere, _in_a_corner])
@pytest.mark.parametrize("height", [12, 18, 30, 60])
def test_a_good_candidate_that_a_window_does_not_confirm_is_shown_larger(
    find_with: FindWith, height: float, first: Callable[[Pixels], list[list[float]]]
) -> None:
    pixels = _noise(512, 512)
    row = _row(125 - 10, 85 - height / 2, 20, height, 0.7)
    faces, network = find_with(pixels, [row], first, _in_the_middle)
    _, window, larger = network.sizes
    assert min(larger) > max(window)
    (face,) = (face for face in faces if abs(_centre(face)[0] - 250) < 10)
    assert _centre(face) == pytest.approx((250, 170), abs=2)
    # In it, the candidate has more pixels: a face of 40 px of the input is smaller than before.
    _, before = find_with(pixels, [row], _in_the_middle)
    assert len(before.images) == 2
    (confirmed,) = find_with(pixels, [row], _in_the_middle)[0]
    assert face.height < 0.7 * confirmed.height


@pytest.mark.parametrize(("score", "looks"), [(0.15, 2), (0.3, 2), (0.45, 3), (0.8, 3)])
def test_a_candidate_with_a_low_score_is_not_shown_larger(
    find_with: FindWith, score: float, looks: int
) -> None:
    _, network = find_with(_noise(512, 512), [_row(120, 40, 12, 18, score)], _nowhere)
    assert len(network.images) == looks


@pytest.mark.parametrize(
    ("candidate", "more", "kept", "looks"),
    [
        # Low and weak: two more windows have to show it.
        ((150, 0.3), (_in_the_middle, _in_the_middle), True, 4),
        ((150, 0.5), (_in_the_middle, _in_the_middle), True, 4),
        ((150, 0.5), (_in_the_middle, _nowhere), False, 4),
        ((150, 0.5), (_in_the_middle, _in_a_corner), False, 4),
        ((150, 0.5), (_nowhere, _in_the_middle), False, 3),
        ((150, 0.5), (_in_a_corner, _in_the_middle), False, 3),
        # Low and not weak, or weak and high in the image: the first window is enough.
        ((150, 0.7), (), True, 2),
        ((30, 0.3), (), True, 2),
        ((30, 0.7), (), True, 2),
    ],
)
def test_two_more_windows_confirm_a_weak_face_low_in_the_image(
    find_with: FindWith,
    candidate: tuple[float, float],
    more: tuple[Callable[[Pixels], list[list[float]]], ...],
    kept: bool,
    looks: int,
) -> None:
    y, score = candidate
    answers = [_row(120, y, 12, 18, score)], _doubtful_in_the_middle, *more
    faces, network = find_with(_noise(512, 512), *answers)
    assert len(network.images) == looks
    assert [_centre(face) for face in faces] == (
        [pytest.approx((252, 2 * (y + 9)), abs=2)] if kept else []
    )


def test_a_weak_candidate_with_a_clear_score_in_its_window_needs_no_more(
    find_with: FindWith,
) -> None:
    faces, network = find_with(_noise(512, 512), [_row(120, 150, 12, 18, 0.5)], _in_the_middle)
    assert len(network.images) == 2
    assert [_centre(face) for face in faces] == [pytest.approx((252, 318), abs=2)]


def test_the_windows_that_confirm_a_face_show_it_at_two_sizes(find_with: FindWith) -> None:
    pixels = _noise(512, 512)
    pixels[318 - 18 : 318 + 18, 252 - 18 : 252 + 18] = 255
    answers = [_row(120, 150, 12, 18, 0.5)], *[_doubtful_in_the_middle] * 3
    _, network = find_with(pixels, *answers, min_score=0.8)
    # The smaller of them may be less sure, as the face is small in it.
    assert 0.3 < network.scores[2] < network.scores[1] == network.scores[3] == 0.8
    white = [(image == 255).all(axis=2).sum() for image in network.images[1:]]
    assert white[2] > 1.5 * white[1] > 0
    for image in network.images[1:]:
        rows, columns = np.nonzero((image == 255).all(axis=2))
        assert rows.mean() == pytest.approx(image.shape[0] / 2, abs=4)
        assert columns.mean() == pytest.approx(image.shape[1] / 2, abs=4)


def _whole_input(pixels: Pixels) -> list[list[float]]:
    """A face that fills the input and begins above it."""
    height, width = pixels.shape[:2]
    return [_row(0, -0.2 * height, width, 1.2 * height, 0.9)]


def _with_objects(*boxes: Box, width: int = 600, height: int = 800) -> Pixels:
    """A plain image with dark boxes."""
    pixels = np.full((height, width, 3), 200, np.uint8)
    for box in boxes:
        pixels[box.y : box.bottom, box.x : box.right] = 40
    return pixels


@pytest.mark.parametrize("first_side", [256, None])
@pytest.mark.parametrize(
    ("left", "right"), [(250, 330), (60, 100), (520, 600), (0, 50), (100, 500)]
)
def test_the_top_edge_is_searched_beside_what_touches_it(
    find_with: FindWith, left: int, right: int, first_side: int | None
) -> None:
    body = Box(20, 300, 560, 400)  # is wider and does not touch it
    pixels = _with_objects(Box(left, 0, right - left, 60), body)
    faces, network = find_with(pixels, _nowhere, _whole_input, first_side=first_side)
    assert len(network.images) == 2
    (region,) = faces
    for found, edge in ((region.x, left), (region.x + region.width, right)):
        assert abs(found - edge) < 120
    assert region.x <= max(0, left - 20)
    assert region.x + region.width >= min(600, right + 20)
    # It ends far above the middle of the image; the band above it is white.
    assert region.y < -20
    assert 60 < region.y + region.height < 300
    assert (network.images[1][0] == 255).all()


@pytest.mark.parametrize("first_side", [256, None])
def test_a_plain_top_edge_is_not_searched(find_with: FindWith, first_side: int | None) -> None:
    body = Box(200, 100, 200, 500)
    _, network = find_with(_with_objects(body), first_side=first_side)
    assert len(network.images) == 1
    touching = _with_objects(body, Box(300, 0, 40, 100))
    _, network = find_with(touching, first_side=first_side)
    assert len(network.images) == 2


def test_faces_below_the_top_edge_are_left_to_the_other_looks(find_with: FindWith) -> None:
    def at(share: float) -> Callable[[Pixels], list[list[float]]]:
        return lambda image: [_row(10, share * image.shape[0], 30, 30, 0.9)]

    pixels = _with_objects(Box(200, 0, 200, 600))
    assert find_with(pixels, _nowhere, at(0.6), first_side=None)[0] == []
    (face,) = find_with(pixels, _nowhere, at(0.05), first_side=None)[0]
    assert face.y < 0


def test_a_face_that_both_looks_find_counts_once(find_with: FindWith) -> None:
    pixels = np.full((512, 512, 3), 200, np.uint8)
    pixels[:420, 200:400] = _noise(512, 512)[12:432, :200]
    (edge,) = find_with(pixels, _nowhere, _whole_input, first_side=None)[0]
    roi = foreground_roi(pixels)
    assert roi is not None
    visible = _row(edge.x - roi.x, 0, edge.width, edge.y + edge.height, 0.8)
    faces, network = find_with(pixels, [visible], _whole_input, first_side=None)
    assert network.sizes[0] == (roi.width, roi.height)  # at full size, from the top edge on
    assert _same(faces, [edge])
    elsewhere = _row(150 - roi.x, 350, 60, 60, 0.8)
    faces, _ = find_with(pixels, [elsewhere], _whole_input, first_side=None)
    assert _same(faces, [edge, _found(150, 350, 60, 60, 0.8)])


@pytest.mark.parametrize("first_side", [256, None])
def test_the_minimum_score_at_the_top_edge_is_lower_in_proportion(
    find_with: FindWith, first_side: int | None
) -> None:
    pixels = _with_objects(Box(200, 0, 200, 600))
    shares = []
    for min_score in (0.5, 0.8):
        _, network = find_with(pixels, first_side=first_side, min_score=min_score)
        shares.append(network.scores[-1] / min_score)
    assert shares[0] == pytest.approx(shares[1])
    assert 0.3 < shares[0] < 1


@pytest.mark.parametrize("size", [(3, 800), (800, 3), (30, 800), (2, 2), (12, 9), (800, 30)])
@pytest.mark.parametrize("first_side", [256, None])
def test_the_top_edge_of_small_and_narrow_images_may_be_searched(
    find_with: FindWith, size: tuple[int, int], first_side: int | None
) -> None:
    rows, columns = np.indices((size[1], size[0]))
    stripes = np.where((rows + columns) // 2 % 2, 255, 0).astype(np.uint8)[..., None]
    faces, network = find_with(np.repeat(stripes, 3, axis=2), first_side=first_side)
    assert faces == []
    assert all(min(sides) >= 16 for sides in network.sizes)


# Networks of one layer in the two formats of res10: of each channel, the means of seven bands of
# 42 columns, one column apart. So an image defines the seven numbers of a face.
_CAFFE = """
name: "bands" input: "data" input_dim: 1 input_dim: 3 input_dim: 300 input_dim: 300
layer { name: "means" type: "Pooling" bottom: "data" top: "means" pooling_param {
    pool: AVE kernel_h: 300 kernel_w: 42 stride_h: 300 stride_w: 43 } }
"""
_TENSORFLOW = """
node { name: "data" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } } }
node { name: "means" op: "AvgPool" input: "data"
    attr { key: "ksize" value { list { i: 1 i: 300 i: 42 i: 1 } } }
    attr { key: "strides" value { list { i: 1 i: 300 i: 43 i: 1 } } }
    attr { key: "padding" value { s: "VALID" } }
    attr { key: "data_format" value { s: "NHWC" } } }
"""
# Without weights: a Caffe NetParameter with a name, a TensorFlow GraphDef with the input.
_CAFFE_WEIGHTS = b"\x0a\x05bands"
_TENSORFLOW_WEIGHTS = b"\x0a\x13\x0a\x04data\x12\x0bPlaceholder"


def _bands(*channels: list[int]) -> Pixels:
    """An image of 900x150 px that results in these numbers for blue, green and red."""
    pixels = np.zeros((150, 900, 3), np.int64)
    means = (104, 177, 123)
    for channel, numbers in enumerate(channels):
        for band, number in enumerate(numbers):
            # The mean of three columns is the number; the middle column alone is not.
            columns = pixels[:, 129 * band :, channel][:, :126]
            columns[:] = np.tile([number + 6, number - 3, number - 3], 42) + means[channel]
    assert pixels.max() < 256
    return pixels.astype(np.uint8)


def _res10(folder: Path, model: str, config: str, **settings: Any) -> FaceDetector:
    """A detector with one of the networks above."""
    folder.mkdir(exist_ok=True)
    weights = _TENSORFLOW_WEIGHTS if model.endswith(".pb") else _CAFFE_WEIGHTS
    (folder / model).write_bytes(weights)
    (folder / config).write_text(_TENSORFLOW if model.endswith(".pb") else _CAFFE)
    sha256 = hashlib.sha256((folder / config).read_bytes()).hexdigest()
    source = {"model_config_source": str(folder / config), "model_config_sha256": sha256}
    faces = FaceSettings(model="res10", **(source | settings))
    return load_detector(folder / model, faces)


RES10 = pytest.mark.parametrize(
    ("model", "config"), [("bands.caffemodel", "bands.prototxt"), ("bands.pb", "bands.pbtxt")]
)


@RES10
def test_res10_returns_boxes_in_pixels_of_the_image(
    tmp_path: Path, model: str, config: str
) -> None:
    detector = _res10(tmp_path, model, config)
    image = _bands([0, 1, 1, 1, 2, 4, 7], [0, 1, 0, 1, 2, 4, 7], [0, 1, 2, 0, -1, 1, 2])
    first, second = detector.find(image)
    assert _numbers([first]) == pytest.approx([900, 300, 2700, 750, 1], abs=0.01)
    assert _numbers([second]) == pytest.approx([0, -150, 900, 450, 2], abs=0.01)


@pytest.mark.parametrize(
    ("numbers", "min_score", "counts"),
    [
        ([0, 1, 1, 1, 2, 4, 7], 0.9, True),
        ([0, 1, 0, 1, 2, 4, 7], 0, True),
        ([0, 1, -1, 1, 2, 4, 7], 0, False),
        ([0, 1, 1, 1, 2, 1, 7], 0.5, False),
        ([0, 1, 1, 1, 2, 0, 7], 0.5, False),
        ([0, 1, 1, 1, 2, 4, 2], 0.5, False),
        ([0, 1, 1, 1, 2, 4, 1], 0.5, False),
    ],
)
def test_res10_drops_faces_with_a_low_score_or_without_an_area(
    tmp_path: Path, numbers: list[int], min_score: float, counts: bool
) -> None:
    detector = _res10(tmp_path, "bands.caffemodel", "bands.prototxt", min_score=min_score)
    nothing = [0, 0, -9, 0, 0, 0, 0]
    assert len(detector.find(_bands(numbers, nothing, nothing))) == counts


@RES10
@pytest.mark.parametrize("broken", [0, 1])
def test_the_error_for_files_that_are_not_res10_names_the_settings(
    tmp_path: Path, model: str, config: str, broken: int
) -> None:
    _res10(tmp_path, model, config)
    (tmp_path / (model, config)[broken]).write_bytes(b"no network at all")
    sha256 = hashlib.sha256((tmp_path / config).read_bytes()).hexdigest()
    settings = FaceSettings(
        model="res10", model_config_source=str(tmp_path / config), model_config_sha256=sha256
    )
    kind = "GraphDef" if model.endswith(".pb") else "NetParameter"
    with pytest.raises(ModelError) as caught:
        load_detector(tmp_path / model, settings)
    assert re.fullmatch(
        rf"the face model {tmp_path / model} with {tmp_path / config} cannot be loaded: "
        rf".*{kind}.*; set faces\.model_source and faces\.model_config_source to a res10 model",
        str(caught.value),
    )


def test_a_downloaded_description_of_res10_is_stored_next_to_the_model(
    tmp_path: Path,
) -> None:
    shop = tmp_path / "shop"
    _res10(shop, "bands.caffemodel", "bands.prototxt")

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(shop)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/bands.prototxt"
        _res10(tmp_path / "models", "own.caffemodel", "other", model_config_source=url)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    kept = [path for path in (tmp_path / "models").iterdir() if path.name.endswith(".prototxt")]
    assert [path.read_text() for path in kept] == [_CAFFE]


def test_a_file_that_is_not_a_model_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "no.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"no\.onnx cannot be loaded"):
        load_detector(path, FaceSettings())
