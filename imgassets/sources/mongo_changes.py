"""Read which documents of MongoDB were inserted or changed since the last scan.

Two methods: a change stream, and a poll (`mongo_poll`). How changed partitions wait for their run
is in `changes`.

**The change stream** is used on replica sets, sharded clusters and the embedded MongoDB. Compared
with the poll, on the embedded MongoDB 6.0 and two cores:

- 100,000 inserts and 20,000 updates are read in 1.6 s and their partitions are found in 0.5 s. The
  poll groups 100,000 documents in 0.3 s, but reads the last hour again in each scan.
- It reports changes that no index shows: documents updated in place, whose date and ObjectId stay
  the same, and documents that arrive with an old ObjectId. The order is the server's, so slow or
  fast clocks of writers and equal timestamps do not matter, and its resume token is an exact
  cursor.
- It cannot resume if the oplog no longer contains the token (the sensor was off for too long). Then
  the poll reads the gap, and a note says so.
- One stream reads all collections of a source, at the level of the database or of the cluster.

The events contain the ids of documents only. Their current retailers and days are read with one
query per page. An update of fields that do not affect the URL rows is ignored.

**The poll** is used on a standalone MongoDB, and if a collection is a view. Its limits are in
`mongo_poll`.

**A new collection** of a source that can have several is read whole: it may have been renamed or
restored, with old ObjectIds.

If a document is deleted, or moved to another day or retailer, only the change stream can report the
partition that it left, and only if MongoDB stores pre-images (`changeStreamPreAndPostImages` of the
collection, MongoDB 6.0 or newer). Without them, materialize that partition
yourself.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import bson
import pymongo
from bson import json_util
from pymongo import ReadPreference
from pymongo.change_stream import ChangeStream
from pymongo.errors import OperationFailure

from imgassets.errors import SourceError
from imgassets.settings import SensorSettings, Settings
from imgassets.sources.changes import (
    ChangePage,
    Cursor,
    StreamPosition,
    change_id,
    unpartitioned_message,
)
from imgassets.sources.images import GRAPH
from imgassets.sources.listing import SourceReport, Unpartitioned
from imgassets.sources.mongo_partitions import PartitionResolver
from imgassets.sources.mongo_places import UNAUTHORIZED, Client, Place
from imgassets.sources.mongo_poll import MongoPoll
from imgassets.sources.mongodb import MongoSource

PAGE_EVENTS = 5_000

# A page of the existing documents, which takes about half a second.
PAGE_DOCUMENTS = 50_000

# Dagster stops a sensor's tick after 60 s. No further page is read after READ_SECONDS, and
# SERVER_SECONDS limits all operations of the server together; the rest is for Dagster.
READ_SECONDS = 25
SERVER_SECONDS = 45

# How long the server waits for the next change if there is none; otherwise it answers at once.
_AWAIT_MS = 200

# Error codes of a token that cannot be resumed: ChangeStreamHistoryLost, ChangeStreamFatalError,
# InvalidResumeToken (such as a token of another cluster), FailedToParse, Overflow.
_RESUME_ERRORS = {286, 280, 260, 9, 15}

_OPERATIONS = ("insert", "update", "replace", "invalidate")

_EVENT: Mapping[str, Any] = {
    "operationType": 1,
    "ns": 1,
    "documentKey._id": 1,
    # Only the names of the changed fields; their values are not needed.
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
_PRE_IMAGE = "fullDocumentBeforeChange"


@dataclass(frozen=True)
class MongoChanges:
    """Reads the changes of a source's collections.

    Attributes:
        source: The source, which connects to MongoDB.
        resolver: Finds the partition of a document.
        options: The settings of the sensor, with the method and the overlap of the poll.
    """

    source: MongoSource
    resolver: PartitionResolver
    options: SensorSettings

    @property
    def _poll(self) -> MongoPoll:
        return MongoPoll(self.source.settings, self.resolver, self.options.overlap_s)

    @property
    def source_name(self) -> str:
        """The name of the collections in the settings, as in `Cursor.source`.

        With the period, because the cursor has names of partitions.
        """
        period = self.source.period
        return self.source.places.name + ("" if period == "day" else f" by {period}")

    @contextmanager
    def time_limit(self) -> Iterator[None]:
        """Limit the operations of MongoDB inside the block to `SERVER_SECONDS` in total.

        Raises:
            SourceError: MongoDB cannot be reached.
        """
        with self.source.client() as client:
            # Ping outside the limit, which pymongo would also use as the server selection timeout.
            client.admin.command("ping")
        with pymongo.timeout(SERVER_SECONDS):
            yield

    def initial_cursor(self) -> Cursor:
        """Make the cursor of the first scan, after which only later changes are reported.

        Returns:
            The cursor; if `sensor.start_from` is `everything`, the pages after it start with those
            of the existing documents.

        Raises:
            SourceError: MongoDB cannot be read.
        """
        with self.source.client() as client:
            places = self.source.places.find(client)
            position, _ = self._current_position(client, places)
            if position.token is None:
                # Count the existing documents, so that the next poll does not report them as new.
                *_, last = self._poll.pages(client, places, position, position.read_until)
                position = last.position
        if not self.source.places.is_one:
            position = replace(position, places=_existing(places))
        if self.options.start_from == "everything":
            position = replace(position, surveys=dict.fromkeys(_existing(places), ""))
        return Cursor(self.source_name, position)

    def retailers(self) -> set[str]:
        """The slugs of the retailers that have documents.

        Raises:
            SourceError: MongoDB cannot be read.
        """
        with self.source.client() as client:
            return self.source.retailers_in(client, self.source.places.find(client))

    def pages(self, position: StreamPosition) -> Iterator[ChangePage]:
        """Read the changes after a position.

        Raises:
            SourceError: MongoDB cannot be read, or `sensor.method` is `stream` and there is no
                change stream.
        """
        with self.source.client() as client:
            places = self.source.places.find(client)
            position, note = self._with_new_places(position, places)
            if note is not None:
                yield ChangePage(position, {}, more=True, note=note)
            for page in self._survey_pages(client, places, position):
                yield page
                position = page.position
            polling = (
                position.poll_started is not None
                or self.options.method == "poll"
                or not all(place.has_stream for place in places)
            )
            if position.token is not None and not polling:
                try:
                    yield from self._stream_pages(client, places, position)
                except OperationFailure as error:
                    if error.code not in _RESUME_ERRORS:
                        raise
                    reason = (error.details or {}).get("codeName", error.code)
                else:
                    return
                note = _gap_note(position.read_until, reason)
                position = replace(position, token=None, bins={})
                yield ChangePage(position, {}, more=True, note=note)
            started = position.poll_started
            if started is None:
                # Take the new token before the poll, so that no change is missed between them.
                current, no_stream = self._current_position(client, places)
                position, started = replace(position, token=current.token), current.read_until
                if no_stream is not None:
                    yield ChangePage(position, {}, more=True, note=no_stream)
            yield from self._poll.pages(client, places, position, started)

    def _with_new_places(
        self, position: StreamPosition, places: Sequence[Place]
    ) -> tuple[StreamPosition, str | None]:
        """Add the collections that are new since the position, so that they are read whole.

        Returns:
            The position, and the note about new collections, or if there is none at all.
        """
        if self.source.places.is_one:
            return position, None
        known, existing = position.places, _existing(places)
        new = [name for name in existing if known is not None and name not in known]
        surveys = {**position.surveys, **dict.fromkeys(new, "")}
        position = replace(position, places=existing, surveys=surveys)
        if new:
            return position, f"new collections, of which all partitions are run: {', '.join(new)}"
        return position, None if existing else f"no collection matches {self.source_name}"

    def _survey_pages(
        self, client: Client, places: Sequence[Place], position: StreamPosition
    ) -> Iterator[ChangePage]:
        """Read the partitions of the existing documents, in the order of `_id`."""
        found = {str(place): place for place in places}
        for name, text in position.surveys.items():
            later = {other: at for other, at in position.surveys.items() if other != name}
            if name not in found:  # dropped since
                position = replace(position, surveys=later)
                continue
            after: str | None = text
            while after is not None:
                partitions, after = self._survey_page(client, found[name], after)
                change = change_id("start", position.read_until)
                surveys = later if after is None else {name: after, **later}
                position = replace(position, surveys=surveys)
                yield ChangePage(position, dict.fromkeys(partitions, change), more=True)

    def _survey_page(self, client: Client, place: Place, text: str) -> tuple[list[str], str | None]:
        """Read the partitions of existing documents of one collection, in the order of `_id`.

        Args:
            client: The client.
            place: The collection.
            text: The last `_id` that was read, in extended JSON; empty for the start.

        Returns:
            The partitions, and the last `_id`; None if there are no further documents.
        """
        collection = place.open(client)
        after = json_util.loads(text)["_id"] if text else None
        # `$expr` compares ids of all types, `$gt` alone those of one type.
        later = {} if after is None else {"$expr": {"$gt": ["$_id", {"$literal": after}]}}
        last = collection.find_one(
            later, {"_id": 1}, sort=[("_id", 1)], skip=PAGE_DOCUMENTS - 1, hint=[("_id", 1)]
        )
        within = {"$expr": {"$lte": ["$_id", {"$literal": last["_id"]}]}} if last else {}
        groups = collection.aggregate(
            [
                {"$match": {"$and": [later, within]}},
                {"$match": self.source.query},
                {"$group": {"_id": self.resolver.key}},
            ],
            hint={"_id": 1},
        )
        # `imgassets sync` and `imgassets doctor` report documents without a partition.
        resolved = {self.resolver.resolve(place, group["_id"]) for group in groups}
        partitions = [name for name in resolved if isinstance(name, str)]
        return partitions, json_util.dumps(last) if last else None

    def _current_position(
        self, client: Client, places: Sequence[Place]
    ) -> tuple[StreamPosition, str | None]:
        """The position after all changes so far, with a token if there is a change stream.

        Returns:
            The position, and the warning if there is no change stream of the collections, or the
            user may not read it.
        """
        hello = client.admin.command("hello")
        server_time = hello["localTime"].timestamp()
        has_stream = "setName" in hello or hello.get("msg") == "isdbgrid"
        if self.options.method == "poll" or (self.options.method == "auto" and not has_stream):
            return StreamPosition(server_time), None
        if not has_stream:
            raise SourceError(
                "sensor.method is stream, but this MongoDB is not a replica set and has no change "
                "streams; set it to auto or poll, or make the server a replica set"
            )
        note = next(
            (
                f"{place} is a {place.kind}, which has no change stream"
                for place in places
                if not place.has_stream
            ),
            None,
        )
        if note is None:
            try:
                with self._watch(client) as stream:
                    token = json_util.dumps(stream.resume_token)
                    return StreamPosition(server_time, token=token), None
            except OperationFailure as error:
                if error.code != UNAUTHORIZED:
                    raise
                note = (
                    "the user in MONGODB_URI may not read the change stream: grant it the actions "
                    f"find and changeStream on {self.source.places.stream_resource}"
                )
        if self.options.method == "stream":
            raise SourceError(f"sensor.method is stream, but {note}")
        return StreamPosition(server_time), f"{note}; the sensor polls instead"

    def _stream_pages(
        self, client: Client, places: Sequence[Place], position: StreamPosition
    ) -> Iterator[ChangePage]:
        server_time = _server_time(client)
        pre_images = any(place.has_pre_images for place in places)
        with self._watch(
            client,
            pre_images=pre_images,
            # Not resume_after, which cannot resume after the collection was dropped.
            start_after=json_util.loads(str(position.token)),
            batch_size=PAGE_EVENTS,
        ) as stream:
            more = True
            while more:
                changed: dict[Place, dict[bytes, tuple[object, str]]] = defaultdict(dict)
                left_partitions: dict[str, str] = {}
                for _ in range(PAGE_EVENTS):
                    event = stream.try_next()
                    if event is None:
                        more = False
                        break
                    if event["operationType"] == "invalidate":
                        # Dropped or renamed; a new collection of this name needs a new stream.
                        more = True
                        break
                    place = self.source.places.at(event["ns"]["db"], event["ns"]["coll"])
                    if place is not None and self._affects_rows(event):
                        document, token = event["documentKey"]["_id"], event["_id"]["_data"]
                        changed[place][bson.encode({"_": document})] = (document, token)
                        if pre_images:
                            before = self.resolver.resolve(place, event["before"])
                            if isinstance(before, str):
                                left_partitions[before] = token
                position = replace(
                    position,
                    token=json_util.dumps(stream.resume_token),
                    read_until=position.read_until if more else server_time,
                )
                partitions, note = self._changed_partitions(client, changed, left_partitions)
                yield ChangePage(position, partitions, more=more, note=note)
                if more and not stream.alive:
                    return

    def _watch(
        self, client: Client, *, pre_images: bool = False, **options: Any
    ) -> AbstractContextManager[ChangeStream[dict[str, Any]]]:
        """Open the change stream.

        Args:
            client: The client.
            pre_images: Whether to report deletions, and the partitions of documents before a
                change.
            options: Further options of the stream.
        """
        operations, fields = [*_OPERATIONS], dict(_EVENT)
        if pre_images:
            operations.append("delete")
            fields["before"] = {
                name: f"${_PRE_IMAGE}.{path[1:]}" for name, path in self.resolver.fields.items()
            }
            options["full_document_before_change"] = "whenAvailable"
        return self.source.places.watch(
            client,
            {"operationType": {"$in": operations}},
            fields,
            max_await_time_ms=_AWAIT_MS,
            **options,
        )

    def _affects_rows(self, event: Mapping[str, Any]) -> bool:
        """Whether an event can change the URL rows of its document."""
        if event["operationType"] != "update" or self.source.settings.query:
            # With a query, a change of any field can add or remove the document.
            return True
        fields = self.source.settings.fields
        relevant = {
            path.split(".")[0]
            for path in (
                fields.retailer,
                *fields.image_paths,
                fields.date,
                fields.product_id,
                GRAPH,
            )
        }
        return any(path.split(".")[0] in relevant for path in event["fields"])

    def _changed_partitions(
        self,
        client: Client,
        changed: Mapping[Place, Mapping[bytes, tuple[object, str]]],
        left_partitions: Mapping[str, str],
    ) -> tuple[dict[str, str], str | None]:
        """Find the current partitions of changed documents.

        Args:
            client: The client.
            changed: `(_id, token of the last change)` of each document, by its collection and its
                encoded `_id`.
            left_partitions: The token of the last change by partition, for known partitions that
                the documents were in before.

        Returns:
            The changed partitions with the ids of their last changes, and the warning about
            documents that have no partition.
        """
        report = SourceReport()
        latest = dict(left_partitions)
        for place, tokens in changed.items():
            # A secondary may not have replicated the changes yet.
            primary = place.open(client).with_options(read_preference=ReadPreference.PRIMARY)
            documents = primary.aggregate(
                [
                    {"$match": {"_id": {"$in": [document for document, _ in tokens.values()]}}},
                    {"$match": self.source.query},
                    {"$project": self.resolver.fields},
                ]
            )
            for document in documents:
                partition = self.resolver.resolve(place, document)
                if isinstance(partition, Unpartitioned):
                    report.add(partition.anomaly, str(document["_id"]), partition.detail)
                else:
                    # Tokens sort in the order of the changes.
                    token = tokens[bson.encode({"_": document["_id"]})][1]
                    latest[partition] = max(token, latest.get(partition, ""))
        partitions = {name: change_id(token) for name, token in latest.items()}
        return partitions, unpartitioned_message(report)


def open_changes(settings: Settings, mongodb_uri: str) -> MongoChanges:
    """Open the changes of the collections that the settings name.

    Args:
        settings: Settings with the source, the start date and the sensor's options.
        mongodb_uri: Address of the server.
    """
    period = settings.partitions.period
    source = MongoSource(mongodb_uri, settings.source, settings.start_date, period)
    return MongoChanges(source, PartitionResolver(source), settings.sensor)


def _gap_note(read_until: float, reason: object) -> str:
    since = dt.datetime.fromtimestamp(read_until, dt.UTC).isoformat(timespec="seconds")
    return (
        f"MongoDB no longer has the changes since {since} ({reason}); new documents are found by "
        "their ObjectIds (or by source.fields.updated), but documents updated in place since then "
        "may be missed: backfill them"
    )


def _existing(places: Sequence[Place]) -> tuple[str, ...]:
    return tuple(str(place) for place in places if place.exists)


def _server_time(client: Client) -> float:
    """The time of the server in seconds since 1970."""
    hello = client.admin.command("hello")
    return float(hello["localTime"].timestamp())
