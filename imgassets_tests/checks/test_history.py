"""Tests of drift: which partitions are compared, and what the checks report."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pytest

from imgassets.checks.context import CheckContext
from imgassets.checks.metrics import download_success_rate, face_removal, trim_ratios
from imgassets.defs.partitions import Partition
from imgassets.manifests import Outcome, ProcessedRow
from imgassets.storage import Storage
from imgassets_tests.partition_fixture import PartitionFixture
from imgassets_tests.rows import PARTITION, processed_row, raw_row

TODAY = dt.date.fromisoformat(PARTITION.date)


def _day(back: int) -> Partition:
    return Partition((TODAY - dt.timedelta(days=back)).isoformat(), PARTITION.retailer)


class Retailer:
    """Writes partitions of one retailer, by the number of days before today."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def processed(self, back: int, count: int = 40, **changes: Any) -> None:
        """Write a partition of processed images; the values of a list are used in turn."""
        rows = [_changed(n, changes) for n in range(count)]
        PartitionFixture(self.storage, _day(back)).processed(rows)

    def raw(self, back: int, good: int, count: int = 40) -> None:
        """Write a partition of downloads, of which the first `good` succeeded."""
        rows = [
            raw_row(n) if n < good else raw_row(n, outcome=Outcome.TIMEOUT, path=None)
            for n in range(count)
        ]
        PartitionFixture(self.storage, _day(back)).raw(rows)

    def check_context(self, back: int = 0, **overrides: Any) -> CheckContext:
        return PartitionFixture(self.storage, _day(back)).check_context(**overrides)


def _changed(number: int, changes: dict[str, Any]) -> ProcessedRow:
    values = {
        name: value[number % len(value)] if isinstance(value, list) else value
        for name, value in changes.items()
    }
    return processed_row(number, **{"settings_hash": "mine"} | values)


@pytest.fixture
def retailer(storage: Storage) -> Retailer:
    return Retailer(storage)


RATIOS = [0.4, 0.45, 0.5, 0.55, 0.6]


def _normal_days(retailer: Retailer, days: Iterable[int] = range(1, 7)) -> None:
    for back in days:
        retailer.processed(back, trim_ratio=RATIOS, face_count=[0, 1], face_removed=[None, True])


def test_a_day_like_the_recent_ones_passes_and_reports_their_median(retailer: Retailer) -> None:
    _normal_days(retailer, range(7))
    trim, faces = trim_ratios(retailer.check_context()), face_removal(retailer.check_context())
    assert trim.passed
    assert trim.metrics["trim ratio/mean, recent median"] == pytest.approx(0.5)
    assert trim.metrics["share not trimmed, recent median"] == 0
    assert faces.passed
    assert faces.metrics["share with a face, recent median"] == 0.5


def test_a_trim_that_cuts_more_than_before_drifts(retailer: Retailer) -> None:
    _normal_days(retailer)
    retailer.processed(0, trim_ratio=[0.25, 0.3, 0.35])

    result = trim_ratios(retailer.check_context())

    assert result.violations == []
    (message,) = result.drift
    assert message.startswith(
        "trim ratio/mean is 0.299; the median of the previous 6 partitions is 0.500"
    )
    assert result.findings[0].detail == "25.0% of the area kept"
    assert trim_ratios(retailer.check_context(checks={"drift": {"trim_ratio_mean": 0.3}})).passed


def test_a_trim_that_no_longer_cuts_drifts_and_lists_untrimmed_images(
    retailer: Retailer,
) -> None:
    _normal_days(retailer)
    retailer.processed(0, trim_ratio=[1.0, 1.0, 0.5])

    result = trim_ratios(retailer.check_context())

    assert len(result.drift) == 2
    assert "share not trimmed is 0.675; the median" in result.drift[1]
    assert result.findings[0].detail == "100.0% of the area kept"


def test_a_drop_in_faces_drifts_and_lists_images_without_one(
    retailer: Retailer,
) -> None:
    _normal_days(retailer)
    retailer.processed(0, face_count=0, trim_ratio=RATIOS)
    result = face_removal(retailer.check_context())
    assert result.violations == []
    assert result.drift[0].startswith("share with a face is 0.000; the median of the previous 6")
    assert {finding.detail for finding in result.findings} == {"no face found"}


def test_a_rise_in_faces_drifts_and_lists_images_with_one(retailer: Retailer) -> None:
    _normal_days(retailer)
    retailer.processed(0, face_count=1, face_score=0.8, face_removed=True, trim_ratio=RATIOS)
    result = face_removal(retailer.check_context())
    assert len(result.drift) == 1
    assert result.findings[0].detail == "1 face found, score 0.80"


def test_a_success_rate_that_falls_drifts_and_one_that_rises_does_not(retailer: Retailer) -> None:
    for back in range(1, 7):
        retailer.raw(back, good=280, count=300)
    retailer.raw(0, good=200, count=300)
    result = download_success_rate(retailer.check_context(checks={"min_success_rate": 0.5}))
    assert result.violations == []
    assert result.drift[0].startswith("success rate is 0.667; the median of the previous 6")
    assert len(result.findings) == 100

    for back in range(1, 7):
        retailer.raw(back, good=200, count=300)
    retailer.raw(0, good=300, count=300)
    assert download_success_rate(retailer.check_context()).passed


def test_the_first_partitions_of_a_retailer_have_no_drift(retailer: Retailer) -> None:
    _normal_days(retailer, range(1, 5))
    retailer.processed(0, trim_ratio=1.0)
    result = trim_ratios(retailer.check_context(checks={"untrimmed_share": {"max": 1}}))
    assert result.passed
    assert not [name for name in result.metrics if "recent" in name]


def test_missing_days_are_skipped_and_days_long_ago_do_not_count(retailer: Retailer) -> None:
    _normal_days(retailer, [3, 7, 20, 44, 59])
    retailer.processed(0, trim_ratio=0.25)
    assert trim_ratios(retailer.check_context()).drift
    assert trim_ratios(retailer.check_context(checks={"drift": {"days": 58}})).passed


def test_later_days_do_not_count(retailer: Retailer) -> None:
    _normal_days(retailer, range(6))
    retailer.processed(6, trim_ratio=0.25)
    assert trim_ratios(retailer.check_context(back=6)).passed


def test_only_the_latest_partitions_count(retailer: Retailer) -> None:
    _normal_days(retailer, range(6, 20))
    for back in range(1, 6):
        retailer.processed(back, trim_ratio=0.25)
    retailer.processed(0, trim_ratio=0.25)
    assert trim_ratios(retailer.check_context(checks={"drift": {"partitions": 5}})).passed
    assert trim_ratios(retailer.check_context(checks={"drift": {"partitions": 19}})).drift


def test_partitions_with_few_images_are_not_compared(
    retailer: Retailer,
) -> None:
    _normal_days(retailer)
    retailer.processed(0, count=19, trim_ratio=0.25)
    assert trim_ratios(retailer.check_context()).passed
    retailer.processed(0, trim_ratio=0.25)
    assert trim_ratios(retailer.check_context()).drift
    for back in range(1, 7):
        retailer.processed(back, count=19, trim_ratio=RATIOS)
    assert trim_ratios(retailer.check_context()).passed


@pytest.mark.parametrize(("least", "drifts"), [(30, True), (31, False)])
def test_the_minimum_number_of_images_is_a_setting(
    retailer: Retailer, least: int, drifts: bool
) -> None:
    for back in range(1, 7):
        retailer.processed(back, count=30, trim_ratio=RATIOS)
    retailer.processed(0, trim_ratio=0.25)
    options = {"drift": {"min_images": least}}
    assert bool(trim_ratios(retailer.check_context(checks=options)).drift) is drifts
    for back in range(1, 7):
        retailer.processed(back, trim_ratio=RATIOS)
    retailer.processed(0, count=30, trim_ratio=0.25)
    assert bool(trim_ratios(retailer.check_context(checks=options)).drift) is drifts


def test_the_allowed_difference_of_each_metric_is_a_setting(retailer: Retailer) -> None:
    for back in range(1, 7):
        _normal_days(retailer, [back])
        retailer.raw(back, good=280, count=300)
    # Untrimmed 0.675 (before: 0), with a face 0 (before: 0.5), downloaded 0.667 (before: 0.933).
    retailer.processed(0, trim_ratio=[1.0, 1.0, 0.5], face_count=0)
    retailer.raw(0, good=200, count=300)
    cases = {
        "trim_ratio_mean": (trim_ratios, "trim ratio/mean is ", 0.34),
        "untrimmed_share": (trim_ratios, "share not trimmed is ", 0.68),
        "face_share": (face_removal, "share with a face is ", 0.5),
        "success_rate": (download_success_rate, "success rate is ", 0.27),
    }
    for option, (check, prefix, difference) in cases.items():
        for allowed, drifts in ((difference - 0.02, True), (difference + 0.02, False)):
            checks = {"drift": {option: allowed}, "min_success_rate": 0}
            drift = check(retailer.check_context(checks=checks)).drift
            assert any(message.startswith(prefix) for message in drift) is drifts


def test_a_change_in_images_of_few_products_is_not_drift(retailer: Retailer) -> None:
    for back in range(7):
        rows = [
            processed_row(n, product_id=f"p{n // 20}", face_count=int(back > 0 and n < 20))
            for n in range(40)
        ]
        PartitionFixture(retailer.storage, _day(back)).processed(rows)
    # Half of the images had a face on each day, and none has today, but they are of one product.
    assert face_removal(retailer.check_context()).passed


def test_partitions_made_with_other_settings_are_not_compared(retailer: Retailer) -> None:
    _normal_days(retailer)
    retailer.processed(0, trim_ratio=0.25, settings_hash="other")
    assert trim_ratios(retailer.check_context()).passed
    retailer.processed(0, trim_ratio=0.25, settings_hash=["mine", "mine", "other"])
    assert trim_ratios(retailer.check_context()).drift


def test_other_retailers_are_not_compared(storage: Storage, retailer: Retailer) -> None:
    for back in range(1, 7):
        rows = [processed_row(n, trim_ratio=0.9) for n in range(40)]
        PartitionFixture(storage, Partition(_day(back).date, "other")).processed(rows)
    retailer.processed(0, trim_ratio=0.25)
    assert trim_ratios(retailer.check_context()).passed


def test_broken_and_foreign_manifests_of_other_days_are_skipped(
    storage: Storage, retailer: Retailer
) -> None:
    _normal_days(retailer, range(3, 8))
    broken, foreign = (storage.partition(*_day(back)) for back in (1, 2))
    storage.write(broken.manifest("processed_images"), b"broken")
    foreign.write_manifest("processed_images", pa.table({"key": ["a"] * 40}))
    # Files that are no manifests, as other programs leave them.
    for name in (f"zara.{_day(1).date}.parquet.tmp", "zara.parquet", "zara.2026-01-xx.parquet"):
        storage.write(f"manifests/processed_images/{name}", b"no manifest")
    retailer.processed(0, trim_ratio=0.25)
    (message,) = trim_ratios(retailer.check_context()).drift
    assert "the previous 5 partitions" in message


def test_a_partition_without_images_has_no_drift(retailer: Retailer) -> None:
    _normal_days(retailer)
    for back in range(1, 7):
        retailer.raw(back, good=40)
    partition = PartitionFixture(retailer.storage)
    partition.raw([])
    partition.processed([])
    context = partition.check_context()
    for check in (trim_ratios, face_removal, download_success_rate):
        assert check(context).passed
