from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from imgassets.imaging.decode import decode
from imgassets.imaging.faces import FaceDetector, busy_part, load_detector
from imgassets.imaging.models import ModelError, ensure_model
from imgassets.imaging.picture import Box, Pixels
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


def test_a_face_in_an_empty_picture_is_found_in_its_place(
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
    """A picture full of a coarse pattern, which resembles no face."""
    coarse = np.random.default_rng(seed).integers(90, 200, (50, 34, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (1000, 1500), interpolation=cv2.INTER_CUBIC), np.uint8)


def _with_face(photo: Pixels, canvas: Pixels, x: int, y: int, height: int) -> None:
    """Put portrait_c, whose face is 249 pixels high, in a canvas with a face of that height."""
    scale = height / 249
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    part = canvas[y : y + small.shape[0], x : x + small.shape[1]]
    part[:] = small[: part.shape[0], : part.shape[1]]


@pytest.mark.parametrize(("x", "y"), [(0, 0), (431, 707), (897, 211)])
def test_a_small_face_that_the_first_look_hardly_sees_is_found(
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
def test_a_small_face_in_a_wide_picture_is_found(
    photos: dict[str, bytes], detector: FaceDetector, x: int, y: int
) -> None:
    canvas = np.ascontiguousarray(np.rot90(_cloth(7)))
    _with_face(_pixels(photos, "portrait_c")[:, 250:480], canvas, x, y, 45)  # 4.5 % of its height
    (face,) = detector.find(canvas)
    assert 30 < face.height < 60
    assert x < face.x < x + 45


def test_a_small_face_beside_a_large_one_is_found(
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
def test_a_tiny_face_in_a_plain_picture_is_found(
    photos: dict[str, bytes], detector: FaceDetector, x: int, y: int
) -> None:
    # Its face is 114 pixels high there, and 2 % of the picture's height here.
    (face,) = detector.find(_canvas(_pixels(photos, "astronaut"), x, y, 32 / 114))
    assert 20 < face.height < 45


def test_a_large_face_that_is_not_clear_at_first_must_be_found_at_the_second_look(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[tuple[int, ...]] = []

    class Network:
        """Takes a torso for a face of 0.80 at first, as YuNet did."""

        def find(self, pixels: Pixels, _: float) -> NDArray[np.float32]:
            looks.append(pixels.shape[:2])
            torso = [20.0, 30, 100, 150, *[50.0] * 10, 0.80]
            return np.array([torso] if len(looks) == 1 else [], np.float32).reshape(-1, 15)

    detector = load_detector(model, FaceSettings())
    monkeypatch.setattr(detector, "_network", Network())
    assert detector.find(_cloth(1)) == []
    assert looks[1:] == [(96, 96)]


def test_a_pattern_holds_no_face(detector: FaceDetector) -> None:
    assert [face for seed in range(5) for face in detector.find(_cloth(seed))] == []


@pytest.mark.parametrize("size", [(4000, 6000), (300, 450), (1500, 1000), (3000, 300)])
def test_pictures_of_all_sizes_are_looked_at(
    photos: dict[str, bytes], detector: FaceDetector, size: tuple[int, int]
) -> None:
    width, height = size
    canvas = np.full((height, width, 3), 200, np.uint8)
    _with_face(_pixels(photos, "portrait_c"), canvas, width // 20, 0, height // 4)
    (face,) = detector.find(canvas)
    assert abs(face.height / (height / 4) - 1) < 0.3


def test_the_busy_part_holds_the_product_and_leaves_the_wall() -> None:
    wall = np.linspace(150, 230, 1500)[:, None, None] * np.ones((1, 1000, 3))
    pixels = wall.astype(np.uint8)
    assert busy_part(pixels) is None
    pixels[600:900, 300:500] = 40
    box = busy_part(pixels)
    assert box is not None
    assert box.x <= 300 - 40
    assert box.y <= 600 - 40
    assert box.x + box.width >= 540
    assert box.y + box.height >= 940
    assert box.area < 0.3 * 1500 * 1000


def test_a_plain_picture_has_no_face(detector: FaceDetector) -> None:
    assert detector.find(np.full((300, 200, 3), 255, np.uint8)) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 3), (2000, 1)])
def test_tiny_pictures_pass(detector: FaceDetector, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (*size, 3), dtype=np.uint8)
    assert detector.find(pixels) == []
    box = busy_part(pixels)
    assert box is None or box.area <= Box(0, 0, size[1], size[0]).area


def test_res10_finds_the_faces_of_portraits_and_none_below(
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


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    path = tmp_path / "no.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"no\.onnx cannot be loaded"):
        load_detector(path, FaceSettings())
