"""Finding faces.

Here live the detectors. Their files are in `models`, what is done about a face is in `removal`. A
detector belongs to one thread: OpenCV's crash or answer wrongly where two threads share one.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from imgassets.errors import ModelError
from imgassets.imaging.image import Box, Pixels
from imgassets.imaging.models import ensure_config
from imgassets.imaging.resize import shrink_by_area
from imgassets.imaging.yunet import DIVISOR, padded_area, shared_network
from imgassets.settings import FaceSettings

_LEAST = 16  # pixels: a part narrower than that holds no face
_SAME = 0.3  # overlap (intersection over union) from which two boxes are of one face

# YuNet's two looks. Scores and heights (of boxes, in pixels that the network sees) were chosen on
# benchmarks/quality, with other seeds than those that are reported.
_NEAR = 1.1  # a whole factor may give so many times `first_side`, or a part of it
_LITTLE = 0.8  # a picture that is made smaller by less than that is resized in the quicker way
_SMALLER = 0.88  # the first look may be made smaller by so much, if that saves the network work
_SHARE = 0.3  # of the picture's area: what is smaller is looked at as if it were so large
_FAINT = 0.05  # the lowest of the scores below
# The score from which a place is looked at closely, by the height that the face seems to have: of
# 746 faces none scored less, and of what a pattern has for faces a quarter scores as much.
_HEIGHTS_SEEN, _LEAST_SCORES = (8, 10, 20, 28), (1.0, 0.15, _FAINT, 0.4, 0.5)
# Large faces are seen well at first: clear ones, as all of 349 were, are taken as seen. A torso may
# be taken for a face of up to 0.80; at the second look it is none.
_LARGE, _CLEAR = 28, 0.84
_MOST = 4  # places in a picture: more, in a pattern, found no further face
_SURE = 0.2  # what was fainter at first has to be found in the mirror, too
_CLOSE = 96  # side of what is looked at closely
_HEIGHTS = (32, 40)  # faces are shown at least and at most so high, if they are as they seemed

_BUSY_SIDE = 160  # pixels of the picture in which plain parts are told from others
_BUSY = 8  # levels from one such pixel to the next
_BUSY_MARGIN = 4  # of these pixels: detectors want to see around a face; 8 found no more


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

    Plain is what has no edge of brightness at about a sixth of a detector's scale: paper, walls,
    soft shadows.
    The features of a face of 3 % of the picture's height are far above that.

    Returns:
        None where all of the picture is plain, or it is a line of pixels.
    """
    height, width = pixels.shape[:2]
    factor = max(1, max(height, width) // _BUSY_SIDE)
    rows, columns = height // factor, width // factor
    if rows < 2 or columns < 2:
        return None
    small = cv2.cvtColor(_shrunk(pixels, factor), cv2.COLOR_BGR2GRAY)
    across = cv2.reduce(cv2.absdiff(small[:, 1:], small[:, :-1]), 0, cv2.REDUCE_MAX)
    down = cv2.reduce(cv2.absdiff(small[1:], small[:-1]), 1, cv2.REDUCE_MAX)
    busy_columns = np.flatnonzero(np.asarray(across) > _BUSY)
    busy_rows = np.flatnonzero(np.asarray(down) > _BUSY)
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


@dataclass(frozen=True, slots=True)
class _Window:
    """A square of a picture that is looked at closely.

    Attributes:
        x, y: its centre in the picture.
        scale: in which it is looked at: pixels of it that one pixel of the picture becomes.
    """

    x: float
    y: float
    scale: float

    @property
    def side(self) -> float:
        """In pixels of the picture."""
        return _CLOSE / self.scale

    def shows(self, other: _Window) -> bool:
        """Whether a face in the middle of another is as well seen in this one."""
        away = max(abs(self.x - other.x), abs(self.y - other.y))
        return away < self.side / 4 and 0.6 < self.scale / other.scale < 1.6


class YuNet:
    """Looks with YuNet (see `yunet`).

    A picture is looked at in the scale in which its height is `first_side` (or, if it is very wide,
    its width `detect_side`), for all that is only faintly like a face; then closely at these
    places, in the scale of `detect_side`. The cost goes with the area, and the places are few.
    Where all but a small part of the picture is plain, the first look at that part is a closer one.
    """

    def __init__(self, model: Path, settings: FaceSettings) -> None:
        self._side, self._min_score = settings.detect_side, settings.min_score
        self._first_side = min(settings.first_side or self._side, self._side)
        self._twice = self._first_side < self._side
        self._least = min(self._min_score, _FAINT) if self._twice else self._min_score
        self._network = shared_network(model)

    def find(self, pixels: Pixels) -> list[Face]:
        """See `FaceDetector`."""
        if not self._twice:
            box = busy_part(pixels)
            scale = self._side / max(pixels.shape[:2])
            return [] if box is None else self._all(pixels, box, scale)
        # By a whole factor first, since the area filter is then ten times as fast.
        factor = max(1, round(1 / self._whole_scale(pixels)))
        small = _shrunk(pixels, factor)
        box = busy_part(small)
        if box is None:
            return []
        scale = self._first_scale(box, small)
        if scale <= 1:
            faint = [_moved(face, factor, factor) for face in self._all(small, box, scale)]
        else:
            box = Box(*(factor * n for n in box.as_list()))
            faint = self._all(pixels, box, scale / factor)
        return self._closely(pixels, faint, small, factor, scale / factor)

    def _whole_scale(self, pixels: Pixels) -> float:
        """In what scale the whole of a picture is looked at first."""
        height, width = int(pixels.shape[0]), int(pixels.shape[1])
        return min(self._first_side / height, self._side / max(height, width))

    def _first_scale(self, box: Box, small: Pixels) -> float:
        """In what scale a part of the shrunk picture is looked at first.

        That of the whole, about; but what is a small part of the picture can be looked at more
        closely for the same cost.
        """
        width, height = int(small.shape[1]), int(small.shape[0])
        scale = self._whole_scale(small)
        if 1 / _NEAR < scale < _NEAR:
            scale = 1.0
        larger = math.sqrt(_SHARE * width * height / box.area)
        if larger > 1:
            return min(larger * scale, self._side / max(height, width))
        return scale * _saving(round(box.width * scale), round(box.height * scale))

    def _all(self, pixels: Pixels, box: Box, scale: float) -> list[Face]:
        """The faces of a part of a picture, looked at in a scale."""
        size = round(box.width * scale), round(box.height * scale)
        if min(size) < _LEAST:
            return []
        part = pixels[box.y : box.y + box.height, box.x : box.x + box.width]
        found = self._network.find(_resized(part, size), self._least)
        if self._twice:
            which = np.searchsorted(_HEIGHTS_SEEN, found[:, 3], side="right")
            found = found[found[:, -1] >= np.take(_LEAST_SCORES, which)]
        across, down = box.width / size[0], box.height / size[1]
        return [_moved(face, across, down, box.x, box.y) for face in _faces(found)]

    def _closely(
        self, pixels: Pixels, faint: list[Face], small: Pixels, factor: int, seen: float
    ) -> list[Face]:
        """The faces at the places of faint ones.

        Args:
            pixels: the picture.
            faint: in pixels of the picture.
            small: the picture shrunk by a factor, which serves where a face is large.
            factor: by which it is.
            seen: pixels of the first look that one pixel of the picture became.
        """
        scale = self._side / max(pixels.shape[:2])
        faces: list[Face] = []
        windows: list[_Window] = []
        for face in sorted(faint, key=lambda face: face.score, reverse=True):
            height = face.height * seen
            if height >= _LARGE and face.score >= max(_CLEAR, self._min_score):
                faces.append(face)
                continue
            closer = min(max(scale, _HEIGHTS[0] / face.height), _HEIGHTS[1] / face.height)
            window = _Window(face.x + face.width / 2, face.y + face.height / 2, closer)
            if len(windows) == _MOST or any(other.shows(window) for other in windows):
                continue
            windows.append(window)
            sure = face.score >= _SURE
            if closer * factor <= 1:
                within = _Window(window.x / factor, window.y / factor, closer * factor)
                found = self._through(within, small, sure=sure)
                faces += [_moved(face, factor, factor) for face in found]
            else:
                faces += self._through(window, pixels, sure=sure)
        return _distinct(faces)

    def _through(self, window: _Window, pixels: Pixels, *, sure: bool) -> list[Face]:
        """The faces in a window; if not sure, those that are in its mirror picture, too."""
        height, width = pixels.shape[:2]
        side = round(window.side)
        left = max(0, min(round(window.x - side / 2), width - side))
        top = max(0, min(round(window.y - side / 2), height - side))
        part = pixels[top : top + side, left : left + side]
        size = tuple(min(_CLOSE, max(1, round(n * window.scale))) for n in part.shape[1::-1])
        seen = np.zeros((_CLOSE, _CLOSE, 3), np.uint8)
        seen[: size[1], : size[0]] = _resized(part, size)
        across, down = part.shape[1] / size[0], part.shape[0] / size[1]
        found = self._found(seen)
        if found and not sure:
            mirrored = self._found(seen[:, ::-1])
            found = [face for face in found if any(_mirrors(face, other) for other in mirrored)]
        return [_moved(face, across, down, left, top) for face in found]

    def _found(self, pixels: Pixels) -> list[Face]:
        return _faces(self._network.find(pixels, self._min_score))


def _faces(found: NDArray[np.float32]) -> list[Face]:
    """What the network found; see `yunet.Network.find`."""
    return [Face(x, y, w, h, score, tuple(marks)) for x, y, w, h, *marks, score in found.tolist()]


def _saving(width: int, height: int) -> float:
    """The scale, a little below 1, in which the network has the least to look at."""
    fewer = (side // DIVISOR * DIVISOR / side for side in (width, height) if side)
    scales = [1.0, *(scale for scale in fewer if scale >= _SMALLER)]
    areas = [padded_area(round(width * scale), round(height * scale)) for scale in scales]
    return scales[areas.index(min(areas))]


def _shrunk(pixels: Pixels, factor: int) -> Pixels:
    """By a whole factor; what is left over at the right and lower edges is not seen."""
    rows, columns = pixels.shape[0] // factor, pixels.shape[1] // factor
    if factor == 1 or rows == 0 or columns == 0:
        return pixels
    return _resized(pixels[: rows * factor, : columns * factor], (columns, rows))


def _resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    if size == pixels.shape[1::-1]:
        return pixels
    if size[0] < _LITTLE * pixels.shape[1]:
        return shrink_by_area(pixels, size)
    # Slightly smaller: linear interpolation serves as well, in a tenth of the time.
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _moved(face: Face, across: float, down: float, x: float = 0, y: float = 0) -> Face:
    """A face in pixels of a larger picture, in which the corner of this one is at x, y."""
    marks = [
        x + mark * across if axis == 0 else y + mark * down
        for mark, axis in zip(face.landmarks, itertools.cycle((0, 1)), strict=False)
    ]
    return Face(
        x + face.x * across,
        y + face.y * down,
        face.width * across,
        face.height * down,
        face.score,
        tuple(marks),
    )


def _mirrors(face: Face, other: Face) -> bool:
    """Whether a face of a close look is in the place of another of the mirrored one."""
    away = face.x + face.width / 2 - (_CLOSE - other.x - other.width / 2)
    down = face.y + face.height / 2 - (other.y + other.height / 2)
    return max(abs(away), abs(down)) < face.height / 4


def _distinct(faces: list[Face]) -> list[Face]:
    """Without those that are another one, seen twice."""
    boxes = [(face.x, face.y, face.width, face.height) for face in faces]
    kept = cv2.dnn.NMSBoxes(boxes, [face.score for face in faces], 0.0, _SAME)
    return [faces[place] for place in kept]


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
        small = shrink_by_area(pixels, size)
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
