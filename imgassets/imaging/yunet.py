"""The network YuNet: a picture in, all that is like a face out.

Here lives running it: what goes in, and what its outputs mean. Where in a picture it looks, and
what is then taken for a face, is in `faces`.

ONNX Runtime gives the boxes of OpenCV's own `FaceDetectorYN` in a third of its time: 2.0 ms rather
than 5.9 for 256x384 pixels on one core (AMD EPYC; ONNX Runtime 1.32, OpenCV 4.14).
"""

from __future__ import annotations

import math
import os
import threading
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from imgassets.imaging.models import ModelError
from imgassets.imaging.picture import Pixels

# Or ONNX Runtime tells Microsoft about each process and network, from 1.29 on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

# opencv_zoo's file says that its input is 640 pixels square, which OpenCV overlooks and ONNX
# Runtime holds to. Of these two dimensions (field 1, 3 bytes: dim_value 640) names are made
# (dim_param), so that any size will do; a file that has no such input is taken as it is.
_SQUARE = b"\n\x03\x08\x80\x05\n\x03\x08\x80\x05"
_ANY = b"\n\x03\x12\x01h\n\x03\x12\x01w"

_STRIDES = (8, 16, 32)  # pixels between two places of the network's three grids
DIVISOR = 32  # sides are padded to a multiple of this
_NMS_THRESHOLD = 0.3  # opencv_zoo's default, as is the next
_TOP_K = 5000
_MARKS = 5
_ERRORS_ONLY = 3  # or it would say for each size that the outputs are not those of 640 pixels


def padded_area(width: int, height: int) -> int:
    """What the network looks at, in pixels, to find the faces of a picture of that size."""
    return math.prod(-(-side // DIVISOR) * DIVISOR for side in (width, height))


class Network:
    """YuNet (Wu et al., Machine Intelligence Research 2023; opencv_zoo's 2023mar).

    Its outputs are read as OpenCV's `FaceDetectorYN` does (modules/objdetect/src/face_detect.cpp).

    Raises:
        ModelError: the file is no such network.
    """

    def __init__(self, model: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        names = [f"{kind}_{s}" for kind in ("cls", "obj", "bbox", "kps") for s in _STRIDES]
        try:
            self._session = onnxruntime.InferenceSession(
                model.read_bytes().replace(_SQUARE, _ANY),
                options,
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:  # noqa: BLE001  (its errors have no class in common)
            raise _unusable(model, str(error)) from None
        (self._input,) = (entry.name for entry in self._session.get_inputs())
        self._outputs = names
        known = {entry.name for entry in self._session.get_outputs()}
        if not known.issuperset(names):
            raise _unusable(model, "it has other outputs than YuNet's of 2023")

    def find(self, pixels: Pixels, min_score: float) -> NDArray[np.float32]:
        """What is like a face in a picture.

        Args:
            pixels: height x width x 3, uint8, BGR.
            min_score: 0 to 1.

        Returns:
            n x 15: left, top, width, height, x and y of five landmarks (pixels), score; the best
            first, each face once.
        """
        height, width = pixels.shape[:2]
        down, across = (-(-side // DIVISOR) * DIVISOR for side in (height, width))
        planes = np.zeros((1, 3, down, across), np.float32)
        for plane, channel in zip(planes[0], cv2.split(pixels), strict=True):
            plane[:height, :width] = channel
        given = self._session.run(self._outputs, {self._input: planes})
        scales = len(_STRIDES)
        is_face, is_object, boxes, marks = (
            np.concatenate(given[n : n + scales], axis=1)[0] for n in range(0, 4 * scales, scales)
        )
        score = np.clip(is_face[:, 0], 0, 1) * np.clip(is_object[:, 0], 0, 1)
        places = np.flatnonzero(score >= min_score**2)
        if places.size == 0:
            return np.empty((0, 4 + 2 * _MARKS + 1), np.float32)
        corner, stride = (known[places] for known in _grids(across, down))
        size = np.exp(boxes[places, 2:]) * stride
        left_top = corner + boxes[places, :2] * stride - size / 2
        landmarks = marks[places] * stride + np.tile(corner, _MARKS)
        faces = np.concatenate(
            (left_top, size, landmarks, np.sqrt(score[places, None])), axis=1, dtype=np.float32
        )
        # Whole pixels, as OpenCV compares them.
        whole = faces[:, :4].astype(np.int32).tolist()
        scores = faces[:, -1].tolist()
        kept = cv2.dnn.NMSBoxes(whole, scores, min_score, _NMS_THRESHOLD, 1.0, _TOP_K)
        return faces[np.asarray(kept, np.intp).reshape(-1)]


_loading = threading.Lock()


def shared_network(model: Path) -> Network:
    """The network of a file, loaded once for all detectors and threads of this process.

    Raises:
        ModelError: the file is no such network.
    """
    with _loading:
        return _loaded(model)


_loaded = lru_cache(maxsize=2)(Network)


@lru_cache(256)
def _grids(width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The places that the outputs speak of, all grids one after the other.

    Returns:
        n x 2: left and top of the place, pixels; n x 1: its stride.
    """
    corners, strides = [], []
    for stride in _STRIDES:
        down, across = np.mgrid[0:height:stride, 0:width:stride].reshape(2, -1)
        corners.append(np.stack((across, down), axis=1))
        strides.append(np.full((across.size, 1), stride))
    return (
        np.concatenate(corners, dtype=np.float32),
        np.concatenate(strides, dtype=np.float32),
    )


def _unusable(model: Path, why: str) -> ModelError:
    return ModelError(
        f"the face model {model} cannot be loaded: {why}; set faces.model_source to a yunet model"
    )
