"""Read product documents from MongoDB.

MongoDB computes the day of a document, with one expression that the partition's query and the
inventory share. URL rows, keys and slugs are made in `listing`; changes are read in
`mongo_changes`.
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
    build_inventory,
    build_listing,
    conflict_message,
    day_anomaly,
    document_rows,
    listing_without_retailer,
    retailer_slug,
    today,
)

# Long enough for a replica set to elect a primary, short enough for a waiting user.
SERVER_SELECTION_MS = 8_000

Document = Mapping[str, Any]
Products = Collection[dict[str, Any]]


class MongoSource:
    """A collection of product documents.

    Args:
        uri: Address of the server; error messages never contain its password.
        settings: Names of the database, collection and fields, and an extra filter.
        start_date: First day that has a partition.
    """

    def __init__(self, uri: str, settings: SourceSettings, start_date: dt.date) -> None:
        self._uri = uri
        self._settings = settings
        self._fields = settings.fields
        self._start_date = start_date

    @property
    def settings(self) -> SourceSettings:
        """Names of the database, collection and fields, and an extra filter."""
        return self._settings

    @property
    def index_keys(self) -> list[tuple[str, int]]:
        """Keys of the index for the partition's query: `(retailer, date, _id)`, ascending."""
        keys = dict.fromkeys([self._fields.retailer, self._fields.date, "_id"])
        return [(key, 1) for key in keys]

    def listing(self, date: str, retailer: str) -> Listing:
        """Read the URL rows of one partition; see `Source.listing`."""
        report = SourceReport()
        rows: list[UrlRow] = []
        documents = 0
        with self.collection() as collection:
            names = self.names_by_slug(collection)
            if retailer not in names:
                return listing_without_retailer(retailer, names)
            if len(names[retailer]) > 1:
                raise SourceError(conflict_message(retailer, names[retailer]))
            name = names[retailer][0]
            for document in collection.aggregate(self._partition_pipeline(name, date)):
                documents += 1
                product = value_at_path(document, self._fields.product_id)
                rows += document_rows(
                    document_id=str(document["_id"]),
                    product_id=str(document["_id"] if product is None else product),
                    images=value_at_path(document, self._fields.images),
                    date=date,
                    retailer=retailer,
                    report=report,
                )
            self._report_undated(collection, {self._fields.retailer: name}, report)
        return build_listing(rows, documents, report)

    def inventory(self) -> Inventory:
        """Read the retailers and days of the collection; MongoDB counts the documents."""
        report = SourceReport()
        documents: dict[tuple[str, str], int] = {}
        names: dict[str, set[str]] = defaultdict(set)
        pipeline = [
            {"$match": self._settings.query},
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
                    detail = f"the retailer is {name!r}"
                    report.add(Anomaly.NO_RETAILER, str(group["example"]), detail, group["count"])
                    continue
                names[slug].add(name)
                if isinstance(day, dt.datetime) and not day_anomaly(day.date(), self._start_date):
                    documents[slug, day.date().isoformat()] = group["count"]
            self._report_undated(collection, {self._fields.retailer: {"$type": "string"}}, report)
        return build_inventory(names, documents, report)

    def has_index(self) -> bool:
        """Whether the partition's query uses an index; true for an empty collection."""
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
        """Create the index for the partition's query, and return its name."""
        with self.collection() as collection:
            return collection.create_index(self.index_keys)

    @property
    def date_expression(self) -> dict[str, Any]:
        """Expression for a document's date: its field, or the time in its ObjectId; or null."""
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
                                self._missing_date_expression,
                                {"$eq": [{"$type": "$_id"}, "objectId"]},
                            ]
                        },
                        "then": {"$toDate": "$_id"},
                    },
                ],
                "default": None,
            }
        }

    @property
    def missing_or_invalid_date_expression(self) -> dict[str, Any]:
        """Expression for the anomaly of a document whose `date_expression` is null."""
        return {"$cond": [self._missing_date_expression, Anomaly.NO_DATE, Anomaly.INVALID_DATE]}

    @property
    def _missing_date_expression(self) -> dict[str, Any]:
        return {"$in": [{"$type": f"${self._fields.date}"}, ["missing", "null", "undefined"]]}

    def _partition_pipeline(self, name: str, date: str) -> list[dict[str, Any]]:
        field = self._fields.date
        start = dt.datetime.fromisoformat(date).replace(tzinfo=dt.UTC)
        end = start + dt.timedelta(days=1)
        # Text can have a UTC offset of up to 14 hours, so the written day can be a neighbour.
        first, last = (start - dt.timedelta(days=1)).date(), (end + dt.timedelta(days=1)).date()
        near: list[dict[str, Any]] = [
            {field: {"$gte": start, "$lt": end}},
            {field: {"$gte": first.isoformat(), "$lt": last.isoformat()}},
            {field: None, "_id": {"$gte": _first_id(start), "$lt": _first_id(end)}},
        ]
        wanted = (self._fields.images, self._fields.product_id, "_id")
        return [
            # Each branch starts with the retailer, so that each can use the index.
            {"$match": {"$or": [{self._fields.retailer: name, **branch} for branch in near]}},
            {"$match": self._settings.query},
            {"$set": {"_imgassets_date": self.date_expression}},
            {"$match": {"_imgassets_date": {"$gte": start, "$lt": end}}},
            {"$project": dict.fromkeys(wanted, 1)},
        ]

    def _report_undated(self, collection: Products, match: Document, report: SourceReport) -> None:
        """Report the documents that have no partition because of their date.

        Args:
            collection: The collection.
            match: Filter for the documents of the retailers to report.
            report: The report that receives the anomalies.
        """
        field = self._fields.date
        start = dt.datetime.combine(self._start_date, dt.time(), dt.UTC)
        end = dt.datetime.combine(today() + dt.timedelta(days=1), dt.time(), dt.UTC)
        outside: list[dict[str, Any]] = [
            {field: {"$lt": start}},
            {field: {"$gte": end}},
            # Which text is an invalid date or outside the range is decided after the conversion.
            {field: {"$type": "string"}},
            {field: None, "_id": {"$lt": _first_id(start)}},
            {field: None, "_id": {"$gte": _first_id(end)}},
            {field: None, "_id": {"$not": {"$type": "objectId"}}},
            {field: {"$type": _NON_DATE_TYPES}},
        ]
        pipeline = [
            {"$match": {"$or": [{**match, **branch} for branch in outside]}},
            {"$match": self._settings.query},
            {"$set": {"_imgassets_date": self.date_expression}},
            {"$set": {"_imgassets_anomaly": self._date_anomaly_expression(start, end)}},
            {"$match": {"_imgassets_anomaly": {"$ne": None}}},
            {
                "$group": {
                    "_id": "$_imgassets_anomaly",
                    "count": {"$sum": 1},
                    "example": {"$first": {"id": "$_id", "date": f"${field}"}},
                }
            },
        ]
        for group in collection.aggregate(pipeline):
            anomaly, example = Anomaly(group["_id"]), group["example"]
            detail = f"{field} is {example.get('date')!r}"
            report.add(anomaly, str(example["id"]), detail, group["count"])

    def _date_anomaly_expression(self, start: dt.datetime, end: dt.datetime) -> dict[str, Any]:
        """Expression for the reason why `_imgassets_date` is in no partition; null if it is in one.

        Args:
            start: Start of the first day that has a partition.
            end: End of the last day that has a partition.
        """
        return {
            "$switch": {
                "branches": [
                    {
                        "case": {"$eq": ["$_imgassets_date", None]},
                        "then": self.missing_or_invalid_date_expression,
                    },
                    {
                        "case": {"$lt": ["$_imgassets_date", start]},
                        "then": Anomaly.BEFORE_START_DATE,
                    },
                    {"case": {"$gte": ["$_imgassets_date", end]}, "then": Anomaly.IN_FUTURE},
                ],
                "default": None,
            }
        }

    def names_by_slug(self, collection: Products) -> dict[str, list[str]]:
        """The retailers' names in the documents, by slug."""
        names: dict[str, list[str]] = defaultdict(list)
        for name in collection.distinct(self._fields.retailer, self._settings.query):
            slug = retailer_slug(name)
            if slug is not None:
                names[slug].append(name)
        return names

    @contextmanager
    def collection(self) -> Iterator[Products]:
        """Open the collection with a new client, which is closed at the end of the block.

        Raises:
            SourceError: The address is invalid, or MongoDB raises an error inside the block.
        """
        try:
            client: MongoClient[dict[str, Any]] = MongoClient(
                self._uri,
                serverSelectionTimeoutMS=SERVER_SELECTION_MS,
                tz_aware=True,
                # By default, a date outside the range of Python's datetime fails the whole query.
                datetime_conversion=DatetimeConversion.DATETIME_AUTO,
            )
        except (InvalidURI, ConfigurationError, ValueError) as error:
            raise SourceError(
                f"MONGODB_URI is not a valid MongoDB address: {_mask_secrets(error, self._uri)}; "
                "it must look like mongodb://user:password@host:27017/"
            ) from None
        try:
            with client:
                yield client[self._settings.database][self._settings.collection]
        except PyMongoError as error:
            raise SourceError(_error_message(error, self._uri)) from None
        except BSONError as error:
            raise SourceError(
                f"a document of {self._settings.database}.{self._settings.collection} "
                f"cannot be decoded: {error}; repair it, or exclude it with source.query"
            ) from None


_NON_DATE_TYPES = [
    *("number", "object", "array", "binData", "objectId", "bool", "timestamp", "regex"),
    *("javascript", "javascriptWithScope", "symbol", "dbPointer", "minKey", "maxKey"),
]


def mask_uri(uri: str) -> str:
    """Reduce a MongoDB address to scheme and hosts, without user, password and options."""
    scheme, _, rest = uri.partition("://")
    hosts = rest.rpartition("@")[2].split("/")[0].split("?")[0]
    return f"{scheme}://{hosts}" if hosts else "the address in MONGODB_URI"


def _error_message(error: PyMongoError, uri: str) -> str:
    if isinstance(error, OperationFailure):
        reason = (error.details or {}).get("errmsg") or str(error)
        return (
            f"MongoDB at {mask_uri(uri)} refused the query: {_mask_secrets(reason, uri)}; "
            "check source.query, and that the user in MONGODB_URI may read the collection"
        )
    reason = _mask_secrets(error, uri).split(", Timeout:")[0].split(" (configured timeouts")[0]
    return (
        f"MongoDB at {mask_uri(uri)} cannot be reached: {reason}; "
        "check that it is running and that MONGODB_URI is correct"
    )


def _mask_secrets(error: object, uri: str) -> str:
    text = str(error)
    address = uri.partition("://")[2]
    # Both the options and an unescaped password can contain an at sign.
    for part in (address, address.partition("/")[0]):
        credentials = part.rpartition("@")[0]
        password = credentials.partition(":")[2]
        # The driver takes the part after an unescaped slash in a password for the database name.
        secrets = (credentials, password, unquote_plus(password), *password.split("/"))
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
    return text


def _first_id(moment: dt.datetime) -> ObjectId:
    return ObjectId.from_datetime(moment)


def value_at_path(document: object, path: str) -> object:
    """Get the value at a dotted path, which also goes through lists, as in MongoDB.

    Returns:
        The value; None if there is none. For a list on the path, the values of its elements that
        are not empty.
    """
    for index, part in enumerate(path.split(".")):
        if isinstance(document, list):
            rest = ".".join(path.split(".")[index:])
            return [value for value in (value_at_path(entry, rest) for entry in document) if value]
        if not isinstance(document, Mapping) or part not in document:
            return None
        document = document[part]
    return document
