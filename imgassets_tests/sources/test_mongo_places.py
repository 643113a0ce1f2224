"""Tests of a collection or a database per retailer, with a real MongoDB."""

from __future__ import annotations

import datetime as dt
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from imgassets.configuration import validate_settings
from imgassets.errors import SettingsError, SourceError
from imgassets.settings import Settings, SourceSettings
from imgassets.sources.changes import Cursor, due_partitions, remove_requested, scan
from imgassets.sources.listing import Inventory, today
from imgassets.sources.mongo_changes import open_changes
from imgassets.sources.mongo_places import Places
from imgassets.sources.mongodb import MongoSource

NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
BOTH = pytest.mark.parametrize("method", ["stream", "poll"])


@dataclass
class Shops:
    """The databases of a test: `name`, and `name_*` for other databases; dropped afterwards.

    Also scans them repeatedly, as the sensor does, without a settle time.
    """

    uri: str
    client: MongoClient[dict[str, Any]]
    name: str
    source: dict[str, Any] = field(default_factory=dict)
    method: str = "auto"
    cursor: Cursor | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(
            {
                "source": {"database": self.name, **self.source},
                "sensor": {"method": self.method, "settle_s": 0},
            }
        )

    @property
    def mongodb(self) -> MongoSource:
        return MongoSource(self.uri, self.settings.source, self.settings.start_date)

    def insert(self, collection: str, *documents: Mapping[str, Any]) -> None:
        """Insert documents, into `database.collection` with the database's name after `name_`."""
        database, dot, rest = collection.partition(":")
        found = (
            self.client[f"{self.name}_{database}"][rest]
            if dot
            else self.client[self.name][collection]
        )
        usual = {"product_images": ["http://shop/a.jpg"], "scraped_at": NOON}
        found.insert_many({**usual, **document} for document in documents or ({},))

    def listed(self, retailer: str) -> list[str]:
        rows = self.mongodb.listing("2026-01-02", retailer).rows
        return [row.document_id for row in rows]

    def start(self, method: str, **source: Any) -> None:
        self.source, self.method = source, method
        changes = open_changes(self.settings, self.uri)
        self.cursor = changes.initial_cursor()

    def scan(self) -> set[str]:
        """The retailers whose partitions one scan requests, all of 2026-01-02."""
        assert self.cursor is not None
        changes = open_changes(self.settings, self.uri)
        assert self.cursor.source == changes.source_name
        now = time.time()
        with changes.time_limit():
            result = scan(self.cursor, changes.pages, now=now, out_of_time=lambda: False)
        due = due_partitions(result, self.settings.sensor, now=now, today=today())
        self.notes, self.cursor = result.notes, remove_requested(result.cursor, due)
        return {name.removeprefix("2026-01-02|") for name in due}


@pytest.fixture
def shops(mongodb_uri: str, mongo_database: Database[dict[str, Any]]) -> Iterator[Shops]:
    client = mongo_database.client
    yield Shops(mongodb_uri, client, mongo_database.name)
    for name in client.list_database_names():
        if name.startswith(f"{mongo_database.name}_"):
            client.drop_database(name)


def old_id() -> ObjectId:
    return ObjectId(ObjectId.from_datetime(NOON).binary[:4] + random.randbytes(8))


def counts(inventory: Inventory) -> dict[str, int]:
    assert {day for _, day in inventory.documents} <= {"2026-01-02"}
    return {slug: count for (slug, _), count in inventory.documents.items()}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            {"collection": "products_*"},
            {"zara": ["z1", "z2"], "mango": ["m1"], "zara-es": ["e1"]},
        ),
        (
            {"collection": "products_*", "retailer_aliases": {"zara ES": "zara"}},
            {"zara": ["e1", "z1", "z2"], "mango": ["m1"]},
        ),
        ({"collection": "*_items"}, {"h-m": ["h1"]}),
        ({"collection": "list.*"}, {"asos": ["a1"]}),
        (
            {"collection": {"Zara": "products_zara", "Asos": "list.asos", "x": "NAME_eu.products"}},
            {"zara": ["z1", "z2"], "x": ["x1"]},
        ),
        (
            {"collection": {"zara": "products_zara", "ZARA": "products_zara_es"}},
            {"zara": ["e1", "z1", "z2"]},
        ),
        ({"database": "NAME_*"}, {"eu": ["x1"], "us": ["x2"]}),
        ({"database": "NAME_us", "retailer": "Zara"}, {"zara": ["x2"]}),
        ({"database": "NAME_*", "retailer": "Zara"}, {"zara": ["x1", "x2"]}),
        ({"collection": "products_zara"}, {"other": ["z1"]}),
    ],
)
def test_the_settings_decide_which_collections_are_read_and_their_retailers(
    shops: Shops, source: dict[str, Any], expected: dict[str, list[str]]
) -> None:
    # Where the settings give the retailer, the documents' own does not count.
    shops.insert("products_zara", {"_id": "z1", "product_retailer": "Other"}, {"_id": "z2"})
    shops.insert("products_zara_es", {"_id": "e1"})
    shops.insert("products_mango", {"_id": "m1", "product_retailer": ["a", "b"]})
    for ignored in ("products", "products_", "products_!", "my_products_zara"):
        shops.insert(ignored, {"_id": ignored})
    shops.insert("h&m_items", {"_id": "h1"})
    shops.insert("list.asos", {"_id": "a1"})
    shops.insert("eu:products", {"_id": "x1"})
    shops.insert("us:products", {"_id": "x2"})
    shops.insert("asia:lists", {"_id": "x3"})
    shops.source = _named(source, shops.name)
    inventory = shops.mongodb.inventory()
    assert counts(inventory) == {slug: len(ids) for slug, ids in expected.items()}
    assert set(inventory.names) == set(expected)
    assert {retailer: shops.listed(retailer) for retailer in expected} == expected


def _named(value: Any, name: str) -> Any:
    """Replace NAME by the name of the test's database."""
    if isinstance(value, dict):
        return {key: _named(part, name) for key, part in value.items()}
    return value.replace("NAME", name) if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("collection", "names"),
    [("products_*", [...]), ("products_zara", ["Zara", "ZARA", "zára ", ["Zara"], "Zara ES"])],
)
def test_a_listing_reads_the_documents_of_its_own_retailer_only(
    shops: Shops, collection: str, names: list[Any]
) -> None:
    shops.source = {"collection": collection, "retailer_aliases": {"Zara ES": "zara"}}
    for day in range(1, 4):
        for number in range(60):
            values = {"product_retailer": names[number % len(names)]}
            shops.insert(
                "products_zara",
                {"scraped_at": NOON.replace(day=day), **({} if names == [...] else values)},
            )
    shops.insert("products_zara", {"product_retailer": ["Zara", "Mango"]})
    shops.insert("products_mango", {"product_retailer": "Mango"})
    shops.mongodb.create_indexes()
    database = shops.client[shops.name]
    database.command("profile", 2)
    listing = shops.mongodb.listing("2026-01-02", "zara")
    database.command("profile", 0)
    assert listing.documents == (61 if names == [...] else 60)
    read = {"docsExamined": {"$exists": True}}
    entries = list(database["system.profile"].find(read))
    own = [entry for entry in entries if entry["ns"] == f"{shops.name}.products_zara"]
    assert own
    assert not [entry for entry in entries if entry["ns"] == f"{shops.name}.products_mango"]
    assert sum(entry["docsExamined"] for entry in own) <= 1.1 * 60


def test_documents_with_the_same_id_in_two_collections_of_a_retailer_give_one_row(
    shops: Shops,
) -> None:
    more = {"product_images": ["http://shop/a.jpg", "http://shop/b.jpg"]}
    shops.insert("products_zara", {"_id": 1})
    shops.insert("products_zara_es", {"_id": 1, **more})
    shops.source = {"collection": "products_*", "retailer_aliases": {"zara-es": "zara"}}
    listing = shops.mongodb.listing("2026-01-02", "zara")
    assert [row.url for row in listing.rows] == ["http://shop/a.jpg", "http://shop/b.jpg"]
    assert listing.documents == 2
    assert listing.report.counts == {"duplicate_url": 1}


def test_images_of_a_collection_per_retailer_are_found_at_all_paths_with_its_address(
    shops: Shops,
) -> None:
    shops.insert("products_zara", {"_id": "z", "main": {"src": "/1.jpg"}, "og.image": ["/2.jpg"]})
    shops.insert("products_zara_es", {"_id": "e", "main": [{"src": "/3.jpg"}, "/4.jpg"]})
    shops.insert("products_mango", {"_id": "m", "main": None, "og.image": "/5.jpg;/6.jpg"})
    shops.source = {
        "collection": "products_*",
        "retailer_aliases": {"zara-es": "zara"},
        "fields": {"images": ["main.src", "og.image"]},
        "separator": ";",
        "base_url": {"zara": "https://zara", "mango": "https://mango/de/"},
    }
    found = {
        retailer: [row.url for row in shops.mongodb.listing("2026-01-02", retailer).rows]
        for retailer in ("zara", "mango")
    }
    assert found == {
        "zara": [f"https://zara/{number}.jpg" for number in (3, 4, 1, 2)],
        "mango": ["https://mango/5.jpg", "https://mango/6.jpg"],
    }
    sample = shops.mongodb.sample()
    assert (sample.documents, sample.hints) == (3, {})
    assert sample.urls == [found["mango"][0], found["zara"][2], found["zara"][0]]


def test_a_sample_has_documents_of_each_collection(shops: Shops) -> None:
    for shop in ("zara", "mango"):
        shops.insert(f"products_{shop}", *({"product_images": f"http://{shop}"} for _ in range(60)))
    shops.source = {"collection": "products_*"}
    sample = shops.mongodb.sample()
    assert sample.urls == ["http://mango"] * 50 + ["http://zara"] * 50


def test_names_in_objects_with_aliases_and_dates_that_are_text_agree_in_survey_and_listing(
    shops: Shops,
) -> None:
    spellings = [("Zara ES", "02.01.2026 10:00"), ("ZARA", "Fri, 2 Jan 2026 10:00:00 GMT")]
    spellings += [("zara-es", "1767348000"), ("Zara", "2026-01-02T23:00:00-05:00")]
    spellings += [("Zara", "02/01/2026"), ("Mango", "2026-01-02")]
    for number, (retailer, date) in enumerate(spellings):
        shop = {"name": retailer, "seen": date, "pics": [f"http://a/{number}"]}
        shops.insert("products", {"_id": number, "shop": shop})
    shops.source = {
        "retailer_aliases": {"zara-es": "zara"},
        "date_format": "%d.%m.%Y",
        "fields": {"retailer": "shop.name", "date": "shop.seen", "images": ["shop.pics", "pics"]},
    }
    inventory = shops.mongodb.inventory()
    assert inventory.documents == {
        ("zara", "2026-01-02"): 3,
        ("zara", "2026-01-03"): 1,
        ("mango", "2026-01-02"): 1,
    }
    assert inventory.report.counts == {"invalid_date": 1}
    listing = shops.mongodb.listing("2026-01-02", "zara")
    assert [row.url for row in listing.rows] == ["http://a/0", "http://a/1", "http://a/2"]
    assert shops.listed("mango") == ["5"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"collection": "shop_*"},
            "no collection matches source.collection: shop_*; collections of NAME: list, stock",
        ),
        (
            {"collection": "shop_*", "database": "NAME_none"},
            "no collection matches source.collection: shop_*; collections of NAME_none: none",
        ),
        (
            {"database": "NAME_*"},
            "no database matches source.database: NAME_* and has the collection products; "
            "databases: ",
        ),
        (
            {"collection": {"Zara": "zara", "mango": "NAME_none.items"}},
            "source.collection names NAME.zara for Zara, which does not exist; collections of "
            "NAME: list, stock; source.collection names NAME_none.items for mango, which does not "
            "exist; collections of NAME_none: none",
        ),
        (
            {"database": "shop.zara"},
            "source.database or source.collection is no name of MongoDB: ",
        ),
    ],
)
def test_without_a_collection_one_sentence_names_those_that_exist(
    shops: Shops, source: dict[str, Any], message: str
) -> None:
    shops.insert("list")
    shops.insert("stock")
    shops.source = _named(source, shops.name)
    for read in (shops.mongodb.inventory, lambda: shops.mongodb.listing("2026-01-02", "zara")):
        with pytest.raises(SourceError) as caught:
            read()
        assert str(caught.value).startswith(_named(message, shops.name))


def test_a_missing_collection_is_a_warning_that_names_those_that_exist(shops: Shops) -> None:
    shops.insert("products", {"_id": "z1"})
    for source, retailer in (({}, ""), ({"retailer": "Zara"}, " for Zara")):
        shops.source = {"collection": "produkts", **source}
        assert shops.mongodb.inventory().warnings == [
            f"source.collection names {shops.name}.produkts{retailer}, which does not exist; "
            f"collections of {shops.name}: products"
        ]


def test_a_missing_collection_of_a_mapping_affects_only_its_own_retailer(shops: Shops) -> None:
    shops.insert("products_zara", {"_id": "z1"})
    shops.source = {"collection": {"zara": "products_zara", "mango": "mango_products"}}
    inventory = shops.mongodb.inventory()
    assert counts(inventory) == {"zara": 1}
    message = (
        f"source.collection names {shops.name}.mango_products for mango, which does not exist; "
        f"collections of {shops.name}: products_zara"
    )
    assert inventory.warnings == [message]
    assert shops.listed("zara") == ["z1"]
    with pytest.raises(SourceError) as caught:
        shops.listed("mango")
    assert str(caught.value) == message


def test_an_empty_collection_is_a_retailer_without_documents(shops: Shops) -> None:
    shops.insert("products_zara")
    shops.client[shops.name].create_collection("products_mango")
    shops.source = {"collection": "products_*"}
    assert shops.mongodb.inventory().names == {"zara": "zara"}
    note = shops.mongodb.listing("2026-01-02", "mango").note
    assert "'mango'; retailers in the source: zara; if it has left" in str(note)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"collection": "a_*_*"}, "source.collection: got 'a_*_*'; source.database and"),
        ({"database": "**"}, "source.database: got '**'; source.database and"),
        ({"database": "a*", "collection": "b*"}, "source.collection: got 'b*'; source.database"),
        ({"collection": {"a": "b*"}}, "source.collection: got {'a': 'b*'}; a mapping names"),
        ({"database": "a*", "collection": {"a": "b"}}, "a mapping names each collection in full"),
        ({"collection": {"a": "x", "b": "x"}}, "two retailers have the same collection"),
        ({"retailer": "?!"}, "source.retailer: got '?!'; a retailer's name must contain a letter"),
        ({"retailer_aliases": {"?!": "a"}}, "a retailer's name must contain a letter or a digit"),
        ({"collection": {"?!": "a"}}, "a retailer's name must contain a letter or a digit"),
    ],
)
def test_settings_that_do_not_name_a_retailer_are_refused(
    source: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        validate_settings({"source": source}, [])
    assert message in str(caught.value)


def test_missing_indexes_are_found_and_created_in_each_collection(shops: Shops) -> None:
    for name in ("products_zara", "products_mango"):
        shops.insert(name, *({"_id": number} for number in range(50)))
    shops.client[shops.name].create_collection("products_none")
    shops.client[shops.name].create_collection("products_view", viewOn="products_zara", pipeline=[])
    shops.source = {"collection": "products_*"}
    assert shops.mongodb.index_keys == [("scraped_at", 1), ("_id", 1)]
    found = {
        query: [place.collection for place in places]
        for query, places in shops.mongodb.unindexed().items()
    }
    assert found == {
        "partition": ["products_mango", "products_view", "products_zara"],
        "survey": ["products_mango", "products_zara"],
    }
    shops.mongodb.create_indexes()
    assert shops.mongodb.unindexed() == {}


LAYOUTS: list[tuple[dict[str, Any], tuple[str, str, str]]] = [
    ({"collection": "products_*"}, ("products_zara", "products_mango", "products_asos")),
    ({"database": "NAME_*"}, ("zara:products", "mango:products", "asos:products")),
    (
        {
            "collection": {
                "zara": "products_zara",
                "mango": "NAME_eu.mango",
                "asos": "NAME_eu.asos",
            }
        },
        ("products_zara", "eu:mango", "eu:asos"),
    ),
]
"""Settings, two collections that exist and one that does not."""


@BOTH
@pytest.mark.parametrize(("source", "places"), LAYOUTS)
def test_the_sensor_sees_changes_of_all_collections_also_of_new_ones(
    shops: Shops, method: str, source: dict[str, Any], places: tuple[str, str, str]
) -> None:
    zara, mango, asos = places
    for place in (zara, mango):
        shops.insert(place, {"_id": 1})
    shops.start(method, **_named(source, shops.name))
    assert shops.scan() == set()
    shops.insert(zara, {}, {})
    shops.insert("ignored", {})
    assert shops.scan() == {"zara"}
    assert shops.scan() == set()
    shops.insert(mango)
    shops.insert(asos)
    assert shops.scan() == {"mango", "asos"}
    (note,) = shops.notes
    assert note.startswith("new collections, of which all partitions are run: ")
    assert shops.scan() == set()
    assert shops.notes == []
    shops.insert(asos)
    assert shops.scan() == {"asos"}


@BOTH
def test_all_documents_of_a_restored_or_added_collection_are_seen(
    shops: Shops, method: str
) -> None:
    shops.insert("products_zara")
    shops.start(method, collection="products_*")
    shops.insert("work", {"_id": old_id()}, {"_id": "text"})
    assert shops.scan() == set()
    shops.client[shops.name]["work"].rename("products_mango")
    assert shops.scan() == {"mango"}
    shops.client[shops.name]["products_zara"].drop()
    shops.scan()
    shops.insert("products_zara", {"_id": old_id()})
    assert shops.scan() == {"zara"}
    assert shops.scan() == set()

    shops.start(method, collection={"zara": "products_zara"})
    shops.source = {"collection": {"zara": "products_zara", "mango": "products_mango"}}
    assert shops.scan() == {"mango"}
    shops.insert("products_zara")
    assert shops.scan() == {"zara"}


def test_the_stream_continues_when_a_mapping_gets_its_second_database(shops: Shops) -> None:
    shops.insert("zara")
    shops.insert("asos")
    shops.start("stream", collection={"zara": "zara", "asos": "asos"})
    shops.insert("zara")
    assert shops.scan() == {"zara"}
    shops.client[shops.name]["asos"].update_many({}, {"$set": {"product_images": []}})
    shops.insert("eu:mango")
    more = {"zara": "zara", "asos": "asos", "mango": f"{shops.name}_eu.mango"}
    shops.source = {"collection": more}
    assert shops.scan() == {"asos", "mango"}
    (note,) = shops.notes
    assert note.startswith("new collections")


@BOTH
def test_the_sensor_waits_for_the_first_collection_with_a_note(shops: Shops, method: str) -> None:
    shops.start(method, collection="products_*")
    assert shops.scan() == set()
    assert shops.notes == [f"no collection matches {shops.name}.products_*"]
    shops.insert("products_zara", {"_id": old_id()})
    assert shops.scan() == {"zara"}


def test_the_stream_follows_collections_whose_documents_have_the_same_ids(shops: Shops) -> None:
    for name in ("zara", "mango", "asos"):
        shops.insert(f"products_{name}", {"_id": 1})
    database = shops.client[shops.name]
    pre_images = {"collMod": "products_mango", "changeStreamPreAndPostImages": {"enabled": True}}
    database.command(pre_images)
    shops.start("stream", collection="products_*")
    for name in ("zara", "mango"):
        database[f"products_{name}"].update_one({}, {"$set": {"product_images": []}})
    assert shops.scan() == {"zara", "mango"}
    database["products_mango"].delete_one({"_id": 1})
    database["products_zara"].delete_one({"_id": 1})  # has no pre-images
    assert shops.scan() == {"mango"}
    assert shops.notes == []


def test_the_stream_continues_after_the_database_was_dropped(shops: Shops) -> None:
    shops.insert("products_zara")
    shops.start("stream", collection="products_*")
    shops.client.drop_database(shops.name)
    shops.insert("products_mango")
    assert shops.scan() | shops.scan() == {"mango"}
    shops.insert("products_mango")
    assert shops.scan() == {"mango"}


def test_a_stream_becomes_a_poll_when_a_view_appears(shops: Shops) -> None:
    shops.insert("products_zara", {"_id": old_id()})
    shops.start("auto", collection="products_*")
    assert shops.cursor is not None
    assert shops.cursor.position.token is not None
    database = shops.client[shops.name]
    database.create_collection("products_view", viewOn="products_zara", pipeline=[])
    assert shops.scan() == {"view"}
    note = (
        f"{shops.name}.products_view is a view, which has no change stream; the sensor polls "
        "instead"
    )
    assert shops.notes[1:] == [note]
    shops.insert("products_zara")
    assert shops.scan() == {"view", "zara"}
    assert shops.notes == [note]
    database["products_view"].drop()
    assert shops.scan() == set()
    database["products_zara"].update_many({}, {"$set": {"product_images": []}})
    assert shops.scan() == {"zara"}  # by the stream again


def test_a_system_database_is_read_only_if_it_is_named_in_full() -> None:
    assert Places(SourceSettings(database="admin")).at("admin", "products") is not None
    assert Places(SourceSettings(database="*")).at("admin", "products") is None
    assert Places(SourceSettings(collection="*")).at("catalogue", "system.views") is None
