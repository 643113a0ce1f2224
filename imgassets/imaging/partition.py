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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

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
    as_manifest,
    from_table,
    to_table,
    to_tables,
)
from imgassets.progress import Progress
from imgassets.settings import RetailerSettings
from imgassets.storage import (
    PartitionFiles,
    Storage,
    TableFile,
    list_manifests,
    read_table,
    write_parts,
    write_table,
)
from imgassets.tables import as_mask, filter_rows, index_in, release_memory, take_rows
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
# What decides whether the image of a row is known.
_STATE = ("raw_sha256", "outcome", "settings_hash", "path", "bytes")
# Files beside the journal: the images to process, one file per shard; the images that are known.
_TASKS, _PLAN = ".tasks.parquet", "plan.parquet"
_HASH, _START = b"imgassets.settings_hash", b"imgassets.journal_start"
# Reads columns of rows among which known images may be, in parts.
_Read: TypeAlias = Callable[[Sequence[str]], Iterator[pa.Table]]
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
    release_memory()
    known: list[pa.ChunkedArray] = []

    def parts() -> Iterator[pa.Table]:
        for part in _KnownImages(partition, hash_, settings).find(images.sha256):
            known.extend(part["raw_sha256"].chunks)
            yield part

    schema = _schema(_KNOWN).with_metadata({_HASH: hash_, _START: str(start)})
    write_parts(storage, f"{journal.folder}/{_PLAN}", schema, parts())
    found = pa.chunked_array(known, pa.string())
    _log_known(len(found), log)
    tasks = images.tasks(raw, found)
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
    release_memory()
    results = _read_plan(journal, hash_) if is_large(raw.num_rows, settings) else None
    if results is None:
        parts = _KnownImages(partition, hash_, settings).find(images.sha256)
        results = _concat([part.select(_RESULT) for part in parts], _RESULT)
        _log_known(results.num_rows, log)
    tasks = images.tasks(raw, results["raw_sha256"])
    if tasks.num_rows:
        setup = WorkerSetup(partition.storage, settings, hash_, model)
        rows = _process(tasks, setup, journal, "images", len(images.sha256), log=log)
        processed = to_table(rows, ProcessedRow).select(_RESULT)
        results = pa.concat_tables([results, processed.replace_schema_metadata()])
    is_missing = pc.equal(results["outcome"], str(Outcome.RAW_MISSING))
    # Their raw files were removed by `keep_raw: false`, or by a run that processed them meanwhile.
    missing = results["raw_sha256"].filter(is_missing).combine_chunks()
    if len(missing):
        parts = _KnownImages(partition, hash_, settings).find(missing, raw_missing=True)
        found = _concat([part.select(_RESULT) for part in parts], _RESULT)
        results = pa.concat_tables([found, results])  # the first row of an image counts
    columns = {name: results[name] for name in _RESULT}
    del results, images
    release_memory()
    table = as_manifest(_join(raw, columns, hash_), ProcessedRow, hash_)
    release_memory()
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
        raw_rows = from_table(tasks, RawRow)
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

    def tasks(self, raw: pa.Table, known: pa.ChunkedArray) -> pa.Table:
        """The rows of `raw_images` of the images whose SHA-256 is not among the known ones."""
        is_known = pc.is_in(self.sha256, value_set=known.combine_chunks())
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


def _schema(names: Sequence[str]) -> pa.Schema:
    return pa.schema([PROCESSED_IMAGES.field(name) for name in names])


def _concat(tables: Sequence[pa.Table], names: Sequence[str]) -> pa.Table:
    """Join parts that have these columns of the manifest; there may be no part."""
    return pa.concat_tables(tables) if tables else _schema(names).empty_table()


def _with_columns(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Columns of a manifest; null, if it is older than the column."""
    schema = _schema(names)
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
    for table in to_tables(rows, ProcessedRow):
        yield table.select(_KNOWN)


def _log_known(number: int, log: Callable[[str], None]) -> None:
    if number:
        log(f"{counted(number, 'image')} processed before and kept")


def _tasks_path(journal: Journal, shard: Shard) -> str:
    return f"{journal.folder}/{shard.plan}-{shard.name}{_TASKS}"


def _read_plan(journal: Journal, hash_: str) -> pa.Table | None:
    """The rows of the images that the plan knew and that its shards processed.

    Returns:
        Rows with the columns `_RESULT`, of which the first one of an image counts; None if there is
        no plan.

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
    return pa.concat_tables([processed, known.replace_schema_metadata()])


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
        results: The columns `_RESULT` of the images, of which the first row of each counts; taken
            out of it, to free their memory.
        hash_: Hash of the settings.
    """
    is_ok = pc.equal(raw["outcome"], str(Outcome.OK))
    is_removed = pc.equal(raw["outcome"], str(Outcome.REMOVED))
    sha256 = pc.if_else(is_ok, raw["sha256"], pa.scalar(None, pa.string()))
    rows = index_in(sha256, results.pop("raw_sha256"))
    release_memory()
    columns = {name: raw[name] for name in URL_FIELDS}
    columns |= {"raw_path": raw["path"], "raw_sha256": raw["sha256"]}
    for name in set(_RESULT) - {"raw_sha256"}:
        columns[name] = take_rows(pa.table({name: results.pop(name)}), rows)[name]
        release_memory()
    without = pc.if_else(is_removed, str(Outcome.REMOVED), str(Outcome.NO_RAW))
    columns["outcome"] = pc.if_else(is_ok, columns["outcome"], without)
    reasons = pc.binary_join_element_wise("raw_images: ", raw["outcome"], "")
    has_reason = pc.or_(is_ok, is_removed)
    columns["error"] = pc.if_else(has_reason, columns["error"], reasons)
    columns["settings_hash"] = pc.if_else(is_ok, columns["settings_hash"], hash_)
    return pa.table(columns)


class _KnownImages:
    """Rows of images that are processed already, in the partition and the retailer's others."""

    def __init__(self, partition: PartitionFiles, hash_: str, settings: RetailerSettings) -> None:
        self._partition, self._hash = partition, hash_
        self._days = settings.download.reuse_days

    def find(self, sha256: pa.Array, *, raw_missing: bool = False) -> Iterator[pa.Table]:
        """Find rows whose files are stored.

        Args:
            sha256: SHA-256 of raw files, without repetitions.
            raw_missing: Whether the raw files are gone, so that an image of any partition counts,
                also one that was made with other settings.

        Yields:
            The columns `_KNOWN`, in parts: one row per image that was found. `reused_from` is the
            day of the partition that processed the image, or null if that is this one.
        """
        wanted, is_wanted = pa.chunked_array([sha256]), np.ones(len(sha256), np.bool_)
        sources = self._sources(any_date=raw_missing)
        while is_wanted.any() and (read := next(sources, None)) is not None:
            # First only what decides whether a row is known: all columns take much memory.
            states, start = [], 0
            for part in read(_STATE):
                images = index_in(part["raw_sha256"], wanted)
                rows = np.flatnonzero(self._is_known(part, any_settings=raw_missing))
                rows = rows[(images[rows] >= 0) & is_wanted[images[rows]]]
                files = part.select(["path", "bytes"]).take(rows)
                states.append((rows + start, images[rows], files))
                start += part.num_rows
            if any(len(rows) for rows, *_ in states):
                yield from self._of_rows(read(_KNOWN), *self._last_stored(states), is_wanted)

    def _last_stored(
        self, states: Sequence[tuple[NDArray[np.int64], NDArray[np.int64], pa.Table]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The last row of each image, if its file is stored: indices of rows, and of images."""
        rows, images = (np.concatenate([state[i] for state in states]) for i in (0, 1))
        _, last = np.unique(images[::-1], return_index=True)
        last = np.sort(len(images) - 1 - last)
        last = last[self._has_file(pa.concat_tables([state[2] for state in states]).take(last))]
        return rows[last], images[last]

    def _of_rows(
        self,
        parts: Iterator[pa.Table],
        rows: NDArray[np.int64],
        images: NDArray[np.int64],
        is_wanted: NDArray[np.bool_],
    ) -> Iterator[pa.Table]:
        """Yield these rows, and note that their images are not wanted any more."""
        start = 0
        for part in parts:
            first, end = np.searchsorted(rows, (start, start + part.num_rows))
            if first < end:
                yield take_rows(part, rows[first:end] - start)
                is_wanted[images[first:end]] = False
            start += part.num_rows

    def _is_known(self, states: pa.Table, *, any_settings: bool) -> NDArray[np.bool_]:
        if any_settings:
            return as_mask(pc.equal(states["outcome"], str(Outcome.OK)))
        retried = pa.array(map(str, _RETRIED_OUTCOMES), pa.string())
        is_retried = as_mask(pc.is_in(states["outcome"], value_set=retried))
        return as_mask(pc.equal(states["settings_hash"], self._hash)) & ~is_retried

    def _has_file(self, states: pa.Table) -> NDArray[np.bool_]:
        """Whether the file of each row exists with its size, or the row has no file."""
        storage, found = self._partition.storage, np.ones(states.num_rows, np.bool_)
        for rows in _by_folder(states["path"]):
            part = states.take(rows)
            paths, expected = part["path"].to_pylist(), part["bytes"].to_pylist()
            sizes = storage.sizes(path for path in paths if path is not None)
            found[rows] = [
                path is None or sizes.get(path) == size
                for path, size in zip(paths, expected, strict=True)
            ]
        return found

    def _sources(self, *, any_date: bool) -> Iterator[_Read]:
        """Yield the rows of the journal, of the manifest, and of other partitions, latest first.

        Args:
            any_date: Whether the other partitions may be any number of days away.
        """
        own = self._partition
        journal = _concat([*_journal_batches(Journal(own, ASSET))], _KNOWN)
        if journal.num_rows:
            yield lambda names: iter([journal.select(names)])
        yield from self._manifest(own)
        day = dt.date.fromisoformat(own.date)
        for other in reversed(list_manifests(own.storage, ASSET, own.retailer)):
            days = abs((dt.date.fromisoformat(other.date) - day).days)
            if days and (any_date or days <= self._days):
                yield from self._manifest(other)

    def _manifest(self, partition: PartitionFiles) -> Iterator[_Read]:
        """Yield a manifest, if it exists.

        A broken manifest of another partition counts as missing: its own checks report it.
        """
        with suppress(FileNotFoundError), self._ignore_broken(partition):
            yield partial(self._parts, partition.open_manifest(ASSET), partition)

    def _parts(
        self, file: TableFile, partition: PartitionFiles, names: Sequence[str]
    ) -> Iterator[pa.Table]:
        own, origin = (
            pa.scalar(dt.date.fromisoformat(each.date)) for each in (self._partition, partition)
        )
        with self._ignore_broken(partition):
            for part in file.parts(names):
                table = _with_columns(part, names)
                if "reused_from" in names:
                    origins = pc.coalesce(table["reused_from"], origin)
                    is_own = pc.equal(origins, own)
                    days = pc.if_else(is_own, pa.scalar(None, pa.date32()), origins)
                    number = names.index("reused_from")
                    table = table.set_column(number, table.schema.field(number), days)
                yield table

    @contextmanager
    def _ignore_broken(self, partition: PartitionFiles) -> Iterator[None]:
        try:
            yield
        except BrokenFileError:
            if partition == self._partition:
                raise


def _by_folder(paths: pa.ChunkedArray) -> Iterator[NDArray[np.int64]]:
    """Indices of paths in groups that fit into memory with their sizes.

    Each folder is in one group, or two: an object store lists folders to find the sizes.
    """
    many = len(paths) > _SIZES_BATCH
    order = pc.sort_indices(paths).to_numpy() if many else np.arange(len(paths))
    for start in range(0, len(paths), _SIZES_BATCH):
        yield order[start : start + _SIZES_BATCH].astype(np.int64)


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
    paths = pa.chunked_array([table["raw_path"].filter(is_processed).drop_null().unique()])
    removed = 0
    for group in _by_folder(paths):
        stored = storage.sizes(paths.take(group).to_pylist())
        storage.remove_all(stored)
        removed += len(stored)
    return removed
