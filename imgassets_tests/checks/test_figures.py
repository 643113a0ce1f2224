from __future__ import annotations

import pytest

from imgassets.checks.figures import download_success_rate, face_removal, trim_ratios
from imgassets.manifests import Outcome
from imgassets_tests.arranged import Arranged
from imgassets_tests.rows import processed_row, raw_row


@pytest.mark.parametrize(("good", "passed"), [(9, True), (8, False)])
def test_the_success_rate_may_not_be_below_its_bound(
    partition: Arranged, good: int, passed: bool
) -> None:
    partition.raw(
        [raw_row(number) for number in range(good)]
        + [raw_row(number, outcome=Outcome.HTTP_ERROR) for number in range(good, 10)]
    )

    verdict = download_success_rate(partition.evidence())

    assert verdict.passed is passed
    assert verdict.told == f"{good} of 10 URLs gave a picture; at least 90.0% should"
    assert verdict.figures["success rate"] == good / 10
    assert verdict.figures["http_error"] == 10 - good


def test_failed_downloads_are_named_the_most_frequent_reason_first(partition: Arranged) -> None:
    rows = [
        raw_row(0, outcome=Outcome.TIMEOUT, path=None),
        raw_row(1, outcome=Outcome.HTTP_ERROR, path=None, error="403 Forbidden"),
        raw_row(2, outcome=Outcome.HTTP_ERROR, path=None, error="403 Forbidden"),
    ]
    partition.raw(rows)
    concerns = download_success_rate(partition.evidence()).concerns
    assert [concern.key for concern in concerns] == ["picture-1", "picture-2", "picture-0"]
    assert concerns[0].what == "http_error 403 Forbidden http://127.0.0.1/1.jpg"


@pytest.mark.parametrize(
    ("ratios", "told"),
    [
        ([0.5] * 20, None),
        ([0.18] * 20, "mean is 0.180; it should lie between 0.2 and 1"),
        ([0.01] * 2 + [0.9] * 18, "5th percentile is 0.010; it should lie between 0.05 and 1"),
        ([1.0] * 20, "share of pictures not trimmed at all is 1.000; it should lie between 0"),
    ],
    ids=["good", "mean", "hardest trims", "not trimmed"],
)
def test_trims_that_keep_too_little_or_all_fail(
    partition: Arranged, ratios: list[float], told: str | None
) -> None:
    rows = [processed_row(number, trim_ratio=ratio) for number, ratio in enumerate(ratios)]
    # Pictures that were not trimmed do not count.
    rows.append(processed_row(99, outcome=Outcome.TOO_CLOSE, path=None, trim_ratio=None))
    partition.processed(rows)

    verdict = trim_ratios(partition.evidence())

    assert verdict.passed is (told is None)
    assert verdict.told.startswith(told or "mean 0.500, 5th percentile 0.500, 95th percentile")
    assert verdict.figures["trim ratio/mean"] == pytest.approx(sum(ratios) / 20)
    assert verdict.figures["pictures"] == 20
    assert bool(verdict.concerns) is (told is not None)


@pytest.mark.parametrize(
    ("option", "bounds", "told"),
    [
        ("trim_ratio_mean", {"max": 0.6}, "mean is 0.650"),
        ("trim_ratio_p05", {"max": 0.3}, "5th percentile is 0.335"),
        ("trim_ratio_p95", {"max": 0.9}, "95th percentile is 0.965"),
        ("trim_ratio_p95", {"min": 0.97}, "95th percentile is 0.965"),
        ("untrimmed_share", {"max": 0.1}, "share of pictures not trimmed at all is 0.125"),
        ("untrimmed_share", {"min": 0.2}, "share of pictures not trimmed at all is 0.125"),
    ],
)
def test_each_bound_of_the_trim_fails_where_it_is_not_kept(
    partition: Arranged, option: str, bounds: dict[str, float], told: str
) -> None:
    ratios = [0.3 + 0.1 * number for number in range(7)] + [1.0]
    partition.processed([processed_row(n, trim_ratio=ratio) for n, ratio in enumerate(ratios)])
    assert trim_ratios(partition.evidence()).passed

    verdict = trim_ratios(partition.evidence(checks={option: bounds}))

    assert len(verdict.wrong) == 1
    assert verdict.wrong[0].startswith(told)
    keeps_too_much = "max" in bounds
    first = verdict.concerns[0]
    assert first.key == ("picture-7" if keeps_too_much else "picture-0")
    assert first.path == f"images/{first.key}.jpg"


def test_trims_that_are_wrong_both_ways_are_shown_by_turns(partition: Arranged) -> None:
    partition.processed([processed_row(n, trim_ratio=n / 10) for n in range(1, 10)])
    bounds = {"trim_ratio_p05": {"min": 0.3}, "trim_ratio_p95": {"max": 0.7}}
    verdict = trim_ratios(partition.evidence(checks=bounds))
    assert [concern.key for concern in verdict.concerns[:4]] == [
        "picture-1",
        "picture-9",
        "picture-2",
        "picture-8",
    ]


WITH_FACE = {"face_count": 2, "face_score": 0.9, "face_removed": True}
WITH_FACE_LEFT = WITH_FACE | {"face_removed": False}


def test_faces_that_were_all_removed_pass(partition: Arranged) -> None:
    refused = processed_row(2, **WITH_FACE_LEFT, outcome=Outcome.TOO_CLOSE, path=None)
    not_looked_at = processed_row(3, outcome=Outcome.NO_RAW, path=None, face_count=None)
    partition.processed([processed_row(0), processed_row(1, **WITH_FACE), refused, not_looked_at])

    verdict = face_removal(partition.evidence())

    assert verdict.passed
    assert verdict.told == "2 of 3 pictures had a face, and none has it still"
    assert verdict.figures["faces found"] == 4
    assert verdict.figures["share with a face"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("removed", [False, None])
def test_a_face_that_is_still_there_fails(partition: Arranged, removed: bool | None) -> None:
    left = processed_row(1, **WITH_FACE_LEFT | {"face_removed": removed})
    partition.processed([processed_row(0, **WITH_FACE), left])

    verdict = face_removal(partition.evidence())

    assert verdict.told == "1 of 2 pictures with a face still have it"
    assert verdict.figures["pictures that still have one"] == 1
    (concern,) = verdict.concerns
    assert (concern.key, concern.what) == ("picture-1", "2 faces found, score 0.90")


def test_faces_may_stay_where_the_settings_leave_them(partition: Arranged) -> None:
    partition.processed([processed_row(0, **WITH_FACE_LEFT)])
    verdict = face_removal(partition.evidence(faces={"action": "none"}))
    assert verdict.passed
    assert verdict.told == "1 of 1 pictures had a face, and faces are left as they are"


@pytest.mark.parametrize(
    ("bounds", "named"), [({"min": 0.6}, "picture-0"), ({"max": 0.4}, "picture-1")]
)
def test_an_unexpected_share_of_faces_fails(
    partition: Arranged, bounds: dict[str, float], named: str
) -> None:
    partition.processed([processed_row(0), processed_row(1, **WITH_FACE)])
    verdict = face_removal(partition.evidence(checks={"face_share": bounds}))
    assert "share of pictures with a face is 0.500; it should lie between" in verdict.told
    assert [concern.key for concern in verdict.concerns] == [named]
