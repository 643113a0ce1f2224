"""Find the collections of MongoDB that `source.database` and `source.collection` name.

There is one collection, whose documents have their retailers, or one collection or database per
retailer. Documents are read in `mongodb`, changes in `mongo_changes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pymongo import MongoClient
from pymongo.change_stream import ChangeStream
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from imgassets.errors import SourceError
from imgassets.settings import SourceSettings
from imgassets.sources.retailers import Retailer, Retailers

Client = MongoClient[dict[str, Any]]
Products = Collection[dict[str, Any]]

# MongoDB's error code if the user may not run a command.
UNAUTHORIZED = 13

_SYSTEM_DATABASES = ("admin", "config", "local")
_MAX_NAMED = 20

Kind: TypeAlias = Literal["collection", "view", "time-series collection"]
# By the types of `listCollections`; what is none of these is treated as a view.
_KINDS: Mapping[str, Kind] = {
    "collection": "collection",
    "view": "view",
    "timeseries": "time-series collection",
}


@dataclass(frozen=True)
class Place:
    """A collection of product documents.

    Attributes:
        database: Name of its database.
        collection: Its name in the database.
        retailer: The retailer of all its documents; None if each document has its own.
        exists: Whether MongoDB has it.
        kind: What it is.
        has_pre_images: Whether MongoDB stores its documents as they were before a change.
    """

    database: str
    collection: str
    retailer: Retailer | None = None
    exists: bool = False
    kind: Kind = "collection"
    has_pre_images: bool = False

    def __str__(self) -> str:
        return f"{self.database}.{self.collection}"

    @property
    def has_stream(self) -> bool:
        """Whether MongoDB has a change stream of it."""
        return self.kind == "collection"

    @property
    def can_have_index(self) -> bool:
        """Whether indexes are created in it; those of a view are in the collection it reads."""
        return self.kind != "view"

    def open(self, client: Client) -> Products:
        """The collection, to read it."""
        return client[self.database][self.collection]


@dataclass(frozen=True)
class _Rule:
    """Names of a database and a collection, one of which can contain a star."""

    database: str
    collection: str
    retailer: str | None = None

    @property
    def has_star(self) -> bool:
        return "*" in self.database + self.collection

    @property
    def filter(self) -> dict[str, object]:
        """Filter for the change events of the collections."""
        names = {"ns.db": self.database, "ns.coll": self.collection}
        return {field: _regex(name) if "*" in name else name for field, name in names.items()}

    def star(self, database: str, collection: str) -> str | None:
        """What is at the star, which is empty without one; None if the names do not match."""
        parts = [_at_star(self.database, database), _at_star(self.collection, collection)]
        return None if None in parts else "".join(map(str, parts))


class Places:
    """The collections that the settings of a source name.

    Args:
        settings: Names of the database and the collection, or the collection of each retailer.
    """

    def __init__(self, settings: SourceSettings) -> None:
        names = settings.collection
        self._by_retailer = isinstance(names, dict)
        self._rules = (
            [_mapped(retailer, name, settings.database) for retailer, name in names.items()]
            if isinstance(names, dict)
            else [_Rule(settings.database, names)]
        )
        self._retailers = Retailers.from_settings(settings)

    @property
    def name(self) -> str:
        """What the settings name, for messages and the sensor's cursor.

        It is the same for all mappings, so that the cursor stays valid when a retailer is added.
        """
        rule = self._rules[0]
        in_mapping = "the collections in source.collection"
        return in_mapping if self._by_retailer else f"{rule.database}.{rule.collection}"

    @property
    def stream_resource(self) -> str:
        """What a user needs the rights for to read the change stream, with the role that does."""
        rule, databases = self._rules[0], {rule.database for rule in self._rules}
        if len(databases) > 1 or "*" in rule.database:
            return "all databases (the role readAnyDatabase has them)"
        return f"{self.name if self.is_one else rule.database} (the role read has them)"

    @property
    def is_one(self) -> bool:
        """Whether the settings name exactly one collection."""
        return not self._by_retailer and not self._rules[0].has_star

    @property
    def have_retailers(self) -> bool:
        """Whether the settings give the retailer, so that `source.fields.retailer` is not read."""
        return self._retailers.fixed is not None or not self.is_one

    def at(self, database: str, collection: str) -> Place | None:
        """The place of a collection, which need not exist; None if the settings do not name it."""
        is_system = database in _SYSTEM_DATABASES or collection.startswith("system.")
        for rule in self._rules:
            star = rule.star(database, collection)
            if star is None or (rule.has_star and is_system):
                continue
            retailer = self._retailers.fixed or self._retailers.named(rule.retailer or star)
            # Without a letter or digit at the star, there is no retailer.
            return Place(database, collection, retailer) if retailer or self.is_one else None
        return None

    def find(self, client: Client) -> list[Place]:
        """Find the collections, sorted by name; those that are named in full need not exist."""
        found: dict[str, Place] = {}
        for rule in self._rules:
            if not rule.has_star and (place := self.at(rule.database, rule.collection)):
                found[str(place)] = place
        for database in self._databases(client):
            for description in _descriptions(client, database):
                if place := self._existing(database, description):
                    found[str(place)] = place
        return [found[name] for name in sorted(found)]

    def existing(self, client: Client) -> list[Place]:
        """Find the collections; if there can be several, only those that exist.

        Raises:
            SourceError: There can be several, and none exists. The message names other collections.
        """
        places = self.find(client)
        if self.is_one:
            return places
        existing = [place for place in places if place.exists]
        if not existing:
            raise SourceError(self._nothing_message(client))
        return existing

    def missing_messages(self, client: Client) -> list[tuple[str, str]]:
        """A sentence for each collection that is named in full and missing.

        Returns:
            Pairs of the retailer's slug, empty if the documents name the retailer, and the
            sentence.
        """
        return [
            (place.retailer.slug if place.retailer else "", _missing_message(client, place))
            for place in self.find(client)
            if not place.exists
        ]

    def watch(
        self, client: Client, match: Mapping[str, Any], project: Mapping[str, Any], **options: Any
    ) -> AbstractContextManager[ChangeStream[dict[str, Any]]]:
        """Open the change stream of all the collections, also of those that do not exist yet.

        Args:
            client: The client.
            match: Filter for the events.
            project: The fields of the events.
            options: Options of the change stream.
        """
        rule, databases = self._rules[0], {rule.database for rule in self._rules}
        if self.is_one:
            collection = client[rule.database][rule.collection]
            return collection.watch([{"$match": match}, {"$project": project}], **options)
        # The event `invalidate` has no collection.
        named: list[Mapping[str, Any]] = [{"ns.coll": None}, *(rule.filter for rule in self._rules)]
        pipeline: list[Mapping[str, Any]] = [
            {"$match": {"$and": [match, {"$or": named}]}},
            {"$project": project},
        ]
        if len(databases) == 1 and "*" not in rule.database:
            return client[rule.database].watch(pipeline, **options)
        return client.watch(pipeline, **options)

    def _databases(self, client: Client) -> list[str]:
        names = {rule.database for rule in self._rules}
        return client.list_database_names() if "*" in "".join(names) else sorted(names)

    def _existing(self, database: str, description: Mapping[str, Any]) -> Place | None:
        place = self.at(database, description["name"])
        if place is None:
            return None
        pre_images = description.get("options", {}).get("changeStreamPreAndPostImages", {})
        return Place(
            place.database,
            place.collection,
            place.retailer,
            exists=True,
            kind=_KINDS.get(description["type"], "view"),
            has_pre_images=bool(pre_images.get("enabled")),
        )

    def _nothing_message(self, client: Client) -> str:
        rule = self._rules[0]
        if not rule.has_star:
            return "; ".join(message for _, message in self.missing_messages(client))
        if "*" in rule.database:
            names = [name for name in client.list_database_names() if name not in _SYSTEM_DATABASES]
            return (
                f"no database matches source.database: {rule.database} and has the collection "
                f"{rule.collection}; databases: {_listed(names)}"
            )
        return (
            f"no collection matches source.collection: {rule.collection}; "
            f"collections of {rule.database}: {_collections(client, rule.database)}"
        )


def _mapped(retailer: str, name: str, default_database: str) -> _Rule:
    """The rule of an entry of a mapping, `collection` or `database.collection`."""
    database, dot, collection = name.partition(".")
    return _Rule(database, collection, retailer) if dot else _Rule(default_database, name, retailer)


def _at_star(pattern: str, name: str) -> str | None:
    """The part of a name at the star of a pattern; None if they do not match."""
    if "*" not in pattern:
        return "" if name == pattern else None
    matched = re.fullmatch(_regex(pattern)["$regex"], name, re.DOTALL)
    return matched and matched[1]


def _regex(pattern: str) -> dict[str, str]:
    before, after = map(re.escape, pattern.split("*"))
    return {"$regex": f"^{before}(.+){after}$"}


def _descriptions(client: Client, database: str) -> Iterator[Mapping[str, Any]]:
    """The name, type and, if the user may read them, options of each collection."""
    try:
        yield from client[database].list_collections()
    except OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        yield from client[database].list_collections(nameOnly=True, authorizedCollections=True)


def _missing_message(client: Client, place: Place) -> str:
    retailer = "" if place.retailer is None else f" for {place.retailer.name}"
    return (
        f"source.collection names {place}{retailer}, which does not exist; "
        f"collections of {place.database}: {_collections(client, place.database)}"
    )


def _collections(client: Client, database: str) -> str:
    names = (description["name"] for description in _descriptions(client, database))
    return _listed([name for name in names if not name.startswith("system.")])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return (", ".join(sorted(names)[:_MAX_NAMED]) or "none") + more
