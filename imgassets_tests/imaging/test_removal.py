from __future__ import annotations

from dataclasses import replace
from typing import Literal

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from imgassets.imaging.decode import decode
from imgassets.imaging.faces import Face, FaceDetector
from imgassets.imaging.image import Box, Image, Pixels
from imgassets.imaging.removal import chin, remove
from imgassets.settings import DecodeSettings, FaceSettings


def _picture(height: int = 400, width: int = 300) -> Image:
    random = np.random.default_rng(3)
    return Image(random.integers(0, 255, (height, width, 3), dtype=np.uint8), (width, height))


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
    half = Image(picture.pixels, (600, 800), scale_x=2, scale_y=2)
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


def _photo(photos: dict[str, bytes], name: str) -> Image:
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


def test_no_face_is_found_upside_down_after_the_crop_where_one_was_before(
    photos: dict[str, bytes], detector: FaceDetector
) -> None:
    picture = _photo(photos, "astronaut")
    made = remove(picture, detector.find(picture.pixels), FaceSettings())
    assert made.picture is not None
    before, after = (
        np.asarray(cv2.rotate(pixels, cv2.ROTATE_180), np.uint8)
        for pixels in (picture.pixels, made.picture.pixels)
    )
    assert len(detector.find(before)) == 1
    assert detector.find(after) == []


@pytest.mark.parametrize(
    ("face", "settings", "row"),
    [
        (_face(50), FaceSettings(), 107.0),
        (_face(50), FaceSettings(margin=0), 100.0),
        (_face(-30, 80), FaceSettings(margin=0.5), 90.0),
        (_face(50), FaceSettings(margin_pixels=30), 110.0),
        (_face(50), FaceSettings(margin=0.5, margin_pixels=0), 100.0),
    ],
)
def test_the_chin_is_the_end_of_the_box_and_the_margin(
    face: Face, settings: FaceSettings, row: float
) -> None:
    picture = replace(_picture(), scale_x=2.0, scale_y=3.0)
    assert chin(face, picture, settings) == pytest.approx(row)


@pytest.mark.parametrize(
    ("y", "min_left", "cut"),
    [
        (150.0, 0.5, 200),
        (150.1, 0.5, None),
        (149.2, 0.5, 200),
        (349, 0, 399),
        (349.1, 0, None),
        (349, 0.002, 399),
        (348.5, 0.005, None),
        (348, 0.005, 398),
    ],
)
def test_a_cut_leaves_at_least_min_left_of_the_height_and_one_row(
    y: float, min_left: float, cut: int | None
) -> None:
    picture = _picture()
    made = remove(picture, [_face(y)], FaceSettings(margin=0, min_left=min_left))
    assert made.too_close is (cut is None)
    if cut is None:
        assert (made.picture, made.action, made.rule) == (None, "none", "too_close")
        assert (made.cut, made.removed) == (False, False)
    else:
        assert made.picture is not None
        np.testing.assert_array_equal(made.picture.pixels, picture.pixels[cut:])
        assert made.picture.served_box == Box(0, cut, 300, 400 - cut)
        assert (made.action, made.rule) == ("crop", "lowest_chin")
        assert (made.cut, made.removed) == (True, True)


def _changed(before: Image, after: Image | None) -> NDArray[np.bool_]:
    """Where two images of the same size differ."""
    assert after is not None
    changed: NDArray[np.bool_] = (before.pixels != after.pixels).any(axis=2)
    return changed


def _ellipse(x: float, y: float, across: float, down: float) -> NDArray[np.bool_]:
    """The pixels of `_picture` whose centre lies in an ellipse; x, y is its middle."""
    rows, columns = np.mgrid[0.5:400, 0.5:300]
    inside: NDArray[np.bool_] = ((columns - x) / across) ** 2 + ((rows - y) / down) ** 2 <= 1
    return inside


@pytest.mark.parametrize("action", ["blur", "pixelate", "fill"])
@pytest.mark.parametrize(
    ("face", "ellipse"),
    [
        (Face(100, 100, 40, 50, 0.9), (120, 125, 26, 32.5)),
        (Face(81.3, 60.4, 60.6, 30.2, 0.9), (111.6, 75.5, 39.39, 19.63)),
        (Face(-20, -30, 60, 70, 0.9), (10, 5, 39, 45.5)),
        (Face(260, 350, 60, 90, 0.9), (290, 395, 39, 58.5)),
    ],
)
def test_the_cover_is_an_ellipse_a_third_larger_than_the_box(
    action: Literal["blur", "pixelate", "fill"],
    face: Face,
    ellipse: tuple[float, float, float, float],
) -> None:
    picture = _picture()
    made = remove(picture, [face], FaceSettings(action=action))
    np.testing.assert_array_equal(_changed(picture, made.picture), _ellipse(*ellipse))
    assert (made.action, made.rule, made.cut, made.removed) == (action, None, False, True)


def test_pixels_whose_centres_lie_on_the_edge_of_the_ellipse_belong_to_it() -> None:
    picture = _picture()
    # The middle of pixel 113 is that of the ellipse, and its radius is 13 pixels.
    made = remove(picture, [Face(103.5, 103.5, 20, 20, 0.9)], FaceSettings(action="blur"))
    places = np.argwhere(_changed(picture, made.picture))
    assert places.min(axis=0).tolist() == [100, 100]
    assert places.max(axis=0).tolist() == [126, 126]


@pytest.mark.parametrize("action", ["blur", "fill"])
@pytest.mark.parametrize(
    ("x", "y"),
    [(-46, 100), (-90, 100), (306, 100), (360, 100), (100, -61), (100, -90), (100, 407.5)],
)
def test_a_face_outside_of_the_picture_changes_nothing_and_the_next_one_is_covered(
    action: Literal["blur", "fill"], x: float, y: float
) -> None:
    picture = _picture()
    faces = [Face(x, y, 40, 50, 0.9), Face(100, 100, 40, 50, 0.9)]
    made = remove(picture, faces, FaceSettings(action=action))
    changed = _changed(picture, made.picture)
    np.testing.assert_array_equal(changed, _ellipse(120, 125, 26, 32.5))


def test_all_faces_are_covered() -> None:
    picture = _picture()
    made = remove(picture, [_face(50), _face(150), _face(300)], FaceSettings(action="blur"))
    wanted = [_ellipse(120, y + 25, 26, 32.5) for y in (50, 150, 300)]
    np.testing.assert_array_equal(_changed(picture, made.picture), np.logical_or.reduce(wanted))


_TALL = Face(106, 112, 40, 80, 0.9)
"""A face whose cover is 52 pixels wide, from column 100 on."""


def _middle_row(pixels: Pixels, action: Literal["blur", "pixelate"]) -> list[int]:
    """Row 152 of an image of tones, where the cover of `_TALL` is widest."""
    made = remove(Image(pixels, (300, 400)), [_TALL], FaceSettings(action=action))
    assert made.picture is not None
    row: list[int] = made.picture.pixels[152, 101:151, 0].tolist()
    return row


def _stripes(width: float) -> Pixels:
    """Dark (50) and light (200) stripes of a width; column 100 begins a dark one."""
    light = (np.arange(300) - 100) // width % 2 == 1
    row = np.where(light, 200, 50).astype(np.uint8)
    return np.broadcast_to(row[None, :, None], (400, 300, 3)).copy()


def test_a_blurred_face_keeps_two_tones_that_flow_into_each_other() -> None:
    assert set(_middle_row(_stripes(13), "blur")) == {125}
    row = _middle_row(_stripes(26), "blur")
    assert row[0] == pytest.approx(35, abs=2)
    assert row[-1] == pytest.approx(215, abs=2)
    assert row[24:26] == pytest.approx([122, 128], abs=2)
    assert max(np.diff(row)) <= 8


def test_a_pixelated_face_keeps_four_squares_across() -> None:
    row = _middle_row(_stripes(13), "pixelate")
    assert row == [50] * 12 + [200] * 13 + [50] * 13 + [200] * 12
    # Eight stripes are averaged in pairs.
    assert np.ptp(_middle_row(_stripes(6.5), "pixelate")) < 15


def test_blurred_and_pixelated_faces_keep_their_colours() -> None:
    pixels = np.full((400, 300, 3), (10, 90, 170), np.uint8)
    for action in ("blur", "pixelate"):
        made = remove(Image(pixels, (300, 400)), [_TALL], FaceSettings(action=action))
        assert made.picture is not None
        np.testing.assert_array_equal(made.picture.pixels, pixels)


def test_a_face_that_straddles_the_cut_is_blurred_below_it() -> None:
    picture = _picture()
    faces = [_face(50), _face(70, 240), _face(310, 60, x=200), _face(20, 20)]
    made = remove(picture, faces, FaceSettings(margin=0, min_left=0.5))
    assert made.picture is not None
    assert (made.action, made.rule) == ("crop_and_blur", "lowest_that_fits")
    assert (made.cut, made.removed) == (True, True)
    assert made.picture.served_box == Box(0, 100, 300, 300)
    left = picture.cut(Box(0, 100, 300, 300))
    wanted = _ellipse(120, 190, 26, 156) | _ellipse(220, 340, 26, 39)
    np.testing.assert_array_equal(_changed(left, made.picture), wanted[100:])
    assert made.picture.pixels[60:120, 115:125].std() < 30


def test_what_is_covered_below_a_cut_is_blurred_and_not_filled() -> None:
    faces = [_face(50), _face(300)]
    made = remove(_picture(), faces, FaceSettings(margin=0, min_left=0.5, fill=(0, 0, 0)))
    assert made.picture is not None
    assert made.picture.pixels[225, 120].min() > 50


def test_all_faces_of_a_close_up_are_blurred_where_the_settings_say_so() -> None:
    picture = _picture()
    faces = [_face(330), _face(340, x=30)]
    made = remove(picture, faces, FaceSettings(too_close="blur"))
    assert (made.action, made.rule, made.cut, made.removed) == ("blur", "too_close", False, True)
    wanted = _ellipse(120, 355, 26, 32.5) | _ellipse(50, 365, 26, 32.5)
    np.testing.assert_array_equal(_changed(picture, made.picture), wanted)


@pytest.mark.parametrize("too_close", ["keep", "skip"])
def test_a_close_up_that_is_kept_or_skipped_keeps_its_face(
    too_close: Literal["keep", "skip"],
) -> None:
    made = remove(_picture(), [_face(340)], FaceSettings(too_close=too_close))
    assert (made.action, made.rule, made.cut, made.removed) == ("none", "too_close", False, False)


def test_the_action_none_leaves_picture_and_face() -> None:
    picture = _picture()
    made = remove(picture, [_face(50)], FaceSettings(action="none"))
    assert made.picture is picture
    assert (made.action, made.rule, made.cut, made.removed) == ("none", None, False, False)
    assert not made.too_close


@pytest.mark.parametrize("settings", [FaceSettings(), FaceSettings(action="fill")])
def test_the_picture_given_stays_as_it_is(settings: FaceSettings) -> None:
    picture = _picture()
    before = picture.pixels.copy()
    faces = [_face(50), _face(300)]
    remove(picture, faces, settings)
    np.testing.assert_array_equal(picture.pixels, before)
    assert faces == [_face(50), _face(300)]
