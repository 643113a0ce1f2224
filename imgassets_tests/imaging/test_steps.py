from __future__ import annotations

import cv2
import numpy as np
import pytest

from imgassets.errors import StepError
from imgassets.imaging.faces import FaceDetector
from imgassets.imaging.image import Pixels
from imgassets.imaging.pipeline import process_image
from imgassets.imaging.worker_protocol import settings_hash
from imgassets.manifests import Outcome
from imgassets.settings import RetailerSettings

USER_STEPS = "imgassets_tests.imaging.user_steps"


def _steps(*steps: str, **sections: dict[str, object]) -> RetailerSettings:
    return RetailerSettings.model_validate({"process": {"steps": steps}, **sections})


def _pixels(file: bytes | None) -> Pixels:
    assert file is not None
    return np.asarray(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def test_without_steps_the_image_is_only_encoded_again(
    photos: dict[str, bytes], detector: FaceDetector
) -> None:
    file, record = process_image(photos["portrait_c"], _steps(), detector)
    assert file != photos["portrait_c"]
    difference = np.abs(_pixels(file).astype(int) - _pixels(photos["portrait_c"]))
    assert difference.mean() < 2
    assert record.outcome == Outcome.OK
    assert (record.face_count, record.trim_ratio) == (None, None)


def test_without_steps_and_with_format_served_the_bytes_are_unchanged(
    photos: dict[str, bytes], detector: FaceDetector
) -> None:
    settings = _steps(encode={"format": "served"})
    file, record = process_image(photos["portrait_c"], settings, detector)
    assert file == photos["portrait_c"]
    assert (record.width, record.height) == _pixels(file).shape[1::-1]


def test_a_step_that_is_not_listed_does_not_run(
    photos: dict[str, bytes], detector: FaceDetector
) -> None:
    file, record = process_image(photos["cutout_c"], _steps("remove_face"), detector)
    assert record.face_removed is True
    assert record.trim_ratio is None
    assert _pixels(file).shape[1] == 600


def test_steps_run_in_the_order_of_the_settings(
    photos: dict[str, bytes], detector: FaceDetector
) -> None:
    sections: dict[str, dict[str, object]] = {"resize": {"size": [200, 300]}}
    last, _ = process_image(
        photos["cutout_c"], _steps("trim", "remove_face", "resize", **sections), detector
    )
    assert _pixels(last).shape == (300, 200, 3)
    _, record = process_image(photos["cutout_c"], _steps("trim", "remove_face"), detector)
    assert record.trim_box is not None
    assert record.kept_box is not None
    assert record.face_cut is not None
    assert record.kept_box[0] == record.trim_box[0]
    assert record.kept_box[1] == record.face_cut
    assert abs(record.face_cut - 394) < 15


def test_user_steps_run_in_the_listed_order(
    photos: dict[str, bytes], detector: FaceDetector
) -> None:
    settings = _steps(
        f"{USER_STEPS}.crop_left_half", f"{USER_STEPS}.invert", encode={"format": "png"}
    )
    file, record = process_image(photos["portrait_c"], settings, detector)
    served = _pixels(photos["portrait_c"])
    wanted = 255 - served[:, : served.shape[1] // 2]
    # Two JPEG decoders differ by a level or two.
    assert np.abs(_pixels(file).astype(int) - wanted).mean() < 1.5
    assert record.kept_box == [0, 0, served.shape[1] // 2, served.shape[0]]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("return_floats", "float32; they must be height x width x 3, uint8"),
        ("return_none", "returned a NoneType; it must return an Image"),
    ],
)
def test_a_step_that_returns_no_valid_image_is_an_error(
    photos: dict[str, bytes], detector: FaceDetector, step: str, message: str
) -> None:
    with pytest.raises(StepError, match=message):
        process_image(photos["cutout_a"], _steps(f"{USER_STEPS}.{step}"), detector)


@pytest.mark.parametrize(
    "path", [f"{USER_STEPS}.not_there", "not.there.at_all", f"{USER_STEPS}.NOT_A_FUNCTION"]
)
def test_a_step_path_that_cannot_be_imported_is_an_error(path: str) -> None:
    with pytest.raises(StepError, match=r"process\.steps: "):
        settings_hash(_steps(path))


def test_the_settings_hash_depends_on_the_steps_and_their_order() -> None:
    hashes = [
        settings_hash(_steps(*steps))
        for steps in (
            (),
            ("trim",),
            ("trim", "resize"),
            ("resize", "trim"),
            (f"{USER_STEPS}.invert",),
        )
    ]
    assert len(set(hashes)) == 5


@pytest.mark.parametrize("steps", [["trim", "trim"], ["sharpen"], ["a.b.", "trim"], ["os system"]])
def test_invalid_steps_are_rejected(steps: list[str]) -> None:
    with pytest.raises(ValueError, match=r"process\.steps"):
        RetailerSettings.model_validate({"process": {"steps": steps}})
