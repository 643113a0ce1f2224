from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image as PILImage

from imgassets.imaging.decode import decode
from imgassets.imaging.encode import extension
from imgassets.imaging.faces import Face, FaceDetector
from imgassets.imaging.image import Pixels
from imgassets.imaging.pipeline import ImageRecord, process_image
from imgassets.imaging.resize import resize
from imgassets.imaging.worker_protocol import settings_hash
from imgassets.manifests import Outcome
from imgassets.settings import RetailerSettings
from imgassets_tests.imaging.scenes import PORTRAIT_A, PORTRAIT_B, add_person, add_print, plain

SETTINGS = RetailerSettings()
USER_STEPS = "imgassets_tests.imaging.user_steps"


class FakeDetector:
    """Finds the given faces in every image, and records the width and height of its input."""

    def __init__(self, *faces: Face) -> None:
        self.faces = faces
        self.sizes: list[tuple[int, int]] = []

    def find(self, pixels: Pixels) -> list[Face]:
        self.sizes.append((pixels.shape[1], pixels.shape[0]))
        return list(self.faces)


def _face(x: float, y: float, width: float, height: float, score: float = 0.9) -> Face:
    """A face with five landmarks: the corners of its box, and its centre as the nose."""
    right, bottom = x + width, y + height
    nose = (x + width / 2, y + height / 2)
    return Face(x, y, width, height, score, (x, y, right, y, *nose, x, bottom, right, bottom))


def _noise(width: int, height: int) -> Pixels:
    """An image of random pixels, so that each way of shrinking it gives a different result."""
    return np.random.default_rng(5).integers(0, 255, (height, width, 3), dtype=np.uint8)


def _png(pixels: Pixels) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def _with(**sections: dict[str, object]) -> RetailerSettings:
    return RetailerSettings.model_validate(sections)


def _pixels(file: bytes | None) -> Pixels:
    assert file is not None
    return np.asarray(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR), np.uint8)


@pytest.mark.parametrize(
    "name", ["portrait_a", "portrait_b", "portrait_c", "cutout_a", "cutout_c", "astronaut"]
)
def test_no_face_is_found_in_an_image_after_its_face_was_removed(
    photos: dict[str, bytes], detector: FaceDetector, name: str
) -> None:
    # Below a smaller margin, a throat can pass for a chin that the top edge cuts.
    file, record = process_image(photos[name], _with(faces={"margin": 0.14}), detector)
    assert record.outcome == Outcome.OK
    assert record.face_count == 1
    assert record.face_removed is True
    assert record.face_action == "crop"
    assert record.face_box is not None
    assert record.face_cut is not None
    assert record.face_cut > record.face_box[1] + record.face_box[3]
    assert detector.find(_pixels(file)) == []


def test_the_processed_image_has_at_most_the_maximum_side(
    photos: dict[str, bytes], detector: FaceDetector
) -> None:
    file, record = process_image(photos["portrait_b"], SETTINGS, detector)
    height, width = _pixels(file).shape[:2]
    assert (record.width, record.height) == (width, height)
    assert max(width, height) <= 448


def test_the_record_contains_the_part_of_the_served_image_that_is_kept(
    photos: dict[str, bytes], detector: FaceDetector
) -> None:
    file, record = process_image(photos["cutout_c"], SETTINGS, detector)
    assert record.kept_box is not None
    x, y, width, height = record.kept_box
    assert y == record.face_cut
    served = _pixels(photos["cutout_c"])[y : y + height, x : x + width]
    processed = _pixels(file)
    again = cv2.resize(served, processed.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(again.astype(int) - processed).mean() < 4


def test_an_image_without_a_face_is_not_cropped(
    photos: dict[str, bytes], detector: FaceDetector
) -> None:
    _, record = process_image(photos["cutout_no_head"], SETTINGS, detector)
    assert record.outcome == Outcome.OK
    assert (record.face_count, record.face_removed, record.face_cut) == (0, None, None)


def test_a_close_up_has_its_own_outcome(photos: dict[str, bytes], detector: FaceDetector) -> None:
    settings = _with(faces={"min_left": 0.9})
    file, record = process_image(photos["portrait_a"], settings, detector)
    assert file is None
    assert record.outcome == Outcome.TOO_CLOSE
    assert record.face_count == 1
    assert record.face_removed is False


def test_faces_are_not_detected_if_the_action_is_none(
    photos: dict[str, bytes], detector: FaceDetector
) -> None:
    settings = _with(faces={"action": "none"}, trim={"method": "none"}, resize={"max_side": None})
    file, record = process_image(photos["portrait_c"], settings, detector)
    assert record.face_count is None
    assert _pixels(file).shape == _pixels(photos["portrait_c"]).shape


def test_the_trim_is_recorded(
    product: Pixels, jpeg: Callable[[Pixels], bytes], detector: FaceDetector
) -> None:
    file, record = process_image(jpeg(product), _with(trim={"method": "variance"}), detector)
    assert record.trim_box is not None
    assert record.trim_threshold == 250
    assert record.trim_ratio == record.trim_box[2] * record.trim_box[3] / (300 * 400)
    assert _pixels(file).shape == (record.trim_box[3], record.trim_box[2], 3)


def test_equal_input_gives_equal_bytes(photos: dict[str, bytes], detector: FaceDetector) -> None:
    first = process_image(photos["portrait_c"], SETTINGS, detector)
    assert process_image(photos["portrait_c"], SETTINGS, detector) == first


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_a_truncated_jpeg_is_corrupt(
    photos: dict[str, bytes], detector: FaceDetector, share: float
) -> None:
    data = photos["portrait_b"]
    file, record = process_image(data[: int(len(data) * share)], SETTINGS, detector)
    assert file is None
    assert record.outcome == Outcome.CORRUPT
    assert record.error


@pytest.mark.parametrize("data", [b"", b"<html>not here</html>", b"\x00" * 500])
def test_a_file_that_is_not_an_image_has_its_own_outcome(
    data: bytes, detector: FaceDetector
) -> None:
    file, record = process_image(data, SETTINGS, detector)
    assert (file, record.outcome) == (None, Outcome.NOT_AN_IMAGE)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA"])
def test_grey_and_palette_images_are_processed(
    mode: str, product: Pixels, detector: FaceDetector
) -> None:
    image = PILImage.fromarray(product[:, :, ::-1]).convert("L").convert(mode)
    data = io.BytesIO()
    image.save(data, "PNG")
    settings = _with(process={"steps": ["remove_face"]}, encode={"format": "png"})
    file, record = process_image(data.getvalue(), settings, detector)
    assert record.outcome == Outcome.OK
    np.testing.assert_array_equal(_pixels(file), np.asarray(image.convert("RGB"))[:, :, ::-1])


def test_the_settings_hash_depends_only_on_settings_that_change_pixels() -> None:
    plain = settings_hash(SETTINGS)
    assert settings_hash(_with(download={"threads": 3}, checks={"min_success_rate": 0.1})) == plain
    assert settings_hash(_with(faces={"model_source": "/elsewhere.onnx"})) == plain
    assert settings_hash(_with(process={"processes": 3, "timeout_s": 9})) == plain
    for changed in (
        {"faces": {"min_score": 0.8}},
        {"faces": {"model_sha256": "0" * 64}},
        {"resize": {"max_side": 256}},
        {"trim": {"threshold": 100}},
        {"encode": {"quality": 80}},
    ):
        assert settings_hash(RetailerSettings.model_validate(changed)) != plain


def test_the_settings_hash_depends_on_the_order_in_which_the_steps_run() -> None:
    size: dict[str, object] = {"size": [300, 400]}
    ordered = _with(process={"steps": ["remove_face", "trim", "resize"]}, resize=size)
    assert settings_hash(_with(resize=size)) == settings_hash(ordered)
    assert settings_hash(ordered) != settings_hash(SETTINGS)


def test_an_image_with_too_many_pixels_has_its_own_outcome(product: Pixels) -> None:
    detector = FakeDetector()
    file, record = process_image(_png(product), _with(decode={"max_pixels": 119_999}), detector)
    assert file is None
    assert record == ImageRecord(
        outcome=Outcome.TOO_MANY_PIXELS,
        error="300 x 400 pixels, more than 119,999 (decode.max_pixels)",
    )
    assert detector.sizes == []
    _, record = process_image(_png(product), _with(decode={"max_pixels": 120_000}), detector)
    assert record.outcome == Outcome.OK


def test_the_error_of_an_unreadable_file_says_what_is_wrong() -> None:
    _, record = process_image(b"<html>", SETTINGS, FakeDetector())
    assert record == ImageRecord(outcome=Outcome.NOT_AN_IMAGE, error="not a known image format")
    _, record = process_image(_png(_noise(40, 40))[:2000], SETTINGS, FakeDetector())
    assert record.outcome == Outcome.CORRUPT
    assert record.error is not None
    assert "truncated" in record.error
    assert record == ImageRecord(outcome=Outcome.CORRUPT, error=record.error)


STEPS = ["remove_face", "resize"]
SMALL: dict[str, object] = {"detect_side": 64, "first_side": None, "min_left": 0.5}


@pytest.mark.parametrize(
    ("size", "factor", "sections"),
    [
        # The detector needs 64 px of the longer side.
        ((256, 512), 8, {}),
        ((512, 256), 8, {}),
        ((256, 511), 4, {}),
        ((511, 256), 4, {}),
        ((128, 256), 4, {}),
        ((128, 255), 2, {}),
        ((64, 128), 2, {}),
        ((64, 127), 1, {}),
        # The resize needs 32 px of the width, or of the height that a crop leaves.
        ((255, 512), 8, {}),
        ((255, 512), 4, {"resize": {"max_side": 33}}),
        ((255, 512), 4, {"faces": SMALL | {"min_left": 0.49}}),
        ((256, 512), 8, {"faces": SMALL | {"min_left": 0.49}}),
        ((127, 512), 8, {"faces": SMALL | {"min_left": 0.6}}),
        ((63, 256), 4, {}),
        ((63, 256), 2, {"faces": SMALL | {"min_left": 0.3}}),
        ((63, 256), 1, {"faces": SMALL | {"min_left": 0.2}}),
        ((40, 512), 8, {"faces": SMALL | {"action": "blur", "min_left": 0.2}}),
        ((40, 255), 2, {"faces": SMALL | {"action": "blur", "min_left": 0.2}}),
        # A size with different width and height.
        ((256, 520), 8, {"resize": {"size": [32, 200]}}),
        ((255, 520), 4, {"resize": {"size": [32, 60]}}),
        ((130, 520), 8, {"resize": {"size": [200, 32]}}),
        ((130, 520), 4, {"resize": {"size": [200, 33]}}),
        # If no face is detected, the detector needs no size and no crop reduces the height.
        ((40, 256), 8, {"faces": SMALL | {"action": "none"}}),
        ((40, 255), 4, {"faces": SMALL | {"action": "none"}}),
        ((40, 256), 8, {"process": {"steps": ["resize"]}}),
        ((40, 256), 8, {"process": {"steps": ["resize", "remove_face"]}}),
        ((256, 40), 8, {"process": {"steps": ["resize", "trim"]}, "trim": {"method": "none"}}),
        # Full size if it is unknown how much of the image reaches the resize.
        ((256, 512), 1, {"process": {"steps": ["remove_face"]}}),
        ((256, 512), 1, {"process": {"steps": []}}),
        ((256, 512), 1, {"process": {"steps": ["trim", "resize"]}, "trim": {"method": "none"}}),
        ((256, 512), 1, {"process": {"steps": ["remove_face", f"{USER_STEPS}.invert", "resize"]}}),
        ((256, 512), 1, {"resize": {"max_side": None}}),
    ],
)
def test_an_image_is_decoded_as_small_as_detector_and_resize_allow(
    size: tuple[int, int],
    factor: int,
    sections: dict[str, dict[str, object]],
    jpeg: Callable[[Pixels], bytes],
) -> None:
    given: dict[str, dict[str, object]] = {
        "faces": SMALL,
        "resize": {"max_side": 32},
        "process": {"steps": STEPS},
        "encode": {"format": "png"},
    }
    settings = _with(**(given | sections))
    data = jpeg(_noise(*size))
    file, record = process_image(data, settings, FakeDetector())
    wanted = decode(data, settings.decode, lambda _width, _height: factor)
    for step in settings.process.steps:
        if step == "resize":
            wanted = resize(wanted, settings.resize)
        elif step.endswith("invert"):
            wanted = wanted.scaled(255 - wanted.pixels)
    np.testing.assert_array_equal(_pixels(file), wanted.pixels)
    assert (record.width, record.height) == (wanted.width, wanted.height)
    if settings.resize.size is None:
        assert record.kept_box == [0, 0, *size]


def test_a_face_in_an_image_decoded_at_a_quarter_is_recorded_in_served_pixels(
    jpeg: Callable[[Pixels], bytes],
) -> None:
    # A quarter of 1001 px is 251 px; each of them is 3.988 px of the served image.
    detector = FakeDetector(_face(100, 50, 60, 80), _face(10, 20.4, 30.2, 40, 0.8))
    settings = _with(
        faces={"detect_side": 300, "margin": 0.1, "min_left": 0.2},
        resize={"max_side": 60},
        process={"steps": STEPS},
    )
    file, record = process_image(jpeg(_noise(1001, 1600)), settings, detector)
    assert detector.sizes == [(251, 400)]
    assert record.face_boxes == [[399, 200, 239, 320], [40, 80, 120, 160]]
    assert record.face_landmarks == [
        [399, 200, 638, 200, 518, 360, 399, 520, 638, 520],
        [40, 82, 160, 82, 100, 162, 40, 242, 160, 242],
    ]
    assert record.face_cut == 4 * 138
    assert record.kept_box == [0, 552, 1001, 1600 - 552]
    assert (record.width, record.height) == (57, 60)
    assert _pixels(file).shape == (60, 57, 3)


@pytest.mark.parametrize(("height", "outcome"), [(240, Outcome.OK), (244, Outcome.TOO_CLOSE)])
def test_min_left_is_a_share_of_the_height_even_if_the_image_is_decoded_smaller(
    height: float, outcome: Outcome, jpeg: Callable[[Pixels], bytes]
) -> None:
    detector = FakeDetector(_face(10, 0, 50, height / 4))
    settings = _with(
        faces={"detect_side": 64, "margin": 0, "min_left": 0.4},
        resize={"max_side": 32},
        process={"steps": STEPS},
    )
    _, record = process_image(jpeg(_noise(300, 400)), settings, detector)
    assert detector.sizes == [(75, 100)]
    assert record.outcome == outcome
    assert record.face_cut == (240 if outcome == Outcome.OK else None)


def test_a_margin_in_pixels_is_in_served_pixels_even_if_the_image_is_decoded_smaller(
    jpeg: Callable[[Pixels], bytes],
) -> None:
    settings = _with(
        faces={"detect_side": 64, "margin_pixels": 20},
        resize={"max_side": 32},
        process={"steps": STEPS},
    )
    _, record = process_image(jpeg(_noise(300, 400)), settings, FakeDetector(_face(10, 5, 10, 20)))
    assert record.face_cut == 25 * 4 + 20


def test_faces_found_after_other_steps_are_recorded_in_served_pixels() -> None:
    # The part starts at 150, 200; each of its pixels is 2x5 px of the served image.
    settings = _with(
        process={"steps": [f"{USER_STEPS}.narrow_lower_right", "remove_face"]},
        faces={"margin": 0},
        encode={"format": "png"},
    )
    served = _noise(300, 400)
    detector = FakeDetector(_face(11, 5, 20, 10))
    file, record = process_image(_png(served), settings, detector)
    assert detector.sizes == [(75, 40)]
    assert record.face_box == [172, 225, 40, 50]
    assert record.face_landmarks == [[172, 225, 212, 225, 192, 250, 172, 275, 212, 275]]
    assert record.face_cut == 275
    assert record.kept_box == [150, 275, 150, 125]
    assert (record.width, record.height) == (75, 25)
    np.testing.assert_array_equal(_pixels(file), served[275::5, 150::2])


def _remove_face(detector: FaceDetector, **faces: object) -> tuple[bytes | None, ImageRecord]:
    settings = _with(faces=faces, process={"steps": ["remove_face"]}, encode={"format": "png"})
    return process_image(_png(_noise(300, 400)), settings, detector)


LONG, LOW, TINY = (
    # Box to row 150, 153 and 40; with a margin of 0.14, chin at row 164, 154.4 and 42.8.
    _face(10, 50, 60, 100, 0.81236),
    _face(100, 143, 30, 10, 0.93219),
    _face(200, 20, 20, 20, 0.99999),
)


@pytest.mark.parametrize(
    ("faces", "found", "order"),
    [
        ({"margin": 0.14}, [TINY, LOW, LONG], [LONG, LOW, TINY]),
        ({"margin": 0.14}, [LONG, LOW, TINY], [LONG, LOW, TINY]),
        ({"margin": 0}, [TINY, LONG, LOW], [LOW, LONG, TINY]),
        ({"margin_pixels": 9}, [LONG, TINY, LOW], [LOW, LONG, TINY]),
        ({"action": "fill", "margin": 0}, [LONG, TINY, LOW], [LOW, LONG, TINY]),
    ],
)
def test_the_face_with_the_lowest_chin_is_recorded_first(
    faces: dict[str, object], found: list[Face], order: list[Face]
) -> None:
    boxes = {LONG: [10, 50, 60, 100], LOW: [100, 143, 30, 10], TINY: [200, 20, 20, 20]}
    scores = {LONG: 0.8124, LOW: 0.9322, TINY: 1.0}
    _, record = _remove_face(FakeDetector(*found), **faces)
    assert record.face_count == 3
    assert record.face_boxes == [boxes[face] for face in order]
    assert record.face_scores == [scores[face] for face in order]
    assert record.face_landmarks is not None
    assert [marks[:2] for marks in record.face_landmarks] == [boxes[face][:2] for face in order]
    assert record.face_box == boxes[order[0]]
    assert record.face_score == scores[order[0]]


def test_a_face_without_landmarks_is_recorded_with_an_empty_list() -> None:
    _, record = _remove_face(FakeDetector(Face(10, 50, 60, 100, 0.9)))
    assert record.face_box == [10, 50, 60, 100]
    assert record.face_landmarks == [[]]


def test_a_box_is_recorded_in_whole_pixels_even_outside_the_image() -> None:
    _, record = _remove_face(FakeDetector(_face(-10.6, -4.4, 60.6, 100.4)))
    assert record.face_box == [-11, -4, 61, 100]
    assert record.face_landmarks == [[-11, -4, 50, -4, 20, 46, -11, 96, 50, 96]]


TOO_LOW = _face(10, 310, 60, 70)


@pytest.mark.parametrize(
    ("found", "faces", "wanted"),
    [
        ([LONG], {"margin": 0.14}, ("crop", "lowest_chin", 164, True)),
        ([LONG, TOO_LOW], {"margin": 0.14}, ("crop_and_blur", "lowest_that_fits", 164, True)),
        ([LONG, TINY], {"margin": 0}, ("crop_and_blur", "other_person", 40, True)),
        ([LONG], {"action": "blur"}, ("blur", None, None, True)),
        ([LONG], {"action": "pixelate"}, ("pixelate", None, None, True)),
        ([LONG, LOW], {"action": "fill"}, ("fill", None, None, True)),
    ],
)
def test_the_face_action_is_recorded(
    found: list[Face],
    faces: dict[str, object],
    wanted: tuple[str, str | None, int | None, bool],
) -> None:
    file, record = _remove_face(FakeDetector(*found), **faces)
    cut = wanted[2] or 0
    assert (record.outcome, record.error) == (Outcome.OK, None)
    assert (
        record.face_action,
        record.face_rule,
        record.face_cut,
        record.face_removed,
    ) == wanted
    assert record.face_count == len(found)
    assert record.kept_box == [0, cut, 300, 400 - cut]
    assert _pixels(file).shape == (400 - cut, 300, 3)


@pytest.mark.parametrize("action", ["crop", "blur"])
def test_the_record_of_a_printed_face_has_its_box_and_no_cut(
    detector: FaceDetector, action: str
) -> None:
    pixels = plain()
    add_print(pixels, PORTRAIT_A)
    settings = _with(
        faces={"action": action}, process={"steps": ["remove_face"]}, encode={"format": "png"}
    )
    file, record = process_image(_png(pixels), settings, detector)
    assert (record.outcome, record.error) == (Outcome.OK, None)
    assert (record.face_count, record.face_rule, record.face_action) == (1, "printed", "none")
    assert (record.face_removed, record.face_cut) == (None, None)
    assert record.face_box is not None
    x, y, width, height = record.face_box
    assert 300 < x < x + width < 700
    assert 400 < y < y + height < 900
    assert record.face_boxes == [record.face_box]
    assert record.face_score is not None
    assert record.face_score > 0.8
    assert record.kept_box == [0, 0, 1000, 1500]
    np.testing.assert_array_equal(_pixels(file), pixels)


def test_the_record_of_a_person_beside_a_printed_face_has_both_faces_and_the_cut(
    detector: FaceDetector,
) -> None:
    pixels = plain(1400, 1200)
    add_print(pixels[:, :700], PORTRAIT_A)
    add_person(pixels[:, 700:], PORTRAIT_B, 0.12)
    settings = _with(faces={"margin": 0}, process={"steps": ["remove_face"]})
    _, record = process_image(_png(pixels), settings, detector)
    assert (record.face_count, record.face_rule, record.face_removed) == (2, "lowest_chin", True)
    assert record.face_boxes is not None
    person = max(record.face_boxes)
    assert record.face_cut == pytest.approx(person[1] + person[3], abs=2)


@pytest.mark.parametrize(
    ("too_close", "action", "removed"),
    [("skip", "none", False), ("keep", "none", False), ("blur", "blur", True)],
)
def test_a_close_up_is_recorded_as_too_close(too_close: str, action: str, removed: bool) -> None:
    file, record = _remove_face(FakeDetector(TOO_LOW), too_close=too_close)
    assert record.outcome == Outcome.TOO_CLOSE
    assert (
        record.error == "a cut below the chin would leave too little of the image (faces.min_left)"
    )
    assert (record.face_action, record.face_rule) == (action, "too_close")
    assert (record.face_cut, record.face_removed) == (None, removed)
    assert record.face_box == [10, 310, 60, 70]
    if too_close == "skip":
        assert file is None
        assert (record.width, record.height, record.kept_box) == (None, None, None)
    else:
        same = (_pixels(file) == _noise(300, 400)).all()
        assert same == (too_close == "keep")
        assert (record.width, record.height, record.kept_box) == (300, 400, [0, 0, 300, 400])


def test_no_further_step_runs_on_a_skipped_close_up() -> None:
    settings = _with(process={"steps": ["remove_face", f"{USER_STEPS}.return_none"]})
    file, record = process_image(_png(_noise(300, 400)), settings, FakeDetector(TOO_LOW))
    assert (file, record.outcome) == (None, Outcome.TOO_CLOSE)


def test_the_record_of_an_image_without_a_face_has_a_face_count_of_0() -> None:
    file, record = _remove_face(FakeDetector())
    assert record == ImageRecord(
        outcome=Outcome.OK, width=300, height=400, face_count=0, kept_box=[0, 0, 300, 400]
    )
    np.testing.assert_array_equal(_pixels(file), _noise(300, 400))


def test_an_image_without_face_detection_has_no_face_count() -> None:
    detector = FakeDetector(LONG)
    file, record = _remove_face(detector, action="none")
    assert detector.sizes == []
    assert record == ImageRecord(
        outcome=Outcome.OK, width=300, height=400, kept_box=[0, 0, 300, 400]
    )
    np.testing.assert_array_equal(_pixels(file), _noise(300, 400))


@pytest.mark.parametrize("format_", ["jpg", "png", "webp"])
def test_the_format_served_encodes_the_processed_image_in_the_served_format(
    format_: str,
) -> None:
    served = cv2.imencode(f".{format_}", _noise(300, 400))[1].tobytes()
    settings = _with(
        process={"steps": ["remove_face"]}, faces={"margin": 0}, encode={"format": "served"}
    )
    file, record = process_image(served, settings, FakeDetector(LONG))
    assert file is not None
    assert extension(file) == format_
    assert _pixels(file).shape == (250, 300, 3)
    assert (record.width, record.height, record.face_removed) == (300, 250, True)


def test_the_image_is_encoded_in_another_format_even_without_steps(
    jpeg: Callable[[Pixels], bytes],
) -> None:
    settings = _with(process={"steps": []}, encode={"format": "png"})
    file, _ = process_image(jpeg(_noise(30, 40)), settings, FakeDetector())
    assert file is not None
    assert extension(file) == "png"


def test_the_trim_box_is_in_pixels_of_the_image_before_the_trim(product: Pixels) -> None:
    settings = _with(
        process={"steps": [f"{USER_STEPS}.crop_left_half", "trim"]},
        trim={"method": "variance", "blur": 1},
        encode={"format": "png"},
    )
    # The left half is 150 px wide; the product starts at column 70.
    file, record = process_image(_png(product), settings, FakeDetector())
    assert record == ImageRecord(
        outcome=Outcome.OK,
        width=80,
        height=160,
        trim_box=[70, 90, 80, 160],
        trim_threshold=250,
        trim_ratio=80 * 160 / (150 * 400),
        kept_box=[70, 90, 80, 160],
    )
    np.testing.assert_array_equal(_pixels(file), product[90:250, 70:150])


def test_the_record_of_a_cropped_and_trimmed_image_has_face_and_trim(product: Pixels) -> None:
    settings = _with(
        process={"steps": ["remove_face", "trim"]},
        faces={"margin": 0},
        trim={"method": "variance", "blur": 1},
        encode={"format": "png"},
    )
    file, record = process_image(_png(product), settings, FakeDetector(_face(80, 20, 40, 100)))
    assert record.face_box == [80, 20, 40, 100]
    assert (record.face_cut, record.face_removed) == (120, True)
    assert record.trim_box == [70, 0, 100, 130]
    assert record.trim_ratio == 100 * 130 / (300 * 280)
    assert record.kept_box == [70, 120, 100, 130]
    np.testing.assert_array_equal(_pixels(file), product[120:250, 70:170])


def test_the_trim_method_none_trims_and_records_nothing(product: Pixels) -> None:
    settings = _with(process={"steps": ["trim"]}, trim={"method": "none"}, encode={"format": "png"})
    file, record = process_image(_png(product), settings, FakeDetector())
    assert record == ImageRecord(
        outcome=Outcome.OK, width=300, height=400, kept_box=[0, 0, 300, 400]
    )
    np.testing.assert_array_equal(_pixels(file), product)


def test_faces_are_detected_in_the_result_of_the_previous_steps() -> None:
    detector = FakeDetector()
    settings = _with(process={"steps": ["resize", "remove_face"]}, resize={"size": [30, 50]})
    process_image(_png(_noise(300, 400)), settings, detector)
    assert detector.sizes == [(30, 50)]
