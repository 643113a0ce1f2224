"""Count the results of a shard's download for the metadata of `raw_images`.

Progress lines in the log are in `imgassets.progress`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import orjson

from imgassets.manifests import Outcome, RawRow
from imgassets.urls import normalise, origin

_MAX_HOSTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReport:
    """How fast and how well a host served its URLs.

    Attributes:
        host: Host name, with a port if the URLs have one.
        urls: Number of URLs requested.
        failed: Number of these URLs that failed.
        bytes: Bytes of the images downloaded.
        mean_ms: Mean milliseconds per URL, including the waits between attempts.
    """

    host: str
    urls: int
    failed: int
    bytes: int
    mean_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """Totals of one shard's download.

    Attributes:
        outcomes: Number of rows by outcome, most frequent first; only rows of this run.
        bytes: Bytes of the images downloaded by this run.
        seconds: Wall time.
        retries: Number of attempts beyond the first of each URL.
        unchanged: Number of refreshed images that have not changed.
        changed: Number of refreshed images with new content.
        not_refreshed: Number of images kept because their refresh failed.
        slowest_hosts: The hosts with the highest `mean_ms`, slowest first; at most 10.
    """

    outcomes: dict[str, int]
    bytes: int
    seconds: float
    retries: int
    unchanged: int
    changed: int
    not_refreshed: int
    slowest_hosts: list[HostReport]


@dataclass(slots=True)
class _HostTotals:
    urls: int = 0
    failed: int = 0
    bytes: int = 0
    milliseconds: int = 0


def report_from_json(data: bytes) -> ShardReport:
    """The report that was written as JSON."""
    values = orjson.loads(data)
    hosts = [HostReport(**host) for host in values.pop("slowest_hosts")]
    return ShardReport(**values, slowest_hosts=hosts)


@dataclass(slots=True)
class ReportBuilder:
    """Counts finished rows and builds a `ShardReport`; for use by one thread.

    Attributes:
        previous_rows: The rows that a refresh may change, by key; empty without a refresh.
        started: `time.monotonic()` at the start of the download.
        outcomes: Number of rows by outcome.
        refreshed: Number of refreshed rows by result: unchanged, changed or not_refreshed.
        bytes: Bytes of the images downloaded.
        retries: Number of attempts beyond the first of each URL.
        hosts: Totals by host.
    """

    previous_rows: Mapping[str, RawRow]
    started: float = field(default_factory=time.monotonic)
    outcomes: Counter[str] = field(default_factory=Counter)
    refreshed: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    retries: int = 0
    hosts: dict[str, _HostTotals] = field(default_factory=dict)

    def add(self, rows: Iterable[RawRow]) -> int:
        """Count rows.

        Returns:
            Bytes of the images that were downloaded for these rows.
        """
        bytes_before = self.bytes
        for row in rows:
            self.outcomes[row.outcome] += 1
            downloaded = row.bytes or 0
            if row.key in self.previous_rows:
                result = _refresh_result(self.previous_rows[row.key], row)
                self.refreshed[result] += 1
                if row.http_status == 304 or result == "not_refreshed":
                    downloaded = 0
            self.bytes += downloaded
            self.retries += max(row.attempts - 1, 0)
            self._add_to_host(row, downloaded)
        return self.bytes - bytes_before

    def _add_to_host(self, row: RawRow, downloaded: int) -> None:
        if row.elapsed_ms is None:  # No request was sent.
            return
        name = origin(normalise(row.url)).partition("://")[2]
        host = self.hosts.get(name)
        if host is None:
            host = self.hosts[name] = _HostTotals()
        host.urls += 1
        host.failed += row.outcome != Outcome.OK
        host.bytes += downloaded
        host.milliseconds += row.elapsed_ms

    def report(self) -> ShardReport:
        """Return the totals so far."""
        hosts = [
            HostReport(
                host=name,
                urls=host.urls,
                failed=host.failed,
                bytes=host.bytes,
                mean_ms=host.milliseconds / host.urls,
            )
            for name, host in self.hosts.items()
        ]
        hosts.sort(key=lambda host: host.mean_ms, reverse=True)
        return ShardReport(
            outcomes={str(outcome): n for outcome, n in self.outcomes.most_common()},
            bytes=self.bytes,
            seconds=time.monotonic() - self.started,
            retries=self.retries,
            unchanged=self.refreshed["unchanged"],
            changed=self.refreshed["changed"],
            not_refreshed=self.refreshed["not_refreshed"],
            slowest_hosts=hosts[:_MAX_HOSTS],
        )


def _refresh_result(before: RawRow, after: RawRow) -> str:
    if after.error is not None:
        return "not_refreshed"
    return "unchanged" if after.sha256 == before.sha256 else "changed"
