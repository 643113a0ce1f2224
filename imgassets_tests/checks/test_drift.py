from __future__ import annotations

import numpy as np
import pytest

from imgassets.checks.drift import MIN_PARTITIONS, Metric, compare

PER_PRODUCT = 4


def _metric(share: float, products: int, day: np.random.Generator) -> Metric:
    """Simulate a day of a retailer whose images of one product are mostly all 1, or all 0."""
    of_product = day.beta(max(share, 1e-3), max(1 - share, 1e-3), products)
    values = day.random((products, PER_PRODUCT)) < of_product[:, None]
    numbers = np.repeat(np.arange(products), PER_PRODUCT)
    return Metric.of(values.ravel().astype(np.float64), numbers)


def _share_of_alarms(
    *, products: int, before: float, now: float, spread: float, allowed: float, times: int = 400
) -> float:
    """The share of `times` simulated retailers for which drift is reported."""
    day = np.random.default_rng(7)
    alarms = 0
    for _ in range(times):
        shares = np.clip(before + spread * day.standard_normal(10), 0, 1)
        recent = [_metric(share, products, day) for share in shares]
        today = _metric(float(np.clip(now + spread * day.standard_normal(), 0, 1)), products, day)
        drift = compare(today, recent)
        assert drift is not None
        alarms += drift.exceeds(allowed)
    return alarms / times


@pytest.mark.parametrize("products", [1, 5, 20, 200])
@pytest.mark.parametrize("spread", [0, 0.05])
def test_random_variation_between_days_raises_almost_no_alarm(products: int, spread: float) -> None:
    alarms = _share_of_alarms(products=products, before=0.4, now=0.4, spread=spread, allowed=0.2)
    assert alarms <= 0.02


@pytest.mark.parametrize(("products", "least"), [(50, 0.9), (200, 0.98)])
def test_faces_that_are_no_longer_found_raise_an_alarm(products: int, least: float) -> None:
    alarms = _share_of_alarms(products=products, before=0.45, now=0, spread=0.03, allowed=0.2)
    assert alarms >= least


def _steady(mean: float, products: int = 100) -> Metric:
    return Metric(mean, 0.01, 4 * products, products)


def test_a_significant_but_allowed_difference_is_not_drift() -> None:
    drift = compare(_steady(0.58), [_steady(0.5)] * 10)
    assert drift is not None
    assert drift.median == pytest.approx(0.5)
    assert drift.difference == pytest.approx(0.08)
    assert drift.random_variation < 0.08
    assert not drift.exceeds(0.1)
    assert drift.exceeds(0.05)


def test_a_metric_that_fell_has_a_negative_difference() -> None:
    drift = compare(_steady(0.2), [_steady(0.5)] * 10)
    assert drift is not None
    assert drift.difference == pytest.approx(-0.3)
    assert drift.exceeds(0.1)


def test_one_outlier_among_the_recent_days_does_not_hide_drift() -> None:
    drift = compare(_steady(0.9), [*[_steady(0.5)] * 9, _steady(0.95)])
    assert drift is not None
    assert drift.median == 0.5
    assert drift.exceeds(0.1)


def test_a_retailer_whose_days_vary_widely_does_not_drift() -> None:
    days = [_steady(mean) for mean in (0.1, 0.9, 0.3, 0.7, 0.5, 0.2, 0.8)]
    drift = compare(_steady(0.95), days)
    assert drift is not None
    assert not drift.exceeds(0.1)


def test_too_few_recent_partitions_give_no_comparison() -> None:
    assert compare(_steady(0.9), [_steady(0.1)] * (MIN_PARTITIONS - 1)) is None
    assert compare(_steady(0.9), []) is None


def test_random_variation_is_positive_even_if_the_recent_days_are_all_equal() -> None:
    always = Metric.of(np.ones(8), np.arange(8))
    drift = compare(Metric.of(np.zeros(1), np.zeros(1, np.int64)), [always] * 5)
    assert drift is not None
    assert drift.random_variation < 1
    none_before = Metric.of(np.zeros(80), np.arange(80))
    few = compare(Metric.of(np.array([1.0, 0, 0, 0]), np.arange(4)), [none_before] * 5)
    assert few is not None
    assert few.random_variation > 0


def test_a_metric_is_the_mean_of_the_values() -> None:
    metric = Metric.of(np.array([0.0, 1.0, 1.0]), np.array([4, 4, 9]))
    assert metric.mean == pytest.approx(2 / 3)
    assert metric.variance == pytest.approx(2 / 9)
    assert (metric.images, metric.products) == (3, 2)
    assert Metric.of(np.array([]), np.array([], np.int64)) == Metric(0, 0, 0, 0)
