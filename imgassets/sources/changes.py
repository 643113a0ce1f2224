"""Which partitions were touched since the last look, and which of them are due for a run.

Here lives what the sensor remembers between two looks, and the rules over it: pure functions, no
MongoDB, no Dagster. Where touches come from is in `mongo_changes`.

A touched partition waits until it has been quiet for a while, since a scraper writes for minutes
or hours and each run costs seconds. It waits in the cursor: whatever happens to a look, a touch is
either read again or remembered.
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

# Documents dated ahead of today wait for their day. A date further ahead is a mistake more often
# than a plan, and each one would stay in the cursor for ever.
HELD_DAYS = 31

PartitionName = str
"""`2026-01-31|zara`, as Dagster knows the partition."""


@dataclass(frozen=True)
class PendingPartition:
    """A partition that waits for its run.

    Attributes:
        position: names its last change; the same change always has the same.
        first: when its first change since the last run was seen, in seconds since 1970.
        last: when its last change was seen.
    """

    position: str
    first: float
    last: float


@dataclass(frozen=True)
class StreamPosition:
    """Up to where the documents were read. What the fields mean is `mongo_changes`' business.

    Attributes:
        until: all that was written before was read (the server's clock, seconds since 1970).
        token: where the change stream goes on, if there is one.
        began: when the sweep began that is not finished, if there is one.
        next: where that sweep goes on.
        window: number and checksum of the documents by bin, day and retailer, as last polled.
    """

    until: float
    token: str | None = None
    began: float | None = None
    next: float | None = None
    window: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Cursor:
    """All that the sensor remembers.

    Attributes:
        source: which collection this is about; about another one, it means nothing.
        place: up to where it was read.
        pending: the partitions that wait for their run.
    """

    source: str
    place: StreamPosition
    pending: Mapping[PartitionName, PendingPartition] = field(default_factory=dict)

    def to_json(self) -> str:
        """The text that Dagster keeps."""
        return _CURSOR.dump_json(self).decode()


_CURSOR = TypeAdapter(Cursor)


def read_cursor(text: str) -> Cursor:
    """The cursor of a text that `Cursor.to_json` made.

    Raises:
        SourceError: it is none.
    """
    try:
        return _CURSOR.validate_json(text)
    except ValidationError as error:
        raise SourceError(
            f"the sensor's cursor is broken ({error.errors()[0]['msg']}); reset it on the sensor's "
            "page, and backfill what arrived since its last run"
        ) from None


@dataclass(frozen=True)
class Page:
    """What was read at once.

    Attributes:
        place: where the next page begins.
        touched: the partitions of the changed documents, each with the position of its last change.
        more: whether there is a next page.
        note: what a person should know of the reading, if anything.
    """

    place: StreamPosition
    touched: Mapping[PartitionName, str]
    more: bool
    note: str | None = None


@dataclass(frozen=True)
class Scan:
    """What one look found.

    Attributes:
        cursor: what to remember.
        caught_up: whether nothing was left to read when it ended.
        notes: what a person should know.
    """

    cursor: Cursor
    caught_up: bool
    notes: list[str]


def look(
    cursor: Cursor,
    pages: Callable[[StreamPosition], Iterator[Page]],
    *,
    now: float,
    out_of_time: Callable[[], bool],
) -> Scan:
    """Read pages until nothing is left or the time is up; what was read stays read.

    Args:
        cursor: what is remembered.
        pages: reads on from a place, and ends where nothing is left.
        now: seconds since 1970.
        out_of_time: asked after each page.

    Raises:
        SourceError: nothing could be read.
    """
    notes: list[str] = []
    caught_up, read = True, 0
    try:
        for page in pages(cursor.place):
            caught_up, read = not page.more, read + 1
            pending = _touched(cursor.pending, page.touched, now)
            cursor = replace(cursor, place=page.place, pending=pending)
            if page.note:
                notes.append(page.note)
            if out_of_time():
                break
    except SourceError as error:
        if not read:
            raise
        # What was read before is kept, or a slow server would never get anywhere.
        caught_up = False
        notes.append(str(error))
    return Scan(cursor, caught_up, notes)


def _touched(
    pending: Mapping[PartitionName, PendingPartition],
    touched: Mapping[PartitionName, str],
    now: float,
) -> dict[PartitionName, PendingPartition]:
    result = dict(pending)
    for name, position in touched.items():
        first = result[name].first if name in result else now
        result[name] = PendingPartition(position, first, now)
    return result


def due(
    found: Scan, options: SensorSettings, *, now: float, today: dt.date
) -> dict[PartitionName, PendingPartition]:
    """The partitions whose run should be requested now, those that wait longest first.

    A partition is due once it was quiet for `settle_s`, which is only known when all was read, or
    has waited for `max_wait_s`. One dated ahead waits for its day, which has no partition yet.
    """
    last_day = today.isoformat()
    ready = {
        name: touch
        for name, touch in found.cursor.pending.items()
        if name.split("|")[0] <= last_day
        and (
            now - touch.first >= options.max_wait_s
            or (found.caught_up and now - touch.last >= options.settle_s)
        )
    }
    return dict(sorted(ready.items(), key=lambda item: (item[1].first, item[0])))


def requested(cursor: Cursor, names: Mapping[PartitionName, PendingPartition]) -> Cursor:
    """The cursor when the runs of these partitions were requested."""
    rest = {name: touch for name, touch in cursor.pending.items() if name not in names}
    return replace(cursor, pending=rest)


def run_key(name: PartitionName, touch: PendingPartition) -> str:
    """Names the run for one state of a partition: a repeated look asks for no second run."""
    return f"{name}@{touch.position}"


def position(*parts: object) -> str:
    """A short name for a place in the changes; equal parts give an equal name."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def unpartitioned_message(report: SourceReport) -> str | None:
    """A sentence on the changed documents that have no partition, or none where all have one."""
    if not report.counts:
        return None
    counts = ", ".join(f"{count} {anomaly}" for anomaly, count in report.counts.items())
    anomaly, document, detail = report.examples[0]
    return (
        f"changed documents without a partition: {counts}; one is {document} ({anomaly}: {detail})"
    )
