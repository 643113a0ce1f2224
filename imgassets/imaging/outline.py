"""What stands out from the background of a picture: lines of edges, and fainter traces of them.

Here lives the evidence; the box that is drawn from it is in `background`.

Slopes are looked at in three maps: of brightness as it is, for straps of a pixel; and of brightness
and of colour at half the size, where grain is averaged away and an outline of two levels, or no
steeper than the wall's grain, still stands out. All three are stored at half the size (of the first
the steepest of four pixels), in 8 bits: the work is a quarter, and boxes are exact to two pixels.
An edge is what is

- steeper than the background's own grain, which is measured along the sides of the picture,
- narrow: the slopes of shadows and gradients are as steep some pixels further,
- and not the ripples that JPEG leaves beside a much stronger edge.

The constants were chosen on `benchmarks/quality`, by what they cut off and leave there; its README
says on which seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from imgassets.imaging.image import Box, Pixels
from imgassets.imaging.resize import averaged

Plane: TypeAlias = NDArray[np.uint8]
Mask: TypeAlias = NDArray[np.bool_]
_Slopes: TypeAlias = NDArray[np.int16]

_UNIT = (
    32.0  # of a slope of one level a pixel in 8 bits; from 8 levels on none is told from another
)
_SOBEL = 128.0  # what Sobel's filter of five pixels gives for it
_STEEPEST = 254  # a floor is at most this, so that the steepest slopes always exceed it

# The least slope of an edge, levels a pixel: below it rounding and JPEG make edges of their own.
# And how many times the median slope along the sides it must be. At the full size, and at half.
_FINE_FAINTEST, _FINE_OVER_GRAIN = 1.2, 3.5
_FAINTEST, _OVER_GRAIN = 0.8, 3.0
_STRIP = 0.03  # of the shorter side: where the background's grain is measured

_STEEPER = 2.2  # times what fills a square of `_NARROW` pixels
_NARROW = 5  # pixels at half the size; a slope that fills a square of that side is no edge

# Ripples beside stronger edges, of brightness and of colour: the share of the strongest slope
# around, and within how many pixels at half the size. JPEG's blocks are 8 pixels wide at full size,
# and 16 for colour, which is stored at half size.
_RIPPLES, _COLOUR_RIPPLES = (0.1, 9), (0.35, 17)

# The least length of a line (the longer side of its box), pixels at half the size; and the same of
# one with as many pixels that are `_STRONG` times as steep as need be: the links of a chain, a
# dotted strap. In the map of the full size, and in those of half.
_FINE_LINE, _LINE = (7, 5), (14, 7)
_STRONG = 3.0

# By so many pixels a slope reaches beyond the edge that makes it: at the full size, and at half.
_HALO, _HALF_HALO = 1, 2

# Of what an edge must exceed, by the grain, by shadows, by ripples: a trace of an outline that
# fades, that lies in a shadow, of a pale hem just beyond a dark stripe.
_FAINT, _FAINT_BROAD, _FAINT_RIPPLES = 0.6, 0.9, 0.5


@dataclass(frozen=True, slots=True)
class _Map:
    """Slopes at half the size, and what they must exceed to be an edge.

    Attributes:
        slopes: `_UNIT` a level a pixel.
        threshold: by the grain.
        broad: by what fills the place, if it is a shadow or a gradient.
        ripples: by the strongest edge around.
    """

    slopes: Plane
    threshold: float
    broad: Plane
    ripples: Plane


@dataclass(frozen=True, slots=True)
class Outline:
    """The evidence of a picture.

    Attributes:
        size: width and height that were looked at: those of the picture, or one less if odd.
        slopes: of brightness at the full size.
        fine: brightness as it is.
        coarse: brightness and colour at half the size.
    """

    size: tuple[int, int]
    slopes: Plane
    fine: _Map
    coarse: tuple[_Map, _Map]

    @property
    def threshold(self) -> float:
        """The slope of brightness that counts as an edge, levels a pixel."""
        return self.fine.threshold / _UNIT

    @property
    def roughness(self) -> float:
        """How many times the faintest edge's slope the wall's grain asks for; 1: it is plain."""
        return self.threshold / _FINE_FAINTEST


def trace(pixels: Pixels) -> Outline:
    """Look for what stands out.

    Args:
        pixels: height x width x 3, uint8, BGR, of some hundred pixels a side, at least two.
    """
    # Halving is eight times as fast where both sides are even.
    pixels = pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]
    height, width = pixels.shape[:2]
    half = width // 2, height // 2
    small = averaged(pixels, half)
    planes = [_derived(part) for part in cv2.split(cv2.cvtColor(small, cv2.COLOR_BGR2YCrCb))]
    light, colour = _steeper(planes[0]), np.maximum(_steeper(planes[1]), _steeper(planes[2]))
    # Rounding both to 8 bits first costs less than the larger of them in 16.
    across, down = _derived(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY))
    slopes = _plane(cv2.max(_rounded(across, _UNIT / _SOBEL), _rounded(down, _UNIT / _SOBEL)))
    steepest = np.maximum(slopes[::2], slopes[1::2])
    steepest = np.maximum(steepest[:, ::2], steepest[:, 1::2])
    fine_threshold = max(_FINE_FAINTEST * _UNIT, _FINE_OVER_GRAIN * _grain(slopes))
    of_light, of_colour = _coarse(light, _RIPPLES), _coarse(colour, _COLOUR_RIPPLES)
    # A pixel is half as wide at the full size, and a broad slope half as steep in it.
    fine = _Map(steepest, fine_threshold, of_light.broad // 2, of_light.ripples)
    return Outline((width, height), slopes, fine, (of_light, of_colour))


def lines(outline: Outline, relaxed: float) -> Box | None:
    """The box of all lines of edges.

    Args:
        outline: of the picture.
        relaxed: times the slope that must be exceeded: 1, or less to see fainter ones as well.
    """
    light, colour = outline.coarse
    coarse = _edges(light, relaxed) | _edges(colour, relaxed)
    return around(
        _box_of_lines(_edges(outline.fine, relaxed), _FINE_LINE, (outline.fine,), _HALO),
        _box_of_lines(coarse, _LINE, outline.coarse, _HALF_HALO),
    )


def faint(outline: Outline, relaxed: float) -> tuple[Mask, ...]:
    """Where each map has what may be an outline too faint, or too broken, for `lines`."""
    return tuple(
        _exceeding(
            part,
            _rounded(part.broad, _FAINT_BROAD),
            _rounded(part.ripples, _FAINT_RIPPLES),
            relaxed * _FAINT,
        )
        for part in (outline.fine, *outline.coarse)
    )


def around(*boxes: Box | None) -> Box | None:
    """The box that holds all of those."""
    there = [box for box in boxes if box is not None]
    if not there:
        return None
    left, top = min(box.x for box in there), min(box.y for box in there)
    right = max(box.x + box.width for box in there)
    bottom = max(box.y + box.height for box in there)
    return Box(left, top, right - left, bottom - top)


def _plane(matrix: cv2.typing.MatLike) -> Plane:
    return np.asarray(matrix, np.uint8)


def _rounded(matrix: cv2.typing.MatLike, factor: float) -> Plane:
    """Absolute values times a factor, rounded to 8 bits; 255 where they exceed it."""
    return _plane(cv2.convertScaleAbs(matrix, alpha=factor))


def _derived(plane: cv2.typing.MatLike) -> tuple[_Slopes, _Slopes]:
    """Slopes across and down, a little smoothed, as Sobel's filter of five pixels does."""
    across = cv2.Sobel(plane, cv2.CV_16S, 1, 0, ksize=5, borderType=cv2.BORDER_REPLICATE)
    down = cv2.Sobel(plane, cv2.CV_16S, 0, 1, ksize=5, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(across, np.int16), np.asarray(down, np.int16)


def _steeper(slopes: tuple[_Slopes, _Slopes]) -> _Slopes:
    across, down = slopes
    return np.maximum(np.abs(across, out=across), np.abs(down, out=down), out=across)


def _coarse(slopes: _Slopes, ripples: tuple[float, int]) -> _Map:
    eight_bit = _rounded(slopes, _UNIT / _SOBEL)
    # An opening keeps what fills the square, and removes what is narrower.
    square = np.ones((_NARROW, _NARROW), np.uint8)
    broad = cv2.morphologyEx(eight_bit, cv2.MORPH_OPEN, square)
    share, reach = ripples
    strongest = cv2.dilate(
        _rounded(slopes, share * _UNIT / _SOBEL), np.ones((reach, reach), np.uint8)
    )
    threshold = max(_FAINTEST * _UNIT, _OVER_GRAIN * _grain(eight_bit))
    return _Map(eight_bit, threshold, _capped(_rounded(broad, _STEEPER)), _capped(strongest))


def _grain(slopes: Plane) -> float:
    """The background's slope: the second smallest of the medians along the four sides.

    The product covers most of one side, or of two, but not of three.
    """
    strip = max(2, round(_STRIP * min(slopes.shape)))
    # Every second pixel is enough.
    sides = (slopes[:strip], slopes[-strip:], slopes[:, :strip], slopes[:, -strip:])
    return sorted(_median(side[::2]) for side in sides)[1]


def _median(slopes: Plane) -> float:
    middle = slopes.size // 2
    return float(np.partition(slopes, middle, axis=None)[middle])


def _edges(part: _Map, relaxed: float) -> Mask:
    return _exceeding(part, part.broad, part.ripples, relaxed)


def _exceeding(part: _Map, broad: Plane, ripples: Plane, relaxed: float) -> Mask:
    # OpenCV's maximum of a plane and a number takes a quarter of numpy's time.
    least = int(min(_STEEPEST, part.threshold * relaxed))
    return part.slopes > _plane(cv2.max(cv2.max(broad, ripples), least))  # type: ignore[call-overload]


def _capped(floor: cv2.typing.MatLike) -> Plane:
    return _plane(cv2.min(floor, _STEEPEST))  # type: ignore[call-overload]


def _box_of_lines(
    edges: Mask, least: tuple[int, int], maps: tuple[_Map, ...], halo: int
) -> Box | None:
    """The box of all lines that are long enough, in pixels of the full size.

    Args:
        edges: at half the size.
        least: length of a line, and of a strong one.
        maps: that the edges are of.
        halo: by so many pixels the box is smaller, since slopes reach beyond what makes them.
    """
    height, width = edges.shape
    left, top, right, bottom = width, height, 0, 0
    # Contours from outside cost a tenth of labelled parts; what lies within others needs no box.
    contours, _ = cv2.findContours(edges.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    for contour in contours:
        x, y, across, down = cv2.boundingRect(contour)
        if left <= x and top <= y and x + across <= right and y + down <= bottom:
            continue
        if max(across, down) < least[0]:
            if max(across, down) < least[1]:
                continue
            place = slice(y, y + down), slice(x, x + across)
            if sum(_strong(part, edges, place) for part in maps) < least[1]:
                continue
        left, top = min(left, x), min(top, y)
        right, bottom = max(right, x + across), max(bottom, y + down)
    if right == 0:
        return None
    left, top = (2 * side + halo if side > 0 else 0 for side in (left, top))
    right = 2 * right - halo if right < width else 2 * width
    bottom = 2 * bottom - halo if bottom < height else 2 * height
    return Box(left, top, max(1, right - left), max(1, bottom - top))


def _strong(part: _Map, edges: Mask, place: tuple[slice, slice]) -> int:
    """How many edges in a place are strong."""
    strong = part.slopes[place] > min(_STEEPEST, part.threshold * _STRONG)
    return int(np.count_nonzero(strong & edges[place]))
