"""A partition's pictures: what is missing, the download of one shard of it, the manifest.

Here lives the order of things that makes a partition safe against `kill -9` at any moment:
pictures are written whole, then a journal part that names them, at last the manifest; only then the
journal goes. A row is done when it is `ok` and its file lies there in the right size.

`folder` is always the partition's folder of the `raw_images` asset: `manifest.parquet`, the
pictures in `images/<key>.<extension>`, the journal in `_journal/`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from imgassets.download import journal
from imgassets.download.adoption import adopt, superfluous
from imgassets.download.client import Client
from imgassets.download.exchange import Exchange, raw_row
from imgassets.download.pool import Pool
from imgassets.download.report import ReportBuilder, ShardReport
from imgassets.download.schedule import HostLimits, Schedule, Task
from imgassets.download.state import known, last_rows, read_state, rows_of
from imgassets.download.urls import normalise, origin
from imgassets.errors import InvalidUrlError, SettingsError
from imgassets.manifests import Outcome, RawRow, UrlRow, to_table
from imgassets.progress import Progress
from imgassets.settings import DownloadSettings
from imgassets.storage import IMAGES, Folder, write_table

_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Shard:
    """A slice of a partition's URLs; see `shard_rows`."""

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
    """Cut a partition into shards of about `shard_size` rows; those with work left are returned.

    What writers that were killed left behind is swept away: no shard of the partition may be at
    work. Pictures that are there under another key are taken over. For `refresh` and `retry` see
    `download_shard`.

    Raises:
        StorageError: the storage cannot be read, or a manifest or journal there is broken.
    """
    for place in (folder, folder / IMAGES, folder / journal.JOURNAL):
        place.remove_temporaries()
    adopt(url_rows, folder)
    state = read_state(folder, url_rows)
    ordered = _in_order(url_rows)
    shards: list[Shard] = []
    number = start = 0
    while start < len(ordered):
        stop = min(start + shard_size, len(ordered))
        # Rows of one URL stay together, so that it is fetched once.
        while stop < len(ordered) and ordered[stop].url == ordered[stop - 1].url:
            stop += 1
        if any(state.is_work(row, refresh=refresh, retry=retry) for row in ordered[start:stop]):
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
    refresh: bool = False,
    retry: Collection[Outcome] | None = None,
) -> ShardReport:
    """Fetch the pictures of these rows that are not there yet; failed ones are tried again.

    Args:
        url_rows: the rows of one shard.
        folder: the partition's folder.
        settings: the retailer's.
        shard: names the shard in the log and in the journal; `[A-Za-z0-9_-]+`.
        log: takes progress lines; called by several threads.
        refresh: also ask whether pictures that are there have changed. One that cannot be asked
            for keeps its file and its row, whose `error` says why.
        retry: of the rows that failed, try only those with these outcomes; none: all.

    Raises:
        StorageError: a picture or the journal cannot be written; what was done is kept.
        SettingsError: the settings name an environment variable that is not set.
    """
    state = read_state(folder, url_rows)
    work = [row for row in url_rows if state.is_work(row, refresh=refresh, retry=retry)]
    before: dict[str, RawRow] = {}
    if refresh:
        journal.mark_refresh(folder)
        before = rows_of(folder, [row for row in work if state.is_done(row)])
    client = _client(settings)
    counter = ReportBuilder(before)
    progress = Progress(shard, len(url_rows), log, before=len(url_rows) - len(work))
    writer = journal.JournalWriter(folder, shard)
    tasks, refused = _tasks(work, before)
    writer.add(refused)
    progress.add(refused, counter.add(refused))
    schedule = Schedule(tasks, _host_limits(settings))
    exchange = Exchange(client, settings, folder)
    threads = min(settings.threads, len(tasks))
    with Pool(schedule, exchange, client, threads=threads, log=log) as pool:
        try:
            pool.start()
            while (rows := pool.wait(_POLL_S)) is not None:
                writer.add(rows)
                progress.add(rows, counter.add(rows))
                writer.flush_if_due()
                progress.log_if_due()
        finally:
            # Also when Dagster interrupts this thread.
            pool.stop()
            writer.add(pool.rest())
            writer.flush()
    progress.log()
    return counter.report()


def collect(url_rows: Sequence[UrlRow], folder: Folder) -> list[RawRow]:
    """Write the manifest: one row a URL row, in their order; then the journal goes.

    Files that became superfluous are removed; pictures whose URL has left the catalogue stay.

    Raises:
        StorageError: the manifest cannot be written; the journal is kept.
    """
    before = known(folder)
    last = last_rows(before, url_rows)
    before = before.select(["key", "url", "path"])
    rows = [_last_row(row, last.get(row.key)) for row in url_rows]
    write_table(folder, to_table(rows, RawRow))
    journal.remove(folder)
    images = folder / IMAGES
    for name in superfluous(images.sizes(), rows, before):
        images.remove(name)
    return rows


def _last_row(row: UrlRow, last: RawRow | None) -> RawRow:
    if last is not None:
        return last
    message = "the run ended before the turn of this URL; materialize the partition again"
    return raw_row(row, Outcome.NOT_FETCHED, error=message)


def _in_order(url_rows: Iterable[UrlRow]) -> list[UrlRow]:
    """The rows as they come, but those of one URL together."""
    by_url: dict[str, list[UrlRow]] = {}
    for row in url_rows:
        by_url.setdefault(row.url, []).append(row)
    return [row for group in by_url.values() for row in group]


def _tasks(
    url_rows: Iterable[UrlRow], before: Mapping[str, RawRow]
) -> tuple[list[Task], list[RawRow]]:
    """A task for each URL, and the rows of what is no URL."""
    by_url: dict[str, list[UrlRow]] = {}
    refused: list[RawRow] = []
    for row in url_rows:
        try:
            by_url.setdefault(normalise(row.url), []).append(row)
        except InvalidUrlError as error:
            refused.append(raw_row(row, Outcome.INVALID_URL, error=str(error)))
    tasks = []
    for url, rows in by_url.items():
        host = origin(url)
        task = Task(tuple(rows), url, host, first_url=url, first_host=host)
        known_rows = tuple(before[row.key] for row in rows if row.key in before)
        # Of one URL, a picture that is not there needs the body for all.
        if len(known_rows) == len(rows) and len({row.sha256 for row in known_rows}) == 1:
            task.before = known_rows
        tasks.append(task)
    return tasks, refused


def _host_limits(settings: DownloadSettings) -> HostLimits:
    return HostLimits(
        at_once=settings.per_host,
        interval_s=1 / settings.rate_per_host if settings.rate_per_host else 0,
        failures=settings.breaker_failures,
        rest_s=settings.breaker_cooldown_s,
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
