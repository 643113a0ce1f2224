"""Useless background at the edges of a picture, and cutting it off.

Here lives finding the box that holds the product. The method `variance` is the original
pipeline's: rows and columns of pixels that hardly vary are background. The method `background` is
in `background`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from imgassets.imaging.background import find_by_background
from imgassets.imaging.image import Box, Pixels
from imgassets.settings import TrimSettings


@dataclass(frozen=True, slots=True)
class Trim:
    """What a trim keeps.

    Attributes:
        box: in pixels of the picture that was looked at.
        threshold: at which the box was found (`variance`: grey variance; `background`: slope of an
            edge, levels a pixel); none where nothing is cut off because none gave a good box.
    """

    box: Box
    threshold: float | None


def find(pixels: Pixels, settings: TrimSettings) -> Trim:
    """Find the box by the method of the settings (not `none`).

    Args:
        pixels: height x width x 3, uint8, BGR.
        settings: the method, and its parameters.
    """
    if settings.method == "variance":
        return find_by_variance(pixels, settings)
    found = find_by_background(pixels, settings.min_side)
    if found is None:
        return Trim(Box(0, 0, pixels.shape[1], pixels.shape[0]), None)
    return Trim(*found)


def find_by_variance(pixels: Pixels, settings: TrimSettings) -> Trim:
    """Find the box whose edges are the outermost rows and columns that vary.

    A column (row) is background if the variance of its blurred grey values (0 to 255, squared) is
    at most the threshold. The threshold is lowered while the box is too small, or while an axis
    has no column (row) above it, so that nothing can be said of that axis.

    Args:
        pixels: height x width x 3, uint8, BGR.
        settings: the first threshold, the step, the smallest side, the blur.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    grey = cv2.GaussianBlur(grey, (settings.blur, settings.blur), 0)
    columns, rows = _variances(grey, 0), _variances(grey, 1)
    threshold = settings.threshold
    while threshold > 0:
        across, down = _span(columns, threshold), _span(rows, threshold)
        if (
            across is not None
            and down is not None
            and across[1] >= settings.min_side * columns.size
            and down[1] >= settings.min_side * rows.size
        ):
            return Trim(Box(across[0], down[0], across[1], down[1]), threshold)
        threshold -= settings.step
    return Trim(Box(0, 0, columns.size, rows.size), None)


def _variances(grey: cv2.typing.MatLike, axis: int) -> NDArray[np.float64]:
    """Variance of every column (axis 0) or row (axis 1); exact, since all sums are whole."""
    count = grey.shape[axis]
    sums = cv2.reduce(grey, axis, cv2.REDUCE_SUM, dtype=cv2.CV_64F).ravel()
    squares = cv2.reduce(grey, axis, cv2.REDUCE_SUM2, dtype=cv2.CV_64F).ravel()
    return np.asarray((squares * count - sums * sums) / count**2, dtype=np.float64)


def _span(variances: NDArray[np.float64], threshold: float) -> tuple[int, int] | None:
    """Start and length from the first to the last above the threshold, both included."""
    above = np.flatnonzero(variances > threshold)
    return None if above.size == 0 else (int(above[0]), int(above[-1] - above[0] + 1))
