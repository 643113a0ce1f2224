"""All pictures of a partition: what is to be done, what is kept, and continuing a run that stopped.

Here lives keeping the work: manifest, journal, progress. The processes that do it are in
`isolation` and `worker`, what is done to one picture is in `pipeline`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from imgassets.imaging.worker_pool import processed
from imgassets.imaging.worker_protocol import Job, row_without_image, settings_hash
from imgassets.manifests import Outcome, ProcessedRow, RawRow, from_table, to_table
from imgassets.progress import Progress
from imgassets.settings import RetailerSettings
from imgassets.storage import IMAGES, Folder, mark_removed, read_table, write_table

JOURNAL = "_journal"
_TRIED_AGAIN = (
    Outcome.FAILED,
    Outcome.CRASHED,
    Outcome.TIMEOUT,
    Outcome.RAW_MISSING,
    Outcome.NO_RAW,
)
_WORTH_A_PROCESS = 40  # pictures take as long as the start of the process
_EVERY_S = 5.0  # a killed run loses at most this much work; a person sees a line this often


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
    """Make the pictures and the manifest of a partition of `processed_images`.

    Pictures that an earlier run made of the same raw bytes with the same settings are kept, also
    where that run was killed before it wrote its manifest.

    Args:
        raw_rows: the manifest of `raw_images`.
        raw_folder: that its paths are relative to.
        folder: where the manifest is written, and the pictures in `images/<key>.<suffix>`.
        settings: of the retailer.
        model: the detector's file.
        processes: that work on pictures at the same time; as many as cores if none, but no more
            than are worth their start.
        log: takes a line for a person, every few seconds.

    Returns:
        One row a raw row, in their order; so is the manifest.

    Raises:
        ModelError: the model cannot be loaded.
        StepError: a step of the user's own cannot be imported.
        StorageError: storage cannot be read or written.
        WorkerError: the process that does the work cannot be started.
    """
    hash_ = settings_hash(settings)
    folder.remove_temporaries()
    (folder / IMAGES).remove_temporaries()
    journal = _Journal(folder)
    earlier = {row.key: row for row in _manifest(folder)}
    earlier.update((row.key, row) for row in journal.rows())
    there = (folder / IMAGES).sizes()

    rows: dict[str, ProcessedRow] = {}
    tasks: list[RawRow] = []
    for raw in raw_rows:
        known = earlier.get(raw.key)
        if raw.outcome != Outcome.OK:
            rows[raw.key] = row_without_image(
                raw, hash_, Outcome.NO_RAW, f"raw_images: {raw.outcome}"
            )
        elif known is not None and _still_holds(known, raw, hash_, there):
            rows[raw.key] = replace(known, url=raw.url, product_id=raw.product_id)
        else:
            tasks.append(raw)
    if kept := sum(row.outcome != Outcome.NO_RAW for row in rows.values()):
        log(f"{kept} pictures are kept from an earlier run")

    if tasks:
        job = Job(raw_folder, folder, settings, hash_, model)
        processes = processes or min(_cores(), -(-len(tasks) // _WORTH_A_PROCESS))
        progress = Progress("processed_images", len(raw_rows), log, already_done=len(rows))
        try:
            for row in processed(tasks, job, processes, log=log, idle=journal.flush_if_due):
                rows[row.key] = _or_earlier(row, earlier.get(row.key), there)
                journal.add(rows[row.key])
                progress.add([row], row.bytes or 0)
                progress.log_if_due()
        finally:
            journal.flush()
            progress.log()

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
        and known.outcome not in _TRIED_AGAIN
        and (known.path is None or known.path.removeprefix(f"{IMAGES}/") in there)
    )


def _or_earlier(
    row: ProcessedRow, known: ProcessedRow | None, there: dict[str, int]
) -> ProcessedRow:
    """A picture stays, though settings changed, if its served file was removed (`keep_raw`)."""
    if (
        row.outcome == Outcome.RAW_MISSING
        and known is not None
        and known.path is not None
        and known.raw_sha256 == row.raw_sha256
        and known.path.removeprefix(f"{IMAGES}/") in there
    ):
        return known
    return row


def remove_raw(rows: Sequence[ProcessedRow], raw_rows: Sequence[RawRow], raw_folder: Folder) -> int:
    """Remove the served files whose pictures are made; for `process.keep_raw: false`.

    To be called last: contact sheets show served pictures. The rows of `raw_images` stay, with the
    paths that they had, and a list of the files that are gone.

    Args:
        rows: the manifest of `processed_images`, as it was written.
        raw_rows: that of `raw_images`.
        raw_folder: that the paths of `raw_rows` are relative to.

    Returns:
        How many files are gone.
    """
    made = {row.key for row in rows if row.outcome == Outcome.OK and row.path is not None}
    images = raw_folder / IMAGES
    named = {
        raw.path.removeprefix(f"{IMAGES}/")
        for raw in raw_rows
        if raw.key in made and raw.path is not None
    }
    going = named & images.sizes().keys()
    mark_removed(raw_folder, going)
    for name in going:
        images.remove(name)
    return len(going)


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
        # The oldest part first: what is left of it never ends with an old row.
        for name in sorted(self._folder.sizes()):
            self._folder.remove(name)
