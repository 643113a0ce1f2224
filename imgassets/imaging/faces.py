"""Face detectors.

Getting the model files is in `models`, running YuNet's network in `yunet`, cropping or covering
faces in `removal`. A detector belongs to one thread: OpenCV's networks crash or give wrong results
if two threads share one.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from imgassets.errors import ModelError
from imgassets.imaging.image import Box, Pixels
from imgassets.imaging.models import ensure_config
from imgassets.imaging.resize import shrink_by_area, shrink_by_factor
from imgassets.imaging.yunet import DIVISOR, Network, load_shared_network, padded_area
from imgassets.settings import FaceSettings

_MIN_INPUT_SIDE = 16  # px; a narrower detector input cannot hold a face
_SAME_FACE_IOU = 0.3  # intersection over union from which two boxes are the same face

# YuNet's two passes. Scores and heights (box heights, px of the detector input) were chosen on
# benchmarks/quality, with other seeds than the reported ones.
_SCALE_TOLERANCE = 1.1  # within this ratio of the wanted size, an image is not resized again
_LINEAR_FROM = 0.8  # from this scale on, linear interpolation replaces the area filter
_MIN_CHEAPEST_SCALE = 0.88  # lowest extra shrink of the first pass to save network input
_MIN_ROI_SHARE = 0.3  # of the image's area; a smaller region is scaled up to the cost of this share
_FAINT_SCORE = 0.05  # the lowest of the scores below
# Minimum candidate score for the close-up pass, by the apparent face height (bins split at
# `_HEIGHT_BINS`). None of 746 faces scored lower; a quarter of the false candidates in patterns
# score as high.
_HEIGHT_BINS = np.array((8, 10, 20, 28))
_MIN_CANDIDATE_SCORES = np.array((1.0, 0.15, _FAINT_SCORE, 0.4, 0.5))
# Large faces are accepted from the first pass if their score is clear, as it was for all of 349. A
# torso can score up to 0.80 in the first pass; the close-up pass rejects it.
_LARGE_HEIGHT, _CLEAR_SCORE = 28, 0.84
_MAX_WINDOWS = 4  # per image; in patterned images, more windows found no further face
_SURE_SCORE = 0.2  # a candidate below it must also be found in the mirrored window
_WINDOW_SIDE = 96  # px; detector input of the close-up pass
_WINDOW_FACE_HEIGHTS = (32, 40)  # px; a window is scaled to show its candidate in this range

# A face that is turned, tilted or thrown back may only be found at a larger size. Candidates of at
# least this score that the first window does not confirm get a second one.
_SECOND_LOOK_SCORE, _SECOND_FACE_HEIGHT, _SECOND_WINDOW_SIDE = 0.4, 72, 160

# Patterns of cloth look like faces only at some scales. If the chin of a face from a weak candidate
# lies below this share of the image's height, where a crop would remove much, and its own score is
# not clear, two more windows must show it: at the scale of `detect_side` with this share of the
# minimum score, and the second window above.
_WEAK_SCORE, _LOW_CHIN, _CLEAR_CLOSE_SCORE = 0.6, 0.4, 0.87
_CONFIRM_SIDE, _CONFIRM_SCORE_FACTOR = 192, 0.67

# Faces cut by the top edge, of which only mouth and chin are visible: the network finds them in the
# top of the image (this share of its height) below a white band (this share of it). Without the
# band it finds a third of them; a higher band hides those of which least is visible.
_EDGE_SIDE, _EDGE_STRIP, _EDGE_BAND, _EDGE_COLOUR = 640, 0.3, 0.06, (255, 255, 255)
# Of the minimum score. 15 of 16 such faces in real photographs score higher; the highest of 170
# images without a face scored 0.43.
_EDGE_SCORE_FACTOR = 0.67
_EDGE_MIN_HIDDEN = 0.2  # of a face's height; the other looks find faces of which less is hidden
_EDGE_MARGIN = 0.1  # of the longer side: searched beside what touches the top edge

_EDGE_MAP_SIDE = 160  # px; at about this size plain regions are separated from the foreground
_EDGE_LEVELS = 8  # grey levels; a larger step between neighbouring pixels of the map is an edge
_ROI_MARGIN = 4  # px of the map; detectors need context around a face, and 8 px found no more


@dataclass(frozen=True, slots=True)
class Face:
    """A detected face, in pixels of the image that was given to the detector.

    Attributes:
        x, y, width, height: The bounding box; it may extend beyond the image.
        score: The detector's confidence, from 0 to 1.
        landmarks: x and y of the right eye, left eye, nose, right and left corner of the mouth;
            empty if the detector gives no landmarks.
    """

    x: float
    y: float
    width: float
    height: float
    score: float
    landmarks: tuple[float, ...] = ()


def foreground_roi(pixels: Pixels) -> Box | None:
    """Find the region that can hold a face: everything that is not plain, and a margin.

    A region is plain if it has no brightness edge at about a sixth of a detector's scale: paper,
    walls, soft shadows. The features of a face of 3 % of the image height are far above that.

    Args:
        pixels: height x width x 3, uint8, BGR.

    Returns:
        The region in pixels of the image; None if the whole image is plain, or less than two
        pixels wide or high at the scale of the edge map.
    """
    height, width = pixels.shape[:2]
    factor = max(1, max(height, width) // _EDGE_MAP_SIDE)
    rows, columns = height // factor, width // factor
    if rows < 2 or columns < 2:
        return None
    small = cv2.cvtColor(shrink_by_factor(pixels, factor), cv2.COLOR_BGR2GRAY)
    across = cv2.reduce(cv2.absdiff(small[:, 1:], small[:, :-1]), 0, cv2.REDUCE_MAX)
    down = cv2.reduce(cv2.absdiff(small[1:], small[:-1]), 1, cv2.REDUCE_MAX)
    edge_columns = np.flatnonzero(np.asarray(across) > _EDGE_LEVELS)
    edge_rows = np.flatnonzero(np.asarray(down) > _EDGE_LEVELS)
    if not edge_columns.size or not edge_rows.size:
        return None
    margin = _ROI_MARGIN + 1
    left = max(0, int(edge_columns[0]) - margin) * factor
    top = max(0, int(edge_rows[0]) - margin) * factor
    right = min(width, (int(edge_columns[-1]) + 1 + margin) * factor)
    bottom = min(height, (int(edge_rows[-1]) + 1 + margin) * factor)
    return Box.from_edges(left, top, right, bottom)


class FaceDetector(Protocol):
    """The interface of a face detector. Each thread needs its own instance."""

    def find(self, pixels: Pixels) -> list[Face]:
        """Find the faces in an image.

        Args:
            pixels: The image: height x width x 3, uint8, BGR.

        Returns:
            The faces with a score of at least `faces.min_score`, in pixels of the image, in any
            order; an empty list if there are none.
        """


@dataclass(frozen=True, slots=True)
class _Window:
    """A square of an image that the close-up pass searches.

    Attributes:
        x, y: The centre, in pixels of the image.
        scale: Pixels of the detector input per pixel of the image.
        input_side: The side of the detector input, in pixels.
    """

    x: float
    y: float
    scale: float
    input_side: int = _WINDOW_SIDE

    @classmethod
    def around(cls, face: Face, scale: float, input_side: int = _WINDOW_SIDE) -> _Window:
        """The window with a face in its middle."""
        return cls(face.x + face.width / 2, face.y + face.height / 2, scale, input_side)

    @property
    def side(self) -> float:
        """The side of the square, in pixels of the image."""
        return self.input_side / self.scale

    def covers(self, other: _Window) -> bool:
        """Whether this window shows a face in the middle of the other window as well."""
        distance = max(abs(self.x - other.x), abs(self.y - other.y))
        return distance < self.side / 4 and 0.6 < self.scale / other.scale < 1.6


class _WindowSearch:
    """Searches windows of one image.

    Attributes:
        pixels: The image.
    """

    def __init__(self, network: Network, pixels: Pixels, small: Pixels, factor: int) -> None:
        """Prepare the search.

        Args:
            network: The network.
            pixels: The image.
            small: The image shrunk by `factor`, for windows that need no more detail.
            factor: The integer factor of `small`.
        """
        self.pixels = pixels
        self._network, self._small, self._factor = network, small, factor

    def find(self, window: _Window, min_score: float, *, mirrored: bool = False) -> list[Face]:
        """Find the faces in a window; if `mirrored`, only those that its mirror image confirms."""
        factor = self._factor
        if window.scale * factor > 1:
            return self._find_in(self.pixels, window, min_score, mirrored)
        in_small = replace(
            window, x=window.x / factor, y=window.y / factor, scale=window.scale * factor
        )
        found = self._find_in(self._small, in_small, min_score, mirrored)
        return [_transform_face(face, factor, factor) for face in found]

    def _find_in(
        self, pixels: Pixels, window: _Window, min_score: float, mirrored: bool
    ) -> list[Face]:
        height, width = pixels.shape[:2]
        side = round(window.side)
        left = max(0, min(round(window.x - side / 2), width - side))
        top = max(0, min(round(window.y - side / 2), height - side))
        part = pixels[top : top + side, left : left + side]
        full = window.input_side
        size = tuple(min(full, max(1, round(n * window.scale))) for n in part.shape[1::-1])
        network_input = np.zeros((full, full, 3), np.uint8)
        network_input[: size[1], : size[0]] = _resize(part, size)
        scale_x, scale_y = part.shape[1] / size[0], part.shape[0] / size[1]
        found = _to_faces(self._network.find(network_input, min_score))
        if found and mirrored:
            others = _to_faces(self._network.find(network_input[:, ::-1], min_score))
            found = [face for face in found if any(_is_mirror_of(face, o) for o in others)]
        return [_transform_face(face, scale_x, scale_y, left, top) for face in found]


class YuNet:
    """Face detector with the network YuNet (see `yunet`), in two passes.

    The first pass scales the image so that its height is `first_side` (or, if it is very wide, its
    width is `detect_side`) and collects candidates with low scores. The close-up pass searches only
    windows around the candidates, at the scale of `detect_side` or the scale that suits the face.
    The cost grows with the searched area, and candidates are few. If all but a small region of the
    image is plain, the first pass searches that region at a larger scale.
    """

    def __init__(self, model: Path, settings: FaceSettings) -> None:
        self._side, self._min_score = settings.detect_side, settings.min_score
        self._first_side = min(settings.first_side or self._side, self._side)
        self._two_passes = self._first_side < self._side
        self._first_min_score = (
            min(self._min_score, _FAINT_SCORE) if self._two_passes else self._min_score
        )
        self._network = load_shared_network(model)

    def find(self, pixels: Pixels) -> list[Face]:
        """See `FaceDetector`."""
        faces = self._find_whole(pixels)
        return _drop_duplicates(faces + self._find_at_top_edge(pixels))

    def _find_whole(self, pixels: Pixels) -> list[Face]:
        """Find the faces that the top edge does not cut."""
        if not self._two_passes:
            roi = foreground_roi(pixels)
            scale = self._side / max(pixels.shape[:2])
            return [] if roi is None else self._detect_in_roi(pixels, roi, scale)
        # Shrink by an integer factor first: the area filter is then ten times as fast.
        factor = max(1, round(1 / self._base_scale(pixels)))
        small = shrink_by_factor(pixels, factor)
        roi = foreground_roi(small)
        if roi is None:
            return []
        scale = self._first_pass_scale(roi, small)
        if scale <= 1:
            found = self._detect_in_roi(small, roi, scale)
            candidates = [_transform_face(face, factor, factor) for face in found]
        else:
            roi = Box(*(factor * n for n in roi.as_list()))
            candidates = self._detect_in_roi(pixels, roi, scale / factor)
        return self._close_up_pass(pixels, candidates, small, factor, scale / factor)

    def _base_scale(self, pixels: Pixels) -> float:
        """Compute the scale at which the first pass searches a whole image."""
        height, width = int(pixels.shape[0]), int(pixels.shape[1])
        return min(self._first_side / height, self._side / max(height, width))

    def _first_pass_scale(self, roi: Box, small: Pixels) -> float:
        """Compute the scale at which the first pass searches a region of the shrunk image.

        It is about the scale for the whole image; a small region is searched at a larger scale,
        for the same cost.
        """
        width, height = int(small.shape[1]), int(small.shape[0])
        scale = self._base_scale(small)
        if 1 / _SCALE_TOLERANCE < scale < _SCALE_TOLERANCE:
            scale = 1.0
        larger = math.sqrt(_MIN_ROI_SHARE * width * height / roi.area)
        if larger > 1:
            return min(larger * scale, self._side / max(height, width))
        return scale * _cheapest_scale(round(roi.width * scale), round(roi.height * scale))

    def _detect_in_roi(self, pixels: Pixels, roi: Box, scale: float) -> list[Face]:
        """Find the faces in a region of an image, searched at a scale."""
        size = round(roi.width * scale), round(roi.height * scale)
        if min(size) < _MIN_INPUT_SIDE:
            return []
        part = pixels[roi.y : roi.bottom, roi.x : roi.right]
        found = self._network.find(_resize(part, size), self._first_min_score)
        if self._two_passes:
            bins = _HEIGHT_BINS.searchsorted(found[:, 3], side="right")
            found = found[found[:, -1] >= _MIN_CANDIDATE_SCORES[bins]]
        scale_x, scale_y = roi.width / size[0], roi.height / size[1]
        return [_transform_face(face, scale_x, scale_y, roi.x, roi.y) for face in _to_faces(found)]

    def _close_up_pass(
        self,
        pixels: Pixels,
        candidates: list[Face],
        small: Pixels,
        factor: int,
        first_scale: float,
    ) -> list[Face]:
        """Find the faces near the candidates of the first pass.

        Args:
            pixels: The image.
            candidates: The candidates, in pixels of the image.
            small: The image shrunk by `factor`; used for large faces.
            factor: The integer factor of `small`.
            first_scale: Pixels of the first pass's input per pixel of the image.
        """
        search = _WindowSearch(self._network, pixels, small, factor)
        scale = self._side / max(pixels.shape[:2])
        faces: list[Face] = []
        windows: list[_Window] = []
        for face in sorted(candidates, key=lambda face: face.score, reverse=True):
            height = face.height * first_scale
            if height >= _LARGE_HEIGHT and face.score >= max(_CLEAR_SCORE, self._min_score):
                faces.append(face)
                continue
            close_scale = min(
                max(scale, _WINDOW_FACE_HEIGHTS[0] / face.height),
                _WINDOW_FACE_HEIGHTS[1] / face.height,
            )
            window = _Window.around(face, close_scale)
            if len(windows) == _MAX_WINDOWS or any(other.covers(window) for other in windows):
                continue
            windows.append(window)
            faces += self._look_closely(face, window, search)
        return _drop_duplicates(faces)

    def _look_closely(self, candidate: Face, window: _Window, search: _WindowSearch) -> list[Face]:
        """Find the faces near one candidate.

        Args:
            candidate: The candidate.
            window: The first window to search.
            search: Searches windows of the image.
        """

        def larger_window(face: Face) -> _Window:
            return _Window.around(face, _SECOND_FACE_HEIGHT / face.height, _SECOND_WINDOW_SIDE)

        mirrored = candidate.score < _SURE_SCORE
        first = search.find(window, self._min_score, mirrored=mirrored)
        second: list[Face] = []
        if candidate.score >= _SECOND_LOOK_SCORE and not any(_is_near(candidate, f) for f in first):
            second = search.find(larger_window(candidate), self._min_score)
        if candidate.score >= _WEAK_SCORE:
            return first + second

        def is_confirmed(face: Face, *, at_both: bool) -> bool:
            height, width = search.pixels.shape[:2]
            if face.y + face.height < _LOW_CHIN * height or face.score >= _CLEAR_CLOSE_SCORE:
                return True
            at_detect_side = _Window.around(face, self._side / max(height, width), _CONFIRM_SIDE)
            looks = [(at_detect_side, _CONFIRM_SCORE_FACTOR * self._min_score)]
            if at_both:
                looks.append((larger_window(face), self._min_score))
            return all(any(_is_near(face, f) for f in search.find(*look)) for look in looks)

        return [face for face in first if is_confirmed(face, at_both=True)] + [
            face for face in second if is_confirmed(face, at_both=False)
        ]

    def _find_at_top_edge(self, pixels: Pixels) -> list[Face]:
        """Find the faces that the top edge cuts, often above the mouth."""
        height, width = int(pixels.shape[0]), int(pixels.shape[1])
        columns = _columns_at_top_edge(pixels)
        if columns is None:
            return []
        scale = min(_EDGE_SIDE / height, self._side / max(height, width))
        part = pixels[: max(1, round(_EDGE_STRIP * height)), columns[0] : columns[1]]
        size = round(part.shape[1] * scale), round(part.shape[0] * scale)
        if min(size) < _MIN_INPUT_SIDE:
            return []
        band = round(_EDGE_BAND * height * scale)
        below_band = cv2.copyMakeBorder(
            _resize(part, size), band, 0, 0, 0, cv2.BORDER_CONSTANT, value=_EDGE_COLOUR
        )
        min_score = _EDGE_SCORE_FACTOR * self._min_score
        found = _to_faces(self._network.find(np.asarray(below_band, np.uint8), min_score))
        scale_x, scale_y = part.shape[1] / size[0], part.shape[0] / size[1]
        return [
            _transform_face(face, scale_x, scale_y, columns[0], -band * scale_y)
            for face in found
            if face.y < band - _EDGE_MIN_HIDDEN * face.height
        ]


def _columns_at_top_edge(pixels: Pixels) -> tuple[int, int] | None:
    """Find the columns of what touches the top edge, and a margin; None if all is plain there."""
    height, width = pixels.shape[:2]
    factor = max(1, max(height, width) // _EDGE_MAP_SIDE)
    top = cv2.cvtColor(shrink_by_factor(pixels[: 2 * factor], factor), cv2.COLOR_BGR2GRAY)
    if top.shape[1] < 2:
        return None
    across = cv2.reduce(cv2.absdiff(top[:, 1:], top[:, :-1]), 0, cv2.REDUCE_MAX)
    edges = np.flatnonzero(np.asarray(across) > _EDGE_LEVELS)
    if not edges.size:
        return None
    margin = round(_EDGE_MARGIN * max(height, width))
    first, last = int(edges[0]) * factor, (int(edges[-1]) + 2) * factor
    return max(0, first - margin), min(width, last + margin)


def _to_faces(rows: NDArray[np.float32]) -> list[Face]:
    """Convert the rows that `yunet.Network.find` returns."""
    return [Face(x, y, w, h, score, tuple(marks)) for x, y, w, h, *marks, score in rows.tolist()]


def _cheapest_scale(width: int, height: int) -> float:
    """Choose the scale, 1 or slightly less, with the smallest padded network input."""
    fewer = (side // DIVISOR * DIVISOR / side for side in (width, height) if side)
    scales = [1.0, *(scale for scale in fewer if scale >= _MIN_CHEAPEST_SCALE)]
    areas = [padded_area(round(width * scale), round(height * scale)) for scale in scales]
    return scales[areas.index(min(areas))]


def _resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    if size == pixels.shape[1::-1]:
        return pixels
    if size[0] < _LINEAR_FROM * pixels.shape[1]:
        return shrink_by_area(pixels, size)
    # Linear interpolation is as good for a slight shrink, in a tenth of the time.
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _transform_face(
    face: Face, scale_x: float, scale_y: float, left: float = 0, top: float = 0
) -> Face:
    """Convert a face found in a scaled part of an image to pixels of that image.

    Args:
        face: The face, in pixels of the scaled part.
        scale_x: Horizontal scale: pixels of the image per pixel of the scaled part.
        scale_y: Vertical scale: pixels of the image per pixel of the scaled part.
        left: The left edge of the part, in pixels of the image.
        top: The top edge of the part, in pixels of the image.
    """
    marks = [
        left + mark * scale_x if axis == 0 else top + mark * scale_y
        for mark, axis in zip(face.landmarks, itertools.cycle((0, 1)), strict=False)
    ]
    return Face(
        left + face.x * scale_x,
        top + face.y * scale_y,
        face.width * scale_x,
        face.height * scale_y,
        face.score,
        tuple(marks),
    )


def _is_mirror_of(face: Face, other: Face) -> bool:
    """Whether a face of a window has the same place as a face of the mirrored window."""
    offset_x = face.x + face.width / 2 - (_WINDOW_SIDE - other.x - other.width / 2)
    offset_y = face.y + face.height / 2 - (other.y + other.height / 2)
    return max(abs(offset_x), abs(offset_y)) < face.height / 4


def _is_near(face: Face, other: Face) -> bool:
    """Whether the centre of one face lies in the other's box."""
    x, y = other.x + other.width / 2, other.y + other.height / 2
    return face.x <= x <= face.x + face.width and face.y <= y <= face.y + face.height


def _drop_duplicates(faces: list[Face]) -> list[Face]:
    """Drop boxes that overlap a box of the same face with a higher score."""
    boxes = [(face.x, face.y, face.width, face.height) for face in faces]
    kept = cv2.dnn.NMSBoxes(boxes, [face.score for face in faces], 0.0, _SAME_FACE_IOU)
    return [faces[index] for index in kept]


class Res10:
    """OpenCV's res10 SSD of 2018 (samples/dnn/face_detector), as in the original pipeline."""

    # The training input: 300 x 300 px, and the mean of blue, green and red.
    _SIDE = 300
    _MEAN = (104.0, 177.0, 123.0)

    def __init__(self, model: Path, config: Path, settings: FaceSettings) -> None:
        self._min_score = settings.min_score
        # As arrays: OpenCV interprets bytes as a path.
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
        """See `FaceDetector`.

        The image is stretched to a square, which finds more faces than keeping its proportions.
        """
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
    """Create a detector for the calling thread.

    Args:
        model: The model file that `models.ensure_model` returned.
        settings: The detector to use, its input sizes and its minimum score.

    Raises:
        ModelError: The model file cannot be loaded.
    """
    if settings.model == "res10":
        return Res10(model, ensure_config(settings, model.parent), settings)
    return YuNet(model, settings)
