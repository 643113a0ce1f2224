"""Finding faces.

Here live the detectors. Their files are in `models`, what is done about a face is in `removal`. A
detector belongs to one thread: OpenCV's crash or answer wrongly where two threads share one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from imgassets.imaging.models import ModelError, ensure_config
from imgassets.imaging.picture import Box, Pixels
from imgassets.settings import FaceSettings

_NMS_THRESHOLD = 0.3  # opencv_zoo's default for YuNet
_TOP_K = 5000  # likewise
_LEFT, _TOP = (0, 4, 6, 8, 10, 12), (1, 5, 7, 9, 11, 13)  # what it gives: box, 5 places, score

_LEAST = 16  # pixels: a part narrower than that holds no face, and YuNet answers nonsense

_BUSY_SIDE = 160  # pixels of the picture in which plain parts are told from others
_BUSY = 8  # levels from one such pixel to the next
_BUSY_MARGIN = 8  # of these pixels: detectors want to see around a face


@dataclass(frozen=True, slots=True)
class Face:
    """A face in pixels of the picture that was looked at.

    Attributes:
        x, y, width, height: the box, which may reach beyond the picture.
        score: 0 to 1.
        landmarks: x and y of right eye, left eye, nose, right and left corner of the mouth; empty
            where the detector knows none.
    """

    x: float
    y: float
    width: float
    height: float
    score: float
    landmarks: tuple[float, ...] = ()


def busy_part(pixels: Pixels) -> Box | None:
    """The part of a picture that may hold a face: all that is not plain, and a margin.

    Plain is what has no edge at about a sixth of a detector's scale: paper, walls, soft shadows.
    The features of a face of 3 % of the picture's height are far above that.

    Returns:
        None where all of the picture is plain, or it is a line of pixels.
    """
    height, width = pixels.shape[:2]
    factor = max(1, max(height, width) // _BUSY_SIDE)
    rows, columns = height // factor, width // factor
    if rows < 2 or columns < 2:
        return None
    # A whole factor, since the area filter is then several times as fast.
    whole = pixels[: rows * factor, : columns * factor]
    small = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    across = cv2.absdiff(small[:, 1:], small[:, :-1]).max(axis=2) > _BUSY
    down = cv2.absdiff(small[1:], small[:-1]).max(axis=2) > _BUSY
    busy_columns = np.flatnonzero(across.any(axis=0))
    busy_rows = np.flatnonzero(down.any(axis=1))
    if not busy_columns.size or not busy_rows.size:
        return None
    margin = _BUSY_MARGIN + 1
    left = max(0, int(busy_columns[0]) - margin) * factor
    top = max(0, int(busy_rows[0]) - margin) * factor
    right = min(width, (int(busy_columns[-1]) + 1 + margin) * factor)
    bottom = min(height, (int(busy_rows[-1]) + 1 + margin) * factor)
    return Box(left, top, right - left, bottom - top)


class FaceDetector(Protocol):
    """Whatever finds faces. One a thread."""

    def find(self, pixels: Pixels) -> list[Face]:
        """The faces of a picture (height x width x 3, uint8, BGR)."""


class YuNet:
    """OpenCV's YuNet (Wu et al., Machine Intelligence Research 2023; opencv_zoo's 2023mar)."""

    def __init__(self, model: Path, settings: FaceSettings) -> None:
        self._side = settings.detect_side
        try:
            self._network = cv2.FaceDetectorYN.create(
                str(model), "", (320, 320), settings.min_score, _NMS_THRESHOLD, _TOP_K
            )
        except cv2.error as error:
            raise ModelError(
                f"the face model {model} cannot be loaded: {error.err}; "
                f"set faces.model_source to a {settings.model} model"
            ) from None

    def find(self, pixels: Pixels) -> list[Face]:
        """See `FaceDetector`.

        The picture is looked at in the scale in which its longer side has `detect_side`, but only
        where it is not plain: the cost goes with the area, and a catalogue picture is half empty.
        """
        box = busy_part(pixels)
        if box is None:
            return []
        part = pixels[box.y : box.y + box.height, box.x : box.x + box.width]
        scale = self._side / max(pixels.shape[:2])
        size = round(box.width * scale), round(box.height * scale)
        if min(size) < _LEAST:
            return []
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        self._network.setInputSize(size)
        _, found = self._network.detect(cv2.resize(part, size, interpolation=how))
        if found is None:
            return []
        found = np.asarray(found, dtype=np.float64)
        found[:, 0:14:2] *= box.width / size[0]
        found[:, 1:14:2] *= box.height / size[1]
        found[:, _LEFT] += box.x
        found[:, _TOP] += box.y
        return [
            Face(x, y, w, h, score, tuple(landmarks))
            for x, y, w, h, *landmarks, score in found.tolist()
        ]


class Res10:
    """OpenCV's res10 SSD of 2018 (samples/dnn/face_detector), the original pipeline's family."""

    # What the network was trained on: a side of 300, and the mean of blue, green and red.
    _SIDE = 300
    _MEAN = (104.0, 177.0, 123.0)

    def __init__(self, model: Path, config: Path, settings: FaceSettings) -> None:
        self._min_score = settings.min_score
        # Arrays, since OpenCV takes bytes for a path.
        weights, network = (np.fromfile(path, np.uint8) for path in (model, config))
        try:
            if model.suffix == ".pb":
                self._network = cv2.dnn.readNetFromTensorflow(weights, network)
            else:
                self._network = cv2.dnn.readNetFromCaffe(network, weights)
        except cv2.error as error:
            raise ModelError(
                f"the face model {model} with {config} cannot be loaded: {error.err}; "
                "set faces.model_source and faces.model_config_source to a res10 model"
            ) from None

    def find(self, pixels: Pixels) -> list[Face]:
        """See `FaceDetector`. Stretched to a square, which finds more than keeping proportions."""
        height, width = pixels.shape[:2]
        size = self._SIDE, self._SIDE
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        self._network.setInput(cv2.dnn.blobFromImage(small, 1.0, size, self._MEAN))
        found = np.asarray(self._network.forward()).reshape(-1, 7)
        return [
            Face(x * width, y * height, (right - x) * width, (bottom - y) * height, score)
            for _, _, score, x, y, right, bottom in found.tolist()
            if score >= self._min_score and right > x and bottom > y
        ]


def load_detector(model: Path, settings: FaceSettings) -> FaceDetector:
    """A detector for the calling thread.

    Args:
        model: what `models.ensure_model` returned.
        settings: which detector, and how it looks.

    Raises:
        ModelError: the file is no model that OpenCV can load.
    """
    if settings.model == "res10":
        return Res10(model, ensure_config(settings, model.parent), settings)
    return YuNet(model, settings)
