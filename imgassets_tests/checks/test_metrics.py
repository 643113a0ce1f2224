from __future__ import annotations

import pytest

from imgassets.checks.metrics import download_success_rate, face_removal, trim_ratios
from imgassets.manifests import Outcome
from imgassets_tests.partition_fixture import PartitionFixture
from imgassets_tests.rows import processed_row, raw_row


@pytest.mark.parametrize(("good", "passed"), [(9, True), (8, False)])
def test_a_success_rate_below_its_bound_fails(
    partition: PartitionFixture, good: int, passed: bool
) -> None:
    partition.raw(
        [raw_row(number) for number in range(good)]
        + [raw_row(number, outcome=Outcome.HTTP_ERROR) for number in range(good, 10)]
    )

    result = download_success_rate(partition.check_context())

    assert result.passed is passed
    assert result.description == f"{good} of 10 URLs returned an image; expected at least 90.0%"
    assert result.metrics["success rate"] == good / 10
    assert result.metrics["http_error"] == 10 - good


@pytest.mark.parametrize(
    ("good", "checks", "fatal"),
    [
        (0, {}, True),
        (1, {}, True),
        (2, {}, False),
        (5, {"fatal_success_rate": 0.6}, True),
        # A bound above the minimum, and one of 0, change nothing.
        (5, {"fatal_success_rate": 0.6, "min_success_rate": 0.4}, False),
        (0, {"fatal_success_rate": 0}, False),
        (0, {"min_success_rate": 0}, False),
    ],
)
def test_a_success_rate_below_its_second_bound_is_fatal(
    partition: PartitionFixture, good: int, checks: dict[str, float], fatal: bool
) -> None:
    lost = [raw_row(n, outcome=Outcome.TIMEOUT, path=None) for n in range(good, 10)]
    partition.raw([*(raw_row(n) for n in range(good)), *lost])

    result = download_success_rate(partition.check_context(checks=checks))

    assert result.fatal is fatal
    expected = f"so the run fails; the outcome of {10 - good} URLs is timeout"
    assert (expected in result.description) is fatal


def test_a_partition_without_urls_is_not_fatal(partition: PartitionFixture) -> None:
    partition.raw([])
    result = download_success_rate(partition.check_context())
    assert (result.passed, result.fatal) == (True, False)


def test_images_that_were_taken_down_are_not_failures(partition: PartitionFixture) -> None:
    removed = [raw_row(n, outcome=Outcome.REMOVED, path=None) for n in range(1, 10)]
    partition.raw([raw_row(0), *removed])
    result = download_success_rate(partition.check_context())
    assert result.passed
    assert result.description == "1 of 1 URL returned an image; expected at least 90.0%"
    assert (result.metrics["success rate"], result.metrics["removed"]) == (1.0, 9)
    assert not result.findings


def test_a_retailer_that_was_taken_down_passes(partition: PartitionFixture) -> None:
    partition.raw([raw_row(n, outcome=Outcome.REMOVED, path=None) for n in range(30)])
    assert download_success_rate(partition.check_context()).passed


def test_failed_downloads_are_listed_with_the_most_frequent_outcome_first(
    partition: PartitionFixture,
) -> None:
    rows = [
        raw_row(0, outcome=Outcome.TIMEOUT, path=None),
        raw_row(1, outcome=Outcome.HTTP_ERROR, path=None, error="403 Forbidden"),
        raw_row(2, outcome=Outcome.HTTP_ERROR, path=None, error="403 Forbidden"),
    ]
    partition.raw(rows)
    findings = download_success_rate(partition.check_context()).findings
    assert [finding.key for finding in findings] == ["image-1", "image-2", "image-0"]
    assert findings[0].detail == "http_error 403 Forbidden http://127.0.0.1/1.jpg"


@pytest.mark.parametrize(
    ("ratios", "violation"),
    [
        ([0.5] * 20, None),
        (
            [0.18] * 20,
            "mean trim ratio is 0.180; expected between 0.2 and 1 (checks.trim_ratio_mean)",
        ),
        (
            [0.01] * 2 + [0.9] * 18,
            "5th percentile of the trim ratio is 0.010; expected between 0.05 and 1 "
            "(checks.trim_ratio_p05)",
        ),
        ([1.0] * 20, "share of untrimmed images is 1.000; expected between 0"),
    ],
    ids=["good", "mean", "5th percentile", "untrimmed"],
)
def test_trims_that_keep_too_little_or_everything_fail(
    partition: PartitionFixture, ratios: list[float], violation: str | None
) -> None:
    rows = [processed_row(number, trim_ratio=ratio) for number, ratio in enumerate(ratios)]
    # Rows without a trim ratio do not count.
    rows.append(processed_row(99, outcome=Outcome.TOO_CLOSE, path=None, trim_ratio=None))
    partition.processed(rows)

    result = trim_ratios(partition.check_context())

    assert result.passed is (violation is None)
    assert result.description.startswith(
        violation or "mean 0.500, 5th percentile 0.500, 95th percentile"
    )
    assert result.metrics["trim ratio/mean"] == pytest.approx(sum(ratios) / 20)
    assert result.metrics["images"] == 20
    assert bool(result.findings) is (violation is not None)


@pytest.mark.parametrize(
    ("option", "bounds", "violation"),
    [
        ("trim_ratio_mean", {"max": 0.6}, "mean trim ratio is 0.650"),
        ("trim_ratio_p05", {"max": 0.3}, "5th percentile of the trim ratio is 0.335"),
        ("trim_ratio_p95", {"max": 0.9}, "95th percentile of the trim ratio is 0.965"),
        ("trim_ratio_p95", {"min": 0.97}, "95th percentile of the trim ratio is 0.965"),
        ("untrimmed_share", {"max": 0.1}, "share of untrimmed images is 0.125"),
        ("untrimmed_share", {"min": 0.2}, "share of untrimmed images is 0.125"),
    ],
)
def test_each_bound_of_the_trim_ratios_fails_if_it_is_violated(
    partition: PartitionFixture, option: str, bounds: dict[str, float], violation: str
) -> None:
    ratios = [0.3 + 0.1 * number for number in range(7)] + [1.0]
    partition.processed([processed_row(n, trim_ratio=ratio) for n, ratio in enumerate(ratios)])
    assert trim_ratios(partition.check_context()).passed

    result = trim_ratios(partition.check_context(checks={option: bounds}))

    assert len(result.violations) == 1
    assert result.violations[0].startswith(violation)
    assert result.violations[0].endswith(f"(checks.{option})")
    keeps_too_much = "max" in bounds
    first = result.findings[0]
    assert first.key == ("image-7" if keeps_too_much else "image-0")
    assert first.path == processed_row(7 if keeps_too_much else 0).path


def test_findings_alternate_if_trims_keep_both_too_little_and_too_much(
    partition: PartitionFixture,
) -> None:
    partition.processed([processed_row(n, trim_ratio=n / 10) for n in range(1, 10)])
    bounds = {"trim_ratio_p05": {"min": 0.3}, "trim_ratio_p95": {"max": 0.7}}
    result = trim_ratios(partition.check_context(checks=bounds))
    assert [finding.key for finding in result.findings[:4]] == [
        "image-1",
        "image-9",
        "image-2",
        "image-8",
    ]


WITH_FACE = {"face_count": 2, "face_score": 0.9, "face_removed": True}
WITH_FACE_LEFT = WITH_FACE | {"face_removed": False}
PRINTED = WITH_FACE | {"face_count": 1, "face_removed": None, "face_rule": "printed"}


def test_a_partition_whose_faces_were_all_removed_passes(partition: PartitionFixture) -> None:
    rejected = processed_row(2, **WITH_FACE_LEFT, outcome=Outcome.TOO_CLOSE, path=None)
    not_processed = processed_row(3, outcome=Outcome.NO_RAW, path=None, face_count=None)
    partition.processed([processed_row(0), processed_row(1, **WITH_FACE), rejected, not_processed])

    result = face_removal(partition.check_context())

    assert result.passed
    assert result.description == "2 of 3 images had a face; all people's faces were removed"
    assert result.metrics["faces found"] == 4
    assert result.metrics["share with a face"] == pytest.approx(2 / 3)


def test_a_face_that_was_not_removed_fails(partition: PartitionFixture) -> None:
    partition.processed([processed_row(0, **WITH_FACE), processed_row(1, **WITH_FACE_LEFT)])

    result = face_removal(partition.check_context())

    assert result.description == (
        "1 of 2 images with a face kept it; see the images below and faces.too_close, faces.action"
    )
    assert result.metrics["images that still have one"] == 1
    (finding,) = result.findings
    assert (finding.key, finding.detail) == ("image-1", "2 faces found, score 0.90")


def test_printed_faces_may_stay_and_are_counted(partition: PartitionFixture) -> None:
    partition.processed(
        [
            processed_row(0, **PRINTED),
            processed_row(1, **PRINTED),
            processed_row(2, **WITH_FACE),
            processed_row(3),
        ]
    )
    result = face_removal(partition.check_context())
    assert result.passed
    assert not result.findings
    assert result.metrics["images with a face"] == 3
    assert result.metrics["images that still have one"] == 0
    assert result.metrics["images that keep a printed one"] == 2


def test_a_face_that_was_not_removed_fails_beside_a_printed_one(
    partition: PartitionFixture,
) -> None:
    partition.processed([processed_row(0, **PRINTED), processed_row(1, **WITH_FACE_LEFT)])
    result = face_removal(partition.check_context())
    assert [finding.key for finding in result.findings] == ["image-1"]
    assert result.metrics["images that still have one"] == 1
    assert result.metrics["images that keep a printed one"] == 1


def test_faces_that_the_settings_keep_pass(partition: PartitionFixture) -> None:
    partition.processed([processed_row(0, **WITH_FACE_LEFT)])
    result = face_removal(partition.check_context(faces={"action": "none"}))
    assert result.passed
    assert result.description == "1 of 1 image had a face; faces are kept (faces.action: none)"


@pytest.mark.parametrize(
    ("bounds", "expected_key"), [({"min": 0.6}, "image-0"), ({"max": 0.4}, "image-1")]
)
def test_an_unexpected_share_of_faces_fails(
    partition: PartitionFixture, bounds: dict[str, float], expected_key: str
) -> None:
    partition.processed([processed_row(0), processed_row(1, **WITH_FACE)])
    result = face_removal(partition.check_context(checks={"face_share": bounds}))
    assert "share of images with a face is 0.500; expected between" in result.description
    assert [finding.key for finding in result.findings] == [expected_key]
