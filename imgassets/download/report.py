"""What a shard's download amounts to: numbers for metadata and lines for the log.

Here live counting and wording. Which numbers become Dagster metadata is the assets' business.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from imgassets.manifests import Outcome, RawRow

_FAILURES_KEPT = 200
"""Failures listed in a report; the manifest has them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A URL that gave no picture."""

    key: str
    url: str
    outcome: str
    http_status: int | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """What became of the URLs of a shard."""

    shard: str
    urls: int
    done_before: int
    """Pictures that an earlier run had already brought."""
    outcomes: dict[str, int]
    """Rows of this run by outcome."""
    bytes: int
    """Of the pictures saved by this run."""
    seconds: float
    retries: int
    failures: list[Failure]
    """The first failures, at most 200."""


@dataclass(slots=True)
class Progress:
    """Counts rows as they come; used by one thread."""

    shard: str
    urls: int
    done_before: int
    started: float = field(default_factory=time.monotonic)
    outcomes: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    retries: int = 0
    failures: list[Failure] = field(default_factory=list)

    def add(self, rows: Iterable[RawRow]) -> None:
        """Count rows."""
        for row in rows:
            self.outcomes[row.outcome] += 1
            self.bytes += row.bytes or 0
            self.retries += max(row.attempts - 1, 0)
            if row.outcome != Outcome.OK and len(self.failures) < _FAILURES_KEPT:
                self.failures.append(
                    Failure(
                        key=row.key,
                        url=row.url,
                        outcome=str(row.outcome),
                        http_status=row.http_status,
                        error=row.error,
                    )
                )

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
        return ShardReport(
            shard=self.shard,
            urls=self.urls,
            done_before=self.done_before,
            outcomes={str(outcome): n for outcome, n in self.outcomes.most_common()},
            bytes=self.bytes,
            seconds=time.monotonic() - self.started,
            retries=self.retries,
            failures=self.failures,
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min {rest} s"
        if minutes
        else f"{rest} s"
    )
