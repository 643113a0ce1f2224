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

The events contain the ids of documents only. Their current retailers and days are read with one
query per page. An update of fields that do not affect the URL rows is ignored.

**The poll** is used on a standalone MongoDB. Its limits are in `mongo_poll`.

If a document is deleted, or moved to another day or retailer, only the change stream can report the
partition that it left, and only if MongoDB stores pre-images (`changeStreamPreAndPostImages` of the
collection, MongoDB 6.0 or newer). Without them, materialize that partition
yourself.
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
    ChangePage,
    Cursor,
    StreamPosition,
    change_id,
    unpartitioned_message,
)
from imgassets.sources.listing import SourceReport
from imgassets.sources.mongo_partitions import PartitionResolver, Unpartitioned
from imgassets.sources.mongo_poll import MongoPoll
from imgassets.sources.mongodb import MongoSource, Products

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

# Error codes if there is no change stream for this user or collection: Unauthorized,
# CommandNotSupportedOnView, InvalidNamespace.
_UNAUTHORIZED = 13
_NO_STREAM_ERRORS = {_UNAUTHORIZED, 166, 73}

_OPERATIONS = ("insert", "update", "replace", "invalidate")

_EVENT: Mapping[str, Any] = {
    "operationType": 1,
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
    """Reads the changes of a source's collection.

    Attributes:
        source: The source, which opens the collection.
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
        """The name of the collection, `database.collection`, as in `Cursor.source`."""
        return f"{self.source.settings.database}.{self.source.settings.collection}"

    @contextmanager
    def time_limit(self) -> Iterator[None]:
        """Limit the operations of MongoDB inside the block to `SERVER_SECONDS` in total.

        Raises:
            SourceError: MongoDB cannot be reached.
        """
        with self.source.collection() as collection:
            # Ping outside the limit, which pymongo would also use as the server selection timeout.
            collection.database.client.admin.command("ping")
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
        with self.source.collection() as collection:
            position, _ = self._current_position(collection)
            if position.token is None:
                # Count the existing documents, so that the next poll does not report them as new.
                *_, last = self._poll.pages(collection, position, position.read_until)
                position = last.position
        if self.options.start_from == "everything":
            position = replace(position, survey_after="")
        return Cursor(self.source_name, position)

    def retailer_names(self) -> dict[str, list[str]]:
        """The retailers' names in the documents, by slug.

        Raises:
            SourceError: MongoDB cannot be read.
        """
        with self.source.collection() as collection:
            return self.source.names_by_slug(collection)

    def pages(self, position: StreamPosition) -> Iterator[ChangePage]:
        """Read the changes after a position.

        Raises:
            SourceError: MongoDB cannot be read, or `sensor.method` is `stream` and there is no
                change stream.
        """
        with self.source.collection() as collection:
            for page in self._survey_pages(collection, position):
                yield page
                position = page.position
            polling = position.poll_started is not None or self.options.method == "poll"
            if position.token is not None and not polling:
                try:
                    yield from self._stream_pages(collection, position)
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
                current, no_stream = self._current_position(collection)
                position, started = replace(position, token=current.token), current.read_until
                if no_stream is not None:
                    yield ChangePage(position, {}, more=True, note=no_stream)
            yield from self._poll.pages(collection, position, started)

    def _survey_pages(self, collection: Products, position: StreamPosition) -> Iterator[ChangePage]:
        """Read the partitions of the existing documents, in the order of `_id`."""
        while position.survey_after is not None:
            after = json_util.loads(position.survey_after)["_id"] if position.survey_after else None
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
            resolved = {self.resolver.resolve(group["_id"]) for group in groups}
            change = change_id("start", position.read_until)
            # `imgassets sync` and `imgassets doctor` report documents without a partition.
            partitions = {name: change for name in resolved if isinstance(name, str)}
            position = replace(position, survey_after=json_util.dumps(last) if last else None)
            yield ChangePage(position, partitions, more=True)

    def _current_position(self, collection: Products) -> tuple[StreamPosition, str | None]:
        """The position after all changes so far, with a token if there is a change stream.

        Returns:
            The position, and the warning if the user may not read the change stream.
        """
        hello = collection.database.client.admin.command("hello")
        server_time = hello["localTime"].timestamp()
        has_stream = "setName" in hello or hello.get("msg") == "isdbgrid"
        if self.options.method == "poll" or (self.options.method == "auto" and not has_stream):
            return StreamPosition(server_time), None
        if not has_stream:
            raise SourceError(
                "sensor.method is stream, but this MongoDB is not a replica set and has no change "
                "streams; set it to auto or poll, or make the server a replica set"
            )
        try:
            with collection.watch(self._event_pipeline(), max_await_time_ms=_AWAIT_MS) as stream:
                return StreamPosition(server_time, token=json_util.dumps(stream.resume_token)), None
        except OperationFailure as error:
            if error.code not in _NO_STREAM_ERRORS:
                raise
            note = _no_stream_note(self.source_name, error.code)
            if self.options.method == "stream":
                raise SourceError(f"sensor.method is stream, but {note}") from None
            return StreamPosition(server_time), f"{note}; the sensor polls instead"

    def _stream_pages(self, collection: Products, position: StreamPosition) -> Iterator[ChangePage]:
        server_time = collection.database.client.admin.command("hello")["localTime"].timestamp()
        pre_images = _stores_pre_images(collection)
        with collection.watch(
            self._event_pipeline(pre_images=pre_images),
            full_document_before_change="whenAvailable" if pre_images else None,
            # Not resume_after, which cannot resume after the collection was dropped.
            start_after=json_util.loads(str(position.token)),
            batch_size=PAGE_EVENTS,
            max_await_time_ms=_AWAIT_MS,
        ) as stream:
            more = True
            while more:
                changed: dict[bytes, tuple[object, str]] = {}
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
                    if self._affects_rows(event):
                        document, token = event["documentKey"]["_id"], event["_id"]["_data"]
                        changed[bson.encode({"_": document})] = (document, token)
                        before = self.resolver.resolve(event["before"]) if pre_images else None
                        if isinstance(before, str):
                            left_partitions[before] = token
                position = replace(
                    position,
                    token=json_util.dumps(stream.resume_token),
                    read_until=position.read_until if more else server_time,
                )
                partitions, note = self._changed_partitions(collection, changed, left_partitions)
                yield ChangePage(position, partitions, more=more, note=note)
                if more and not stream.alive:
                    return

    def _event_pipeline(self, *, pre_images: bool = False) -> list[Mapping[str, Any]]:
        """The pipeline of the change stream.

        Args:
            pre_images: Whether to report deletions, and the partitions of documents before a
                change.
        """
        if not pre_images:
            return [{"$match": {"operationType": {"$in": [*_OPERATIONS]}}}, {"$project": _EVENT}]
        before = {name: f"${_PRE_IMAGE}.{path[1:]}" for name, path in self.resolver.fields.items()}
        return [
            {"$match": {"operationType": {"$in": [*_OPERATIONS, "delete"]}}},
            {"$project": {**_EVENT, "before": before}},
        ]

    def _affects_rows(self, event: Mapping[str, Any]) -> bool:
        """Whether an event can change the URL rows of its document."""
        if event["operationType"] != "update" or self.source.settings.query:
            # With a query, a change of any field can add or remove the document.
            return True
        fields = self.source.settings.fields
        relevant = {
            path.split(".")[0]
            for path in (fields.retailer, fields.images, fields.date, fields.product_id)
        }
        return any(path.split(".")[0] in relevant for path in event["fields"])

    def _changed_partitions(
        self,
        collection: Products,
        changed: Mapping[bytes, tuple[object, str]],
        left_partitions: Mapping[str, str],
    ) -> tuple[dict[str, str], str | None]:
        """Find the current partitions of changed documents.

        Args:
            collection: The collection of the documents.
            changed: `(_id, token of the last change)` of each document, by its encoded `_id`.
            left_partitions: The token of the last change by partition, for known partitions that
                the documents were in before.

        Returns:
            The changed partitions with the ids of their last changes, and the warning about
            documents that have no partition.
        """
        if not changed:
            return {}, None
        report = SourceReport()
        latest = dict(left_partitions)
        # A secondary may not have replicated the changes yet.
        primary = collection.with_options(read_preference=ReadPreference.PRIMARY)
        documents = primary.aggregate(
            [
                {"$match": {"_id": {"$in": [document for document, _ in changed.values()]}}},
                {"$match": self.source.query},
                {"$project": self.resolver.fields},
            ]
        )
        for document in documents:
            partition = self.resolver.resolve(document)
            if isinstance(partition, Unpartitioned):
                report.add(partition.anomaly, str(document["_id"]), partition.detail)
            else:
                # Tokens sort in the order of the changes.
                token = changed[bson.encode({"_": document["_id"]})][1]
                latest[partition] = max(token, latest.get(partition, ""))
        partitions = {name: change_id(token) for name, token in latest.items()}
        return partitions, unpartitioned_message(report)


def open_changes(settings: Settings, mongodb_uri: str) -> MongoChanges:
    """Open the changes of the collection that the settings name.

    Args:
        settings: Settings with the source, the start date and the sensor's options.
        mongodb_uri: Address of the server.
    """
    source = MongoSource(mongodb_uri, settings.source, settings.start_date)
    return MongoChanges(source, PartitionResolver(source, settings.start_date), settings.sensor)


def _no_stream_note(name: str, code: int | None) -> str:
    if code == _UNAUTHORIZED:
        return (
            "the user in MONGODB_URI may not read the change stream: grant it the actions find and "
            f"changeStream on {name} (the role read has them)"
        )
    return f"{name} is a view, which has no change stream"


def _gap_note(read_until: float, reason: object) -> str:
    since = dt.datetime.fromtimestamp(read_until, dt.UTC).isoformat(timespec="seconds")
    return (
        f"MongoDB no longer has the changes since {since} ({reason}); new documents are found by "
        "their ObjectIds (or by source.fields.updated), but documents updated in place since then "
        "may be missed: backfill them"
    )


def _stores_pre_images(collection: Products) -> bool:
    """Whether MongoDB stores the collection's documents as they were before a change."""
    try:
        options = collection.options()
    except OperationFailure:
        return False  # the user has no permission to read the options
    return bool(options.get("changeStreamPreAndPostImages", {}).get("enabled"))
