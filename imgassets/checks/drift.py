"""Does a partition differ from the retailer's recent ones, by more than chance explains?

Here live the statistics, over figures that are means of one value a picture, each from 0 to 1: a
trim ratio, or 1 for a picture with a face and 0 for one without. Where the figures come from is in
`history`.

A difference counts if it is larger than allowed, and larger than three standard deviations of what
two causes give without any drift: the partition has few products (pictures of one product resemble
each other, so that products are counted, not pictures), and days of a retailer differ (the median
absolute deviation of the recent ones, which a single odd day does not widen). Simulated retailers
whose shares vary by 5 points from day to day and do not drift raise an alarm on at most 2 days in
a hundred, however small their partitions; the difference alone would on up to 50.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# With fewer, their spread cannot be told: simulated, three gave twice the false alarms of five.
MIN_PARTITIONS = 5

_DEVIATIONS = 3.0
# Of a normal distribution, standard deviation / median absolute deviation.
_MAD = 1.4826
# Variance of a value that is 0 or 1 at equal odds: no value from 0 to 1 varies more.
_LARGEST_VARIANCE = 0.25


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over the pictures of one partition.

    Attributes:
        mean: from 0 to 1.
        variance: of the pictures' values.
        pictures: that have a value.
        products: that those are of.
    """

    mean: float
    variance: float
    pictures: int
    products: int

    @classmethod
    def of(cls, values: NDArray[np.float64], products: NDArray[np.int64]) -> Figure:
        """The mean of values, one a picture, and the number of the product of each."""
        if values.size == 0:
            return cls(0.0, 0.0, 0, 0)
        return cls(float(values.mean()), float(values.var()), values.size, np.unique(products).size)


@dataclass(frozen=True, slots=True)
class Drift:
    """How a figure lies beside the recent ones.

    Attributes:
        median: of the recent ones.
        difference: of the figure from that; negative where it fell.
        chance: a difference of up to this says nothing.
    """

    median: float
    difference: float
    chance: float

    def exceeds(self, allowed: float) -> bool:
        """Whether the difference is larger than allowed, and no chance."""
        return abs(self.difference) > max(allowed, self.chance)


def compare(figure: Figure, recent: Sequence[Figure]) -> Drift | None:
    """Lay a figure beside the recent ones; none where those are too few.

    Args:
        figure: of at least one picture.
        recent: of earlier partitions, each of at least one picture.
    """
    if len(recent) < MIN_PARTITIONS:
        return None
    means = np.array([one.mean for one in recent])
    median = float(np.median(means))
    between = _MAD * float(np.median(np.abs(means - median)))
    everything = [*recent, figure]
    products = sum(one.products for one in everything)
    middle = sum(one.products * one.mean for one in everything) / products
    # Around the middle of all days, since a day of one product hardly varies in itself. One picture
    # that may be anything is added, or days without any face would leave no doubt.
    squares = sum(one.products * (one.variance + (one.mean - middle) ** 2) for one in everything)
    variance = (squares + _LARGEST_VARIANCE) / (products + 1)
    deviation = math.sqrt(variance / figure.products + between**2)
    return Drift(median, figure.mean - median, _DEVIATIONS * deviation)
