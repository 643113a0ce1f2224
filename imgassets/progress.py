"""Count finished rows and log a progress line every few seconds, of a long run less often.

The totals for the metadata of `raw_images` are in `imgassets.download.report`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from imgassets.manifests import Outcome, ProcessedRow, RawRow

# Dagster stores each line as an event, of 0.35 kB: at most 55 in the first hour, then 12 per hour.
_SHORTEST_INTERVAL_S, _LONGEST_INTERVAL_S = 5.0, 300.0
_INTERVAL_OF_ELAPSED = 0.1


class Progress:
    """Counts finished rows and logs a progress line every few seconds; for use by one thread."""

    def __init__(
        self,
        task: str,
        total: int,
        log: Callable[[str], None],
        *,
        already_done: int,
        note: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock.

        Args:
            task: Name of the work in progress; each line begins with it.
            total: Number of rows to finish.
            log: Receives the lines.
            already_done: Number of these rows that an earlier run finished.
            note: Returns what else a line says; empty for nothing.
            clock: Returns seconds since any fixed point in time.
        """
        self._task, self._total, self._log = task, total, log
        self._already_done, self._note, self._clock = already_done, note, clock
        self._done = self._failed = self._bytes = 0
        self._started = self._logged_at = clock()

    def add(self, rows: Iterable[RawRow | ProcessedRow], size: int) -> None:
        """Count finished rows.

        Args:
            rows: The rows.
            size: Bytes of the images that were downloaded or written for them.
        """
        for row in rows:
            self._done += 1
            self._failed += row.outcome is not Outcome.OK
        self._bytes += size

    def log_if_due(self) -> None:
        """Log a line if the last one is 5 s old; later a tenth of the time until then, or 5 min."""
        elapsed = self._logged_at - self._started
        interval = max(_SHORTEST_INTERVAL_S, elapsed * _INTERVAL_OF_ELAPSED)
        if self._clock() - self._logged_at >= min(interval, _LONGEST_INTERVAL_S):
            self.log()

    def log(self) -> None:
        """Log a line: rows done, rows failed, images/s, MB/s and estimated time left."""
        self._logged_at = self._clock()
        seconds = max(self._logged_at - self._started, 1e-3)
        rate = self._done / seconds
        done = self._already_done + self._done
        left = _duration((self._total - done) / rate) if rate else "unknown time"
        note = self._note()
        self._log(
            f"{self._task}: {done} of {self._total} done, {self._failed} failed; "
            f"{rate:.0f} images/s, {self._bytes / 1e6 / seconds:.1f} MB/s, {left} left"
            + (f"; {note}" if note else "")
        )


def _duration(seconds: float) -> str:
    minutes, left_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left_s} s" if minutes else f"{left_s} s"
