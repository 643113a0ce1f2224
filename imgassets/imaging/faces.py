"""Faces: finding them, and removing them from a picture.

Here lives everything about faces but the detector's file, which is in `models`. A detector belongs
to one thread: OpenCV's crash or answer wrongly where two threads share one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from imgassets.imaging.models import ModelError
from imgassets.imaging.picture import Box, Picture, Pixels
from imgassets.settings import FaceSettings

_NMS_THRESHOLD = 0.3  # opencv_zoo's default for YuNet
_TOP_K = 5000  # likewise


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

    def chin(self, margin: float) -> float:
        """The row below the chin: the box's end, and a share of its height more."""
        return self.y + self.height * (1 + margin)


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
        """See `FaceDetector`. The picture is looked at with its longer side at `detect_side`."""
        height, width = pixels.shape[:2]
        scale = self._side / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        self._network.setInputSize(size)
        _, found = self._network.detect(cv2.resize(pixels, size, interpolation=how))
        if found is None:
            return []
        found = np.asarray(found, dtype=np.float64)
        found[:, 0:14:2] *= width / size[0]
        found[:, 1:14:2] *= height / size[1]
        return [
            Face(x, y, w, h, score, tuple(landmarks))
            for x, y, w, h, *landmarks, score in found.tolist()
        ]


def load_detector(model: Path, settings: FaceSettings) -> FaceDetector:
    """A detector for the calling thread.

    Raises:
        ModelError: the file is no model that OpenCV can load.
    """
    return YuNet(model, settings)


@dataclass(frozen=True, slots=True)
class Removal:
    """What became of a picture's faces.

    Attributes:
        picture: what is left; none where a crop would leave too little.
        cut: the row of the picture before above which all was cut off; none where nothing was.
    """

    picture: Picture | None
    cut: int | None


def crop(picture: Picture, faces: Sequence[Face], settings: FaceSettings) -> Removal:
    """Cut off everything above the lowest chin."""
    lowest = max(math.ceil(face.chin(settings.margin)) for face in faces)
    cut = min(max(lowest, 0), picture.height)
    left = picture.height - cut
    if left < max(1, settings.min_left * picture.height):
        return Removal(None, None)
    return Removal(picture.cut(Box(0, cut, picture.width, left)), cut)
