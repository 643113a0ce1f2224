"""Following a real MongoDB, by its change stream and by the poll."""

from __future__ import annotations

import datetime as dt
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from bson import DatetimeMS, ObjectId, json_util
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import PyMongoError

from imgassets.demo import mongod_program
from imgassets.errors import SourceError
from imgassets.settings import Settings
from imgassets.sources import mongodb
from imgassets.sources.changes import Cursor, PendingPartition, due, look, requested, run_key
from imgassets.sources.listing import today
from imgassets.sources.mongo_changes import MongoChanges, follow

NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
Products = Database[dict[str, Any]]
BOTH = pytest.mark.parametrize("method", ["stream", "poll"])


@dataclass
class Follower:
    """Looks at a collection again and again, as the sensor does, without waiting for quiet."""

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
        return follow(self.settings, self.uri)

    def start(self) -> Follower:
        self.cursor = self.changes.start(time.time())
        return self

    def asked(self, *, keep: bool = True) -> dict[str, PendingPartition]:
        """What one look asks for; where it is not kept, as if Dagster had ended before it was."""
        assert self.cursor is not None
        now = time.time()
        with self.changes.in_time():
            found = look(self.cursor, self.changes.pages, now=now, out_of_time=lambda: False)
        asked = due(found, self.settings.sensor, now=now, today=today())
        if keep:
            self.notes = found.notes
            self.cursor = requested(found.cursor, asked)
        return asked

    def look(self) -> set[str]:
        return set(self.asked())


def follower(uri: str, database: Products, method: str = "auto", **more: Any) -> Follower:
    return Follower(uri, database.name, method, **more)


def document(**values: Any) -> dict[str, Any]:
    usual = {
        "product_retailer": "Zara",
        "product_images": ["http://shop/a.jpg"],
        "scraped_at": NOON,
    }
    return {name: value for name, value in {**usual, **values}.items() if value is not ...}


def made(seconds_ago: float) -> ObjectId:
    """An ObjectId of another writer, whose clock or patience differs from ours."""
    moment = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds_ago)
    return ObjectId(ObjectId.from_datetime(moment).binary[:4] + random.randbytes(8))


@BOTH
def test_nothing_that_is_there_at_first_is_asked_for(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    mongo_database["products"].insert_many([document(), document(product_retailer="Asos")])
    follows = follower(mongodb_uri, mongo_database, method).start()
    assert follows.look() == set()
    assert set(follows.changes.names()) == {"zara", "asos"}


@BOTH
def test_everything_that_is_there_is_asked_for_where_the_settings_say_so(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    mongo_database["products"].insert_many(
        [document(), document(product_retailer="Asos"), document(_id=made(9e6)), document()]
    )
    follows = follower(mongodb_uri, mongo_database, method, sensor={"start_from": "everything"})
    follows.start()
    first = follows.asked(keep=False)
    assert set(first) == {"2026-01-02|zara", "2026-01-02|asos"}
    assert follows.asked() == first  # a repeated look has the same run keys
    assert follows.look() == set()


@BOTH
def test_each_touched_partition_is_asked_for_once(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    follows = follower(mongodb_uri, mongo_database, method).start()
    products = mongo_database["products"]
    products.insert_many([document() for _ in range(10)])
    products.insert_many([document(product_retailer="Nord & Sol", scraped_at="2026-01-03")])
    assert follows.look() == {"2026-01-02|zara", "2026-01-03|nord-sol"}
    assert follows.look() == set()
    products.insert_one(document())
    assert follows.look() == {"2026-01-02|zara"}
    assert follows.look() == set()


@BOTH
def test_documents_that_arrive_out_of_the_order_of_their_object_ids_are_seen(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    follows = follower(mongodb_uri, mongo_database, method).start()
    products = mongo_database["products"]
    for number, seconds_ago in enumerate([0, 5, 3000, -3000, 1200, 3000, 0, -3000]):
        retailer = f"shop {number}"
        products.insert_one(document(_id=made(seconds_ago), product_retailer=retailer))
        assert follows.look() == {f"2026-01-02|shop-{number}"}
    assert follows.look() == set()


@pytest.mark.parametrize(("overlap_s", "seen"), [(1200, False), (7200, True)])
def test_the_poll_sees_late_documents_as_far_back_as_it_overlaps(
    mongodb_uri: str, mongo_database: Products, overlap_s: int, seen: bool
) -> None:
    sensor = {"overlap_s": overlap_s}
    follows = follower(mongodb_uri, mongo_database, "poll", sensor=sensor).start()
    products = mongo_database["products"]
    late = 5000 if seen else 3000  # bins of 600 s
    products.insert_one(document(_id=made(late)))
    products.insert_one(document(_id=made(late + 5000), product_retailer="Asos"))
    assert follows.look() == ({"2026-01-02|zara"} if seen else set())


@BOTH
def test_changes_are_seen_from_the_start_date_on(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    options = {
        "start_date": "2025-06-30",
        "source": {"database": mongo_database.name},
        "sensor": {"method": method, "settle_s": 0, "start_from": "everything"},
    }
    changes = follow(Settings.model_validate(options), mongodb_uri)
    products = mongo_database["products"]
    products.insert_many([document(scraped_at="2025-06-30"), document(scraped_at="2025-06-29")])
    cursor = changes.start(time.time())
    assert set(cursor.pending) == {"2025-06-30|zara"}
    products.insert_many([document(scraped_at="2025-07-01"), document(scraped_at="2025-06-28")])
    found = look(cursor, changes.pages, now=time.time(), out_of_time=lambda: False)
    assert set(found.cursor.pending) == {"2025-06-30|zara", "2025-07-01|zara"}


def test_the_stream_sees_documents_with_old_object_ids_and_with_none(
    mongodb_uri: str, mongo_database: Products
) -> None:
    follows = follower(mongodb_uri, mongo_database).start()
    mongo_database["products"].insert_many(
        [
            document(_id=made(9e6), product_retailer="a"),
            document(_id="text", product_retailer="b"),
            document(_id={"site": 1, "number": 2}, product_retailer="c"),
            document(_id=2.0, product_retailer="d"),
        ]
    )
    assert follows.look() == {f"2026-01-02|{name}" for name in "abcd"}
    assert follows.look() == set()  # also after an _id whose token carries its number's type


def test_the_stream_sees_documents_changed_in_place(
    mongodb_uri: str, mongo_database: Products
) -> None:
    products = mongo_database["products"]
    for number in range(6):
        products.insert_one(document(_id=number, product_retailer=f"shop {number}", price=1))
    follows = follower(mongodb_uri, mongo_database).start()
    products.update_one({"_id": 0}, {"$set": {"product_images": ["http://shop/new.jpg"]}})
    products.update_one({"_id": 1}, {"$set": {"product_images.0": "http://shop/new.jpg"}})
    products.update_one({"_id": 2}, {"$push": {"product_images": "http://shop/more.jpg"}})
    products.update_one({"_id": 3}, {"$unset": {"product_images": 1}})
    products.replace_one({"_id": 4}, document(product_retailer="shop 4", price=2))
    products.update_one({"_id": 5}, {"$set": {"price": 2, "last_seen": NOON}})
    assert follows.look() == {f"2026-01-02|shop-{number}" for number in range(5)}
    assert follows.look() == set()


def test_the_stream_sees_which_partitions_documents_left_where_mongodb_remembers(
    mongodb_uri: str, mongo_database: Products
) -> None:
    products = mongo_database["products"]
    for number in range(5):
        products.insert_one(document(_id=number, product_retailer=f"shop {number}", in_stock=True))
    follows = follower(mongodb_uri, mongo_database).start()
    products.update_one({"_id": 0}, {"$set": {"product_retailer": "Asos"}})
    assert follows.look() == {"2026-01-02|asos"}  # it does not remember
    remember = {"collMod": "products", "changeStreamPreAndPostImages": {"enabled": True}}
    mongo_database.command(remember)

    products.update_one({"_id": 1}, {"$set": {"product_retailer": "Asos"}})
    assert follows.look() == {"2026-01-02|shop-1", "2026-01-02|asos"}
    products.update_one({"_id": 1}, {"$set": {"scraped_at": "2026-01-05"}})
    assert follows.look() == {"2026-01-02|asos", "2026-01-05|asos"}
    products.replace_one({"_id": 2}, document(product_retailer="Mango"))
    products.replace_one({"_id": 2}, document(product_retailer="Nike"))
    assert follows.look() == {f"2026-01-02|{name}" for name in ("shop-2", "mango", "nike")}
    products.delete_one({"_id": 3})
    assert {*follows.asked(keep=False)} == {"2026-01-02|shop-3"}
    assert follows.look() == {"2026-01-02|shop-3"}
    products.insert_one(document(_id="new"))
    products.update_one({"_id": 4}, {"$set": {"price": 3}})
    assert follows.look() == {"2026-01-02|zara"}
    assert follows.look() == set()
    assert follows.notes == []

    follows.source = {"query": {"in_stock": True}}
    products.update_one({"_id": 4}, {"$set": {"in_stock": False}})
    assert follows.look() == {"2026-01-02|shop-4"}


def test_with_an_extra_filter_any_field_may_bring_a_document_in(
    mongodb_uri: str, mongo_database: Products
) -> None:
    products = mongo_database["products"]
    products.insert_many([document(_id=1, in_stock=False), document(_id=2, in_stock=False)])
    source = {"query": {"in_stock": True}}
    follows = follower(mongodb_uri, mongo_database, source=source).start()
    products.update_one({"_id": 1}, {"$set": {"in_stock": True}})
    assert follows.look() == {"2026-01-02|zara"}
    products.update_one({"_id": 2}, {"$set": {"price": 3}})
    assert follows.look() == set()


def test_the_poll_sees_documents_changed_in_place_by_their_field_of_modification(
    mongodb_uri: str, mongo_database: Products
) -> None:
    products = mongo_database["products"]
    products.create_index("meta.updated")
    now = dt.datetime.now(dt.UTC)
    old = {"updated": NOON}
    for number in range(3):
        products.insert_one(document(_id=number, product_retailer=f"shop {number}", meta=old))
    source = {"fields": {"updated": "meta.updated"}}
    follows = follower(mongodb_uri, mongo_database, "poll", source=source).start()
    products.update_one({"_id": 0}, {"$set": {"product_images": [], "meta.updated": now}})
    assert follows.look() == {"2026-01-02|shop-0"}
    products.update_one(
        {"_id": 1}, {"$set": {"meta.updated": now - dt.timedelta(minutes=30)}}
    )  # a writer that is behind
    assert follows.look() == {"2026-01-02|shop-1"}
    products.update_one({"_id": 2}, {"$set": {"meta.updated": DatetimeMS(2**60)}})
    assert follows.look() == {"2026-01-02|shop-2"}
    assert follows.look() == set()


@BOTH
def test_a_repeated_look_asks_for_the_same_runs_and_a_later_change_for_another(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    follows = follower(mongodb_uri, mongo_database, method).start()
    products = mongo_database["products"]
    products.insert_many([document(), document(), document(product_retailer="Asos")])

    def keys(*, keep: bool) -> set[str]:
        return {run_key(name, touch) for name, touch in follows.asked(keep=keep).items()}

    first = keys(keep=False)
    assert len(first) == 2
    assert keys(keep=True) == first
    products.insert_one(document())
    second = keys(keep=True)
    assert len(second) == 1
    assert not second & first
    if method == "poll":
        return
    # The state that the first run had seen is there again, and still it must run again.
    products.delete_many({"product_retailer": "Zara"})
    products.insert_many([document(), document()])
    assert not keys(keep=True) & (first | second)


@BOTH
def test_documents_without_a_partition_are_counted_and_the_others_go_on(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    follows = follower(mongodb_uri, mongo_database, method).start()
    products = mongo_database["products"]
    far = dt.datetime.now(dt.UTC) + dt.timedelta(days=400)
    products.insert_many(
        [
            document(),
            document(product_retailer=...),
            document(product_retailer=["Zara"]),
            document(product_retailer="?!"),
            document(scraped_at="yesterday"),
            document(scraped_at=NOON - dt.timedelta(days=400)),
            document(scraped_at=far),
            document(scraped_at=DatetimeMS(2**60)),
        ]
    )
    assert follows.look() == {"2026-01-02|zara"}
    (note,) = follows.notes
    for count in ("3 no_retailer", "1 invalid_date", "1 before_start_date", "2 in_future"):
        assert count in note
    assert follows.look() == set()
    assert follows.notes == []  # told once


@BOTH
def test_a_document_dated_tomorrow_waits_for_its_day(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    follows = follower(mongodb_uri, mongo_database, method).start()
    tomorrow = today() + dt.timedelta(days=1)
    mongo_database["products"].insert_one(document(scraped_at=tomorrow.isoformat()))
    assert follows.look() == set()
    assert follows.cursor is not None
    assert set(follows.cursor.pending) == {f"{tomorrow}|zara"}


@pytest.mark.slow
@BOTH
def test_a_burst_of_100_000_documents_is_read_in_pages(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    follows = follower(mongodb_uri, mongo_database, method).start()
    assert follows.cursor is not None
    retailers, days = 20, 5
    mongo_database["products"].insert_many(
        document(
            _id=made(random.uniform(0, 3000)),
            product_retailer=f"shop {number % retailers}",
            scraped_at=NOON + dt.timedelta(days=number % days),
        )
        for number in range(100_000)
    )
    looks, pending = 0, set[str]()
    while True:  # each look as short as it can be: one page
        found = look(
            follows.cursor, follows.changes.pages, now=time.time(), out_of_time=lambda: True
        )
        looks += 1
        follows.cursor = found.cursor
        pending |= set(found.cursor.pending)
        assert len(found.cursor.to_json()) < 1_000_000
        if found.caught_up:
            break
    assert looks >= 5
    assert len(pending) == retailers  # days and retailers go together: 20 is a multiple of 5
    assert follows.look() == pending
    assert follows.look() == set()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("method", ["stream", "poll", "poll by date"])
def test_random_changes_are_neither_missed_nor_repeated(
    mongodb_uri: str, mongo_database: Products, method: str, seed: int
) -> None:
    chance = random.Random(seed)
    products = mongo_database["products"]
    source = {"fields": {"updated": "updated"}} if method == "poll by date" else {}
    follows = follower(mongodb_uri, mongo_database, method.partition(" ")[0], source=source)
    there: dict[Any, str] = {}
    expected = set[str]()

    def moment() -> dt.datetime:
        return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=chance.uniform(-2000, 2000))

    def insert() -> None:
        retailer, day = chance.choice("abc"), chance.randrange(3)
        new = document(
            _id=ObjectId(ObjectId.from_datetime(moment()).binary[:4] + chance.randbytes(8)),
            product_retailer=retailer,
            scraped_at=NOON + dt.timedelta(days=day),
            updated=moment(),
        )
        products.insert_one(new)
        there[new["_id"]] = f"2026-01-0{2 + day}|{retailer}"
        expected.add(there[new["_id"]])

    def update() -> None:
        if not there:
            return
        chosen = chance.choice(list(there))
        change = {"product_images": [f"http://shop/{chance.random()}"], "updated": moment()}
        products.update_one({"_id": chosen}, {"$set": change})
        if method != "poll":
            expected.add(there[chosen])

    for _ in range(chance.randrange(5)):
        insert()
    follows.start()
    expected.clear()
    for _ in range(40):
        match chance.choices(["insert", "update", "look", "lost look"], [4, 3, 3, 1])[0]:
            case "insert":
                insert()
            case "update":
                update()
            case "look":
                assert follows.look() == expected
                expected.clear()
            case "lost look":
                assert set(follows.asked(keep=False)) == expected
    assert follows.look() == expected
    assert follows.look() == set()


def test_where_the_stream_cannot_go_on_the_gap_is_swept_and_told(
    mongodb_uri: str, mongo_database: Products
) -> None:
    follows = follower(mongodb_uri, mongo_database).start()
    assert follows.cursor is not None
    products = mongo_database["products"]
    products.insert_one(document())
    lost = replace(follows.cursor.place, token=json_util.dumps({"_data": "82"}))
    follows.cursor = replace(follows.cursor, place=lost)
    assert follows.look() == {"2026-01-02|zara"}
    assert "MongoDB no longer knows the changes since" in follows.notes[0]
    assert follows.look() == set()
    products.update_one({}, {"$set": {"product_images": []}})
    assert follows.look() == {"2026-01-02|zara"}  # by the stream again
    assert follows.notes == []


def test_a_collection_that_is_dropped_and_made_again_is_followed_on(
    mongodb_uri: str, mongo_database: Products
) -> None:
    products = mongo_database["products"]
    products.insert_one(document())
    follows = follower(mongodb_uri, mongo_database).start()
    products.drop()
    products.insert_one(document(product_retailer="Asos"))
    assert follows.look() | follows.look() == {"2026-01-02|asos"}
    products.insert_one(document())
    assert follows.look() == {"2026-01-02|zara"}


def test_the_way_can_be_changed_without_missing_anything(
    mongodb_uri: str, mongo_database: Products
) -> None:
    products = mongo_database["products"]
    follows = follower(mongodb_uri, mongo_database, "poll").start()
    for method in ("stream", "poll", "stream"):
        products.insert_one(document(product_retailer=f"next {method}"))
        follows.method = method
        assert f"2026-01-02|next-{method}" in follows.look()
        products.insert_one(document(product_retailer="Asos"))
        assert follows.look() == {"2026-01-02|asos"}


@BOTH
def test_a_collection_that_is_not_there_yet_is_followed_from_its_first_document(
    mongodb_uri: str, mongo_database: Products, method: str
) -> None:
    follows = follower(mongodb_uri, mongo_database, method).start()
    assert follows.look() == set()
    mongo_database["products"].insert_one(document())
    assert follows.look() == {"2026-01-02|zara"}


@pytest.fixture
def standalone(tmp_path: Path) -> Iterator[str]:
    """The address of a MongoDB that is no replica set."""
    found = mongod_program.find()
    assert found is not None
    binary = mongod_program.runnable(found, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    data = tmp_path / "data"
    data.mkdir()
    server = subprocess.Popen(
        [
            str(binary),
            *("--dbpath", str(data), "--port", str(port), "--bind_ip", "127.0.0.1"),
            *("--nounixsocket", "--quiet", "--wiredTigerCacheSizeGB", "0.25"),
        ],
        stdout=subprocess.DEVNULL,
    )
    uri = f"mongodb://127.0.0.1:{port}/"
    try:
        with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=60_000) as client:
            client.admin.command("ping")
        yield uri
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(data)


def test_a_standalone_mongodb_is_polled(standalone: str) -> None:
    with MongoClient[dict[str, Any]](standalone) as client:
        products = client["shop"]["products"]
        products.insert_one(document(product_retailer="old"))
        follows = Follower(standalone, "shop").start()
        assert follows.look() == set()
        products.insert_one(document())
        assert follows.look() == {"2026-01-02|zara"}
        assert follows.look() == set()
        follows.method = "stream"
        with pytest.raises(SourceError, match="no replica set and has no change streams"):
            follows.look()


@BOTH
def test_a_mongodb_that_is_away_is_one_sentence_and_the_cursor_stays_usable(
    mongodb_uri: str,
    mongo_database: Products,
    method: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mongodb, "SERVER_SELECTION_MS", 200)
    follows = follower(mongodb_uri, mongo_database, method).start()
    mongo_database["products"].insert_one(document())
    before = follows.cursor
    follows.uri = "mongodb://user:s3cret@127.0.0.1:9/"
    with pytest.raises(SourceError, match="cannot be reached") as error:
        follows.look()
    assert "s3cret" not in str(error.value)
    assert not isinstance(error.value, PyMongoError)
    assert follows.cursor == before
    follows.uri = mongodb_uri
    assert follows.look() == {"2026-01-02|zara"}
