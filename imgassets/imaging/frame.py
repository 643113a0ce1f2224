"""Find what surrounds the inner image of a file: hairlines at the borders, and bars beside it.

Screenshots, cards, padded and letterboxed images have them. A hairline or bar runs along a whole
border and ends in a straight step over the whole length; products do not. The constants were
chosen on real catalogue photographs, on one half of them.
"""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from imgassets.imaging.image import Box, Pixels

Widths: TypeAlias = tuple[int, int, int, int]
"""Widths at the left, top, right and bottom border, in pixels; 0 where there is nothing."""

_HAIRLINE = 3  # maximum width of a hairline (px)
_ALONG = 0.97  # share of a border's length over which a line must differ from the inner image
_RANGE = 6  # levels: greatest range within a line of one colour
_BAR_STEP, _BLUR = 2, (2, 6)  # least step (levels) at the end of a bar, within one of those lines
# The two bars beside a padded image must be alike, too: share of their length that ends
# in a step, and greatest difference of their widths (px).
_PADDED_ALONG, _ALIKE = 0.85, 2
_MAX_BAR = 0.45  # of the side: maximum width of a bar
_BLACK, _PALE, _GREY = 16, 220, 8  # levels: greatest of black, least and greatest range of a grey
# The border of the inner image between two bars: its width in pixels, its least level, and its
# greatest range; shading makes it as wide.
_BORDER, _BORDER_PALE, _BORDER_RANGE = 4, 200, 40


def find_hairlines(pixels: Pixels) -> Widths:
    """Find the lines of one to three pixels along the borders.

    A product that covers so few pixels at a border covers a part of the border only.

    Args:
        pixels: Image of shape height x width x 3, uint8, BGR; sides of at least 16.

    Returns:
        Their widths.
    """
    deep = 2 * _HAIRLINE + 1
    green = pixels[:, :, 1]
    left, top, right, bottom = (
        _hairline(lines)
        for lines in (
            green[:, :deep].T,
            green[:deep],
            green[:, : -deep - 1 : -1].T,
            green[: -deep - 1 : -1],
        )
    )
    return left, top, right, bottom


def find_bars(pixels: Pixels, along: float = _ALONG) -> Widths:
    """Find the black, white and pale grey bars.

    Args:
        pixels: Image of shape height x width x 3, uint8, BGR.
        along: Least share of a bar's length that must end in a step.

    Returns:
        Their widths.
    """
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)
    sides = (grey.T, pixels[:, 0]), (grey, pixels[0]), (grey.T[::-1], pixels[:, -1])
    left, top, right, bottom = (
        _bar(lines, along) if _is_filled(outer) else 0
        for lines, outer in (*sides, (grey[::-1], pixels[-1]))
    )
    return left, top, right, bottom


def remove(widths: Widths, size: tuple[int, int]) -> Box:
    """The box between hairlines or bars.

    Args:
        widths: Their widths.
        size: Width and height of the image in pixels.
    """
    left, top, right, bottom = widths
    return Box.from_edges(left, top, size[0] - right, size[1] - bottom)


def find_padded(pixels: Pixels) -> Box | None:
    """Find an inner image with a pale background between two bars, to its left and right.

    Args:
        pixels: Image of shape height x width x 3, uint8, BGR.

    Returns:
        The box of the inner image; None if there are no such bars.
    """
    height, width = pixels.shape[:2]
    left, _, right, _ = find_bars(pixels, _PADDED_ALONG)
    if min(left, right) == 0 or abs(left - right) > _ALIKE:
        return None
    start, end = left + _BLUR[0], width - right - _BLUR[0]
    beside = pixels[:, start : start + _BORDER], pixels[:, end - _BORDER : end]
    low, high = np.percentile(np.concatenate(beside, axis=1), (2, 98))
    pale = low >= _BORDER_PALE and high - low <= _BORDER_RANGE
    return Box(left, 0, width - left - right, height) if pale else None


def has_black_border(pixels: Pixels, box: Box) -> bool:
    """Whether a border that a box reaches is black.

    Args:
        pixels: Image of shape height x width x 3, uint8, BGR.
        box: The box.
    """
    height, width = pixels.shape[:2]
    reached = (
        (box.x == 0, pixels[:, 0]),
        (box.y == 0, pixels[0]),
        (box.right == width, pixels[:, -1]),
        (box.bottom == height, pixels[-1]),
    )
    return any(reaches and int(line.max()) <= _BLACK for reaches, line in reached)


def _hairline(lines: NDArray[np.uint8]) -> int:
    """Width of the hairline that the first of some lines belongs to, or 0."""
    outer = lines[0]
    enough = _ALONG * outer.size
    # Most images end here: their background has the same colour along the border.
    if np.count_nonzero(lines[_HAIRLINE] != outer) < enough:
        return 0
    levels = lines.astype(np.int16)
    for width in range(1, _HAIRLINE + 1):
        step = levels[width] - levels[0]
        rising, falling = np.count_nonzero(step > 0), np.count_nonzero(step < 0)
        if rising + falling < enough or not (
            max(rising, falling) >= enough or _has_one_colour(outer)
        ):
            continue
        beyond = np.abs(levels[2 * width] - levels[width])
        if np.median(np.abs(step)) > 2 * np.median(beyond) + 1:  # no gradient
            return width
    return 0


def _has_one_colour(line: NDArray[np.uint8]) -> bool:
    low, high = np.percentile(line, (3, 97))
    return bool(high - low <= _RANGE)


def _is_filled(line: Pixels) -> bool:
    """Whether the line along a border has the colour of a bar: black, or a pale grey or white."""
    colour = line[0]
    black = int(colour.max()) <= _BLACK
    return black or bool(colour.min() >= _PALE and np.ptp(colour) <= _GREY)


def _bar(lines: NDArray[np.uint8], along: float) -> int:
    """Width of the bar along the first of some lines, or 0."""
    outer = lines[: round(_MAX_BAR * lines.shape[0])]
    low, high = outer.min(axis=1).astype(int), outer.max(axis=1).astype(int)
    same = (high - low[0] <= _RANGE) & (high[0] - low <= _RANGE)
    width = 0 if same.all() else int(same.argmin())
    if width <= _HAIRLINE:
        return 0
    inside = (lines[min(width + blur, lines.shape[0] - 1)] for blur in _BLUR)
    steps = (np.abs(line.astype(np.int16) - lines[width - 1]) >= _BAR_STEP for line in inside)
    return width if max(float(step.mean()) for step in steps) >= along else 0
