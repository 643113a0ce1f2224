"""Tests of the day of a document: all spellings, by every part that asks for it."""

from __future__ import annotations

import datetime as dt
import random
import re
import time
from typing import Any

import pytest
from bson import Code, DatetimeMS, Decimal128, Int64, ObjectId, Timestamp
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pymongo.database import Database

from imgassets.settings import Settings, SourceSettings
from imgassets.sources.changes import scan
from imgassets.sources.dates import epoch_texts, invalid_date_hint, parse_day, text_patterns
from imgassets.sources.listing import Anomaly
from imgassets.sources.mongo_changes import open_changes
from imgassets.sources.mongo_dates import spelled
from imgassets.sources.mongodb import MongoSource
from imgassets.sources.staleness import stale_retailers
from imgassets.sources.table import TableSource

Products = Database[dict[str, Any]]
START = dt.date(2026, 1, 1)
SECONDS = 1_767_355_200  # 2026-01-02 12:00 UTC
ID = ObjectId("6957b3400000000000000000")  # created at that time

# Days are in January 2026. A value whose day is None is no date, or an ambiguous one.
TEXTS: list[tuple[object, int | None]] = [
    ("2026-01-02", 2),
    ("2026-1-2", 2),
    ("2026-01-02T23:59:59.123456789Z", 2),
    ("2026-01-02t23:59z", 2),
    ("2026-01-02 10", None),
    ("2026-01-02T10", 2),
    ("2026-01-02 23:59:59,5", 2),
    ("2026-01-02T24:00:00", None),
    ("2026-01-02T23:60:00", None),
    ("2026-01-02T00:30:00+01:00", 1),
    ("2026-01-02T23:30:00-0800", 3),
    ("2026-01-02T23:30:00-00:30", 3),
    ("2026-01-02T23:29:00-00:30", 2),
    ("2026-01-03T05:15:00+05:30", 2),
    ("2026-01-03T13:59:59+14:00", 2),
    ("2026-01-03T13:59:59+15:00", None),
    ("2026-01-02T20:00:00-05[America/New_York]", 3),
    ("2026-01-02 23:30:00 -0100 UTC", 3),
    ("20260102T235959Z", 2),
    ("20260102T010000+0200", 1),
    ("20260102", 2),
    ("20260102235959", 2),
    ("20260102995959", None),
    ("2026/01/02", 2),
    ("2026/1/2 10:00", 2),
    ("2026.01.02", 2),
    ("2026-01/02", None),
    (" 2026-01-02\n", 2),
    ("\t Fri, 02 Jan 2026 10:00:00 GMT", 2),
    ("2026-01-32", None),
    ("2026-W01-5", None),
    ("2026-01", None),
    ("Fri, 02 Jan 2026 10:00:00 GMT", 2),
    ("Fri, 2 Jan 2026 23:30:00 -0800", 3),
    ("Fri, 02 Jan 2026 23:30:00 EST", 3),
    ("Sat, 02 Jan 2026 10:00:00 GMT", None),
    ("Friday, January 2nd, 2026 at 3:05 PM", 2),
    ("Fri Jan 02 2026 00:30:00 GMT+0100 (Central European Standard Time)", 1),
    ("Fri Jan  2 10:00:00 2026", 2),
    ("Fri Jan  2 10:00:00 UTC 2026", 2),
    ("Jan 2, 2026", 2),
    ("Jan. 02, 2026 11:30 p.m.", 2),
    ("JAN 2 2026", 2),
    ("January 2, 2026 11:30 PM -0800", 3),
    ("2 Jan 2026", 2),
    ("02-Jan-2026 12:00 AM +0100", 1),
    ("2 january 2026", 2),
    ("jAN 2, 2026", None),
    ("Jan 2, 26", None),
    ("2 Januar 2026", None),
    (str(SECONDS), 2),
    (f"{SECONDS}.75", 2),
    (f"{SECONDS}000", 2),
    (f"{SECONDS}000000", 2),
    (f"{SECONDS}000000000", 2),
    (f"{SECONDS}00000", None),
    ("02/Jan/2026", 2),
    ("2/January/2026 23:30:00 -0800", 3),
    ("04/03/2026", None),
    ("13/01/2026", None),
    ("2/1/26", None),
    ("yesterday", None),
    ("", None),
    ("2026-01-02" + " " * 100, None),
]
VALUES: list[tuple[object, int | None]] = [
    (dt.datetime(2026, 1, 2, 23, 59, 59, 999_000, tzinfo=dt.UTC), 2),
    (SECONDS, 2),
    (SECONDS + 0.25, 2),
    (Int64(SECONDS * 1000), 2),
    (Decimal128(str(SECONDS)), 2),
    (SECONDS * 1000.0, 2),
    (Int64(SECONDS * 10**6 + 43_199_999_999), 2),
    (Int64(SECONDS * 10**9 + 43_200 * 10**9), 3),
    (SECONDS * 1e9, 2),
    (2**63 - 1, None),
    (46_024, None),
    (20260102, 2),
    (20260102235959, 2),
    (20260132, None),
    (20260102.5, None),
    (2026, None),
    (-SECONDS, None),
    (float("nan"), None),
    (float("inf"), None),
    (True, None),
    ({"$date": "2026-01-02T23:59:59.999Z"}, 2),
    ({"$date": "2026-01-02T23:30:00-0100"}, 3),
    ({"$date": "2026-01-03T00:30:00+01:00"}, 2),
    ({"$date": " 2026-01-02"}, None),
    ({"$date": "Jan 2, 2026"}, None),
    ({"$date": SECONDS * 1000}, 2),
    ({"$date": Int64(SECONDS * 1000)}, 2),
    ({"$date": {"$numberLong": f"{SECONDS}000"}}, 2),
    ({"$date": {"$numberLong": f"{SECONDS}"}}, None),
    ({"$date": SECONDS}, None),
    ({"$date": None}, None),
    ({"$date": "2026-01-02", "zone": "UTC"}, None),
    ({"date": "2026-01-02"}, None),
    (["2026-01-02"], 2),
    (["Fri, 02 Jan 2026 10:00:00 GMT"], 2),
    ([dt.datetime(2026, 1, 2, tzinfo=dt.UTC)], 2),
    ([SECONDS], 2),
    ([{"$date": "2026-01-02"}], 2),
    (["2026-01-02", "2026-01-02"], None),
    ([["2026-01-02"]], None),
    ([None], None),
    ([], None),
    (b"2026-01-02", None),
]
BSON_VALUES: list[tuple[object, int | None]] = [
    (ID, 2),
    ([ID], 2),
    (Timestamp(SECONDS, 1), 2),
    ([Timestamp(SECONDS, 1)], 2),
    ([Decimal128(str(SECONDS))], 2),
    (Code("2026-01-02"), None),
    (Decimal128("sNaN"), None),
]
FORMATTED: list[tuple[object, int | None]] = [
    ("02/01/2026", 2),
    ("2/1/2026 10:00", 2),
    ("02/01/2026 23:30:00 -0800", 3),
    ("01/13/2026", None),
    ("2026-01-02", 2),
    ("Jan 2, 2026", 2),
    (str(SECONDS), 2),
]
DAYS = [dt.date(2026, 1, number) for number in (1, 2, 3, 4)]


def expected(number: int | None) -> dt.date | None:
    return None if number is None else dt.date(2026, 1, number)


def listed_days(
    uri: str, database: Products, cases: list[tuple[object, int | None]], **more: Any
) -> list[dt.date | None]:
    """The days in whose listing a document of each value is, if all are of one retailer."""
    database["one"].create_index([("product_retailer", 1), ("scraped_at", 1), ("_id", 1)])
    settings = SourceSettings.model_validate(
        {"database": database.name, "collection": "one", **more}
    )
    source = MongoSource(uri, settings, START)
    documents: list[dict[str, Any]] = [
        {"_id": str(number), "product_retailer": "s", "scraped_at": value, "product_images": "u"}
        for number, (value, _) in enumerate(cases)
    ]
    plain = [one for one in documents if not isinstance(one["scraped_at"], list)]
    lists = [one for one in documents if one not in plain]
    rounds: list[dict[str, dt.date]] = []
    # A list makes the index multikey, which MongoDB reads in other ways.
    for added in (plain, [*lists, {"_id": "list", "scraped_at": []}]):
        database["one"].insert_many(added)
        listed = [
            (row.document_id, day)
            for day in DAYS
            for row in source.listing(day.isoformat(), "s").rows
        ]
        assert len(listed) == len(dict(listed))
        rounds.append(dict(listed))
    of_plain = {one["_id"] for one in plain}
    assert rounds[0] == {name: day for name, day in rounds[1].items() if name in of_plain}
    return [rounds[1].get(str(number)) for number in range(len(cases))]


def agree(
    uri: str, database: Products, cases: list[tuple[object, int | None]], **more: Any
) -> None:
    """Insert a document of a retailer of its own per value, and ask everybody for its day."""
    settings = Settings.model_validate(
        {
            "source": {"database": database.name, **more},
            "sensor": {"method": "poll"},
            "start_date": START,
        }
    )
    products = database["products"]
    products.create_index([("product_retailer", 1), ("scraped_at", 1), ("_id", 1)])
    stream = open_changes(
        settings.model_copy(
            update={"sensor": settings.sensor.model_copy(update={"method": "stream"})}
        ),
        uri,
    )
    poll = open_changes(settings, uri)
    cursors = [changes.initial_cursor() for changes in (stream, poll)]
    # The poll sees new ObjectIds only; those without a date are about the creation time.
    products.insert_many(
        {"product_retailer": f"s{number}", "scraped_at": value, "product_images": ["http://a"]}
        for number, (value, _) in enumerate(cases)
    )
    days = {f"s{number}": expected(day) for number, (_, day) in enumerate(cases)}
    dated = {(slug, day.isoformat()) for slug, day in days.items() if day}
    source = MongoSource(uri, settings.source, START)

    inventory = source.inventory()
    assert inventory.documents == dict.fromkeys(dated, 1)
    assert inventory.report.counts == {Anomaly.INVALID_DATE: len(cases) - len(dated)}
    assert listed_days(uri, database, cases, **more) == [expected(day) for _, day in cases]
    for changes, cursor in zip((stream, poll), cursors, strict=True):
        result = scan(cursor, changes.pages, now=time.time(), out_of_time=lambda: False)
        assert set(result.cursor.pending) == {f"{day}|{slug}" for slug, day in dated}
        assert f"{len(cases) - len(dated)} invalid_date" in result.notes[0]
    stale = stale_retailers(inventory, [], lambda _: 0, dt.date(2026, 6, 1))
    newest = {retailer.slug: retailer.newest for retailer in stale}
    assert newest == {slug: day and day.isoformat() for slug, day in days.items()}


@pytest.mark.parametrize(("value", "day"), [*TEXTS, *VALUES[:-1]])
def test_the_day_of_a_value_is_in_utc_or_it_is_refused(value: object, day: int | None) -> None:
    if not isinstance(value, Decimal128):
        assert parse_day(value) == expected(day)


def test_survey_listing_sensor_and_freshness_agree_on_the_day_of_every_value(
    mongodb_uri: str, mongo_database: Products
) -> None:
    agree(mongodb_uri, mongo_database, [*TEXTS, *VALUES, *BSON_VALUES])


@pytest.mark.parametrize(
    ("date_format", "more"),
    [
        ("%d/%m/%Y", [("02/01/2026 at 10:00", 2), ("02/01/2026 10:00 nonsense", None)]),
        ("%d/%m/%Y %H:%M", [("2/1/2026 9:00", 2), ("02/01/2026 99:00", None)]),
        ("%d/%m/%Y %H:%M:%S %z", [("2/1/2026 23:30:00 -0800", 3), ("1/1/2026 01:00:00 Z", 1)]),
        ("%H:%M %d/%m/%Y", [("09:00 02/01/2026", 2)]),
        ("%b %d. %y", [("Jan 2. 26", 2), ("jAn 2. 26", None), ("JAN  02. 26", 2)]),
    ],
)
def test_a_format_in_the_settings_is_tried_first_in_all_places(
    mongodb_uri: str, mongo_database: Products, date_format: str, more: list[Any]
) -> None:
    usual = FORMATTED if date_format == "%d/%m/%Y" else [FORMATTED[3], *FORMATTED[4:]]
    agree(mongodb_uri, mongo_database, [*usual, *more], date_format=date_format)


def test_records_of_a_table_have_the_same_days() -> None:
    cases = [*TEXTS, *((value, day) for value, day in VALUES if not isinstance(value, Decimal128))]
    records = [
        {"url": "http://a", "retailer": f"s{number}", "date": value}
        for number, (value, _) in enumerate(cases)
        if value != ""
    ]
    days = {f"s{number}": expected(day) for number, (_, day) in enumerate(cases)}
    inventory = TableSource(lambda: records, SourceSettings(), START).inventory()
    assert set(inventory.documents) == {(slug, str(day)) for slug, day in days.items() if day}
    formatted = TableSource(
        lambda: [{"url": "http://a", "retailer": "s", "date": "2/1/2026"}],
        SourceSettings(date_format="%d/%m/%Y"),
        START,
    )
    assert set(formatted.inventory().documents) == {("s", "2026-01-02")}


SPELLINGS = [
    "%Y-%m-%dT%H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y%m%dT%H%M%S",
    "%a, %d %b %Y %H:%M:%S",
    "%A %B %d %Y %I:%M %p",
    "%B %d, %Y at %H:%M:%S.%f",
    "%d-%b-%Y %H:%M",
]
ZONES = ["", "Z", "+00:00", " GMT", "+0530", "-11:00", "+14:00", " -0800"]
MOMENTS = st.datetimes(dt.datetime(2001, 9, 11), dt.datetime(2099, 1, 1))


@given(MOMENTS, st.sampled_from(SPELLINGS), st.sampled_from(ZONES), st.booleans())
def test_the_patterns_of_a_day_match_every_text_of_it(
    moment: dt.datetime, spelling: str, zone: str, padded: bool
) -> None:
    text = moment.strftime(spelling)
    if not padded and "T%H%M" not in spelling:
        text = re.sub(r"(?<![\d:.])0(?=[1-9])", "", text)
    offset = re.sub(r"[^0-9+-]", "", zone) or "+0000"
    shift = dt.timedelta(hours=int(offset[1:3]), minutes=int(offset[3:]))
    day = (moment - shift if offset[0] == "+" else moment + shift).date()
    assert parse_day(text + zone) == day
    assert any(re.match(pattern, text + zone, re.ASCII) for pattern in text_patterns(day))


@given(st.integers(1_000_100_000, 4_000_000_000))
def test_the_bounds_of_a_day_contain_its_texts_in_epoch_seconds(seconds: int) -> None:
    for text in (str(seconds), f"{seconds}999", f"{seconds}.5"):
        day = dt.datetime.fromtimestamp(seconds, dt.UTC).date()
        low, high = epoch_texts(day)
        assert parse_day(text) == day
        assert low <= text < high


def damaged_texts(number: int) -> list[str]:
    """Texts like dates with up to three characters inserted, removed or replaced."""
    rng = random.Random(number)
    spellings = [text for text, day in TEXTS if day is not None]
    made = []
    for _ in range(number):
        text = [*str(rng.choice(spellings))]
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(text))
            text[at : at + rng.randrange(2)] = rng.choice(["", *"0129-+:T /.,ZPMamp()Jan\n\t"])
        made.append("".join(text) or "-")
    return made


@pytest.mark.parametrize("date_format", [None, "%d/%m/%Y"])
def test_survey_and_index_agree_with_the_definition_on_damaged_texts(
    mongodb_uri: str, mongo_database: Products, date_format: str | None
) -> None:
    texts = damaged_texts(3000)
    days = {number: parse_day(text, date_format) for number, text in enumerate(texts)}
    products = mongo_database["products"]
    products.insert_many(
        {"_id": number, "product_retailer": "s", "scraped_at": text}
        for number, text in enumerate(texts)
    )
    settings = SourceSettings(database=mongo_database.name, date_format=date_format)
    source = MongoSource(mongodb_uri, settings, START)
    keys = products.aggregate([{"$project": {"key": source.day_key}}])
    surveyed = {found["_id"]: source.document_day(found["key"]) for found in keys}
    assert surveyed == {number: day or Anomaly.INVALID_DATE for number, day in days.items()}
    for day in DAYS:
        filters = spelled("scraped_at", day, date_format)
        found = {one["_id"] for one in products.find({"$or": filters}, {"_id": 1})}
        assert {number for number, of in days.items() if of == day} <= found


def test_dates_outside_the_range_of_python_are_before_or_after_all_partitions(
    mongodb_uri: str, mongo_database: Products
) -> None:
    mongo_database["products"].insert_many(
        {"product_retailer": "Zara", "scraped_at": DatetimeMS(milliseconds)}
        for milliseconds in (-(2**60), 2**60)
    )
    settings = SourceSettings(database=mongo_database.name)
    report = MongoSource(mongodb_uri, settings, START).inventory().report
    assert report.counts == {Anomaly.BEFORE_START_DATE: 1, Anomaly.IN_FUTURE: 1}


@pytest.mark.parametrize("value", ["04/03/2026", "4-3-26 10:00", " 04.03.2026"])
def test_the_hint_for_an_ambiguous_date_names_the_setting(value: str) -> None:
    assert "name its format in source.date_format, for example '%d/%m/%Y'" in (
        invalid_date_hint(value)
    )
    assert "write dates as ISO 8601" in invalid_date_hint("yesterday")


@pytest.mark.parametrize("date_format", ["%d/%m", "%H:%M", "", "%Q %d/%m/%Y", "%d/%m/%Y %"])
def test_a_format_that_does_not_name_a_day_is_refused(date_format: str) -> None:
    with pytest.raises(ValidationError, match="input should"):
        SourceSettings(date_format=date_format)


def documents(spelling: str, number: int, days: int = 10) -> list[dict[str, Any]]:
    """So many documents a day and retailer, whose dates have one spelling."""
    made = []
    for index in range(number * days * 2):
        moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(
            days=index % days, minutes=index * 37 % 1440
        )
        local = moment.astimezone(dt.timezone(dt.timedelta(hours=9)))
        date: object = {
            "date": moment,
            "iso": f"{moment:%Y-%m-%dT%H:%M:%S}",
            "offset": local.isoformat(),
            "rfc": f"{moment:%a, %d %b %Y %H:%M:%S} GMT",
            "slash": f"{moment:%Y/%m/%d}",
            "month": f"{moment:%b} {moment.day}, {moment.year}",
            "epoch": moment.timestamp(),
            "epoch text": str(int(moment.timestamp() * 1000)),
            "object": {"$date": f"{moment:%Y-%m-%dT%H:%M:%S}.000Z"},
            "format": f"{moment:%d/%m/%Y %H:%M:%S}",
            "missing": None,
        }[spelling]
        id_ = ObjectId(ObjectId.from_datetime(moment).binary[:4] + index.to_bytes(8))
        made.append(
            {
                "_id": id_,
                "product_retailer": ("Zara", "Mango")[index // days % 2],
                "scraped_at": date,
                "product_images": [f"http://shop/{index}"],
            }
        )
    return made


@pytest.mark.parametrize(
    "spelling",
    [
        *("date", "iso", "offset", "rfc", "slash", "month", "epoch", "epoch text", "object"),
        *("format", "missing"),
    ],
)
def test_a_listing_reads_the_documents_that_it_returns_and_a_survey_reads_the_index_only(
    mongodb_uri: str, mongo_database: Products, spelling: str
) -> None:
    mongo_database["products"].insert_many(documents(spelling, number=20))
    date_format = "%d/%m/%Y" if spelling == "format" else None
    settings = SourceSettings(database=mongo_database.name, date_format=date_format)
    source = MongoSource(mongodb_uri, settings, START)
    source.create_indexes()
    mongo_database.command("profile", 2)
    profile = mongo_database["system.profile"]
    ours = {"ns": f"{mongo_database.name}.products", "docsExamined": {"$exists": True}}
    assert source.listing("2026-01-05", "zara").documents == 20
    examined = [entry["docsExamined"] for entry in profile.find(ours)]
    assert len(examined) >= 4
    assert sum(examined) <= 1.1 * 20
    before = profile.count_documents(ours)
    assert sum(source.inventory().documents.values()) == 400
    surveyed = [entry["docsExamined"] for entry in profile.find(ours)][before:]
    assert surveyed
    assert sum(surveyed) == 0
