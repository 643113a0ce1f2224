"""Plan and run the download of a partition, and write its manifest.

The order of writes belongs here. It makes a partition safe against `kill -9` at any time: an image
is written first, then a line of the journal that names it, then the manifest, and only then the
journal is removed. Which URLs need a download is in `state`, images of other partitions are found
in `known_images`; the threads are in `pool`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgassets.download.client import Client
from imgassets.download.exchange import Exchange, raw_row
from imgassets.download.known_images import find_known_images
from imgassets.download.pool import Pool
from imgassets.download.report import ReportBuilder, ShardReport, report_from_json
from imgassets.download.request_headers import expand_variables
from imgassets.download.schedule import HostLimits, Schedule, Task
from imgassets.download.state import ASSET, latest_rows, read_state
from imgassets.errors import InvalidUrlError, SettingsError
from imgassets.journal import Journal, JournalWriter
from imgassets.manifests import (
    REMOVED_URL,
    URL_FIELDS,
    Outcome,
    RawRow,
    Row,
    UrlRow,
    as_manifest,
    from_table,
)
from imgassets.progress import Progress
from imgassets.settings import DownloadSettings, RetailerSettings, section_hash
from imgassets.storage import PartitionFiles, read_table, write_table
from imgassets.tables import as_mask, filter_rows, index_in, release_memory, set_column, take_rows
from imgassets.takedown import read_takedowns
from imgassets.urls import normalise, origin
from imgassets.wording import counted

if TYPE_CHECKING:
    from imgassets.download.shared_limits import SharedLimits

_POLL_S = 0.2
_BATCH = 5_000  # rows
# Files beside the journal, one per shard: the URLs to request; rows whose images may have changed;
# what its download did.
_URLS, _PREVIOUS, _REPORT = ".urls.parquet", ".previous.parquet", ".report.json"


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
    urls: pa.Table,
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
        urls: All rows of the partition's `url_list`.
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
        if name.endswith((_URLS, _PREVIOUS, _REPORT)):  # of a run that was killed
            storage.remove(f"{journal.folder}/{name}")
    listed = _redact(urls, partition)
    listed = filter_rows(listed, ~as_mask(pc.starts_with(listed["url"], REMOVED_URL)))
    state = read_state(partition, listed, keep_raw=settings.process.keep_raw)
    pending = filter_rows(listed, state.needs_download(refresh=refresh, retry=retry))
    if not pending.num_rows:
        return []
    known = find_known_images(
        partition,
        pc.unique(pending["url"]),
        settings.download.reuse_days,
        keep_raw=settings.process.keep_raw,
    )
    release_memory()
    of_known = index_in(pending["url"], known["url"])
    taken_over = np.zeros(pending.num_rows, np.bool_)
    if not refresh:
        taken_over = _take_over(pending, known, of_known, partition, settings.download)
    if number := int(taken_over.sum()):
        log(f"{counted(number, 'image')} downloaded before and not requested again")
    shards: list[Shard] = []
    start = journal.next_number()
    for rows in _split(pending["url"], np.flatnonzero(~taken_over), settings.download.shard_size):
        shard = Shard(f"shard_{len(shards):04d}", start)
        shard_urls = take_rows(pending, rows)
        path = f"{journal.folder}/{shard.name}"
        write_table(storage, f"{path}{_URLS}", as_manifest(shard_urls, UrlRow))
        numbers = of_known[rows]
        if (numbers >= 0).any():
            previous = _raw_rows(
                filter_rows(shard_urls, numbers >= 0), take_rows(known, numbers[numbers >= 0])
            )
            write_table(storage, f"{path}{_PREVIOUS}", as_manifest(previous, RawRow))
        shards.append(shard)
    return shards


def _take_over(
    pending: pa.Table,
    known: pa.Table,
    of_known: NDArray[np.int64],
    partition: PartitionFiles,
    options: DownloadSettings,
) -> NDArray[np.bool_]:
    """Write rows whose images are stored to the journal.

    Args:
        pending: Rows of `url_list` that need an image.
        known: Rows of `raw_images` whose images are stored, but may have changed.
        of_known: The index in `known` of each row of `pending`; -1 if it has none.
        partition: The partition.
        options: Settings of the retailer.

    Returns:
        Whether each row of `pending` was taken over.
    """
    fresh_after = dt.datetime.now(dt.UTC) - dt.timedelta(days=options.revalidate_after_days)
    is_recent = as_mask(pc.greater_equal(known["fetched_at"], fresh_after))
    taken_over = np.zeros(pending.num_rows, np.bool_)
    numbers = np.flatnonzero(of_known >= 0)
    with Journal(partition, ASSET).writer("known") as writer:
        for start in range(0, len(numbers), _BATCH):
            batch = numbers[start : start + _BATCH]
            urls, images = take_rows(pending, batch), take_rows(known, of_known[batch])
            # Documents of one day that list a URL have one image of it.
            same_day = as_mask(pc.equal(urls["date"], images["date"]))
            is_fresh = is_recent[of_known[batch]] | same_day
            rows = _raw_rows(filter_rows(urls, is_fresh), filter_rows(images, is_fresh))
            writer.add(from_table(rows, RawRow))
            writer.flush_if_due()
            taken_over[batch[is_fresh]] = True
    return taken_over


def _raw_rows(urls: pa.Table, images: pa.Table) -> pa.Table:
    """The rows of `raw_images` of URLs whose images are known, before any request.

    Args:
        urls: Rows of `url_list`.
        images: Rows of `raw_images` of the same URLs, with other catalogue data.
    """
    for name in URL_FIELDS:
        images = set_column(images, name, urls[name])
    count = images.num_rows
    images = set_column(images, "attempts", pa.repeat(pa.scalar(0, pa.int32()), count))
    for name in ("elapsed_ms", "error"):
        images = set_column(images, name, pa.nulls(count, images.schema.field(name).type))
    return images


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
        Totals of this run, which `read_reports` finds until `collect` has written the manifest.

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
    report = report_builder.report()
    storage.write(f"{journal.folder}/{shard.name}{_REPORT}", orjson.dumps(report))
    return report


def read_reports(partition: PartitionFiles) -> list[ShardReport]:
    """The totals of the shards that were downloaded since the partition was planned.

    Raises:
        StorageError: The storage cannot be read.
    """
    storage, folder = partition.storage, Journal(partition, ASSET).folder
    names = [name for name in storage.names(folder) if name.endswith(_REPORT)]
    return [report_from_json(storage.read(f"{folder}/{name}")) for name in names]


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


def collect(urls: pa.Table, partition: PartitionFiles, settings: RetailerSettings) -> pa.Table:
    """Write the manifest, then remove the journal.

    No image is removed: `imgassets gc` removes those that no manifest references.

    Args:
        urls: All rows of the partition's `url_list`.
        partition: The partition.
        settings: Settings of the retailer, whose hash the manifest records.

    Returns:
        The manifest: one row per row of `urls`, in the same order.

    Raises:
        StorageError: The manifest cannot be written; the journal is kept.
    """
    listed = _redact(urls, partition)
    rows = _final_rows(latest_rows(partition, listed))
    manifest = as_manifest(rows, RawRow, section_hash(settings.download))
    partition.write_manifest(ASSET, manifest)
    Journal(partition, ASSET).remove()
    return manifest


def _final_rows(latest: pa.Table) -> pa.Table:
    """The rows of the manifest, from what `latest_rows` returned for the redacted `url_list`."""
    is_removed = pc.starts_with(latest["url"], REMOVED_URL)
    if pc.any(is_removed).as_py():
        for name in set(latest.column_names) - set(URL_FIELDS):
            column = latest[name]
            nothing = pa.scalar(None, column.type)
            latest = set_column(latest, name, pc.if_else(is_removed, nothing, column))
    is_missing = pc.is_null(latest["outcome"])
    if pc.any(is_missing).as_py():
        outcomes = pc.if_else(is_removed, str(Outcome.REMOVED), str(Outcome.NOT_FETCHED))
        latest = set_column(latest, "outcome", pc.coalesce(latest["outcome"], outcomes))
        latest = set_column(latest, "attempts", latest["attempts"].fill_null(0))
        is_not_fetched = pc.and_(is_missing, pc.invert(is_removed))
        message = "the run ended before this image was downloaded; materialize the partition again"
        latest = set_column(latest, "error", pc.if_else(is_not_fetched, message, latest["error"]))
    return latest


def _redact(urls: pa.Table, partition: PartitionFiles) -> pa.Table:
    """Return the rows, with the URLs replaced that were taken down since they were listed."""
    takedowns = read_takedowns(partition.storage)
    return takedowns.redact(partition.retailer, urls.select(URL_FIELDS))


def _read_planned(journal: Journal, shard: Shard, suffix: str, row_class: type[Row]) -> list[Row]:
    """Return rows that `plan` wrote for a shard; none if there are none, or the plan is done."""
    try:
        path = f"{journal.folder}/{shard.name}{suffix}"
        return from_table(read_table(journal.partition.storage, path), row_class)
    except FileNotFoundError:
        return []


def _split(
    urls: pa.ChunkedArray, numbers: NDArray[np.int64], size: int
) -> Iterator[NDArray[np.int64]]:
    """Yield shards of at least `size` rows; the rows of a URL stay together, to be fetched once.

    Args:
        urls: URLs of rows.
        numbers: Indices of the rows to split.
        size: See above.

    Yields:
        The indices of the rows of a shard.
    """
    codes = urls.take(pa.array(numbers)).combine_chunks().dictionary_encode().indices.to_numpy()
    numbers = numbers[np.argsort(codes, kind="stable")]
    ends = np.cumsum(np.bincount(codes))
    start = 0
    while start < len(numbers):
        group = min(int(np.searchsorted(ends, start + size)), len(ends) - 1)
        yield numbers[start : ends[group]]
        start = ends[group]


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
