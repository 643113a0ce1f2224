"""Tests of change stream and poll, with a real MongoDB."""

from __future__ import annotations

import datetime as dt
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pymongo
import pytest
from bson import DatetimeMS, ObjectId, json_util
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import PyMongoError

from imgassets.demo import mongod_program
from imgassets.errors import SourceError
from imgassets.settings import Settings, SourceSettings
from imgassets.sources import mongo_changes, mongodb
from imgassets.sources.changes import (
    Cursor,
    PendingPartition,
    due_partitions,
    remove_requested,
    run_key,
    scan,
)
from imgassets.sources.listing import today
from imgassets.sources.mongo_changes import MongoChanges, open_changes
from imgassets.sources.mongodb import MongoSource

NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
Products = Database[dict[str, Any]]
BOTH = pytest.mark.parametrize("method", ["stream", "poll"])


@dataclass
class Follower:
    """Scans a collection repeatedly, as the sensor does, without a settle time."""

    uri: str
    database: str
    method: str = "auto"
    source: dict[str, Any] = field(default_factory=dict)
    sensor: dict[str, Any] = field(default_factory=dict)
    cursor: Cursor | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(
            {
                "source": {"database": self.database, **self.source},
                "sensor": {"method": self.method, "settle_s": 0, **self.sensor},
            }
        )

    @property
    def changes(self) -> MongoChanges:
        return open_changes(self.settings, self.uri)

    def start(self) -> Follower:
        self.cursor = self.changes.initial_cursor()
        return self

    def due(self, *, keep: bool = True) -> dict[str, PendingPartition]:
        """The partitions that one scan requests.

        Args:
            keep: Whether to keep the new cursor; False simulates a crash before it is stored.
        """
        assert self.cursor is not None
        now = time.time()
        with self.changes.time_limit():
            result = scan(self.cursor, self.changes.pages, now=now, out_of_time=lambda: False)
        due = due_partitions(result, self.settings.sensor, now=now, today=today())
        if keep:
            self.notes = result.notes
            self.cursor = remove_requested(result.cursor, due)
        return due

    def scan(self) -> set[str]:
        return set(self.due())


def make_follower(uri: str, database: Products, method: str = "auto", **more: Any) -> Follower:
    return Follower(uri, database.name, method, **more)


def document(**values: Any) -> dict[str, Any]:
    usual = {
        "product_retailer": "Zara",
        "product_images": ["http://shop/a.jpg"],
        "scraped_at": NOON,
    }
    return {name: value for name, value in {**usual, **values}.items() if value is not ...}


def made(seconds_ago: float) -> ObjectId:
    """An ObjectId of a writer whose clock differs, or that writes with a delay."""
    moment = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds_ago)
    return ObjectId(ObjectId.from_datetime(moment).binary[:4] + random.randbytes(8))


@BOTH
def test_the_first_scan_requests_nothing_for_existing_documents(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    mongo_database["products"].insert_many([document(), document(product_retailer="Asos")])
    follower = make_follower(mongodb_uri, mongo_database, method).start()
    assert follower.scan() == set()
    assert follower.changes.retailers() == {"zara", "asos"}


@BOTH
def test_with_start_from_everything_existing_documents_are_requested(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    mongo_database["products"].insert_many(
        [document(), document(product_retailer="Asos"), document(_id=made(9e6)), document()]
    )
    follower = make_follower(
        mongodb_uri, mongo_database, method, sensor={"start_from": "everything"}
    )
    follower.start()
    first, second = follower.due(keep=False), follower.due()
    assert set(first) == {"2026-01-02|zara", "2026-01-02|asos"}
    keys = [{run_key(name, pending) for name, pending in due.items()} for due in (first, second)]
    assert keys[0] == keys[1]  # a repeated scan
    assert follower.scan() == set()


@BOTH
def test_existing_documents_are_read_in_parts_whatever_the_type_of_their_ids(
    mongodb_uri: str, mongo_database: Products, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo_changes, "PAGE_DOCUMENTS", 2)
    ids: list[Any] = [7, 8.5, "a", "b", {"a": 1}, {"b": 1}, made(9e6), made(9e5), NOON]
    products = mongo_database["products"]
    products.insert_many(
        [
            *(document(_id=id_, product_retailer=f"s {n}") for n, id_ in enumerate(ids)),
            document(product_retailer="hidden", hidden=True),
            document(product_retailer="undated", scraped_at="soon"),
        ]
    )
    follower = make_follower(
        mongodb_uri,
        mongo_database,
        method,
        sensor={"start_from": "everything"},
        source={"query": {"hidden": {"$exists": False}}},
    ).start()
    assert follower.cursor is not None
    products.insert_one(document(product_retailer="later"))
    cursor, pages = follower.cursor, 0
    while cursor.position.surveys:  # a tick whose time is up after each page
        cursor = scan(
            cursor, follower.changes.pages, now=time.time(), out_of_time=lambda: True
        ).cursor
        pages += 1
    assert pages >= 6
    follower.cursor = cursor
    everything = {f"2026-01-02|s-{number}" for number in range(len(ids))}
    assert follower.scan() == everything | {"2026-01-02|later"}
    assert follower.scan() == set()


@BOTH
def test_each_changed_partition_is_requested_once(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    follower = make_follower(mongodb_uri, mongo_database, method).start()
    products = mongo_database["products"]
    products.insert_many([document() for _ in range(10)])
    products.insert_many([document(product_retailer="Nord & Sol", scraped_at="2026-01-03")])
    assert follower.scan() == {"2026-01-02|zara", "2026-01-03|nord-sol"}
    assert follower.scan() == set()
    products.insert_one(document())
    assert follower.scan() == {"2026-01-02|zara"}
    assert follower.scan() == set()


@BOTH
def test_documents_that_arrive_out_of_object_id_order_are_detected(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    follower = make_follower(mongodb_uri, mongo_database, method).start()
    products = mongo_database["products"]
    for number, seconds_ago in enumerate([0, 5, 3000, -3000, 1200, 3000, 0, -3000]):
        retailer = f"shop {number}"
        products.insert_one(document(_id=made(seconds_ago), product_retailer=retailer))
        assert follower.scan() == {f"2026-01-02|shop-{number}"}
    assert follower.scan() == set()


@pytest.mark.parametrize(("overlap_s", "detected"), [(1200, False), (7200, True)])
def test_the_poll_detects_late_documents_within_its_overlap(
    mongodb_uri: str, mongo_database: Products, overlap_s: int, detected: bool
) -> None:
    sensor = {"overlap_s": overlap_s}
    follower = make_follower(mongodb_uri, mongo_database, "poll", sensor=sensor).start()
    products = mongo_database["products"]
    late = 5000 if detected else 3000  # bins of 600 s
    products.insert_one(document(_id=made(late)))
    products.insert_one(document(_id=made(late + 5000), product_retailer="Asos"))
    assert follower.scan() == ({"2026-01-02|zara"} if detected else set())


@BOTH
def test_changes_before_the_start_date_are_ignored(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    options = {
        "start_date": "2025-06-30",
        "source": {"database": mongo_database.name},
        "sensor": {"method": method, "settle_s": 0, "start_from": "everything"},
    }
    changes = open_changes(Settings.model_validate(options), mongodb_uri)
    products = mongo_database["products"]
    products.insert_many([document(scraped_at="2025-06-30"), document(scraped_at="2025-06-29")])
    cursor = changes.initial_cursor()
    result = scan(cursor, changes.pages, now=time.time(), out_of_time=lambda: False)
    assert set(result.cursor.pending) == {"2025-06-30|zara"}
    cursor = result.cursor
    products.insert_many([document(scraped_at="2025-07-01"), document(scraped_at="2025-06-28")])
    result = scan(cursor, changes.pages, now=time.time(), out_of_time=lambda: False)
    assert set(result.cursor.pending) == {"2025-06-30|zara", "2025-07-01|zara"}


def test_the_stream_detects_documents_with_old_object_ids_or_other_types_of_ids(
    mongodb_uri: str, mongo_database: Products
) -> None:
    follower = make_follower(mongodb_uri, mongo_database).start()
    mongo_database["products"].insert_many(
        [
            document(_id=made(9e6), product_retailer="a"),
            document(_id="text", product_retailer="b"),
            document(_id={"site": 1, "number": 2}, product_retailer="c"),
            document(_id=2.0, product_retailer="d"),
        ]
    )
    assert follower.scan() == {f"2026-01-02|{name}" for name in "abcd"}
    assert follower.scan() == set()  # the token of a numeric _id contains its type


def test_the_stream_detects_documents_updated_in_place(
    mongodb_uri: str, mongo_database: Products
) -> None:
    products = mongo_database["products"]
    for number in range(6):
        products.insert_one(document(_id=number, product_retailer=f"shop {number}", price=1))
    follower = make_follower(mongodb_uri, mongo_database).start()
    products.update_one({"_id": 0}, {"$set": {"product_images": ["http://shop/new.jpg"]}})
    products.update_one({"_id": 1}, {"$set": {"product_images.0": "http://shop/new.jpg"}})
    products.update_one({"_id": 2}, {"$push": {"product_images": "http://shop/more.jpg"}})
    products.update_one({"_id": 3}, {"$unset": {"product_images": 1}})
    products.replace_one({"_id": 4}, document(product_retailer="shop 4", price=2))
    products.update_one({"_id": 5}, {"$set": {"price": 2, "last_seen": NOON}})
    assert follower.scan() == {f"2026-01-02|shop-{number}" for number in range(5)}
    assert follower.scan() == set()


def test_the_stream_detects_updates_at_each_path_of_the_images(
    mongodb_uri: str, mongo_database: Products
) -> None:
    products = mongo_database["products"]
    for number in range(3):
        products.insert_one(document(_id=number, product_retailer=f"shop {number}"))
    source = {"fields": {"images": ["main.url", "og.image"]}}
    follower = make_follower(mongodb_uri, mongo_database, source=source).start()
    products.update_one({"_id": 0}, {"$set": {"main.url": "http://shop/new.jpg"}})
    with_dots = {"$setField": {"field": "og.image", "input": "$$ROOT", "value": "http://shop/a"}}
    products.update_one({"_id": 1}, [{"$replaceWith": with_dots}])
    products.update_one({"_id": 2}, {"$set": {"product_images": []}})
    assert follower.scan() == {"2026-01-02|shop-0", "2026-01-02|shop-1"}


def test_with_pre_images_the_stream_detects_the_partitions_that_documents_left(
    mongodb_uri: str, mongo_database: Products
) -> None:
    products = mongo_database["products"]
    for number in range(5):
        products.insert_one(document(_id=number, product_retailer=f"shop {number}", in_stock=True))
    follower = make_follower(mongodb_uri, mongo_database).start()
    products.update_one({"_id": 0}, {"$set": {"product_retailer": "Asos"}})
    assert follower.scan() == {"2026-01-02|asos"}  # without pre-images
    pre_images = {"collMod": "products", "changeStreamPreAndPostImages": {"enabled": True}}
    mongo_database.command(pre_images)

    products.update_one({"_id": 1}, {"$set": {"product_retailer": "Asos"}})
    assert follower.scan() == {"2026-01-02|shop-1", "2026-01-02|asos"}
    products.update_one({"_id": 1}, {"$set": {"scraped_at": "2026-01-05"}})
    assert follower.scan() == {"2026-01-02|asos", "2026-01-05|asos"}
    products.replace_one({"_id": 2}, document(product_retailer="Mango"))
    products.replace_one({"_id": 2}, document(product_retailer="Nike"))
    assert follower.scan() == {f"2026-01-02|{name}" for name in ("shop-2", "mango", "nike")}
    products.delete_one({"_id": 3})
    assert {*follower.due(keep=False)} == {"2026-01-02|shop-3"}
    assert follower.scan() == {"2026-01-02|shop-3"}
    products.insert_one(document(_id="new"))
    products.update_one({"_id": 4}, {"$set": {"price": 3}})
    assert follower.scan() == {"2026-01-02|zara"}
    assert follower.scan() == set()
    assert follower.notes == []

    follower.source = {"query": {"in_stock": True}}
    products.update_one({"_id": 4}, {"$set": {"in_stock": False}})
    assert follower.scan() == {"2026-01-02|shop-4"}


def test_with_a_query_an_update_of_any_field_is_detected(
    mongodb_uri: str, mongo_database: Products
) -> None:
    products = mongo_database["products"]
    products.insert_many([document(_id=1, in_stock=False), document(_id=2, in_stock=False)])
    source = {"query": {"in_stock": True}}
    follower = make_follower(mongodb_uri, mongo_database, source=source).start()
    products.update_one({"_id": 1}, {"$set": {"in_stock": True}})
    assert follower.scan() == {"2026-01-02|zara"}
    products.update_one({"_id": 2}, {"$set": {"price": 3}})
    assert follower.scan() == set()


def test_with_a_modification_date_the_poll_detects_documents_updated_in_place(
    mongodb_uri: str, mongo_database: Products
) -> None:
    products = mongo_database["products"]
    products.create_index("meta.updated")
    now = dt.datetime.now(dt.UTC)
    old = {"updated": NOON}
    for number in range(3):
        products.insert_one(document(_id=number, product_retailer=f"shop {number}", meta=old))
    source = {"fields": {"updated": "meta.updated"}}
    follower = make_follower(mongodb_uri, mongo_database, "poll", source=source).start()
    products.update_one({"_id": 0}, {"$set": {"product_images": [], "meta.updated": now}})
    assert follower.scan() == {"2026-01-02|shop-0"}
    products.update_one(
        {"_id": 1}, {"$set": {"meta.updated": now - dt.timedelta(minutes=30)}}
    )  # a writer whose clock is slow
    assert follower.scan() == {"2026-01-02|shop-1"}
    products.update_one({"_id": 2}, {"$set": {"meta.updated": DatetimeMS(2**60)}})
    assert follower.scan() == {"2026-01-02|shop-2"}
    assert follower.scan() == set()


@BOTH
def test_a_repeated_scan_gives_the_same_run_keys_and_a_later_change_another(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    follower = make_follower(mongodb_uri, mongo_database, method).start()
    products = mongo_database["products"]
    products.insert_many([document(), document(), document(product_retailer="Asos")])

    def keys(*, keep: bool) -> set[str]:
        return {run_key(name, pending) for name, pending in follower.due(keep=keep).items()}

    first = keys(keep=False)
    assert len(first) == 2
    assert keys(keep=True) == first
    products.insert_one(document())
    second = keys(keep=True)
    assert len(second) == 1
    assert not second & first
    if method == "poll":
        return
    # The documents are as they were for the first run, and the partition must still run again.
    products.delete_many({"product_retailer": "Zara"})
    products.insert_many([document(), document()])
    assert not keys(keep=True) & (first | second)


@BOTH
def test_documents_without_a_partition_are_noted_once_and_do_not_affect_others(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    follower = make_follower(mongodb_uri, mongo_database, method).start()
    products = mongo_database["products"]
    far = dt.datetime.now(dt.UTC) + dt.timedelta(days=400)
    products.insert_many(
        [
            document(),
            document(product_retailer=...),
            document(product_retailer=["Zara", "Mango"]),
            document(product_retailer="?!"),
            document(scraped_at="yesterday"),
            document(scraped_at=NOON - dt.timedelta(days=400)),
            document(scraped_at=far),
            document(scraped_at=DatetimeMS(2**60)),
        ]
    )
    assert follower.scan() == {"2026-01-02|zara"}
    (note,) = follower.notes
    for count in (
        *("2 no_retailer", "1 several_retailers"),
        *("1 invalid_date", "1 before_start_date", "2 in_future"),
    ):
        assert count in note
    assert follower.scan() == set()
    assert follower.notes == []  # noted once


@pytest.mark.parametrize(
    ("values", "detail"),
    [
        ({"scraped_at": "yesterday"}, "scraped_at is 'yesterday'; write dates as ISO 8601, for"),
        ({"_id": 1, "scraped_at": ...}, "scraped_at is None, and _id has no creation time; add"),
    ],
)
def test_the_note_about_a_document_without_a_valid_date_names_the_field_and_the_remedy(
    mongodb_uri: str, mongo_database: Products, values: dict[str, Any], detail: str
) -> None:
    follower = make_follower(mongodb_uri, mongo_database, "stream").start()
    mongo_database["products"].insert_one(document(**values))
    assert follower.scan() == set()
    assert detail in follower.notes[0]


@BOTH
def test_the_partition_of_a_document_dated_tomorrow_waits_for_its_day(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    follower = make_follower(mongodb_uri, mongo_database, method).start()
    tomorrow = today() + dt.timedelta(days=1)
    mongo_database["products"].insert_one(document(scraped_at=tomorrow.isoformat()))
    assert follower.scan() == set()
    assert follower.cursor is not None
    assert set(follower.cursor.pending) == {f"{tomorrow}|zara"}


@pytest.mark.slow
@BOTH
def test_a_burst_of_100_000_documents_is_read_in_pages(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    follower = make_follower(mongodb_uri, mongo_database, method).start()
    assert follower.cursor is not None
    retailers, days = 20, 5
    mongo_database["products"].insert_many(
        document(
            _id=made(random.uniform(0, 3000)),
            product_retailer=f"shop {number % retailers}",
            scraped_at=NOON + dt.timedelta(days=number % days),
        )
        for number in range(100_000)
    )
    scans, pending = 0, set[str]()
    while True:  # each scan reads one page
        result = scan(
            follower.cursor, follower.changes.pages, now=time.time(), out_of_time=lambda: True
        )
        scans += 1
        follower.cursor = result.cursor
        pending |= set(result.cursor.pending)
        assert len(result.cursor.to_json()) < 1_000_000
        if result.caught_up:
            break
    assert scans >= 5
    assert len(pending) == retailers  # each retailer has one day, because 20 is a multiple of 5
    assert follower.scan() == pending
    assert follower.scan() == set()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("method", ["stream", "poll", "poll by date"])
def test_random_changes_are_neither_missed_nor_repeated(
    mongodb_uri: str, mongo_database: Products, method: str, seed: int
) -> None:
    rng = random.Random(seed)
    products = mongo_database["products"]
    source = {"fields": {"updated": "updated"}} if method == "poll by date" else {}
    follower = make_follower(mongodb_uri, mongo_database, method.partition(" ")[0], source=source)
    partitions: dict[Any, str] = {}
    expected = set[str]()

    def moment() -> dt.datetime:
        return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=rng.uniform(-2000, 2000))

    def insert() -> None:
        retailer, day = rng.choice("abc"), rng.randrange(3)
        new = document(
            _id=ObjectId(ObjectId.from_datetime(moment()).binary[:4] + rng.randbytes(8)),
            product_retailer=retailer,
            scraped_at=NOON + dt.timedelta(days=day),
            updated=moment(),
        )
        products.insert_one(new)
        partitions[new["_id"]] = f"2026-01-0{2 + day}|{retailer}"
        expected.add(partitions[new["_id"]])

    def update() -> None:
        if not partitions:
            return
        chosen = rng.choice(list(partitions))
        change = {"product_images": [f"http://shop/{rng.random()}"], "updated": moment()}
        products.update_one({"_id": chosen}, {"$set": change})
        if method != "poll":
            expected.add(partitions[chosen])

    for _ in range(rng.randrange(5)):
        insert()
    follower.start()
    expected.clear()
    for _ in range(40):
        match rng.choices(["insert", "update", "scan", "lost scan"], [4, 3, 3, 1])[0]:
            case "insert":
                insert()
            case "update":
                update()
            case "scan":
                assert follower.scan() == expected
                expected.clear()
            case "lost scan":
                assert set(follower.due(keep=False)) == expected
    assert follower.scan() == expected
    assert follower.scan() == set()


def test_if_the_stream_cannot_resume_the_poll_reads_the_gap_and_a_note_says_so(
    mongodb_uri: str, mongo_database: Products
) -> None:
    follower = make_follower(mongodb_uri, mongo_database).start()
    assert follower.cursor is not None
    products = mongo_database["products"]
    products.insert_one(document())
    lost = replace(follower.cursor.position, token=json_util.dumps({"_data": "82"}))
    follower.cursor = replace(follower.cursor, position=lost)
    assert follower.scan() == {"2026-01-02|zara"}
    assert "MongoDB no longer has the changes since" in follower.notes[0]
    assert follower.scan() == set()
    products.update_one({}, {"$set": {"product_images": []}})
    assert follower.scan() == {"2026-01-02|zara"}  # by the stream again
    assert follower.notes == []


def test_changes_are_detected_after_the_collection_was_dropped_and_created_again(
    mongodb_uri: str, mongo_database: Products
) -> None:
    products = mongo_database["products"]
    products.insert_one(document())
    follower = make_follower(mongodb_uri, mongo_database).start()
    products.drop()
    products.insert_one(document(product_retailer="Asos"))
    assert follower.scan() | follower.scan() == {"2026-01-02|asos"}
    products.insert_one(document())
    assert follower.scan() == {"2026-01-02|zara"}


def test_no_change_is_missed_when_the_method_changes(
    mongodb_uri: str, mongo_database: Products
) -> None:
    products = mongo_database["products"]
    follower = make_follower(mongodb_uri, mongo_database, "poll").start()
    for method in ("stream", "poll", "stream"):
        products.insert_one(document(product_retailer=f"next {method}"))
        follower.method = method
        assert f"2026-01-02|next-{method}" in follower.scan()
        products.insert_one(document(product_retailer="Asos"))
        assert follower.scan() == {"2026-01-02|asos"}


@BOTH
def test_the_first_document_of_a_new_collection_is_detected(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    follower = make_follower(mongodb_uri, mongo_database, method).start()
    assert follower.scan() == set()
    mongo_database["products"].insert_one(document())
    assert follower.scan() == {"2026-01-02|zara"}


@contextmanager
def running_mongod(folder: Path, *options: str) -> Iterator[int]:
    """A mongod with other options than the embedded one; gives its port."""
    program = mongod_program.find()
    assert program is not None
    binary = mongod_program.runnable(program, folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    data = folder / "data"
    data.mkdir()
    server = subprocess.Popen(
        [
            str(binary),
            *("--dbpath", str(data), "--port", str(port), "--bind_ip", "127.0.0.1"),
            *("--nounixsocket", "--quiet", "--wiredTigerCacheSizeGB", "0.25", *options),
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(data)


@pytest.fixture
def standalone(tmp_path: Path) -> Iterator[str]:
    """The address of a standalone MongoDB."""
    with running_mongod(tmp_path) as port:
        uri = f"mongodb://127.0.0.1:{port}/"
        with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=60_000) as client:
            client.admin.command("ping")
        yield uri


def test_a_standalone_mongodb_is_polled(standalone: str) -> None:
    with MongoClient[dict[str, Any]](standalone) as client:
        products = client["shop"]["products"]
        products.insert_one(document(product_retailer="old"))
        follower = Follower(standalone, "shop").start()
        assert follower.scan() == set()
        products.insert_one(document())
        assert follower.scan() == {"2026-01-02|zara"}
        assert follower.scan() == set()
        follower.method = "stream"
        with pytest.raises(SourceError, match="not a replica set and has no change streams"):
            follower.scan()


def test_a_view_is_polled(mongodb_uri: str, mongo_database: Products) -> None:
    mongo_database["products"].insert_one(document(product_retailer="old"))
    mongo_database.create_collection("view", viewOn="products", pipeline=[])
    follower = make_follower(mongodb_uri, mongo_database, source={"collection": "view"})
    follower.sensor = {"start_from": "everything"}
    follower.start()
    mongo_database["products"].insert_one(document())
    assert follower.scan() == {"2026-01-02|old", "2026-01-02|zara"}
    assert "view is a view, which has no change stream; the sensor polls" in follower.notes[0]
    assert follower.changes.source.inventory().names == {"old": "old", "zara": "Zara"}
    assert len(follower.changes.source.listing("2026-01-02", "zara").rows) == 1


@pytest.fixture
def readers_address(tmp_path: Path) -> Iterator[str]:
    """The address of a replica set for a user that may find documents, and nothing else."""
    key = tmp_path / "key"
    key.write_text("a" * 32)
    key.chmod(0o600)
    options = ("--replSet", "rs", "--keyFile", str(key), "--oplogSize", "990")
    with running_mongod(tmp_path, *options) as port:
        admin: dict[str, Any] = {"directConnection": True, "serverSelectionTimeoutMS": 60_000}
        with MongoClient[dict[str, Any]](f"mongodb://127.0.0.1:{port}/", **admin) as client:
            member = {"_id": 0, "host": f"127.0.0.1:{port}"}
            client.admin.command("replSetInitiate", {"_id": "rs", "members": [member]})
            while not client.admin.command("hello")["isWritablePrimary"]:
                time.sleep(0.05)
            client.admin.command({"createUser": "root", "pwd": "s3cret", "roles": ["root"]})
        uri = f"mongodb://root:s3cret@127.0.0.1:{port}/"
        with MongoClient[dict[str, Any]](uri, **admin) as client:
            rights = {"resource": {"db": "shop", "collection": "products"}, "actions": ["find"]}
            client["shop"].command("createRole", "reader", privileges=[rights], roles=[])
            client["shop"].command({"createUser": "reader", "pwd": "s3cret", "roles": ["reader"]})
            client["shop"]["products"].insert_one(document())
        yield f"mongodb://reader:s3cret@127.0.0.1:{port}/?directConnection=true&authSource=shop"


def test_for_a_user_that_may_only_read_the_sensor_polls_and_names_the_missing_grant(
    readers_address: str,
) -> None:
    sensor = {"start_from": "everything"}
    follower = Follower(readers_address, "shop", sensor=sensor).start()
    assert follower.scan() == {"2026-01-02|zara"}
    assert "grant it the actions find and changeStream on shop.products" in follower.notes[0]
    assert follower.notes[0].endswith("; the sensor polls instead")
    source = follower.changes.source
    assert source.inventory().documents == {("zara", "2026-01-02"): 1}
    assert len(source.listing("2026-01-02", "zara").rows) == 1
    assert set(source.unindexed()) == {"partition", "retailers", "survey"}
    follower.method = "stream"
    with pytest.raises(SourceError, match=r"sensor\.method is stream, but the user in MONGODB_URI"):
        follower.start()
    wrong = readers_address.replace("authSource=shop", "authSource=admin")
    with pytest.raises(
        SourceError, match=r"refused the login: .*its authSource is the database"
    ) as error:
        Follower(wrong, "shop").start()
    assert "s3cret" not in str(error.value)


def test_a_query_that_takes_too_long_says_so_and_what_to_do(
    mongodb_uri: str, mongo_database: Products
) -> None:
    mongo_database["products"].insert_many([document() for _ in range(100)])
    body = "function() { sleep(100); return true; }"
    slow = {"$expr": {"$function": {"body": body, "args": [], "lang": "js"}}}
    source = MongoSource(
        mongodb_uri, SourceSettings(database=mongo_database.name, query=slow), dt.date(2026, 1, 1)
    )
    with pytest.raises(SourceError) as error, pymongo.timeout(1):
        source.inventory()
    assert "did not finish a query in time" in str(error.value)
    assert "create the indexes that `imgassets doctor` names" in str(error.value)


@BOTH
def test_an_unreachable_mongodb_raises_one_error_and_the_cursor_stays_valid(
    mongodb_uri: str,
    mongo_database: Products,
    method: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mongodb, "SERVER_SELECTION_MS", 200)
    follower = make_follower(mongodb_uri, mongo_database, method).start()
    mongo_database["products"].insert_one(document())
    before = follower.cursor
    follower.uri = "mongodb://user:s3cret@127.0.0.1:9/"
    with pytest.raises(SourceError, match="cannot be reached") as error:
        follower.scan()
    assert "s3cret" not in str(error.value)
    assert not isinstance(error.value, PyMongoError)
    assert follower.cursor == before
    follower.uri = mongodb_uri
    assert follower.scan() == {"2026-01-02|zara"}
