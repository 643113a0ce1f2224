from __future__ import annotations

import pytest

from imgassets.checks.files import processed_files_match_rows, raw_files_match_rows, sample
from imgassets.manifests import ProcessedRow, to_table
from imgassets.storage import write_table
from imgassets_tests.arranged import Arranged
from imgassets_tests.rows import processed_row, raw_row

ALL = {"files_sample": None}


def test_files_that_are_what_their_rows_say_pass(partition: Arranged) -> None:
    failed = raw_row(2, path=None, bytes=None, sha256=None)
    partition.raw([raw_row(0), raw_row(1), failed])
    verdict = raw_files_match_rows(partition.evidence())
    assert verdict.passed
    assert verdict.figures == {
        "files": 2,
        "files read": 2,
        "files of another size": 0,
        "files with other content": 0,
    }


def test_tampered_bytes_of_the_same_size_fail(partition: Arranged) -> None:
    partition.raw([raw_row(0), raw_row(1)])
    partition.processed([processed_row(0), processed_row(1)])
    partition.write("raw_images", "picture-1.jpeg", b"4our")
    partition.write("processed_images", "picture-0.jpg", b"fuor")

    evidence = partition.evidence()
    raw, made = raw_files_match_rows(evidence), processed_files_match_rows(evidence)

    assert raw.told.startswith("1 of 2 files are not what their rows say (2 were read); remove")
    assert [concern.key for concern in raw.concerns] == ["picture-1"]
    assert raw.concerns[0].path == "images/picture-1.jpeg"
    assert [concern.key for concern in made.concerns] == ["picture-0"]
    assert made.figures["files with other content"] == 1


def test_a_file_of_another_size_fails_without_being_read(partition: Arranged) -> None:
    partition.raw([raw_row(0), raw_row(1)])
    partition.processed([processed_row(0), processed_row(1)])
    partition.write("raw_images", "picture-0.jpeg", b"fou")
    partition.write("processed_images", "picture-0.jpg", b"")

    evidence = partition.evidence(checks={"files_sample": 0})
    raw, made = raw_files_match_rows(evidence), processed_files_match_rows(evidence)

    (concern,) = raw.concerns
    assert (concern.key, concern.what) == (
        "picture-0",
        "its file has 3 bytes, and 4 by its row",
    )
    assert raw.figures["files read"] == 0
    assert [concern.what for concern in made.concerns] == ["its file has 0 bytes, and 4 by its row"]


def test_a_row_without_a_checksum_fails(partition: Arranged) -> None:
    partition.raw([raw_row(0, sha256=None)])
    (concern,) = raw_files_match_rows(partition.evidence()).concerns
    assert "no checksum" in concern.what


def test_a_processed_manifest_from_before_sizes_were_kept_is_compared_by_checksum(
    partition: Arranged,
) -> None:
    rows = [processed_row(0), processed_row(1)]
    partition.processed(rows)
    old = to_table(rows, ProcessedRow).drop_columns(["bytes"])
    write_table(partition.folder("processed_images"), old)
    assert processed_files_match_rows(partition.evidence()).passed

    partition.write("processed_images", "picture-1.jpg", b"longer than it was")
    verdict = processed_files_match_rows(partition.evidence())
    assert [concern.key for concern in verdict.concerns] == ["picture-1"]


def test_as_many_files_are_read_as_the_settings_say(partition: Arranged) -> None:
    rows = [raw_row(number) for number in range(30)]
    partition.raw(rows, {row.key: b"4our" for row in rows})
    some = raw_files_match_rows(partition.evidence(checks={"files_sample": 7}))
    every = raw_files_match_rows(partition.evidence(checks=ALL))
    assert (some.figures["files read"], len(some.concerns)) == (7, 7)
    assert (every.figures["files read"], len(every.concerns)) == (30, 30)


@pytest.mark.parametrize("seed", ["2026-01-31|zara", "2026-02-01|zara"])
def test_the_sample_is_the_same_each_time_and_hardly_changes_with_the_rows(seed: str) -> None:
    rows = [raw_row(number) for number in range(1000)]
    chosen = {row.key for row in sample(rows, 100, seed)}
    assert {row.key for row in sample(rows[::-1], 100, seed)} == chosen
    assert len(chosen & {row.key for row in sample(rows[:990], 100, seed)}) >= 95


def test_another_partition_has_another_sample_spread_over_its_rows() -> None:
    rows = [raw_row(number) for number in range(1000)]
    first, second = (
        {row.key for row in sample(rows, 100, seed)} for seed in ("2026-01-31|zara", "other")
    )
    assert len(first & second) < 30
    assert 30 < len(first & {row.key for row in rows[:500]}) < 70
