"""What a shard's download amounts to: numbers for metadata and lines for the log.

Here live counting and wording. Which numbers become Dagster metadata is the assets' business.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from imgassets.manifests import Outcome, RawRow

_FAILURES_KEPT = 200
"""Failures listed in a report; the manifest has them all."""
_HOSTS_KEPT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A URL that gave no picture."""

    key: str
    url: str
    outcome: str
    http_status: int | None
    attempts: int
    error: str | None


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

    shard: str
    urls: int
    done_before: int
    """URLs that this run left alone: mostly pictures that an earlier run had brought."""
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
    failures: list[Failure]
    """The first failures, at most 200."""

    @property
    def images_per_second(self) -> float:
        """Pictures brought or found unchanged, a second."""
        return self.outcomes.get(Outcome.OK, 0) / self.seconds if self.seconds else 0

    @property
    def megabytes_per_second(self) -> float:
        """Megabytes (10^6 bytes) of pictures a second."""
        return self.bytes / 1e6 / self.seconds if self.seconds else 0


@dataclass(slots=True)
class _Host:
    urls: int = 0
    failed: int = 0
    bytes: int = 0
    milliseconds: int = 0


@dataclass(slots=True)
class Progress:
    """Counts rows as they come; used by one thread."""

    shard: str
    urls: int
    done_before: int
    before: Mapping[str, RawRow]
    """Of a refresh: the rows that are asked for a change, by key."""
    started: float = field(default_factory=time.monotonic)
    outcomes: Counter[str] = field(default_factory=Counter)
    refreshed: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    retries: int = 0
    hosts: dict[str, _Host] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def add(self, rows: Iterable[RawRow]) -> None:
        """Count rows."""
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
            if row.outcome != Outcome.OK and len(self.failures) < _FAILURES_KEPT:
                self.failures.append(
                    Failure(
                        key=row.key,
                        url=row.url,
                        outcome=str(row.outcome),
                        http_status=row.http_status,
                        attempts=row.attempts,
                        error=row.error,
                    )
                )

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

    @property
    def line(self) -> str:
        """One line for the log."""
        seconds = max(time.monotonic() - self.started, 1e-3)
        done = self.outcomes.total()
        left = self.urls - self.done_before - done
        failed = done - self.outcomes[Outcome.OK]
        rate = done / seconds
        return (
            f"{self.shard}: {done + self.done_before} of {self.urls} done, {failed} failed; "
            f"{rate:.0f} images/s, {self.bytes / 1e6 / seconds:.1f} MB/s, "
            f"{_duration(left / rate) if rate else 'unknown time'} left"
        )

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
            shard=self.shard,
            urls=self.urls,
            done_before=self.done_before,
            outcomes={str(outcome): n for outcome, n in self.outcomes.most_common()},
            bytes=self.bytes,
            seconds=time.monotonic() - self.started,
            retries=self.retries,
            unchanged=self.refreshed["unchanged"],
            changed=self.refreshed["changed"],
            not_refreshed=self.refreshed["not_refreshed"],
            slowest_hosts=hosts[:_HOSTS_KEPT],
            failures=self.failures,
        )


def _refreshed(before: RawRow, after: RawRow) -> str:
    if after.error is not None:
        return "not_refreshed"
    return "unchanged" if after.sha256 == before.sha256 else "changed"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
