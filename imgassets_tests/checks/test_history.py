"""Drift: what a partition is compared with, and what is said of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pytest

from imgassets.checks.evidence import Evidence
from imgassets.checks.figures import download_success_rate, face_removal, trim_ratios
from imgassets.defs.partitions import Partition
from imgassets.manifests import Outcome, ProcessedRow
from imgassets.storage import MANIFEST, Storage, write_table
from imgassets_tests.arranged import Arranged
from imgassets_tests.rows import PARTITION, processed_row, raw_row

TODAY = dt.date.fromisoformat(PARTITION.date)


def _day(back: int) -> Partition:
    return Partition((TODAY - dt.timedelta(days=back)).isoformat(), PARTITION.retailer)


class Retailer:
    """A retailer whose days a test writes."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def processed(self, back: int, count: int = 40, **changes: Any) -> None:
        """A day of processed pictures; a list gives them their values by turns."""
        rows = [_changed(n, changes) for n in range(count)]
        Arranged(self.storage, _day(back)).processed(rows)

    def raw(self, back: int, good: int, count: int = 40) -> None:
        """A day of downloads, of which some succeeded."""
        rows = [
            raw_row(n) if n < good else raw_row(n, outcome=Outcome.TIMEOUT, path=None)
            for n in range(count)
        ]
        Arranged(self.storage, _day(back)).raw(rows)

    def evidence(self, back: int = 0, **overrides: Any) -> Evidence:
        return Arranged(self.storage, _day(back)).evidence(**overrides)


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


def test_a_day_like_the_others_passes_and_shows_their_median(retailer: Retailer) -> None:
    _normal_days(retailer, range(7))
    trim, faces = trim_ratios(retailer.evidence()), face_removal(retailer.evidence())
    assert trim.passed
    assert trim.figures["trim ratio/mean, recent median"] == pytest.approx(0.5)
    assert trim.figures["share not trimmed, recent median"] == 0
    assert faces.passed
    assert faces.figures["share with a face, recent median"] == 0.5


def test_a_trim_that_cuts_more_than_before_drifts(retailer: Retailer) -> None:
    _normal_days(retailer)
    retailer.processed(0, trim_ratio=[0.25, 0.3, 0.35])

    verdict = trim_ratios(retailer.evidence())

    assert verdict.wrong == []
    (told,) = verdict.drift
    assert told.startswith(
        "trim ratio/mean is 0.299; the median of the 6 partitions before is 0.500"
    )
    assert verdict.concerns[0].what == "25.0% of the area kept"
    assert trim_ratios(retailer.evidence(checks={"drift": {"trim_ratio_mean": 0.3}})).passed


def test_a_trim_that_no_longer_cuts_drifts_and_shows_what_was_not_trimmed(
    retailer: Retailer,
) -> None:
    _normal_days(retailer)
    retailer.processed(0, trim_ratio=[1.0, 1.0, 0.5])

    verdict = trim_ratios(retailer.evidence())

    assert len(verdict.drift) == 2
    assert "share not trimmed is 0.675; the median" in verdict.drift[1]
    assert verdict.concerns[0].what == "100.0% of the area kept"


def test_faces_that_are_no_longer_found_drift_and_pictures_without_one_are_shown(
    retailer: Retailer,
) -> None:
    _normal_days(retailer)
    retailer.processed(0, face_count=0, trim_ratio=RATIOS)
    verdict = face_removal(retailer.evidence())
    assert verdict.wrong == []
    assert verdict.drift[0].startswith("share with a face is 0.000; the median of the 6")
    assert {concern.what for concern in verdict.concerns} == {"no face found"}


def test_faces_in_nearly_every_picture_drift_and_those_are_shown(retailer: Retailer) -> None:
    _normal_days(retailer)
    retailer.processed(0, face_count=1, face_score=0.8, face_removed=True, trim_ratio=RATIOS)
    verdict = face_removal(retailer.evidence())
    assert len(verdict.drift) == 1
    assert verdict.concerns[0].what == "1 faces found, score 0.80"


def test_a_success_rate_that_falls_drifts_and_one_that_rises_does_not(retailer: Retailer) -> None:
    for back in range(1, 7):
        retailer.raw(back, good=280, count=300)
    retailer.raw(0, good=200, count=300)
    verdict = download_success_rate(retailer.evidence(checks={"min_success_rate": 0.5}))
    assert verdict.wrong == []
    assert verdict.drift[0].startswith("success rate is 0.667; the median of the 6")
    assert len(verdict.concerns) == 100

    for back in range(1, 7):
        retailer.raw(back, good=200, count=300)
    retailer.raw(0, good=300, count=300)
    assert download_success_rate(retailer.evidence()).passed


def test_the_first_partitions_of_a_retailer_have_no_drift(retailer: Retailer) -> None:
    _normal_days(retailer, range(1, 5))
    retailer.processed(0, trim_ratio=1.0)
    verdict = trim_ratios(retailer.evidence(checks={"untrimmed_share": {"max": 1}}))
    assert verdict.passed
    assert not [name for name in verdict.figures if "recent" in name]


def test_gaps_are_passed_over_and_days_long_ago_do_not_count(retailer: Retailer) -> None:
    _normal_days(retailer, [3, 7, 20, 44, 59])
    retailer.processed(0, trim_ratio=0.25)
    assert trim_ratios(retailer.evidence()).drift
    assert trim_ratios(retailer.evidence(checks={"drift": {"days": 58}})).passed


def test_later_days_do_not_count(retailer: Retailer) -> None:
    _normal_days(retailer, range(6))
    retailer.processed(6, trim_ratio=0.25)
    assert trim_ratios(retailer.evidence(back=6)).passed


def test_only_the_latest_partitions_count(retailer: Retailer) -> None:
    _normal_days(retailer, range(6, 20))
    for back in range(1, 6):
        retailer.processed(back, trim_ratio=0.25)
    retailer.processed(0, trim_ratio=0.25)
    assert trim_ratios(retailer.evidence(checks={"drift": {"partitions": 5}})).passed
    assert trim_ratios(retailer.evidence(checks={"drift": {"partitions": 19}})).drift


def test_partitions_of_few_pictures_are_neither_judged_nor_compared_with(
    retailer: Retailer,
) -> None:
    _normal_days(retailer)
    retailer.processed(0, count=19, trim_ratio=0.25)
    assert trim_ratios(retailer.evidence()).passed
    retailer.processed(0, trim_ratio=0.25)
    assert trim_ratios(retailer.evidence()).drift
    for back in range(1, 7):
        retailer.processed(back, count=19, trim_ratio=RATIOS)
    assert trim_ratios(retailer.evidence()).passed


@pytest.mark.parametrize(("least", "drifts"), [(30, True), (31, False)])
def test_how_few_pictures_are_too_few_is_set(retailer: Retailer, least: int, drifts: bool) -> None:
    for back in range(1, 7):
        retailer.processed(back, count=30, trim_ratio=RATIOS)
    retailer.processed(0, trim_ratio=0.25)
    options = {"drift": {"min_pictures": least}}
    assert bool(trim_ratios(retailer.evidence(checks=options)).drift) is drifts
    for back in range(1, 7):
        retailer.processed(back, trim_ratio=RATIOS)
    retailer.processed(0, count=30, trim_ratio=0.25)
    assert bool(trim_ratios(retailer.evidence(checks=options)).drift) is drifts


def test_each_figure_may_differ_as_much_as_is_set_for_it(retailer: Retailer) -> None:
    for back in range(1, 7):
        _normal_days(retailer, [back])
        retailer.raw(back, good=280, count=300)
    # 0.675 not trimmed, against none; no face, against one half; 0.667 fetched, against 0.933.
    retailer.processed(0, trim_ratio=[1.0, 1.0, 0.5], face_count=0)
    retailer.raw(0, good=200, count=300)
    judges = {
        "trim_ratio_mean": (trim_ratios, "trim ratio/mean is ", 0.34),
        "untrimmed_share": (trim_ratios, "share not trimmed is ", 0.68),
        "face_share": (face_removal, "share with a face is ", 0.5),
        "success_rate": (download_success_rate, "success rate is ", 0.27),
    }
    for option, (judge, told, difference) in judges.items():
        for allowed, drifts in ((difference - 0.02, True), (difference + 0.02, False)):
            checks = {"drift": {option: allowed}, "min_success_rate": 0}
            drift = judge(retailer.evidence(checks=checks)).drift
            assert any(sentence.startswith(told) for sentence in drift) is drifts


def test_pictures_of_a_few_products_alone_are_no_drift(retailer: Retailer) -> None:
    for back in range(7):
        rows = [
            processed_row(n, product_id=f"p{n // 20}", face_count=int(back > 0 and n < 20))
            for n in range(40)
        ]
        Arranged(retailer.storage, _day(back)).processed(rows)
    # Half of the pictures had a face on each day, and none has today: but that is of one product.
    assert face_removal(retailer.evidence()).passed


def test_partitions_made_with_other_settings_are_not_compared_with(retailer: Retailer) -> None:
    _normal_days(retailer)
    retailer.processed(0, trim_ratio=0.25, settings_hash="other")
    assert trim_ratios(retailer.evidence()).passed
    retailer.processed(0, trim_ratio=0.25, settings_hash=["mine", "mine", "other"])
    assert trim_ratios(retailer.evidence()).drift


def test_other_retailers_are_not_compared_with(storage: Storage, retailer: Retailer) -> None:
    for back in range(1, 7):
        rows = [processed_row(n, trim_ratio=0.9) for n in range(40)]
        Arranged(storage, Partition(_day(back).date, "other")).processed(rows)
    retailer.processed(0, trim_ratio=0.25)
    assert trim_ratios(retailer.evidence()).passed


def test_broken_and_foreign_manifests_of_other_days_are_passed_over(
    storage: Storage, retailer: Retailer
) -> None:
    _normal_days(retailer, range(3, 8))
    Arranged(storage, _day(1)).folder("processed_images").write(MANIFEST, b"broken")
    write_table(
        Arranged(storage, _day(2)).folder("processed_images"), pa.table({"key": ["a"] * 40})
    )
    retailer.processed(0, trim_ratio=0.25)
    (told,) = trim_ratios(retailer.evidence()).drift
    assert "the 5 partitions before" in told


def test_a_partition_without_pictures_has_no_drift(retailer: Retailer) -> None:
    _normal_days(retailer)
    for back in range(1, 7):
        retailer.raw(back, good=40)
    arranged = Arranged(retailer.storage)
    arranged.raw([])
    arranged.processed([])
    evidence = arranged.evidence()
    for judge in (trim_ratios, face_removal, download_success_rate):
        assert judge(evidence).passed
