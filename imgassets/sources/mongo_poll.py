"""Documents that are new along an index, for a MongoDB without change streams.

Here lives the poll and what it remembers. When it is used is `mongo_changes`' business.

It goes along the index of `_id`, by the ObjectId's time, or of the field `source.fields.updated`,
in bins of ten minutes. The bins of the last hour (`overlap_s`) are counted again at each look, with
a checksum over their ids: so a document that arrives out of order, from a writer whose clock is
behind or that held it for a while, changes a bin and is seen; and a look that finds nothing new
touches nothing.

What it cannot see: a document changed in place, where no `updated` is set; one whose ObjectId is
older than the overlap when it arrives; an `_id` that is no ObjectId. Where `updated` is set, every
document must have it, as a date.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from bson import DatetimeMS, ObjectId

from imgassets.settings import SourceSettings
from imgassets.sources.changes import Page, StreamPosition, position, unpartitioned_message
from imgassets.sources.listing import Anomaly, SourceReport
from imgassets.sources.mongo_partitions import PartitionResolver
from imgassets.sources.mongodb import Products, dig

BIN_SECONDS = 600
_TEN_MINUTES = {"unit": "minute", "binSize": BIN_SECONDS // 60}


@dataclass(frozen=True)
class MongoPoll:
    """Polls a collection.

    Attributes:
        source: names of the fields, and the extra filter.
        touching: which partition a document touches.
        overlap_s: how far back each look counts again, in seconds.
    """

    source: SourceSettings
    touching: PartitionResolver
    overlap_s: int

    def pages(self, collection: Products, place: StreamPosition, began: float) -> Iterator[Page]:
        """Go along the index from the window's begin, or where an unfinished sweep stopped.

        Args:
            collection: what is polled.
            place: what the last look remembered.
            began: when the sweep began, in seconds since 1970.
        """
        begin = place.until - self.overlap_s if place.next is None else place.next
        low = _bin(begin)
        more = True
        while more:
            first = self._first_since(collection, low)
            low = low if first is None else max(low, _bin(min(first, began)))
            # The last page has no end: a writer's clock may be ahead.
            high = low + BIN_SECONDS
            more = first is not None and high <= began
            bins, report = self._binned(collection, low, high if more else None, place.window)
            lines: dict[str, list[str]] = defaultdict(list)
            for name, entry in sorted(bins.items()):
                partition = name.partition("|")[2]
                if place.window.get(name) != entry and partition not in set(Anomaly):
                    lines[partition].append(f"{name} {entry}")
            # A repeated look starts from the same `until`, and finds the same position.
            touched = {name: position(place.until, *parts) for name, parts in lines.items()}
            place = replace(place, window={**place.window, **bins}, began=began, next=high)
            if not more:
                oldest = _bin(began - self.overlap_s)
                kept = {
                    name: entry
                    for name, entry in place.window.items()
                    if int(name.partition("|")[0]) >= oldest
                }
                place = replace(place, until=began, began=None, next=None, window=kept)
            yield Page(place, touched, more=more, note=unpartitioned_message(report))
            low = high

    def _first_since(self, collection: Products, low: int) -> float | None:
        """The time of the first document since a bin's begin; none where there is none."""
        field, bound = self._polled
        found = collection.find_one({field: {"$gte": bound(low)}}, {field: 1}, sort=[(field, 1)])
        if found is None:
            return None
        value = dig(found, field)
        moment = value.generation_time if isinstance(value, ObjectId) else value
        # A date that Python cannot hold is far ahead.
        return moment.timestamp() if isinstance(moment, dt.datetime) else math.inf

    def _binned(
        self,
        collection: Products,
        low: int,
        high: int | None,
        before: Mapping[str, tuple[int, int]],
    ) -> tuple[dict[str, tuple[int, int]], SourceReport]:
        """Number and checksum of the documents of a range, by bin and partition or anomaly."""
        field, bound = self._polled
        within = {"$gte": bound(low)} if high is None else {"$gte": bound(low), "$lt": bound(high)}
        moment = {"$toDate": "$_id"} if field == "_id" else f"${field}"
        identity = {"$toHashedIndexKey": {"id": "$_id", "moment": moment}}
        groups = collection.aggregate(
            [
                {"$match": {field: within}},
                {"$match": self.source.query},
                {
                    "$group": {
                        "_id": {
                            **self.touching.expressions,
                            "bin": {"$dateTrunc": {"date": moment, **_TEN_MINUTES}},
                        },
                        "count": {"$sum": 1},
                        # Of 31 bits each, so that the sum stays a whole number.
                        "checksum": {"$sum": {"$mod": [identity, 2**31]}},
                        "example": {"$first": "$_id"},
                    }
                },
            ],
            allowDiskUse=True,
        )
        bins: dict[str, tuple[int, int]] = {}
        report = SourceReport()
        for group in groups:
            key, count = group["_id"], group["count"]
            found = self.touching.partition(key)
            name = f"{_seconds(key['bin'])}|{found if isinstance(found, str) else found[0]}"
            total, checksum = bins.get(name, (0, 0))
            bins[name] = (total + count, checksum + group["checksum"])
            if not isinstance(found, str) and before.get(name) is None:
                report.add(found[0], str(group["example"]), found[1])
                report.counts[found[0]] += count - 1
        return bins, report

    @property
    def _polled(self) -> tuple[str, Callable[[int], object]]:
        """The field of the poll, and what a time is in it."""
        updated = self.source.fields.updated
        if updated is not None:
            return updated, lambda seconds: dt.datetime.fromtimestamp(seconds, dt.UTC)
        return "_id", lambda seconds: ObjectId.from_datetime(
            dt.datetime.fromtimestamp(seconds, dt.UTC)
        )


def _bin(moment: float) -> int:
    return int(moment // BIN_SECONDS) * BIN_SECONDS


def _seconds(moment: object) -> int:
    """Seconds since 1970; of a date that Python cannot hold, too."""
    if isinstance(moment, DatetimeMS):
        return int(moment) // 1000
    assert isinstance(moment, dt.datetime)  # noqa: S101  (MongoDB's $dateTrunc gives no other)
    return int(moment.timestamp())
