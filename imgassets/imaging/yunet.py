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

from imgassets.errors import ModelError
from imgassets.imaging.fuse_heads import HEADS, STRIDES, fused_model_file
from imgassets.imaging.image import Pixels

# Or ONNX Runtime tells Microsoft about each process and network, from 1.29 on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

DIVISOR = 32  # sides are padded to a multiple of this
_NMS_THRESHOLD = 0.3  # opencv_zoo's default, as is the next
_TOP_K = 5000
_MARKS = 5
_CHANNELS = sum(HEADS.values())
_CLOSE_TO_NONE = 1e-9


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
        file = fused_model_file(model)
        try:
            self._session = onnxruntime.InferenceSession(
                file, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # noqa: BLE001  (its errors have no class in common)
            raise ModelError(f"the face model {model} cannot be run: {error}") from None
        (self._input,) = (entry.name for entry in self._session.get_inputs())

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
        planes = np.empty((1, 3, down, across), np.float32)
        planes[:, :, height:] = planes[:, :, :, width:] = 0
        for plane, channel in zip(planes[0], cv2.split(pixels), strict=True):
            plane[:height, :width] = channel
        grids = self._session.run(None, {self._input: planes})
        values = np.concatenate([grid.reshape(_CHANNELS, -1) for grid in grids], axis=1)
        # Both shares of a score are at least its square.
        places = np.flatnonzero(np.minimum(values[0], values[1]) >= _logit(min_score**2))
        values = values[:, places].T
        face, thing = 1 + np.exp(-values[:, :1]), 1 + np.exp(-values[:, 1:2])
        score = 1 / np.sqrt(face * thing)
        corner, stride = (known[places] for known in _grids(across, down))
        size = np.exp(values[:, 4:6]) * stride
        left_top = corner + values[:, 2:4] * stride - size / 2
        marks = values[:, 6:].reshape(-1, _MARKS, 2) * stride[:, None] + corner[:, None]
        landmarks = marks.reshape(-1, 2 * _MARKS)
        faces = np.concatenate((left_top, size, landmarks, score), axis=1, dtype=np.float32)
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


def _logit(share: float) -> float:
    """What the sigmoid makes that share of; finite, also for 0 and 1."""
    share = min(max(share, _CLOSE_TO_NONE), 1 - _CLOSE_TO_NONE)
    return math.log(share / (1 - share))


@lru_cache(256)
def _grids(width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The places that the outputs speak of, all grids one after the other.

    Returns:
        n x 2: left and top of the place, pixels; n x 1: its stride.
    """
    corners, strides = [], []
    for stride in STRIDES:
        down, across = np.mgrid[0:height:stride, 0:width:stride].reshape(2, -1)
        corners.append(np.stack((across, down), axis=1))
        strides.append(np.full((across.size, 1), stride))
    return (
        np.concatenate(corners, dtype=np.float32),
        np.concatenate(strides, dtype=np.float32),
    )
