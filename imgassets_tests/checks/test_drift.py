from __future__ import annotations

import numpy as np
import pytest

from imgassets.checks.drift import MIN_PARTITIONS, Figure, compare

PER_PRODUCT = 4


def _figure(share: float, products: int, day: np.random.Generator) -> Figure:
    """A day of a retailer: pictures of one product are mostly all 1, or all 0."""
    of_product = day.beta(max(share, 1e-3), max(1 - share, 1e-3), products)
    values = day.random((products, PER_PRODUCT)) < of_product[:, None]
    numbers = np.repeat(np.arange(products), PER_PRODUCT)
    return Figure.of(values.ravel().astype(np.float64), numbers)


def _share_of_alarms(
    *, products: int, before: float, now: float, spread: float, allowed: float, times: int = 400
) -> float:
    """Of so many retailers, how many are told to have drifted."""
    day = np.random.default_rng(7)
    alarms = 0
    for _ in range(times):
        shares = np.clip(before + spread * day.standard_normal(10), 0, 1)
        recent = [_figure(share, products, day) for share in shares]
        today = _figure(float(np.clip(now + spread * day.standard_normal(), 0, 1)), products, day)
        drift = compare(today, recent)
        assert drift is not None
        alarms += drift.exceeds(allowed)
    return alarms / times


@pytest.mark.parametrize("products", [1, 5, 20, 200])
@pytest.mark.parametrize("spread", [0, 0.05])
def test_days_that_differ_by_chance_alone_raise_hardly_any_alarm(
    products: int, spread: float
) -> None:
    alarms = _share_of_alarms(products=products, before=0.4, now=0.4, spread=spread, allowed=0.2)
    assert alarms <= 0.02


@pytest.mark.parametrize(("products", "least"), [(50, 0.9), (200, 0.98)])
def test_faces_that_are_no_longer_found_are_noticed(products: int, least: float) -> None:
    alarms = _share_of_alarms(products=products, before=0.45, now=0, spread=0.03, allowed=0.2)
    assert alarms >= least


def _steady(mean: float, products: int = 100) -> Figure:
    return Figure(mean, 0.01, 4 * products, products)


def test_a_difference_that_is_certain_but_allowed_is_no_drift() -> None:
    drift = compare(_steady(0.58), [_steady(0.5)] * 10)
    assert drift is not None
    assert drift.median == pytest.approx(0.5)
    assert drift.difference == pytest.approx(0.08)
    assert drift.chance < 0.08
    assert not drift.exceeds(0.1)
    assert drift.exceeds(0.05)


def test_a_figure_that_fell_has_a_negative_difference() -> None:
    drift = compare(_steady(0.2), [_steady(0.5)] * 10)
    assert drift is not None
    assert drift.difference == pytest.approx(-0.3)
    assert drift.exceeds(0.1)


def test_one_odd_day_before_hides_no_drift() -> None:
    drift = compare(_steady(0.9), [*[_steady(0.5)] * 9, _steady(0.95)])
    assert drift is not None
    assert drift.median == 0.5
    assert drift.exceeds(0.1)


def test_a_retailer_whose_days_differ_much_may_differ_once_more() -> None:
    days = [_steady(mean) for mean in (0.1, 0.9, 0.3, 0.7, 0.5, 0.2, 0.8)]
    drift = compare(_steady(0.95), days)
    assert drift is not None
    assert not drift.exceeds(0.1)


def test_too_few_partitions_say_nothing() -> None:
    assert compare(_steady(0.9), [_steady(0.1)] * (MIN_PARTITIONS - 1)) is None
    assert compare(_steady(0.9), []) is None


def test_one_product_without_a_face_is_no_drift_among_days_that_all_had_one() -> None:
    always = Figure.of(np.ones(8), np.arange(8))
    drift = compare(Figure.of(np.zeros(1), np.zeros(1, np.int64)), [always] * 5)
    assert drift is not None
    assert drift.chance < 1
    none_before = Figure.of(np.zeros(80), np.arange(80))
    few = compare(Figure.of(np.array([1.0, 0, 0, 0]), np.arange(4)), [none_before] * 5)
    assert few is not None
    assert few.chance > 0


def test_a_figure_is_the_mean_of_what_there_is() -> None:
    figure = Figure.of(np.array([0.0, 1.0, 1.0]), np.array([4, 4, 9]))
    assert figure.mean == pytest.approx(2 / 3)
    assert figure.variance == pytest.approx(2 / 9)
    assert (figure.pictures, figure.products) == (3, 2)
    assert Figure.of(np.array([]), np.array([], np.int64)) == Figure(0, 0, 0, 0)
