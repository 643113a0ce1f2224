"""Product documents in a real MongoDB."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from bson import DatetimeMS, ObjectId
from pymongo.database import Database

from imgassets.settings import SourceSettings
from imgassets.sources.listing import SourceError, Survey
from imgassets.sources.mongodb import MongoSource, masked

START = dt.date(2026, 1, 1)
NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
Products = Database[dict[str, Any]]


@pytest.fixture
def source(mongodb_uri: str, mongo_database: Products) -> MongoSource:
    return MongoSource(mongodb_uri, SourceSettings(database=mongo_database.name), START)


def document(**values: Any) -> dict[str, Any]:
    """A document as scrapers write it; a value of None leaves its field out."""
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


def counts(survey: Survey) -> dict[str, int]:
    return {str(oddity): count for oddity, count in survey.account.counts.items()}


def test_a_partition_has_the_urls_of_its_day_and_retailer_alone(
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


def test_without_a_date_field_the_creation_time_of_the_object_id_holds(
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


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2026-01-02", "2026-01-02"),
        ("2026-01-02T23:59:59Z", "2026-01-02"),
        ("2026-01-02T23:59:59.123456", "2026-01-02"),
        ("2026-01-03T01:00:00+02:00", "2026-01-02"),
        ("2026-01-01T20:00:00-0800", "2026-01-02"),
    ],
)
def test_iso_texts_count_as_dates_in_utc(
    source: MongoSource, mongo_database: Products, text: str, day: str
) -> None:
    insert(mongo_database, document(_id="d", scraped_at=text))
    assert [row.document_id for row in source.listing(day, "zara").rows] == ["d"]
    assert source.listing("2026-01-03", "zara").rows == []
    assert source.survey().documents == {("zara", day): 1}


def test_documents_that_have_no_partition_are_counted_by_reason(
    source: MongoSource, mongo_database: Products
) -> None:
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=2)
    insert(
        mongo_database,
        document(_id="good"),
        document(_id="no date", scraped_at=...),
        document(_id="null date", scraped_at=None),
        document(_id="number", scraped_at=1767352000),
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
    assert {str(k): n for k, n in listing.account.counts.items()} == reasons
    assert [row.document_id for row in listing.rows] == ["good"]
    survey = source.survey()
    assert counts(survey) == {**reasons, "invalid_date": 3}
    assert survey.documents == {("zara", "2026-01-02"): 1}


def test_odd_lists_are_counted_and_the_rest_of_them_kept(
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
    assert {str(k): n for k, n in listing.account.counts.items()} == {
        "no_images": 2,
        "non_string_url": 1,
        "duplicate_url": 1,
    }
    assert listing.documents == 3


def test_fields_are_found_by_dotted_paths_also_through_lists(
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


def test_the_extra_filter_leaves_documents_out(mongodb_uri: str, mongo_database: Products) -> None:
    insert(mongo_database, document(_id=1, kind="shoe"), document(_id=2, kind="bag"))
    settings = SourceSettings(database=mongo_database.name, query={"kind": "bag"})
    source = MongoSource(mongodb_uri, settings, START)
    assert [row.document_id for row in source.listing("2026-01-02", "zara").rows] == ["2"]
    assert source.survey().documents == {("zara", "2026-01-02"): 1}


def test_a_broken_filter_is_told_in_one_sentence(
    mongodb_uri: str, mongo_database: Products
) -> None:
    insert(mongo_database, document())
    settings = SourceSettings(database=mongo_database.name, query={"price": {"$above": 3}})
    with pytest.raises(SourceError, match=r"refused the query: .*\$above"):
        MongoSource(mongodb_uri, settings, START).survey()


def test_two_names_on_one_slug_are_an_error_that_names_both_and_others_go_on(
    source: MongoSource, mongo_database: Products
) -> None:
    insert(
        mongo_database,
        document(product_retailer="Zara"),
        document(product_retailer="ZARA "),
        document(product_retailer="Mango"),
    )
    with pytest.raises(SourceError, match="retailers 'ZARA ' and 'Zara' both become"):
        source.listing("2026-01-02", "zara")
    assert len(source.listing("2026-01-02", "mango").rows) == 1
    survey = source.survey()
    assert survey.conflicts == {"zara": ["ZARA ", "Zara"]}
    assert survey.names == {"mango": "Mango"}


def test_documents_without_a_usable_retailer_are_counted(
    source: MongoSource, mongo_database: Products
) -> None:
    insert(
        mongo_database,
        document(product_retailer=...),
        document(product_retailer=7),
        document(product_retailer="?!"),
        document(),
    )
    assert counts(source.survey()) == {"no_retailer": 3}


def test_an_unknown_retailer_is_told_with_the_ones_that_exist(
    source: MongoSource, mongo_database: Products
) -> None:
    insert(mongo_database, document(), document(product_retailer="Mango"))
    with pytest.raises(SourceError, match="no document of retailer 'zarra'; it has: mango, zara"):
        source.listing("2026-01-02", "zarra")


def test_a_known_retailer_without_documents_that_day_is_an_empty_listing(
    source: MongoSource, mongo_database: Products
) -> None:
    insert(mongo_database, document())
    listing = source.listing("2026-01-05", "zara")
    assert (listing.rows, listing.documents, listing.account.counts) == ([], 0, {})


def test_the_index_is_missed_and_used(source: MongoSource, mongo_database: Products) -> None:
    assert source.has_index()  # of an empty collection nothing can be said
    insert(mongo_database, *(document(_id=number) for number in range(50)))
    assert not source.has_index()
    assert source.create_index() == "product_retailer_1_scraped_at_1__id_1"
    assert source.has_index()
    assert len(source.listing("2026-01-02", "zara").rows) == 50


def test_a_server_that_is_away_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("imgassets.sources.mongodb.SERVER_SELECTION_MS", 300)
    uri = "mongodb://scraper:s3cr%2Ft@127.0.0.1:9/?authSource=admin"
    with pytest.raises(SourceError) as caught:
        MongoSource(uri, SourceSettings(), START).survey()
    told = str(caught.value)
    assert told.startswith("MongoDB at mongodb://127.0.0.1:9 cannot be reached: ")
    assert "MONGODB_URI is right" in told
    assert "s3cr" not in told
    assert "scraper" not in told


@pytest.mark.parametrize("uri", ["mongodb://", "mongodb://a:b:c/", "http://x"])
def test_an_address_that_is_none_is_told(uri: str) -> None:
    with pytest.raises(SourceError, match="MONGODB_URI is no address of a MongoDB"):
        MongoSource(uri, SourceSettings(), START).survey()


def test_a_wrong_password_is_told_without_it(mongodb_uri: str) -> None:
    uri = mongodb_uri.replace("mongodb://", "mongodb://scraper:s3cret@")
    with pytest.raises(SourceError) as caught:
        MongoSource(uri, SourceSettings(), START).survey()
    assert "Authentication failed" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_an_address_is_shown_without_user_password_and_options() -> None:
    uri = "mongodb+srv://user:p%40ss@cluster0.example.net/catalogue?retryWrites=true"
    assert masked(uri) == "mongodb+srv://cluster0.example.net"


def test_one_of_two_names_on_one_slug_can_be_left_out_with_a_query(
    mongodb_uri: str, mongo_database: Products
) -> None:
    insert(mongo_database, document(), document(product_retailer="ZARA"))
    query = {"product_retailer": {"$ne": "ZARA"}}
    settings = SourceSettings(database=mongo_database.name, query=query)
    listing = MongoSource(mongodb_uri, settings, START).listing("2026-01-02", "zara")
    assert listing.documents == 1
