"""The box of a product by the edges that stand out from the background.

Here lives the trim's method `background`; the other, and what is cut off, is in `trim`.

A product has an outline: brightness or colour that changes within a pixel or two. What shops have
behind it changes slowly (gradients, vignettes, lamps on coloured walls, soft shadows), or faintly
all over (grain, paper, plaster). So the box is that of all edges that are

- steeper than the background's own grain, which is measured along the sides of the picture,
- narrow: the slopes of shadows and gradients are as steep some pixels further,
- not the ripples that JPEG leaves beside a much stronger edge,
- and part of a line of some length: grain and dust are not.

They are looked for twice, and the box holds what either look finds: in brightness as it is, for
straps of a pixel; and in brightness and colour at half the size, where grain is averaged away and
an outline of two levels, or no steeper than the wall's grain, still stands out. On a wall with a
grain of its own, what is smoother than the wall is product as well, and the picture is left as it
is where an outline is hardly steeper than that grain. Where the box is suspiciously
small, the first condition is relaxed twice. The constants were chosen on `benchmarks/quality`, by
what they cut off and leave there, on other seeds than those that are reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from imgassets.imaging.picture import Box, Pixels

_SIDE = 448  # the edges are looked for in a picture of at most this side
_RELAXED = (1.0, 0.6, 0.36)
_STRICT = 1.5
_STRONG = 3.0  # so many times as steep as need be: an edge that a shorter line is believed of
_STEEPER = 2.2  # times what fills a square of `narrow` pixels
_STRIP = 0.03  # of the shorter side: where the background's grain is measured
_HALO = 1  # a slope reaches that far beyond the pixel that makes it
_NEAR = 6  # pixels from the box: there an edge of half a line's length is the product's as well
_CLOSE = 0.045  # of the longer side: a margin so narrow may be a product that fades at the edge

# A wall has a grain of its own from so much above `faintest` on. What is smoother by that share,
# on average over three by three cells of so many pixels, is no wall.
_ROUGH, _SMOOTHER, _CELL = 1.25, 0.45, 8

_UNIT = 32.0  # what Scharr's filter gives for a slope of one level a pixel
_COARSE_UNIT = 0.3 * _UNIT  # so that the steepest slope, 80 levels a pixel, fits 8 bits
_NEARLY_WHITE = 235
_SPREAD_STEP = 2  # levels from one pixel to the next: gradients have less, outlines more
_SPREAD = 0.015  # of the box; a straight seam lets nothing through
_ALIKE = 80  # levels: what a lamp makes of one wall from end to end

# A product below the least side of the settings: its own least sides, the shorter and the longer,
# and where its middle must lie (shares of the picture's).
_SMALL, _MIDDLE = (0.03, 0.15), (0.25, 0.75)
_AGREE = 20  # pixels that boxes at two thresholds may differ by: JPEG's blocks are 16

_Slopes: TypeAlias = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class _Look:
    """What counts as an edge in a picture of one size.

    Attributes:
        faintest: levels a pixel; below that, rounding and JPEG make edges of their own.
        over_grain: times the median slope along the sides.
        narrow: pixels; a slope that fills a square of that side is no edge.
        line: the least length of an edge's line (the longer side of its box), pixels.
        strong_line: the same of one that is `_STRONG`: the links of a chain, a dotted strap.
        ripples: beside stronger edges, of brightness and of colour: the share of the strongest
            slope around, and within how many pixels. JPEG's blocks are 8 pixels wide, and 16 for
            colour, which is stored at half size.
    """

    faintest: float
    over_grain: float
    narrow: int
    line: int
    strong_line: int
    ripples: tuple[tuple[float, int], ...]


_FULL = _Look(1.2, 3.5, 7, 14, 9, ((0.1, 17),))
_HALF = _Look(0.8, 3.0, 5, 14, 7, ((0.1, 9), (0.35, 17)))


@dataclass(frozen=True, slots=True)
class _Channel:
    slopes: _Slopes
    threshold: float
    floor: _Slopes


def find_by_background(pixels: Pixels, min_side: float) -> tuple[Box, float] | None:
    """The product's box, and the slope (levels a pixel) that counted as an edge.

    Args:
        pixels: height x width x 3, uint8, BGR.
        min_side: a box with a shorter side (share of the picture's) is believed only where
            nothing else is to be seen: a small product on a plain ground.

    Returns:
        None where no box is believed: the picture is to be left as it is.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = pixels if scale == 1 else _resized(pixels, size)
    half = _resized(small, (-(-size[0] // 2), -(-size[1] // 2)))
    full_channels = _channels(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), _FULL)
    half_channels = _channels(cv2.cvtColor(half, cv2.COLOR_BGR2YCrCb), _HALF)
    light = full_channels[0]
    rough = light.threshold >= _ROUGH * _FULL.faintest * _UNIT
    smooth = _box_of_smooth(light.slopes) if rough else None

    def seen(relaxed: float) -> Box | None:
        fine = _box_of_edges(full_channels, _FULL, relaxed)
        coarse = _box_of_edges(half_channels, _HALF, relaxed)
        if coarse is not None:
            coarse = _scaled(coarse, (half.shape[1], half.shape[0]), size)
        return _around(fine, coarse)

    tried: list[Box] = []
    for relaxed in _RELAXED:
        box = _around(seen(relaxed), smooth)
        if box is None:
            continue
        tried.append(box)
        if box.width >= min_side * size[0] and box.height >= min_side * size[1]:
            break
    else:
        if rough or not tried or not _is_small_product(tried[0], tried[-1], size):
            return None
    if rough and not _nearly_holds(seen(_STRICT), tried[-1]):
        return None
    box = _to_close_edges(_unless_unsure(tried[-1], small), size)
    return _scaled(box, size, (width, height)), light.threshold * relaxed / _UNIT


def _resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _channels(planes: cv2.typing.MatLike, look: _Look) -> list[_Channel]:
    slopes = _slopes(cv2.GaussianBlur(planes, (3, 3), 0))
    return [
        _channel(plane, look, *ripples) for plane, ripples in zip(slopes, look.ripples, strict=True)
    ]


def _channel(slopes: _Slopes, look: _Look, share: float, reach: int) -> _Channel:
    threshold = max(look.faintest * _UNIT, look.over_grain * _grain(slopes))
    eight_bit = cv2.convertScaleAbs(slopes, alpha=1 / _COARSE_UNIT)
    strongest = cv2.dilate(eight_bit, np.ones((reach, reach), np.uint8))
    weight = share * _COARSE_UNIT
    ripples = cv2.addWeighted(strongest, weight, strongest, 0, 0, dtype=cv2.CV_16S)
    # An opening keeps what fills the square, and removes what is narrower.
    square = np.ones((look.narrow, look.narrow), np.uint8)
    broad = cv2.morphologyEx(slopes, cv2.MORPH_OPEN, square)
    floor = cv2.max(ripples, cv2.addWeighted(broad, _STEEPER, broad, 0, 0))
    return _Channel(slopes, threshold, np.asarray(floor, np.int16))


def _slopes(planes: cv2.typing.MatLike) -> list[_Slopes]:
    """The steeper of the slopes across and down: of brightness, and of colour if it is there."""
    across = cv2.Scharr(planes, cv2.CV_16S, 1, 0, borderType=cv2.BORDER_REPLICATE)
    down = cv2.Scharr(planes, cv2.CV_16S, 0, 1, borderType=cv2.BORDER_REPLICATE)
    steeper = np.maximum(np.abs(across), np.abs(down))
    if steeper.ndim == 2:
        return [np.asarray(steeper, np.int16)]
    light, red, blue = cv2.split(steeper)
    return [np.asarray(light, np.int16), np.asarray(cv2.max(red, blue), np.int16)]


def _grain(slopes: _Slopes) -> float:
    """The background's slope: the second smallest of the medians along the four sides.

    The product covers most of one side, or of two, but not of three.
    """
    strip = max(2, round(_STRIP * min(slopes.shape)))
    sides = (slopes[:strip], slopes[-strip:], slopes[:, :strip], slopes[:, -strip:])
    return float(sorted(float(np.median(side)) for side in sides)[1])


def _box_of_edges(channels: list[_Channel], look: _Look, relaxed: float) -> Box | None:
    edges: NDArray[np.uint8] = np.zeros(channels[0].slopes.shape, np.uint8)
    strong = np.zeros(channels[0].slopes.shape, np.bool_)
    for channel in channels:
        # Slopes are whole numbers.
        floor = np.maximum(channel.floor, np.int16(channel.threshold * relaxed))
        seen = cv2.compare(channel.slopes, floor, cv2.CMP_GT)
        edges |= np.asarray(seen, np.uint8)
        strong |= (channel.slopes > np.int16(channel.threshold * _STRONG)) & (edges > 0)
    closed = cv2.morphologyEx(edges, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    # A third of the time of the default algorithm; 448x448 pixels have fewer than 65,536 parts.
    count, labels, found, _ = cv2.connectedComponentsWithStatsWithAlgorithm(
        closed, 8, cv2.CV_16U, cv2.CCL_SPAGHETTI
    )
    strength = np.bincount(labels[strong], minlength=count)
    length = found[:, 2:4].max(axis=1)
    kept = (length >= look.line) | ((length >= look.strong_line) & (strength >= look.strong_line))
    kept[0] = False
    if not kept.any():
        return None
    lines = np.asarray(found)[kept | _beside(found, found[kept], length >= look.line // 2)]
    height, width = channels[0].slopes.shape
    left, top = (int(side) for side in lines[:, :2].min(axis=0))
    right, bottom = (int(side) for side in (lines[:, :2] + lines[:, 2:4]).max(axis=0))
    left, top = (side + _HALO if side > 0 else 0 for side in (left, top))
    right = right - _HALO if right < width else width
    bottom = bottom - _HALO if bottom < height else height
    return Box(left, top, max(1, right - left), max(1, bottom - top))


def _beside(
    found: cv2.typing.MatLike, lines: cv2.typing.MatLike, of: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which of some parts lie close to the box of all lines: pieces of an outline that fades."""
    start, end = found[:, :2], found[:, :2] + found[:, 2:4]
    first = lines[:, :2].min(axis=0) - _NEAR
    last = (lines[:, :2] + lines[:, 2:4]).max(axis=0) + _NEAR
    beside = of & (end > first).all(axis=1) & (start < last).all(axis=1)
    beside[0] = False
    return np.asarray(beside, np.bool_)


def _box_of_smooth(slopes: _Slopes) -> Box | None:
    """The box of what is smoother than a rough wall: plain cloth, whose outline the wall drowns."""
    height, width = int(slopes.shape[0]), int(slopes.shape[1])
    size = max(1, width // _CELL), max(1, height // _CELL)
    cells = np.asarray(cv2.resize(slopes, size, interpolation=cv2.INTER_AREA))
    cells = np.asarray(cv2.blur(cells, (3, 3)))
    sides = np.concatenate([cells[0], cells[-1], cells[:, 0], cells[:, -1]])
    rows, columns = np.nonzero(cells < (1 - _SMOOTHER) * np.median(sides))
    if rows.size == 0:
        return None
    # One cell more belongs to the average, and corners fill but a part of theirs.
    left, top = max(0, int(columns.min()) - 2), max(0, int(rows.min()) - 2)
    right, bottom = min(size[0], int(columns.max()) + 3), min(size[1], int(rows.max()) + 3)
    return _scaled(Box(left, top, right - left, bottom - top), size, (width, height))


def _around(*boxes: Box | None) -> Box | None:
    """The box that holds all of those."""
    there = [box for box in boxes if box is not None]
    if not there:
        return None
    left, top = min(box.x for box in there), min(box.y for box in there)
    right = max(box.x + box.width for box in there)
    bottom = max(box.y + box.height for box in there)
    return Box(left, top, right - left, bottom - top)


def _nearly_holds(box: Box | None, other: Box) -> bool:
    """Whether a box lacks no more than `_AGREE` pixels of another at any side."""
    if box is None:
        return False
    around = _around(box, other) or other
    return (
        box.x - around.x <= _AGREE
        and box.y - around.y <= _AGREE
        and around.x + around.width - box.x - box.width <= _AGREE
        and around.y + around.height - box.y - box.height <= _AGREE
    )


def _to_close_edges(box: Box, size: tuple[int, int]) -> Box:
    """The box, its sides moved to the picture's edge where they are close to it."""
    close = round(_CLOSE * max(size))
    left, top = (side if side > close else 0 for side in (box.x, box.y))
    right, bottom = (
        end if end < full - close else full
        for end, full in zip((box.x + box.width, box.y + box.height), size, strict=True)
    )
    return Box(left, top, right - left, bottom - top)


def _is_small_product(first: Box, last: Box, size: tuple[int, int]) -> bool:
    """Whether a small box is a product, not dust, nor a logo, nor the print of a pale shirt.

    At a third of the threshold nothing else may be seen than at the whole of it.

    Args:
        first: the box at the first threshold.
        last: the box at the last.
        size: width and height of the picture.
    """
    shares = sorted((last.width / size[0], last.height / size[1]))
    middle = (last.x + last.width / 2) / size[0], (last.y + last.height / 2) / size[1]
    return (
        _nearly_holds(first, last)
        and all(share >= least for share, least in zip(shares, _SMALL, strict=True))
        and all(_MIDDLE[0] <= place <= _MIDDLE[1] for place in middle)
    )


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
