"""Find images that the retailer's other partitions have downloaded.

A catalogue that is listed again every day has mostly the same URLs. The newest row of such a URL is
taken over, or its ETag and Last-Modified are used to ask whether the image has changed.
"""

from __future__ import annotations

import datetime as dt
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgassets.download.state import (
    ASSET,
    RECORDED,
    raw_manifest_batches,
    read_raw_manifest,
    recorded_rows,
    stored_files,
)
from imgassets.errors import BrokenFileError
from imgassets.manifests import Outcome
from imgassets.storage import PartitionFiles, list_manifests
from imgassets.tables import as_mask, filter_rows, index_in, set_column, take_rows

_NEVER = np.iinfo(np.int64).min


def find_known_images(
    partition: PartitionFiles, urls: pa.Array, days: int, *, keep_raw: bool
) -> pa.Table:
    """The newest row of each URL whose image is stored.

    Looks at the partition itself, where a URL may have another key, and at the other partitions of
    the retailer.

    Args:
        partition: The partition that needs the images.
        urls: The URLs to look up, each once.
        days: Maximum number of days between the partition and another one.
        keep_raw: See `state.read_state`.

    Returns:
        One row per URL that is found, as in its manifest; `reused_from` is the day of the partition
        that downloaded the image, or null if that is `partition`.

    Raises:
        StorageError: The partition's own manifest is broken, or the storage cannot be read.
    """
    others = _find_in_others(partition, urls, days)
    others = filter_rows(others, stored_files(partition, others, keep_raw=keep_raw))
    own = recorded_rows(partition)
    if not own.num_rows:
        return others
    own_numbers, _ = _newest(own, urls)
    own = own.take(pa.array(own_numbers[own_numbers >= 0]))
    own = filter_rows(own, stored_files(partition, own, keep_raw=keep_raw))
    # Of equal times, the partition's own row counts.
    numbers = index_in(own["url"], others["url"])
    times = np.append(_times(others), _NEVER)[numbers]
    is_newer = (numbers < 0) | (_times(own) >= times)
    is_kept = np.ones(others.num_rows, np.bool_)
    is_kept[numbers[is_newer & (numbers >= 0)]] = False
    return pa.concat_tables([filter_rows(others, is_kept), filter_rows(own, is_newer)])


def _find_in_others(partition: PartitionFiles, urls: pa.Array, days: int) -> pa.Table:
    """The newest `ok` row of each URL in the other partitions of the retailer."""
    others = _partitions_within(partition, days)
    best_times = np.full(len(urls), _NEVER)
    best_others = np.full(len(urls), -1)
    best_rows = np.full(len(urls), -1)
    for number, other in enumerate(others):
        rows, times = _newest(_read(other, ["url", "outcome", "fetched_at"]), urls)
        # Of equal times, the latest partition counts.
        is_better = (rows >= 0) & (times >= best_times)
        best_times[is_better], best_rows[is_better] = times[is_better], rows[is_better]
        best_others[is_better] = number
    found = [RECORDED.empty_table()]
    for number in np.unique(best_others[best_others >= 0]).tolist():
        chosen = np.flatnonzero(best_others == number)
        chosen = chosen[np.argsort(best_rows[chosen])]
        found.append(_read_rows(others[number], partition.date, urls, chosen, best_rows[chosen]))
    return pa.concat_tables(found)


def _partitions_within(partition: PartitionFiles, days: int) -> list[PartitionFiles]:
    """The other partitions of the retailer, at most `days` away, by date."""
    day = dt.date.fromisoformat(partition.date)
    return [
        other
        for other in list_manifests(partition.storage, ASSET, partition.retailer)
        if 0 < abs((dt.date.fromisoformat(other.date) - day).days) <= days
    ]


def _newest(table: pa.Table, urls: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The newest `ok` row of each URL.

    Args:
        table: Rows of `raw_images`, oldest first.
        urls: The URLs.

    Returns:
        By URL, the index of its row, -1 if there is none; and the time of that row.
    """
    positions = index_in(table["url"], pa.chunked_array([urls]))
    is_ok = as_mask(pc.equal(table["outcome"], str(Outcome.OK)))
    candidates = np.flatnonzero(is_ok & (positions >= 0))
    times = _times(table)
    # Stable, so that of equal times the last row counts.
    candidates = candidates[np.argsort(times[candidates], kind="stable")]
    rows, newest = np.full(len(urls), -1), np.full(len(urls), _NEVER)
    rows[positions[candidates]] = candidates
    newest[positions[candidates]] = times[candidates]
    return rows, newest


def _times(table: pa.Table) -> NDArray[np.int64]:
    """The times of `fetched_at` in milliseconds."""
    times = table["fetched_at"].cast(pa.int64()).fill_null(_NEVER)
    return np.asarray(times.to_numpy(), np.int64)


def _read_rows(
    other: PartitionFiles,
    day: str,
    urls: pa.Array,
    chosen: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> pa.Table:
    """Rows of another partition, with `reused_from` as seen from the day of a partition.

    Args:
        other: The other partition.
        day: The day.
        urls: All URLs.
        chosen: Indices of the URLs whose rows to read. Rows that have another URL are left out: a
            run has replaced the manifest meanwhile.
        rows: The indices of their rows, in ascending order.
    """
    found, start = [RECORDED.empty_table()], 0
    with suppress(BrokenFileError):  # see `_read`
        for batch in raw_manifest_batches(other):
            first, end = np.searchsorted(rows, [start, start + batch.num_rows])
            part = take_rows(batch, rows[first:end] - start)
            is_same = pc.and_(
                pc.equal(part["url"], urls.take(pa.array(chosen[first:end]))),
                pc.equal(part["outcome"], str(Outcome.OK)),
            )
            found.append(filter_rows(part, as_mask(is_same)))
            start += batch.num_rows
    table = pa.concat_tables(found)
    here, origin = (pa.scalar(date).cast(pa.date32()) for date in (day, other.date))
    reused_from = pc.if_else(
        pc.equal(table["reused_from"], here).fill_null(False),
        pa.scalar(None, pa.date32()),
        pc.coalesce(table["reused_from"], origin),
    )
    return set_column(table, "reused_from", reused_from)


def _read(partition: PartitionFiles, columns: list[str]) -> pa.Table:
    """Columns of a manifest; empty if it is broken, which the checks of its partition report."""
    try:
        return read_raw_manifest(partition, columns)
    except BrokenFileError:
        return RECORDED.empty_table().select(columns)
