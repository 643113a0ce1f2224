"""Determine which images of a partition are stored, and which URLs need a download.

Reading the manifest and the journal of a partition belongs here; writing them is in `partition`.
Images of other partitions are in `known_images`. A row is done if its outcome is `ok` and its file
is stored with the right size, or was removed because of `process.keep_raw: false`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from imgassets.journal import Journal
from imgassets.manifests import (
    RAW_IMAGES,
    URL_FIELDS,
    Outcome,
    RawRow,
    UrlRow,
    build_rows,
    column_values,
    from_table,
)
from imgassets.storage import PartitionFiles, processed_raw_sha256

ASSET = "raw_images"
_BATCH = 5_000
_url_values = attrgetter(*URL_FIELDS)


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What earlier runs have done in a partition.

    Attributes:
        done: URL by key, for the images that are stored.
        failed: Outcome by key, for the URLs whose last download failed.
        requested: Keys of `done` that were requested by a run that has not written its manifest; a
            refresh does not request them again.
    """

    done: Mapping[str, str]
    failed: Mapping[str, Outcome]
    requested: Collection[str]

    def is_stored(self, row: UrlRow) -> bool:
        """Return whether the image of the row is stored."""
        return self.done.get(row.key) == row.url

    def needs_download(
        self, row: UrlRow, *, refresh: bool, retry: Collection[Outcome] | None
    ) -> bool:
        """Return whether the URL of the row needs a request; see `partition.plan`."""
        if self.is_stored(row):
            return refresh and row.key not in self.requested
        outcome = self.failed.get(row.key)
        if outcome is Outcome.REMOVED:  # the URL served an image that was taken down
            return False
        return retry is None or outcome in (None, Outcome.NOT_FETCHED, *retry)


class _Result(NamedTuple):
    """The columns of a row that decide whether it is done."""

    url: str
    outcome: Outcome
    path: str | None
    bytes: int | None
    sha256: str | None
    requested: bool


def read_state(
    partition: PartitionFiles, url_rows: Iterable[UrlRow], *, keep_raw: bool
) -> PartitionState:
    """Return what earlier runs have done for these rows.

    Args:
        partition: The partition.
        url_rows: The rows.
        keep_raw: Whether served files are kept after processing. If not, a file that is missing,
            but was processed, counts as stored.

    Raises:
        StorageError: The manifest is broken, or the storage cannot be read.
    """
    results = _read_results(partition, {row.key for row in url_rows})
    failed = {key: r.outcome for key, r in results.items() if r.outcome is not Outcome.OK}
    ok = {key: r for key, r in results.items() if r.outcome is Outcome.OK}
    files = {(r.path, r.bytes, r.sha256) for r in ok.values()}
    stored = stored_paths(partition, files, keep_raw=keep_raw)
    done = {key: r for key, r in ok.items() if r.path in stored}
    return PartitionState(
        done={key: r.url for key, r in done.items()},
        failed=failed,
        requested={key for key, r in done.items() if r.requested},
    )


def stored_paths(
    partition: PartitionFiles,
    files: Collection[tuple[str | None, int | None, str | None]],
    *,
    keep_raw: bool,
) -> set[str]:
    """Return the paths of the served files that need no download.

    Args:
        partition: A partition of the retailer.
        files: Path, size in bytes and SHA-256 of served files, as in their rows.
        keep_raw: See `read_state`.

    Raises:
        StorageError: The storage cannot be read.
    """
    storage = partition.storage
    sizes = storage.sizes(path for path, _, _ in files if path is not None)
    stored = {path for path, size, _ in files if path is not None and sizes.get(path) == size}
    if not keep_raw:
        missing = {sha256: path for path, _, sha256 in files if path not in sizes and sha256}
        processed = processed_raw_sha256(storage, partition.retailer, missing.keys())
        stored |= {path for sha256 in processed if (path := missing[sha256]) is not None}
    return stored


def latest_rows(partition: PartitionFiles, url_rows: Iterable[UrlRow]) -> dict[str, RawRow]:
    """Return the last row of each URL in the manifest and in the journal.

    Args:
        partition: The partition.
        url_rows: The URLs, with their present catalogue data; a stored row counts if its key and
            its URL are the same.

    Returns:
        Rows by key.

    Raises:
        StorageError: The manifest is broken, or the storage cannot be read.
    """
    wanted = {row.key: row for row in url_rows}
    table = _read_manifest(partition, RAW_IMAGES.names)
    stored = zip(column_values(table, "key"), column_values(table, "url"), strict=True)
    listed = [_with_url(wanted.get(key), url) for key, url in stored]
    table = table.filter(pa.array([row is not None for row in listed], pa.bool_()))
    found = [row for row in listed if row is not None]
    # Strings shared with `url_rows` save memory: a partition may have 200,000 rows.
    columns: dict[str, Iterable[object]] = {
        name: map(attrgetter(name), found) for name in URL_FIELDS
    }
    for name in set(table.column_names) - set(URL_FIELDS):
        columns[name] = column_values(table, name)
    rows = {row.key: row for row in build_rows(RawRow, len(found), columns)}
    for values in Journal(partition, ASSET).rows():
        if (row := _with_url(wanted.get(values["key"]), values["url"])) is not None:
            values.update(zip(URL_FIELDS, _url_values(row), strict=True))
            rows[row.key] = RawRow(**values)
    return rows


def _with_url(row: UrlRow | None, url: str) -> UrlRow | None:
    """Return the row if it has this URL."""
    return row if row is not None and row.url == url else None


def rows_with_urls(partition: PartitionFiles, urls: Collection[str]) -> Iterator[RawRow]:
    """Yield the rows of the manifest and of the journal that have one of these URLs.

    Raises:
        StorageError: The manifest is broken, or the storage cannot be read.
    """
    table = _read_manifest(partition, RAW_IMAGES.names)
    yield from in_batches(
        table.filter(pc.is_in(table["url"], value_set=pa.array(urls, pa.string())))
    )
    for values in Journal(partition, ASSET).rows():
        if values["url"] in urls:
            yield RawRow(**values)


def in_batches(table: pa.Table) -> Iterator[RawRow]:
    """Yield the rows of a manifest of `raw_images`, with little memory."""
    for start in range(0, table.num_rows, _BATCH):
        yield from from_table(table.slice(start, _BATCH), RawRow)


def _read_results(partition: PartitionFiles, keys: Collection[str]) -> dict[str, _Result]:
    """Return the last result of each key in the manifest and in the journal."""
    results: dict[str, _Result] = {}
    columns = ["key", "url", "outcome", "path", "bytes", "sha256"]
    table = _read_manifest(partition, columns)
    stored = zip(*(column_values(table, name) for name in columns), strict=True)
    for key, url, outcome, path, size, sha256 in stored:
        if key in keys:
            results[key] = _Result(url, outcome, path, size, sha256, requested=False)
    for values in Journal(partition, ASSET).rows():
        if values["key"] in keys:
            results[values["key"]] = _Result(
                values["url"],
                values["outcome"],
                values.get("path"),
                values.get("bytes"),
                values.get("sha256"),
                # Rows that were taken over from another partition have no attempt.
                requested=bool(values["attempts"]),
            )
    return results


def _read_manifest(partition: PartitionFiles, columns: list[str]) -> pa.Table:
    try:
        return partition.read_manifest(ASSET, columns)
    except FileNotFoundError:
        return pa.table({name: pa.array([], RAW_IMAGES.field(name).type) for name in columns})
