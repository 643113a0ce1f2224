from __future__ import annotations

import pytest

from imgassets.checks.rows import every_url_has_a_processed_row, every_url_has_a_raw_row
from imgassets.checks.verdict import CannotJudgeError
from imgassets.manifests import Outcome, ProcessedRow, RawRow
from imgassets.storage import IMAGES, StorageError, mark_removed
from imgassets_tests.arranged import Arranged
from imgassets_tests.rows import processed_row, raw_row, url_row


def test_a_raw_manifest_with_all_rows_and_files_passes(partition: Arranged) -> None:
    partition.urls([url_row(0), url_row(1)])
    partition.raw([raw_row(0), raw_row(1, outcome=Outcome.TIMEOUT, path=None, bytes=None)])

    verdict = every_url_has_a_raw_row(partition.evidence())

    assert verdict.passed
    assert verdict.told == "all 2 URLs are accounted for"
    assert verdict.figures == {"urls": 2, "rows": 2, "problems": 0}
    assert verdict.concerns == []


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([raw_row(0)], ("picture-1", "has no row")),
        ([raw_row(0), raw_row(1), raw_row(1)], ("picture-1", "has several rows")),
        (
            [raw_row(0), raw_row(1), raw_row(2)],
            ("picture-2", "has a row, but is not in url_list"),
        ),
        ([raw_row(0), raw_row(1, path=None)], ("picture-1", "is ok, but its row names no file")),
    ],
)
def test_a_raw_manifest_that_does_not_account_for_every_url_fails(
    partition: Arranged, rows: list[RawRow], problem: tuple[str, str]
) -> None:
    partition.urls([url_row(0), url_row(1)])
    partition.raw(rows)

    verdict = every_url_has_a_raw_row(partition.evidence())

    assert not verdict.passed
    assert verdict.told == "1 problems with the rows of 2 URLs"
    assert [(concern.key, concern.what) for concern in verdict.concerns] == [problem]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([processed_row(0)], "has no row"),
        ([processed_row(0), processed_row(1), processed_row(1)], "has several rows"),
        ([processed_row(0), processed_row(1, path=None)], "is ok, but its row names no file"),
    ],
)
def test_a_processed_manifest_that_does_not_account_for_every_url_fails(
    partition: Arranged, rows: list[ProcessedRow], problem: str
) -> None:
    partition.urls([url_row(0), url_row(1)])
    partition.processed(rows)
    (concern,) = every_url_has_a_processed_row(partition.evidence()).concerns
    assert (concern.key, concern.what) == ("picture-1", problem)


def test_a_file_that_is_gone_fails(partition: Arranged) -> None:
    partition.urls([url_row(0), url_row(1)])
    partition.raw([raw_row(0), raw_row(1)])
    partition.processed([processed_row(0), processed_row(1)])
    (partition.folder("raw_images") / IMAGES).remove("picture-0.jpeg")
    (partition.folder("processed_images") / IMAGES).remove("picture-1.jpg")

    evidence = partition.evidence()
    (raw,) = every_url_has_a_raw_row(evidence).concerns
    (made,) = every_url_has_a_processed_row(evidence).concerns

    assert (raw.key, raw.what) == ("picture-0", "is named by its row, but its file is gone")
    assert made.key == "picture-1"


def test_a_served_file_that_the_settings_wanted_removed_is_not_missed(partition: Arranged) -> None:
    partition.urls([url_row(0)])
    partition.raw([raw_row(0)])
    mark_removed(partition.folder("raw_images"), ["picture-0.jpeg"])
    (partition.folder("raw_images") / IMAGES).remove("picture-0.jpeg")
    assert every_url_has_a_raw_row(partition.evidence()).passed


def test_what_was_never_materialized_cannot_be_judged(partition: Arranged) -> None:
    partition.urls([url_row(0)])
    with pytest.raises(CannotJudgeError, match=r"raw_images of 2026-01-31\|zara was never"):
        every_url_has_a_raw_row(partition.evidence())


def test_a_broken_manifest_is_named(partition: Arranged) -> None:
    partition.urls([url_row(0)])
    partition.folder("raw_images").write("manifest.parquet", b"broken")
    with pytest.raises(StorageError, match=r"retailer=zara/manifest\.parquet is broken"):
        every_url_has_a_raw_row(partition.evidence())
