"""Tests of the processing of partitions: what is processed, kept, reused and tried again."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from imgassets.errors import BrokenFileError, ModelError, StepError, StorageError, WorkerError
from imgassets.imaging import partition as imaging_partition
from imgassets.imaging import worker_pool
from imgassets.imaging.partition import process_partition
from imgassets.imaging.worker_protocol import settings_hash
from imgassets.journal import Journal
from imgassets.launcher import programs
from imgassets.manifests import (
    URL_FIELDS,
    Outcome,
    ProcessedRow,
    RawRow,
    from_table,
    to_table,
)
from imgassets.settings import RetailerSettings, merge_options
from imgassets.storage import PartitionFiles, Storage, raw_path
from imgassets_tests.cpu_quota import with_quota
from imgassets_tests.download.failing_storage import failing_removals, failing_writes, is_manifest
from imgassets_tests.imaging.user_steps import MARK
from imgassets_tests.object_store import ObjectStore

SETTINGS = RetailerSettings()
PNG = RetailerSettings.model_validate({"encode": {"format": "png"}})
ASSET = "processed_images"
WORKERS = 2
DAY, SECOND, THIRD = "2026-01-02", "2026-01-03", "2026-01-04"


class Partition:
    """The raw images of a partition, which can be processed."""

    def __init__(
        self, storage: Storage, model: Path, date: str = DAY, retailer: str = "zara"
    ) -> None:
        self.storage, self.model = storage, model
        self.files = storage.partition(date, retailer)
        self.rows: list[RawRow] = []
        self.lines: list[str] = []

    def add(self, key: str, data: bytes | None, outcome: Outcome = Outcome.OK) -> None:
        path = sha256 = None
        if data is not None:
            sha256 = hashlib.sha256(data).hexdigest()
            path = raw_path(self.files.retailer, sha256, "jpg")
            self.storage.write(path, data)
        self.rows.append(
            RawRow(
                key=key,
                url=f"http://shop/{key}",
                retailer=self.files.retailer,
                date=self.files.date,
                product_id=f"product-{key}",
                position=0,
                document_id="1",
                outcome=outcome,
                path=path,
                bytes=None if data is None else len(data),
                sha256=sha256,
            )
        )

    def on(self, date: str) -> Partition:
        """The partition of another day, which lists the same images under other keys."""
        other = Partition(self.storage, self.model, date, self.files.retailer)
        other.rows = [replace(raw, key=f"{date}-{raw.key}", date=date) for raw in self.rows]
        return other

    def run(
        self, settings: RetailerSettings = SETTINGS, log: Callable[[str], None] | None = None
    ) -> list[ProcessedRow]:
        self.lines.clear()
        settings = RetailerSettings.model_validate(
            merge_options(settings.model_dump(), {"process": {"processes": WORKERS}})
        )
        table = process_partition(
            to_table(self.rows, RawRow),
            self.files,
            settings,
            self.model,
            log=log or self.lines.append,
        )
        return from_table(table, ProcessedRow)

    def manifest(self) -> list[ProcessedRow]:
        return from_table(self.files.read_manifest(ASSET), ProcessedRow)

    @property
    def kept(self) -> int:
        """Number of images that the last run did not process."""
        found = [line for line in self.lines if line.endswith("processed before and kept")]
        assert len(found) <= 1
        return int(found[0].split()[0]) if found else 0

    @property
    def processed(self) -> int:
        """Number of images that the last run processed."""
        found = [line for line in self.lines if line.startswith("processed_images: ")]
        return int(found[-1].split()[1]) - self.kept if found else 0


@pytest.fixture
def empty(tmp_path: Path, model: Path) -> Partition:
    return Partition(Storage(f"{tmp_path}/data"), model)


@pytest.fixture
def filled(empty: Partition, photos: dict[str, bytes]) -> Partition:
    for name, data in photos.items():
        empty.add(name, data)
    return empty


@pytest.fixture
def small(empty: Partition, photos: dict[str, bytes]) -> Partition:
    """A partition of two images."""
    for name in ("cutout_a", "cutout_c"):
        empty.add(name, photos[name])
    return empty


def remove_raw_images(rows: Sequence[ProcessedRow], storage: Storage) -> int:
    return imaging_partition.remove_raw_images(to_table(rows, ProcessedRow), storage)


def _versions(storage: Storage) -> dict[str, tuple[int, int]]:
    """Time and inode of each processed image by path: both change if it is written again."""
    found = {}
    for path in storage.find("images/processed"):
        status = Path(storage.address(path)).stat()
        found[path] = (status.st_mtime_ns, status.st_ino)
    return found


def _assert_stored(storage: Storage, rows: Sequence[ProcessedRow]) -> None:
    """Assert that the files of the rows exist as their rows say."""
    for row in rows:
        assert row.outcome is Outcome.OK
        data = storage.read(str(row.path))
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (row.sha256, row.bytes)


def test_every_raw_row_has_one_row_in_order_and_successful_ones_an_image(filled: Partition) -> None:
    filled.add("not-downloaded", None, Outcome.HTTP_ERROR)
    filled.add("broken", b"\xff\xd8\xff\xe0 no jpeg")
    filled.add("no-image", b"<html>not here</html>")
    filled.add("missing", b"x")
    filled.storage.remove(str(filled.rows[-1].path))
    rows = filled.run()
    assert [row.key for row in rows] == [raw.key for raw in filled.rows]
    for row, raw in zip(rows, filled.rows, strict=True):
        for name in URL_FIELDS:
            assert getattr(row, name) == getattr(raw, name)
        assert (row.raw_path, row.raw_sha256) == (raw.path, raw.sha256)
        assert row.reused_from is None
        assert row.settings_hash == settings_hash(SETTINGS)
    assert filled.manifest() == rows
    outcomes = {row.key: row.outcome for row in rows}
    assert outcomes["not-downloaded"] == Outcome.NO_RAW
    assert outcomes["missing"] == Outcome.RAW_MISSING
    assert outcomes["broken"] == Outcome.CORRUPT
    assert outcomes["no-image"] == Outcome.NOT_AN_IMAGE
    done = rows[:-4]
    _assert_stored(filled.storage, done)
    for row in done:
        sha256, hash_ = str(row.raw_sha256), settings_hash(SETTINGS)
        assert row.path == f"images/processed/zara/{sha256[:2]}/{sha256}-{hash_}.jpg"
    assert filled.storage.find("images/processed").keys() == {row.path for row in done}
    assert [row.path for row in rows[-4:]] == [None] * 4
    assert filled.storage.find("journal") == {}
    assert filled.storage.names(filled.files.journal(ASSET)) == []


def test_the_manifest_records_the_hash_of_the_settings(small: Partition) -> None:
    small.run(PNG)
    metadata = small.files.read_manifest(ASSET).schema.metadata
    assert metadata[b"imgassets.settings_hash"] == settings_hash(PNG).encode()


def test_a_second_run_processes_no_image_again(filled: Partition) -> None:
    first = filled.run()
    versions = _versions(filled.storage)
    assert filled.run() == first
    assert (filled.kept, filled.processed) == (8, 0)
    assert _versions(filled.storage) == versions


def test_only_changed_lost_and_truncated_images_are_processed_again(filled: Partition) -> None:
    first = {row.key: row for row in filled.run()}
    versions = _versions(filled.storage)
    filled.add("astronaut", _marked(20))
    filled.rows[0] = filled.rows.pop()
    filled.storage.remove(str(first["cutout_a"].path))
    truncated = str(first["cutout_c"].path)
    filled.storage.write(truncated, filled.storage.read(truncated)[:-1])
    second = filled.run()
    assert (filled.kept, filled.processed) == (5, 3)
    _assert_stored(filled.storage, second)
    again = {
        row.key
        for row in second
        if _versions(filled.storage)[str(row.path)] not in versions.values()
    }
    assert again == {"astronaut", "cutout_a", "cutout_c"}
    assert second[0].raw_sha256 == filled.rows[0].sha256
    assert second[1:] == [first[row.key] for row in second[1:]]
    # The earlier image of the changed URL stays: other days may list it.
    assert first["astronaut"].path in filled.storage.find("images/processed")


def test_other_settings_make_other_files_and_leave_the_earlier_ones(filled: Partition) -> None:
    first = filled.run()
    versions = _versions(filled.storage)
    second = filled.run(PNG)
    assert filled.kept == 0
    assert all(str(row.path).endswith(".png") for row in second)
    _assert_stored(filled.storage, [*first, *second])
    paths = {row.path for row in [*first, *second]}
    assert filled.storage.find("images/processed").keys() == paths
    assert len(paths) == 16
    assert versions.items() <= _versions(filled.storage).items()
    # Back to the earlier settings: a manifest of other settings does not name those images.
    assert filled.run() == first


def test_rows_with_the_same_bytes_share_one_image_that_is_processed_once(
    small: Partition, photos: dict[str, bytes]
) -> None:
    small.add("other-product", photos["cutout_a"])
    small.add("other-product-2", photos["cutout_a"])
    rows = small.run()
    assert small.processed == 2
    assert [row.key for row in rows] == ["cutout_a", "cutout_c", "other-product", "other-product-2"]
    assert [row.product_id for row in rows] == [raw.product_id for raw in small.rows]
    _assert_stored(small.storage, rows)
    url_values = {name: getattr(rows[0], name) for name in URL_FIELDS}
    assert [replace(row, **url_values) for row in rows[2:]] == [rows[0]] * 2
    assert len(small.storage.find("images/processed")) == 2


def test_rows_without_an_image_share_their_failure(small: Partition) -> None:
    for key in ("broken-1", "broken-2"):
        small.add(key, b"\xff\xd8\xff\xe0 no jpeg")
    rows = small.run()
    assert small.processed == 3
    assert [(row.outcome, row.error) for row in rows[2:]] == [(Outcome.CORRUPT, rows[2].error)] * 2


def test_rows_that_were_taken_down_are_not_processed(
    small: Partition, photos: dict[str, bytes]
) -> None:
    small.add("gone", None, Outcome.REMOVED)
    small.add("gone-with-values", photos["astronaut"], Outcome.REMOVED)
    rows = small.run()
    assert small.processed == 2
    assert [row.outcome for row in rows] == [Outcome.OK, Outcome.OK, *[Outcome.REMOVED] * 2]
    assert [(row.path, row.error, row.sha256) for row in rows[2:]] == [(None, None, None)] * 2
    assert len(small.storage.find("images/processed")) == 2
    # A URL that is listed again without the take-down is processed like any other.
    small.rows[-1] = replace(small.rows[-1], outcome=Outcome.OK)
    assert small.run()[-1].outcome is Outcome.OK


# Other days.


def test_a_second_and_a_third_day_with_the_same_images_process_nothing(filled: Partition) -> None:
    filled.add("broken", b"\xff\xd8\xff\xe0 no jpeg")
    first = filled.run()
    versions = _versions(filled.storage)
    for date in (SECOND, THIRD):
        day = filled.on(date)
        rows = day.run()
        assert (day.kept, day.processed) == (9, 0)
        assert {row.reused_from for row in rows} == {DAY}
        for row, raw, earlier in zip(rows, day.rows, first, strict=True):
            url_values = {name: getattr(raw, name) for name in URL_FIELDS}
            assert row == replace(earlier, **url_values, reused_from=DAY)
        assert day.manifest() == rows
        assert day.run() == rows
    assert _versions(filled.storage) == versions
    assert filled.manifest() == first


def test_a_day_that_is_processed_later_for_an_earlier_date_reuses_as_well(
    small: Partition,
) -> None:
    second = small.on(SECOND)
    second.run()
    rows = small.run()
    assert (small.kept, small.processed) == (2, 0)
    assert [row.reused_from for row in rows] == [SECOND] * 2
    _assert_stored(small.storage, rows)


def test_a_day_of_which_the_manifest_was_lost_finds_its_images_through_another_day(
    small: Partition,
) -> None:
    first = small.run()
    small.on(SECOND).run()
    small.storage.remove(small.files.manifest(ASSET))
    assert small.run() == first  # `reused_from` is this day itself, hence None
    assert small.processed == 0


def test_only_the_new_images_of_a_second_day_are_processed(
    small: Partition, photos: dict[str, bytes]
) -> None:
    small.run()
    second = small.on(SECOND)
    second.add("new", photos["astronaut"])
    rows = second.run()
    assert (second.kept, second.processed) == (2, 1)
    assert [row.reused_from for row in rows] == [DAY, DAY, None]
    third = second.on(THIRD)
    assert [row.reused_from for row in third.run()] == [DAY, DAY, SECOND]
    assert third.processed == 0


def test_a_changed_setting_makes_new_files_and_leaves_the_first_day_untouched(
    small: Partition,
) -> None:
    first = small.run()
    manifest = small.storage.read(small.files.manifest(ASSET))
    versions = _versions(small.storage)
    second = small.on(SECOND)
    rows = second.run(PNG)
    assert (second.kept, second.processed) == (0, 2)
    assert [row.reused_from for row in rows] == [None] * 2
    _assert_stored(small.storage, [*first, *rows])
    assert not {row.path for row in rows} & {row.path for row in first}
    assert small.storage.read(small.files.manifest(ASSET)) == manifest
    assert versions.items() <= _versions(small.storage).items()
    # Each setting has its own images: both are found by a third day.
    third = small.on(THIRD)
    assert {row.reused_from for row in third.run()} == {DAY}
    assert {row.reused_from for row in third.run(PNG)} == {SECOND}


@pytest.mark.parametrize("damage", ["lost", "truncated", "longer"])
def test_a_lost_or_damaged_image_of_another_day_is_processed_again(
    small: Partition, damage: str
) -> None:
    first = small.run()
    path = str(first[0].path)
    whole = small.storage.read(path)
    if damage == "lost":
        small.storage.remove(path)
    else:
        small.storage.write(path, whole[:-1] if damage == "truncated" else whole + b"x")
    second = small.on(SECOND)
    rows = second.run()
    assert (second.kept, second.processed) == (1, 1)
    assert [row.reused_from for row in rows] == [None, DAY]
    assert small.storage.read(path) == whole
    _assert_stored(small.storage, [*first, *rows])


@pytest.mark.parametrize(
    "outcome", [Outcome.FAILED, Outcome.CRASHED, Outcome.TIMEOUT, Outcome.RAW_MISSING]
)
def test_a_failure_of_another_day_that_may_not_recur_is_tried_again(
    small: Partition, outcome: Outcome
) -> None:
    first = small.run()
    failed = replace(first[0], outcome=outcome, path=None, bytes=None, sha256=None, error="once")
    small.files.write_manifest(ASSET, to_table([failed, first[1]], ProcessedRow))
    second = small.on(SECOND)
    rows = second.run()
    assert (second.kept, second.processed) == (1, 1)
    assert [(row.outcome, row.reused_from) for row in rows] == [
        (Outcome.OK, None),
        (Outcome.OK, DAY),
    ]
    assert rows[0].error is None


@pytest.mark.parametrize("too_close", ["skip", "keep"])
def test_an_image_that_was_too_close_on_another_day_is_not_tried_again(
    empty: Partition, photos: dict[str, bytes], too_close: str
) -> None:
    empty.add("portrait_a", photos["portrait_a"])
    faces = {"min_left": 0.65, "too_close": too_close}
    settings = RetailerSettings.model_validate({"faces": faces})
    (first,) = empty.run(settings)
    assert (first.outcome, first.path is None) == (Outcome.TOO_CLOSE, too_close == "skip")
    second = empty.on(SECOND)
    (row,) = second.run(settings)
    assert (second.kept, second.processed) == (1, 0)
    assert (row.outcome, row.path, row.reused_from) == (Outcome.TOO_CLOSE, first.path, DAY)


@pytest.mark.parametrize(
    ("days", "date", "kept"),
    [
        (0, SECOND, 0),
        (1, SECOND, 2),
        (1, THIRD, 0),
        (2, THIRD, 2),
        (1, "2026-01-01", 2),
        (1, "2025-12-31", 0),
        (30, "2026-02-01", 2),
        (30, "2026-02-02", 0),
    ],
)
def test_images_of_days_within_reuse_days_are_reused(
    small: Partition, days: int, date: str, kept: int
) -> None:
    small.run()
    settings = RetailerSettings.model_validate({"download": {"reuse_days": days}})
    other = small.on(date)
    rows = other.run(settings)
    assert (other.kept, other.processed) == (kept, 2 - kept)
    assert {row.reused_from for row in rows} == {DAY if kept else None}
    _assert_stored(small.storage, rows)
    # The day's own images are kept whatever the number of days.
    assert other.run(settings) == rows
    assert (other.kept, other.processed) == (2, 0)


def test_images_of_another_retailer_are_not_reused(
    small: Partition, photos: dict[str, bytes]
) -> None:
    small.run()
    other = Partition(small.storage, small.model, SECOND, "zara-home")
    other.add("a", photos["cutout_a"])
    (row,) = other.run()
    assert (other.kept, other.processed) == (0, 1)
    assert row.reused_from is None
    assert str(row.path).startswith("images/processed/zara-home/")
    _assert_stored(small.storage, [row])


def test_a_broken_manifest_of_another_day_is_ignored(small: Partition) -> None:
    small.run()
    small.on(SECOND).run()
    small.storage.write(small.storage.partition(SECOND, "zara").manifest(ASSET), b"no parquet")
    third = small.on(THIRD)
    assert {row.reused_from for row in third.run()} == {DAY}
    small.storage.write(small.files.manifest(ASSET), b"")
    fourth = small.on("2026-01-01")
    small.storage.remove(third.files.manifest(ASSET))
    rows = fourth.run()
    assert (fourth.kept, fourth.processed) == (0, 2)
    _assert_stored(small.storage, rows)


def test_a_broken_manifest_of_the_partition_itself_is_an_error_and_stays(small: Partition) -> None:
    small.on(SECOND).run()
    path = small.files.manifest(ASSET)
    small.storage.write(path, b"no parquet")
    with pytest.raises(BrokenFileError, match=f"{path} is broken"):
        small.run()
    assert small.storage.read(path) == b"no parquet"


# Removed raw files.


def test_raw_files_are_removed_once_their_images_are_processed(filled: Partition) -> None:
    filled.add("broken", b"not an image")
    rows = filled.run()
    assert remove_raw_images(rows, filled.storage) == 8
    assert [*filled.storage.find("images/raw")] == [filled.rows[-1].path]
    assert filled.run() == rows
    assert filled.processed == 0
    assert [row.raw_path for row in rows] == [raw.path for raw in filled.rows]
    assert remove_raw_images(rows, filled.storage) == 0


def test_a_raw_file_that_several_rows_share_is_removed_once(
    small: Partition, photos: dict[str, bytes]
) -> None:
    small.add("other-product", photos["cutout_a"])
    rows = small.run()
    assert remove_raw_images(rows, small.storage) == 2
    assert small.storage.find("images/raw") == {}


def test_a_second_day_reuses_images_whose_raw_files_are_removed(small: Partition) -> None:
    first = small.run()
    remove_raw_images(first, small.storage)
    second = small.on(SECOND)
    rows = second.run()
    assert (second.kept, second.processed) == (2, 0)
    assert [(row.outcome, row.path, row.reused_from) for row in rows] == [
        (Outcome.OK, row.path, DAY) for row in first
    ]
    assert remove_raw_images(rows, small.storage) == 0


def test_a_raw_file_that_a_second_day_downloaded_again_is_removed_again(
    small: Partition, photos: dict[str, bytes]
) -> None:
    remove_raw_images(small.run(), small.storage)
    second = Partition(small.storage, small.model, SECOND)
    second.add("a", photos["cutout_a"])
    assert remove_raw_images(second.run(), small.storage) == 1
    assert small.storage.find("images/raw") == {}


def test_images_stay_as_they_are_if_their_raw_files_are_removed_and_the_settings_change(
    small: Partition, photos: dict[str, bytes]
) -> None:
    first = small.run()
    remove_raw_images(first, small.storage)
    versions = _versions(small.storage)
    small.add("new", photos["astronaut"])
    rows = small.run(PNG)
    assert rows[:2] == first
    assert {row.settings_hash for row in rows[:2]} == {settings_hash(SETTINGS)}
    assert (rows[2].outcome, rows[2].settings_hash) == (Outcome.OK, settings_hash(PNG))
    _assert_stored(small.storage, rows)
    assert small.run(PNG) == rows
    # On another day too, which does not have them in its own manifest.
    other = small.on(SECOND).run(PNG)
    assert [(row.path, row.reused_from) for row in other] == [(row.path, DAY) for row in rows]
    assert versions.items() <= _versions(small.storage).items()


def test_an_image_is_missing_if_neither_its_raw_file_nor_a_processed_one_is_left(
    small: Partition,
) -> None:
    first = small.run()
    remove_raw_images(first, small.storage)
    small.storage.remove(str(first[0].path))
    for day in (small, small.on(SECOND)):
        rows = day.run()
        assert [row.outcome for row in rows] == [Outcome.RAW_MISSING, Outcome.OK]
        assert rows[0].path is None
        assert "materialize raw_images of the partition again" in str(rows[0].error)


@pytest.mark.parametrize("damage", ["truncated", "empty", "other image"])
def test_a_damaged_raw_file_has_no_result_and_is_processed_once_it_is_repaired(
    small: Partition, photos: dict[str, bytes], damage: str
) -> None:
    path, whole = str(small.rows[0].path), photos["cutout_a"]
    damaged = {"truncated": whole[:-100], "empty": b"", "other image": photos["astronaut"]}
    small.storage.write(path, damaged[damage])
    second = small.on(SECOND)
    for day in (small, second):
        rows = day.run()
        assert [row.outcome for row in rows] == [Outcome.RAW_MISSING, Outcome.OK]
        assert rows[0].path is None
        assert f"{path} is damaged" in str(rows[0].error)
        assert "delete it and materialize raw_images" in str(rows[0].error)
    small.storage.write(path, whole)
    rows = second.run()
    assert [(row.outcome, row.error) for row in rows] == [(Outcome.OK, None)] * 2
    _assert_stored(small.storage, rows)


@pytest.mark.parametrize("other_settings", [SETTINGS, PNG])
@pytest.mark.parametrize("reuse_days", [0, 30])
def test_images_that_another_run_processes_meanwhile_and_removes_are_found(
    small: Partition,
    monkeypatch: pytest.MonkeyPatch,
    other_settings: RetailerSettings,
    reuse_days: int,
) -> None:
    settings = RetailerSettings.model_validate({"download": {"reuse_days": reuse_days}})

    def process_after_the_other(*args: object, **options: object) -> Iterator[ProcessedRow]:
        """Process images after this run has looked for known ones, and another one is complete."""
        monkeypatch.undo()
        remove_raw_images(small.on(SECOND).run(other_settings), small.storage)
        yield from worker_pool.process_all(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("imgassets.imaging.partition.process_all", process_after_the_other)
    rows = small.run(settings)
    assert [(row.outcome, row.reused_from) for row in rows] == [(Outcome.OK, SECOND)] * 2
    _assert_stored(small.storage, rows)
    assert small.manifest() == rows
    assert small.storage.find("journal") == {}


# Runs that are interrupted, killed, or work at the same time.


def _with_step(step: str) -> RetailerSettings:
    steps = [f"imgassets_tests.imaging.user_steps.{step}", "remove_face", "resize", "trim"]
    return RetailerSettings.model_validate({"process": {"steps": steps}})


def _marked(value: int = MARK, side: int = 200) -> bytes:
    """An image that the steps of `user_steps` fail, crash or hang on, if it has that value."""
    pixels = np.full((side, side, 3), (value, 20, 20), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def _numbered(number: int) -> bytes:
    """An image with a number in its pixels, as `user_steps.record_and_wait` records it."""
    pixels = np.full((16, 12, 3), (number % 256, number // 256, 7), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def test_a_run_that_was_interrupted_is_continued(empty: Partition) -> None:
    for number in range(40):
        empty.add(f"{number}", _numbered(number))
    settings = _with_step("sleep_briefly")

    def interrupt_after_the_third() -> None:
        while len(empty.storage.find("images/processed")) < 3:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt_after_the_third)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        empty.run(settings)
    watcher.join()
    assert empty.storage.names("manifests") == []
    done = empty.storage.find("images/processed")
    assert 3 <= len(done) < len(empty.rows)
    rows = empty.run(settings)
    _assert_stored(empty.storage, rows)
    # An image in each of the two workers may be written without its row being journaled.
    assert len(done) - 2 <= empty.kept <= len(done)
    assert empty.kept + empty.processed == 40


KILLS = 20
IMAGES = 500
_QUICK_STEPS = ["imgassets_tests.imaging.user_steps.record_and_wait", "resize"]


def _start(partition: Partition, *, keep_raw: bool = True) -> subprocess.Popen[bytes]:
    process = {"steps": _QUICK_STEPS, "keep_raw": keep_raw, "processes": WORKERS}
    return subprocess.Popen(
        _command(partition, process), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _command(partition: Partition, process: Mapping[str, Any]) -> list[str]:
    """A command that processes a partition with such settings of the section `process`."""
    arguments = [partition.storage.root, partition.files.date, str(partition.model)]
    program = [sys.executable, "-m", "imgassets_tests.imaging.run_partition"]
    return [*program, *arguments, json.dumps({"process": process})]


def _wait_for_images(run: subprocess.Popen[bytes], record: Path, count: int) -> None:
    """Wait until runs have begun with so many images, which `record_and_wait` records."""
    while len(record.read_text().split()) < count:
        assert run.poll() is None
        time.sleep(0.005)


def _complete(run: subprocess.Popen[bytes]) -> None:
    _, errors = run.communicate(timeout=120)
    assert (run.returncode, errors) == (0, b"")


def _numbered_partition(root: Path, model: Path, numbers: Sequence[int], date: str) -> Partition:
    partition = Partition(Storage(str(root)), model, date)
    for number in numbers:
        partition.add(f"{number}", _numbered(number))
    partition.files.write_manifest("raw_images", to_table(partition.rows, RawRow))
    return partition


@pytest.mark.parametrize(("processes", "expected"), [(None, 1), (3, 3)])
def test_a_cpu_quota_limits_the_worker_processes_unless_the_settings_give_their_number(
    tmp_path: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    processes: int | None,
    expected: int,
) -> None:
    record = tmp_path / "record.txt"
    monkeypatch.setenv("IMGASSETS_TEST_RECORD", str(record))
    # Enough images for two processes, on a machine with two cores.
    partition = _numbered_partition(tmp_path / "data", model, range(50), DAY)
    steps = ["imgassets_tests.imaging.user_steps.record_process"]
    command = _command(partition, {"steps": steps, "processes": processes})
    subprocess.run(with_quota("100000 100000", command), check=True, timeout=120)
    assert [row.outcome for row in partition.manifest()] == [Outcome.OK] * 50
    assert len(set(record.read_text().split())) == expected


def _journal(files: PartitionFiles) -> dict[int, ProcessedRow]:
    """Rows in the journal by the number in the image."""
    rows = (ProcessedRow(**values) for values in Journal(files, ASSET).rows())
    return {int(row.key): row for row in rows}


@pytest.mark.slow
def test_a_run_killed_at_20_random_moments_repeats_only_what_was_in_flight(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "record.txt"
    record.touch()
    monkeypatch.setenv("IMGASSETS_TEST_RECORD", str(record))
    partition = _numbered_partition(tmp_path / "data", model, range(IMAGES), DAY)
    files, storage = partition.files, partition.storage
    rng = random.Random(0)
    counts: Counter[int] = Counter()
    kept: dict[int, tuple[int, tuple[int, int]]] = {}
    kills_with_work = 0
    for kill in range(KILLS):
        run = _start(partition)
        if kill % 5:
            _wait_for_images(run, record, counts.total() + rng.randint(1, 30))
            time.sleep(rng.uniform(0, 0.02))  # any moment of an image
        else:
            time.sleep(rng.uniform(0, 0.3))  # any moment of the start
        run.kill()
        # Its workers have the same standard error, and end without output.
        assert run.communicate(timeout=20)[1] == b""
        assert storage.names("manifests/processed_images") == []
        counts = Counter(map(int, record.read_text().split()))
        versions = _versions(storage)
        journal = _journal(files)
        _assert_stored(storage, [*journal.values()])
        kills_with_work += len(journal) > len(kept)
        for number, row in journal.items():
            once = (counts[number], versions[str(row.path)])
            assert kept.setdefault(number, once) == once
    assert kills_with_work >= 10
    assert 100 < len(kept) < IMAGES  # otherwise the test proves nothing
    _complete(_start(partition))
    counts = Counter(map(int, record.read_text().split()))
    assert {number: counts[number] for number in kept} == {n: kept[n][0] for n in kept}
    assert counts.keys() == set(range(IMAGES))
    assert counts.total() - IMAGES <= KILLS * WORKERS * worker_pool._MAX_ASSIGNED
    assert storage.find("journal").keys() == storage.find("journal/temporary").keys()

    undisturbed = _numbered_partition(tmp_path / "undisturbed", model, range(IMAGES), DAY)
    _complete(_start(undisturbed))
    assert partition.manifest() == undisturbed.manifest()
    paths = storage.find("images").keys()
    assert paths == undisturbed.storage.find("images").keys()
    assert all(storage.read(path) == undisturbed.storage.read(path) for path in paths)


@pytest.mark.slow
@pytest.mark.parametrize("keep_raw", [True, False])
def test_two_days_of_one_retailer_can_be_processed_at_the_same_time(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, *, keep_raw: bool
) -> None:
    record = tmp_path / "record.txt"
    record.touch()
    monkeypatch.setenv("IMGASSETS_TEST_RECORD", str(record))
    # The first day is done while the second one has images of it still to process.
    first = _numbered_partition(tmp_path / "data", model, range(60), DAY)
    second = _numbered_partition(tmp_path / "data", model, [*range(100, 220), *range(60)], SECOND)
    run_of_first, run_of_second = (_start(day, keep_raw=keep_raw) for day in (first, second))
    while sum(int(number) >= 100 for number in record.read_text().split()) < 60:
        assert run_of_second.poll() is None
        time.sleep(0.005)
    # However slow the first day is, the second one comes to the shared images after it.
    run_of_second.send_signal(signal.SIGSTOP)
    _complete(run_of_first)
    run_of_second.send_signal(signal.SIGCONT)
    _complete(run_of_second)
    for day in (first, second):
        rows = day.manifest()
        assert [row.key for row in rows] == [raw.key for raw in day.rows]
        _assert_stored(day.storage, rows)
    shared = {row.key: row for row in first.manifest()}
    for row in second.manifest()[120:]:
        assert (row.path, row.sha256) == (shared[row.key].path, shared[row.key].sha256)
    assert len(first.storage.find("images/processed")) == 180
    assert len(first.storage.find("images/raw")) == (180 if keep_raw else 0)
    assert first.storage.find("journal") == {}
    counts = Counter(map(int, record.read_text().split()))
    assert counts.keys() == {*range(60), *range(100, 220)}
    if not keep_raw:
        # Otherwise the test proves nothing: the second day found images of the first.
        assert any(row.reused_from == DAY for row in second.manifest())


def test_a_partition_in_s3_is_processed_and_reused(
    s3: str, model: Path, photos: dict[str, bytes]
) -> None:
    partition = Partition(Storage(f"s3://{s3}/data"), model)
    for name in ("cutout_a", "cutout_c"):
        partition.add(name, photos[name])
    with failing_writes(is_manifest):
        partition.run()
    assert partition.storage.find("journal")
    rows = partition.run()
    assert (partition.kept, partition.processed) == (2, 0)
    _assert_stored(partition.storage, rows)
    assert partition.storage.find("journal") == {}
    remove_raw_images(rows, partition.storage)
    second = partition.on(SECOND)
    assert {row.reused_from for row in second.run()} == {DAY}
    assert (second.kept, second.processed) == (2, 0)
    assert partition.storage.find("images").keys() == {row.path for row in rows}


def test_a_failed_write_of_the_manifest_loses_no_work_and_no_image(small: Partition) -> None:
    first = small.run()
    with failing_writes(is_manifest):
        small.run(PNG)
    # The manifest still lists the earlier images, and they still exist.
    assert small.manifest() == first
    _assert_stored(small.storage, first)
    assert len(small.storage.find("images/processed")) == 4
    rows = small.run(PNG)
    assert small.lines == ["2 images processed before and kept"]
    _assert_stored(small.storage, rows)
    assert small.manifest() == rows


def test_a_run_killed_while_it_removes_its_journal_loses_no_image(
    small: Partition, photos: dict[str, bytes]
) -> None:
    missing = str(small.rows[1].path)
    small.storage.remove(missing)
    with failing_writes(is_manifest):
        small.run()  # the journal says that the raw file is missing
    small.storage.write(missing, photos["cutout_c"])
    with failing_removals(1, newest_first=True):
        small.run()
    rows = small.manifest()
    _assert_stored(small.storage, rows)
    remove_raw_images(rows, small.storage)
    assert small.run() == rows
    assert len(small.storage.find("images/processed")) == 2
    assert small.storage.find("journal") == {}


# Failures of images and of workers.


def test_a_failing_image_does_not_stop_others_and_is_retried_by_the_next_run(
    filled: Partition,
) -> None:
    filled.add("marked", _marked())
    rows = filled.run(_with_step("fail_on_marked"))
    assert rows[-1].outcome == Outcome.FAILED
    assert rows[-1].error == "ZeroDivisionError: a bug"
    assert any("Traceback" in line and "marked" in line for line in filled.lines)
    assert all(row.outcome == Outcome.OK for row in rows[:-1])
    filled.run(_with_step("fail_on_marked"))
    assert filled.kept == 8
    assert filled.lines[-1].startswith("processed_images: 9 of 9 done, 1 failed; ")


def test_images_that_crash_the_process_do_not_affect_others(filled: Partition) -> None:
    for number in (0, 5, 10):
        filled.add(f"poison-{number}", _marked(side=200 + number))
        filled.rows.insert(number, filled.rows.pop())
    rows = filled.run(_with_step("crash_on_marked"))
    assert [row.key for row in rows] == [raw.key for raw in filled.rows]
    crashed = {row.key for row in rows if row.outcome == Outcome.CRASHED}
    assert crashed == {"poison-0", "poison-5", "poison-10"}
    _assert_stored(filled.storage, [row for row in rows if row.key not in crashed])
    assert str(rows[0].error) == "the imaging process was killed by SIGSEGV on this image"
    assert filled.manifest() == rows


def test_with_a_slow_object_store_the_image_that_crashes_is_found(
    s3: str, s3_server: ObjectStore, model: Path, photos: dict[str, bytes]
) -> None:
    partition = Partition(Storage(f"s3://{s3}/data"), model)
    for number, (name, data) in enumerate(photos.items()):
        partition.add(name, data)
        if number % 3 == 0:
            partition.add(f"poison-{number}", _marked(side=200 + number))
    s3_server.delay_s = 0.3  # images are read ahead and written while others are processed
    rows = partition.run(_with_step("crash_on_marked"))
    s3_server.delay_s = 0
    poison = {raw.key for raw in partition.rows if raw.key.startswith("poison")}
    assert {row.key for row in rows if row.outcome is Outcome.CRASHED} == poison
    _assert_stored(partition.storage, [row for row in rows if row.key not in poison])
    # No other image was suspected.
    suspects = [line for line in partition.lines if "was killed by SIGSEGV on" in line]
    assert {line.split(" on ")[1].split()[0] for line in suspects} == poison
    assert partition.manifest() == rows


@pytest.mark.slow
def test_an_object_store_that_is_away_changes_no_row(
    s3: str, s3_server: ObjectStore, model: Path, photos: dict[str, bytes]
) -> None:
    partition = Partition(Storage(f"s3://{s3}/data"), model)
    for name, data in photos.items():
        partition.add(name, data)
    s3_server.requests.clear()

    def be_away() -> None:
        while ("images/processed", "PUT") not in s3_server.counts():
            time.sleep(0.01)
        s3_server.refusals = math.inf
        time.sleep(10)
        s3_server.refusals = 0

    away = threading.Thread(target=be_away)
    away.start()
    # Waiting for the object store does not count as time for an image.
    rows = partition.run(_with_timeout("sleep_briefly", 6))
    away.join()
    _assert_stored(partition.storage, rows)
    assert {row.outcome for row in rows} == {Outcome.OK}
    assert partition.manifest() == rows
    assert not [line for line in partition.lines if "imaging process" in line]


def test_a_crash_that_does_not_recur_loses_no_image(
    filled: Partition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGASSETS_TEST_CRASHED", str(tmp_path / "crashed"))
    filled.add("marked", _marked())
    filled.rows.insert(2, filled.rows.pop())
    rows = filled.run(_with_step("crash_once"))
    assert (tmp_path / "crashed").exists()
    _assert_stored(filled.storage, rows)
    assert any("was killed by SIGABRT on marked" in line for line in filled.lines)


def _with_timeout(step: str, seconds: float) -> RetailerSettings:
    return RetailerSettings.model_validate(
        merge_options(_with_step(step).model_dump(), {"process": {"timeout_s": seconds}})
    )


@pytest.mark.slow
def test_an_image_that_hangs_times_out_and_does_not_stop_others(
    filled: Partition,
) -> None:
    filled.add("hangs", _marked())
    filled.rows.insert(0, filled.rows.pop())
    # The rows assigned to a process are together longer than its pipe.
    filled.rows = [replace(row, url=f"{row.url}?{'x' * 20_000}") for row in filled.rows]
    rows = filled.run(_with_timeout("hang_on_marked", 4))
    assert [row.outcome for row in rows] == [Outcome.TIMEOUT] + [Outcome.OK] * (len(rows) - 1)
    assert rows[0].error == (
        "the imaging process took longer than 4 s (process.timeout_s) on this image"
    )
    assert rows[0].path is None
    assert filled.manifest() == rows
    # The next run retries it; another time limit does not process other images again.
    again = filled.run(_with_timeout("hang_on_marked", 5))
    assert filled.kept == len(rows) - 1
    assert again[0].outcome is Outcome.TIMEOUT
    assert again[1:] == rows[1:]


@pytest.mark.slow
def test_a_hang_that_does_not_recur_loses_no_image(
    filled: Partition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGASSETS_TEST_HUNG", str(tmp_path / "hung"))
    filled.add("marked", _marked())
    rows = filled.run(_with_timeout("hang_once", 4))
    assert (tmp_path / "hung").exists()
    _assert_stored(filled.storage, rows)
    assert any(
        "took longer than 4 s (process.timeout_s) on marked" in line for line in filled.lines
    )


def test_the_run_fails_if_no_worker_can_start(
    filled: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(WorkerError, match="exited with status 1 before it started on an image"):
        filled.run()


def test_a_worker_that_cannot_start_does_not_stop_the_others(
    filled: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreters = iter(["/bin/false"])

    def start(module: str) -> programs.Program:
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", next(interpreters, sys.executable))
            return programs.start(module)

    monkeypatch.setattr(worker_pool, "start", start)
    rows = filled.run()
    _assert_stored(filled.storage, rows)
    assert (
        "an imaging process exited with status 1 before it started on an image; 1 left"
        in filled.lines
    )


def test_a_step_that_cannot_be_imported_stops_the_run_before_any_image(filled: Partition) -> None:
    with pytest.raises(StepError, match="not_there cannot be imported"):
        filled.run(_with_step("not_there"))


def test_storage_that_cannot_be_written_stops_the_run_with_one_error(filled: Partition) -> None:
    filled.storage.write("images/processed", b"a file where the folder should be")
    with pytest.raises(StorageError, match=r"cannot write .*images/processed/.*Not a directory"):
        filled.run()
    assert filled.storage.names("manifests") == []


def test_finished_work_is_kept_if_storage_fails_during_the_run(filled: Partition) -> None:
    rows = filled.run()
    in_the_way = Path(filled.storage.address(str(rows[-1].path)))
    in_the_way.unlink()
    # A folder with the name of the image cannot be replaced by a file.
    (in_the_way / "in the way").mkdir(parents=True)
    before = filled.manifest()
    with pytest.raises(StorageError, match=r"cannot write .*finished work is kept"):
        filled.run()
    assert filled.manifest() == before


def test_a_file_that_is_not_a_model_stops_the_run_before_any_image(
    filled: Partition, tmp_path: Path
) -> None:
    filled.model = tmp_path / "broken.onnx"
    filled.model.write_bytes(b"not a model")
    with pytest.raises(ModelError, match="cannot be loaded"):
        filled.run()
    assert filled.storage.find("images/processed") == {}


def test_the_last_progress_line_counts_all_images(filled: Partition) -> None:
    filled.run()
    assert filled.lines[-1].startswith("processed_images: 8 of 8 done, 0 failed; ")


def test_a_partition_without_rows_gets_an_empty_manifest(empty: Partition) -> None:
    assert empty.run() == []
    assert empty.manifest() == []
