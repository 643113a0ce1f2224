"""Decide whether a metric of a partition differs from recent ones by more than random variation.

The metrics are means over images of a value from 0 to 1: a trim ratio, or 1 for an image with a
face and 0 for one without. Reading them from manifests is in `history`.

A difference counts if it exceeds both the allowed difference and three standard deviations of the
random variation, which has two sources: the partition has few products (images of one product
resemble each other, so the sample size is the number of products, not of images), and a retailer's
days differ (measured by the median absolute deviation of recent days, which one outlier does not
widen). In simulations of retailers without drift whose shares vary by 5 points from day to day, at
most 2 % of days raise an alarm, for partitions of any size; with the allowed difference alone, up
to 50 % do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Fewer partitions do not give a usable spread: in simulations, three gave twice the false alarms
# of five.
MIN_PARTITIONS = 5

_DEVIATIONS = 3.0
# Standard deviation / median absolute deviation of a normal distribution.
_STD_PER_MAD = 1.4826
# Variance of a value that is 0 or 1 with equal probability: the maximum for values from 0 to 1.
_LARGEST_VARIANCE = 0.25


@dataclass(frozen=True, slots=True)
class Metric:
    """A mean over the images of one partition.

    Attributes:
        mean: Mean value, from 0 to 1.
        variance: Variance of the values of the images.
        images: Number of images that have a value.
        products: Number of products of those images.
    """

    mean: float
    variance: float
    images: int
    products: int

    @classmethod
    def of(cls, values: NDArray[np.float64], products: NDArray[np.int64]) -> Metric:
        """Compute the metric of a partition.

        Args:
            values: One value per image, shape (images,).
            products: The number of the product of each image, shape (images,).
        """
        if values.size == 0:
            return cls(0.0, 0.0, 0, 0)
        return cls(float(values.mean()), float(values.var()), values.size, np.unique(products).size)


@dataclass(frozen=True, slots=True)
class Drift:
    """A metric compared with recent ones.

    Attributes:
        median: Median of the recent means.
        difference: Mean of the metric minus that median.
        random_variation: Largest absolute difference that random variation explains.
    """

    median: float
    difference: float
    random_variation: float

    def exceeds(self, allowed: float) -> bool:
        """Whether the difference exceeds both `allowed` and the random variation."""
        return abs(self.difference) > max(allowed, self.random_variation)


def compare(metric: Metric, recent: Sequence[Metric]) -> Drift | None:
    """Compare a metric with those of recent partitions.

    Args:
        metric: Metric of at least one image.
        recent: Metrics of earlier partitions, each of at least one image.

    Returns:
        The comparison; None if there are fewer than `MIN_PARTITIONS` recent metrics.
    """
    if len(recent) < MIN_PARTITIONS:
        return None
    means = np.array([earlier.mean for earlier in recent])
    median = float(np.median(means))
    day_deviation = _STD_PER_MAD * float(np.median(np.abs(means - median)))
    metrics = [*recent, metric]
    products = sum(each.products for each in metrics)
    pooled_mean = sum(each.products * each.mean for each in metrics) / products
    # Deviations are taken from the mean of all days, because a day with one product has hardly any
    # variance of its own. One pseudo-image of the largest variance is added: otherwise days without
    # any face would have a variance of 0.
    squares = sum(
        each.products * (each.variance + (each.mean - pooled_mean) ** 2) for each in metrics
    )
    variance = (squares + _LARGEST_VARIANCE) / (products + 1)
    deviation = math.sqrt(variance / metric.products + day_deviation**2)
    return Drift(median, metric.mean - median, _DEVIATIONS * deviation)
