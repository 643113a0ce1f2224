"""Process all images of a partition, and continue runs that were interrupted.

An image is processed once for its bytes and settings, however many rows, products and days list it.
This module finds the images that are processed already, and keeps the manifest, the journal and the
progress. The worker processes are in `worker_pool` and `worker`, the steps for one image in
`pipeline`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from imgassets.cores import available_cores
from imgassets.errors import BrokenFileError
from imgassets.imaging.worker_pool import process_all
from imgassets.imaging.worker_protocol import (
    WorkerSetup,
    processed_row,
    row_without_image,
    settings_hash,
)
from imgassets.journal import Journal, JournalWriter
from imgassets.manifests import (
    PROCESSED_IMAGES,
    URL_FIELDS,
    Outcome,
    ProcessedRow,
    RawRow,
    from_table,
    to_table,
)
from imgassets.progress import Progress
from imgassets.settings import RetailerSettings
from imgassets.storage import PartitionFiles, Storage, list_manifests
from imgassets.wording import counted

ASSET = "processed_images"
_RETRIED_OUTCOMES = (
    Outcome.FAILED,
    Outcome.CRASHED,
    Outcome.TIMEOUT,
    Outcome.RAW_MISSING,
    Outcome.NO_RAW,
    Outcome.REMOVED,
)
_MIN_IMAGES_PER_PROCESS = 40  # they take as long as starting a process
_url_values = attrgetter(*URL_FIELDS)


def process_partition(
    raw_rows: Sequence[RawRow],
    partition: PartitionFiles,
    settings: RetailerSettings,
    model: Path,
    *,
    log: Callable[[str], None],
) -> list[ProcessedRow]:
    """Process the images of a partition, and write its manifest of `processed_images`.

    Images that a run of this partition or of another one of the retailer processed from the same
    raw bytes with the same settings are kept, even if that run was killed before it wrote its
    manifest.

    Args:
        raw_rows: Rows of the manifest of `raw_images`.
        partition: The partition.
        settings: Settings of the retailer; `download.reuse_days` limits the other partitions, but
            not for images whose raw files are gone.
        model: File of the face detector.
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
    known = _KnownImages(partition, hash_, settings.download.reuse_days)
    # By SHA-256: one image per distinct content.
    images = {raw.sha256: raw for raw in raw_rows if raw.outcome is Outcome.OK}
    results = known.find({str(sha256) for sha256 in images})
    if results:
        log(f"{counted(len(results), 'image')} processed before and kept")
    tasks = [raw for sha256, raw in images.items() if sha256 not in results]
    if tasks:
        setup = WorkerSetup(partition.storage, settings, hash_, model)
        processes = settings.process.processes or min(
            available_cores(), -(-len(tasks) // _MIN_IMAGES_PER_PROCESS)
        )
        progress = Progress(ASSET, len(images), log, already_done=len(results))
        with Journal(partition, ASSET).writer("images") as writer:
            for row in _process_tasks(tasks, setup, processes, writer, progress, log=log):
                results[str(row.raw_sha256)] = row
    missing = {sha256 for sha256, row in results.items() if row.outcome is Outcome.RAW_MISSING}
    # Their raw files were removed by `keep_raw: false`, or by a run that processed them meanwhile.
    results |= known.find(missing, raw_missing=True)
    ordered = [_row(raw, results, hash_) for raw in raw_rows]
    partition.write_manifest(ASSET, to_table(ordered, ProcessedRow, hash_))
    Journal(partition, ASSET).remove()
    return ordered


def _process_tasks(
    tasks: Sequence[RawRow],
    setup: WorkerSetup,
    processes: int,
    writer: JournalWriter,
    progress: Progress,
    *,
    log: Callable[[str], None],
) -> Iterator[ProcessedRow]:
    """Process images, record their rows in the journal and in the progress, and yield them."""
    try:
        for row in process_all(tasks, setup, processes, log=log, idle=writer.flush_if_due):
            writer.add([row])
            progress.add([row], row.bytes or 0)
            progress.log_if_due()
            yield row
    finally:
        progress.log()


def _row(raw: RawRow, results: Mapping[str, ProcessedRow], hash_: str) -> ProcessedRow:
    """Build the row of the manifest for a raw row."""
    if raw.outcome is Outcome.REMOVED:
        return processed_row(raw, hash_, Outcome.REMOVED)
    if raw.outcome is not Outcome.OK:
        return row_without_image(raw, hash_, Outcome.NO_RAW, f"raw_images: {raw.outcome}")
    row = results[str(raw.sha256)]
    if _url_values(row) == _url_values(raw) and row.raw_path == raw.path:
        return row
    url_values = dict(zip(URL_FIELDS, _url_values(raw), strict=True))
    return replace(row, **url_values, raw_path=raw.path)


class _KnownImages:
    """Rows of images that are processed already, in the partition and the retailer's others."""

    def __init__(self, partition: PartitionFiles, hash_: str, days: int) -> None:
        self._partition, self._hash, self._days = partition, hash_, days

    def find(
        self, wanted: Collection[str], *, raw_missing: bool = False
    ) -> dict[str, ProcessedRow]:
        """Find rows whose files are stored.

        Args:
            wanted: SHA-256 of raw files.
            raw_missing: Whether the raw files are gone, so that an image of any partition counts,
                also one that was made with other settings.

        Returns:
            Rows by SHA-256 of the raw file; `reused_from` is the day of the partition that
            processed the image, or None if that is this one.
        """
        found: dict[str, ProcessedRow] = {}
        left = set(wanted)
        for rows in self._sources(left, any_date=raw_missing):
            if not left:
                break
            candidates = {
                str(row.raw_sha256): row
                for row in rows
                if row.raw_sha256 in left and self._is_known(row, any_settings=raw_missing)
            }
            sizes = self._partition.storage.sizes(
                row.path for row in candidates.values() if row.path is not None
            )
            for sha256, row in candidates.items():
                if row.path is None or sizes.get(row.path) == row.bytes:
                    found[sha256] = row
                    left.discard(sha256)
        return found

    def _is_known(self, row: ProcessedRow, *, any_settings: bool) -> bool:
        if any_settings:
            return row.outcome is Outcome.OK
        return row.settings_hash == self._hash and row.outcome not in _RETRIED_OUTCOMES

    def _sources(
        self, wanted: Collection[str], *, any_date: bool
    ) -> Iterator[Iterator[ProcessedRow]]:
        """Yield the rows of the journal, of the manifest, and of other partitions, latest first.

        Args:
            wanted: SHA-256 of raw files; may shrink meanwhile.
            any_date: Whether the other partitions may be any number of days away.
        """
        own = self._partition
        yield (ProcessedRow(**values) for values in Journal(own, ASSET).rows())
        yield self._manifest_rows(own, wanted)
        day = dt.date.fromisoformat(own.date)
        for other in reversed(list_manifests(own.storage, ASSET, own.retailer)):
            days = abs((dt.date.fromisoformat(other.date) - day).days)
            if days and (any_date or days <= self._days):
                yield self._manifest_rows(other, wanted)

    def _manifest_rows(
        self, partition: PartitionFiles, wanted: Collection[str]
    ) -> Iterator[ProcessedRow]:
        """Rows of a manifest with these raw files; none if it does not exist.

        A broken manifest of another partition counts as missing: its own checks report it.
        """
        is_own = partition == self._partition
        try:
            table = partition.read_manifest(ASSET, PROCESSED_IMAGES.names)
        except FileNotFoundError:
            return
        except BrokenFileError:
            if is_own:
                raise
            return
        is_wanted = pc.is_in(table["raw_sha256"], value_set=pa.array(wanted, pa.string()))
        for row in from_table(table.filter(is_wanted), ProcessedRow):
            origin = row.reused_from or partition.date
            reused_from = None if origin == self._partition.date else origin
            yield row if row.reused_from == reused_from else replace(row, reused_from=reused_from)


def remove_raw_images(rows: Sequence[ProcessedRow], storage: Storage) -> int:
    """Remove the raw files whose images are processed, for `process.keep_raw: false`.

    Call it last, because contact sheets show raw images. The rows of `raw_images` keep their paths.

    Args:
        rows: Rows of the manifest of `processed_images`, which must be written already.
        storage: The storage.

    Returns:
        The number of removed files.

    Raises:
        StorageError: The storage cannot be read or written.
    """
    processed = {
        row.raw_path
        for row in rows
        if row.outcome is Outcome.OK and row.path is not None and row.raw_path is not None
    }
    stored = storage.sizes(processed)
    storage.remove_all(stored)
    return len(stored)
