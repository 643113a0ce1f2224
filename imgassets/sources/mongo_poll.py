"""Poll MongoDB for new documents along an index, where there is no change stream.

`mongo_changes` decides when it is used.

The poll follows the index of `_id`, by the time in the ObjectId, or the index of the field
`source.fields.updated`, in bins of ten minutes. Each poll counts the bins of the last hour
(`sensor.overlap_s`) again, with a checksum of their ids. A document that arrives out of order, from
a writer whose clock is slow or that delays its writes, therefore changes a bin and is detected.

The poll cannot detect:

- documents updated in place, unless `updated` is set
- documents whose ObjectId is older than the overlap when they arrive
- documents whose `_id` is not an ObjectId

If `updated` is set, every document must have the field, as a date.

Several collections are polled as if they were one.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bson import DatetimeMS, ObjectId

from imgassets.settings import SourceSettings
from imgassets.sources.changes import ChangePage, StreamPosition, change_id, unpartitioned_message
from imgassets.sources.images import value_at_path
from imgassets.sources.listing import Anomaly, SourceReport, Unpartitioned
from imgassets.sources.mongo_partitions import PartitionResolver
from imgassets.sources.mongo_places import Client, Place, Products

BIN_SECONDS = 600
_TEN_MINUTES = {"unit": "minute", "binSize": BIN_SECONDS // 60}


@dataclass(frozen=True)
class MongoPoll:
    """Polls the collections of a source.

    Attributes:
        settings: Field names and the extra filter.
        resolver: Finds the partition of a document.
        overlap_s: How far back each poll counts documents again, in seconds.
    """

    settings: SourceSettings
    resolver: PartitionResolver
    overlap_s: int

    def pages(
        self,
        client: Client,
        places: Sequence[Place],
        position: StreamPosition,
        started: float,
    ) -> Iterator[ChangePage]:
        """Count the bins from the start of the overlap, or from where an incomplete poll stopped.

        Args:
            client: The client.
            places: The collections to poll.
            position: The position after the last scan.
            started: Start of the poll, in seconds since 1970.

        Yields:
            One page per bin that has documents; the last page has everything after its start.
        """
        start = position.poll_next
        low = _bin_start(position.read_until - self.overlap_s if start is None else start)
        more = True
        # The time of the first document that is not counted yet; no entry if there is none.
        firsts: dict[Place, float] = dict.fromkeys(places, -math.inf)
        while more:
            for place in [place for place, first in firsts.items() if first < low]:
                first = self._first_since(place.open(client), low)
                if first is None:
                    del firsts[place]
                else:
                    firsts[place] = first
            first = min(firsts.values(), default=None)
            low = low if first is None else max(low, _bin_start(min(first, started)))
            # The last page has no upper bound, because a writer's clock may be fast.
            high = low + BIN_SECONDS
            more = first is not None and high <= started
            end = high if more else None
            counted = [place for place, at in firsts.items() if end is None or at < end]
            bins, report = self._count_bins(client, counted, low, end, known=position.bins)
            changed = _changed_partitions(position, bins)
            merged = {**position.bins, **bins}
            position = replace(position, bins=merged, poll_started=started, poll_next=high)
            if not more:
                oldest = _bin_start(started - self.overlap_s)
                kept = {
                    name: entry
                    for name, entry in position.bins.items()
                    if int(name.partition("|")[0]) >= oldest
                }
                position = replace(
                    position, read_until=started, poll_started=None, poll_next=None, bins=kept
                )
            yield ChangePage(position, changed, more=more, note=unpartitioned_message(report))
            low = high

    def _first_since(self, collection: Products, low: int) -> float | None:
        """The time of the first document from a bin's start on; None if there is no document."""
        field, to_bound = self._polled_field
        document = collection.find_one(
            {field: {"$gte": to_bound(low)}}, {field: 1}, sort=[(field, 1)]
        )
        if document is None:
            return None
        value = value_at_path(document, field)
        moment = value.generation_time if isinstance(value, ObjectId) else value
        # A date outside the range of Python's datetime is far in the future.
        return moment.timestamp() if isinstance(moment, dt.datetime) else math.inf

    def _count_bins(
        self,
        client: Client,
        places: Sequence[Place],
        low: int,
        high: int | None,
        *,
        known: Mapping[str, tuple[int, int]],
    ) -> tuple[dict[str, tuple[int, int]], SourceReport]:
        """Count the documents of a time range, by bin and by partition or anomaly.

        Args:
            client: The client.
            places: The collections that have documents in the time range.
            low: Start of the range, in seconds since 1970.
            high: End of the range; None for no end.
            known: The bins as last polled; their documents without a partition were reported.

        Returns:
            `(count, checksum)` by `bin|partition` or `bin|anomaly`, and the new documents without a
            partition.
        """
        bins: dict[str, tuple[int, int]] = {}
        report = SourceReport()
        pipeline = self._count_pipeline(low, high)
        for place in places:
            for group in place.open(client).aggregate(pipeline, allowDiskUse=True):
                key, count = group["_id"], group["count"]
                partition = self.resolver.resolve(place, key)
                suffix = partition.anomaly if isinstance(partition, Unpartitioned) else partition
                name = f"{_epoch_seconds(key['bin'])}|{suffix}"
                total, checksum = bins.get(name, (0, 0))
                bins[name] = (total + count, checksum + group["checksum"])
                if isinstance(partition, Unpartitioned) and known.get(name) is None:
                    report.add(partition.anomaly, str(group["example"]), partition.detail, count)
        return bins, report

    def _count_pipeline(self, low: int, high: int | None) -> list[dict[str, object]]:
        field, to_bound = self._polled_field
        within = {"$gte": to_bound(low)}
        if high is not None:
            within["$lt"] = to_bound(high)
        moment = {"$toDate": "$_id"} if field == "_id" else f"${field}"
        hashed = {"$toHashedIndexKey": {"id": "$_id", "moment": moment}}
        return [
            {"$match": {field: within}},
            {"$match": self.resolver.source.query},
            {
                "$group": {
                    "_id": {
                        **self.resolver.key,
                        "bin": {"$dateTrunc": {"date": moment, **_TEN_MINUTES}},
                    },
                    "count": {"$sum": 1},
                    # 31 bits per document, so that the sum stays an integer.
                    "checksum": {"$sum": {"$mod": [hashed, 2**31]}},
                    "example": {"$first": "$_id"},
                }
            },
        ]

    @property
    def _polled_field(self) -> tuple[str, Callable[[int], object]]:
        """The field that is polled, and a function from seconds since 1970 to its values."""
        updated = self.settings.fields.updated
        if updated is not None:
            return updated, lambda seconds: dt.datetime.fromtimestamp(seconds, dt.UTC)
        return "_id", lambda seconds: ObjectId.from_datetime(
            dt.datetime.fromtimestamp(seconds, dt.UTC)
        )


def _changed_partitions(
    position: StreamPosition, bins: Mapping[str, tuple[int, int]]
) -> dict[str, str]:
    """The partitions whose documents in these bins differ from the last poll, with change ids."""
    lines: dict[str, list[str]] = defaultdict(list)
    for name, entry in sorted(bins.items()):
        partition = name.partition("|")[2]
        if position.bins.get(name) != entry and partition not in set(Anomaly):
            lines[partition].append(f"{name} {entry}")
    # A repeated poll starts from the same `read_until`, and therefore gives the same ids.
    return {name: change_id(position.read_until, *parts) for name, parts in lines.items()}


def _bin_start(moment: float) -> int:
    return int(moment // BIN_SECONDS) * BIN_SECONDS


def _epoch_seconds(moment: object) -> int:
    """Seconds since 1970, also of a date outside the range of Python's datetime."""
    if isinstance(moment, DatetimeMS):
        return int(moment) // 1000
    assert isinstance(moment, dt.datetime)  # noqa: S101  ($dateTrunc returns dates only)
    return int(moment.timestamp())
