"""ONNX Runtime gives the same faces as OpenCV's `FaceDetectorYN`."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from imgassets.errors import ModelError
from imgassets.imaging.yunet import Network


@pytest.mark.parametrize("side", [96, 250, 384, 640])
@pytest.mark.parametrize("name", ["portrait_a", "portrait_b", "portrait_c", "astronaut"])
def test_the_network_finds_the_same_faces_as_opencv(
    model: Path, photos: dict[str, bytes], name: str, side: int
) -> None:
    image = cv2.imdecode(np.frombuffer(photos[name], np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    scale = side / max(image.shape[:2])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    theirs = cv2.FaceDetectorYN.create(str(model), "", image.shape[1::-1], 0.5, 0.3, 5000)
    _, expected = theirs.detect(image)
    found = Network(model).find(np.asarray(image, np.uint8), 0.5)
    assert expected is not None
    np.testing.assert_allclose(found[:, :14], expected[:, :14], atol=0.05)
    np.testing.assert_allclose(found[:, 14], expected[:, 14], atol=1e-4)


TELEMETRY = """
import contextlib, sys
exec(sys.argv[1])
import imgassets.imaging.yunet, onnxruntime
with contextlib.suppress(Exception):
    onnxruntime.InferenceSession(b"no network")  # a failure, which would be reported
"""


@pytest.mark.parametrize(("earlier", "events"), [("", 0), ("import onnxruntime", 1)])
def test_the_detector_turns_off_the_telemetry_of_onnx_runtime(
    tmp_path: Path, earlier: str, events: int
) -> None:
    """If ONNX Runtime was imported before, only that import is an event."""
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    command = [sys.executable, "-c", TELEMETRY, earlier]
    subprocess.run(command, env=environment, check=True, timeout=60)
    stored = 0
    for file in tmp_path.rglob("onnxruntime.db"):
        with sqlite3.connect(file) as database:
            ((stored,),) = database.execute("SELECT count(*) FROM events")
    assert stored <= events


def test_no_face_is_found_in_a_plain_image(model: Path) -> None:
    found = Network(model).find(np.full((70, 50, 3), 200, np.uint8), 0.5)
    assert found.shape == (0, 15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.replace(b"kps_32", b"kps_64"), "has no output kps_32"),
        (lambda _: b"no network at all", "is not an ONNX file"),
        (
            lambda file: file.replace(b"multi_level_kps.2.conv2.bias", b"another".ljust(28), 1),
            "its last layers are not those of YuNet of 2023",
        ),
    ],
)
def test_a_model_that_is_not_yunet_is_an_error_that_says_what_is_missing(
    model: Path, tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(change(model.read_bytes()))
    with pytest.raises(ModelError, match=message):
        Network(other)
