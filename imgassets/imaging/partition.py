"""Process all images of a partition, and continue runs that were interrupted.

An image is processed once for its bytes and settings, however many rows, products and days list it.
This module finds the images that are processed already, and keeps the manifest, the journal and the
progress. The worker processes are in `worker_pool` and `worker`, the steps for one image in
`pipeline`.

A large partition can be processed by several machines: `plan_shards` splits it, `process_shard`
processes a part, and `process_partition` takes over what they did. Without them, it does everything
itself. A million rows are 1 GB as tables and 5 GB as objects, so only those of images that are
being processed are objects.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgassets.cores import available_cores
from imgassets.errors import BrokenFileError, SettingsError
from imgassets.imaging.worker_pool import process_all
from imgassets.imaging.worker_protocol import WorkerSetup, settings_hash
from imgassets.journal import Journal
from imgassets.manifests import (
    PROCESSED_IMAGES,
    URL_FIELDS,
    Outcome,
    ProcessedRow,
    RawRow,
    Rows,
    as_manifest,
    to_table,
)
from imgassets.progress import Progress
from imgassets.settings import RetailerSettings
from imgassets.storage import PartitionFiles, Storage, list_manifests, read_table, write_table
from imgassets.tables import as_mask, filter_rows, index_in, take_rows
from imgassets.wording import counted

ASSET = "processed_images"
RAW_COLUMNS = (
    *URL_FIELDS,
    *("outcome", "http_status", "attempts", "path", "sha256", "fetched_at"),
)
"""The columns of `raw_images` that are needed to process its images."""
_RETRIED_OUTCOMES = (
    Outcome.FAILED,
    Outcome.CRASHED,
    Outcome.TIMEOUT,
    Outcome.RAW_MISSING,
    Outcome.NO_RAW,
    Outcome.REMOVED,
)
# What the rows of an image have in common, whatever product lists it.
_RESULT = tuple(name for name in PROCESSED_IMAGES.names if name not in (*URL_FIELDS, "raw_path"))
# By the other two, `imgassets forget` finds the rows that it has to remove from a plan.
_KNOWN = ("url", "product_id", *_RESULT)
# Files beside the journal: the images to process, one file per shard; the images that are known.
_TASKS, _PLAN = ".tasks.parquet", "plan.parquet"
_HASH, _START = b"imgassets.settings_hash", b"imgassets.journal_start"
_BATCH = 5_000  # rows of a journal
_SIZES_BATCH = 50_000  # files
_MIN_IMAGES_PER_PROCESS = 40  # they take as long as starting a process


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of a partition's images that need to be processed.

    Its rows are stored beside the journal, so that any machine can process it.

    Attributes:
        name: Name of the shard in the log and in the journal.
        plan: Id of the plan that it belongs to.
        settings_hash: Hash of the settings of the plan.
        journal_start: Number of the first journal file that may have rows of this plan.
    """

    name: str
    plan: str
    settings_hash: str
    journal_start: int


def is_large(rows: int, settings: RetailerSettings) -> bool:
    """Whether a partition is so large that it may have several shards.

    Args:
        rows: Number of rows of `raw_images`.
        settings: Settings of the retailer.
    """
    return rows > settings.process.shard_size


def plan_shards(
    raw: pa.Table,
    partition: PartitionFiles,
    settings: RetailerSettings,
    *,
    log: Callable[[str], None],
) -> list[Shard]:
    """Find the images of a large partition that are known, and split the others into shards.

    No shard of the partition may be running.

    Args:
        raw: The columns `RAW_COLUMNS` of the manifest of `raw_images`.
        partition: The partition.
        settings: See `process_partition`.
        log: Function that logs a line.

    Returns:
        The shards; none if `process.shard_size` images or fewer need to be processed.

    Raises:
        StepError: A user's step cannot be imported.
        StorageError: Storage cannot be read or written.
    """
    if not is_large(raw.num_rows, settings):
        return []
    storage, journal = partition.storage, Journal(partition, ASSET)
    for name in storage.names(journal.folder):
        if name.endswith((_TASKS, _PLAN)):  # of a run that was killed
            storage.remove(f"{journal.folder}/{name}")
    hash_, start, plan = settings_hash(settings), journal.next_number(), secrets.token_hex(4)
    images = _distinct_images(raw)
    known = _find_known(images, partition, hash_, settings, log)
    tasks = images.tasks(raw, known)
    metadata = {_HASH: hash_, _START: str(start)}
    write_table(storage, f"{journal.folder}/{_PLAN}", known.replace_schema_metadata(metadata))
    count = -(-tasks.num_rows // settings.process.shard_size)
    if count <= 1:
        return []
    shards = [Shard(f"shard_{number:04d}", plan, hash_, start) for number in range(count)]
    limits = [tasks.num_rows * number // count for number in range(count + 1)]
    for shard, first, end in zip(shards, limits, limits[1:], strict=False):
        write_table(storage, _tasks_path(journal, shard), tasks.slice(first, end - first))
    return shards


def process_shard(
    shard: Shard,
    partition: PartitionFiles,
    settings: RetailerSettings,
    model: Path,
    *,
    log: Callable[[str], None],
) -> None:
    """Process the images of one shard that have no row in the journal yet.

    Args:
        shard: A shard that `plan_shards` returned.
        partition: The partition.
        settings: Settings of the retailer.
        model: File of the face detector.
        log: Function that logs a line; called every few seconds.

    Raises:
        ModelError: The model cannot be loaded.
        SettingsError: The settings, the model or the version of imgassets are not those of the
            plan.
        StepError: A user's step cannot be imported.
        StorageError: Storage cannot be read or written; finished work is kept.
        WorkerError: No worker process can be started.
    """
    _check_hash(settings_hash(settings), shard.settings_hash)
    journal = Journal(partition, ASSET)
    try:
        tasks = read_table(partition.storage, _tasks_path(journal, shard))
    except FileNotFoundError:  # the partition is complete
        return
    rows = journal.rows(shard.name, shard.journal_start)
    finished = pa.array({values["raw_sha256"] for values in rows}, pa.string())
    left = filter_rows(tasks, ~as_mask(pc.is_in(tasks["sha256"], value_set=finished)))
    setup = WorkerSetup(partition.storage, settings, shard.settings_hash, model)
    for _ in _process(left, setup, journal, shard.name, tasks.num_rows, log=log):
        pass


def process_partition(
    raw: pa.Table,
    partition: PartitionFiles,
    settings: RetailerSettings,
    model: Path,
    *,
    log: Callable[[str], None],
) -> pa.Table:
    """Process the images of a partition, and write its manifest of `processed_images`.

    Images that a run of this partition or of another one of the retailer processed from the same
    raw bytes with the same settings are kept, even if that run was killed before it wrote its
    manifest. So are those that the shards of this run processed.

    Args:
        raw: The columns `RAW_COLUMNS` of the manifest of `raw_images`.
        partition: The partition.
        settings: Settings of the retailer; `download.reuse_days` limits the other partitions, but
            not for images whose raw files are gone.
        model: File of the face detector.
        log: Function that logs a line; called every few seconds.

    Returns:
        The manifest: one row per raw row, in the same order.

    Raises:
        ModelError: The model cannot be loaded.
        SettingsError: The shards had other settings.
        StepError: A user's step cannot be imported.
        StorageError: Storage cannot be read or written.
        WorkerError: No worker process can be started.
    """
    hash_, journal = settings_hash(settings), Journal(partition, ASSET)
    images = _distinct_images(raw)
    results = _read_plan(journal, hash_) if is_large(raw.num_rows, settings) else None
    if results is None:
        results = _find_known(images, partition, hash_, settings, log)
    results = results.select(_RESULT)
    tasks = images.tasks(raw, results)
    if tasks.num_rows:
        setup = WorkerSetup(partition.storage, settings, hash_, model)
        rows = _process(tasks, setup, journal, "images", len(images.sha256), log=log)
        processed = to_table(rows, ProcessedRow).select(_RESULT)
        results = pa.concat_tables([results, processed.replace_schema_metadata()])
    is_missing = pc.equal(results["outcome"], str(Outcome.RAW_MISSING))
    # Their raw files were removed by `keep_raw: false`, or by a run that processed them meanwhile.
    missing = results["raw_sha256"].filter(is_missing).combine_chunks()
    if len(missing):
        found = _KnownImages(partition, hash_, settings.download.reuse_days).find(
            missing, raw_missing=True
        )
        results = _without(results, found["raw_sha256"])
        results = pa.concat_tables([results, found.select(_RESULT)])
    columns = {name: results[name] for name in _RESULT}
    del results
    table = as_manifest(_join(raw, columns, hash_), ProcessedRow, hash_)
    partition.write_manifest(ASSET, table)
    if is_large(raw.num_rows, settings):
        # First: without the journal, the plan would say that its images are not processed.
        partition.storage.remove(f"{journal.folder}/{_PLAN}")
    journal.remove()
    return table


def _process(
    tasks: pa.Table,
    setup: WorkerSetup,
    journal: Journal,
    writer_name: str,
    total: int,
    *,
    log: Callable[[str], None],
) -> Iterator[ProcessedRow]:
    """Process images, record their rows in the journal and in the progress, and yield them."""
    processes = setup.settings.process.processes or min(
        available_cores(), -(-tasks.num_rows // _MIN_IMAGES_PER_PROCESS)
    )
    task = ASSET if writer_name == "images" else f"{ASSET}, {writer_name}"
    progress = Progress(task, total, log, already_done=total - tasks.num_rows)
    with journal.writer(writer_name) as writer:
        raw_rows = Rows(tasks, RawRow)
        try:
            for row in process_all(raw_rows, setup, processes, log=log, idle=writer.flush_if_due):
                writer.add([row])
                progress.add([row], row.bytes or 0)
                progress.log_if_due()
                yield row
        finally:
            progress.log()


@dataclass(frozen=True, slots=True)
class _Images:
    """The distinct contents of a partition's served files.

    Attributes:
        sha256: SHA-256 of each.
        rows: Index of the last row that has it.
    """

    sha256: pa.Array
    rows: NDArray[np.int64]

    def tasks(self, raw: pa.Table, known: pa.Table) -> pa.Table:
        """The rows of `raw_images` of the images that are not known."""
        is_known = pc.is_in(self.sha256, value_set=known["raw_sha256"].combine_chunks())
        return take_rows(raw, self.rows[~as_mask(is_known)])


def _distinct_images(raw: pa.Table) -> _Images:
    is_ok = pc.equal(raw["outcome"], str(Outcome.OK))
    return _last_rows(raw["sha256"].filter(is_ok), np.flatnonzero(as_mask(is_ok)))


def _last_rows(sha256: pa.ChunkedArray, indices: NDArray[np.int64]) -> _Images:
    encoded = sha256.combine_chunks().dictionary_encode()
    rows = np.empty(len(encoded.dictionary), np.int64)
    rows[encoded.indices.to_numpy()] = indices  # the last one of equal indices counts
    return _Images(encoded.dictionary, rows)


def _last_of_each(table: pa.Table) -> pa.Table:
    """The last row of each `raw_sha256`."""
    last = _last_rows(table["raw_sha256"], np.arange(table.num_rows)).rows
    return take_rows(table, np.sort(last))


def _without(table: pa.Table, sha256: pa.ChunkedArray) -> pa.Table:
    """The rows with another `raw_sha256` than these."""
    is_given = pc.is_in(table["raw_sha256"], value_set=sha256.combine_chunks())
    return filter_rows(table, ~as_mask(is_given))


def _concat(tables: Sequence[pa.Table], names: Sequence[str]) -> pa.Table:
    """Join parts that have these columns of the manifest; none, if there are no parts."""
    schema = pa.schema([PROCESSED_IMAGES.field(name) for name in names])
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _with_all_columns(table: pa.Table) -> pa.Table:
    """The columns `_KNOWN` of a manifest; null, if it is older than the column."""
    schema = pa.schema([PROCESSED_IMAGES.field(name) for name in _KNOWN])
    columns = [
        table[field.name]
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema.names).cast(schema)


def _journal_batches(journal: Journal, start: int = 0) -> Iterator[pa.Table]:
    """The rows of a journal, oldest first, with the columns `_KNOWN`.

    Args:
        journal: The journal.
        start: Number of the first file to read.
    """
    rows = (ProcessedRow(**values) for values in journal.rows(start=start))
    while batch := list(islice(rows, _BATCH)):
        yield to_table(batch, ProcessedRow).select(_KNOWN).replace_schema_metadata()


def _for_sizes(table: pa.Table, storage: Storage) -> Iterator[pa.Table]:
    """Parts of a table whose files are looked up together.

    The names and sizes of a million files take much memory. An object store is asked once, because
    it lists all files for so many.
    """
    size = _SIZES_BATCH if storage.is_local else max(table.num_rows, 1)
    return (table.slice(start, size) for start in range(0, table.num_rows, size))


def _find_known(
    images: _Images,
    partition: PartitionFiles,
    hash_: str,
    settings: RetailerSettings,
    log: Callable[[str], None],
) -> pa.Table:
    known = _KnownImages(partition, hash_, settings.download.reuse_days).find(images.sha256)
    if known.num_rows:
        log(f"{counted(known.num_rows, 'image')} processed before and kept")
    return known


def _tasks_path(journal: Journal, shard: Shard) -> str:
    return f"{journal.folder}/{shard.plan}-{shard.name}{_TASKS}"


def _read_plan(journal: Journal, hash_: str) -> pa.Table | None:
    """The rows of the images that the plan knew and that its shards processed.

    Returns:
        Rows with the columns `_RESULT`, one per image; None if there is no plan.

    Raises:
        SettingsError: The plan had other settings.
        StorageError: The storage is not reachable or not readable.
    """
    try:
        known = read_table(journal.partition.storage, f"{journal.folder}/{_PLAN}", _RESULT)
    except FileNotFoundError:  # an earlier attempt wrote the manifest
        return None
    metadata = known.schema.metadata
    _check_hash(hash_, metadata[_HASH].decode())
    batches = _journal_batches(journal, int(metadata[_START]))
    processed = _last_of_each(_concat([batch.select(_RESULT) for batch in batches], _RESULT))
    known = _without(known.replace_schema_metadata(), processed["raw_sha256"])
    return pa.concat_tables([known, processed])


def _check_hash(own: str, planned: str) -> None:
    if own != planned:
        raise SettingsError(
            f"the settings that images depend on (hash {own}) are not those with which this run "
            f"was planned ({planned}): give all machines the same configuration, environment and "
            "version of imgassets, and materialize the partition again; finished work is kept"
        )


def _join(raw: pa.Table, results: dict[str, pa.ChunkedArray], hash_: str) -> pa.Table:
    """Build the manifest.

    Args:
        raw: The columns `RAW_COLUMNS` of the manifest of `raw_images`.
        results: The columns `_RESULT` of the images; taken out of it, to free their memory.
        hash_: Hash of the settings.
    """
    is_ok = pc.equal(raw["outcome"], str(Outcome.OK))
    is_removed = pc.equal(raw["outcome"], str(Outcome.REMOVED))
    sha256 = pc.if_else(is_ok, raw["sha256"], pa.scalar(None, pa.string()))
    rows = index_in(sha256, results.pop("raw_sha256"))
    columns = {name: raw[name] for name in URL_FIELDS}
    columns |= {"raw_path": raw["path"], "raw_sha256": raw["sha256"]}
    for name in set(_RESULT) - {"raw_sha256"}:
        columns[name] = take_rows(pa.table({name: results.pop(name)}), rows)[name]
    without = pc.if_else(is_removed, str(Outcome.REMOVED), str(Outcome.NO_RAW))
    columns["outcome"] = pc.if_else(is_ok, columns["outcome"], without)
    reasons = pc.binary_join_element_wise("raw_images: ", raw["outcome"], "")
    has_reason = pc.or_(is_ok, is_removed)
    columns["error"] = pc.if_else(has_reason, columns["error"], reasons)
    columns["settings_hash"] = pc.if_else(is_ok, columns["settings_hash"], hash_)
    return pa.table(columns)


class _KnownImages:
    """Rows of images that are processed already, in the partition and the retailer's others."""

    def __init__(self, partition: PartitionFiles, hash_: str, days: int) -> None:
        self._partition, self._hash, self._days = partition, hash_, days

    def find(self, wanted: pa.Array, *, raw_missing: bool = False) -> pa.Table:
        """Find rows whose files are stored.

        Args:
            wanted: SHA-256 of raw files, without repetitions.
            raw_missing: Whether the raw files are gone, so that an image of any partition counts,
                also one that was made with other settings.

        Returns:
            The columns `_KNOWN`, one row per image that was found; `reused_from` is the day of the
            partition that processed the image, or null if that is this one.
        """
        found: list[pa.Table] = []
        for batches in self._sources(any_date=raw_missing):
            if not len(wanted):
                break
            kept = [
                batch.filter(self._is_known(batch, wanted, any_settings=raw_missing))
                for batch in batches
            ]
            table = self._stored(_last_of_each(_concat(kept, _KNOWN)))
            is_found = pc.is_in(wanted, value_set=table["raw_sha256"].combine_chunks())
            wanted = wanted.filter(pc.invert(is_found))
            found.append(table)
        return _concat(found, _KNOWN)

    def _is_known(self, table: pa.Table, wanted: pa.Array, *, any_settings: bool) -> pa.Array:
        is_wanted = pc.is_in(table["raw_sha256"], value_set=wanted)
        if any_settings:
            return pc.and_(is_wanted, pc.equal(table["outcome"], str(Outcome.OK)))
        retried = pa.array(map(str, _RETRIED_OUTCOMES), pa.string())
        is_final = pc.invert(pc.is_in(table["outcome"], value_set=retried))
        has_hash = pc.fill_null(pc.equal(table["settings_hash"], self._hash), False)
        return pc.and_(is_wanted, pc.and_(is_final, has_hash))

    def _stored(self, table: pa.Table) -> pa.Table:
        """The rows whose files exist with their size, and those that have no file."""
        storage = self._partition.storage
        is_stored: list[bool] = []
        for part in _for_sizes(table, storage):
            paths, expected = part["path"].to_pylist(), part["bytes"].to_pylist()
            sizes = storage.sizes(path for path in paths if path is not None)
            is_stored += [
                path is None or sizes.get(path) == size
                for path, size in zip(paths, expected, strict=True)
            ]
        return filter_rows(table, np.array(is_stored, np.bool_))

    def _sources(self, *, any_date: bool) -> Iterator[Iterator[pa.Table]]:
        """Yield the rows of the journal, of the manifest, and of other partitions, latest first.

        Args:
            any_date: Whether the other partitions may be any number of days away.
        """
        own = self._partition
        yield _journal_batches(Journal(own, ASSET))
        yield self._manifest_batches(own)
        day = dt.date.fromisoformat(own.date)
        for other in reversed(list_manifests(own.storage, ASSET, own.retailer)):
            days = abs((dt.date.fromisoformat(other.date) - day).days)
            if days and (any_date or days <= self._days):
                yield self._manifest_batches(other)

    def _manifest_batches(self, partition: PartitionFiles) -> Iterator[pa.Table]:
        """Parts of a manifest; none if it does not exist.

        A broken manifest of another partition counts as missing: its own checks report it.
        """
        own, origin = (
            pa.scalar(dt.date.fromisoformat(each.date)) for each in (self._partition, partition)
        )
        try:
            for batch in partition.manifest_batches(ASSET, _KNOWN):
                table = _with_all_columns(batch)
                origins = pc.coalesce(table["reused_from"], origin)
                reused_from = pc.if_else(
                    pc.equal(origins, own), pa.scalar(None, pa.date32()), origins
                )
                number = table.column_names.index("reused_from")
                yield table.set_column(number, table.schema.field(number), reused_from)
        except FileNotFoundError:
            return
        except BrokenFileError:
            if partition == self._partition:
                raise


def remove_raw_images(table: pa.Table, storage: Storage) -> int:
    """Remove the raw files whose images are processed, for `process.keep_raw: false`.

    Call it last, because contact sheets show raw images. The rows of `raw_images` keep their paths.

    Args:
        table: The manifest of `processed_images`, which must be written already.
        storage: The storage.

    Returns:
        The number of removed files.

    Raises:
        StorageError: The storage cannot be read or written.
    """
    is_ok = pc.equal(table["outcome"], str(Outcome.OK))
    is_processed = pc.and_(is_ok, pc.is_valid(table["path"]))
    paths = table["raw_path"].filter(is_processed).drop_null().unique()
    removed = 0
    for part in _for_sizes(pa.table({"path": paths}), storage):
        stored = storage.sizes(part["path"].to_pylist())
        for path in stored:
            storage.remove(path)
        removed += len(stored)
    return removed
