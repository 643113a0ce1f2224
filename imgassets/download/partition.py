"""Plan and run the download of a partition, and write its manifest.

The order of writes belongs here. It makes a partition safe against `kill -9` at any time: images
are written first, then a journal part that names them, then the manifest, and only then the journal
is removed. Which URLs need a download is in `state`; the threads are in `pool`.

`folder` always means the partition's folder of the asset `raw_images`: `manifest.parquet`, the
images in `images/<key>.<extension>`, the journal in `_journal/`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from imgassets.download import journal
from imgassets.download.client import Client
from imgassets.download.exchange import Exchange, raw_row
from imgassets.download.pool import Pool
from imgassets.download.report import ReportBuilder, ShardReport
from imgassets.download.reuse import find_obsolete_files, reuse_stored_images
from imgassets.download.schedule import HostLimits, Schedule, Task
from imgassets.download.state import (
    latest_rows,
    read_manifest_and_journal,
    read_manifest_rows,
    read_state,
)
from imgassets.download.urls import normalise, origin
from imgassets.errors import InvalidUrlError, SettingsError
from imgassets.manifests import Outcome, RawRow, UrlRow, to_table
from imgassets.progress import Progress
from imgassets.settings import DownloadSettings
from imgassets.storage import IMAGES, Folder, write_table

_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Shard:
    """A slice of a partition's URLs; see `shard_rows`.

    Attributes:
        name: Name of the shard in the log and in the journal.
        start: Index of the first row, with the rows grouped by URL.
        stop: Index after the last row.
    """

    name: str
    start: int
    stop: int


def plan(
    url_rows: Sequence[UrlRow],
    folder: Folder,
    shard_size: int,
    *,
    refresh: bool = False,
    retry: Collection[Outcome] | None = None,
) -> list[Shard]:
    """Split a partition into shards.

    Also removes the temporary files of killed writers, so that no shard of the partition may be
    running, and takes over images that are stored under another key.

    Args:
        url_rows: All rows of the partition.
        folder: The partition's folder.
        shard_size: Number of rows per shard; more if the last URL has more rows.
        refresh: See `download_shard`.
        retry: See `download_shard`.

    Returns:
        The shards that have URLs to download.

    Raises:
        StorageError: The storage cannot be read, or the manifest or the journal is broken.
    """
    for subfolder in (folder, folder / IMAGES, folder / journal.JOURNAL):
        subfolder.remove_temporaries()
    reuse_stored_images(url_rows, folder)
    state = read_state(folder, url_rows)
    ordered = _group_by_url(url_rows)
    shards: list[Shard] = []
    number = start = 0
    while start < len(ordered):
        stop = min(start + shard_size, len(ordered))
        # Keep the rows of a URL in one shard, so that it is fetched once.
        while stop < len(ordered) and ordered[stop].url == ordered[stop - 1].url:
            stop += 1
        if any(
            state.needs_download(row, refresh=refresh, retry=retry) for row in ordered[start:stop]
        ):
            shards.append(Shard(f"shard_{number:04d}", start, stop))
        start = stop
        number += 1
    return shards


def shard_rows(url_rows: Sequence[UrlRow], shard: Shard) -> list[UrlRow]:
    """Return the rows of one shard.

    Args:
        url_rows: All rows of the partition, the same as for `plan`.
        shard: The shard.
    """
    return _group_by_url(url_rows)[shard.start : shard.stop]


def download_shard(
    url_rows: Sequence[UrlRow],
    folder: Folder,
    settings: DownloadSettings,
    *,
    shard: str,
    log: Callable[[str], None],
    refresh: bool = False,
    retry: Collection[Outcome] | None = None,
) -> ShardReport:
    """Download the images of one shard that are not stored yet.

    Args:
        url_rows: Rows of the shard.
        folder: The partition's folder.
        settings: Settings of the retailer.
        shard: Name of the shard for the log and the journal; matches `[A-Za-z0-9_-]+`.
        log: Receives progress lines; called by several threads.
        refresh: Whether to ask if stored images have changed. If the request fails, the image keeps
            its file and its row, whose `error` says why.
        retry: Outcomes of failed downloads to try again; None for all.

    Returns:
        Totals of this run.

    Raises:
        StorageError: An image or the journal cannot be written; finished rows are kept.
        SettingsError: pycurl is missing, or the settings name an environment variable that is not
            set.
    """
    state = read_state(folder, url_rows)
    pending_rows = [
        row for row in url_rows if state.needs_download(row, refresh=refresh, retry=retry)
    ]
    previous_rows: dict[str, RawRow] = {}
    if refresh:
        journal.mark_refresh(folder)
        previous_rows = read_manifest_rows(
            folder, [row for row in pending_rows if state.is_stored(row)]
        )
    client = _build_client(settings)
    report_builder = ReportBuilder(previous_rows)
    progress = Progress(shard, len(url_rows), log, already_done=len(url_rows) - len(pending_rows))
    writer = journal.JournalWriter(folder, shard)
    tasks, invalid = _build_tasks(pending_rows, previous_rows)
    writer.add(invalid)
    progress.add(invalid, report_builder.add(invalid))
    schedule = Schedule(tasks, _host_limits(settings))
    exchange = Exchange(client, settings, folder)
    threads = min(settings.threads, len(tasks))
    with Pool(schedule, exchange, client, threads=threads, log=log) as pool:
        _record_rows(pool, writer, progress, report_builder)
    progress.log()
    return report_builder.report()


def _record_rows(
    pool: Pool, writer: journal.JournalWriter, progress: Progress, report_builder: ReportBuilder
) -> None:
    """Run the pool to its end, and record the rows that it finishes."""
    try:
        pool.start()
        while (rows := pool.wait(_POLL_S)) is not None:
            writer.add(rows)
            progress.add(rows, report_builder.add(rows))
            writer.flush_if_due()
            progress.log_if_due()
    finally:
        # Also reached when Dagster interrupts this thread.
        pool.stop()
        writer.add(pool.drain())
        writer.flush()


def collect(url_rows: Sequence[UrlRow], folder: Folder) -> list[RawRow]:
    """Write the manifest, then remove the journal and the files that are not needed any more.

    Images whose URL has left the catalogue stay.

    Args:
        url_rows: All rows of the partition.
        folder: The partition's folder.

    Returns:
        The rows of the manifest, one per row of `url_rows`, in the same order.

    Raises:
        StorageError: The manifest cannot be written; the journal is kept.
    """
    previous = read_manifest_and_journal(folder)
    latest = latest_rows(previous, url_rows)
    previous = previous.select(["key", "url", "path"])
    rows = [latest.get(row.key) or _not_fetched(row) for row in url_rows]
    write_table(folder, to_table(rows, RawRow))
    journal.remove(folder)
    images = folder / IMAGES
    for name in find_obsolete_files(images.sizes(), rows, previous):
        images.remove(name)
    return rows


def _not_fetched(row: UrlRow) -> RawRow:
    message = "the run ended before this URL was requested; materialize the partition again"
    return raw_row(row, Outcome.NOT_FETCHED, error=message)


def _group_by_url(url_rows: Iterable[UrlRow]) -> list[UrlRow]:
    """Return the rows in their order, except that rows of one URL follow each other."""
    by_url: dict[str, list[UrlRow]] = {}
    for row in url_rows:
        by_url.setdefault(row.url, []).append(row)
    return [row for group in by_url.values() for row in group]


def _build_tasks(
    url_rows: Iterable[UrlRow], previous_rows: Mapping[str, RawRow]
) -> tuple[list[Task], list[RawRow]]:
    """Return one task per valid URL, and the finished rows of invalid URLs."""
    by_url: dict[str, list[UrlRow]] = {}
    invalid: list[RawRow] = []
    for row in url_rows:
        try:
            by_url.setdefault(normalise(row.url), []).append(row)
        except InvalidUrlError as error:
            invalid.append(raw_row(row, Outcome.INVALID_URL, error=str(error)))
    tasks = []
    for url, rows in by_url.items():
        host = origin(url)
        task = Task(tuple(rows), url, host, first_url=url, first_host=host)
        previous = tuple(previous_rows[row.key] for row in rows if row.key in previous_rows)
        # A conditional request gets no body: all rows of the URL must have the same image already.
        if len(previous) == len(rows) and len({row.sha256 for row in previous}) == 1:
            task.previous_rows = previous
        tasks.append(task)
    return tasks, invalid


def _host_limits(settings: DownloadSettings) -> HostLimits:
    return HostLimits(
        max_concurrent=settings.per_host,
        interval_s=1 / settings.rate_per_host if settings.rate_per_host else 0,
        max_failures=settings.breaker_failures,
        cooldown_s=settings.breaker_cooldown_s,
        wait_for_robots=settings.robots,
    )


def _build_client(settings: DownloadSettings) -> Client:
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
