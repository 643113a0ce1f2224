"""Measure survey, listing and sensor on a large collection.

    python -m benchmarks.documents                        # 10 minutes, 2 GB of disk
    python -m benchmarks.documents --documents 100000 --dates rfc

Each spelling of dates is a collection of its own, with so many documents of 0.8 kB per retailer and
day. The documents that a query examined are from MongoDB's profiler.
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from imgassets.demo.mongod import EmbeddedMongo
from imgassets.folders import home
from imgassets.settings import Settings
from imgassets.sources.changes import Cursor, scan
from imgassets.sources.mongo_changes import READ_SECONDS, open_changes
from imgassets.sources.mongodb import MongoSource

DATABASE = "documents_benchmark"
RETAILERS, DAYS = 200, 30
FIRST_DAY = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0) - (
    dt.timedelta(days=DAYS)
)
EAST = dt.timezone(dt.timedelta(hours=9))
SPELLINGS: dict[str, Callable[[dt.datetime], object]] = {
    "date": lambda moment: moment,
    "missing": lambda _: None,
    "iso": lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%S.%f"),
    "offset": lambda moment: moment.astimezone(EAST).isoformat(),
    "rfc": lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT"),
    "epoch": lambda moment: moment.timestamp(),
}


def main() -> None:
    """Insert the documents, and print one row per measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--dates", nargs="+", choices=SPELLINGS, default=["date", "offset", "rfc"])
    options = parser.parse_args()
    mongodb = EmbeddedMongo(home() / "bench" / "mongodb")
    address = mongodb.ensure_running()
    print("| dates | query | index | seconds | examined | returned |\n|---|---|---|---|---|---|")
    try:
        with MongoClient[dict[str, Any]](address, tz_aware=True) as client:
            for spelling in options.dates:
                client.drop_database(DATABASE)
                _insert(client[DATABASE], options.documents, SPELLINGS[spelling])
                _measure(address, client[DATABASE], spelling)
                client.drop_database(DATABASE)
    finally:
        mongodb.stop()


def _insert(
    database: Database[dict[str, Any]], number: int, spell: Callable[[dt.datetime], object]
) -> None:
    documents = _documents(number, spell)
    while batch := list(islice(documents, 10_000)):
        database["products"].insert_many(batch, ordered=False)


def _documents(number: int, spell: Callable[[dt.datetime], object]) -> Iterator[dict[str, Any]]:
    for index in range(number):
        moment = FIRST_DAY + dt.timedelta(days=DAYS) * index / number
        yield {
            "_id": ObjectId(ObjectId.from_datetime(moment).binary[:4] + index.to_bytes(8)),
            "product_retailer": f"Shop {index * 7919 % RETAILERS}",
            "product_images": [f"https://cdn.example/{index}-{n}.jpg" for n in range(5)],
            "scraped_at": spell(moment),
            "description": f"{index} words " * 30,
        }


def _measure(address: str, database: Database[dict[str, Any]], spelling: str) -> None:
    settings = Settings.model_validate(
        {"source": {"database": DATABASE}, "start_date": FIRST_DAY.date()}
    )
    source = MongoSource(address, settings.source, settings.start_date)
    for index in ("no", "yes"):
        if index == "yes":
            source.create_indexes()
        for name, work in (("survey", _survey), ("partition", _listing)):
            taken, examined, returned = [], 0, 0
            for round_ in range(3):
                database.command("profile", 0)
                database["system.profile"].drop()
                database.command("profile", 2)
                began = time.perf_counter()
                returned = work(source, round_)
                taken.append(time.perf_counter() - began)
                examined = _examined(database)
            seconds = statistics.median(taken)
            print(
                f"| {spelling} | {name} | {index} | {seconds:.2f} | {examined:,} | {returned:,} |",
                flush=True,
            )
    database.command("profile", 0)
    for method in ("stream", "poll"):
        _ticks(settings, address, method, spelling)


def _survey(source: MongoSource, round_: int) -> int:
    del round_
    return len(source.inventory().documents)


def _listing(source: MongoSource, round_: int) -> int:
    day = (FIRST_DAY + dt.timedelta(days=10 + round_)).date()
    return source.listing(day.isoformat(), f"shop-{round_}").documents


def _examined(database: Database[dict[str, Any]]) -> int:
    query = {"ns": f"{DATABASE}.products", "docsExamined": {"$exists": True}}
    return sum(entry["docsExamined"] for entry in database["system.profile"].find(query))


def _ticks(settings: Settings, address: str, method: str, spelling: str) -> None:
    """Measure the ticks that read all existing documents, and one that finds nothing new."""
    sensor = settings.sensor.model_copy(update={"method": method, "start_from": "everything"})
    changes = open_changes(settings.model_copy(update={"sensor": sensor}), address)
    began = time.perf_counter()
    cursor = changes.initial_cursor()
    changes.retailers()
    _print_tick(spelling, f"first tick, {method}", began, 0)
    caught_up, number = False, 0
    while not caught_up:
        began, number = time.perf_counter(), number + 1
        cursor, caught_up = _tick(changes.pages, cursor, began)
        _print_tick(spelling, f"everything {number}, {method}", began, len(cursor.pending))
    began = time.perf_counter()
    _tick(changes.pages, cursor, began)
    _print_tick(spelling, f"no change, {method}", began, 0)


def _tick(pages: Callable[..., Any], cursor: Cursor, began: float) -> tuple[Cursor, bool]:
    result = scan(
        cursor,
        pages,
        now=time.time(),
        out_of_time=lambda: time.perf_counter() - began > READ_SECONDS,
    )
    return result.cursor, result.caught_up


def _print_tick(spelling: str, name: str, began: float, partitions: int) -> None:
    seconds = time.perf_counter() - began
    print(f"| {spelling} | {name} | yes | {seconds:.2f} | | {partitions:,} |", flush=True)


if __name__ == "__main__":
    main()
