"""Product documents in MongoDB, as the scrapers write them.

Here live the queries. MongoDB decides which day a document belongs to, by one expression that the
partition's query and the inventory share; what rows a document makes is in `listing`.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote_plus

from bson import ObjectId
from bson.codec_options import DatetimeConversion
from bson.errors import BSONError
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import ConfigurationError, InvalidURI, OperationFailure, PyMongoError

from imgassets.errors import SourceError
from imgassets.manifests import UrlRow
from imgassets.settings import SourceSettings
from imgassets.sources.listing import (
    Anomaly,
    Inventory,
    Listing,
    SourceReport,
    conflict,
    day_anomaly,
    document_rows,
    finished,
    retailer_slug,
    today,
    unknown_retailer,
)

# Long enough for a replica set to elect a primary, short enough for a person who waits.
SERVER_SELECTION_MS = 8_000

Document = Mapping[str, Any]
Products = Collection[dict[str, Any]]


class MongoSource:
    """A collection of product documents.

    Args:
        uri: address of the server; its password is never shown.
        source: names of database, collection and fields, and an extra filter.
        start_date: first day with a partition.
    """

    def __init__(self, uri: str, source: SourceSettings, start_date: dt.date) -> None:
        self._uri = uri
        self._source = source
        self._fields = source.fields
        self._start_date = start_date

    @property
    def source(self) -> SourceSettings:
        """The names of database, collection and fields."""
        return self._source

    @property
    def index_keys(self) -> list[tuple[str, int]]:
        """The index that the partition's query is made for: `(retailer, date, _id)` ascending."""
        keys = dict.fromkeys([self._fields.retailer, self._fields.date, "_id"])
        return [(key, 1) for key in keys]

    def listing(self, date: str, retailer: str) -> Listing:
        """The URL rows of one partition; see `Source.listing`."""
        report = SourceReport()
        rows: list[UrlRow] = []
        documents = 0
        with self.collection() as collection:
            name = self._name_of(collection, retailer)
            for document in collection.aggregate(self._partition_pipeline(name, date)):
                documents += 1
                product = dig(document, self._fields.product_id)
                rows += document_rows(
                    document_id=str(document["_id"]),
                    product_id=str(document["_id"] if product is None else product),
                    images=dig(document, self._fields.images),
                    date=date,
                    retailer=retailer,
                    report=report,
                )
            self._report_undated(collection, {self._fields.retailer: name}, report)
        return finished(rows, documents, report)

    def inventory(self) -> Inventory:
        """Retailers and days of the whole collection; reads it once, in the server."""
        report = SourceReport()
        documents: dict[tuple[str, str], int] = {}
        names: dict[str, set[str]] = defaultdict(set)
        pipeline = [
            {"$match": self._source.query},
            {
                "$group": {
                    "_id": {
                        "retailer": f"${self._fields.retailer}",
                        "day": {"$dateTrunc": {"date": self.date_expression, "unit": "day"}},
                    },
                    "count": {"$sum": 1},
                    "example": {"$first": "$_id"},
                }
            },
        ]
        with self.collection() as collection:
            for group in collection.aggregate(pipeline, allowDiskUse=True):
                name, day = group["_id"].get("retailer"), group["_id"].get("day")
                slug = retailer_slug(name)
                if slug is None:
                    report.add(Anomaly.NO_RETAILER, str(group["example"]), f"it is {name!r}")
                    report.counts[Anomaly.NO_RETAILER] += group["count"] - 1
                    continue
                names[slug].add(name)
                if isinstance(day, dt.datetime) and not day_anomaly(day.date(), self._start_date):
                    documents[slug, day.date().isoformat()] = group["count"]
            self._report_undated(collection, {self._fields.retailer: {"$type": "string"}}, report)
        conflicts = {slug: sorted(same) for slug, same in names.items() if len(same) > 1}
        return Inventory(
            names={slug: min(same) for slug, same in names.items() if slug not in conflicts},
            documents={key: n for key, n in documents.items() if key[0] not in conflicts},
            conflicts=conflicts,
            report=report,
        )

    def has_index(self) -> bool:
        """Whether MongoDB answers the partition's query from an index (or has nothing to read)."""
        with self.collection() as collection:
            if collection.find_one({}, {"_id": 1}) is None:
                return True
            plan = collection.database.command(
                "explain",
                {
                    "aggregate": collection.name,
                    "pipeline": self._partition_pipeline("imgassets", today().isoformat()),
                    "cursor": {},
                },
                verbosity="queryPlanner",
            )
        return "COLLSCAN" not in str(plan)

    def create_index(self) -> str:
        """Make the index that the partition's query uses, and return its name."""
        with self.collection() as collection:
            return collection.create_index(self.index_keys)

    @property
    def date_expression(self) -> dict[str, Any]:
        """Date of a document: its field, or its ObjectId's time; null where there is none."""
        field = f"${self._fields.date}"
        return {
            "$switch": {
                "branches": [
                    {"case": {"$eq": [{"$type": field}, "date"]}, "then": field},
                    {
                        "case": {"$eq": [{"$type": field}, "string"]},
                        "then": {"$convert": {"input": field, "to": "date", "onError": None}},
                    },
                    {
                        "case": {
                            "$and": [
                                {"$in": [{"$type": field}, ["missing", "null", "undefined"]]},
                                {"$eq": [{"$type": "$_id"}, "objectId"]},
                            ]
                        },
                        "then": {"$toDate": "$_id"},
                    },
                ],
                "default": None,
            }
        }

    def _partition_pipeline(self, name: str, date: str) -> list[dict[str, Any]]:
        field = self._fields.date
        start = dt.datetime.fromisoformat(date).replace(tzinfo=dt.UTC)
        end = start + dt.timedelta(days=1)
        # A text may carry an offset of up to 14 hours, so its own day may be a neighbour.
        first, last = (start - dt.timedelta(days=1)).date(), (end + dt.timedelta(days=1)).date()
        near: list[dict[str, Any]] = [
            {field: {"$gte": start, "$lt": end}},
            {field: {"$gte": first.isoformat(), "$lt": last.isoformat()}},
            {field: None, "_id": {"$gte": _first_id(start), "$lt": _first_id(end)}},
        ]
        wanted = (self._fields.images, self._fields.product_id, "_id")
        return [
            # Each branch begins with the retailer, so that each can walk the index by itself.
            {"$match": {"$or": [{self._fields.retailer: name, **branch} for branch in near]}},
            {"$match": self._source.query},
            {"$set": {"_imgassets_date": self.date_expression}},
            {"$match": {"_imgassets_date": {"$gte": start, "$lt": end}}},
            {"$project": dict.fromkeys(wanted, 1)},
        ]

    def _report_undated(self, collection: Products, match: Document, report: SourceReport) -> None:
        """Report the documents that belong to no partition because of their date."""
        field = self._fields.date
        start = dt.datetime.combine(self._start_date, dt.time(), dt.UTC)
        end = dt.datetime.combine(today() + dt.timedelta(days=1), dt.time(), dt.UTC)
        outside: list[dict[str, Any]] = [
            {field: {"$lt": start}},
            {field: {"$gte": end}},
            # ISO texts sort like their dates; texts that are no dates mostly sort after them.
            {field: {"$type": "string"}},
            {field: None, "_id": {"$lt": _first_id(start)}},
            {field: None, "_id": {"$gte": _first_id(end)}},
            {field: None, "_id": {"$not": {"$type": "objectId"}}},
            {field: {"$type": _NO_DATES}},
        ]
        absent = {"$in": [{"$type": f"${field}"}, ["missing", "null", "undefined"]]}
        pipeline = [
            {"$match": {"$or": [{**match, **branch} for branch in outside]}},
            {"$match": self._source.query},
            {"$set": {"_imgassets_date": self.date_expression}},
            {
                "$set": {
                    "_imgassets_oddity": {
                        "$switch": {
                            "branches": [
                                {
                                    "case": {"$eq": ["$_imgassets_date", None]},
                                    "then": {
                                        "$cond": [absent, Anomaly.NO_DATE, Anomaly.INVALID_DATE]
                                    },
                                },
                                {
                                    "case": {"$lt": ["$_imgassets_date", start]},
                                    "then": Anomaly.BEFORE_START_DATE,
                                },
                                {
                                    "case": {"$gte": ["$_imgassets_date", end]},
                                    "then": Anomaly.IN_FUTURE,
                                },
                            ],
                            "default": None,
                        }
                    }
                }
            },
            {"$match": {"_imgassets_oddity": {"$ne": None}}},
            {
                "$group": {
                    "_id": "$_imgassets_oddity",
                    "count": {"$sum": 1},
                    "example": {"$first": {"id": "$_id", "date": f"${field}"}},
                }
            },
        ]
        for group in collection.aggregate(pipeline):
            anomaly, example = Anomaly(group["_id"]), group["example"]
            report.add(anomaly, str(example["id"]), f"{field} is {example.get('date')!r}")
            report.counts[anomaly] += group["count"] - 1

    def names_by_slug(self, collection: Products) -> dict[str, list[str]]:
        """The retailers' names that the documents have, by the slug that they fall on."""
        names: dict[str, list[str]] = defaultdict(list)
        for name in collection.distinct(self._fields.retailer, self._source.query):
            found = retailer_slug(name)
            if found is not None:
                names[found].append(name)
        return names

    def _name_of(self, collection: Products, slug: str) -> str:
        names = self.names_by_slug(collection)
        if slug not in names:
            raise unknown_retailer(slug, names)
        if len(names[slug]) > 1:
            raise SourceError(conflict(slug, names[slug]))
        return names[slug][0]

    @contextmanager
    def collection(self) -> Iterator[Products]:
        """The collection, over a connection of its own.

        Raises:
            SourceError: in place of every error of MongoDB inside the block.
        """
        try:
            client: MongoClient[dict[str, Any]] = MongoClient(
                self._uri,
                serverSelectionTimeoutMS=SERVER_SELECTION_MS,
                tz_aware=True,
                # Dates that Python cannot hold would otherwise end the whole query.
                datetime_conversion=DatetimeConversion.DATETIME_AUTO,
            )
        except (InvalidURI, ConfigurationError, ValueError) as error:
            raise SourceError(
                f"MONGODB_URI is no address of a MongoDB: {_without_secrets(error, self._uri)}; "
                "it should look like mongodb://user:password@host:27017/"
            ) from None
        try:
            with client:
                yield client[self._source.database][self._source.collection]
        except PyMongoError as error:
            raise SourceError(_told(error, self._uri)) from None
        except BSONError as error:
            raise SourceError(
                f"a document of {self._source.database}.{self._source.collection} "
                f"cannot be decoded: {error}; repair it, or leave it out with source.query"
            ) from None


_NO_DATES = [
    *("number", "object", "array", "binData", "objectId", "bool", "timestamp", "regex"),
    *("javascript", "javascriptWithScope", "symbol", "dbPointer", "minKey", "maxKey"),
]


def masked(uri: str) -> str:
    """The scheme and hosts of a MongoDB address, without user, password and options."""
    scheme, _, rest = uri.partition("://")
    hosts = rest.rpartition("@")[2].split("/")[0].split("?")[0]
    return f"{scheme}://{hosts}" if hosts else "the address in MONGODB_URI"


def _told(error: PyMongoError, uri: str) -> str:
    if isinstance(error, OperationFailure):
        reason = (error.details or {}).get("errmsg") or str(error)
        return f"MongoDB at {masked(uri)} refused the query: {_without_secrets(reason, uri)}"
    reason = _without_secrets(error, uri).split(", Timeout:")[0].split(" (configured timeouts")[0]
    return (
        f"MongoDB at {masked(uri)} cannot be reached: {reason}; "
        "see that it is running and that MONGODB_URI is right"
    )


def _without_secrets(error: object, uri: str) -> str:
    text = str(error)
    address = uri.partition("://")[2]
    # Options may contain an at sign, and so may a password that was not escaped.
    for part in (address, address.partition("/")[0]):
        credentials = part.rpartition("@")[0]
        password = credentials.partition(":")[2]
        # Of a password with a slash, the driver takes a part for the database's name.
        secrets = (credentials, password, unquote_plus(password), *password.split("/"))
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
    return text


def _first_id(moment: dt.datetime) -> ObjectId:
    return ObjectId.from_datetime(moment)


def dig(document: object, path: str) -> object:
    """The value at a dotted path; through a list, the values of its elements, as in MongoDB."""
    for place, part in enumerate(path.split(".")):
        if isinstance(document, list):
            rest = ".".join(path.split(".")[place:])
            return [value for value in (dig(entry, rest) for entry in document) if value]
        if not isinstance(document, Mapping) or part not in document:
            return None
        document = document[part]
    return document
