"""Process all images of a partition, and continue runs that were interrupted.

This module keeps the manifest, the journal and the progress. The worker processes are in
`worker_pool` and `worker`, the steps for one image in `pipeline`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from imgassets.cores import available_cores
from imgassets.imaging.worker_pool import process_all
from imgassets.imaging.worker_protocol import WorkerSetup, row_without_image, settings_hash
from imgassets.manifests import Outcome, ProcessedRow, RawRow, from_table, to_table
from imgassets.progress import Progress
from imgassets.settings import RetailerSettings
from imgassets.storage import IMAGES, Folder, image_name, mark_removed, read_table, write_table

JOURNAL = "_journal"
_RETRIED_OUTCOMES = (
    Outcome.FAILED,
    Outcome.CRASHED,
    Outcome.TIMEOUT,
    Outcome.RAW_MISSING,
    Outcome.NO_RAW,
)
_MIN_IMAGES_PER_PROCESS = 40  # they take as long as starting a process
_FLUSH_INTERVAL_S = 5.0  # a killed run loses at most this much work


def process_partition(
    raw_rows: Sequence[RawRow],
    raw_folder: Folder,
    folder: Folder,
    settings: RetailerSettings,
    model: Path,
    *,
    processes: int | None = None,
    log: Callable[[str], None],
) -> list[ProcessedRow]:
    """Process the images of a partition, and write its manifest of `processed_images`.

    Images that an earlier run processed from the same raw bytes with the same settings are kept,
    even if that run was killed before it wrote its manifest.

    Args:
        raw_rows: Rows of the manifest of `raw_images`.
        raw_folder: Folder that the paths in these rows are relative to.
        folder: Folder that the manifest and the images (`images/<key>.<extension>`) are written to.
        settings: Settings of the retailer.
        model: File of the face detector.
        processes: Number of worker processes. None: the number of cores, but not more than the
            number of images justifies.
        log: Function that logs a line; called every few seconds.

    Returns:
        One row per raw row, in the same order, as in the manifest.

    Raises:
        ModelError: The model cannot be loaded.
        StepError: A user's step cannot be imported.
        StorageError: Storage cannot be read or written.
        WorkerError: No worker process can be started.
    """
    hash_ = settings_hash(settings)
    folder.remove_temporaries()
    (folder / IMAGES).remove_temporaries()
    journal = _Journal(folder)
    earlier = {row.key: row for row in _read_manifest(folder)}
    earlier.update((row.key, row) for row in journal.rows())
    stored = (folder / IMAGES).sizes()

    rows, tasks = _split_tasks(raw_rows, earlier, stored, hash_)
    if kept := sum(row.outcome != Outcome.NO_RAW for row in rows.values()):
        log(f"{kept} images kept from an earlier run")

    if tasks:
        setup = WorkerSetup(raw_folder, folder, settings, hash_, model)
        processes = processes or min(available_cores(), -(-len(tasks) // _MIN_IMAGES_PER_PROCESS))
        progress = Progress("processed_images", len(raw_rows), log, already_done=len(rows))
        rows |= _process_tasks(
            tasks,
            setup,
            processes,
            journal=journal,
            progress=progress,
            log=log,
            row_to_keep=lambda row: _earlier_if_raw_missing(row, earlier.get(row.key), stored),
        )

    ordered = [rows[raw.key] for raw in raw_rows]
    write_table(folder, to_table(ordered, ProcessedRow))
    journal.remove()
    _remove_unreferenced(folder, ordered)
    return ordered


def _split_tasks(
    raw_rows: Sequence[RawRow],
    earlier: Mapping[str, ProcessedRow],
    stored: Mapping[str, int],
    hash_: str,
) -> tuple[dict[str, ProcessedRow], list[RawRow]]:
    """Separate images with a known result from images to process.

    Args:
        raw_rows: Rows of the manifest of `raw_images`.
        earlier: Rows of earlier runs by key.
        stored: Sizes of the stored images by name, in bytes.
        hash_: Hash of the settings.

    Returns:
        The known rows by key, and the raw rows of the images to process.
    """
    rows: dict[str, ProcessedRow] = {}
    tasks: list[RawRow] = []
    for raw in raw_rows:
        earlier_row = earlier.get(raw.key)
        if raw.outcome != Outcome.OK:
            rows[raw.key] = row_without_image(
                raw, hash_, Outcome.NO_RAW, f"raw_images: {raw.outcome}"
            )
        elif earlier_row is not None and _is_current(earlier_row, raw, hash_, stored):
            rows[raw.key] = replace(earlier_row, url=raw.url, product_id=raw.product_id)
        else:
            tasks.append(raw)
    return rows, tasks


def _process_tasks(
    tasks: Sequence[RawRow],
    setup: WorkerSetup,
    processes: int,
    *,
    journal: _Journal,
    progress: Progress,
    log: Callable[[str], None],
    row_to_keep: Callable[[ProcessedRow], ProcessedRow],
) -> dict[str, ProcessedRow]:
    """Process images, and record their rows in the journal and in the progress.

    Args:
        tasks: Rows of the images to process.
        setup: Folders, settings and model.
        processes: Number of worker processes.
        journal: Receives the rows that are kept.
        progress: Receives the new rows.
        log: Function that logs a line.
        row_to_keep: Function that returns the row to keep for a new row: itself or an earlier one.

    Returns:
        The rows that are kept, by key.
    """
    rows: dict[str, ProcessedRow] = {}
    try:
        for row in process_all(tasks, setup, processes, log=log, idle=journal.flush_if_due):
            rows[row.key] = row_to_keep(row)
            journal.add(rows[row.key])
            progress.add([row], row.bytes or 0)
            progress.log_if_due()
    finally:
        journal.flush()
        progress.log()
    return rows


def _is_current(earlier: ProcessedRow, raw: RawRow, hash_: str, stored: Mapping[str, int]) -> bool:
    """Whether an earlier row still applies: same raw bytes and settings, and its file is there."""
    return (
        earlier.raw_sha256 == raw.sha256
        and earlier.settings_hash == hash_
        and earlier.outcome not in _RETRIED_OUTCOMES
        and (earlier.path is None or image_name(earlier.path) in stored)
    )


def _earlier_if_raw_missing(
    row: ProcessedRow, earlier: ProcessedRow | None, stored: Mapping[str, int]
) -> ProcessedRow:
    """Keep an image despite changed settings if its raw file was removed (`keep_raw: false`)."""
    if (
        row.outcome == Outcome.RAW_MISSING
        and earlier is not None
        and earlier.path is not None
        and earlier.raw_sha256 == row.raw_sha256
        and image_name(earlier.path) in stored
    ):
        return earlier
    return row


def remove_raw_images(
    rows: Sequence[ProcessedRow], raw_rows: Sequence[RawRow], raw_folder: Folder
) -> int:
    """Remove the raw files whose images are processed, for `process.keep_raw: false`.

    Call it last, because contact sheets show raw images. The rows of `raw_images` keep their paths;
    the names of the removed files are stored in a list beside them.

    Args:
        rows: Rows of the manifest of `processed_images`, which must be written already.
        raw_rows: Rows of the manifest of `raw_images`.
        raw_folder: Folder that the paths of `raw_rows` are relative to.

    Returns:
        The number of removed files.

    Raises:
        StorageError: The storage cannot be read or written.
    """
    processed = {row.key for row in rows if row.outcome == Outcome.OK and row.path is not None}
    images = raw_folder / IMAGES
    names = {
        image_name(raw.path) for raw in raw_rows if raw.key in processed and raw.path is not None
    }
    names &= images.sizes().keys()
    mark_removed(raw_folder, names)
    for name in names:
        images.remove(name)
    return len(names)


def _read_manifest(folder: Folder) -> list[ProcessedRow]:
    try:
        return from_table(read_table(folder), ProcessedRow)
    except FileNotFoundError:
        return []


def _remove_unreferenced(folder: Folder, rows: Sequence[ProcessedRow]) -> None:
    """Remove images without a row: of an earlier format, or of URLs that are no longer listed."""
    referenced = {image_name(str(row.path)) for row in rows}
    for name in (folder / IMAGES).sizes().keys() - referenced:
        (folder / IMAGES).remove(name)


class _Journal:
    """Finished rows of a running partition, stored so that a killed run loses only seconds."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder / JOURNAL
        self._folder.remove_temporaries()
        self._parts = sorted(self._folder.sizes())
        self._pending: list[ProcessedRow] = []
        self._flushed_at = time.monotonic()

    def rows(self) -> Iterator[ProcessedRow]:
        for name in self._parts:
            yield from from_table(read_table(self._folder, name), ProcessedRow)

    def add(self, row: ProcessedRow) -> None:
        self._pending.append(row)

    def flush_if_due(self) -> None:
        if time.monotonic() - self._flushed_at >= _FLUSH_INTERVAL_S:
            self.flush()

    def flush(self) -> None:
        self._flushed_at = time.monotonic()
        if self._pending:
            name = f"{len(self._parts):06d}.parquet"
            write_table(self._folder, to_table(self._pending, ProcessedRow), name)
            self._parts.append(name)
            self._pending = []

    def remove(self) -> None:
        # Oldest part first: an interruption must not leave an old row without the newer one.
        for name in sorted(self._folder.sizes()):
            self._folder.remove(name)
