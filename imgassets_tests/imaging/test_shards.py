"""Tests of partitions that are processed in shards."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from imgassets.errors import SettingsError
from imgassets.imaging.partition import (
    Shard,
    plan_shards,
    process_partition,
    process_shard,
    remove_raw_images,
)
from imgassets.journal import Journal
from imgassets.manifests import Outcome, ProcessedRow, RawRow, from_table, to_table
from imgassets.settings import RetailerSettings
from imgassets.storage import PartitionFiles, Storage, read_table
from imgassets_tests.rows import raw_row

ASSET = "processed_images"
DAY, SECOND = "2026-01-31", "2026-02-01"
STEPS = ["imgassets_tests.imaging.user_steps.record_and_wait", "resize"]


def _settings(shard_size: int = 8, **process: object) -> RetailerSettings:
    options = {"steps": STEPS, "processes": 1, "shard_size": shard_size, **process}
    return RetailerSettings.model_validate({"process": options})


def _numbered(number: int) -> bytes:
    """An image with a number in its pixels, as `user_steps.record_and_wait` records it."""
    pixels = np.full((16, 12, 3), (number % 256, number // 256, 7), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


class Partition:
    """A partition whose rows have numbered images."""

    def __init__(self, root: Path, model: Path, numbers: Sequence[int], date: str = DAY) -> None:
        self.files, self.model = Storage(str(root)).partition(date, "zara"), model
        self.lines: list[str] = []
        rows = []
        for position, number in enumerate(numbers):
            row = raw_row(position, date=date, **_saved(_numbered(number)))
            self.files.storage.write(str(row.path), _numbered(number))
            rows.append(row)
        self.raw = to_table(rows, RawRow)
        self.files.write_manifest("raw_images", self.raw)

    def plan(self, settings: RetailerSettings) -> list[Shard]:
        return plan_shards(self.raw, self.files, settings, log=self.lines.append)

    def process_shard(self, shard: Shard, settings: RetailerSettings) -> None:
        process_shard(shard, self.files, settings, self.model, log=self.lines.append)

    def collect(self, settings: RetailerSettings) -> list[ProcessedRow]:
        table = process_partition(self.raw, self.files, settings, self.model, log=self.lines.append)
        written = self.files.read_manifest(ASSET)
        assert written == table
        assert written.schema.metadata == table.schema.metadata
        return from_table(table, ProcessedRow)

    def run(self, settings: RetailerSettings) -> list[ProcessedRow]:
        for shard in self.plan(settings):
            self.process_shard(shard, settings)
        return self.collect(settings)

    @property
    def journal(self) -> list[str]:
        return self.files.storage.names(self.files.journal(ASSET))


def _saved(data: bytes) -> dict[str, object]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the numbers of the images that were begun."""
    path = tmp_path / "record.txt"
    path.touch()
    monkeypatch.setenv("IMGASSETS_TEST_RECORD", str(path))
    return path


def _counts(record: Path) -> Counter[int]:
    return Counter(map(int, record.read_text().split()))


# With repetitions in other shards, and in the same one.
NUMBERS = [*range(26), 3, 25, 25, 11]


def test_a_partition_in_shards_has_the_files_and_the_manifest_of_one_without(
    tmp_path: Path, model: Path, record: Path
) -> None:
    sharded = Partition(tmp_path / "sharded", model, NUMBERS)
    shards = sharded.plan(_settings())
    assert [shard.name for shard in shards] == [f"shard_{number:04d}" for number in range(4)]
    whole = Partition(tmp_path / "whole", model, NUMBERS)
    assert whole.plan(_settings(50_000)) == []
    assert whole.journal == []
    rows = sharded.run(_settings())
    assert _counts(record) == Counter(range(26))
    assert rows == whole.run(_settings(50_000))
    assert {row.outcome for row in rows} == {Outcome.OK}
    one, other = (
        {path: part.files.storage.read(path) for path in part.files.storage.find("images")}
        for part in (sharded, whole)
    )
    assert one == other
    assert sharded.journal == []
    # Nothing is left to do, and no journal.
    assert sharded.plan(_settings()) == []
    assert sharded.collect(_settings()) == rows
    assert sharded.lines[-1] == "26 images processed before and kept"
    assert _counts(record).total() == 2 * 26


def test_shards_are_of_about_the_same_size_and_at_most_as_large_as_the_settings_say(
    tmp_path: Path, model: Path
) -> None:
    partition = Partition(tmp_path, model, range(21))
    shards = partition.plan(_settings(10))
    folder = partition.files.journal(ASSET)
    tables = [
        read_table(partition.files.storage, f"{folder}/{name}")
        for name in partition.journal
        if name.endswith(".tasks.parquet")
    ]
    assert len(shards) == 3
    assert [table.num_rows for table in tables] == [7, 7, 7]
    # A further plan replaces the first.
    assert len(partition.plan(_settings(20))) == 2
    assert len(partition.journal) == 1 + 2


def test_images_that_are_known_are_not_in_a_shard(
    tmp_path: Path, model: Path, record: Path
) -> None:
    Partition(tmp_path / "data", model, range(20)).run(_settings())
    record.write_text("")
    # 9 new images are two shards; 8 are none, and the last step processes them.
    for last, shards in ((37, 2), (36, 0)):
        second = Partition(tmp_path / "data", model, range(8, last - 8), SECOND)
        assert len(second.plan(_settings())) == shards
        assert "12 images processed before and kept" in second.lines
    rows = second.run(_settings())
    assert _counts(record) == Counter(range(20, 28))
    assert [row.reused_from for row in rows] == [DAY] * 12 + [None] * 8


def test_a_plan_does_not_look_for_what_it_does_not_need(tmp_path: Path, model: Path) -> None:
    empty = Partition(tmp_path / "empty", model, [])
    assert empty.run(_settings()) == []
    small = Partition(tmp_path / "small", model, range(8))
    assert small.plan(_settings()) == []
    assert small.journal == small.lines == []


def test_images_whose_raw_files_are_gone_are_taken_from_another_day(
    tmp_path: Path, model: Path, record: Path
) -> None:
    first = Partition(tmp_path / "data", model, range(20))
    remove_raw_images(to_table(first.run(_settings()), ProcessedRow), first.files.storage)
    record.write_text("")
    second = Partition(tmp_path / "data", model, range(20), SECOND)
    for path in second.raw["path"].to_pylist():
        second.files.storage.remove(path)
    # Also with other settings, with which they cannot be processed any more.
    for settings in (_settings(), _settings(keep_raw=False, steps=["resize"])):
        rows = second.run(settings)
        assert [(row.outcome, row.reused_from) for row in rows] == [(Outcome.OK, DAY)] * 20
    assert not _counts(record)


@pytest.mark.parametrize("step", ["shard", "collect"])
def test_a_step_with_other_settings_than_the_plan_refuses(
    tmp_path: Path, model: Path, record: Path, step: str
) -> None:
    partition = Partition(tmp_path / "data", model, range(20))
    first, *_ = partition.plan(_settings())
    other = _settings(steps=["resize"])
    run = partial(partition.process_shard, first) if step == "shard" else partition.collect
    with pytest.raises(SettingsError, match="materialize the partition again"):
        run(other)
    assert not _counts(record)
    # What images do not depend on may differ.
    partition.process_shard(first, _settings(9, timeout_s=60, processes=2))
    assert len(_counts(record)) == 6


def test_a_shard_of_another_plan_has_nothing_to_do(
    tmp_path: Path, model: Path, record: Path
) -> None:
    partition = Partition(tmp_path / "data", model, range(20))
    old, *_ = partition.plan(_settings())
    partition.plan(_settings())
    partition.process_shard(old, _settings())
    assert not _counts(record)
    rows = partition.run(_settings())
    partition.process_shard(old, _settings())
    assert _counts(record) == Counter(range(20))
    assert len(rows) == 20


_SHARD = """
import json, sys
from pathlib import Path
from imgassets.imaging.partition import Shard, process_shard
from imgassets.settings import RetailerSettings
from imgassets.storage import Storage
root, date, model, settings, shard = sys.argv[1:]
process_shard(
    Shard(**json.loads(shard)),
    Storage(root).partition(date, "zara"),
    RetailerSettings.model_validate_json(settings),
    Path(model),
    log=print,
)
"""


def test_a_shard_that_was_killed_is_continued(tmp_path: Path, model: Path, record: Path) -> None:
    partition = Partition(tmp_path / "data", model, range(60))
    settings = _settings(30)
    one, two = partition.plan(settings)
    partition.process_shard(one, settings)
    arguments = [partition.files.storage.root, DAY, str(model), settings.model_dump_json()]
    command = [sys.executable, "-c", _SHARD, *arguments, json.dumps(asdict(two))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
        while len(_counts(record)) < 42:
            assert run.poll() is None
            time.sleep(0.005)
        run.kill()
    done = {row["key"] for row in Journal(partition.files, ASSET).rows("shard_0001")}
    assert 5 <= len(done) < 30
    before = _counts(record)
    # As a retry of the step, which reads the same plan.
    partition.process_shard(two, settings)
    rows = partition.collect(settings)
    after = _counts(record)
    finished = {int(key.removeprefix("image-")) for key in done} | set(range(30))
    assert all(after[number] == before[number] for number in finished)
    assert after.keys() == set(range(60))
    assert {row.outcome for row in rows} == {Outcome.OK}


def test_a_new_run_after_a_kill_takes_over_what_the_shards_did(
    tmp_path: Path, model: Path, record: Path
) -> None:
    partition = Partition(tmp_path / "data", model, range(40))
    first, *_ = partition.plan(_settings(10))
    partition.process_shard(first, _settings(10))
    rows = partition.run(_settings(10))
    assert "10 images processed before and kept" in partition.lines
    assert _counts(record) == Counter(range(40))
    assert {row.outcome for row in rows} == {Outcome.OK}


def test_a_failure_in_a_shard_is_a_result_of_this_run_and_tried_again_by_the_next(
    tmp_path: Path, model: Path, record: Path
) -> None:
    partition = Partition(tmp_path / "data", model, range(20))
    storage, path = partition.files.storage, partition.raw["path"][3].as_py()
    data = storage.read(path)
    storage.remove(path)
    rows = partition.run(_settings())
    assert [row.outcome for row in rows].count(Outcome.RAW_MISSING) == 1
    assert _counts(record) == Counter(set(range(20)) - {3})
    storage.write(path, data)
    assert {row.outcome for row in partition.run(_settings())} == {Outcome.OK}
    assert _counts(record) == Counter(range(20))


def test_the_last_step_can_be_repeated_after_it_wrote_the_manifest(
    tmp_path: Path, model: Path, record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = Partition(tmp_path / "data", model, range(20))
    for shard in partition.plan(_settings()):
        partition.process_shard(shard, _settings())

    def fail(_self: Journal) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "remove", fail)
        with pytest.raises(KeyboardInterrupt):
            partition.collect(_settings())
    Journal(partition.files, ASSET).remove()
    rows = partition.collect(_settings())
    assert {row.outcome for row in rows} == {Outcome.OK}
    assert _counts(record) == Counter(range(20))


def test_rows_of_the_journal_without_a_file_are_processed_again(
    tmp_path: Path, model: Path, record: Path
) -> None:
    partition = Partition(tmp_path / "data", model, range(20))
    first, *_ = partition.plan(_settings())
    partition.process_shard(first, _settings())
    (row, *_) = (ProcessedRow(**values) for values in Journal(partition.files, ASSET).rows())
    partition.files.storage.remove(str(row.path))
    rows = partition.run(_settings())
    assert replace(row, url=rows[0].url) in rows
    assert partition.files.storage.sizes([str(row.path)]) == {row.path: row.bytes}
    assert _counts(record).total() == 21


def test_a_manifest_that_breaks_while_it_is_read_counts_as_missing(
    tmp_path: Path, model: Path, record: Path
) -> None:
    first = Partition(tmp_path / "data", model, range(12))
    first.run(_settings())
    # A page of a column that is not needed to find images.
    _damage(first.files, "sha256")
    second = Partition(tmp_path / "data", model, range(12), SECOND)
    record.write_text("")
    rows = second.run(_settings())
    assert {(row.outcome, row.reused_from) for row in rows} == {(Outcome.OK, None)}
    assert _counts(record) == Counter(range(12))


def _damage(files: PartitionFiles, column: str) -> None:
    """Change a byte of a column of the manifest of `processed_images`."""
    path = files.storage.address(files.manifest(ASSET))
    group = pq.ParquetFile(path).metadata.row_group(0)
    chunks = (group.column(number) for number in range(group.num_columns))
    (chunk,) = (chunk for chunk in chunks if chunk.path_in_schema == column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data = bytearray(Path(path).read_bytes())
    data[start + chunk.total_compressed_size - 2] ^= 0xFF
    Path(path).write_bytes(data)
