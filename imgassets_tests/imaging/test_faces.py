from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from imgassets.imaging.decode import decode
from imgassets.imaging.faces import FaceDetector, busy_part, load_detector
from imgassets.imaging.models import ModelError
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


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    path = tmp_path / "no.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"no\.onnx cannot be loaded"):
        load_detector(path, FaceSettings())
