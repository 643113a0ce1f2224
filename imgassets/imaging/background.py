"""The box of a product by the edges that stand out from the background.

Here lives the trim's method `background`; the other, and what is cut off, is in `trim`.

A product has an outline: brightness or colour that changes within a pixel or two. What shops have
behind it changes slowly (gradients, vignettes, lamps on coloured walls, soft shadows), or faintly
all over (grain, paper, plaster). So the box is that of all edges that are

- steeper than the background's own grain, which is measured along the sides of the picture,
- narrow: the slopes of shadows and gradients are as steep some pixels further,
- not the ripples that JPEG leaves beside a much stronger edge,
- and part of a line of some length: grain and dust are not.

White on white passes, since an outline of three levels is a line; where the box is suspiciously
small, the first condition is relaxed twice. The constants were chosen on `benchmarks/quality`, by
what they cut off and leave there, on another seed than the one that is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from imgassets.imaging.picture import Box, Pixels

# The edges are looked for in a picture of at most this side: lengths below are pixels of it.
_SIDE = 448
_FAINTEST = 1.2  # levels a pixel: below that, rounding and JPEG make edges of their own
_OVER_GRAIN = 3.5  # times the median slope along the sides
_NARROW, _STEEPER = 7, 2.2  # so many times as steep as what fills a square of that side
# The least length of an edge's line, of the longer side of its box; and of one that is so many
# times as steep as need be: the links of a chain, a dotted strap.
_LINE, _STRONG, _STRONG_LINE = 14, 3.0, 9
_RELAXED = (1.0, 0.6, 0.36)
_STRIP = 0.03  # of the shorter side: where the background's grain is measured
_HALO = 1  # a slope reaches that far beyond the pixel that makes it
# Ripples beside stronger edges: the share of the strongest slope around, within so many pixels.
# JPEG's blocks are 8 pixels wide, and 16 for colour, which is stored at half size.
_RIPPLES = {"light": (0.1, 17), "colour": (0.35, 35)}

_UNIT = 32.0  # what Scharr's filter gives for a slope of one level a pixel
_COARSE_UNIT = 0.3 * _UNIT  # so that the steepest slope, 80 levels a pixel, fits 8 bits
_NEARLY_WHITE = 235
_SPREAD_STEP = 2  # levels from one pixel to the next: gradients have less, outlines more
_SPREAD = 0.015  # of the box; a straight seam lets nothing through
_ALIKE = 80  # levels: what a lamp makes of one wall from end to end

_Slopes: TypeAlias = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class _Channel:
    slopes: _Slopes
    threshold: float
    floor: NDArray[np.float32]


def find_by_background(pixels: Pixels, min_side: float) -> tuple[Box, float] | None:
    """The product's box, and the slope (levels a pixel) that counted as an edge.

    Args:
        pixels: height x width x 3, uint8, BGR.
        min_side: a box with a shorter side (share of the picture's) is not believed.

    Returns:
        None where no box is believed: the picture is to be left as it is.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = pixels
    if scale < 1:
        resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        small = np.asarray(resized, dtype=np.uint8)
    channels = _channels(small)
    for relaxed in _RELAXED:
        box = _box_of_edges(channels, relaxed)
        if box is None or box.width < min_side * size[0] or box.height < min_side * size[1]:
            continue
        box = _unless_unsure(box, small)
        return _scaled(box, size, (width, height)), channels[0].threshold * relaxed / _UNIT
    return None


def _channels(pixels: Pixels) -> list[_Channel]:
    ycc = cv2.cvtColor(pixels, cv2.COLOR_BGR2YCrCb)
    light, colour = _slopes(cv2.GaussianBlur(ycc, (3, 3), 0))
    return [_channel(light, *_RIPPLES["light"]), _channel(colour, *_RIPPLES["colour"])]


def _channel(slopes: _Slopes, share: float, reach: int) -> _Channel:
    threshold = max(_FAINTEST * _UNIT, _OVER_GRAIN * _grain(slopes))
    eight_bit = cv2.convertScaleAbs(slopes, alpha=1 / _COARSE_UNIT)
    strongest = cv2.dilate(eight_bit, np.ones((reach, reach), np.uint8))
    # An opening keeps what fills the square, and removes what is narrower.
    broad = cv2.morphologyEx(slopes, cv2.MORPH_OPEN, np.ones((_NARROW, _NARROW), np.uint8))
    floor = np.maximum(strongest * np.float32(share * _COARSE_UNIT), broad * np.float32(_STEEPER))
    return _Channel(slopes, threshold, floor)


def _slopes(ycc: cv2.typing.MatLike) -> tuple[_Slopes, _Slopes]:
    """The steeper of the slopes across and down: of brightness, and of colour."""
    across = cv2.Scharr(ycc, cv2.CV_16S, 1, 0, borderType=cv2.BORDER_REPLICATE)
    down = cv2.Scharr(ycc, cv2.CV_16S, 0, 1, borderType=cv2.BORDER_REPLICATE)
    light, red, blue = cv2.split(np.maximum(np.abs(across), np.abs(down)))
    return np.asarray(light, np.int16), np.asarray(cv2.max(red, blue), np.int16)


def _grain(slopes: _Slopes) -> float:
    """The background's slope: the second smallest of the medians along the four sides.

    The product covers most of one side, or of two, but not of three.
    """
    strip = max(2, round(_STRIP * min(slopes.shape)))
    sides = (slopes[:strip], slopes[-strip:], slopes[:, :strip], slopes[:, -strip:])
    return float(sorted(float(np.median(side)) for side in sides)[1])


def _box_of_edges(channels: list[_Channel], relaxed: float) -> Box | None:
    light, colour = (
        (channel.slopes > channel.threshold * relaxed) & (channel.slopes > channel.floor)
        for channel in channels
    )
    edges = (light | colour).astype(np.uint8)
    closed = cv2.morphologyEx(edges, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    # A third of the time of the default algorithm; 448x448 pixels have fewer than 65,536 parts.
    count, labels, found, _ = cv2.connectedComponentsWithStatsWithAlgorithm(
        closed, 8, cv2.CV_16U, cv2.CCL_SPAGHETTI
    )
    strong = (light & (channels[0].slopes > channels[0].threshold * _STRONG)) | (
        colour & (channels[1].slopes > channels[1].threshold * _STRONG)
    )
    strength = np.bincount(labels[strong], minlength=count)
    length = found[:, 2:4].max(axis=1)
    kept = (length >= _LINE) | ((length >= _STRONG_LINE) & (strength >= _STRONG_LINE))
    kept[0] = False
    lines = found[kept]
    if len(lines) == 0:
        return None
    height, width = edges.shape
    left, top = (int(side) for side in lines[:, :2].min(axis=0))
    right, bottom = (int(side) for side in (lines[:, :2] + lines[:, 2:4]).max(axis=0))
    left, top = (side + _HALO if side > 0 else 0 for side in (left, top))
    right = right - _HALO if right < width else width
    bottom = bottom - _HALO if bottom < height else height
    return Box(left, top, max(1, right - left), max(1, bottom - top))


def _unless_unsure(box: Box, pixels: Pixels) -> Box:
    """Undo a cut of which edges alone cannot say that it is background.

    Where the product reaches both sides, what is above and below it are two plain areas with
    nothing that joins them, and one may be cloth: a plain skirt that fills the picture's foot. They
    are cut off only if they are of one colour, or nearly white. The same for left and right; but
    people and clothes stand upright, so that an area beside them that runs on into the box, behind
    shoulders and hems, is cut off too.
    """
    height, width = pixels.shape[:2]
    left, top, right, bottom = box.x, box.y, box.x + box.width, box.y + box.height
    if box.width == width:
        first, last = _plain_background(pixels[:top], pixels[bottom:])
        top, bottom = top if first else 0, bottom if last else height
    elif box.height == height:
        first, last = _plain_background(pixels[:, :left], pixels[:, right:])
        left = left if first or _runs_on(pixels, box, (0, height // 2)) else 0
        right = right if last or _runs_on(pixels, box, (width - 1, height // 2)) else width
    return Box(left, top, right - left, bottom - top)


def _runs_on(pixels: Pixels, box: Box, seed: tuple[int, int]) -> bool:
    """Whether what is at a place outside the box spreads over a part of the box."""
    x, y = seed
    if box.x <= x < box.x + box.width and box.y <= y < box.y + box.height:
        return False
    mask = np.zeros((pixels.shape[0] + 2, pixels.shape[1] + 2), np.uint8)
    smooth = cv2.GaussianBlur(pixels, (3, 3), 0)
    # From neighbour to neighbour, so that gradients are followed and outlines are not crossed.
    step = (_SPREAD_STEP,) * 3
    cv2.floodFill(smooth, mask, seed, (0, 0, 0), step, step, 4 | cv2.FLOODFILL_MASK_ONLY)
    inside = mask[1:-1, 1:-1][box.y : box.y + box.height, box.x : box.x + box.width]
    return float(inside.mean()) >= _SPREAD


def _plain_background(first: Pixels, last: Pixels) -> tuple[bool, bool]:
    """Whether each of two opposite strips is background: nearly white, or both of one colour."""
    colours = [np.median(part, axis=(0, 1)) if part.size else None for part in (first, last)]
    white = [colour is None or float(colour.min()) >= _NEARLY_WHITE for colour in colours]
    if colours[0] is not None and colours[1] is not None:
        alike = bool(np.abs(colours[0] - colours[1]).max() <= _ALIKE)
        return white[0] or alike, white[1] or alike
    return white[0], white[1]


def _scaled(box: Box, size: tuple[int, int], full: tuple[int, int]) -> Box:
    """The box in a picture of another size, rounded outwards."""
    across, down = full[0] / size[0], full[1] / size[1]
    x, y = int(box.x * across), int(box.y * down)
    right = min(full[0], -int(-(box.x + box.width) * across // 1))
    bottom = min(full[1], -int(-(box.y + box.height) * down // 1))
    return Box(x, y, right - x, bottom - y)
