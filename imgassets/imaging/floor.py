"""Recognise the floor behind a product, whose seam with the wall is no outline of the product.

The seam is an edge that reaches the left or the right border of the image, or both, so that the box
of all edges does too, although the part above the seam shows how wide the product is. A floor is
told from cloth that fills the width, such as a skirt, and from a belt, a strap or a table, by all
of these:

- above the seam, nothing is visible at the borders;
- below it, only lines that are nearly level are: seams, planks, shadows;
- the product stands in front of it: its outline continues across the seam, and encloses another
  colour than that of the floor;
- wall and floor differ, and each has about the same colour left and right of the product; the floor
  reaches the bottom of the image.

The constants were chosen on real catalogue photographs; the README of `benchmarks/quality` says
which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from imgassets.imaging.image import Box, Pixels
from imgassets.imaging.outline import EdgeMaps, Mask, has_strong_edge, strong_lines

_STRIP = 0.05  # of the width: strips at both borders that a seam must reach
_MIN_WALL = 0.4  # of the height: least height of the wall
_MAX_TILT = 0.06  # of the height: greatest difference between the ends of the seam
_REACH = 3  # rows that the seam is blurred over
_MIN_FLOOR = 4  # rows: least height of the floor
_WINDOW = 0.06  # of the height: rows above and below the seam that are compared
_MIN_ABOVE = 0.15  # of the height: least height of the product above the seam
_RUN = 11  # rows: minimum height of an edge that is not level
_MAX_SHIFT = 0.08  # of the width: by how much the outline may differ above and below the seam
_MARGIN, _MAX_GAP = 3, 3  # columns kept beside the product, and those between two parts of it

# Levels: how much the sides of a wall or floor may differ, how much wall and floor must, how much
# product and floor must, and from which difference on a pixel beside the product belongs to it.
_SAME, _STEP, _CONTRAST, _OTHER = 40, 3, 12, 16
# Share of the pixels between the product's outlines that differ from the floor; and of the floor
# beside it that may differ by more than the levels of its shading, as its seams and shadows do.
_MIN_OTHER, _MAX_OTHER, _SHADE = 0.3, 0.08, 24


@dataclass(frozen=True, slots=True)
class _Seam:
    """A seam of wall and floor, in pixels at half resolution.

    Attributes:
        top: The first of its rows.
        bottom: The row below it.
        visible: Whether it reaches the left and the right border.
    """

    top: int
    bottom: int
    visible: tuple[bool, bool]


@dataclass(frozen=True, slots=True)
class _Span:
    """A range of columns: the first one, and the one after the last."""

    start: int
    end: int


def find_floor(maps: EdgeMaps, pixels: Pixels) -> tuple[Box, Box] | None:
    """Find the areas beside a product that stands on a floor, from the seam downwards.

    Args:
        maps: The gradient maps of the image.
        pixels: The image, shape height x width x 3, uint8, BGR.

    Returns:
        The areas left and right of the product, in pixels at half resolution, down to the bottom of
        the image. None if there is no floor, or if it may be product.
    """
    height, width = maps.size[1] // 2, maps.size[0] // 2
    strip = _strip(width)
    wall = slice(0, round(_MIN_WALL * height))
    # Most images end here: the product itself touches a border.
    if any(has_strong_edge(maps, wall, s) for s in (slice(0, strip), slice(width - strip, width))):
        return None
    lines = strong_lines(maps)
    seam = _find_seam(lines)
    found = None if seam is None else _find_product(lines, seam)
    if seam is None or found is None:
        return None
    product, inside = found
    half = pixels[::2, ::2][:height, :width].astype(np.int16)
    left, right = max(0, product.start - _MARGIN), min(width, product.end + _MARGIN)
    left -= _columns_of_product(half[seam.bottom :, :left][:, ::-1])
    right += _columns_of_product(half[seam.bottom :, right:])
    if min(left, width - right) < strip or not _is_behind(half, _Span(left, right), seam, inside):
        return None
    rows = height - seam.top
    return Box(0, seam.top, left, rows), Box(right, seam.top, width - right, rows)


def _strip(width: int) -> int:
    return max(4, round(_STRIP * width))


def _find_seam(lines: Mask) -> _Seam | None:
    """Find the topmost line at the borders, if it is low enough and level."""
    height, width = lines.shape
    strip = _strip(width)
    rows = [np.flatnonzero(s.any(axis=1)) for s in (lines[:, :strip], lines[:, width - strip :])]
    ends = [int(found[0]) for found in rows if found.size]
    if not ends or max(ends) - min(ends) > _MAX_TILT * height:
        return None
    top, bottom = min(ends) - _REACH, max(ends) + _REACH
    if top < _MIN_WALL * height or bottom + _MIN_FLOOR > height:
        return None
    return _Seam(top, bottom, (bool(rows[0].size), bool(rows[1].size)))


def _find_product(lines: Mask, seam: _Seam) -> tuple[_Span, _Span] | None:
    """Find the product by its edges above the seam, and by those that are not level below it.

    Args:
        lines: The edge lines at half resolution.
        seam: The seam.

    Returns:
        The columns of the product, and those between its outlines right below the seam; None if its
        outline does not continue across the seam.
    """
    height, width = lines.shape
    window = round(_WINDOW * height)
    upright = cv2.erode(
        lines.view(np.uint8), np.ones((_RUN, 1), np.uint8), borderType=cv2.BORDER_CONSTANT
    ).astype(np.bool_)
    wall = lines[: seam.top]
    above, below = _span(wall), _span(upright[seam.top :])
    meeting = _span(wall[-window:])
    leaving = _span(upright[seam.bottom : seam.bottom + window])
    if above is None or below is None or meeting is None or leaving is None:
        return None
    shift = max(abs(meeting.start - leaving.start), abs(meeting.end - leaving.end))
    least = _MIN_ABOVE * height
    if shift > _MAX_SHIFT * width or seam.top - int(wall.any(axis=1).argmax()) < least:
        return None
    return _Span(min(above.start, below.start), max(above.end, below.end)), leaving


def _span(mask: Mask) -> _Span | None:
    """The columns from the first to the last with a set pixel."""
    found = np.flatnonzero(mask.any(axis=0))
    return _Span(int(found[0]), int(found[-1]) + 1) if found.size else None


def _columns_of_product(floor: NDArray[np.int16]) -> int:
    """Number of columns, from the product outwards, whose colours stand out from their rows."""
    if floor.shape[1] == 0:
        return 0
    other = np.abs(floor - np.median(floor, axis=1, keepdims=True)).max(axis=2) > _OTHER
    extent = 0
    for column in np.flatnonzero(other.sum(axis=0) >= 2).tolist():
        if column - extent > _MAX_GAP:
            break
        extent = column + 1
    return extent


def _is_behind(half: NDArray[np.int16], product: _Span, seam: _Seam, inside: _Span) -> bool:
    """Whether the colours beside and within the product's outline are those of wall and floor."""
    window = round(_WINDOW * half.shape[0])
    above, below = slice(seam.top - window, seam.top), slice(seam.bottom, seam.bottom + window)
    sides = slice(0, product.start), slice(product.end, half.shape[1])
    walls, floors, ends = (
        [np.median(half[rows, side], axis=(0, 1)) for side in sides]
        for rows in (above, below, slice(-_MIN_FLOOR, None))
    )
    cloths = half[above, inside.start : inside.end], half[below, inside.start : inside.end]
    areas = [half[seam.bottom :, side] for side in sides]
    return (
        _distance(*walls) <= _SAME
        and _distance(*floors) <= _SAME
        and all(_share_beyond(cloth, floors, _CONTRAST) >= _MIN_OTHER for cloth in cloths)
        and all(
            _distance(wall, floor) >= _STEP
            and _distance(end, wall) >= max(_STEP, _distance(end, floor))
            and _share_beyond(area, [floor], _SHADE) <= _MAX_OTHER
            for wall, floor, end, area, seen in zip(
                walls, floors, ends, areas, seam.visible, strict=True
            )
            if seen
        )
    )


def _share_beyond(
    area: NDArray[np.int16], colours: Sequence[NDArray[np.floating]], least: float
) -> float:
    """Share of an area's pixels that differ from each of some colours by more than that."""
    beyond = [np.abs(area - colour).max(axis=2) > least for colour in colours]
    return float(np.logical_and.reduce(beyond).mean())


def _distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    return float(np.abs(first - second).max())
