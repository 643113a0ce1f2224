from __future__ import annotations

import cv2
import numpy as np
import pytest

from imgassets.demo import people
from imgassets.imaging.faces import Face, FaceDetector
from imgassets.imaging.image import Box, Pixels
from imgassets.imaging.prints import find_printed_faces
from imgassets_tests.imaging.scenes import (
    PORTRAIT_A,
    PORTRAIT_B,
    add_person,
    add_print,
    plain,
)

SIZES = pytest.mark.parametrize("size", [(1000, 1500), (1200, 900), (800, 800)])
WHO = pytest.mark.parametrize("who", people.PEOPLE, ids=lambda who: str(who.photo))


@pytest.mark.parametrize(("level", "fill"), [(255, 0.9), (255, 0.6), (225, 0.75)])
@WHO
@SIZES
def test_a_face_on_a_t_shirt_on_a_plain_background_is_printed(
    detector: FaceDetector, who: people.Person, size: tuple[int, int], level: int, fill: float
) -> None:
    pixels = plain(*size, level)
    add_print(pixels, who, fill)
    (face,) = detector.find(pixels)
    assert find_printed_faces(pixels, [face]) == [face]


@pytest.mark.parametrize("level", [255, 225])
@WHO
@SIZES
def test_the_face_of_a_person_is_not_printed(
    detector: FaceDetector, who: people.Person, size: tuple[int, int], level: int
) -> None:
    for tilt in (0, 28):
        pixels = plain(*size, level)
        add_person(pixels, who, 0.12, tilt)
        (face,) = detector.find(pixels)
        assert find_printed_faces(pixels, [face]) == []


@pytest.mark.parametrize("lit_from", [0, 1])
def test_a_background_that_darkens_slowly_is_plain(detector: FaceDetector, lit_from: int) -> None:
    shade = np.linspace(250, 200, (1500, 1000)[lit_from]).astype(np.uint8)
    pixels = plain()
    pixels[:] = shade[:, None, None] if lit_from == 0 else shade[None, :, None]
    add_print(pixels, PORTRAIT_A)
    (face,) = detector.find(pixels)
    assert find_printed_faces(pixels, [face]) == [face]


@pytest.mark.parametrize("coarse", [4, 24])
def test_on_a_background_that_is_not_plain_no_face_is_printed(
    detector: FaceDetector, coarse: int
) -> None:
    small = np.random.default_rng(2).integers(
        90, 200, (1500 // coarse, 1000 // coarse, 3), dtype=np.uint8
    )
    pixels = np.asarray(cv2.resize(small, (1000, 1500), interpolation=cv2.INTER_CUBIC), np.uint8)
    add_print(pixels, PORTRAIT_A)
    (face,) = detector.find(pixels)
    assert find_printed_faces(pixels, [face]) == []


def _ellipse(pixels: Pixels, centre: tuple[float, float], axes: tuple[float, float]) -> None:
    whole = tuple(round(n) for n in centre), tuple(round(n) for n in axes)
    cv2.ellipse(pixels, *whole, 0, 0, 360, (40, 60, 90), -1, cv2.LINE_AA)


def test_below_a_wide_brimmed_hat_a_face_is_not_printed(detector: FaceDetector) -> None:
    pixels = plain()
    add_person(pixels, PORTRAIT_B, 0.12)
    # Lower, to make room for a hat.
    pixels = np.vstack([plain(height=200), pixels[:-200]])
    (face,) = detector.find(pixels)
    middle = face.x + face.width / 2
    _ellipse(pixels, (middle, face.y - 0.1 * face.height), (1.6 * face.width, 0.2 * face.height))
    _ellipse(pixels, (middle, face.y - 0.3 * face.height), (0.6 * face.width, 0.5 * face.height))
    found = detector.find(pixels)
    assert len(found) == 1
    assert find_printed_faces(pixels, found) == []


@pytest.mark.parametrize("hands", [0.9, 0.1])
def test_between_raised_arms_a_face_is_not_printed(detector: FaceDetector, hands: float) -> None:
    pixels = plain()
    add_person(pixels, PORTRAIT_B, 0.1)
    pixels = np.vstack([plain(height=200), pixels[:-200]])
    (face,) = detector.find(pixels)
    middle = face.x + face.width / 2
    for side in (-1, 1):
        shoulder = middle + side * 1.8 * face.width, face.y + 1.6 * face.height
        hand = middle + side * hands * face.width, face.y - 1.1 * face.height
        points = np.array([shoulder, (middle + side * 1.9 * face.width, face.y), hand])
        thick = round(0.5 * face.width)
        cv2.polylines(pixels, [points.astype(np.int32)], False, (80, 100, 160), thick)
    found = detector.find(pixels)
    assert len(found) == 1
    assert find_printed_faces(pixels, found) == []


def test_of_a_person_and_a_print_only_the_print_is_printed(detector: FaceDetector) -> None:
    pixels = plain(1400, 1200)
    add_print(pixels[:, :700], PORTRAIT_A)
    add_person(pixels[:, 700:], PORTRAIT_B, 0.12)
    person, print_ = sorted(detector.find(pixels), key=lambda face: -face.x)
    assert person.x > 700 > print_.x
    assert find_printed_faces(pixels, [person, print_]) == [print_]
    assert find_printed_faces(pixels, [person]) == []


def _worn(width: int = 300, height: int = 400) -> Pixels:
    """A head at the top of a wide body, on white."""
    pixels = plain(width, height)
    pixels[110:, 60:240] = (60, 45, 150)
    pixels[30:120, 125:175] = (120, 150, 200)
    return pixels


HEAD, PRINT = Face(130, 50, 40, 50, 0.9), Face(130, 230, 40, 50, 0.9)


def test_a_print_on_a_worn_shirt_is_printed_and_the_wearer_is_not() -> None:
    pixels = _worn()
    assert find_printed_faces(pixels, [HEAD, PRINT]) == [PRINT]
    other = Face(140, 160, 20, 25, 0.8)
    assert find_printed_faces(pixels, [other, HEAD, PRINT]) == [other, PRINT]
    before = pixels.copy()
    find_printed_faces(pixels, [HEAD, PRINT])
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("child", [Face(170, 230, 30, 40, 0.9), Face(130, 300, 40, 50, 0.9)])
def test_a_child_before_a_person_is_not_printed(child: Face) -> None:
    pixels = _worn()
    assert find_printed_faces(pixels, [HEAD, child]) == []
    assert find_printed_faces(pixels, [child, HEAD, PRINT]) == [PRINT]
    # Nobody's head shows that this is not a print.
    assert find_printed_faces(pixels, [child]) == [child]


def _skirt() -> Pixels:
    """A product that widens downwards from twice to five times the width of `LOW`, on white."""
    pixels = plain(300, 400)
    corners = np.array([(100, 150), (200, 150), (275, 390), (25, 390)])
    cv2.fillPoly(pixels, [corners], (60, 60, 60))
    return pixels


LOW = Face(125, 300, 50, 60, 0.9)


def test_a_face_with_too_little_of_a_product_above_it_is_not_printed() -> None:
    assert find_printed_faces(_skirt(), [LOW]) == [LOW]
    nothing_near, neck, beside = (
        [Box(0, 150, 300, 100)],
        [Box(0, 150, 125, 110), Box(175, 150, 125, 110)],
        [Box(0, 150, 160, 150)],
    )
    for boxes in (nothing_near, neck, beside):
        less = _skirt()
        for box in boxes:
            less[box.y : box.bottom, box.x : box.right] = 255
        assert find_printed_faces(less, [LOW]) == []


@pytest.mark.parametrize("turn", [0, 4])
def test_a_face_in_a_framed_photograph_is_not_printed(turn: float) -> None:
    pixels = plain(300, 400)
    corners = cv2.boxPoints(((150, 200), (220, 320), turn))
    cv2.fillPoly(pixels, [corners.astype(np.int32)], (60, 60, 60))
    assert find_printed_faces(pixels, [Face(130, 200, 40, 50, 0.9)]) == []


def test_a_body_that_touches_the_border_beside_a_face_hides_where_its_head_is() -> None:
    for columns in (slice(0, 240), slice(60, 300), slice(0, 300)):
        pixels = plain(300, 400)
        pixels[100:, columns] = 60
        pixels[30:120, 125:175] = 90
        assert find_printed_faces(pixels, [PRINT]) == []


def test_the_background_counts_beside_and_above_a_face_only() -> None:
    pixels = _worn()
    pixels[300:] = np.random.default_rng(3).integers(0, 255, (100, 300, 3), dtype=np.uint8)
    assert find_printed_faces(pixels, [PRINT]) == [PRINT]
    pixels[200:300, :30] = pixels[300:, :30]
    pixels[200:300, 270:] = pixels[300:, 270:]
    assert find_printed_faces(pixels, [PRINT]) == []


def test_a_product_may_separate_the_background_into_two_parts() -> None:
    pixels = _skirt()
    pixels[:, 146:154] = 60  # hangs on a rope
    assert find_printed_faces(pixels, [LOW]) == [LOW]


@pytest.mark.parametrize(
    "face",
    [
        Face(-20, 200, 40, 50, 0.9),
        Face(280, 200, 40, 50, 0.9),
        Face(-60, 200, 40, 50, 0.9),
        Face(320, 200, 40, 50, 0.9),
        Face(130, -20, 40, 50, 0.9),
        Face(130, 0, 40, 50, 0.9),
        Face(130, 380, 40, 50, 0.9),
        Face(130, 420, 40, 50, 0.9),
        Face(0, 0, 300, 400, 0.9),
        Face(-50, -50, 400, 500, 0.9),
    ],
)
@pytest.mark.parametrize("size", [(300, 400), (30, 40), (3000, 400)])
def test_faces_at_the_border_may_be_asked_for(face: Face, size: tuple[int, int]) -> None:
    assert find_printed_faces(plain(*size), [face]) == []
    noise = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    assert find_printed_faces(noise, [face]) == []


def test_a_print_at_the_lower_border_is_printed() -> None:
    pixels = _worn()
    for face in (Face(130, 350, 40, 50, 0.9), Face(130, 370, 40, 50, 0.9)):
        assert find_printed_faces(pixels, [face]) == [face]


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (2, 2), (5000, 2)])
def test_in_tiny_images_no_face_is_printed(size: tuple[int, int]) -> None:
    pixels = plain(*size)
    assert find_printed_faces(pixels, [Face(0, 0, 1, 1, 0.9), Face(0, 1, 1, 1, 0.9)]) == []


def test_without_faces_none_is_printed() -> None:
    assert find_printed_faces(_worn(), []) == []
