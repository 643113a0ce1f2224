"""Edge maps of an image: where the product's outline is visible against the background.

The box that is derived from them is computed in `background`.

The gradient magnitude is computed in three maps: of the luma at full resolution, for straps that
are one pixel wide; and of the luma and of the chroma at half resolution, where noise is averaged
away, so that an outline of two levels, or one no steeper than the background's noise, still stands
out. All three maps are stored at half resolution in 8 bits (of the first, the maximum of four
pixels), which is a quarter of the work; boxes are then exact to two pixels. A pixel is an edge if
its gradient is

- above a threshold derived from the background's noise level, which is measured along the borders
  of the image,
- narrow: the gradients of shadows and vignettes are as steep some pixels further on,
- not JPEG ringing beside a much stronger edge.

The constants were chosen with `benchmarks/quality`, by how much product they cut off and how much
background they leave; its README names the seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from imgassets.imaging.image import Box, Pixels
from imgassets.imaging.resize import shrink_by_area

Plane: TypeAlias = NDArray[np.uint8]
Mask: TypeAlias = NDArray[np.bool_]
_Derivative: TypeAlias = NDArray[np.int16]

# Units of an 8-bit gradient per level/pixel; gradients saturate from 8 levels/pixel on.
_UNITS = 32.0
_SOBEL_GAIN = 128.0  # response of the 5x5 Sobel kernel to one level/pixel
_MAX_FLOOR = 254  # upper limit of a required gradient, so that saturated gradients always exceed it

# Threshold of an edge: the minimum in levels/pixel, below which rounding and JPEG produce edges of
# their own, and the factor by which it exceeds the noise level. At full and at half resolution.
_FINE_MIN_THRESHOLD, _FINE_NOISE_FACTOR = 1.2, 3.5
_COARSE_MIN_THRESHOLD, _COARSE_NOISE_FACTOR = 0.8, 3.0
_BORDER_STRIP = 0.03  # width of the strips that the noise is measured in / shorter side

# A narrow edge is steeper by this factor than the gradient that fills a square of that side
# (pixels at half resolution).
_NARROW_FACTOR, _NARROW_SIDE = 2.2, 5

# JPEG ringing of luma and of chroma: its gradient / that of the strongest edge nearby, and the side
# of that neighbourhood in pixels at half resolution. JPEG blocks are 8 pixels wide at full
# resolution, and 16 for chroma, which JPEG stores at half resolution.
_LUMA_RINGING, _CHROMA_RINGING = (0.1, 9), (0.35, 17)

# Minimum length of an edge line (the longer side of its bounding box, pixels at half resolution),
# and that of a line with as many strong pixels, such as the links of a chain or a dotted strap. In
# the map of full resolution, and in those of half. The gradient of a strong pixel is `_STRONG`
# times the threshold.
_FINE_MIN_LENGTHS, _COARSE_MIN_LENGTHS = (7, 5), (14, 7)
_STRONG = 3.0

# A line is weak if it has fewer strong pixels and is at most this long (of the longer side).
_MIN_STRONG, _WEAK_LENGTH = 4, 0.25

# Distance (pixels) that the response of the Sobel kernel reaches beyond an edge, at full and at
# half resolution.
_FINE_REACH, _COARSE_REACH = 1, 2

# A faint edge exceeds these fractions of what an edge must exceed: of the threshold, of the broad
# gradient and of the ringing. It may be an outline that fades or lies in a shadow, or a pale hem
# beside a dark stripe.
_FAINT_THRESHOLD, _FAINT_BROAD, _FAINT_RINGING = 0.6, 0.9, 0.5


@dataclass(frozen=True, slots=True)
class _GradientMap:
    """Gradient magnitudes at half resolution, and what they must exceed to be an edge.

    Attributes:
        gradient: Gradient magnitudes, uint8, in units of 1 / `_UNITS` levels/pixel.
        threshold: Required gradient because of the background's noise, in the same units.
        broad: Required gradient per pixel because of shadows and vignettes, uint8, same units.
        ringing: Required gradient per pixel because of JPEG ringing, uint8, same units.
    """

    gradient: Plane
    threshold: float
    broad: Plane
    ringing: Plane


@dataclass(frozen=True, slots=True)
class EdgeMaps:
    """The three gradient maps of an image.

    Attributes:
        size: Width and height that the maps cover, pixels: odd sides of the image are one shorter.
        gradient: Gradient magnitudes of the luma at full resolution, uint8, in units of
            1 / `_UNITS` levels/pixel.
        fine: Map of the luma, computed at full resolution.
        coarse: Maps of the luma and of the chroma, computed at half resolution.
    """

    size: tuple[int, int]
    gradient: Plane
    fine: _GradientMap
    coarse: tuple[_GradientMap, _GradientMap]

    @property
    def threshold(self) -> float:
        """The luma gradient from which on a pixel is an edge, levels/pixel."""
        return self.fine.threshold / _UNITS

    @property
    def noise_ratio(self) -> float:
        """The threshold / its minimum: 1 on a plain background, more on a textured one."""
        return self.threshold / _FINE_MIN_THRESHOLD


def compute_edge_maps(pixels: Pixels) -> EdgeMaps:
    """Compute the gradient maps of an image.

    Args:
        pixels: Image of shape height x width x 3, uint8, BGR; sides of a few hundred pixels, at
            least two.

    Returns:
        The maps.
    """
    # Halving is eight times as fast if both sides are even, and faster still without gaps.
    pixels = np.ascontiguousarray(pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2])
    height, width = pixels.shape[:2]
    half = width // 2, height // 2
    small = shrink_by_area(pixels, half)
    planes = [_sobel(plane) for plane in cv2.split(cv2.cvtColor(small, cv2.COLOR_BGR2YCrCb))]
    luma, chroma = _magnitude(planes[0]), np.maximum(_magnitude(planes[1]), _magnitude(planes[2]))
    # Rounding both to 8 bits first costs less than their maximum in 16 bits.
    across, down = _sobel(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY))
    scale = _UNITS / _SOBEL_GAIN
    gradient = _as_plane(cv2.max(_scale_abs(across, scale), _scale_abs(down, scale)))
    pairs = cv2.max(gradient[::2], gradient[1::2]).reshape(half[1], half[0], 2)
    steepest = _as_plane(cv2.max(*cv2.split(pairs)))
    threshold = max(_FINE_MIN_THRESHOLD * _UNITS, _FINE_NOISE_FACTOR * _noise_level(gradient))
    luma_map, chroma_map = _coarse_map(luma, _LUMA_RINGING), _coarse_map(chroma, _CHROMA_RINGING)
    # A pixel at full resolution covers half the distance: broad gradients are half as steep.
    fine = _GradientMap(steepest, threshold, luma_map.broad // 2, luma_map.ringing)
    return EdgeMaps((width, height), gradient, fine, (luma_map, chroma_map))


def find_edge_box(maps: EdgeMaps, relaxation: float) -> Box | None:
    """Find the bounding box of all edge lines.

    Args:
        maps: The gradient maps of the image.
        relaxation: Factor of the noise threshold: 1, or less to include fainter edges.

    Returns:
        The box in pixels at full resolution; None if there is no edge line.
    """
    luma, chroma = maps.coarse
    coarse = _edge_mask(luma, relaxation) | _edge_mask(chroma, relaxation)
    fine = _edge_mask(maps.fine, relaxation)
    return bounding_box(
        _box_of_lines(fine, _FINE_MIN_LENGTHS, (maps.fine,), _FINE_REACH),
        _box_of_lines(coarse, _COARSE_MIN_LENGTHS, maps.coarse, _COARSE_REACH),
    )


def strong_lines(maps: EdgeMaps) -> Mask:
    """Mark the edge lines that are not weak: long, or with strong pixels in any map.

    Args:
        maps: The gradient maps of the image.

    Returns:
        The mask, at half resolution.
    """
    parts = (maps.fine, *maps.coarse)
    edges = np.logical_or.reduce([_edge_mask(part, 1.0) for part in parts])
    strong = np.logical_or.reduce([_strong_mask(part) for part in parts]) & edges
    count, labels, stats, _ = cv2.connectedComponentsWithStats(edges.view(np.uint8))
    sides = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(axis=1)
    kept = (sides > _WEAK_LENGTH * max(edges.shape)) | (
        (sides >= _FINE_MIN_LENGTHS[0])
        & (np.bincount(labels[strong], minlength=count) >= _MIN_STRONG)
    )
    kept[0] = False
    return np.asarray(kept[labels], np.bool_)


def has_strong_edge(maps: EdgeMaps, rows: slice, columns: slice) -> bool:
    """Whether an area contains strong pixels of an edge in the map of the luma.

    Args:
        maps: The gradient maps of the image.
        rows: The rows of the area, in pixels at half resolution.
        columns: The columns of the area, in pixels at half resolution.
    """
    luma = maps.coarse[0]
    area = rows, columns
    part = _GradientMap(luma.gradient[area], luma.threshold, luma.broad[area], luma.ringing[area])
    return int(np.count_nonzero(_edge_mask(part, _STRONG))) >= _MIN_STRONG


def erase(maps: EdgeMaps, areas: Iterable[Box]) -> EdgeMaps:
    """Remove the edges of areas.

    Args:
        maps: The gradient maps of the image.
        areas: The areas to remove the edges of, in pixels at half resolution.

    Returns:
        Maps in which these areas have no gradient.
    """
    fine, luma, chroma = (
        replace(part, gradient=part.gradient.copy()) for part in (maps.fine, *maps.coarse)
    )
    for part in (fine, luma, chroma):
        for area in areas:
            part.gradient[area.y : area.bottom, area.x : area.right] = 0
    return replace(maps, fine=fine, coarse=(luma, chroma))


def faint_edge_masks(maps: EdgeMaps, relaxation: float) -> tuple[Mask, ...]:
    """Find pixels that may belong to an outline too faint or too broken for `find_edge_box`.

    Args:
        maps: The gradient maps of the image.
        relaxation: Factor of the noise threshold, as for `find_edge_box`.

    Returns:
        One mask per map, at half resolution.
    """
    return tuple(
        _mask_above(
            part,
            _scale_abs(part.broad, _FAINT_BROAD),
            _scale_abs(part.ringing, _FAINT_RINGING),
            relaxation * _FAINT_THRESHOLD,
        )
        for part in (maps.fine, *maps.coarse)
    )


def bounding_box(*boxes: Box | None) -> Box | None:
    """The smallest box that contains all given boxes; None if there are none."""
    present = [box for box in boxes if box is not None]
    if not present:
        return None
    left, top = min(box.x for box in present), min(box.y for box in present)
    right = max(box.right for box in present)
    bottom = max(box.bottom for box in present)
    return Box.from_edges(left, top, right, bottom)


def _as_plane(matrix: cv2.typing.MatLike) -> Plane:
    return np.asarray(matrix, np.uint8)


def _scale_abs(matrix: cv2.typing.MatLike, factor: float) -> Plane:
    """Absolute values times a factor, rounded to 8 bits, saturated at 255."""
    return _as_plane(cv2.convertScaleAbs(matrix, alpha=factor))


def _sobel(plane: cv2.typing.MatLike) -> tuple[_Derivative, _Derivative]:
    """Horizontal and vertical derivatives by the 5x5 Sobel kernel, which also smooths a little."""
    across = cv2.Sobel(plane, cv2.CV_16S, 1, 0, ksize=5, borderType=cv2.BORDER_REPLICATE)
    down = cv2.Sobel(plane, cv2.CV_16S, 0, 1, ksize=5, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(across, np.int16), np.asarray(down, np.int16)


def _magnitude(derivatives: tuple[_Derivative, _Derivative]) -> _Derivative:
    """Gradient magnitude as the maximum norm; overwrites the derivatives."""
    across, down = derivatives
    return np.maximum(np.abs(across, out=across), np.abs(down, out=down), out=across)


def _coarse_map(magnitude: _Derivative, ringing: tuple[float, int]) -> _GradientMap:
    gradient = _scale_abs(magnitude, _UNITS / _SOBEL_GAIN)
    # A morphological opening keeps what fills the square, and removes what is narrower.
    square = np.ones((_NARROW_SIDE, _NARROW_SIDE), np.uint8)
    broad = cv2.morphologyEx(gradient, cv2.MORPH_OPEN, square)
    share, side = ringing
    strongest = cv2.dilate(
        _scale_abs(magnitude, share * _UNITS / _SOBEL_GAIN), np.ones((side, side), np.uint8)
    )
    threshold = max(_COARSE_MIN_THRESHOLD * _UNITS, _COARSE_NOISE_FACTOR * _noise_level(gradient))
    return _GradientMap(
        gradient, threshold, _cap(_scale_abs(broad, _NARROW_FACTOR)), _cap(strongest)
    )


def _noise_level(gradient: Plane) -> float:
    """The background's noise: the second smallest of the median gradients along the four borders.

    The product covers most of one border, or of two, but not of three.
    """
    strip = max(2, round(_BORDER_STRIP * min(gradient.shape)))
    borders = (gradient[:strip], gradient[-strip:], gradient[:, :strip], gradient[:, -strip:])
    # Every second row is accurate enough.
    return sorted(_median(border[::2]) for border in borders)[1]


def _median(values: Plane) -> float:
    copy = values.flatten()
    middle = copy.size // 2
    copy.partition(middle)
    return float(copy[middle])


def _edge_mask(part: _GradientMap, relaxation: float) -> Mask:
    return _mask_above(part, part.broad, part.ringing, relaxation)


def _mask_above(part: _GradientMap, broad: Plane, ringing: Plane, relaxation: float) -> Mask:
    # OpenCV's maximum of a plane and a number takes a quarter of numpy's time.
    threshold = int(min(_MAX_FLOOR, part.threshold * relaxation))
    return part.gradient > _as_plane(cv2.max(cv2.max(broad, ringing), threshold))  # type: ignore[call-overload]


def _cap(floor: cv2.typing.MatLike) -> Plane:
    return _as_plane(cv2.min(floor, _MAX_FLOOR))  # type: ignore[call-overload]


def _box_of_lines(
    edges: Mask, min_lengths: tuple[int, int], maps: tuple[_GradientMap, ...], reach: int
) -> Box | None:
    """Find the bounding box of all edge lines that are long enough.

    Beside a person, lines that are weak, short and level are those of a floor, of shadows, or of a
    gradient's bands: they are left out if the other lines reach the top of the image, and do not
    touch them. Elsewhere they may be the outline of a pale product around its print, and above or
    below the other lines that of a pale hem.

    Args:
        edges: Edge mask at half resolution.
        min_lengths: Minimum length of a line, and of a line with as many strong pixels.
        maps: The maps that the edges come from.
        reach: Pixels at full resolution to take off each side, because gradients reach beyond the
            edge that causes them.

    Returns:
        The box in pixels at full resolution; None if there is no such line.
    """
    height, width = edges.shape
    # External contours cost a tenth of connected components; nested ones cannot enlarge the box.
    contours, _ = cv2.findContours(edges.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    boxes = (cv2.boundingRect(contour) for contour in contours)
    lines = sorted(
        (box for box in boxes if max(box[2:]) >= min_lengths[1]), key=lambda box: -max(box[2:])
    )
    longest_weak = _WEAK_LENGTH * max(height, width)

    def is_line(box: Sequence[int], *, strong: bool) -> bool:
        length = max(box[2:])
        upright = box[3] > box[2]
        if length >= min_lengths[0] and (not strong or upright or length > longest_weak):
            return True
        least = _MIN_STRONG if length >= min_lengths[0] else min_lengths[1]
        return sum(_count_strong(part, edges, box) for part in maps) >= least

    found = _enclose(lines, lambda box: is_line(box, strong=False))
    if found is not None and found[1] == 0:
        without_weak = _enclose(lines, lambda box: is_line(box, strong=True))
        if without_weak is not None and without_weak[1] == 0 and without_weak != found:
            weak = (box for box in lines if max(box[2:]) >= min_lengths[0])
            found = _enclose_near(without_weak, weak)
    if found is None:
        return None
    left, top, right, bottom = found
    left, top = (2 * side + reach if side > 0 else 0 for side in (left, top))
    right = 2 * right - reach if right < width else 2 * width
    bottom = 2 * bottom - reach if bottom < height else 2 * height
    return Box(left, top, max(1, right - left), max(1, bottom - top))


def _enclose(
    boxes: Iterable[Sequence[int]], accept: Callable[[Sequence[int]], bool]
) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of the accepted boxes (x, y, width, height); None without any."""
    left, top, right, bottom = sys.maxsize, sys.maxsize, 0, 0
    for box in boxes:
        x, y, across, down = box
        if left <= x and top <= y and x + across <= right and y + down <= bottom:
            continue
        if accept(box):
            left, top = min(left, x), min(top, y)
            right, bottom = max(right, x + across), max(bottom, y + down)
    return (left, top, right, bottom) if right else None


def _enclose_near(
    found: tuple[int, int, int, int], boxes: Iterable[Sequence[int]]
) -> tuple[int, int, int, int]:
    """Extend a box to those above or below it and to those that touch it, from the nearest on."""
    left, top, right, bottom = found
    for x, y, across, down in sorted(boxes, key=lambda box: _distance(found, box)):
        within_columns = left <= x and x + across <= right
        if within_columns or _distance((left, top, right, bottom), (x, y, across, down)) == 0:
            left, top = min(left, x), min(top, y)
            right, bottom = max(right, x + across), max(bottom, y + down)
    return left, top, right, bottom


def _distance(outer: tuple[int, int, int, int], box: Sequence[int]) -> int:
    """Distance between a box given by its edges and one given by its corner and its sides."""
    left, top, right, bottom = outer
    x, y, across, down = box
    return max(left - x - across, x - right, top - y - down, y - bottom, 0)


def _strong_mask(part: _GradientMap) -> Mask:
    return part.gradient > min(_MAX_FLOOR, part.threshold * _STRONG)


def _count_strong(part: _GradientMap, edges: Mask, box: Sequence[int]) -> int:
    """Number of edge pixels in the box of a line whose gradient is strong."""
    x, y, across, down = box
    region = slice(y, y + down), slice(x, x + across)
    strong = part.gradient[region] > min(_MAX_FLOOR, part.threshold * _STRONG)
    return int(np.count_nonzero(strong & edges[region]))
