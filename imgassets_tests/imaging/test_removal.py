from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import pytest

from imgassets.imaging.decode import decode
from imgassets.imaging.faces import Face, FaceDetector
from imgassets.imaging.picture import Picture, Pixels
from imgassets.imaging.removal import remove
from imgassets.settings import DecodeSettings, FaceSettings


def _picture(height: int = 400, width: int = 300) -> Picture:
    random = np.random.default_rng(3)
    return Picture(random.integers(0, 255, (height, width, 3), dtype=np.uint8), (width, height))


def _face(y: float, height: float = 50, x: float = 100) -> Face:
    return Face(x, y, 40, height, 0.9)


def test_a_crop_cuts_a_share_of_the_face_below_the_chin() -> None:
    picture = _picture()
    made = remove(picture, [_face(50)], FaceSettings(margin=0.1))
    assert made.picture is not None
    assert made.picture.height == 400 - 105
    assert (made.picture.pixels == picture.pixels[105:]).all()
    assert (made.action, made.rule, made.removed) == ("crop", "lowest_chin", True)


def test_a_margin_in_pixels_is_one_of_the_served_picture() -> None:
    picture = _picture()
    half = Picture(picture.pixels, (600, 800), scale_x=2, scale_y=2)
    made = remove(half, [_face(50)], FaceSettings(margin_pixels=10))
    assert made.picture is not None
    assert made.picture.height == 400 - 105


def test_the_lowest_chin_decides() -> None:
    made = remove(_picture(), [_face(50), _face(150), _face(20)], FaceSettings(margin=0))
    assert made.picture is not None
    assert made.picture.height == 200
    assert made.rule == "lowest_chin"


def test_a_face_too_low_for_a_cut_is_blurred_below_the_lowest_cut_that_fits() -> None:
    picture = _picture()
    made = remove(picture, [_face(50), _face(300)], FaceSettings(margin=0, min_left=0.5))
    assert made.picture is not None
    assert (made.action, made.rule, made.removed) == ("crop_and_blur", "lowest_that_fits", True)
    assert made.picture.height == 300
    before, after = picture.pixels[100:].astype(int), made.picture.pixels.astype(int)
    assert np.abs(before - after)[205:245, 105:135].std(axis=(0, 1)).min() > 10
    assert (before[:180] == after[:180]).all()
    assert after[210:240, 110:130].std() < 20


@pytest.mark.parametrize(
    ("too_close", "kept", "action", "removed"),
    [("skip", False, "none", False), ("keep", True, "none", False), ("blur", True, "blur", True)],
)
def test_a_close_up_is_done_with_as_the_settings_say(
    too_close: Literal["skip", "keep", "blur"], kept: bool, action: str, removed: bool
) -> None:
    picture = _picture()
    made = remove(picture, [_face(60, 330)], FaceSettings(too_close=too_close))
    assert made.too_close
    assert (made.picture is not None, made.action, made.removed) == (kept, action, removed)
    if too_close == "keep":
        assert made.picture is picture


def test_a_chin_above_the_picture_cuts_nothing() -> None:
    made = remove(_picture(), [_face(-80, 50)], FaceSettings())
    assert made.picture is not None
    assert made.picture.height == 400


def _photo(photos: dict[str, bytes], name: str) -> Picture:
    return decode(photos[name], DecodeSettings())


@pytest.mark.parametrize("action", ["blur", "pixelate", "fill"])
@pytest.mark.parametrize(
    "name", ["portrait_a", "portrait_b", "cutout_a", "cutout_c", "astronaut", "cutout_astronaut"]
)
def test_a_covered_face_is_found_no_more_and_the_rest_is_untouched(
    photos: dict[str, bytes],
    detector: FaceDetector,
    name: str,
    action: Literal["blur", "pixelate", "fill"],
) -> None:
    picture = _photo(photos, name)
    before = picture.pixels.copy()
    faces = detector.find(picture.pixels)
    made = remove(picture, faces, FaceSettings(action=action))
    assert (picture.pixels == before).all()
    assert made.picture is not None
    assert made.action == action
    assert detector.find(made.picture.pixels) == []
    (face,) = faces
    changed = np.argwhere((made.picture.pixels != before).any(axis=2))
    top, left = changed.min(axis=0)
    bottom, right = changed.max(axis=0)
    assert left >= face.x - 0.2 * face.width
    assert top >= face.y - 0.2 * face.height
    assert right <= face.x + 1.2 * face.width
    assert bottom <= face.y + 1.2 * face.height


def test_a_fill_has_the_colour_of_the_settings() -> None:
    made = remove(_picture(), [_face(100)], FaceSettings(action="fill", fill=(10, 20, 30)))
    assert made.picture is not None
    assert made.picture.pixels[125, 120].tolist() == [30, 20, 10]


def test_a_face_that_reaches_beyond_the_picture_is_covered_as_far_as_it_shows() -> None:
    picture = _picture()
    made = remove(picture, [Face(-20, -20, 60, 60, 0.9)], FaceSettings(action="fill"))
    assert made.picture is not None
    assert made.picture.pixels[5, 5].tolist() == [255, 255, 255]
    assert made.picture.pixels.shape == picture.pixels.shape


def test_a_detector_of_a_photo_upside_down_finds_no_face_after_the_crop(
    photos: dict[str, bytes], detector: FaceDetector
) -> None:
    picture = _photo(photos, "portrait_c")
    made = remove(picture, detector.find(picture.pixels), FaceSettings())
    assert made.picture is not None
    turned: Pixels = np.asarray(cv2.rotate(made.picture.pixels, cv2.ROTATE_180), np.uint8)
    assert detector.find(turned) == []
