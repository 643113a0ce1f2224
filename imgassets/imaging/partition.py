"""All pictures of a partition: threads, storage, and continuing where a run stopped.

Here lives how the work is spread and kept. What is done to one picture is in `pipeline`.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import cv2

from imgassets.imaging.encode import suffix
from imgassets.imaging.faces import FaceDetector, load_detector
from imgassets.imaging.pipeline import process_picture, settings_hash
from imgassets.manifests import Outcome, ProcessedRow, RawRow, from_table, to_table
from imgassets.settings import RetailerSettings
from imgassets.storage import IMAGES, Folder, read_table, write_table

JOURNAL = "_journal"
_EVERY_S = 5.0  # a killed run loses at most this much work; a person sees a line this often
_POLL_S = 0.2  # how soon a cancelled run notices


class Cancelled(Exception):  # noqa: N818  (a person's wish, not a fault)
    """The run was cancelled; what was done is kept."""


@dataclass(frozen=True)
class _Task:
    row: RawRow
    raw_folder: Folder
    folder: Folder
    settings: RetailerSettings
    hash: str


def process_partition(
    raw_rows: Sequence[RawRow],
    raw_folder: Folder,
    folder: Folder,
    settings: RetailerSettings,
    model: Path,
    *,
    threads: int | None = None,
    log: Callable[[str], None],
    cancelled: threading.Event,
) -> list[ProcessedRow]:
    """Make the pictures and the manifest of a partition of `processed_images`.

    Pictures that an earlier run made of the same raw bytes with the same settings are kept, also
    where that run was killed before it wrote its manifest.

    Args:
        raw_rows: the manifest of `raw_images`.
        raw_folder: that its paths are relative to.
        folder: where the manifest is written, and the pictures in `images/<key>.<suffix>`.
        settings: of the retailer.
        model: the detector's file.
        threads: pictures worked on at the same time; as many as cores if none.
        log: takes a line for a person, every few seconds.
        cancelled: once set, the work stops.

    Returns:
        One row a raw row, in their order; so is the manifest.

    Raises:
        Cancelled: `cancelled` was set.
        ModelError: the model cannot be loaded.
        StorageError: storage cannot be read or written.
    """
    threads = threads or _cores()
    hash_ = settings_hash(settings)
    folder.remove_temporaries()
    (folder / IMAGES).remove_temporaries()
    journal = _Journal(folder)
    earlier = {row.key: row for row in _manifest(folder)}
    earlier.update((row.key, row) for row in journal.rows())
    there = (folder / IMAGES).sizes()

    rows: dict[str, ProcessedRow] = {}
    tasks: list[_Task] = []
    for raw in raw_rows:
        known = earlier.get(raw.key)
        if raw.outcome != Outcome.OK:
            rows[raw.key] = _row(raw, hash_, Outcome.NO_RAW, f"raw_images: {raw.outcome}")
        elif known is not None and _still_holds(known, raw, hash_, there):
            rows[raw.key] = replace(known, url=raw.url, product_id=raw.product_id)
        else:
            tasks.append(_Task(raw, raw_folder, folder, settings, hash_))
    if kept := sum(row.outcome != Outcome.NO_RAW for row in rows.values()):
        log(f"{kept} pictures are kept from an earlier run")

    if tasks:
        load_detector(model, settings.faces)  # fails here, and once, if it does
        with _one_opencv_thread(), _Progress(len(tasks), log) as progress:
            for row in _worked_on(
                tasks, model=model, threads=threads, log=log, cancelled=cancelled, journal=journal
            ):
                rows[row.key] = row
                journal.add(row)
                progress.add(row)

    ordered = [rows[raw.key] for raw in raw_rows]
    write_table(folder, to_table(ordered, ProcessedRow))
    journal.remove()
    _remove_unnamed(folder, ordered)
    return ordered


def _cores() -> int:
    """Cores that this process may use; a container's share is often less than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _still_holds(known: ProcessedRow, raw: RawRow, hash_: str, there: dict[str, int]) -> bool:
    return (
        known.raw_sha256 == raw.sha256
        and known.settings_hash == hash_
        and known.outcome not in (Outcome.FAILED, Outcome.RAW_MISSING, Outcome.NO_RAW)
        and (known.path is None or known.path.removeprefix(f"{IMAGES}/") in there)
    )


def _worked_on(
    tasks: Sequence[_Task],
    *,
    model: Path,
    threads: int,
    log: Callable[[str], None],
    cancelled: threading.Event,
    journal: _Journal,
) -> Iterator[ProcessedRow]:
    """The rows as they are done; what is under way is bounded, so that memory is."""
    local = threading.local()

    def work(task: _Task) -> ProcessedRow:
        if not hasattr(local, "detector"):
            local.detector = load_detector(model, task.settings.faces)
        return _processed(task, local.detector, log)

    waiting = iter(tasks)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="imaging")
    under_way: set[Future[ProcessedRow]] = set()
    try:
        while True:
            under_way |= {
                pool.submit(work, task) for task in islice(waiting, 2 * threads - len(under_way))
            }
            if not under_way:
                return
            done, _ = wait(under_way, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
                under_way.remove(future)
            if cancelled.is_set():
                raise Cancelled("the run was cancelled; what was done is kept")
            journal.flush_if_due()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for future in under_way:
            if future.done() and not future.cancelled() and future.exception() is None:
                journal.add(future.result())
        journal.flush()


def _processed(task: _Task, detector: FaceDetector, log: Callable[[str], None]) -> ProcessedRow:
    raw = task.row
    try:
        data = task.raw_folder.read(str(raw.path))
    except FileNotFoundError:
        error = f"{raw.path} is gone; materialize raw_images of the partition again"
        return _row(raw, task.hash, Outcome.RAW_MISSING, error)
    try:
        file, record = process_picture(data, task.settings, detector)
    except Exception as error:  # noqa: BLE001  (one picture's failure never stops the others)
        log(f"{raw.key} ({raw.url}) failed:\n{traceback.format_exc()}")
        return _row(raw, task.hash, Outcome.FAILED, f"{type(error).__name__}: {error}")
    made: dict[str, str | None] = {"path": None, "sha256": None}
    if file is not None:
        name = f"{raw.key}.{suffix(file)}"
        (task.folder / IMAGES).write(name, file)
        made = {"path": f"{IMAGES}/{name}", "sha256": hashlib.sha256(file).hexdigest()}
    return ProcessedRow(
        key=raw.key,
        url=raw.url,
        product_id=raw.product_id,
        raw_sha256=raw.sha256,
        settings_hash=task.hash,
        path=made["path"],
        sha256=made["sha256"],
        **asdict(record),
    )


def _row(raw: RawRow, hash_: str, outcome: Outcome, error: str) -> ProcessedRow:
    return ProcessedRow(
        key=raw.key,
        url=raw.url,
        product_id=raw.product_id,
        raw_sha256=raw.sha256,
        outcome=outcome,
        error=error,
        settings_hash=hash_,
    )


def _manifest(folder: Folder) -> list[ProcessedRow]:
    try:
        return from_table(read_table(folder), ProcessedRow)
    except FileNotFoundError:
        return []


def _remove_unnamed(folder: Folder, rows: Sequence[ProcessedRow]) -> None:
    """Pictures that the manifest no longer names: of another format, or of URLs that are gone."""
    named = {str(row.path).removeprefix(f"{IMAGES}/") for row in rows}
    for name in (folder / IMAGES).sizes().keys() - named:
        (folder / IMAGES).remove(name)


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """Our threads are the parallel ones: OpenCV's own would only compete with them."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


class _Journal:
    """Rows that are done, kept as they come, so that a killed run loses seconds."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder / JOURNAL
        self._folder.remove_temporaries()
        self._parts = sorted(self._folder.sizes())
        self._pending: list[ProcessedRow] = []
        self._flushed = time.monotonic()

    def rows(self) -> Iterator[ProcessedRow]:
        for name in self._parts:
            yield from from_table(read_table(self._folder, name), ProcessedRow)

    def add(self, row: ProcessedRow) -> None:
        self._pending.append(row)

    def flush_if_due(self) -> None:
        if time.monotonic() - self._flushed >= _EVERY_S:
            self.flush()

    def flush(self) -> None:
        self._flushed = time.monotonic()
        if self._pending:
            name = f"{len(self._parts):06d}.parquet"
            write_table(self._folder, to_table(self._pending, ProcessedRow), name)
            self._parts.append(name)
            self._pending = []

    def remove(self) -> None:
        for name in self._folder.sizes():
            self._folder.remove(name)


class _Progress:
    """A line every few seconds: done, failed, rate, time left."""

    def __init__(self, total: int, log: Callable[[str], None]) -> None:
        self._total, self._log = total, log
        self._done = self._failed = 0
        self._start = self._said = time.monotonic()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._say()

    def add(self, row: ProcessedRow) -> None:
        self._done += 1
        self._failed += row.outcome != Outcome.OK
        if time.monotonic() - self._said >= _EVERY_S:
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        rate = self._done / max(self._said - self._start, 1e-9)
        left = (self._total - self._done) / rate if rate else float("inf")
        self._log(
            f"{self._done} of {self._total} pictures processed, {self._failed} without a result, "
            f"{rate:.1f} a second, {left:.0f} s left"
        )
