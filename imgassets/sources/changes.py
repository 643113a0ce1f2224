"""Decide which changed partitions are due for a run, and store the sensor's state in a cursor.

Pure functions: no MongoDB and no Dagster. Changes are read in `mongo_changes`.

Scrapers write for minutes or hours and each run costs seconds, so a changed partition waits until
its documents no longer change. It waits in the cursor: if a scan fails, its changes are either in
the cursor already or are read again by the next scan.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from pydantic import TypeAdapter, ValidationError

from imgassets.errors import SourceError
from imgassets.settings import SensorSettings
from imgassets.sources.listing import SourceReport

# Partitions of documents dated in the future wait for their day. Dates further ahead are more often
# mistakes than plans, and each such partition would stay in the cursor for years.
MAX_DAYS_AHEAD = 31

PartitionName = str
"""Dagster's partition key, such as `2026-01-31|zara`."""


@dataclass(frozen=True)
class PendingPartition:
    """A changed partition that waits for its run.

    Attributes:
        change_id: Id of its last change; reading the same change again gives the same id.
        first_seen: When the first change since its last run was read, in seconds since 1970.
        last_seen: When its last change was read, in seconds since 1970.
    """

    change_id: str
    first_seen: float
    last_seen: float


@dataclass(frozen=True)
class StreamPosition:
    """The position up to which changes were read; `mongo_changes` and `mongo_poll` maintain it.

    Attributes:
        read_until: Server time before which all changes were read, in seconds since 1970.
        token: Resume token of the change stream; None without a change stream.
        poll_started: Start of the poll that is not complete, in seconds since 1970; None if there
            is no such poll.
        poll_next: Where that poll continues on the index, in seconds since 1970.
        bins: `(count, checksum)` of the documents by bin, day and retailer, as last polled.
        places: The collections that existed, if there can be several; None if there can be one.
        surveys: The collections whose existing documents are still to be read, which precedes the
            changes; each with the last `_id` that was read in extended JSON, empty for the start.
    """

    read_until: float
    token: str | None = None
    poll_started: float | None = None
    poll_next: float | None = None
    bins: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    places: tuple[str, ...] | None = None
    surveys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cursor:
    """The state of the sensor between two ticks.

    Attributes:
        source: Name of the collections in the settings; the cursor is invalid for any other name.
        position: Position up to which the collections' changes were read.
        pending: Partitions that wait for their run.
    """

    source: str
    position: StreamPosition
    pending: Mapping[PartitionName, PendingPartition] = field(default_factory=dict)

    def to_json(self) -> str:
        """The cursor as JSON text, which Dagster stores."""
        return _CURSOR.dump_json(self).decode()


_CURSOR = TypeAdapter(Cursor)


def read_cursor(text: str) -> Cursor:
    """Parse the text that `Cursor.to_json` wrote.

    Raises:
        SourceError: The text is not a valid cursor.
    """
    try:
        return _CURSOR.validate_json(text)
    except ValidationError as error:
        raise SourceError(
            f"the sensor's cursor is broken ({error.errors()[0]['msg']}); reset it on the sensor's "
            "page, and backfill what arrived since its last run"
        ) from None


@dataclass(frozen=True)
class ChangePage:
    """The changes of one read.

    Attributes:
        position: Position at which the next page starts.
        changed: The partitions of the changed documents, each with the id of its last change.
        more: Whether there is a next page.
        note: Warning for the sensor's log, if there is one.
    """

    position: StreamPosition
    changed: Mapping[PartitionName, str]
    more: bool
    note: str | None = None


@dataclass(frozen=True)
class ScanResult:
    """The result of one scan.

    Attributes:
        cursor: The cursor after the scan.
        caught_up: Whether all changes were read.
        notes: Warnings for the sensor's log.
    """

    cursor: Cursor
    caught_up: bool
    notes: list[str]


def scan(
    cursor: Cursor,
    pages: Callable[[StreamPosition], Iterator[ChangePage]],
    *,
    now: float,
    out_of_time: Callable[[], bool],
) -> ScanResult:
    """Read pages until all changes are read or the time is up.

    Args:
        cursor: The cursor after the last scan.
        pages: Yields the pages of changes after a position.
        now: Current time in seconds since 1970.
        out_of_time: Returns whether to stop; called after each page.

    Raises:
        SourceError: The first page cannot be read.
    """
    notes: list[str] = []
    caught_up, pages_read = True, 0
    try:
        for page in pages(cursor.position):
            caught_up, pages_read = not page.more, pages_read + 1
            pending = _add_pending(cursor.pending, page.changed, now)
            cursor = replace(cursor, position=page.position, pending=pending)
            if page.note:
                notes.append(page.note)
            if out_of_time():
                break
    except SourceError as error:
        if not pages_read:
            raise
        # Keep the pages that were read; otherwise scans of a slow server would make no progress.
        caught_up = False
        notes.append(str(error))
    return ScanResult(cursor, caught_up, notes)


def _add_pending(
    pending: Mapping[PartitionName, PendingPartition],
    changed: Mapping[PartitionName, str],
    now: float,
) -> dict[PartitionName, PendingPartition]:
    result = dict(pending)
    for name, last_change in changed.items():
        first_seen = result[name].first_seen if name in result else now
        result[name] = PendingPartition(last_change, first_seen, now)
    return result


def due_partitions(
    result: ScanResult, options: SensorSettings, *, now: float, today: dt.date
) -> dict[PartitionName, PendingPartition]:
    """Find the pending partitions whose run should be requested now.

    A partition is due if all changes were read and it did not change for `settle_s` seconds, or if
    it has waited for `max_wait_s` seconds. A partition dated in the future, which does not exist
    yet, waits for its day.

    Args:
        result: The result of the scan.
        options: The settings of the sensor.
        now: Current time in seconds since 1970.
        today: Current day in UTC.

    Returns:
        The partitions that are due, the longest waiting first.
    """
    last_day = today.isoformat()
    ready = {
        name: pending
        for name, pending in result.cursor.pending.items()
        if name.split("|")[0] <= last_day
        and (
            now - pending.first_seen >= options.max_wait_s
            or (result.caught_up and now - pending.last_seen >= options.settle_s)
        )
    }
    return dict(sorted(ready.items(), key=lambda item: (item[1].first_seen, item[0])))


def remove_requested(cursor: Cursor, names: Mapping[PartitionName, PendingPartition]) -> Cursor:
    """Remove the partitions whose runs were requested from the cursor."""
    waiting = {name: pending for name, pending in cursor.pending.items() if name not in names}
    return replace(cursor, pending=waiting)


def run_key(name: PartitionName, pending: PendingPartition) -> str:
    """The run key of a partition's last change; a repeated scan cannot request a second run."""
    return f"{name}@{pending.change_id}"


def change_id(*parts: object) -> str:
    """A short id of a change; equal parts give equal ids."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def unpartitioned_message(report: SourceReport) -> str | None:
    """The warning about changed documents that have no partition; None if all have one."""
    if not report.counts:
        return None
    counts = ", ".join(f"{count} {anomaly}" for anomaly, count in report.counts.items())
    anomaly, document, detail = report.examples[0]
    return (
        f"changed documents without a partition: {counts}; for example {document} "
        f"({anomaly}: {detail})"
    )
