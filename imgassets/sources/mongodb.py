"""Read product documents from MongoDB.

The day of a document is decided in `dates` and found in MongoDB by `mongo_dates`. URL rows, keys
and slugs are made in `listing`; changes are read in `mongo_changes`.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote_plus

from bson import json_util
from bson.codec_options import DatetimeConversion
from bson.errors import BSONError
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import (
    ConfigurationError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

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
from imgassets.sources.mongo_dates import (
    date_detail,
    dated,
    day_key,
    document_day,
    spelled,
    undated,
)

# Long enough for a replica set to elect a primary, short enough for a waiting user.
SERVER_SELECTION_MS = 8_000

_DATE = "_imgassets_date"
_AUTHENTICATION_FAILED = 18

# The types of extended JSON that have no form in YAML.
_NUMBERS = {"$numberInt", "$numberLong", "$numberDouble", "$numberDecimal"}
_EXTENDED_JSON = {"$oid", "$date", "$uuid"} | _NUMBERS
# 20 kB of ids; a query may have 16 MB.
_IDS_PER_QUERY = 1_000

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
        self._query: dict[str, Any] = _parse_query(settings.query)

    @property
    def query(self) -> dict[str, Any]:
        """`source.query` with dates and values of extended JSON as MongoDB needs them."""
        return self._query

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
            match = {self._fields.retailer: names[retailer][0]}
            for document in self._documents(collection, match, dt.date.fromisoformat(date)):
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
        return build_listing(rows, documents, report)

    def inventory(self) -> Inventory:
        """Read the retailers and days of the collection; MongoDB counts the documents."""
        report = SourceReport()
        documents: dict[tuple[str, str], int] = defaultdict(int)
        names: dict[str, set[str]] = defaultdict(set)
        with self.collection() as collection:
            # Without a hint, MongoDB reads the documents where the index would do.
            covering = self._covering_index(collection)
            hint: dict[str, Any] = {} if covering is None else {"hint": covering}
            for group in collection.aggregate(self._survey_pipeline, allowDiskUse=True, **hint):
                name, value = group["_id"].get("retailer"), group["_id"].get("date")
                example, count = str(group["example"]), group["count"]
                slug = retailer_slug(name)
                if slug is None:
                    report.add(Anomaly.NO_RETAILER, example, f"the retailer is {name!r}", count)
                    continue
                names[slug].add(name)
                day = self.document_day(value)
                anomaly = day if isinstance(day, Anomaly) else day_anomaly(day, self._start_date)
                if anomaly is not None:
                    detail = date_detail(self._fields.date, anomaly, value)
                    report.add(anomaly, example, detail, count)
                elif isinstance(day, dt.date):
                    documents[slug, day.isoformat()] += count
        return build_inventory(names, documents, report)

    def document_day(self, value: object, document_id: object = None) -> dt.date | Anomaly:
        """The day of a document, or why it has none; see `mongo_dates.document_day`."""
        return document_day(value, document_id, self._settings.date_format)

    @property
    def day_key(self) -> dict[str, Any]:
        """Expression for a document's day; see `mongo_dates.day_key`."""
        return day_key(self._fields.date, self._settings.date_format)

    def query_plans(self) -> dict[str, bool]:
        """Whether an index finds what each query needs; empty for an empty collection.

        Returns:
            The queries `partition`, `retailers`, `survey` and, if it needs an index of its own,
            `sensor`. For the survey, whether it reads the index only, and no document.
        """
        with self.collection() as collection:
            if collection.find_one({}, {"_id": 1}) is None:
                return {}
            match, day = {self._fields.retailer: "imgassets"}, today()
            pipelines = [
                *(pipeline for pipeline in self._document_pipelines(match, day)),
                self._spelled_pipeline(match, day),
            ]
            indexed = {
                "partition": not any(
                    "COLLSCAN" in _stages(collection, _aggregate(collection, pipeline))
                    for pipeline in pipelines
                ),
                "retailers": "COLLSCAN"
                not in _stages(
                    collection,
                    {"distinct": collection.name, "key": self._fields.retailer, "query": {}},
                ),
                "survey": self._covering_index(collection) is not None,
            }
            if updated := self._fields.updated:
                find = {"find": collection.name, "sort": {updated: 1}}
                bound = {updated: {"$gte": dt.datetime.now(dt.UTC)}}
                stages = _stages(collection, {**find, "filter": bound})
                indexed["sensor"] = "COLLSCAN" not in stages
        return indexed

    def create_index(self) -> str:
        """Create the index for the partition's query, and return its name."""
        with self.collection() as collection:
            return collection.create_index(self.index_keys)

    def _documents(
        self, collection: Products, match: Document, day: dt.date
    ) -> Iterator[dict[str, Any]]:
        """Read the documents of a day; the index finds them, and `document_day` decides.

        Args:
            collection: The collection.
            match: Filter for the documents of one retailer.
            day: Day in UTC.
        """
        for pipeline in self._document_pipelines(match, day):
            for document in collection.aggregate(pipeline):
                if self.document_day(document.get(_DATE), document["_id"]) == day:
                    yield document
        # Texts and objects of other days can look like those of the day, so their days are decided
        # before the documents are read.
        found = collection.aggregate(self._spelled_pipeline(match, day))
        ids = [key["_id"] for key in found if self.document_day(key.get(_DATE)) == day]
        for start in range(0, len(ids), _IDS_PER_QUERY):
            chunk = ids[start : start + _IDS_PER_QUERY]
            yield from collection.aggregate(self._wanted_pipeline([{"_id": {"$in": chunk}}]))

    def _document_pipelines(self, match: Document, day: dt.date) -> list[list[dict[str, Any]]]:
        """Pipelines that read the documents of a day whose field is a date, a number or missing."""
        field = self._fields.date
        return [
            self._wanted_pipeline([{**match, **branch} for branch in dated(field, day)]),
            # Separate, because the index cannot tell null from missing: in one `$or` with the
            # others, MongoDB would read each document twice.
            self._wanted_pipeline([{**match, **undated(field, day)}]),
        ]

    def _spelled_pipeline(self, match: Document, day: dt.date) -> list[dict[str, Any]]:
        """Pipeline that reads the ids and dates of documents whose date can be a text of a day."""
        field = self._fields.date
        branches = spelled(field, day, self._settings.date_format)
        return [
            {"$match": {"$or": [{**match, **branch} for branch in branches]}},
            {"$project": {_DATE: f"${field}"}},
        ]

    def _wanted_pipeline(self, branches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        wanted = (self._fields.images, self._fields.product_id, "_id")
        return [
            # Each branch starts with the retailer, so that each can use the index.
            {"$match": {"$or": branches}},
            {"$match": self._query},
            {"$project": {**dict.fromkeys(wanted, 1), _DATE: f"${self._fields.date}"}},
        ]

    @property
    def _survey_pipeline(self) -> list[dict[str, Any]]:
        return [
            {"$match": self._query},
            {
                "$group": {
                    "_id": {"retailer": f"${self._fields.retailer}", "date": self.day_key},
                    "count": {"$sum": 1},
                    "example": {"$first": "$_id"},
                }
            },
        ]

    def _covering_index(self, collection: Products) -> str | None:
        """The name of an index that has all that the survey needs; None if there is none."""
        needed = {key for key, _ in self.index_keys}
        try:
            indexes = collection.index_information()
        except OperationFailure:
            return None  # a view, or the user may only read documents
        for name, index in indexes.items():
            # Partial and sparse indexes leave documents out, and a hidden one cannot be named.
            partial = {"partialFilterExpression", "sparse", "hidden", "collation"} & index.keys()
            if needed <= {key for key, _ in index["key"]} and not partial:
                command = _aggregate(collection, self._survey_pipeline)
                if "FETCH" not in _stages(collection, {**command, "hint": name}):
                    return name
        return None

    def names_by_slug(self, collection: Products) -> dict[str, list[str]]:
        """The retailers' names in the documents, by slug."""
        names: dict[str, list[str]] = defaultdict(list)
        field, query = self._fields.retailer, self._query
        # With the query, `distinct` would read every document instead of some keys of the index.
        for name in collection.distinct(field):
            slug = retailer_slug(name)
            if slug is None:
                continue
            if not query or collection.find_one({"$and": [{field: name}, query]}, {"_id": 1}):
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
        except OSError as error:
            raise SourceError(
                f"the file {error.filename} of tlsCAFile or tlsCertificateKeyFile in MONGODB_URI "
                f"cannot be read: {error.strerror}; correct the path"
            ) from None
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


def _aggregate(collection: Products, pipeline: list[dict[str, Any]]) -> dict[str, Any]:
    return {"aggregate": collection.name, "pipeline": pipeline, "cursor": {}}


def _stages(collection: Products, command: Mapping[str, Any]) -> set[str]:
    """The names of the stages of a command's plan, such as `IXSCAN`."""
    explained = collection.database.command("explain", command, verbosity="queryPlanner")
    stages: set[str] = set()

    def visit(part: object, *, chosen: bool) -> None:
        if isinstance(part, Mapping):
            if chosen and isinstance(part.get("stage"), str):
                stages.add(part["stage"])
            for name, value in part.items():
                visit(value, chosen=chosen or name == "winningPlan")
        elif isinstance(part, list):
            for value in part:
                visit(value, chosen=chosen)

    visit(explained, chosen=False)
    return stages


def mask_uri(uri: str) -> str:
    """Reduce a MongoDB address to scheme and hosts, without user, password and options."""
    scheme, _, rest = uri.partition("://")
    hosts = rest.rpartition("@")[2].split("/")[0].split("?")[0]
    return f"{scheme}://{hosts}" if hosts else "the address in MONGODB_URI"


def _parse_query(value: Any) -> Any:
    """Parse dates of YAML, and extended JSON such as `{$oid: ...}`, in a filter.

    Raises:
        SourceError: A value is not valid extended JSON.
    """
    if isinstance(value, list):
        return [_parse_query(part) for part in value]
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return dt.datetime.combine(value, dt.time(), dt.UTC)
    if not isinstance(value, dict):
        return value
    parsed = {name: _parse_query(part) for name, part in value.items()}
    if len(parsed) != 1 or not parsed.keys() <= _EXTENDED_JSON:
        return parsed
    if isinstance(parsed.get("$date"), dt.datetime):
        return parsed["$date"]  # YAML has parsed it
    try:
        return json_util.object_hook(parsed, json_util.JSONOptions(tz_aware=True))
    except (BSONError, ArithmeticError, TypeError, ValueError) as error:
        raise SourceError(
            f"source.query: {error}; write values as in MongoDB's extended JSON, for example "
            "{_id: {$gt: {$oid: 6957b3400000000000000000}}}"
        ) from None


def _error_message(error: PyMongoError, uri: str) -> str:
    if error.timeout and not isinstance(error, ServerSelectionTimeoutError):
        return (
            f"MongoDB at {mask_uri(uri)} did not finish a query in time: "
            f"{_mask_secrets(error, uri).split(', full error')[0]}; create the indexes that "
            "`imgassets doctor` names, or narrow source.query"
        )
    if isinstance(error, OperationFailure) and error.code == _AUTHENTICATION_FAILED:
        return (
            f"MongoDB at {mask_uri(uri)} refused the login: Authentication failed; check user and "
            "password in MONGODB_URI, and that its authSource is the database in which the user "
            "was created, for example ?authSource=admin"
        )
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
