"""Find the box that a trim keeps: the product without the empty background around it.

The method `variance` is that of the original pipeline: rows and columns of pixels with a low
variance are background. The method `background` is in `background`. The pipeline crops the image.
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
    """The result of a trim.

    Attributes:
        box: The part to keep, in pixels of the image that was searched.
        threshold: The threshold that gave the box: a grey variance for `variance`, the gradient
            magnitude of an edge in levels per pixel for `background`. None if no threshold gave a
            valid box; the box is then the whole image, or that without the bars at its borders.
    """

    box: Box
    threshold: float | None


def find_trim(pixels: Pixels, settings: TrimSettings) -> Trim:
    """Find the box with the method of the settings.

    Args:
        pixels: Image of shape height x width x 3, uint8, BGR.
        settings: The method, which must not be `none`, and its parameters.

    Returns:
        The box to keep, and the threshold that gave it.
    """
    if settings.method == "variance":
        return find_by_variance(pixels, settings)
    found = find_by_background(pixels, settings.min_side)
    if found is None:
        return Trim(Box(0, 0, pixels.shape[1], pixels.shape[0]), None)
    return Trim(*found)


def find_by_variance(pixels: Pixels, settings: TrimSettings) -> Trim:
    """Find the box between the outermost rows and columns whose variance exceeds a threshold.

    A column (row) is background if the variance of its blurred grey values (0 to 255) is at most
    the threshold. The threshold is lowered while the box is too small, or while all columns or all
    rows are background.

    Args:
        pixels: Image of shape height x width x 3, uint8, BGR.
        settings: The first threshold, the step, the minimum side, the size of the blur.

    Returns:
        The box to keep, and the threshold that gave it.
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
    """Variance of each column (axis 0) or row (axis 1); exact, because all sums are integers."""
    count = grey.shape[axis]
    sums = cv2.reduce(grey, axis, cv2.REDUCE_SUM, dtype=cv2.CV_64F).ravel()
    squares = cv2.reduce(grey, axis, cv2.REDUCE_SUM2, dtype=cv2.CV_64F).ravel()
    return np.asarray((squares * count - sums * sums) / count**2, dtype=np.float64)


def _span(variances: NDArray[np.float64], threshold: float) -> tuple[int, int] | None:
    """Start and length from the first to the last value above the threshold, both included."""
    above = np.flatnonzero(variances > threshold)
    return None if above.size == 0 else (int(above[0]), int(above[-1] - above[0] + 1))
