"""Read product documents from MongoDB.

The collections are found in `mongo_places`. The day of a document is decided in `dates` and found
in MongoDB by `mongo_dates`; its retailer is decided in `retailers`, its images are found in
`images`. URL rows and keys are made in `listing`; changes are read in `mongo_changes`.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote_plus

from bson import json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from pymongo import MongoClient
from pymongo.errors import (
    ConfigurationError,
    InvalidName,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from imgassets.errors import SourceError
from imgassets.manifests import UrlRow
from imgassets.periods import days_of, first_day
from imgassets.settings import Period, SourceSettings
from imgassets.sources.images import GRAPH, path_heads, value_at_path, values_at_paths
from imgassets.sources.listing import (
    SAMPLE_SIZE,
    Anomaly,
    Inventory,
    Listing,
    Sample,
    SourceReport,
    Unpartitioned,
    build_inventory,
    build_listing,
    build_sample,
    day_anomaly,
    document_rows,
    listing_without_retailer,
    product_name,
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
from imgassets.sources.mongo_places import Client, Place, Places, Products
from imgassets.sources.retailers import Retailer, Retailers

# Long enough for a replica set to elect a primary, short enough for a waiting user.
SERVER_SELECTION_MS = 8_000

_DATE = "_imgassets_date"
_RETAILER = "_imgassets_retailer"
_AUTHENTICATION_FAILED = 18

# The types of extended JSON that have no form in YAML.
_NUMBERS = {"$numberInt", "$numberLong", "$numberDouble", "$numberDecimal"}
_EXTENDED_JSON = {"$oid", "$date", "$uuid"} | _NUMBERS
# 20 kB of ids; a query may have 16 MB.
_IDS_PER_QUERY = 1_000

Document = Mapping[str, Any]


class MongoSource:
    """Collections of product documents.

    Args:
        uri: Address of the server; error messages never contain its password.
        settings: Names of the databases, collections and fields, and an extra filter.
        start_date: First day that has a partition.
        period: `partitions.period`.
    """

    def __init__(
        self, uri: str, settings: SourceSettings, start_date: dt.date, period: Period = "day"
    ) -> None:
        self._uri = uri
        self._settings = settings
        self._fields = settings.fields
        self._start_date = start_date
        self._period: Period = period
        self._query: dict[str, Any] = _parse_query(settings.query)
        paths = (*self._fields.image_paths, self._fields.product_id)
        # What images and product ids can be in: whole fields, and those whose names have dots.
        heads = [name for path in paths for name in path_heads(path)]
        self._whole = dict.fromkeys(["_id", GRAPH, *(name for name in heads if "." not in name)], 1)
        dotted = enumerate(name for name in heads if "." in name)
        self._dotted = {f"_imgassets_dotted_{number}": name for number, name in dotted}
        self.places = Places(settings)
        self._retailers = Retailers.from_settings(settings)

    @property
    def query(self) -> dict[str, Any]:
        """`source.query` with dates and values of extended JSON as MongoDB needs them."""
        return self._query

    @property
    def settings(self) -> SourceSettings:
        """Names of the databases, collections and fields, and an extra filter."""
        return self._settings

    @property
    def period(self) -> Period:
        """`partitions.period`."""
        return self._period

    @property
    def index_keys(self) -> list[tuple[str, int]]:
        """Keys of the index for the partition's query: `(retailer, date, _id)`, ascending.

        Without the retailer if the documents' field is not read.
        """
        retailer = [] if self.places.have_retailers else [self._fields.retailer]
        return [(key, 1) for key in dict.fromkeys([*retailer, self._fields.date, "_id"])]

    @property
    def retailer_field(self) -> dict[str, str]:
        """The expression `retailer` for a document's retailer; empty if the field is not read."""
        return {} if self.places.have_retailers else {"retailer": f"${self._fields.retailer}"}

    def listing(self, date: str, retailer: str) -> Listing:
        """Read the URL rows of one partition; see `Source.listing`."""
        report = SourceReport()
        with self.client() as client:
            places = self.places.existing(client)
            matches = self._matches(client, places, retailer)
            listing = build_listing(
                self._document_rows(client, matches, date, retailer, report), report
            )
            if not listing.documents and (self.places.have_retailers or not matches):
                missing = self.places.missing_messages(client)
                if message := dict(missing).get(retailer):
                    raise SourceError(message)
                known = self.retailers_in(client, places)
                if retailer not in known:
                    return listing_without_retailer(retailer, known)
        return listing

    def _document_rows(
        self,
        client: Client,
        matches: Sequence[tuple[Place, Document]],
        date: str,
        retailer: str,
        report: SourceReport,
    ) -> Iterator[list[UrlRow]]:
        """Yield the rows of each document of a partition.

        Args:
            client: The client.
            matches: The collections that can have documents of the retailer, and filters for them.
            date: First day of the partition.
            retailer: Slug of the retailer.
            report: The report that receives the anomalies.
        """
        days = days_of(dt.date.fromisoformat(date), self._period)
        queries = [(place, match, day) for place, match in matches for day in days]
        # Collections of one retailer can have documents with the same id, and a document whose date
        # changes meanwhile can be found on two days.
        earlier: set[str] = set()
        for place, match, day in queries:
            keys: list[str] = []
            for document in self._documents(place, client, match, day):
                # A list that contains a name of the retailer can contain those of others.
                if self._slug_of(place, document.get(_RETAILER)) != retailer:
                    continue
                rows: list[UrlRow] = []
                for row in self._rows(document, day.isoformat(), retailer, report):
                    if row.key in earlier:
                        report.add(Anomaly.DUPLICATE_URL, row.document_id, row.url)
                    else:
                        rows.append(row)
                if len(queries) > 1:
                    keys += [row.key for row in rows]
                yield rows
            earlier.update(keys)

    def _matches(
        self, client: Client, places: Sequence[Place], retailer: str
    ) -> list[tuple[Place, Document]]:
        """The collections that can have documents of a retailer, with the filter for them.

        Args:
            client: The client.
            places: The collections.
            retailer: Slug of the retailer.
        """
        matches: list[tuple[Place, Document]] = []
        for place in places:
            if place.retailer is None:
                names = self._names(place.open(client)).get(retailer)
                if names is not None:
                    matches.append((place, {self._fields.retailer: {"$in": names}}))
            elif place.retailer.slug == retailer:
                matches.append((place, {}))
        return matches

    def _rows(
        self, projected: Document, date: str, retailer: str, report: SourceReport
    ) -> list[UrlRow]:
        document = {self._dotted.get(name, name): value for name, value in projected.items()}
        product = product_name(value_at_path(document, self._fields.product_id))
        return document_rows(
            document_id=str(document["_id"]),
            product_id=str(document["_id"]) if product is None else product,
            images=values_at_paths(document, self._fields.image_paths),
            date=date,
            retailer=retailer,
            report=report,
            separator=self._settings.separator,
            base_url=self._settings.base_url_of(retailer),
        )

    def retailer_of(self, place: Place, value: object) -> Retailer | Unpartitioned:
        """The retailer of a document, or the reason why it has none.

        Args:
            place: The collection of the document.
            value: The value of its field, which is used if the collection has no retailer.
        """
        return place.retailer or self._retailers.resolve(value)

    def _slug_of(self, place: Place, value: object) -> str | None:
        found = self.retailer_of(place, value)
        return found.slug if isinstance(found, Retailer) else None

    def inventory(self) -> Inventory:
        """Read the retailers and days of the collections; MongoDB counts the documents."""
        report = SourceReport()
        documents: Counter[tuple[str, str]] = Counter()
        names: dict[str, Counter[str]] = defaultdict(Counter)
        with self.client() as client:
            for place in self.places.existing(client):
                for group in self._survey(place, client):
                    value, count = group["_id"].get("date"), group["count"]
                    example = str(group["example"])
                    retailer = self.retailer_of(place, group["_id"].get("retailer"))
                    if isinstance(retailer, Unpartitioned):
                        report.add(retailer.anomaly, example, retailer.detail, count)
                        continue
                    names[retailer.slug][retailer.name] += count
                    day = self.document_day(value)
                    anomaly = day if isinstance(day, Anomaly) else self.day_anomaly(day)
                    if anomaly is not None:
                        detail = date_detail(self._fields.date, anomaly, value)
                        report.add(anomaly, example, detail, count)
                    elif isinstance(day, dt.date):
                        documents[retailer.slug, day.isoformat()] += count
            warnings = [message for _, message in self.places.missing_messages(client)]
        return build_inventory(names, documents, report, warnings)

    def _survey(self, place: Place, client: Client) -> Iterator[Document]:
        """The number of documents in one collection by retailer and date, with an example."""
        # Without a hint, MongoDB reads the documents where the index would do.
        covering = self._covering_index(place, client)
        hint: dict[str, Any] = {} if covering is None else {"hint": covering}
        collection = place.open(client)
        yield from collection.aggregate(self._survey_pipeline, allowDiskUse=True, **hint)

    def sample(self) -> Sample:
        """Read the images of the newest documents of each collection; see `Source.sample`."""
        with self.client() as client:
            places = self.places.existing(client)[:SAMPLE_SIZE]
            documents = (
                (
                    str(document["_id"]),
                    self._slug_of(place, value_at_path(document, self._fields.retailer)),
                    document,
                )
                for place in places
                for document in place.open(client).find(
                    self._query, sort={"_id": -1}, limit=SAMPLE_SIZE // len(places)
                )
            )
            # Documents without them have a day and a product, too: those of their `_id`.
            others = [("date", self._fields.date), ("product_id", self._fields.product_id)]
            return build_sample(documents, self._fields.image_paths, self._settings, others)

    def document_day(self, value: object, document_id: object = None) -> dt.date | Anomaly:
        """The day of a document, or why it has none; see `mongo_dates.document_day`."""
        return document_day(value, document_id, self._settings.date_format)

    def day_anomaly(self, day: dt.date) -> Anomaly | None:
        """The reason why a day has no partition; None if it has one."""
        return day_anomaly(day, self._start_date, self._period)

    def first_day(self, day: dt.date) -> dt.date:
        """The first day of the partition that contains a day."""
        return first_day(day, self._period)

    @property
    def day_key(self) -> dict[str, Any]:
        """Expression for a document's day; see `mongo_dates.day_key`."""
        return day_key(self._fields.date, self._settings.date_format)

    def unindexed(self) -> dict[str, list[Place]]:
        """The collections in which no index finds what a query needs, by the query.

        Returns:
            The queries `partition`, `retailers`, `survey` and, if it needs an index of its own,
            `sensor`, with the collections that have documents. For the survey, those in which it
            reads documents instead of an index.
        """
        unindexed: dict[str, list[Place]] = defaultdict(list)
        with self.client() as client:
            for place in self.places.existing(client):
                if place.open(client).find_one({}, {"_id": 1}) is not None:
                    for query in self._unindexed_queries(place, client):
                        unindexed[query].append(place)
        return dict(unindexed)

    def _unindexed_queries(self, place: Place, client: Client) -> Iterator[str]:
        collection, day = place.open(client), today()
        match = {} if place.retailer else {self._fields.retailer: {"$in": ["imgassets"]}}
        pipelines = [
            *self._document_pipelines(match, day),
            self._spelled_pipeline(match, day),
        ]
        if any(_is_scan(collection, _aggregate(collection, pipeline)) for pipeline in pipelines):
            yield "partition"
        names = {"distinct": collection.name, "key": self._fields.retailer, "query": {}}
        # In a time-series collection, `distinct` unpacks all documents, whatever the index.
        is_fixed = place.retailer is not None or place.kind == "time-series collection"
        if not is_fixed and _is_scan(collection, names):
            yield "retailers"
        if place.has_stream and self._covering_index(place, client) is None:
            yield "survey"
        if updated := self._fields.updated:
            find = {"find": collection.name, "sort": {updated: 1}}
            bound = {updated: {"$gte": dt.datetime.now(dt.UTC)}}
            if _is_scan(collection, {**find, "filter": bound}):
                yield "sensor"

    def create_indexes(self) -> None:
        """Create the index for the partition's query in each collection; views have none."""
        with self.client() as client:
            for place in self.places.existing(client):
                if place.can_have_index:
                    place.open(client).create_index(self.index_keys)

    def _documents(
        self, place: Place, client: Client, match: Document, day: dt.date
    ) -> Iterator[dict[str, Any]]:
        """Read the documents of a day; the index finds them, and `document_day` decides.

        Args:
            place: The collection.
            client: The client.
            match: Filter for the documents of one retailer.
            day: Day in UTC.
        """
        collection = place.open(client)
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
        return [
            # Each branch starts with the retailer, so that each can use the index.
            {"$match": {"$or": branches}},
            {"$match": self._query},
            {
                # A dotted path in a projection reads neither texts in a list beside objects, nor
                # the element of an index, nor a field whose name contains dots.
                "$project": {
                    **self._whole,
                    **{
                        alias: {"$getField": {"$literal": name}}
                        for alias, name in self._dotted.items()
                    },
                    _DATE: f"${self._fields.date}",
                    _RETAILER: f"${self._fields.retailer}",
                }
            },
        ]

    @property
    def _survey_pipeline(self) -> list[dict[str, Any]]:
        return [
            {"$match": self._query},
            {
                "$group": {
                    "_id": {**self.retailer_field, "date": self.day_key},
                    "count": {"$sum": 1},
                    "example": {"$first": "$_id"},
                }
            },
        ]

    def _covering_index(self, place: Place, client: Client) -> str | None:
        """The name of an index that has all that the survey needs; None if there is none."""
        collection = place.open(client)
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

    def retailers_in(self, client: Client, places: Sequence[Place]) -> set[str]:
        """The slugs of the retailers that have documents."""
        slugs: set[str] = set()
        for place in places:
            collection = place.open(client)
            if place.retailer is None:
                slugs.update(self._names(collection))
            elif collection.find_one(self._query, {"_id": 1}) is not None:
                slugs.add(place.retailer.slug)
        return slugs

    def _names(self, collection: Products) -> dict[str, list[object]]:
        """The retailers' names in the documents, as they are, by slug."""
        names: dict[str, list[object]] = defaultdict(list)
        field, query = self._fields.retailer, self._query
        # With the query, `distinct` would read every document instead of some keys of the index.
        for name in collection.distinct(field):
            retailer = self._retailers.named(name)
            if retailer is None:
                continue
            if not query or collection.find_one({"$and": [{field: name}, query]}, {"_id": 1}):
                names[retailer.slug].append(name)
        return names

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Connect to MongoDB with a new client, which is closed at the end of the block.

        Raises:
            SourceError: The address is invalid, or MongoDB raises an error inside the block.
        """
        try:
            client: Client = MongoClient(
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
                yield client
        except InvalidName as error:
            raise SourceError(
                f"source.database or source.collection is no name of MongoDB: {error}"
            ) from None
        except PyMongoError as error:
            raise SourceError(_error_message(error, self._uri)) from None
        except BSONError as error:
            raise SourceError(
                f"a document of {self.places.name} "
                f"cannot be decoded: {error}; repair it, or exclude it with source.query"
            ) from None


def _aggregate(collection: Products, pipeline: list[dict[str, Any]]) -> dict[str, Any]:
    return {"aggregate": collection.name, "pipeline": pipeline, "cursor": {}}


def _is_scan(collection: Products, command: Mapping[str, Any]) -> bool:
    """Whether the plan of a command reads the whole collection."""
    return "COLLSCAN" in _stages(collection, command)


def _stages(collection: Products, command: Mapping[str, Any]) -> set[str]:
    """The names of the stages of a command's plan, such as `IXSCAN`."""
    explained: Mapping[str, Any] = collection.database.command(
        "explain",
        command,
        verbosity="queryPlanner",
        # Bounds of an index with a collation are not UTF-8.
        codec_options=CodecOptions(unicode_decode_error_handler="replace"),
    )
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
