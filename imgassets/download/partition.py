"""A partition's pictures: what is missing, the download of one shard of it, the manifest.

Here lives the order of things that makes a partition safe against `kill -9` at any moment:
pictures are written whole, then a journal part that names them, at last the manifest; only then the
journal goes. A row is done when it is `ok` and its file lies there in the right size.

`folder` is always the partition's folder of the `raw_images` asset: `manifest.parquet`, the
pictures in `images/<key>.<extension>`, the journal in `_journal/`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from imgassets.download import journal
from imgassets.download.client import Client
from imgassets.download.exchange import Exchange, raw_row
from imgassets.download.pool import Pool
from imgassets.download.report import Progress, ShardReport
from imgassets.download.schedule import HostLimits, Schedule, Task
from imgassets.download.urls import InvalidUrlError, normalise, origin
from imgassets.manifests import RAW_IMAGES, Outcome, RawRow, UrlRow, from_table, to_table
from imgassets.settings import DownloadSettings, SettingsError
from imgassets.storage import IMAGES, Folder, read_table, write_table

_PROGRESS_S = 5.0
_POLL_S = 0.2


class CancelledError(Exception):
    """The download was cancelled; what was done is kept."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A slice of a partition's URLs; see `shard_rows`."""

    name: str
    start: int
    stop: int


def plan(url_rows: Sequence[UrlRow], folder: Folder, shard_size: int) -> list[Shard]:
    """Cut a partition into shards of about `shard_size` rows; those with work left are returned.

    What writers that were killed left behind is swept away: no shard of the partition may be at
    work.
    """
    for place in (folder, folder / IMAGES, folder / journal.JOURNAL):
        place.remove_temporaries()
    done = _done(_known(folder), folder)
    ordered = _in_order(url_rows)
    shards: list[Shard] = []
    number = start = 0
    while start < len(ordered):
        stop = min(start + shard_size, len(ordered))
        # Rows of one URL stay together, so that it is fetched once.
        while stop < len(ordered) and ordered[stop].url == ordered[stop - 1].url:
            stop += 1
        if any(not _is_done(row, done) for row in ordered[start:stop]):
            shards.append(Shard(f"shard_{number:04d}", start, stop))
        start = stop
        number += 1
    return shards


def shard_rows(url_rows: Sequence[UrlRow], shard: Shard) -> list[UrlRow]:
    """The rows of a shard of this partition."""
    return _in_order(url_rows)[shard.start : shard.stop]


def download_shard(
    url_rows: Sequence[UrlRow],
    folder: Folder,
    settings: DownloadSettings,
    *,
    shard: str,
    log: Callable[[str], None],
    cancelled: threading.Event,
) -> ShardReport:
    """Fetch the pictures of these rows that are not there yet; failed ones are tried again.

    Args:
        url_rows: the rows of one shard.
        folder: the partition's folder.
        settings: the retailer's.
        shard: names the shard in the log and in the journal; `[A-Za-z0-9_-]+`.
        log: takes progress lines; called by several threads.
        cancelled: set by another thread to stop the download.

    Raises:
        StorageError: a picture or the journal cannot be written; what was done is kept.
        CancelledError: `cancelled` was set; what was done is kept.
    """
    done = _done(_known(folder), folder)
    missing = [row for row in url_rows if not _is_done(row, done)]
    progress = Progress(shard, len(url_rows), len(url_rows) - len(missing))
    writer = journal.JournalWriter(folder, shard)
    tasks, refused = _tasks(missing)
    writer.add(refused)
    progress.add(refused)
    client = _client(settings)
    schedule = Schedule(tasks, _host_limits(settings))
    exchange = Exchange(client, settings, folder)
    threads = min(settings.threads, len(tasks))
    told = time.monotonic()
    with Pool(schedule, exchange, client, threads=threads, log=log) as pool:
        try:
            while (rows := pool.wait(_POLL_S)) is not None:
                writer.add(rows)
                progress.add(rows)
                writer.flush_if_due()
                if cancelled.is_set():
                    raise CancelledError(f"{shard} was cancelled; what was done is kept")
                if time.monotonic() - told >= _PROGRESS_S:
                    told = time.monotonic()
                    log(progress.line)
        finally:
            # Also when Dagster interrupts this thread.
            pool.stop()
            writer.add(pool.rest())
            writer.flush()
    log(progress.line)
    return progress.report()


def collect(url_rows: Sequence[UrlRow], folder: Folder) -> list[RawRow]:
    """Write the manifest: one row a URL row, in their order; then the journal goes.

    Pictures that no row names (left by a run that was killed, or of URLs that are no longer in the
    catalogue) are removed.

    Raises:
        StorageError: the manifest cannot be written; the journal is kept.
    """
    known = {row.key: row for row in from_table(_known(folder), RawRow)}
    rows = [_last_row(row, known.get(row.key)) for row in url_rows]
    write_table(folder, to_table(rows, RawRow))
    journal.remove(folder)
    images = folder / IMAGES
    named = {row.path.removeprefix(f"{IMAGES}/") for row in rows if row.path is not None}
    for name in images.sizes().keys() - named:
        images.remove(name)
    return rows


def _last_row(row: UrlRow, known: RawRow | None) -> RawRow:
    if known is None or known.url != row.url:
        message = "the run ended before the turn of this URL; materialize the partition again"
        return raw_row(row, Outcome.NOT_FETCHED, error=message)
    # The catalogue may have changed what stands beside the URL.
    values = {
        field.name: getattr(known, field.name)
        for field in RAW_IMAGES
        if not hasattr(row, field.name) and field.name != "outcome"
    }
    return raw_row(row, known.outcome, **values)


def _known(folder: Folder) -> pa.Table:
    """The manifest, then the journal: of rows with one key, the last holds."""
    try:
        manifest = read_table(folder)
    except FileNotFoundError:
        manifest = RAW_IMAGES.empty_table()
    return pa.concat_tables([manifest.select(RAW_IMAGES.names), journal.read(folder)])


def _done(known: pa.Table, folder: Folder) -> dict[str, str]:
    """Key and URL of the pictures that are there."""
    sizes = (folder / IMAGES).sizes()
    columns = known.select(["key", "url", "outcome", "path", "bytes"]).to_pydict()
    done: dict[str, str] = {}
    for key, url, outcome, path, size in zip(*columns.values(), strict=True):
        if outcome == Outcome.OK and sizes.get(path.removeprefix(f"{IMAGES}/")) == size:
            done[key] = url
        else:
            done.pop(key, None)
    return done


def _is_done(row: UrlRow, done: dict[str, str]) -> bool:
    return done.get(row.key) == row.url


def _in_order(url_rows: Iterable[UrlRow]) -> list[UrlRow]:
    """The rows as they come, but those of one URL together."""
    by_url: dict[str, list[UrlRow]] = {}
    for row in url_rows:
        by_url.setdefault(row.url, []).append(row)
    return [row for group in by_url.values() for row in group]


def _tasks(url_rows: Iterable[UrlRow]) -> tuple[list[Task], list[RawRow]]:
    """A task for each URL, and the rows of what is no URL."""
    by_url: dict[str, list[UrlRow]] = {}
    refused: list[RawRow] = []
    for row in url_rows:
        try:
            by_url.setdefault(normalise(row.url), []).append(row)
        except InvalidUrlError as error:
            refused.append(raw_row(row, Outcome.INVALID_URL, error=str(error)))
    tasks = [
        Task(tuple(rows), url, host := origin(url), first_url=url, first_host=host)
        for url, rows in by_url.items()
    ]
    return tasks, refused


def _host_limits(settings: DownloadSettings) -> HostLimits:
    return HostLimits(
        at_once=settings.per_host,
        interval_s=1 / settings.rate_per_host if settings.rate_per_host else 0,
        failures=settings.breaker_failures,
        rest_s=settings.breaker_rest_s,
        gated=settings.robots,
    )


def _client(settings: DownloadSettings) -> Client:
    if settings.client == "requests":
        from imgassets.download.requests_client import RequestsClient

        return RequestsClient(
            connections=settings.threads, allow_private=settings.allow_private_addresses
        )
    try:
        from imgassets.download.curl_client import CurlClient
    except ImportError as error:
        raise SettingsError(
            f"download.client is curl, but pycurl cannot be imported ({error}); "
            "install pycurl, or set download.client: requests"
        ) from error
    return CurlClient(allow_private=settings.allow_private_addresses)
