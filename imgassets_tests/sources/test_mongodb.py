"""Tests of MongoDB as the source, with a real MongoDB."""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Iterator
from typing import Any

import bson
import pytest
import yaml
from bson import (
    Code,
    DatetimeMS,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
)
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.database import Database
from pymongo.errors import AutoReconnect, OperationFailure

from imgassets.errors import SourceError
from imgassets.settings import Settings, SourceSettings
from imgassets.sources.factory import open_source
from imgassets.sources.listing import Anomaly, Inventory, today
from imgassets.sources.mongodb import MongoSource, mask_uri

START = dt.date(2026, 1, 1)
NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
Products = Database[dict[str, Any]]


@pytest.fixture
def source(mongodb_uri: str, mongo_database: Products) -> MongoSource:
    return MongoSource(mongodb_uri, SourceSettings(database=mongo_database.name), START)


def document(**values: Any) -> dict[str, Any]:
    """A document as scrapers write it; a value of `...` removes the field."""
    usual = {
        "product_retailer": "Zara",
        "product_images": ["http://shop/a.jpg"],
        "scraped_at": NOON,
    }
    return {name: value for name, value in {**usual, **values}.items() if value is not ...}


def insert(database: Products, *documents: dict[str, Any]) -> None:
    database["products"].insert_many(documents)


def created(moment: dt.datetime, number: int = 0) -> ObjectId:
    return ObjectId(ObjectId.from_datetime(moment).binary[:11] + bytes([number]))


def counts(inventory: Inventory) -> dict[str, int]:
    return {str(anomaly): count for anomaly, count in inventory.report.counts.items()}


def test_a_partition_has_only_the_urls_of_its_day_and_retailer(
    source: MongoSource, mongo_database: Products
) -> None:
    midnight = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    insert(
        mongo_database,
        document(_id="first", scraped_at=midnight, product_images=["http://shop/1"]),
        document(
            _id="last",
            scraped_at=midnight + dt.timedelta(days=1, milliseconds=-1),
            product_images=["http://shop/2", "http://shop/3"],
        ),
        document(_id="early", scraped_at=midnight - dt.timedelta(milliseconds=1)),
        document(_id="late", scraped_at=midnight + dt.timedelta(days=1)),
        document(_id="other", product_retailer="Mango"),
    )
    listing = source.listing("2026-01-02", "zara")
    assert [(row.document_id, row.position, row.url) for row in listing.rows] == [
        ("first", 0, "http://shop/1"),
        ("last", 0, "http://shop/2"),
        ("last", 1, "http://shop/3"),
    ]
    assert listing.documents == 2
    assert {(row.date, row.retailer) for row in listing.rows} == {("2026-01-02", "zara")}


def test_without_a_date_the_creation_time_of_the_object_id_is_the_date(
    source: MongoSource, mongo_database: Products
) -> None:
    insert(
        mongo_database,
        document(_id=created(NOON), scraped_at=...),
        document(_id=created(NOON, 1), scraped_at=None),
        document(_id=created(NOON + dt.timedelta(days=1)), scraped_at=...),
        document(_id=created(NOON, 2), scraped_at=NOON - dt.timedelta(days=1)),
    )
    listing = source.listing("2026-01-02", "zara")
    assert {row.document_id for row in listing.rows} == {str(created(NOON)), str(created(NOON, 1))}


def test_days_of_object_ids_change_at_midnight_utc(
    source: MongoSource, mongo_database: Products
) -> None:
    midnight = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    first, last = created(midnight), created(midnight - dt.timedelta(seconds=1))
    insert(mongo_database, *(document(_id=name, scraped_at=...) for name in (first, last)))
    listed = {
        day: [row.document_id for row in source.listing(day, "zara").rows]
        for day in ("2026-01-01", "2026-01-02", "2026-01-03")
    }
    assert listed == {"2026-01-01": [str(last)], "2026-01-02": [str(first)], "2026-01-03": []}


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2026-01-02", "2026-01-02"),
        ("2026-01-02T00:00:00", "2026-01-02"),
        ("2026-01-02T00:00:00Z", "2026-01-02"),
        ("2026-01-02T00:00:00.000+00:00", "2026-01-02"),
        ("2026-01-02T02:00:00+02:00", "2026-01-02"),
        ("2026-01-01T16:00:00-08:00", "2026-01-02"),
        ("2026-01-02T23:59:59Z", "2026-01-02"),
        ("2026-01-02T23:59:59.123456", "2026-01-02"),
        ("2026-01-03T01:00:00+02:00", "2026-01-02"),
        ("2026-01-03T13:59:59+14:00", "2026-01-02"),
        ("2026-01-01T20:00:00-0800", "2026-01-02"),
        ("2026-01-01T12:00:00-12:00", "2026-01-02"),
    ],
)
def test_iso_text_is_a_date_in_utc_and_belongs_to_exactly_one_day(
    source: MongoSource, mongo_database: Products, text: str, day: str
) -> None:
    insert(mongo_database, document(_id="d", scraped_at=text))
    days = [f"2026-01-0{number}" for number in range(1, 5)]
    assert [one for one in days if source.listing(one, "zara").rows] == [day]
    assert source.inventory().documents == {("zara", day): 1}


def test_days_are_in_utc_whatever_the_local_time_zone(
    source: MongoSource, mongo_database: Products, time_zone: str
) -> None:
    del time_zone
    midnight = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    before = midnight - dt.timedelta(seconds=1)
    dates = {
        "date": (before, midnight),
        "text": ("2026-01-01T23:59:59", "2026-01-02T00:00:00"),
        "id": (None, None),
    }
    for name, pair in dates.items():
        for number, (moment, date) in enumerate(zip((before, midnight), pair, strict=True)):
            key = created(moment) if date is None else f"{name} {number}"
            insert(mongo_database, document(_id=key, scraped_at=date))
    listed = {
        day: {row.document_id for row in source.listing(day, "zara").rows}
        for day in ("2025-12-31", "2026-01-01", "2026-01-02", "2026-01-03")
    }
    assert listed == {
        "2025-12-31": set(),
        "2026-01-01": {"date 0", "text 0", str(created(before))},
        "2026-01-02": {"date 1", "text 1", str(created(midnight))},
        "2026-01-03": set(),
    }
    inventory = source.inventory()
    assert inventory.documents == {("zara", "2026-01-01"): 3, ("zara", "2026-01-02"): 3}
    assert counts(inventory) == {}


def test_documents_of_today_have_a_partition_and_those_of_tomorrow_do_not(
    source: MongoSource, mongo_database: Products, time_zone: str
) -> None:
    del time_zone
    day = today()
    start = dt.datetime.combine(day, dt.time(), dt.UTC)
    end = start + dt.timedelta(days=1)
    insert(
        mongo_database,
        document(_id="first", scraped_at=start),
        document(_id="last", scraped_at=end - dt.timedelta(milliseconds=1)),
        document(_id="text", scraped_at=f"{day}T23:59:59"),
        document(_id=created(end - dt.timedelta(seconds=1)), scraped_at=...),
        document(_id="next", scraped_at=end),
        document(_id="next text", scraped_at=end.date().isoformat()),
        document(_id=created(end), scraped_at=...),
    )
    assert source.listing(day.isoformat(), "zara").documents == 4
    inventory = source.inventory()
    assert inventory.documents == {("zara", day.isoformat()): 4}
    assert inventory.report.counts == {Anomaly.IN_FUTURE: 3}


def test_the_start_date_is_the_first_day_with_a_partition(
    source: MongoSource, mongo_database: Products
) -> None:
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    insert(
        mongo_database,
        document(_id="first", scraped_at=start),
        document(_id="first text", scraped_at="2026-01-01"),
        document(_id=created(start), scraped_at=...),
        document(_id="before", scraped_at=start - dt.timedelta(milliseconds=1)),
        document(_id="before text", scraped_at="2026-01-01T00:30:00+01:00"),
        document(_id=created(start - dt.timedelta(seconds=1)), scraped_at=...),
    )
    assert source.listing("2026-01-01", "zara").documents == 3
    inventory = source.inventory()
    assert inventory.documents == {("zara", "2026-01-01"): 3}
    assert inventory.report.counts == {Anomaly.BEFORE_START_DATE: 3}


def test_documents_without_a_partition_are_counted_by_reason(
    source: MongoSource, mongo_database: Products
) -> None:
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=2)
    insert(
        mongo_database,
        document(_id="good"),
        document(_id="no date", scraped_at=...),
        document(_id="null date", scraped_at=None),
        document(_id="number", scraped_at=17673520),
        document(_id="word", scraped_at="yesterday"),
        document(_id="old", scraped_at=dt.datetime(2025, 12, 31, 23, 59, tzinfo=dt.UTC)),
        document(_id="old text", scraped_at="2025-12-31"),
        document(_id=created(dt.datetime(2025, 5, 5, tzinfo=dt.UTC)), scraped_at=...),
        document(_id="future", scraped_at=tomorrow),
        document(_id="future text", scraped_at=tomorrow.isoformat()),
        document(_id="year 20000", scraped_at=DatetimeMS(568971820800000)),
        document(_id="other", product_retailer="Mango", scraped_at="never"),
    )
    reasons = {"no_date": 2, "invalid_date": 2, "before_start_date": 3, "in_future": 3}
    listing = source.listing("2026-01-02", "zara")
    assert listing.report.counts == {}
    assert [row.document_id for row in listing.rows] == ["good"]
    inventory = source.inventory()
    assert counts(inventory) == {**reasons, "invalid_date": 3}
    assert inventory.documents == {("zara", "2026-01-02"): 1}


def test_a_date_of_type_undefined_is_a_missing_date(
    source: MongoSource, mongo_database: Products
) -> None:
    # The type is deprecated and drivers do not write it, but old documents contain it.
    products = mongo_database.get_collection(
        "products", codec_options=CodecOptions(document_class=RawBSONDocument)
    )
    for key in ("d1", created(NOON)):
        data = bson.encode(document(_id=key, scraped_at=None))
        data = data.replace(b"\x0ascraped_at\0", b"\x06scraped_at\0")
        products.insert_one(RawBSONDocument(data))
    listing = source.listing("2026-01-02", "zara")
    assert [row.document_id for row in listing.rows] == [str(created(NOON))]
    ((anomaly, document_id, _),) = source.inventory().report.examples
    assert (anomaly, document_id) == (Anomaly.NO_DATE, "d1")


@pytest.mark.parametrize(
    ("date", "anomaly", "shown"),
    [
        (["2026-01-02", None], Anomaly.INVALID_DATE, "['2026-01-02', None]"),
        ([NOON, NOON], Anomaly.INVALID_DATE, "[datetime.datetime(2026, 1, 2, 12, 0, tzinfo="),
        ({"at": NOON}, Anomaly.INVALID_DATE, "{'at': datetime.datetime("),
        (True, Anomaly.INVALID_DATE, "True"),
        (3, Anomaly.INVALID_DATE, "3"),
        (Int64(3), Anomaly.INVALID_DATE, "3"),
        (2.5, Anomaly.INVALID_DATE, "2.5"),
        (Decimal128("2.5"), Anomaly.INVALID_DATE, "Decimal128('2.5')"),
        (b"2026-01-02", Anomaly.INVALID_DATE, "b'2026-01-02'"),
        (Timestamp(1, 1), Anomaly.BEFORE_START_DATE, "1970-01-01T00:00:00+00:00; set start_date "),
        (Regex("^2026"), Anomaly.INVALID_DATE, "Regex('^2026', 0)"),
        (Code("2026"), Anomaly.INVALID_DATE, "Code('2026', None)"),
        (Code("2026", {"a": 1}), Anomaly.INVALID_DATE, "Code('2026', {'a': 1})"),
        (MinKey(), Anomaly.INVALID_DATE, "MinKey()"),
        (MaxKey(), Anomaly.INVALID_DATE, "MaxKey()"),
        ("", Anomaly.INVALID_DATE, "''"),
        ("0000", Anomaly.INVALID_DATE, "'0000'"),
        ("2026-01-32", Anomaly.INVALID_DATE, "'2026-01-32'"),
        (None, Anomaly.NO_DATE, "None"),
        (..., Anomaly.NO_DATE, "None"),
        ("2025-12-31", Anomaly.BEFORE_START_DATE, "'2025-12-31'"),
        ("2999-01-01", Anomaly.IN_FUTURE, "'2999-01-01'"),
    ],
)
def test_a_date_without_a_partition_is_reported_with_its_document_and_value(
    source: MongoSource, mongo_database: Products, date: object, anomaly: Anomaly, shown: str
) -> None:
    insert(mongo_database, document(_id="anomaly", scraped_at=date), document(_id="good"))
    listing = source.listing("2026-01-02", "zara")
    assert [row.document_id for row in listing.rows] == ["good"]
    report = source.inventory().report
    ((kind, document_id, detail),) = report.examples
    assert (kind, document_id) == (anomaly, "anomaly")
    assert detail.startswith(f"scraped_at is {shown}")
    assert report.counts == {anomaly: 1}


def test_documents_excluded_by_the_query_are_not_reported_as_anomalies(
    mongodb_uri: str, mongo_database: Products
) -> None:
    insert(
        mongo_database,
        document(kind="bag"),
        document(kind="shoe", scraped_at="never"),
        document(kind="shoe", product_retailer=7),
        document(kind="shoe", product_retailer="Mango"),
    )
    settings = SourceSettings(database=mongo_database.name, query={"kind": "bag"})
    source = MongoSource(mongodb_uri, settings, START)
    assert source.listing("2026-01-02", "zara").report.counts == {}
    inventory = source.inventory()
    assert inventory.report.counts == {}
    assert inventory.names == {"zara": "Zara"}
    note = source.listing("2026-01-02", "mango").note
    assert "'mango'; retailers in the source: zara;" in str(note)


def test_anomalies_of_lists_are_counted_and_the_valid_urls_are_kept(
    source: MongoSource, mongo_database: Products
) -> None:
    insert(
        mongo_database,
        document(_id="empty", product_images=[]),
        document(_id="absent", product_images=...),
        document(_id="mixed", product_images=["http://a", 5, "http://a", "http://b"]),
    )
    listing = source.listing("2026-01-02", "zara")
    assert [row.url for row in listing.rows] == ["http://a", "http://b"]
    assert {str(k): n for k, n in listing.report.counts.items()} == {
        "no_images": 2,
        "non_string_url": 1,
        "duplicate_url": 1,
    }
    assert listing.documents == 3


def test_dotted_paths_reach_into_sub_documents_and_lists(
    mongodb_uri: str, mongo_database: Products
) -> None:
    insert(
        mongo_database,
        {
            "_id": 1,
            "shop": {"name": "Zara"},
            "seen": {"at": NOON},
            "media": [{"url": "http://a"}, {"alt": "x"}, {"url": "http://b"}],
            "sku": "A/1",
        },
    )
    settings = SourceSettings.model_validate(
        {
            "database": mongo_database.name,
            "fields": {
                "retailer": "shop.name",
                "images": "media.url",
                "date": "seen.at",
                "product_id": "sku",
            },
        }
    )
    rows = MongoSource(mongodb_uri, settings, START).listing("2026-01-02", "zara").rows
    assert [(row.url, row.product_id, row.document_id) for row in rows] == [
        ("http://a", "A/1", "1"),
        ("http://b", "A/1", "1"),
    ]


def test_open_source_passes_the_start_date_of_the_settings(
    mongodb_uri: str, mongo_database: Products
) -> None:
    insert(mongo_database, document(scraped_at="2025-06-30"), document(scraped_at="2025-06-29"))
    settings = Settings.model_validate(
        {"start_date": "2025-06-30", "source": {"database": mongo_database.name}}
    )
    inventory = open_source(settings, lambda: mongodb_uri).inventory()
    assert inventory.documents == {("zara", "2025-06-30"): 1}
    assert inventory.report.counts == {Anomaly.BEFORE_START_DATE: 1}


def test_a_url_in_place_of_an_object_on_the_path_of_the_images_is_an_image(
    mongodb_uri: str, mongo_database: Products
) -> None:
    insert(
        mongo_database,
        document(_id="d1", media="http://a/url.jpg", sku="code 7"),
        document(_id="d2", media=["http://a/url.jpg", {"url": "http://b"}], sku=7),
        document(_id="d3", media=None, sku={"code": 0}),
    )
    settings = SourceSettings.model_validate(
        {
            "database": mongo_database.name,
            "fields": {"images": "media.url", "product_id": "sku.code"},
        }
    )
    listing = MongoSource(mongodb_uri, settings, START).listing("2026-01-02", "zara")
    assert [(row.url, row.product_id, row.document_id) for row in listing.rows] == [
        ("http://a/url.jpg", "d1", "d1"),
        ("http://a/url.jpg", "d2", "d2"),
        ("http://b", "d2", "d2"),
    ]
    assert listing.report.examples == [
        (Anomaly.NO_IMAGES, "d3", "the list of URLs is None"),
    ]


def test_a_sample_has_the_urls_of_the_newest_documents_and_fields_near_paths_that_find_nothing(
    mongodb_uri: str, mongo_database: Products
) -> None:
    insert(
        mongo_database,
        *(document(_id=number, media={"src": f"/{number}.jpg"}) for number in range(150)),
        document(_id=150, media={"src": None}),
    )
    settings = SourceSettings.model_validate(
        {
            "database": mongo_database.name,
            "query": {"_id": {"$ne": 149}},
            "base_url": {"zara": "https://zara", "mango": "https://mango"},
            "fields": {
                "images": ["media.src", "media.url", "pics"],
                "date": "seen",
                "product_id": "sku",
            },
        }
    )
    sample = MongoSource(mongodb_uri, settings, START).sample()
    assert sample.documents == 100
    assert sample.urls == [f"https://zara/{number}.jpg" for number in range(148, 49, -1)]
    names = "fields of the document: _id, product_retailer, product_images, scraped_at, media"
    assert sample.hints == {
        "images: media.url": "fields of media: src",
        "images: pics": names,
        "date: seen": names,
        "product_id: sku": names,
    }
    assert sample.report.counts == {Anomaly.NO_IMAGES: 1}


def test_the_plans_of_a_collection_with_a_collation_can_be_read(
    source: MongoSource, mongo_database: Products
) -> None:
    mongo_database.create_collection("products", collation={"locale": "en", "strength": 1})
    insert(mongo_database, document())
    source.create_indexes()
    assert source.unindexed().keys() <= {"survey"}


def test_a_partition_reads_only_the_fields_that_the_rows_need(
    mongodb_uri: str, mongo_database: Products
) -> None:
    insert(mongo_database, document(_id=1, sku="7", description="x" * 1000))
    fields = {"images": ["product_images.0", "og.image.url"], "product_id": "sku"}
    settings = SourceSettings.model_validate({"database": mongo_database.name, "fields": fields})
    source = MongoSource(mongodb_uri, settings, START)
    with source.client() as client:
        (place,) = source.places.existing(client)
        (found,) = place.open(client).aggregate(source._wanted_pipeline([{"_id": 1}]))
    assert {name: value for name, value in found.items() if not name.startswith("_imgassets")} == {
        "_id": 1,
        "sku": "7",
        "product_images": ["http://shop/a.jpg"],
    }


def test_without_a_product_id_the_document_id_is_used(
    mongodb_uri: str, mongo_database: Products
) -> None:
    insert(
        mongo_database,
        document(_id="d1", sku=0),
        document(_id="d2", sku=None),
        document(_id="d3"),
    )
    settings = SourceSettings.model_validate(
        {"database": mongo_database.name, "fields": {"product_id": "sku"}}
    )
    rows = MongoSource(mongodb_uri, settings, START).listing("2026-01-02", "zara").rows
    assert [(row.document_id, row.product_id) for row in rows] == [
        ("d1", "0"),
        ("d2", "d2"),
        ("d3", "d3"),
    ]


def test_two_documents_of_one_product_each_have_a_row_for_the_same_url(
    mongodb_uri: str, mongo_database: Products
) -> None:
    insert(mongo_database, document(_id="d1", sku="p"), document(_id="d2", sku="p"))
    settings = SourceSettings.model_validate(
        {"database": mongo_database.name, "fields": {"product_id": "sku"}}
    )
    source = MongoSource(mongodb_uri, settings, START)
    listing = source.listing("2026-01-02", "zara")
    assert [(row.document_id, row.product_id, row.url) for row in listing.rows] == [
        ("d1", "p", "http://shop/a.jpg"),
        ("d2", "p", "http://shop/a.jpg"),
    ]
    assert len({row.key for row in listing.rows}) == 2
    assert listing.report.counts == {}
    assert source.inventory().documents == {("zara", "2026-01-02"): 2}


def test_the_collection_in_the_settings_is_read(mongodb_uri: str, mongo_database: Products) -> None:
    insert(mongo_database, document(_id="products"))
    mongo_database["others"].insert_one(document(_id="others", product_retailer="Asos"))
    settings = SourceSettings(database=mongo_database.name, collection="others")
    assert MongoSource(mongodb_uri, settings, START).inventory().names == {"asos": "Asos"}


def test_the_query_in_the_settings_excludes_documents(
    mongodb_uri: str, mongo_database: Products
) -> None:
    insert(mongo_database, document(_id=1, kind="shoe"), document(_id=2, kind="bag"))
    settings = SourceSettings(database=mongo_database.name, query={"kind": "bag"})
    source = MongoSource(mongodb_uri, settings, START)
    assert [row.document_id for row in source.listing("2026-01-02", "zara").rows] == ["2"]
    assert source.inventory().documents == {("zara", "2026-01-02"): 1}


@pytest.mark.parametrize(
    "query",
    [
        "{scraped_at: {$gte: 2026-01-02}}",
        "{scraped_at: {$gte: 2026-01-02 00:00:00}}",
        "{scraped_at: {$gte: {$date: 2026-01-02}}}",
        "{scraped_at: {$gte: {$date: '2026-01-02T00:00:00Z'}}}",
        "{$or: [{_id: {$oid: 6957b3400000000000000000}}]}",
        "{name: {$regex: '^W', $options: i, $nin: [wide]}}",
    ],
)
def test_a_query_can_have_dates_of_yaml_and_extended_json(
    mongodb_uri: str, mongo_database: Products, query: str
) -> None:
    insert(
        mongo_database,
        document(_id=ObjectId("6957b3400000000000000000"), name="word"),
        document(scraped_at=NOON - dt.timedelta(days=1), name="wide"),
    )
    settings = SourceSettings(database=mongo_database.name, query=yaml.safe_load(query))
    inventory = MongoSource(mongodb_uri, settings, START).inventory()
    assert inventory.documents == {("zara", "2026-01-02"): 1}


def test_a_wrong_value_of_extended_json_in_a_query_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(SourceError, match=r"^source\.query: 'x' is not a valid ObjectId"):
        MongoSource("", SourceSettings(query={"_id": {"$oid": "x"}}), START)


def test_a_missing_tls_file_is_an_error_that_names_the_option() -> None:
    uri = "mongodb://127.0.0.1:9/?tls=true&tlsCAFile=/absent/ca.pem"
    with pytest.raises(SourceError) as caught:
        MongoSource(uri, SourceSettings(), START).inventory()
    assert str(caught.value) == (
        "the file /absent/ca.pem of tlsCAFile or tlsCertificateKeyFile in MONGODB_URI cannot be "
        "read: No such file or directory; correct the path"
    )


def test_an_invalid_query_raises_an_error_that_quotes_the_server(
    mongodb_uri: str, mongo_database: Products
) -> None:
    insert(mongo_database, document())
    settings = SourceSettings(database=mongo_database.name, query={"price": {"$above": 3}})
    with pytest.raises(SourceError, match=r"refused the query: .*\$above"):
        MongoSource(mongodb_uri, settings, START).inventory()


def test_documents_without_a_usable_retailer_are_counted(
    source: MongoSource, mongo_database: Products
) -> None:
    insert(
        mongo_database,
        document(_id="first", product_retailer=...),
        document(product_retailer=...),
        document(product_retailer=...),
        document(_id="truth", product_retailer=True),
        document(_id="symbols", product_retailer="?!"),
        document(),
    )
    inventory = source.inventory()
    assert counts(inventory) == {"no_retailer": 5}
    assert sorted(inventory.report.examples) == [
        (Anomaly.NO_RETAILER, "first", "the retailer is None"),
        (Anomaly.NO_RETAILER, "symbols", "the retailer is '?!'"),
        (Anomaly.NO_RETAILER, "truth", "the retailer is True"),
    ]
    assert inventory.documents == {("zara", "2026-01-02"): 1}


def test_a_retailer_that_left_the_source_has_an_empty_listing_with_a_note(
    source: MongoSource, mongo_database: Products
) -> None:
    insert(mongo_database, document(), document(product_retailer="Mango"))
    listing = source.listing("2026-01-02", "zarra")
    assert (len(listing.rows), listing.documents) == (0, 0)
    assert "'zarra'; retailers in the source: mango, zara;" in str(listing.note)


def test_an_empty_collection_is_an_error(source: MongoSource) -> None:
    with pytest.raises(SourceError, match=r"no document with a retailer.*source\.collection"):
        source.listing("2026-01-02", "zara")


def test_a_day_without_documents_of_a_known_retailer_is_an_empty_listing(
    source: MongoSource, mongo_database: Products
) -> None:
    insert(mongo_database, document())
    listing = source.listing("2026-01-05", "zara")
    assert (len(listing.rows), listing.documents, listing.report.counts) == (0, 0, {})


def test_a_missing_index_is_detected_created_and_used(
    source: MongoSource, mongo_database: Products
) -> None:
    assert source.unindexed() == {}  # the collection is empty
    insert(mongo_database, *(document(_id=number) for number in range(100, 150)))
    assert set(source.unindexed()) == {"partition", "retailers", "survey"}
    source.create_indexes()
    assert "product_retailer_1_scraped_at_1__id_1" in mongo_database["products"].index_information()
    assert source.unindexed() == {}
    assert len(source.listing("2026-01-02", "zara").rows) == 50


@pytest.mark.parametrize(
    "options",
    [
        {"partialFilterExpression": {"product_retailer": "Zara"}},
        {"sparse": True},
        {"hidden": True},
    ],
)
def test_an_index_that_leaves_documents_out_does_not_change_the_survey(
    source: MongoSource, mongo_database: Products, options: dict[str, Any]
) -> None:
    insert(mongo_database, document(), document(product_retailer="Mango", scraped_at=...))
    mongo_database["products"].create_index(source.index_keys, **options)
    assert set(source.inventory().names) == {"zara", "mango"}
    assert "survey" in source.unindexed()


def test_the_poll_of_a_modification_date_needs_an_index_of_its_own(
    mongodb_uri: str, mongo_database: Products
) -> None:
    insert(mongo_database, document())
    settings = SourceSettings.model_validate(
        {"database": mongo_database.name, "fields": {"updated": "updated"}}
    )
    source = MongoSource(mongodb_uri, settings, START)
    assert "sensor" in source.unindexed()
    mongo_database["products"].create_index("updated")
    assert "sensor" not in source.unindexed()


def test_the_index_contains_each_field_name_once() -> None:
    fields = {"retailer": "shop.name", "date": "_id"}
    source = MongoSource("", SourceSettings.model_validate({"fields": fields}), START)
    assert source.index_keys == [("shop.name", 1), ("_id", 1)]


def test_the_error_for_an_unreachable_server_does_not_contain_the_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("imgassets.sources.mongodb.SERVER_SELECTION_MS", 300)
    uri = "mongodb://scraper:s3cr%2Ft@127.0.0.1:9/?authSource=admin"
    started = time.monotonic()
    with pytest.raises(SourceError) as caught:
        MongoSource(uri, SourceSettings(), START).inventory()
    message = str(caught.value)
    assert time.monotonic() - started < 20  # the driver's own limit is 30 s
    assert re.fullmatch(
        r"MongoDB at mongodb://127\.0\.0\.1:9 cannot be reached: "
        r"127\.0\.0\.1:9: \[Errno \d+\] Connection refused; "
        r"check that it is running and that MONGODB_URI is correct",
        message,
    )


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("mongodb://", "Must provide at least one hostname or IP"),
        ("mongodb://a:b:c/", "Reserved characters such as ':' must be escaped"),
        ("http://x", "Invalid URI scheme"),
        ("mongodb://a,b/?directConnection=true", "Cannot specify multiple hosts"),
        ("mongodb://scraper:12/s3c$ret@host/", 'Bad database name "***@host/"'),
    ],
)
def test_the_error_for_an_invalid_address_does_not_contain_the_password(
    uri: str, reason: str
) -> None:
    with pytest.raises(SourceError) as caught:
        MongoSource(uri, SourceSettings(), START).inventory()
    message = str(caught.value)
    assert message.startswith(f"MONGODB_URI is not a valid MongoDB address: {reason}")
    assert message.endswith("; it must look like mongodb://user:password@host:27017/")
    assert caught.value.__suppress_context__


def test_the_error_for_a_wrong_password_does_not_contain_it(mongodb_uri: str) -> None:
    uri = mongodb_uri.replace("mongodb://", "mongodb://scraper:s3cret@")
    with pytest.raises(SourceError) as caught:
        MongoSource(uri, SourceSettings(), START).inventory()
    assert "Authentication failed" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.fixture
def address_with_password(mongodb_uri: str, mongo_database: Products) -> Iterator[str]:
    """An address with a user, and a password that contains reserved characters."""
    mongo_database.command({"createUser": "scraper", "pwd": "s3/cr t@", "roles": []})
    address = mongodb_uri.replace("mongodb://", "mongodb://scraper:s3%2Fcr+t%40@")
    yield f"{address}&authSource={mongo_database.name}"
    mongo_database.command("dropUser", "scraper")


@pytest.mark.parametrize("secret", ["scraper:s3%2Fcr+t%40", "s3%2Fcr+t%40", "s3/cr t@"])
def test_a_password_in_an_error_of_the_server_is_masked_in_every_encoding(
    address_with_password: str, mongo_database: Products, secret: str
) -> None:
    query = {"$expr": {f"$no {secret}": 1}}  # the server quotes it in its error
    settings = SourceSettings(database=mongo_database.name, query=query)
    host = mask_uri(address_with_password)
    with pytest.raises(SourceError) as caught:
        MongoSource(address_with_password, settings, START).inventory()
    assert str(caught.value) == (
        f"MongoDB at {host} refused the query: Unrecognized expression '$no ***'; "
        "check source.query, and that the user in MONGODB_URI may read the collection"
    )


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://scraper:s3%2Fcr+t%40@127.0.0.1:9/",
        "mongodb://scraper:s3%2Fcr+t%40@127.0.0.1:9/?appName=a@b",
        "mongodb://scraper:s3%2Fcr+t%40@127.0.0.1:9/?appName=http://a",
    ],
)
def test_a_password_in_an_error_of_the_driver_is_mask_uri(uri: str) -> None:
    secrets = ("scraper:s3%2Fcr+t%40", "s3%2Fcr+t%40", "s3/cr t@")
    source = MongoSource(uri, SourceSettings(), START)
    with pytest.raises(SourceError) as caught, source.client():
        raise AutoReconnect(f"no {', '.join(secrets)}, Timeout: 8s, Topology: {uri}")
    assert "cannot be reached: no ***, ***, ***; check that it is running" in str(caught.value)
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None


def test_an_error_of_the_driver_is_reported_with_its_message(mongodb_uri: str) -> None:
    source = MongoSource(mongodb_uri, SourceSettings(), START)
    with pytest.raises(SourceError) as caught, source.client():
        raise OperationFailure("Unsupported mechanism")
    assert str(caught.value) == (
        f"MongoDB at {mask_uri(mongodb_uri)} refused the query: Unsupported mechanism; "
        "check source.query, and that the user in MONGODB_URI may read the collection"
    )


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (
            "mongodb+srv://user:p%40ss@cluster0.example.net/catalogue?retryWrites=true",
            "mongodb+srv://cluster0.example.net",
        ),
        ("mongodb://a:1,b:2/?replicaSet=rs", "mongodb://a:1,b:2"),
        ("mongodb://user@host?w=1", "mongodb://host"),
        ("mongodb://u:p@ss/word@host:1/db", "mongodb://host:1"),
        ("mongodb://", "the address in MONGODB_URI"),
        ("user:password", "the address in MONGODB_URI"),
        ("", "the address in MONGODB_URI"),
    ],
)
def test_a_masked_address_has_no_user_password_or_options(uri: str, shown: str) -> None:
    assert mask_uri(uri) == shown


def test_the_error_for_an_undecodable_document_says_what_to_do(
    source: MongoSource, mongo_database: Products
) -> None:
    broken = bson.encode(document(_id=1)).replace(b"http", b"ht\xfep")
    mongo_database.get_collection(
        "products", codec_options=CodecOptions(document_class=RawBSONDocument)
    ).insert_one(RawBSONDocument(broken))
    with pytest.raises(SourceError) as caught:
        source.listing("2026-01-02", "zara")
    message = str(caught.value)
    assert message.startswith(f"a document of {mongo_database.name}.products cannot be decoded: ")
    assert message.endswith("; repair it, or exclude it with source.query")
