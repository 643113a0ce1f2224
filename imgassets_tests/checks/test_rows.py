from __future__ import annotations

import pytest

from imgassets.checks.rows import every_url_has_a_processed_row, every_url_has_a_raw_row
from imgassets.defs.partitions import Partition
from imgassets.errors import CheckError, StorageError
from imgassets.manifests import Outcome, ProcessedRow, RawRow
from imgassets_tests.partition_fixture import PartitionFixture
from imgassets_tests.rows import processed_row, raw_row, url_row


def test_a_raw_manifest_with_all_rows_and_files_passes(partition: PartitionFixture) -> None:
    partition.urls([url_row(0), url_row(1)])
    partition.raw([raw_row(0), raw_row(1, outcome=Outcome.TIMEOUT, path=None, bytes=None)])

    result = every_url_has_a_raw_row(partition.check_context())

    assert result.passed
    assert result.description == "2 URLs accounted for"
    assert result.metrics == {"urls": 2, "rows": 2, "problems": 0}
    assert result.findings == []


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([raw_row(0)], ("image-1", "has no row")),
        ([raw_row(0), raw_row(1), raw_row(1)], ("image-1", "has several rows")),
        (
            [raw_row(0), raw_row(1), raw_row(2)],
            ("image-2", "has a row, but is not in url_list"),
        ),
        (
            [raw_row(0), raw_row(1, path=None)],
            ("image-1", "its outcome is ok, but its row names no file"),
        ),
    ],
)
def test_a_raw_manifest_that_does_not_account_for_every_url_fails(
    partition: PartitionFixture, rows: list[RawRow], problem: tuple[str, str]
) -> None:
    partition.urls([url_row(0), url_row(1)])
    partition.raw(rows)

    result = every_url_has_a_raw_row(partition.check_context())

    assert not result.passed
    assert result.description == (
        "1 problem in the rows of 2 URLs; materialize raw_images of the partition again"
    )
    assert [(finding.key, finding.detail) for finding in result.findings] == [problem]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([processed_row(0)], "has no row"),
        ([processed_row(0), processed_row(1), processed_row(1)], "has several rows"),
        (
            [processed_row(0), processed_row(1, path=None)],
            "its outcome is ok, but its row names no file",
        ),
    ],
)
def test_a_processed_manifest_that_does_not_account_for_every_url_fails(
    partition: PartitionFixture, rows: list[ProcessedRow], problem: str
) -> None:
    partition.urls([url_row(0), url_row(1)])
    partition.processed(rows)
    (finding,) = every_url_has_a_processed_row(partition.check_context()).findings
    assert (finding.key, finding.detail) == ("image-1", problem)


def test_a_missing_file_fails(partition: PartitionFixture) -> None:
    partition.urls([url_row(0), url_row(1)])
    partition.raw([raw_row(0), raw_row(1)])
    partition.processed([processed_row(0), processed_row(1)])
    partition.storage.remove(str(raw_row(0).path))
    partition.storage.remove(str(processed_row(1).path))

    context = partition.check_context()
    (raw,) = every_url_has_a_raw_row(context).findings
    (processed,) = every_url_has_a_processed_row(context).findings

    assert (raw.key, raw.detail) == ("image-0", "its row names a file that does not exist")
    assert processed.key == "image-1"


def test_a_file_that_rows_share_is_missing_in_each_of_them(partition: PartitionFixture) -> None:
    partition.urls([url_row(n) for n in range(3)])
    shared = {"sha256": raw_row(0).sha256}
    partition.raw([raw_row(0), raw_row(1, **shared), raw_row(2)])
    assert every_url_has_a_raw_row(partition.check_context()).passed
    partition.storage.remove(str(raw_row(0).path))
    findings = every_url_has_a_raw_row(partition.check_context()).findings
    assert [finding.key for finding in findings] == ["image-0", "image-1"]


@pytest.mark.parametrize(
    ("keep_raw", "processed", "missing"),
    [
        (False, [processed_row(0), processed_row(1)], []),
        (False, [processed_row(0)], ["image-1"]),
        # Of the same day and retailer, but made from other bytes.
        (False, [processed_row(0), processed_row(1, raw_sha256="0" * 64)], ["image-1"]),
        # The settings do not remove raw files, so somebody else did.
        (True, [processed_row(0), processed_row(1)], ["image-0", "image-1"]),
    ],
)
def test_a_raw_file_is_not_missing_if_the_settings_remove_it_once_it_is_processed(
    partition: PartitionFixture, keep_raw: bool, processed: list[ProcessedRow], missing: list[str]
) -> None:
    partition.urls([url_row(0), url_row(1)])
    partition.raw([raw_row(0), raw_row(1)])
    for row in (raw_row(0), raw_row(1)):
        partition.storage.remove(str(row.path))
    partition.processed(processed)
    context = partition.check_context(process={"keep_raw": keep_raw})
    findings = every_url_has_a_raw_row(context).findings
    assert [finding.key for finding in findings] == missing


def test_a_raw_file_is_not_missing_if_its_image_was_processed_on_another_day_or_with_other_settings(
    partition: PartitionFixture,
) -> None:
    partition.urls([url_row(0)])
    partition.raw([raw_row(0)])
    partition.storage.remove(str(raw_row(0).path))
    earlier = Partition("2026-01-01", partition.partition.retailer)
    PartitionFixture(partition.storage, earlier).processed(
        [processed_row(0, settings_hash="other")]
    )
    context = partition.check_context(process={"keep_raw": False})
    assert every_url_has_a_raw_row(context).passed


def test_a_raw_file_is_missing_if_only_another_retailer_has_a_processed_image_of_it(
    partition: PartitionFixture,
) -> None:
    partition.urls([url_row(0)])
    partition.raw([raw_row(0)])
    partition.storage.remove(str(raw_row(0).path))
    other = Partition(partition.partition.date, "asos")
    PartitionFixture(partition.storage, other).processed([processed_row(0, retailer="asos")])
    context = partition.check_context(process={"keep_raw": False})
    (finding,) = every_url_has_a_raw_row(context).findings
    assert finding.key == "image-0"


def test_a_missing_processed_image_fails_also_without_keep_raw(partition: PartitionFixture) -> None:
    partition.urls([url_row(0)])
    partition.processed([processed_row(0)])
    partition.storage.remove(str(processed_row(0).path))
    context = partition.check_context(process={"keep_raw": False})
    (finding,) = every_url_has_a_processed_row(context).findings
    assert finding.detail == "its row names a file that does not exist"


def test_an_asset_that_was_never_materialized_raises_an_error_that_says_so(
    partition: PartitionFixture,
) -> None:
    partition.urls([url_row(0)])
    with pytest.raises(CheckError, match=r"raw_images of 2026-01-31\|zara was never"):
        every_url_has_a_raw_row(partition.check_context())


def test_a_broken_manifest_raises_an_error_with_its_path(partition: PartitionFixture) -> None:
    partition.urls([url_row(0)])
    partition.storage.write(partition.files.manifest("raw_images"), b"broken")
    with pytest.raises(StorageError, match=r"raw_images/zara\.2026-01-31\.parquet is broken"):
        every_url_has_a_raw_row(partition.check_context())
