"""Tests of the journal: what a killed run leaves is read, and nothing else."""

from __future__ import annotations

import datetime as dt
import errno
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imgassets.errors import StorageError
from imgassets.folders import project_root
from imgassets.journal import Journal, list_journals
from imgassets.manifests import ProcessedRow, RawRow
from imgassets.storage import PartitionFiles, Storage
from imgassets_tests.removal_fixture import Listed, processed_rows, raw_rows

COAT = Listed("p1", "https://shop.example/coat.jpg", b"a coat")


@pytest.fixture(params=["local", "s3"])
def partition(request: pytest.FixtureRequest, tmp_path: Path) -> PartitionFiles:
    """A partition without files, on the disk and in S3."""
    if request.param == "local":
        return Storage(f"{tmp_path}/data").partition("2026-01-02", "zara")
    return Storage(f"s3://{request.getfixturevalue('s3')}/data").partition("2026-01-02", "zara")


@pytest.fixture
def local(storage: Storage) -> PartitionFiles:
    """A partition without files on the disk."""
    return storage.partition("2026-01-02", "zara")


@pytest.fixture
def in_s3(s3: str) -> PartitionFiles:
    """A partition without files in S3."""
    return Storage(f"s3://{s3}/data").partition("2026-01-02", "zara")


def row(number: int, **changes: Any) -> RawRow:
    partition = Storage("unused").partition("2026-01-02", "zara")
    (raw,) = raw_rows([COAT], partition)
    return replace(raw, key=f"key-{number}", **changes)


def raw_journal(partition: PartitionFiles) -> Journal:
    return Journal(partition, "raw_images")


def read(partition: PartitionFiles) -> list[RawRow]:
    return [RawRow(**values) for values in raw_journal(partition).rows()]


def keys(partition: PartitionFiles) -> list[str]:
    return [each.key for each in read(partition)]


def files(partition: PartitionFiles) -> list[str]:
    return partition.storage.names(raw_journal(partition).folder)


def test_rows_are_read_back_with_all_columns(partition: PartitionFiles) -> None:
    full = row(
        1,
        http_status=200,
        error='kept: \n"quoted" ü \u2028',
        fetched_at=dt.datetime(2026, 1, 2, 12, 30, 15, 123000, tzinfo=dt.UTC),
        elapsed_ms=12,
        reused_from="2026-01-01",
        width=30,
    )
    with raw_journal(partition).writer("a") as writer:
        writer.add([full, row(2)])
    assert read(partition) == [full, row(2)]


def test_rows_of_processed_images_are_read_back(partition: PartitionFiles) -> None:
    journal = Journal(partition, "processed_images")
    rows = processed_rows(
        [COAT, Listed("p2", "https://shop.example/x", error="HTTP 404")], partition
    )
    with journal.writer("a") as writer:
        writer.add(rows)
    assert [ProcessedRow(**values) for values in journal.rows()] == rows
    assert read(partition) == []


def test_a_partition_without_a_journal_has_no_rows(partition: PartitionFiles) -> None:
    assert read(partition) == []
    raw_journal(partition).remove()


def test_a_writer_without_rows_leaves_no_file(partition: PartitionFiles) -> None:
    with raw_journal(partition).writer("a") as writer:
        writer.add([])
        writer.flush()
    assert files(partition) == []


def test_on_a_disk_a_row_is_visible_to_another_process_at_once(local: PartitionFiles) -> None:
    program = (
        "import sys; from imgassets.journal import Journal; from imgassets.storage import Storage;"
        "partition = Storage(sys.argv[1]).partition('2026-01-02', 'zara');"
        "print([row['key'] for row in Journal(partition, 'raw_images').rows()])"
    )
    with raw_journal(local).writer("a") as writer:
        for number in (1, 2):
            writer.add([row(number)])
            done = subprocess.run(
                [sys.executable, "-c", program, local.storage.root],
                capture_output=True,
                text=True,
                check=True,
                cwd=project_root(),
            )
            assert done.stdout.strip() == str([f"key-{each}" for each in range(1, number + 1)])


def test_a_killed_writer_loses_no_row_that_it_has_added(local: PartitionFiles) -> None:
    program = (
        "import sys, os, signal; from imgassets.journal import Journal;"
        "from imgassets.storage import Storage; from imgassets_tests.test_journal import row;"
        "partition = Storage(sys.argv[1]).partition('2026-01-02', 'zara');"
        "writer = Journal(partition, 'raw_images').writer('a');"
        "[writer.add([row(number)]) for number in range(1000)];"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, local.storage.root], check=False, cwd=project_root()
    )
    assert done.returncode == -signal.SIGKILL
    assert keys(local) == [f"key-{number}" for number in range(1000)]


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_the_unfinished_line_of_a_killed_writer_is_skipped(local: PartitionFiles, cut: int) -> None:
    with raw_journal(local).writer("a") as writer:
        writer.add([row(1), row(2)])
    path = Path(local.storage.address(f"{raw_journal(local).folder}/00000001-a.jsonl"))
    path.write_bytes(path.read_bytes()[:-cut])
    # Without its end of line only, a row is complete.
    assert keys(local) == (["key-1", "key-2"] if cut == 1 else ["key-1"])


def test_a_new_writer_does_not_append_to_the_line_of_a_killed_one(local: PartitionFiles) -> None:
    with raw_journal(local).writer("a") as writer:
        writer.add([row(1), row(2)])
    path = Path(local.storage.address(f"{raw_journal(local).folder}/00000001-a.jsonl"))
    path.write_bytes(path.read_bytes()[:-30])
    with raw_journal(local).writer("a") as writer:
        writer.add([row(3)])
    assert keys(local) == ["key-1", "key-3"]


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"null\n",
        b"[]\n",
        b'"text"\n',
        b"{}\n",
        b"\xff\xfe\n",
        b'{"key": "k", "url": "u"}\n',
        b'{"key": "k", "url": "u", "outcome": "unknown"}\n',
        b'{"key": "k", "outcome": "ok"}\n',
        b'{"key": "k", "url": "u", "outcome": "ok", "column_of_tomorrow": 1}\n',
        b'{"key": "k", "url": "u", "outcome": "ok", "fetched_at": "noon"}\n',
        b'{"key": "k", "url": "u", "outcome": ["ok"]}\n',
    ],
)
def test_a_line_that_is_no_row_is_skipped_and_the_others_are_not(
    local: PartitionFiles, line: bytes
) -> None:
    with raw_journal(local).writer("a") as writer:
        writer.add([row(1)])
        path = local.storage.address(f"{raw_journal(local).folder}/00000001-a.jsonl")
        with open(path, "ab") as file:  # noqa: PTH123
            file.write(line)
        writer.add([row(2)])
    assert keys(local) == ["key-1", "key-2"]


def test_other_files_in_the_folder_are_not_read(local: PartitionFiles) -> None:
    with raw_journal(local).writer("a") as writer:
        writer.add([row(1)])
    for name in ("previous.parquet", "1-a.jsonl", "00000001-a.jsonl.bak"):
        local.storage.write(f"{raw_journal(local).folder}/{name}", b"something")
    assert keys(local) == ["key-1"]


def test_rows_are_read_in_the_order_in_which_writers_followed_each_other(
    partition: PartitionFiles,
) -> None:
    for number, name in enumerate(["z", "a", "m"] * 4):
        with raw_journal(partition).writer(name) as writer:
            writer.add([row(number)])
    assert keys(partition) == [f"key-{number}" for number in range(12)]


def test_in_an_object_store_rows_are_written_in_parts(
    in_s3: PartitionFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with raw_journal(in_s3).writer("a") as writer:
        writer.add([row(1)])
        writer.flush_if_due()
        assert keys(in_s3) == []
        now = 102.0
        writer.flush_if_due()
        assert keys(in_s3) == ["key-1"]
        writer.add([row(2)])
        now = 103.9
        writer.flush_if_due()
        assert keys(in_s3) == ["key-1"]
        now = 104.0
        writer.flush_if_due()
        assert keys(in_s3) == ["key-1", "key-2"]
        writer.add([row(3)])
    assert keys(in_s3) == ["key-1", "key-2", "key-3"]
    assert files(in_s3) == [f"0000000{number}-a.jsonl" for number in (1, 2, 3)]


def test_rows_of_a_part_that_cannot_be_written_are_in_the_next_one(
    in_s3: PartitionFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StorageError("not reachable")

    with raw_journal(in_s3).writer("a") as writer:
        writer.add([row(1)])
        with monkeypatch.context() as patch:
            patch.setattr(Storage, "write", fail)
            with pytest.raises(StorageError, match="not reachable"):
                writer.flush()
        writer.add([row(2)])
    assert keys(in_s3) == ["key-1", "key-2"]


def test_many_parts_become_one_with_the_rows_in_their_order(
    in_s3: PartitionFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgassets.journal._COMPACT_AT", 4)
    with raw_journal(in_s3).writer("other") as other:
        other.add([row(100)])
    with raw_journal(in_s3).writer("a") as writer:
        for number in range(11):
            writer.add([row(number)])
            writer.flush()
            assert len(files(in_s3)) <= 5
            assert keys(in_s3) == ["key-100", *(f"key-{each}" for each in range(number + 1))]


def test_a_kill_while_parts_are_merged_loses_no_row(
    in_s3: PartitionFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgassets.journal._COMPACT_AT", 3)

    def killed(self: Storage, paths: Iterable[str]) -> None:
        first, *_ = paths
        self.remove(first)
        raise KeyboardInterrupt

    monkeypatch.setattr(Storage, "remove_all", killed)
    writer = raw_journal(in_s3).writer("a")
    for number in range(3):
        writer.add([row(number, attempts=number)])
        if number < 2:
            writer.flush()
    with pytest.raises(KeyboardInterrupt):
        writer.flush()
    latest = {each.key: each for each in read(in_s3)}
    assert latest == {f"key-{number}": row(number, attempts=number) for number in range(3)}


def test_threads_can_add_rows_at_the_same_time(partition: PartitionFiles) -> None:
    threads, each = 8, 200

    def add(writer: Any, thread: int) -> None:
        for number in range(each):
            writer.add([row(thread * each + number, error="x" * 500)])

    with raw_journal(partition).writer("a") as writer:
        workers = [threading.Thread(target=add, args=(writer, thread)) for thread in range(threads)]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            writer.flush()
        for worker in workers:
            worker.join()
    found = keys(partition)
    assert sorted(found) == sorted(f"key-{number}" for number in range(threads * each))
    for thread in range(threads):
        own = [f"key-{thread * each + number}" for number in range(each)]
        assert [key for key in found if key in set(own)] == own


def test_writers_of_several_shards_do_not_overwrite_each_other(partition: PartitionFiles) -> None:
    journal = raw_journal(partition)
    with journal.writer("shard_0000") as first, journal.writer("shard_0001") as second:
        for number in range(3):
            first.add([row(number)])
            second.add([row(10 + number)])
            first.flush()
            second.flush()
    assert sorted(keys(partition)) == sorted(f"key-{n}" for n in (0, 1, 2, 10, 11, 12))


def test_a_journal_is_removed_with_its_folders(partition: PartitionFiles) -> None:
    for name in ("a", "b"):
        with raw_journal(partition).writer(name) as writer:
            writer.add([row(1)])
    partition.storage.write(f"{raw_journal(partition).folder}/previous.parquet", b"x")
    raw_journal(partition).remove()
    assert partition.storage.find("journal") == {}
    if partition.storage.is_local:
        assert not Path(partition.storage.address(raw_journal(partition).folder)).exists()


def test_the_removal_begins_with_the_oldest_file(
    local: PartitionFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    for attempts, name in enumerate(("z", "a", "m")):
        with raw_journal(local).writer(name) as writer:
            writer.add([row(1, attempts=attempts)])
    original = Storage.remove
    for left in (2, 1):
        calls = 0

        def killed(self: Storage, path: str) -> None:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise KeyboardInterrupt
            original(self, path)

        monkeypatch.setattr(Storage, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            raw_journal(local).remove()
        assert len(files(local)) == left
        # The last row of the key is the newest one until the end.
        assert read(local)[-1].attempts == 2
        if left == 1:
            break


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_that_says_what_to_do(local: PartitionFiles) -> None:
    folder = Path(local.storage.address(raw_journal(local).folder))
    folder.mkdir(parents=True)
    (folder / "00000001-a.jsonl").symlink_to("/dev/full")
    writer = raw_journal(local).writer("a")
    # Numbers continue after existing files.
    (folder / "00000002-a.jsonl").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left on device; free space") as caught:
        writer.add([row(1)])
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC


def test_a_folder_that_cannot_be_created_is_a_storage_error(local: PartitionFiles) -> None:
    Path(local.storage.root).mkdir()
    Path(local.storage.address("journal")).write_bytes(b"a file, not a folder")
    with pytest.raises(StorageError, match="Not a directory"):
        raw_journal(local).writer("a")


def test_a_snapshot_has_the_columns_of_all_rows(partition: PartitionFiles) -> None:
    with raw_journal(partition).writer("a") as writer:
        writer.add([row(1), row(2, path=None)])
    assert raw_journal(partition).snapshot("key", "path") == [
        ("key-1", row(1).path),
        ("key-2", None),
    ]


def test_a_snapshot_of_a_journal_that_is_removed_meanwhile_is_empty(
    local: PartitionFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_journal(local).writer("a") as writer:
        writer.add([row(1)])
    original = Storage.lines

    def remove_first(self: Storage, path: str) -> Iterator[bytes]:
        raw_journal(local).remove()
        return original(self, path)

    monkeypatch.setattr(Storage, "lines", remove_first)
    assert raw_journal(local).snapshot("key") == []


def test_a_snapshot_of_a_journal_that_never_settles_is_an_error(
    local: PartitionFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_journal(local).writer("a") as writer:
        writer.add([row(1)])

    def gone(*_: object) -> Iterator[bytes]:
        raise FileNotFoundError

    monkeypatch.setattr(Storage, "lines", gone)
    with pytest.raises(StorageError, match="changes while it is read; try again"):
        raw_journal(local).snapshot("key")


def test_erased_rows_are_gone_and_the_writer_goes_on(partition: PartitionFiles) -> None:
    with raw_journal(partition).writer("a") as writer:
        writer.add([row(1), row(2), row(3)])
        writer.flush()
        raw_journal(partition).erase(lambda values: values["key"] == "key-2")
        writer.add([row(4)])
    assert keys(partition) == ["key-1", "key-3", "key-4"]
    data = b"".join(
        partition.storage.read(f"{raw_journal(partition).folder}/{name}")
        for name in files(partition)
    )
    assert b"key-2" not in data


def test_erasing_nothing_writes_nothing(
    partition: PartitionFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_journal(partition).writer("a") as writer:
        writer.add([row(1)])

    def fail(*_: object) -> None:
        raise AssertionError("written")

    monkeypatch.setattr(Storage, "write", fail)
    monkeypatch.setattr("imgassets.journal.write_all", fail)
    raw_journal(partition).erase(lambda _: False)
    assert keys(partition) == ["key-1"]


def test_erasing_in_a_file_that_cannot_be_written_is_a_storage_error(
    local: PartitionFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_journal(local).writer("a") as writer:
        writer.add([row(1)])

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("imgassets.journal.write_all", fail)
    with pytest.raises(StorageError, match=r"cannot write .*Input/output error"):
        raw_journal(local).erase(lambda _: True)


def test_a_file_that_its_run_removes_meanwhile_needs_no_erasing(
    local: PartitionFiles,
) -> None:
    with raw_journal(local).writer("a") as writer:
        writer.add([row(1)])

    def remove(_: object) -> bool:
        raw_journal(local).remove()
        return True

    raw_journal(local).erase(remove)
    assert local.storage.find("journal") == {}


def test_journals_are_listed_per_asset_and_retailer(partition: PartitionFiles) -> None:
    storage = partition.storage
    for retailer, date in (("zara", "2026-01-02"), ("zara", "2026-01-03"), ("mango", "2026-01-02")):
        with Journal(storage.partition(date, retailer), "raw_images").writer("a") as writer:
            writer.add([row(1)])
    storage.write("journal/temporary/1-1", b"x")
    found = [
        (journal.asset, journal.partition.retailer, journal.partition.date)
        for journal in list_journals(storage, "raw_images")
    ]
    assert found == [
        ("raw_images", "mango", "2026-01-02"),
        ("raw_images", "zara", "2026-01-02"),
        ("raw_images", "zara", "2026-01-03"),
    ]
    assert len(list_journals(storage, "raw_images", "zara")) == 2
    assert list_journals(storage, "processed_images") == []
    assert list_journals(storage, "raw_images", "zar") == []
