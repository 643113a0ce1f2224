"""Documents of MongoDB that were inserted or changed, read on from where the last look ended.

Here live the two ways of following a collection. What touched partitions wait for is in `changes`.

**A change stream** is used where there is one (replica sets, sharded clusters, the embedded
MongoDB). It was tried beside the poll, on the embedded MongoDB 6.0 and two cores:

- 100,000 inserts and 20,000 updates are read in 1.6 s and looked up in 0.5 s; the poll groups
  100,000 documents in 0.3 s, but reads the last hour again at each look.
- It sees what no index shows: a document changed in place, whose date and ObjectId stay, and one
  that arrives with an old ObjectId. Its order is the server's, so that neither writers' clocks nor
  equal timestamps matter, and its resume token is an exact cursor.
- It ends where the server forgot the token (the sensor was off for longer than the oplog reaches).
  That is noticed, and the gap is swept by the poll.

The events name documents only; their retailer and day are then looked up once a document, as they
are now. An update of fields that make no difference to the images touches nothing.

**A poll** serves a standalone MongoDB, with what it cannot see: see `mongo_poll`.

Which partition a document *left*, since it was deleted, or moved to another day or retailer, is
known to the stream alone, and only where MongoDB keeps documents as they were before a change
(`changeStreamPreAndPostImages` of the collection, MongoDB 6.0 and newer). Elsewhere, run that
partition by hand.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import bson
import pymongo
from bson import json_util
from pymongo import ReadPreference
from pymongo.errors import OperationFailure

from imgassets.errors import SourceError
from imgassets.settings import SensorSettings, Settings
from imgassets.sources.changes import (
    Cursor,
    Page,
    PendingPartition,
    StreamPosition,
    position,
    unpartitioned_message,
)
from imgassets.sources.listing import SourceReport
from imgassets.sources.mongo_partitions import PartitionResolver
from imgassets.sources.mongo_poll import MongoPoll
from imgassets.sources.mongodb import MongoSource, Products

PAGE_EVENTS = 5_000

# A tick of a sensor must end within 60 s. Reading stops between two pages after the first; the
# second ends whatever the server is busy with, and leaves time for Dagster's own work.
READ_SECONDS = 25
SERVER_SECONDS = 45

# How long an empty change stream is waited for. Its answer comes at once when there is something.
_AWAIT_MS = 200

# The server cannot go on from a token: history lost, a fatal error of the stream, a token of
# another cluster or none at all (InvalidResumeToken, FailedToParse, Overflow).
_LOST = {286, 280, 260, 9, 15}

_KINDS = ("insert", "update", "replace", "invalidate")

_CHANGE: Mapping[str, Any] = {
    "operationType": 1,
    "documentKey._id": 1,
    # Names only: the values would be sent twice.
    "fields": {
        "$concatArrays": [
            {
                "$map": {
                    "input": {
                        "$objectToArray": {"$ifNull": ["$updateDescription.updatedFields", {}]}
                    },
                    "in": "$$this.k",
                }
            },
            {"$ifNull": ["$updateDescription.removedFields", []]},
            {
                "$map": {
                    "input": {"$ifNull": ["$updateDescription.truncatedArrays", []]},
                    "in": "$$this.field",
                }
            },
        ]
    },
}
_BEFORE = "fullDocumentBeforeChange"


@dataclass(frozen=True)
class MongoChanges:
    """Follows the collection of a source.

    Attributes:
        source: the collection.
        touching: which partition a document touches.
        options: which way, and how much the poll overlaps.
    """

    source: MongoSource
    touching: PartitionResolver
    options: SensorSettings

    @property
    def _poll(self) -> MongoPoll:
        return MongoPoll(self.source.source, self.touching, self.options.overlap_s)

    @property
    def name(self) -> str:
        """What a cursor is about."""
        return f"{self.source.source.database}.{self.source.source.collection}"

    @contextmanager
    def in_time(self) -> Iterator[None]:
        """Bounds all that MongoDB is asked inside the block, so that a look ends in time.

        Raises:
            SourceError: MongoDB cannot be reached.
        """
        with self.source.collection() as collection:
            # Outside the bound, which would also be how long a server is waited for that is away.
            collection.database.client.admin.command("ping")
        with pymongo.timeout(SERVER_SECONDS):
            yield

    def start(self, now: float) -> Cursor:
        """The cursor of a first look: all that is there was seen, or waits for its run.

        Raises:
            SourceError: MongoDB cannot be read.
        """
        with self.source.collection() as collection:
            place = self._now(collection)
            if place.token is None:
                # What stands in the window must not count as new at the next look.
                *_, last = self._poll.pages(collection, place, place.until)
                place = last.place
        if self.options.start_from == "now":
            return Cursor(self.name, place)
        touch = PendingPartition(position("start", place.until), now, now)
        inventory = self.source.inventory()
        pending = {f"{day}|{slug}": touch for slug, day in sorted(inventory.documents)}
        return Cursor(self.name, place, pending)

    def names(self) -> dict[str, list[str]]:
        """The retailers' names in the documents by their slug.

        Raises:
            SourceError: MongoDB cannot be read.
        """
        with self.source.collection() as collection:
            return self.source.names_by_slug(collection)

    def pages(self, place: StreamPosition) -> Iterator[Page]:
        """What was changed since a place.

        Raises:
            SourceError: MongoDB cannot be read, or has no change stream and should.
        """
        with self.source.collection() as collection:
            if place.began is None and place.token is not None and self.options.method != "poll":
                try:
                    yield from self._stream(collection, place)
                except OperationFailure as error:
                    if error.code not in _LOST:
                        raise
                    why = (error.details or {}).get("codeName", error.code)
                else:
                    return
                place = replace(place, token=None, window={})
                yield Page(
                    place,
                    {},
                    more=True,
                    note=(
                        f"MongoDB no longer knows the changes since {_when(place.until)} "
                        f"({why}); new documents are looked for by their ObjectIds (or by "
                        "source.fields.updated), but documents changed in place since then may "
                        "not be seen: backfill them"
                    ),
                )
            if place.began is None:
                # The stream begins before the sweep, so that nothing falls between them.
                here = self._now(collection)
                place, began = replace(place, token=here.token), here.until
            else:
                began = place.began
            yield from self._poll.pages(collection, place, began)

    def _now(self, collection: Products) -> StreamPosition:
        """The present, with a change stream's token where there is a stream."""
        hello = collection.database.client.admin.command("hello")
        until = hello["localTime"].timestamp()
        streams = "setName" in hello or hello.get("msg") == "isdbgrid"
        if self.options.method == "poll" or (self.options.method == "auto" and not streams):
            return StreamPosition(until)
        if not streams:
            raise SourceError(
                "sensor.method is stream, but this MongoDB is no replica set and has no change "
                "streams; set it to auto or poll, or make the server a replica set"
            )
        with collection.watch(self._changes(), max_await_time_ms=_AWAIT_MS) as stream:
            return StreamPosition(until, token=json_util.dumps(stream.resume_token))

    def _stream(self, collection: Products, place: StreamPosition) -> Iterator[Page]:
        until = collection.database.client.admin.command("hello")["localTime"].timestamp()
        remembers = _remembers(collection)
        with collection.watch(
            self._changes(before=remembers),
            full_document_before_change="whenAvailable" if remembers else None,
            # Not resume_after, which ends where the collection was dropped and made again.
            start_after=json_util.loads(str(place.token)),
            batch_size=PAGE_EVENTS,
            max_await_time_ms=_AWAIT_MS,
        ) as stream:
            more = True
            while more:
                changed: dict[bytes, tuple[object, str]] = {}
                left: dict[str, str] = {}
                for _ in range(PAGE_EVENTS):
                    event = stream.try_next()
                    if event is None:
                        more = False
                        break
                    if event["operationType"] == "invalidate":
                        # Dropped or renamed; what comes under its name is in a new stream.
                        more = True
                        break
                    if self._matters(event):
                        document, token = event["documentKey"]["_id"], event["_id"]["_data"]
                        changed[bson.encode({"_": document})] = (document, token)
                        before = self.touching.partition(event["before"]) if remembers else None
                        if isinstance(before, str):
                            left[before] = token
                place = replace(
                    place,
                    token=json_util.dumps(stream.resume_token),
                    until=place.until if more else until,
                )
                touched, note = self._looked_up(collection, changed, left)
                yield Page(place, touched, more=more, note=note)
                if more and not stream.alive:
                    return

    def _changes(self, *, before: bool = False) -> list[Mapping[str, Any]]:
        """What is asked of a change stream.

        Args:
            before: also of documents as they were before the change, and so of deleted ones.
        """
        if not before:
            return [{"$match": {"operationType": {"$in": [*_KINDS]}}}, {"$project": _CHANGE}]
        values = _inside(self.touching.expressions, _BEFORE)
        return [
            {"$match": {"operationType": {"$in": [*_KINDS, "delete"]}}},
            {"$project": {**_CHANGE, "before": values}},
        ]

    def _matters(self, event: Mapping[str, Any]) -> bool:
        """Whether an event can make a difference to the rows of its document."""
        if event["operationType"] != "update" or self.source.source.query:
            # Any field may be one of the query's.
            return True
        fields = self.source.source.fields
        ours = {
            path.split(".")[0]
            for path in (fields.retailer, fields.images, fields.date, fields.product_id)
        }
        return any(path.split(".")[0] in ours for path in event["fields"])

    def _looked_up(
        self,
        collection: Products,
        changed: Mapping[bytes, tuple[object, str]],
        left: Mapping[str, str],
    ) -> tuple[dict[str, str], str | None]:
        """The partitions of changed documents as they are now, and what was odd about them.

        Args:
            collection: where they are.
            changed: the documents' ids, each with the token of its last change.
            left: the partitions that they were in before, so far as that is known, likewise.
        """
        if not changed:
            return {}, None
        report = SourceReport()
        latest = dict(left)
        # A secondary may not have them yet.
        primary = collection.with_options(read_preference=ReadPreference.PRIMARY)
        rows = primary.aggregate(
            [
                {"$match": {"_id": {"$in": [document for document, _ in changed.values()]}}},
                {"$match": self.source.source.query},
                {"$project": self.touching.expressions},
            ]
        )
        for row in rows:
            found = self.touching.partition(row)
            if isinstance(found, str):
                # Tokens sort like the changes that they name.
                token = changed[bson.encode({"_": row["_id"]})][1]
                latest[found] = max(token, latest.get(found, ""))
            else:
                report.add(found[0], str(row["_id"]), found[1])
        return {name: position(token) for name, token in latest.items()}, unpartitioned_message(
            report
        )


def follow(settings: Settings, mongodb_uri: str) -> MongoChanges:
    """Follows the collection that the settings name.

    Args:
        settings: name it, and say how.
        mongodb_uri: address of the server.
    """
    source = MongoSource(mongodb_uri, settings.source, settings.start_date)
    return MongoChanges(source, PartitionResolver(source, settings.start_date), settings.sensor)


def _when(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")


def _remembers(collection: Products) -> bool:
    """Whether MongoDB keeps what the collection's documents were before a change."""
    try:
        options = collection.options()
    except OperationFailure:
        return False  # this user may not ask
    return bool(options.get("changeStreamPreAndPostImages", {}).get("enabled"))


def _inside(expression: Any, path: str) -> Any:
    """An expression on a document, as one on a sub-document at this path."""
    if isinstance(expression, str) and expression.startswith("$"):
        return f"${path}.{expression[1:]}"
    if isinstance(expression, dict):
        return {name: _inside(part, path) for name, part in expression.items()}
    if isinstance(expression, list):
        return [_inside(part, path) for part in expression]
    return expression
