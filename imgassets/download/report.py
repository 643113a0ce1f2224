"""Counts the results of a shard's download for the metadata of `raw_images`.

Progress lines in the log are in `imgassets.progress`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from imgassets.manifests import Outcome, RawRow

_HOSTS_KEPT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReport:
    """How a host served."""

    host: str
    urls: int
    failed: int
    bytes: int
    mean_ms: float
    """Of one URL, waits between attempts included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """What became of the URLs of a shard."""

    outcomes: dict[str, int]
    """Rows of this run by outcome, the most frequent first."""
    bytes: int
    """Of the pictures brought by this run."""
    seconds: float
    retries: int
    """Attempts beyond the first of each URL."""
    unchanged: int
    """Of a refresh: pictures that are as they were."""
    changed: int
    """Of a refresh: pictures whose content is new."""
    not_refreshed: int
    """Of a refresh: pictures kept as they were, since asking for them failed."""
    slowest_hosts: list[HostReport]
    """At most 10."""


@dataclass(slots=True)
class _Host:
    urls: int = 0
    failed: int = 0
    bytes: int = 0
    milliseconds: int = 0


@dataclass(slots=True)
class ReportBuilder:
    """Counts finished rows into a `ShardReport`; for one thread."""

    before: Mapping[str, RawRow]
    """Of a refresh: the rows that are asked for a change, by key."""
    started: float = field(default_factory=time.monotonic)
    outcomes: Counter[str] = field(default_factory=Counter)
    refreshed: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    retries: int = 0
    hosts: dict[str, _Host] = field(default_factory=dict)

    def add(self, rows: Iterable[RawRow]) -> int:
        """Count rows.

        Returns:
            Bytes of the images that were downloaded for these rows.
        """
        already = self.bytes
        for row in rows:
            self.outcomes[row.outcome] += 1
            brought = row.bytes or 0
            if row.key in self.before:
                refreshed = _refreshed(self.before[row.key], row)
                self.refreshed[refreshed] += 1
                if row.http_status == 304 or refreshed == "not_refreshed":
                    brought = 0
            self.bytes += brought
            self.retries += max(row.attempts - 1, 0)
            self._add_to_host(row, brought)
        return self.bytes - already

    def _add_to_host(self, row: RawRow, brought: int) -> None:
        if row.elapsed_ms is None:  # it was never asked
            return
        # Scheme, two slashes, host: a row that was asked for has all of them.
        name = row.url.split("/", 3)[2].partition("?")[0]
        host = self.hosts.get(name)
        if host is None:
            host = self.hosts[name] = _Host()
        host.urls += 1
        host.failed += row.outcome != Outcome.OK
        host.bytes += brought
        host.milliseconds += row.elapsed_ms

    def report(self) -> ShardReport:
        """The numbers so far."""
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
            slowest_hosts=hosts[:_HOSTS_KEPT],
        )


def _refreshed(before: RawRow, after: RawRow) -> str:
    if after.error is not None:
        return "not_refreshed"
    return "unchanged" if after.sha256 == before.sha256 else "changed"
