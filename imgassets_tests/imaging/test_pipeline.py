from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image

from imgassets.imaging.faces import FaceDetector
from imgassets.imaging.job import settings_hash
from imgassets.imaging.picture import Pixels
from imgassets.imaging.pipeline import process_picture
from imgassets.manifests import Outcome
from imgassets.settings import RetailerSettings

SETTINGS = RetailerSettings()


def _with(**sections: dict[str, object]) -> RetailerSettings:
    return RetailerSettings.model_validate(sections)


def _pixels(file: bytes | None) -> Pixels:
    assert file is not None
    return np.asarray(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR), np.uint8)


@pytest.mark.parametrize(
    "name", ["portrait_a", "portrait_b", "portrait_c", "cutout_a", "cutout_c", "astronaut"]
)
def test_no_face_is_found_in_a_picture_that_had_one(
    photos: dict[str, bytes], detector: FaceDetector, name: str
) -> None:
    file, record = process_picture(photos[name], SETTINGS, detector)
    assert record.outcome == Outcome.OK
    assert record.face_count == 1
    assert record.face_removed is True
    assert record.face_action == "crop"
    assert record.face_box is not None
    assert record.face_cut is not None
    assert record.face_cut > record.face_box[1] + record.face_box[3]
    assert detector.find(_pixels(file)) == []


def test_the_picture_made_is_at_most_the_largest_side(
    photos: dict[str, bytes], detector: FaceDetector
) -> None:
    file, record = process_picture(photos["portrait_b"], SETTINGS, detector)
    height, width = _pixels(file).shape[:2]
    assert (record.width, record.height) == (width, height)
    assert max(width, height) <= 448


def test_the_record_says_what_part_of_the_served_picture_is_kept(
    photos: dict[str, bytes], detector: FaceDetector
) -> None:
    file, record = process_picture(photos["cutout_c"], SETTINGS, detector)
    assert record.kept_box is not None
    x, y, width, height = record.kept_box
    assert y == record.face_cut
    served = _pixels(photos["cutout_c"])[y : y + height, x : x + width]
    made = _pixels(file)
    again = cv2.resize(served, made.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(again.astype(int) - made).mean() < 4


def test_a_picture_without_a_face_keeps_its_height(
    photos: dict[str, bytes], detector: FaceDetector
) -> None:
    _, record = process_picture(photos["cutout_no_head"], SETTINGS, detector)
    assert record.outcome == Outcome.OK
    assert (record.face_count, record.face_removed, record.face_cut) == (0, None, None)


def test_a_close_up_is_an_outcome(photos: dict[str, bytes], detector: FaceDetector) -> None:
    settings = _with(faces={"min_left": 0.9})
    file, record = process_picture(photos["portrait_a"], settings, detector)
    assert file is None
    assert record.outcome == Outcome.TOO_CLOSE
    assert record.face_count == 1
    assert record.face_removed is False


def test_faces_are_not_looked_for_where_the_action_is_none(
    photos: dict[str, bytes], detector: FaceDetector
) -> None:
    settings = _with(faces={"action": "none"}, trim={"method": "none"}, resize={"max_side": None})
    file, record = process_picture(photos["portrait_c"], settings, detector)
    assert record.face_count is None
    assert _pixels(file).shape == _pixels(photos["portrait_c"]).shape


def test_the_trim_is_recorded(
    product: Pixels, jpeg: Callable[[Pixels], bytes], detector: FaceDetector
) -> None:
    file, record = process_picture(jpeg(product), _with(trim={"method": "variance"}), detector)
    assert record.trim_box is not None
    assert record.trim_threshold == 250
    assert record.trim_ratio == record.trim_box[2] * record.trim_box[3] / (300 * 400)
    assert _pixels(file).shape == (record.trim_box[3], record.trim_box[2], 3)


def test_equal_input_gives_equal_bytes(photos: dict[str, bytes], detector: FaceDetector) -> None:
    first = process_picture(photos["portrait_c"], SETTINGS, detector)
    assert process_picture(photos["portrait_c"], SETTINGS, detector) == first


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_a_truncated_jpeg_is_corrupt(
    photos: dict[str, bytes], detector: FaceDetector, share: float
) -> None:
    data = photos["portrait_b"]
    file, record = process_picture(data[: int(len(data) * share)], SETTINGS, detector)
    assert file is None
    assert record.outcome == Outcome.CORRUPT
    assert record.error


@pytest.mark.parametrize("data", [b"", b"<html>not here</html>", b"\x00" * 500])
def test_what_is_no_picture_is_told(data: bytes, detector: FaceDetector) -> None:
    file, record = process_picture(data, SETTINGS, detector)
    assert (file, record.outcome) == (None, Outcome.NOT_AN_IMAGE)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA"])
def test_grey_and_palette_pictures_pass(mode: str, product: Pixels, detector: FaceDetector) -> None:
    image = io.BytesIO()
    Image.fromarray(product[:, :, ::-1]).convert("L").convert(mode).save(image, "PNG")
    file, record = process_picture(image.getvalue(), SETTINGS, detector)
    assert record.outcome == Outcome.OK
    assert _pixels(file).shape[2] == 3


def test_the_settings_hash_follows_what_changes_pixels_and_nothing_else() -> None:
    plain = settings_hash(SETTINGS)
    assert settings_hash(_with(download={"threads": 3}, checks={"min_success_rate": 0.1})) == plain
    assert settings_hash(_with(faces={"model_source": "/elsewhere.onnx"})) == plain
    for changed in (
        {"faces": {"min_score": 0.8}},
        {"faces": {"model_sha256": "0" * 64}},
        {"resize": {"max_side": 256}},
        {"trim": {"threshold": 100}},
        {"encode": {"quality": 80}},
    ):
        assert settings_hash(RetailerSettings.model_validate(changed)) != plain
