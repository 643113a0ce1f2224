"""Tests of `imgassets gc`: what it removes, and that it removes nothing that a run needs."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from imgassets.cli import cli
from imgassets.errors import StorageError
from imgassets.garbage import RetailerGarbage, remove_garbage
from imgassets.journal import Journal, JournalWriter
from imgassets.manifests import ProcessedRow, RawRow, to_table
from imgassets.storage import PartitionFiles, Storage, processed_path
from imgassets_tests.removal_fixture import (
    Listed,
    processed_bytes,
    processed_rows,
    raw_rows,
    sha256_of,
    snapshot,
    write_files,
    write_journals,
    write_partition,
)

DAY = dt.timedelta(hours=24)
NO_GRACE = dt.timedelta(0)
COAT = Listed("p1", "https://shop.example/coat.jpg", b"a coat")
SHOE = Listed("p2", "https://shop.example/shoe.jpg", b"a shoe")
HAT = Listed("p3", "https://shop.example/hat.jpg", b"a hat")


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty data root on the disk and in S3."""
    if request.param == "local":
        return Storage(f"{tmp_path}/data")
    return Storage(f"s3://{request.getfixturevalue('s3')}/data")


def paths_of(partition: PartitionFiles, *listed: Listed) -> set[str]:
    return {str(row.path) for row in raw_rows(listed, partition)} | {
        str(row.path) for row in processed_rows(listed, partition)
    }


def image_files(storage: Storage) -> set[str]:
    return set(storage.find("images"))


def age(storage: Storage, hours: float) -> None:
    """Make all local files look as old as this."""
    then = time.time() - hours * 3600
    for path in Path(storage.root).rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def test_only_files_that_no_manifest_references_are_removed(root: Storage) -> None:
    partition = root.partition("2026-01-02", "zara")
    write_partition(partition, [COAT])
    write_files([SHOE], partition)
    time.sleep(0.01)
    garbage = remove_garbage(root, NO_GRACE)
    assert image_files(root) == paths_of(partition, COAT)
    size = len(SHOE.image or b"") + len(processed_bytes(SHOE.image or b""))
    assert garbage.retailers == [RetailerGarbage("zara", files=2, bytes=size, kept=5)]


def test_a_file_that_only_another_day_references_stays(root: Storage) -> None:
    write_partition(root.partition("2026-01-02", "zara"), [COAT])
    today = root.partition("2026-01-03", "zara")
    write_partition(today, [COAT, SHOE])
    write_partition(root.partition("2026-01-02", "zara"), [HAT])
    time.sleep(0.01)
    assert remove_garbage(root, NO_GRACE).retailers[0].files == 0
    assert image_files(root) == paths_of(today, COAT, SHOE, HAT)


def test_references_of_another_retailer_do_not_keep_a_file(storage: Storage) -> None:
    zara, mango = (storage.partition("2026-01-02", name) for name in ("zara", "mango"))
    write_partition(zara, [COAT])
    write_files([COAT], mango)
    age(storage, 25)
    garbage = remove_garbage(storage, DAY)
    assert [(each.retailer, each.files) for each in garbage.retailers] == [
        ("mango", 2),
        ("zara", 0),
    ]
    assert image_files(storage) == paths_of(zara, COAT)


def test_a_raw_file_that_only_processed_images_references_stays(storage: Storage) -> None:
    partition = storage.partition("2026-01-02", "zara")
    write_files([COAT], partition)
    partition.write_manifest(
        "processed_images", to_table(processed_rows([COAT], partition), ProcessedRow)
    )
    age(storage, 25)
    assert remove_garbage(storage, DAY).retailers == [RetailerGarbage("zara", kept=2)]


def test_an_image_of_other_settings_is_removed_and_the_current_one_stays(storage: Storage) -> None:
    partition = storage.partition("2026-01-02", "zara")
    write_partition(partition, [COAT])
    old = processed_path("zara", sha256_of(COAT.image or b""), "f" * 16, "jpg")
    storage.write(old, b"of other settings")
    age(storage, 25)
    assert remove_garbage(storage, DAY).retailers[0].files == 1
    assert image_files(storage) == paths_of(partition, COAT)


def test_a_file_younger_than_the_grace_period_stays_and_is_counted(storage: Storage) -> None:
    partition = storage.partition("2026-01-02", "zara")
    write_files([COAT], partition)
    age(storage, 23)
    assert remove_garbage(storage, DAY).retailers == [RetailerGarbage("zara", kept=2, recent=2)]
    age(storage, 25)
    assert remove_garbage(storage, DAY).retailers[0].files == 2
    assert not (Path(storage.root) / "images").exists()


def test_a_dry_run_counts_the_same_and_removes_nothing(storage: Storage) -> None:
    partition = storage.partition("2026-01-02", "zara")
    write_partition(partition, [COAT])
    write_files([SHOE], partition)
    storage.write("journal/temporary/1-1", b"of a killed writer")
    age(storage, 25)
    before = snapshot(storage)
    planned = remove_garbage(storage, DAY, dry_run=True)
    assert snapshot(storage) == before
    assert (planned.temporaries, planned.temporary_bytes) == (1, 18)
    assert remove_garbage(storage, DAY) == planned
    assert storage.find("journal") == {}


def test_images_of_a_retailer_without_manifests_are_removed(root: Storage) -> None:
    write_files([COAT, SHOE], root.partition("2026-01-02", "gone"))
    time.sleep(0.01)
    assert remove_garbage(root, NO_GRACE).retailers[0].files == 4
    assert image_files(root) == set()


def test_review_files_stay_only_beside_a_manifest_of_processed_images(storage: Storage) -> None:
    kept, left = (storage.partition(f"2026-01-0{day}", "zara") for day in (2, 3))
    for partition in (kept, left):
        write_partition(partition, [COAT])
    storage.remove(left.manifest("processed_images"))
    age(storage, 25)
    remove_garbage(storage, DAY)
    assert len(storage.find(kept.review)) == 3
    assert not Path(storage.address(left.review)).exists()


def test_a_running_partition_loses_no_file_at_any_moment(root: Storage) -> None:
    partition = root.partition("2026-01-02", "zara")
    listed = [COAT, SHOE]
    needed = paths_of(partition, *listed)
    journals = [Journal(partition, asset) for asset in ("raw_images", "processed_images")]

    def collect(grace: dt.timedelta) -> None:
        time.sleep(0.01)
        remove_garbage(root, grace)
        assert image_files(root) == needed

    write_files(listed, partition)
    collect(DAY)
    # From now on, references alone have to keep the files, however old they are.
    write_journals(partition, listed)
    collect(NO_GRACE)
    partition.write_manifest("raw_images", to_table(raw_rows(listed, partition), RawRow))
    collect(NO_GRACE)
    journals[0].remove()
    collect(NO_GRACE)
    partition.write_manifest(
        "processed_images", to_table(processed_rows(listed, partition), ProcessedRow)
    )
    collect(NO_GRACE)
    journals[1].remove()
    collect(NO_GRACE)


def after_first_call(
    monkeypatch: pytest.MonkeyPatch, name: str, action: Callable[[], None]
) -> None:
    """Let another process act after the first time that garbage calls a function."""
    import imgassets.garbage

    original = getattr(imgassets.garbage, name)
    calls = 0

    def patched(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        result = original(*args, **kwargs)
        if calls == 1:
            action()
        return result

    monkeypatch.setattr(imgassets.garbage, name, patched)


def test_a_file_that_a_run_references_during_the_collection_stays(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = storage.partition("2026-01-02", "zara")
    write_files([COAT, SHOE], partition)
    age(storage, 25)

    def take_over() -> None:
        with Journal(partition, "raw_images").writer("a") as writer:
            writer.add(raw_rows([COAT], partition))
        with Journal(partition, "processed_images").writer("a") as processed_writer:
            processed_writer.add(processed_rows([COAT], partition))

    after_first_call(monkeypatch, "_unreferenced", take_over)
    assert remove_garbage(storage, DAY).retailers[0].files == 2
    assert image_files(storage) == paths_of(partition, COAT)


def test_a_file_that_a_run_writes_again_during_the_collection_stays(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = storage.partition("2026-01-02", "zara")
    write_files([COAT, SHOE], partition)
    age(storage, 25)
    after_first_call(monkeypatch, "_unreferenced", lambda: write_files([COAT], partition))
    assert remove_garbage(storage, DAY).retailers[0].files == 2
    assert image_files(storage) == paths_of(partition, COAT)


def test_a_run_that_finishes_during_the_collection_keeps_its_files(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = storage.partition("2026-01-02", "zara")
    write_journals(partition, [COAT])
    age(storage, 25)

    def finish() -> None:
        partition.write_manifest("raw_images", to_table(raw_rows([COAT], partition), RawRow))
        Journal(partition, "raw_images").remove()

    after_first_call(monkeypatch, "list_journals", finish)
    assert remove_garbage(storage, DAY).retailers[0].files == 0
    assert image_files(storage) == paths_of(partition, COAT)


def test_a_journal_that_is_compacted_while_it_is_read_keeps_its_files(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(f"s3://{s3}/data")
    partition = storage.partition("2026-01-02", "zara")
    write_files([COAT], partition)
    writer = JournalWriter(storage, partition.journal("raw_images"), "a", 1)
    writer.add(raw_rows([COAT], partition))
    writer.flush()
    writer.add(raw_rows([COAT], partition))
    monkeypatch.setattr("imgassets.journal._COMPACT_AT", 2)
    original = Storage.read

    def compact_first(self: Storage, path: str) -> bytes:
        if path.endswith("00000001-a.jsonl"):
            monkeypatch.setattr(Storage, "read", original)
            writer.flush()
        return original(self, path)

    monkeypatch.setattr(Storage, "read", compact_first)
    time.sleep(0.01)
    remove_garbage(storage, NO_GRACE)
    (raw,) = raw_rows([COAT], partition)
    assert image_files(storage) == {raw.path}


def test_a_retailer_with_a_broken_manifest_is_skipped_and_the_others_are_not(
    storage: Storage,
) -> None:
    for retailer in ("mango", "zara"):
        write_partition(storage.partition("2026-01-02", retailer), [COAT])
        write_files([SHOE], storage.partition("2026-01-02", retailer))
    storage.write("manifests/raw_images/mango.2026-01-02.parquet", b"not Parquet")
    age(storage, 25)
    mango, zara = remove_garbage(storage, DAY).retailers
    assert (mango.files, zara.files) == (0, 2)
    assert "manifests/raw_images/mango.2026-01-02.parquet is broken" in str(mango.error)
    assert len(storage.find("images/raw/mango")) == 2


def test_a_table_that_is_no_manifest_does_not_count_as_one_without_references(
    storage: Storage,
) -> None:
    partition = storage.partition("2026-01-02", "zara")
    write_partition(partition, [COAT])
    table = partition.read_manifest("raw_images").drop_columns("path")
    partition.write_manifest("raw_images", table)
    age(storage, 25)
    (zara,) = remove_garbage(storage, DAY).retailers
    assert "has no column 'path'" in str(zara.error)
    assert image_files(storage) == paths_of(partition, COAT)


def test_a_retailer_whose_journal_cannot_be_read_is_skipped(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = storage.partition("2026-01-02", "zara")
    write_journals(partition, [COAT])
    age(storage, 25)

    def fail(*_: object) -> Iterator[bytes]:
        raise StorageError("cannot read the journal")

    monkeypatch.setattr(Storage, "lines", fail)
    (zara,) = remove_garbage(storage, DAY).retailers
    assert zara.error == "cannot read the journal"
    assert image_files(storage) == paths_of(partition, COAT)


def test_old_temporaries_are_removed_and_those_of_active_writers_are_not(storage: Storage) -> None:
    storage.write("journal/temporary/1-1", b"of a killed writer")
    age(storage, 25)
    storage.write("journal/temporary/2-1", b"of an active writer")
    garbage = remove_garbage(storage, DAY)
    assert (garbage.temporaries, garbage.temporary_bytes) == (1, 18)
    assert list(storage.find("journal")) == ["journal/temporary/2-1"]


def test_an_empty_data_root_is_no_error(root: Storage) -> None:
    assert remove_garbage(root, DAY).retailers == []


def test_the_command_prints_counts_and_bytes_per_retailer_and_in_total(storage: Storage) -> None:
    partition = storage.partition("2026-01-02", "zara")
    write_partition(partition, [COAT])
    write_files([SHOE], partition)
    age(storage, 25)
    write_files([HAT], partition)
    dry = CliRunner().invoke(cli, ["gc", "--dry-run"])
    assert dry.output.splitlines() == [
        "zara: would remove 2 files (22 bytes); kept 7, 2 of them not referenced, but recent",
        "would remove 2 files (22 bytes), and temporary files of killed runs: 0 files (0 bytes)",
    ]
    assert image_files(storage) == paths_of(partition, COAT, SHOE, HAT)
    done = CliRunner().invoke(cli, ["gc"])
    assert done.exit_code == 0
    assert done.output == dry.output.replace("would remove", "removed")
    assert image_files(storage) == paths_of(partition, COAT, HAT)


def test_the_command_ends_with_exit_code_1_if_a_retailer_was_skipped(storage: Storage) -> None:
    write_partition(storage.partition("2026-01-02", "zara"), [COAT])
    storage.write("manifests/raw_images/zara.2026-01-02.parquet", b"not Parquet")
    done = CliRunner().invoke(cli, ["gc"])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: zara: skipped, nothing removed: ")
    assert "is broken" in done.stderr
    assert done.stdout.startswith("removed 0 files")


@pytest.mark.parametrize("hours", ["-1", "x"])
def test_the_command_rejects_a_grace_period_that_is_not_a_time(
    storage: Storage, hours: str
) -> None:
    write_files([COAT], storage.partition("2026-01-02", "zara"))
    done = CliRunner().invoke(cli, ["gc", "--grace-hours", hours])
    assert done.exit_code == 2
    assert "--grace-hours" in done.output
    assert len(image_files(storage)) == 2


def test_a_grace_period_of_the_command_is_in_hours(storage: Storage) -> None:
    write_files([COAT], storage.partition("2026-01-02", "zara"))
    age(storage, 1.5)
    runner = CliRunner()
    assert "removed 0 files" in runner.invoke(cli, ["gc", "--grace-hours", "2"]).output
    assert "removed 2 files" in runner.invoke(cli, ["gc", "--grace-hours", "1.4"]).output
