from __future__ import annotations

import pytest

from imgassets.checks.files import processed_files_match_rows, raw_files_match_rows, sample
from imgassets.manifests import RawRow, to_table
from imgassets_tests.partition_fixture import PartitionFixture
from imgassets_tests.rows import processed_file, processed_row, raw_file, raw_row

ALL = {"files_sample": None}


def test_files_that_match_their_rows_pass(partition: PartitionFixture) -> None:
    failed = raw_row(2, path=None, bytes=None, sha256=None)
    partition.raw([raw_row(0), raw_row(1), failed])
    result = raw_files_match_rows(partition.check_context())
    assert result.passed
    assert result.metrics == {
        "files": 2,
        "files read": 2,
        "files of another size": 0,
        "files with other content": 0,
    }


def test_changed_bytes_of_the_same_size_fail(partition: PartitionFixture) -> None:
    partition.raw([raw_row(0), raw_row(1)], {"image-1": raw_file("image-x")})
    partition.processed(
        [processed_row(0), processed_row(1)], {"image-0": processed_file("image-x")}
    )

    context = partition.check_context()
    raw, processed = raw_files_match_rows(context), processed_files_match_rows(context)

    assert raw.description.startswith("1 of 2 files not as in the manifest (2 read); delete")
    assert [finding.key for finding in raw.findings] == ["image-1"]
    assert raw.findings[0].path == raw_row(1).path
    assert [finding.key for finding in processed.findings] == ["image-0"]
    assert processed.metrics["files with other content"] == 1


def test_a_file_of_another_size_fails_without_being_read(partition: PartitionFixture) -> None:
    partition.raw([raw_row(0), raw_row(1)], {"image-0": b"raw"})
    partition.processed([processed_row(0), processed_row(1)], {"image-0": b""})

    context = partition.check_context(checks={"files_sample": 0})
    raw, processed = raw_files_match_rows(context), processed_files_match_rows(context)

    (finding,) = raw.findings
    assert (finding.key, finding.detail) == (
        "image-0",
        "its file has 3 bytes; its row says 11",
    )
    assert raw.metrics["files read"] == 0
    assert [finding.detail for finding in processed.findings] == [
        "its file has 0 bytes; its row says 17"
    ]


def test_a_row_without_a_checksum_fails(partition: PartitionFixture) -> None:
    partition.raw([raw_row(0, sha256=None)])
    (finding,) = raw_files_match_rows(partition.check_context()).findings
    assert "no checksum" in finding.detail


def test_a_file_that_rows_share_is_checked_once(partition: PartitionFixture) -> None:
    shared = {"sha256": raw_row(0).sha256}
    rows = [raw_row(0), raw_row(1, **shared), raw_row(2, **shared), raw_row(3)]
    partition.raw(rows, {row.key: raw_file("image-0") for row in rows[:3]})
    good = raw_files_match_rows(partition.check_context())
    assert good.passed
    assert (good.metrics["files"], good.metrics["files read"]) == (2, 2)

    partition.raw(rows, {row.key: raw_file("image-x") for row in rows[:3]})
    bad = raw_files_match_rows(partition.check_context())
    assert bad.description.startswith("1 of 2 files not as in the manifest (2 read)")
    assert [(finding.key, finding.path) for finding in bad.findings] == [("image-0", rows[0].path)]


def test_rows_that_record_one_file_differently_are_all_compared_with_it(
    partition: PartitionFixture,
) -> None:
    rows = [raw_row(0), raw_row(1, path=raw_row(0).path), raw_row(2, path=raw_row(0).path, bytes=1)]
    partition.raw(rows, {row.key: raw_file("image-0") for row in rows})
    findings = raw_files_match_rows(partition.check_context()).findings
    assert {finding.key for finding in findings} == {"image-1", "image-2"}


def test_the_sample_size_is_a_setting(partition: PartitionFixture) -> None:
    rows = [raw_row(number) for number in range(30)]
    partition.raw(rows, {row.key: raw_file(row.key).upper() for row in rows})
    some = raw_files_match_rows(partition.check_context(checks={"files_sample": 7}))
    every = raw_files_match_rows(partition.check_context(checks=ALL))
    assert (some.metrics["files read"], len(some.findings)) == (7, 7)
    assert (every.metrics["files read"], len(every.findings)) == (30, 30)


def sampled_keys(rows: list[RawRow], seed: str) -> set[str]:
    found: list[str] = sample(to_table(rows, RawRow), 100, seed)["key"].to_pylist()
    assert len(found) == 100
    return set(found)


@pytest.mark.parametrize("seed", ["2026-01-31|zara", "2026-02-01|zara"])
def test_the_sample_is_repeatable_and_hardly_changes_with_the_rows(seed: str) -> None:
    rows = [raw_row(number) for number in range(1000)]
    chosen = sampled_keys(rows, seed)
    assert sampled_keys(rows[::-1], seed) == chosen
    assert len(chosen & sampled_keys(rows[:990], seed)) >= 95


def test_each_partition_has_its_own_sample_spread_over_its_rows() -> None:
    rows = [raw_row(number) for number in range(1000)]
    first, second = (sampled_keys(rows, seed) for seed in ("2026-01-31|zara", "other"))
    assert len(first & second) < 30
    assert 30 < len(first & {row.key for row in rows[:500]}) < 70
