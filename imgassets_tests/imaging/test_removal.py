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
from imgassets.imaging.removal import chin_row, remove_faces
from imgassets.settings import DecodeSettings, FaceSettings
from imgassets_tests.imaging.scenes import PORTRAIT_A, PORTRAIT_B, add_person, add_print, plain


def _image(height: int = 400, width: int = 300) -> Image:
    random = np.random.default_rng(3)
    return Image(random.integers(0, 255, (height, width, 3), dtype=np.uint8), (width, height))


def _face(y: float, height: float = 50, x: float = 100) -> Face:
    return Face(x, y, 40, height, 0.9)


def test_a_crop_starts_a_share_of_the_face_height_below_the_chin() -> None:
    image = _image()
    removal = remove_faces(image, [_face(50)], FaceSettings(margin=0.1))
    assert removal.image is not None
    assert removal.image.height == 400 - 105
    assert (removal.image.pixels == image.pixels[105:]).all()
    assert (removal.action, removal.rule, removal.removed) == ("crop", "lowest_chin", True)


def test_a_margin_in_pixels_is_in_pixels_of_the_original_image() -> None:
    image = _image()
    half = Image(image.pixels, (600, 800), scale_x=2, scale_y=2)
    removal = remove_faces(half, [_face(50)], FaceSettings(margin_pixels=10))
    assert removal.image is not None
    assert removal.image.height == 400 - 105


def test_the_crop_is_below_the_lowest_chin_if_it_may_be_far_below_the_others() -> None:
    settings = FaceSettings(margin=0, max_extra_cut=9)
    removal = remove_faces(_image(), [_face(50), _face(150), _face(20)], settings)
    assert removal.image is not None
    assert removal.image.height == 200
    assert (removal.action, removal.rule) == ("crop", "lowest_chin")


def test_a_face_too_low_for_a_crop_is_blurred_below_the_lowest_crop_that_fits() -> None:
    image = _image()
    removal = remove_faces(image, [_face(50), _face(300)], FaceSettings(margin=0, min_left=0.5))
    assert removal.image is not None
    assert (removal.action, removal.rule, removal.removed) == (
        "crop_and_blur",
        "lowest_that_fits",
        True,
    )
    assert removal.image.height == 300
    before, after = image.pixels[100:].astype(int), removal.image.pixels.astype(int)
    assert np.abs(before - after)[205:245, 105:135].std(axis=(0, 1)).min() > 10
    assert (before[:180] == after[:180]).all()
    assert after[210:240, 110:130].std() < 20


@pytest.mark.parametrize(
    ("too_close", "kept", "action", "removed"),
    [("skip", False, "none", False), ("keep", True, "none", False), ("blur", True, "blur", True)],
)
def test_a_close_up_is_handled_as_the_settings_say(
    too_close: Literal["skip", "keep", "blur"], kept: bool, action: str, removed: bool
) -> None:
    image = _image()
    removal = remove_faces(image, [_face(60, 330)], FaceSettings(too_close=too_close))
    assert removal.too_close
    assert (removal.image is not None, removal.action, removal.removed) == (kept, action, removed)
    if too_close == "keep":
        assert removal.image is image


def test_a_chin_above_the_image_crops_nothing() -> None:
    removal = remove_faces(_image(), [_face(-80, 50)], FaceSettings())
    assert removal.image is not None
    assert removal.image.height == 400


def _photo(photos: dict[str, bytes], name: str) -> Image:
    return decode(photos[name], DecodeSettings())


@pytest.mark.parametrize("action", ["blur", "pixelate", "fill"])
@pytest.mark.parametrize(
    "name", ["portrait_a", "portrait_b", "cutout_a", "cutout_c", "astronaut", "cutout_astronaut"]
)
def test_a_covered_face_is_no_longer_found_and_the_rest_is_unchanged(
    photos: dict[str, bytes],
    detector: FaceDetector,
    name: str,
    action: Literal["blur", "pixelate", "fill"],
) -> None:
    image = _photo(photos, name)
    before = image.pixels.copy()
    faces = detector.find(image.pixels)
    removal = remove_faces(image, faces, FaceSettings(action=action))
    assert (image.pixels == before).all()
    assert removal.image is not None
    assert removal.action == action
    assert detector.find(removal.image.pixels) == []
    (face,) = faces
    changed = np.argwhere((removal.image.pixels != before).any(axis=2))
    top, left = changed.min(axis=0)
    bottom, right = changed.max(axis=0)
    assert left >= face.x - 0.2 * face.width
    assert top >= face.y - 0.2 * face.height
    assert right <= face.x + 1.2 * face.width
    assert bottom <= face.y + 1.2 * face.height


def test_a_filled_face_has_the_colour_of_the_settings() -> None:
    removal = remove_faces(_image(), [_face(100)], FaceSettings(action="fill", fill=(10, 20, 30)))
    assert removal.image is not None
    assert removal.image.pixels[125, 120].tolist() == [30, 20, 10]


def test_the_visible_part_of_a_face_at_the_edge_is_covered() -> None:
    image = _image()
    removal = remove_faces(image, [Face(-20, -20, 60, 60, 0.9)], FaceSettings(action="fill"))
    assert removal.image is not None
    assert removal.image.pixels[5, 5].tolist() == [255, 255, 255]
    assert removal.image.pixels.shape == image.pixels.shape


def _inside(faces: list[Face]) -> list[Face]:
    """Those that the top edge does not cut: there, a suit upside down may look like a chin."""
    return [face for face in faces if face.y >= 0]


def test_after_a_crop_no_face_is_found_upside_down(
    photos: dict[str, bytes], detector: FaceDetector
) -> None:
    image = _photo(photos, "astronaut")
    removal = remove_faces(image, detector.find(image.pixels), FaceSettings())
    assert removal.image is not None
    before, after = (
        np.asarray(cv2.rotate(pixels, cv2.ROTATE_180), np.uint8)
        for pixels in (image.pixels, removal.image.pixels)
    )
    assert len(_inside(detector.find(before))) == 1
    assert _inside(detector.find(after)) == []


@pytest.mark.parametrize(
    ("face", "settings", "row"),
    [
        (_face(50), FaceSettings(margin=0.14), 107.0),
        (_face(50), FaceSettings(margin=0), 100.0),
        (_face(-30, 80), FaceSettings(margin=0.5), 90.0),
        (_face(50), FaceSettings(margin_pixels=30), 110.0),
        (_face(50), FaceSettings(margin=0.5, margin_pixels=0), 100.0),
    ],
)
def test_the_chin_row_is_the_bottom_of_the_box_plus_the_margin(
    face: Face, settings: FaceSettings, row: float
) -> None:
    image = replace(_image(), scale_x=2.0, scale_y=3.0)
    assert chin_row(face, image, settings) == pytest.approx(row)


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
def test_a_crop_leaves_at_least_min_left_of_the_height_and_one_row(
    y: float, min_left: float, cut: int | None
) -> None:
    image = _image()
    removal = remove_faces(image, [_face(y)], FaceSettings(margin=0, min_left=min_left))
    assert removal.too_close is (cut is None)
    if cut is None:
        assert (removal.image, removal.action, removal.rule) == (None, "none", "too_close")
        assert (removal.cropped, removal.removed) == (False, False)
    else:
        assert removal.image is not None
        np.testing.assert_array_equal(removal.image.pixels, image.pixels[cut:])
        assert removal.image.box_in_original == Box(0, cut, 300, 400 - cut)
        assert (removal.action, removal.rule) == ("crop", "lowest_chin")
        assert (removal.cropped, removal.removed) == (True, True)


def _changed(before: Image, after: Image | None) -> NDArray[np.bool_]:
    """A mask of the pixels in which two images of the same size differ."""
    assert after is not None
    changed: NDArray[np.bool_] = (before.pixels != after.pixels).any(axis=2)
    return changed


def _ellipse(x: float, y: float, across: float, down: float) -> NDArray[np.bool_]:
    """A mask of the pixels of `_image` with their centre in an ellipse around x, y."""
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
    image = _image()
    removal = remove_faces(image, [face], FaceSettings(action=action))
    np.testing.assert_array_equal(_changed(image, removal.image), _ellipse(*ellipse))
    assert (removal.action, removal.rule, removal.cropped, removal.removed) == (
        action,
        None,
        False,
        True,
    )


def test_pixels_with_centres_on_the_edge_of_the_ellipse_are_covered() -> None:
    image = _image()
    # The ellipse is a circle around the centre of pixel 113, with a radius of 13 px.
    removal = remove_faces(image, [Face(103.5, 103.5, 20, 20, 0.9)], FaceSettings(action="blur"))
    places = np.argwhere(_changed(image, removal.image))
    assert places.min(axis=0).tolist() == [100, 100]
    assert places.max(axis=0).tolist() == [126, 126]


@pytest.mark.parametrize("action", ["blur", "fill"])
@pytest.mark.parametrize(
    ("x", "y"),
    [(-46, 100), (-90, 100), (306, 100), (360, 100), (100, -61), (100, -90), (100, 407.5)],
)
def test_a_face_outside_the_image_is_ignored_and_the_next_one_is_covered(
    action: Literal["blur", "fill"], x: float, y: float
) -> None:
    image = _image()
    faces = [Face(x, y, 40, 50, 0.9), Face(100, 100, 40, 50, 0.9)]
    removal = remove_faces(image, faces, FaceSettings(action=action))
    changed = _changed(image, removal.image)
    np.testing.assert_array_equal(changed, _ellipse(120, 125, 26, 32.5))


def test_all_faces_are_covered() -> None:
    image = _image()
    removal = remove_faces(image, [_face(50), _face(150), _face(300)], FaceSettings(action="blur"))
    wanted = [_ellipse(120, y + 25, 26, 32.5) for y in (50, 150, 300)]
    np.testing.assert_array_equal(_changed(image, removal.image), np.logical_or.reduce(wanted))


_TALL = Face(106, 112, 40, 80, 0.9)
"""A face with a cover that is 52 px wide, from column 100."""


def _middle_row(pixels: Pixels, action: Literal["blur", "pixelate"]) -> list[int]:
    """Cover `_TALL` and return row 152, where the cover is widest."""
    removal = remove_faces(Image(pixels, (300, 400)), [_TALL], FaceSettings(action=action))
    assert removal.image is not None
    row: list[int] = removal.image.pixels[152, 101:151, 0].tolist()
    return row


def _stripes(width: float) -> Pixels:
    """Dark (50) and light (200) stripes of a width in pixels; a dark one starts at column 100."""
    light = (np.arange(300) - 100) // width % 2 == 1
    row = np.where(light, 200, 50).astype(np.uint8)
    return np.broadcast_to(row[None, :, None], (400, 300, 3)).copy()


def test_a_blurred_face_keeps_two_tones_with_a_smooth_transition() -> None:
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
        removal = remove_faces(Image(pixels, (300, 400)), [_TALL], FaceSettings(action=action))
        assert removal.image is not None
        np.testing.assert_array_equal(removal.image.pixels, pixels)


def test_a_face_across_the_crop_row_is_blurred_below_it() -> None:
    image = _image()
    faces = [_face(50), _face(70, 240), _face(310, 60, x=200), _face(20, 20)]
    settings = FaceSettings(margin=0, min_left=0.5, max_extra_cut=9)
    removal = remove_faces(image, faces, settings)
    assert removal.image is not None
    assert (removal.action, removal.rule) == ("crop_and_blur", "lowest_that_fits")
    assert (removal.cropped, removal.removed) == (True, True)
    assert removal.image.box_in_original == Box(0, 100, 300, 300)
    rest = image.crop(Box(0, 100, 300, 300))
    wanted = _ellipse(120, 190, 26, 156) | _ellipse(220, 340, 26, 39)
    np.testing.assert_array_equal(_changed(rest, removal.image), wanted[100:])
    assert removal.image.pixels[60:120, 115:125].std() < 30


def test_a_face_below_a_crop_is_blurred_and_not_filled() -> None:
    faces = [_face(50), _face(300)]
    removal = remove_faces(_image(), faces, FaceSettings(margin=0, min_left=0.5, fill=(0, 0, 0)))
    assert removal.image is not None
    assert removal.image.pixels[225, 120].min() > 50


def test_all_faces_of_a_close_up_are_blurred_if_the_settings_say_so() -> None:
    image = _image()
    faces = [_face(330), _face(340, x=30)]
    removal = remove_faces(image, faces, FaceSettings(too_close="blur"))
    assert (removal.action, removal.rule, removal.cropped, removal.removed) == (
        "blur",
        "too_close",
        False,
        True,
    )
    wanted = _ellipse(120, 355, 26, 32.5) | _ellipse(50, 365, 26, 32.5)
    np.testing.assert_array_equal(_changed(image, removal.image), wanted)


@pytest.mark.parametrize("too_close", ["keep", "skip"])
def test_in_a_kept_or_skipped_close_up_no_face_is_removed(
    too_close: Literal["keep", "skip"],
) -> None:
    removal = remove_faces(_image(), [_face(340)], FaceSettings(too_close=too_close))
    assert (removal.action, removal.rule, removal.cropped, removal.removed) == (
        "none",
        "too_close",
        False,
        False,
    )


def test_the_action_none_changes_nothing() -> None:
    image = _image()
    removal = remove_faces(image, [_face(50)], FaceSettings(action="none"))
    assert removal.image is image
    assert (removal.action, removal.rule, removal.cropped, removal.removed) == (
        "none",
        None,
        False,
        False,
    )
    assert not removal.too_close


@pytest.mark.parametrize("settings", [FaceSettings(), FaceSettings(action="fill")])
def test_the_input_is_not_modified(settings: FaceSettings) -> None:
    image = _image()
    before = image.pixels.copy()
    faces = [_face(50), _face(300)]
    remove_faces(image, faces, settings)
    np.testing.assert_array_equal(image.pixels, before)
    assert faces == [_face(50), _face(300)]


def _scored(y: float, score: float, height: float = 50, x: float = 100) -> Face:
    """A face with its chin at row `y + height`; `x` tells those of other people apart."""
    return Face(x, y, 40, height, score)


def _crop(*faces: Face, **settings: float) -> tuple[int, str, str | None]:
    """Crop noise: the row of the cut, the action and the rule; all faces below it are blurred."""
    image = _image()
    removal = remove_faces(image, faces, FaceSettings(margin=0, **settings))
    assert removal.image is not None
    assert (removal.cropped, removal.removed) == (True, True)
    cut = removal.image.box_in_original.y
    rest = image.crop(Box(0, cut, 300, 400 - cut))
    below = [face for face in faces if face.y + face.height > cut]
    covers = [
        _ellipse(
            face.x + face.width / 2,
            face.y + face.height / 2,
            0.65 * face.width,
            0.65 * face.height,
        )
        for face in below
    ]
    wanted = np.logical_or.reduce([*covers, np.zeros((400, 300), bool)])
    np.testing.assert_array_equal(_changed(rest, removal.image), wanted[cut:])
    assert removal.action == ("crop_and_blur" if below else "crop")
    return cut, removal.action, removal.rule


def test_several_chins_at_nearly_the_same_height_are_cut_at_the_lowest() -> None:
    near = [_scored(50, 0.9), _scored(56, 0.95, x=30), _scored(60, 0.99, x=200)]
    assert _crop(*near, max_extra_cut=0.3) == (110, "crop", "lowest_chin")
    assert _crop(*reversed(near), max_extra_cut=0.3) == (110, "crop", "lowest_chin")
    assert _crop(near[0], _scored(50, 0.9, x=30), max_extra_cut=0) == (100, "crop", "lowest_chin")


def test_the_face_of_another_person_far_below_is_blurred() -> None:
    faces = [_scored(50, 0.9), _scored(120, 0.95, x=200)]
    assert _crop(*faces) == (100, "crop_and_blur", "other_person")
    assert _crop(*reversed(faces)) == (100, "crop_and_blur", "other_person")
    # Its own height does not matter, and the highest chin of three decides.
    tall = _scored(-10, 0.95, height=200, x=200)
    assert _crop(faces[0], tall) == (100, "crop_and_blur", "other_person")
    three = [*faces, _scored(180, 0.99, x=20)]
    assert _crop(*three) == (100, "crop_and_blur", "other_person")


def test_a_cut_is_shared_by_the_chins_that_are_near_the_highest() -> None:
    faces = [_scored(50, 0.9), _scored(60, 0.9, x=30), _scored(150, 0.9, x=200)]
    assert _crop(*faces) == (110, "crop_and_blur", "other_person")


def test_how_far_a_cut_may_be_below_a_chin_is_a_share_of_that_face() -> None:
    for height, cut in ((50, 100), (90, 140)):
        high, low = _scored(100 - height, 0.9, height=height), _scored(90, 0.9, x=200)
        assert _crop(high, low, max_extra_cut=0.5)[0] == cut
    faces = [_scored(50, 0.9), _scored(100, 0.9, x=200)]
    assert _crop(*faces, max_extra_cut=0.99) == (100, "crop_and_blur", "other_person")
    assert _crop(*faces, max_extra_cut=1) == (150, "crop", "lowest_chin")


def test_a_doubtful_face_above_a_clear_one_does_not_raise_the_cut() -> None:
    doubtful, clear = _scored(10, 0.76, x=220), _scored(150, 0.95)
    assert _crop(doubtful, clear) == (200, "crop", "lowest_chin")
    assert _crop(clear, doubtful) == (200, "crop", "lowest_chin")


def test_a_doubtful_face_below_a_clear_one_is_blurred() -> None:
    clear, doubtful = _scored(50, 0.95), _scored(220, 0.76, x=150)
    assert _crop(clear, doubtful) == (100, "crop_and_blur", "other_person")


def test_if_all_faces_are_doubtful_the_best_one_counts_as_clear() -> None:
    high, low = _scored(50, 0.70), _scored(220, 0.60, x=150)
    assert _crop(high, low) == (100, "crop_and_blur", "other_person")
    high, low = _scored(50, 0.60), _scored(220, 0.70, x=150)
    assert _crop(high, low) == (270, "crop", "lowest_chin")


def test_a_face_that_the_top_edge_cuts_counts_as_clear() -> None:
    clear = _scored(150, 0.95, x=200)
    assert _crop(_scored(-30, 0.5), clear) == (20, "crop_and_blur", "other_person")
    assert _crop(_scored(0, 0.5), clear) == (200, "crop", "lowest_chin")


def test_of_two_chins_that_fit_and_one_that_does_not_the_shared_cut_is_chosen() -> None:
    low = _scored(320, 0.9, x=20)
    one, near, far = _scored(50, 0.9), _scored(60, 0.9, x=200), _scored(150, 0.9, x=200)
    limits = {"min_left": 0.3}
    assert _crop(one, near, low, **limits) == (110, "crop_and_blur", "lowest_that_fits")
    assert _crop(one, far, low, **limits) == (100, "crop_and_blur", "other_person")


def test_a_clear_face_that_is_too_low_does_not_make_the_fitting_ones_doubtful() -> None:
    low = _scored(320, 0.99, x=20)
    high, lower = _scored(50, 0.7), _scored(150, 0.6, x=200)
    assert _crop(high, lower, low, min_left=0.3)[0] == 100


def test_several_faces_that_are_all_too_low_are_too_close() -> None:
    faces = [_scored(250, 0.9), _scored(320, 0.9, x=20)]
    removal = remove_faces(_image(), faces, FaceSettings(min_left=0.5))
    assert removal.too_close
    assert (removal.image, removal.action, removal.removed) == (None, "none", False)


def _worn_print() -> Image:
    """A person's head above a wide body, both with a pattern, on white."""
    pixels = np.full((400, 300, 3), 255, np.uint8)
    random = np.random.default_rng(4)
    pixels[110:, 60:240] = random.integers(20, 120, (290, 180, 3), dtype=np.uint8)
    pixels[30:120, 125:175] = random.integers(60, 160, (90, 50, 3), dtype=np.uint8)
    return Image(pixels, (300, 400))


_HEAD, _PRINT = Face(130, 50, 40, 50, 0.9), Face(130, 230, 40, 50, 0.95)


@pytest.mark.parametrize("action", ["crop", "blur", "pixelate", "fill"])
@pytest.mark.parametrize("too_close", ["skip", "keep", "blur"])
def test_an_image_with_printed_faces_only_is_kept(
    action: Literal["crop", "blur", "pixelate", "fill"],
    too_close: Literal["skip", "keep", "blur"],
) -> None:
    image = _worn_print()
    before = image.pixels.copy()
    faces = [_PRINT, Face(150, 300, 20, 25, 0.8)]
    removal = remove_faces(image, faces, FaceSettings(action=action, too_close=too_close))
    assert removal.image is image
    np.testing.assert_array_equal(image.pixels, before)
    assert (removal.action, removal.rule) == ("none", "printed")
    assert (removal.cropped, removal.removed) == (False, None)
    assert not removal.too_close


def test_with_the_action_none_a_printed_face_is_a_face_that_is_left() -> None:
    removal = remove_faces(_worn_print(), [_PRINT], FaceSettings(action="none"))
    assert (removal.rule, removal.removed) == (None, False)


@pytest.mark.parametrize("action", ["blur", "pixelate", "fill"])
def test_the_face_of_the_wearer_is_covered_and_the_print_is_not(
    action: Literal["blur", "pixelate", "fill"],
) -> None:
    image = _worn_print()
    removal = remove_faces(image, [_PRINT, _HEAD], FaceSettings(action=action, fill=(1, 2, 3)))
    changed = _changed(image, removal.image)
    rows, columns = np.nonzero(changed)
    assert rows.max() < _PRINT.y - 50
    assert changed[60:90, 140:160].all()
    assert columns.min() >= 120
    assert (removal.action, removal.rule, removal.removed) == (action, None, True)


def test_the_cut_is_at_the_chin_of_the_wearer_and_the_print_stays() -> None:
    image = _worn_print()
    removal = remove_faces(image, [_PRINT, _HEAD], FaceSettings(margin=0))
    assert removal.image is not None
    np.testing.assert_array_equal(removal.image.pixels, image.pixels[100:])
    assert (removal.action, removal.rule, removal.removed) == ("crop", "lowest_chin", True)


def test_a_print_too_low_for_a_cut_does_not_make_a_close_up() -> None:
    image = _worn_print()
    removal = remove_faces(image, [_HEAD, _PRINT], FaceSettings(margin=0, min_left=0.6))
    assert removal.image is not None
    assert removal.rule == "lowest_chin"
    assert removal.image.height == 300


def test_the_t_shirt_with_a_printed_portrait_is_kept_and_beside_a_person_cut_at_the_chin(
    detector: FaceDetector,
) -> None:
    pixels = plain(1400, 1200)
    add_print(pixels[:, :700], PORTRAIT_A)
    shirt = Image(pixels.copy(), (1400, 1200))
    assert remove_faces(shirt, detector.find(shirt.pixels), FaceSettings()).image is shirt
    add_person(pixels[:, 700:], PORTRAIT_B, 0.12)
    both = Image(pixels, (1400, 1200))
    person, _ = sorted(detector.find(pixels), key=lambda face: -face.x)
    removal = remove_faces(both, detector.find(pixels), FaceSettings(margin=0))
    assert removal.image is not None
    cut = removal.image.box_in_original.y
    assert cut == pytest.approx(person.y + person.height, abs=1)
    np.testing.assert_array_equal(removal.image.pixels, pixels[cut:])
