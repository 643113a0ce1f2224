"""Find images that the retailer's other partitions have downloaded.

A catalogue that is listed again every day has mostly the same URLs. The newest row of such a URL is
taken over, or its ETag and Last-Modified are used to ask whether the image has changed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from imgassets.download.state import ASSET, in_batches, rows_with_urls, stored_paths
from imgassets.errors import BrokenFileError
from imgassets.manifests import RAW_IMAGES, Outcome, RawRow
from imgassets.storage import PartitionFiles, list_manifests

# What the choice among several rows of a URL needs.
_COLUMNS = ["url", "outcome", "path", "bytes", "sha256", "fetched_at"]


def find_known_images(
    partition: PartitionFiles, urls: Collection[str], days: int, *, keep_raw: bool
) -> Iterator[RawRow]:
    """Yield the newest row of each URL whose image is stored.

    Looks at the partition itself, where a URL may have another key, and at the other partitions of
    the retailer.

    Args:
        partition: The partition that needs the images.
        urls: The URLs to look up.
        days: Maximum number of days between the partition and another one.
        keep_raw: See `state.read_state`.

    Yields:
        One row per URL that is found, as in its manifest; `reused_from` is the day of the partition
        that downloaded the image, or None if that is `partition`.

    Raises:
        StorageError: The partition's own manifest is broken, or the storage cannot be read.
    """
    if not urls:
        return
    found: dict[str, RawRow] = {}
    for row in rows_with_urls(partition, urls):
        if row.outcome is Outcome.OK:
            known = found.get(row.url)
            if known is None or _fetched_at(known) <= _fetched_at(row):
                found[row.url] = row
    own_files = {(row.path, row.bytes, row.sha256) for row in found.values()}
    stored = stored_paths(partition, own_files, keep_raw=keep_raw)
    own = {url: row for url, row in found.items() if row.path in stored}

    others = _partitions_within(partition, days)
    best = _newest(others, urls)
    files = set(zip(*(best[name].to_pylist() for name in ("path", "bytes", "sha256")), strict=True))
    stored = stored_paths(partition, files, keep_raw=keep_raw)
    best = best.filter(pc.is_in(best["path"], value_set=pa.array(stored, pa.string())))
    for number in pc.unique(best["number"]).to_pylist():
        other = others[number]
        chosen = best.filter(pc.equal(best["number"], number))
        table = _read(other, RAW_IMAGES.names)
        is_chosen = pc.and_(
            pc.is_in(table["url"], value_set=chosen["url"].combine_chunks()),
            pc.equal(table["outcome"], str(Outcome.OK)),
        )
        seen: set[str] = set()
        for row in in_batches(table.filter(is_chosen)):
            if row.url in seen:  # listed by several products
                continue
            seen.add(row.url)
            mine = own.pop(row.url, None)
            if mine is not None and _fetched_at(mine) >= _fetched_at(row):
                yield mine
            else:
                from_here = row.reused_from == partition.date
                origin = None if from_here else row.reused_from or other.date
                yield replace(row, reused_from=origin)
    yield from own.values()


def _partitions_within(partition: PartitionFiles, days: int) -> list[PartitionFiles]:
    """The other partitions of the retailer, at most `days` away, by date."""
    day = dt.date.fromisoformat(partition.date)
    return [
        other
        for other in list_manifests(partition.storage, ASSET, partition.retailer)
        if 0 < abs((dt.date.fromisoformat(other.date) - day).days) <= days
    ]


def _newest(partitions: list[PartitionFiles], urls: Collection[str]) -> pa.Table:
    """The newest `ok` row of each URL.

    Args:
        partitions: The partitions, by date.
        urls: The URLs to look up.

    Returns:
        One row per URL: `_COLUMNS` except `outcome`, and `number`, the index in `partitions`.
    """
    wanted = pa.array(urls, pa.string())
    names = [name for name in _COLUMNS if name != "outcome"]
    schema = pa.schema([*map(RAW_IMAGES.field, names), pa.field("number", pa.int32())])
    best = schema.empty_table()
    for number, partition in enumerate(partitions):
        table = _read(partition, _COLUMNS)
        is_candidate = pc.and_(
            pc.equal(table["outcome"], str(Outcome.OK)),
            pc.is_in(table["url"], value_set=wanted),
        )
        table = table.filter(is_candidate).select(names)
        numbers = pa.array([number] * table.num_rows, pa.int32())
        table = table.append_column("number", numbers).cast(schema)
        # The sort is stable, so that of equal times the latest partition comes last.
        both = pa.concat_tables([best, table]).sort_by("fetched_at")
        columns = [*names[1:], "number"]
        grouped = both.group_by("url", use_threads=False)
        last = grouped.aggregate([(name, "last") for name in columns])
        best = last.rename_columns(["url", *columns]).cast(schema)
    return best


def _read(partition: PartitionFiles, columns: list[str]) -> pa.Table:
    """Columns of a manifest; empty if it is broken, which the checks of its partition report."""
    try:
        return partition.read_manifest(ASSET, columns)
    except (FileNotFoundError, BrokenFileError):
        return RAW_IMAGES.empty_table().select(columns)


def _fetched_at(row: RawRow) -> dt.datetime:
    return row.fetched_at or dt.datetime.min.replace(tzinfo=dt.UTC)
