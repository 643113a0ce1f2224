"""Plan and run the download of a partition, and write its manifest.

The order of writes belongs here. It makes a partition safe against `kill -9` at any time: an image
is written first, then a line of the journal that names it, then the manifest, and only then the
journal is removed. Which URLs need a download is in `state`, images of other partitions are found
in `known_images`; the threads are in `pool`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imgassets.download.client import Client
from imgassets.download.exchange import Exchange, raw_row
from imgassets.download.known_images import find_known_images
from imgassets.download.pool import Pool
from imgassets.download.report import ReportBuilder, ShardReport
from imgassets.download.request_headers import expand_variables
from imgassets.download.schedule import HostLimits, Schedule, Task
from imgassets.download.state import ASSET, latest_rows, read_state
from imgassets.errors import InvalidUrlError, SettingsError
from imgassets.journal import Journal, JournalWriter
from imgassets.manifests import URL_FIELDS, Outcome, RawRow, Row, UrlRow, from_table, to_table
from imgassets.progress import Progress
from imgassets.settings import DownloadSettings, RetailerSettings, section_hash
from imgassets.storage import PartitionFiles, read_table, write_table
from imgassets.takedown import is_redacted, read_takedowns
from imgassets.urls import normalise, origin
from imgassets.wording import counted

if TYPE_CHECKING:
    from imgassets.download.shared_limits import SharedLimits

_POLL_S = 0.2
# Files beside the journal, one per shard: the URLs to request; rows whose images may have changed.
_URLS, _PREVIOUS = ".urls.parquet", ".previous.parquet"


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of a partition's URLs that need a request.

    Its rows are stored beside the journal, so that any machine can download it.

    Attributes:
        name: Name of the shard in the log and in the journal.
        journal_start: Number of the first journal file that may have rows of this shard.
    """

    name: str
    journal_start: int


def plan(
    url_rows: Sequence[UrlRow],
    partition: PartitionFiles,
    settings: RetailerSettings,
    *,
    log: Callable[[str], None],
    refresh: bool = False,
    retry: Collection[Outcome] | None = None,
) -> list[Shard]:
    """Take over the images that are known, and split the other URLs of a partition into shards.

    No shard of the partition may be running.

    Args:
        url_rows: All rows of the partition.
        partition: The partition.
        settings: Settings of the retailer.
        log: Receives a line about images that are taken over.
        refresh: Whether to ask if stored images have changed. If the request fails, the image keeps
            its file and its row, whose `error` says why.
        retry: Outcomes of failed downloads to try again; None for all.

    Returns:
        The shards that have URLs to request.

    Raises:
        StorageError: The storage cannot be read or written, or the manifest is broken.
    """
    storage, journal = partition.storage, Journal(partition, ASSET)
    storage.remove_old_temporaries()
    for name in storage.names(journal.folder):
        if name.endswith((_URLS, _PREVIOUS)):  # of a run that was killed
            storage.remove(f"{journal.folder}/{name}")
    listed = [row for row in _redact(url_rows, partition) if not is_redacted(row.url)]
    state = read_state(partition, listed, keep_raw=settings.process.keep_raw)
    pending = [row for row in listed if state.needs_download(row, refresh=refresh, retry=retry)]
    taken_over, previous = _take_over(pending, partition, settings, refresh=refresh)
    if taken_over:
        log(f"{counted(len(taken_over), 'image')} downloaded before and not requested again")
    by_url = _group_by_url(row for row in pending if row.key not in taken_over)
    shards: list[Shard] = []
    start = journal.next_number()
    for rows in _split(by_url.values(), settings.download.shard_size):
        shard = Shard(f"shard_{len(shards):04d}", start)
        write_table(storage, f"{journal.folder}/{shard.name}{_URLS}", to_table(rows, UrlRow))
        if known := [previous[row.key] for row in rows if row.key in previous]:
            path = f"{journal.folder}/{shard.name}{_PREVIOUS}"
            write_table(storage, path, to_table(known, RawRow))
        shards.append(shard)
    return shards


def _take_over(
    pending: Sequence[UrlRow],
    partition: PartitionFiles,
    settings: RetailerSettings,
    *,
    refresh: bool,
) -> tuple[set[str], dict[str, RawRow]]:
    """Write rows whose images are stored to the journal.

    Returns:
        Their keys; and by key the rows whose images are stored, but may have changed.
    """
    options = settings.download
    by_url = _group_by_url(pending)
    known_images = find_known_images(
        partition, by_url.keys(), options.reuse_days, keep_raw=settings.process.keep_raw
    )
    fresh_after = dt.datetime.now(dt.UTC) - dt.timedelta(days=options.revalidate_after_days)
    taken_over: set[str] = set()
    previous: dict[str, RawRow] = {}
    with Journal(partition, ASSET).writer("known") as writer:
        for known in known_images:
            is_recent = known.fetched_at is not None and known.fetched_at >= fresh_after
            rows = [
                _with_url_values(known, row, attempts=0, elapsed_ms=None, error=None)
                for row in by_url[known.url]
            ]
            # Documents of one day that list a URL have one image of it.
            fresh = [row for row in rows if is_recent or row.date == known.date]
            if not refresh:
                writer.add(fresh)
                writer.flush_if_due()
                taken_over.update(row.key for row in fresh)
            previous.update((row.key, row) for row in rows if row.key not in taken_over)
    return taken_over, previous


def download_shard(
    shard: Shard,
    partition: PartitionFiles,
    settings: DownloadSettings,
    *,
    log: Callable[[str], None],
) -> ShardReport:
    """Request the URLs of one shard that have no row in the journal yet.

    Args:
        shard: A shard that `plan` returned.
        partition: The partition.
        settings: Settings of the retailer.
        log: Receives progress lines; called by several threads.

    Returns:
        Totals of this run.

    Raises:
        StorageError: An image or the journal cannot be written; finished rows are kept.
        SettingsError: pycurl or redis is missing, or the settings name an environment variable that
            is not set.
        SharedLimitsError: The Redis server of `download.shared_limits` does not answer; finished
            rows are kept.
    """
    storage, journal = partition.storage, Journal(partition, ASSET)
    finished = {
        values["key"]
        for values in journal.rows(shard.name, shard.journal_start)
        if values["outcome"] is not Outcome.NOT_FETCHED
    }
    url_rows = _read_planned(journal, shard, _URLS, UrlRow)
    pending = [row for row in url_rows if row.key not in finished]
    previous = {row.key: row for row in _read_planned(journal, shard, _PREVIOUS, RawRow)}
    shared_limits = _shared_limits(settings, log)
    client = _build_client(settings)
    report_builder = ReportBuilder(previous)
    removed = read_takedowns(storage).image_sha256
    exchange = Exchange(client, settings, storage, removed_sha256=removed)
    progress = Progress(
        shard.name,
        len(url_rows),
        log,
        already_done=len(url_rows) - len(pending),
        note=exchange.progress_note,
    )
    with journal.writer(shard.name) as writer:
        tasks, invalid = _build_tasks(pending, previous)
        writer.add(invalid)
        progress.add(invalid, report_builder.add(invalid))
        threads = min(settings.threads, len(tasks))
        with shared_limits as shared:
            schedule = Schedule(tasks, _host_limits(settings), shared)
            with Pool(schedule, exchange, client, writer.add, threads=threads, log=log) as pool:
                _count_rows(pool, writer, progress, report_builder)
    for reason in schedule.down_hosts():
        log(reason)
    progress.log()
    return report_builder.report()


def _count_rows(
    pool: Pool, writer: JournalWriter, progress: Progress, report_builder: ReportBuilder
) -> None:
    """Run the pool to its end, and count the rows that it finishes."""
    try:
        pool.start()
        while (rows := pool.wait(_POLL_S)) is not None:
            progress.add(rows, report_builder.add(rows))
            writer.flush_if_due()
            progress.log_if_due()
    finally:
        # Also reached when Dagster interrupts this thread.
        pool.stop()


def collect(
    url_rows: Sequence[UrlRow], partition: PartitionFiles, settings: RetailerSettings
) -> list[RawRow]:
    """Write the manifest, then remove the journal.

    No image is removed: `imgassets gc` removes those that no manifest references.

    Args:
        url_rows: All rows of the partition.
        partition: The partition.
        settings: Settings of the retailer, whose hash the manifest records.

    Returns:
        The rows of the manifest, one per row of `url_rows`, in the same order.

    Raises:
        StorageError: The manifest cannot be written; the journal is kept.
    """
    listed = _redact(url_rows, partition)
    latest = latest_rows(partition, listed)
    rows = [_final_row(row, latest) for row in listed]
    hash_ = section_hash(settings.download)
    partition.write_manifest(ASSET, to_table(rows, RawRow, hash_))
    Journal(partition, ASSET).remove()
    return rows


def _final_row(row: UrlRow, latest: Mapping[str, RawRow]) -> RawRow:
    if is_redacted(row.url):
        return raw_row(row, Outcome.REMOVED)
    message = "the run ended before this image was downloaded; materialize the partition again"
    return latest.get(row.key) or raw_row(row, Outcome.NOT_FETCHED, error=message)


def _redact(url_rows: Iterable[UrlRow], partition: PartitionFiles) -> list[UrlRow]:
    """Return the rows, with the URLs replaced that were taken down since they were listed."""
    takedowns = read_takedowns(partition.storage)
    return [takedowns.redact(row) for row in url_rows]


def _with_url_values(row: RawRow, url_row: UrlRow, **values: object) -> RawRow:
    """Return a row with the catalogue data of another row."""
    url_values = {name: getattr(url_row, name) for name in URL_FIELDS}
    return replace(row, **url_values, **values)  # type: ignore[arg-type]


def _read_planned(journal: Journal, shard: Shard, suffix: str, row_class: type[Row]) -> list[Row]:
    """Return rows that `plan` wrote for a shard; none if there are none, or the plan is done."""
    try:
        path = f"{journal.folder}/{shard.name}{suffix}"
        return from_table(read_table(journal.partition.storage, path), row_class)
    except FileNotFoundError:
        return []


def _group_by_url(url_rows: Iterable[UrlRow]) -> dict[str, list[UrlRow]]:
    """Return the rows in their order, by URL."""
    by_url: dict[str, list[UrlRow]] = {}
    for row in url_rows:
        by_url.setdefault(row.url, []).append(row)
    return by_url


def _split(groups: Iterable[list[UrlRow]], size: int) -> Iterator[list[UrlRow]]:
    """Yield shards of at least `size` rows; the rows of a URL stay together, to be fetched once."""
    rows: list[UrlRow] = []
    for group in groups:
        rows += group
        if len(rows) >= size:
            yield rows
            rows = []
    if rows:
        yield rows


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
        wait_for_robots=settings.robots or "tdm-reservation" in settings.opt_outs,
        max_refusals=settings.max_refusals,
    )


def _shared_limits(
    settings: DownloadSettings, log: Callable[[str], None]
) -> AbstractContextManager[SharedLimits | None]:
    if settings.shared_limits is None:
        return nullcontext()
    try:
        from imgassets.download.shared_limits import SharedLimits
    except ImportError as error:
        raise SettingsError(
            f"download.shared_limits needs the Python package redis ({error}); install it with "
            "pip install 'imgassets[redis]'"
        ) from error
    url = expand_variables(settings.shared_limits, "download.shared_limits")
    return SharedLimits(url, max_concurrent=settings.per_host, log=log)


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
