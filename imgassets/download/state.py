"""Determine which images of a partition are stored, and which URLs need a download.

Reading the manifest and the journal of a partition belongs here; writing them is in `partition`.
Images of other partitions are in `known_images`. A row is done if its outcome is `ok` and its file
is stored with the right size, or was removed because of `process.keep_raw: false`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgassets.journal import Journal
from imgassets.manifests import RAW_IMAGES, URL_FIELDS, Outcome, RawRow, to_tables
from imgassets.storage import PartitionFiles, processed_raw_sha256
from imgassets.tables import as_mask, index_in, take_rows

ASSET = "raw_images"
RECORDED = pa.schema([field.with_nullable(True) for field in RAW_IMAGES])
"""Columns of recorded rows; a URL that has none gets a row of nulls."""


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What earlier runs have done for the URLs of a partition; one value per URL, in their order.

    Attributes:
        stored: Whether the image is stored.
        failed: Outcome of the last download if it failed; null if it did not, or there was none.
        requested: Whether a run requested the image that has not written its manifest; a refresh
            does not request it again.
    """

    stored: NDArray[np.bool_]
    failed: pa.ChunkedArray
    requested: NDArray[np.bool_]

    def needs_download(
        self, *, refresh: bool, retry: Collection[Outcome] | None
    ) -> NDArray[np.bool_]:
        """Whether each URL needs a request; see `partition.plan`."""
        # A URL that served an image that was taken down is never requested.
        missing = as_mask(pc.not_equal(self.failed, str(Outcome.REMOVED)).fill_null(True))
        if retry is not None:
            retried = pa.array([None, str(Outcome.NOT_FETCHED), *map(str, retry)], pa.string())
            missing &= as_mask(pc.is_in(self.failed, value_set=retried))
        again = ~self.requested if refresh else np.zeros_like(self.requested)
        return np.where(self.stored, again, missing)


def read_state(partition: PartitionFiles, urls: pa.Table, *, keep_raw: bool) -> PartitionState:
    """What earlier runs have done for these URLs.

    Args:
        partition: The partition.
        urls: Rows of `url_list`, with different keys.
        keep_raw: Whether served files are kept after processing. If not, a file that is missing,
            but was processed, counts as stored.

    Raises:
        StorageError: The manifest is broken, or the storage cannot be read.
    """
    columns = ["key", "url", "outcome", "path", "bytes", "sha256"]
    manifest = read_raw_manifest(partition, columns)
    journal = _read_journal(partition, [*columns, "attempts"])
    recorded = pa.concat_tables([manifest, journal.select(columns)])
    numbers = _last_rows(urls, recorded)
    results = take_rows(recorded, numbers)
    ok = as_mask(pc.equal(results["outcome"], str(Outcome.OK)))
    stored = np.zeros(len(ok), np.bool_)
    stored[ok] = stored_files(partition, results.filter(pa.array(ok)), keep_raw=keep_raw)
    # Rows that were taken over from another partition have no attempt.
    requested = np.concatenate(
        [np.zeros(manifest.num_rows + 1, np.bool_), as_mask(pc.greater(journal["attempts"], 0))]
    )
    return PartitionState(
        stored=stored & as_mask(pc.equal(results["url"], urls["url"])),
        failed=pc.if_else(pa.array(ok), pa.scalar(None, pa.string()), results["outcome"]),
        requested=requested[numbers + 1],
    )


def stored_files(
    partition: PartitionFiles, files: pa.Table, *, keep_raw: bool
) -> NDArray[np.bool_]:
    """Which served files need no download.

    Args:
        partition: A partition of the retailer.
        files: Columns `path`, `bytes` and `sha256` of rows that name a file.
        keep_raw: See `read_state`.

    Raises:
        StorageError: The storage cannot be read.
    """
    sizes = partition.storage.column_sizes(files["path"])
    stored = as_mask(pc.equal(sizes, files["bytes"]))
    missing = as_mask(pc.and_(pc.is_null(sizes), pc.is_valid(files["path"])))
    if not keep_raw and missing.any():
        sha256 = files["sha256"].filter(pa.array(missing))
        processed = processed_raw_sha256(partition.storage, partition.retailer, sha256)
        stored |= missing & as_mask(pc.is_in(files["sha256"], value_set=processed))
    return stored


def latest_rows(partition: PartitionFiles, urls: pa.Table) -> pa.Table:
    """The last row of each URL in the manifest and in the journal.

    Args:
        partition: The partition.
        urls: Rows of `url_list`, with different keys; a stored row counts if its key and its URL
            are the same.

    Returns:
        One row of `raw_images` per URL, in their order, with the catalogue data of `urls`; other
        columns are null if there is none.

    Raises:
        StorageError: The manifest is broken, or the storage cannot be read.
    """
    others = [name for name in RECORDED.names if name not in URL_FIELDS]
    recorded = recorded_rows(partition, ["key", "url", *others])
    numbers = _last_rows(urls, recorded, same_url=True)
    rows = take_rows(recorded.select(others), numbers)
    for name in URL_FIELDS:
        rows = rows.append_column(RECORDED.field(name), urls[name])
    return rows


def recorded_rows(partition: PartitionFiles, columns: list[str] = RECORDED.names) -> pa.Table:
    """Columns of the rows of the manifest, then of those of the journal.

    Raises:
        StorageError: The manifest is broken, or the storage cannot be read.
    """
    manifest, journal = read_raw_manifest(partition, columns), _read_journal(partition, columns)
    return pa.concat_tables([manifest, journal])


def read_raw_manifest(partition: PartitionFiles, columns: list[str]) -> pa.Table:
    """Columns of the manifest of `raw_images`; empty if there is no manifest.

    Optional columns that it lacks are null.

    Raises:
        KeyError: The manifest lacks a column that is not optional.
        StorageError: The manifest is broken, or the storage cannot be read.
    """
    try:
        return _as_recorded(partition.read_manifest(ASSET, columns), columns)
    except FileNotFoundError:
        return RECORDED.empty_table().select(columns)


def raw_manifest_batches(partition: PartitionFiles) -> Iterator[pa.Table]:
    """Read the manifest of `raw_images` in parts, which take less memory; see `read_raw_manifest`.

    Raises:
        KeyError: The manifest lacks a column that is not optional.
        StorageError: The manifest is broken, or the storage cannot be read.
    """
    with suppress(FileNotFoundError):
        for batch in partition.open_manifest(ASSET).parts(RECORDED.names):
            yield _as_recorded(batch, RECORDED.names)


def _as_recorded(table: pa.Table, columns: list[str]) -> pa.Table:
    schema = pa.schema([RECORDED.field(name) for name in columns])
    for name in columns:
        if name not in table.column_names and RAW_IMAGES.field(name).nullable:
            nulls = pa.nulls(table.num_rows, schema.field(name).type)
            table = table.append_column(name, nulls)
    return table.select(columns).cast(schema)


def _read_journal(partition: PartitionFiles, columns: list[str]) -> pa.Table:
    """Columns of the rows of the journal."""
    schema = pa.schema([RECORDED.field(name) for name in columns])
    rows = (RawRow(**values) for values in Journal(partition, ASSET).rows())
    tables = (table.select(columns).cast(schema) for table in to_tables(rows, RawRow))
    return pa.concat_tables([schema.empty_table(), *tables])


def _last_rows(urls: pa.Table, recorded: pa.Table, *, same_url: bool = False) -> NDArray[np.int64]:
    """The index of the last recorded row of each URL; -1 if there is none.

    Args:
        urls: Rows of `url_list`.
        recorded: The rows that were recorded, oldest first.
        same_url: Whether a row with the same key counts only if it has the same URL.
    """
    if recorded["key"].equals(urls["key"]):  # usually nothing was added or removed
        positions = np.arange(urls.num_rows)
    else:
        positions = index_in(recorded["key"], urls["key"])
    numbers = np.flatnonzero(positions >= 0)
    if same_url:
        listed = take_rows(urls.select(["url"]), positions[numbers])["url"]
        found = take_rows(recorded.select(["url"]), numbers)["url"]
        numbers = numbers[as_mask(pc.equal(found, listed))]
    last = np.full(urls.num_rows, -1)
    last[positions[numbers]] = numbers
    return last
