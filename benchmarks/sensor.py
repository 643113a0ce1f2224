"""Measure what a scan of the sensor costs, compared with an inventory of the whole collection.

    python -m benchmarks.sensor                        # one minute
    python -m benchmarks.sensor --documents 1000000

Without the change stream and the poll, the sensor would have to count all documents by day and
retailer in each tick (`MongoSource.inventory`), and would not see a document that replaces another
one. The embedded MongoDB is a replica set of one; the poll, which is for standalone servers, runs
on it as well. Only the documents of the third column are recent.
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bson import ObjectId
from pymongo import MongoClient
from pymongo.collection import Collection

from imgassets.demo.mongod import EmbeddedMongo
from imgassets.folders import home
from imgassets.settings import Settings
from imgassets.sources.changes import scan
from imgassets.sources.mongo_changes import MongoChanges, open_changes

DATABASE = "sensor_benchmark"
FIRST_DAY = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
RETAILERS, DAYS = 20, 30


def main() -> None:
    """Insert the documents, and print one row per method."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=300_000)
    parser.add_argument("--changed", type=int, default=1_000, help="documents that change")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    mongodb = EmbeddedMongo(home() / "bench" / "mongodb")
    address = mongodb.ensure_running()
    try:
        with MongoClient[dict[str, Any]](address, tz_aware=True) as client:
            client.drop_database(DATABASE)
            products = client[DATABASE]["products"]
            products.insert_many(_documents(options.documents))
            _measure(address, products, options.changed, options.rounds)
            client.drop_database(DATABASE)
    finally:
        mongodb.stop()


def _documents(number: int) -> Iterator[dict[str, Any]]:
    """Documents of the last days before this one, with ids and dates that are older than a day."""
    now = dt.datetime.now(dt.UTC)
    for index in range(number):
        age = dt.timedelta(days=1 + index % DAYS, seconds=index % 80_000)
        yield _document(now - age, index)


def _document(moment: dt.datetime, index: int) -> dict[str, Any]:
    id_ = bytearray(ObjectId.from_datetime(moment).binary)
    id_[4:] = index.to_bytes(8)
    return {
        "_id": ObjectId(bytes(id_)),
        "product_retailer": f"shop-{index % RETAILERS}",
        "product_images": [f"https://cdn.example/{index}-{n}.jpg" for n in range(5)],
        "scraped_at": moment,
    }


def _measure(address: str, products: Collection[dict[str, Any]], changed: int, rounds: int) -> None:
    total = products.estimated_document_count()
    print(f"| {total:,} documents, ms | nothing changed | {changed:,} new |\n|---|---|---|")
    settings = Settings.model_validate({"source": {"database": DATABASE}})
    for method in ("stream", "poll"):
        options = settings.sensor.model_copy(update={"method": method})
        changes = open_changes(settings.model_copy(update={"sensor": options}), address)
        idle, busy = _scans(changes, products, changed, rounds)
        print(f"| {method} | {idle:.0f} | {busy:.0f} |")
        yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(hours=12)
        products.delete_many({"scraped_at": {"$gt": yesterday}})
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        changes.source.inventory()
        times.append((time.perf_counter() - began) * 1000)
    print(f"| inventory of the whole collection | {statistics.median(times):.0f} | the same |")


def _scans(
    changes: MongoChanges, products: Collection[dict[str, Any]], changed: int, rounds: int
) -> tuple[float, float]:
    """Median ms of a scan without changes, and of one after so many documents were inserted."""
    cursor = changes.initial_cursor()
    times: dict[int, list[float]] = {0: [], changed: []}
    for number in range(rounds):
        for new, taken in times.items():
            if new:
                now, start = dt.datetime.now(dt.UTC), 10_000_000 + number * new
                products.insert_many(_document(now, start + n) for n in range(new))
            began = time.perf_counter()
            result = scan(cursor, changes.pages, now=time.time(), out_of_time=lambda: False)
            taken.append((time.perf_counter() - began) * 1000)
            if len(result.cursor.pending) != (RETAILERS if new else 0):
                raise AssertionError(f"the scan found {sorted(result.cursor.pending)}")
            cursor = replace(result.cursor, pending={})
    return statistics.median(times[0]), statistics.median(times[changed])


if __name__ == "__main__":
    main()
