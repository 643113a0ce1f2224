"""Cost of a catalogue that is listed again unchanged: `python -m benchmarks.second_day`.

Materializes all assets with their checks for three days of one retailer with the same URLs, each
with `dagster asset materialize` in a new process. Every URL has different bytes. CPU is that of the
process and its children. The share of day 1 leaves out start-up, which is the CPU of a run of
`face_model` alone.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pymongo import MongoClient

from benchmarks import catalogue
from benchmarks.programs import BENCH
from imgassets import read_manifest
from imgassets.demo.mongod import EmbeddedMongo
from imgassets.folders import home, project_root

FOLDER = BENCH / "second_day"
DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")
_ASSETS = "url_list,face_model,raw_images,processed_images"
_IMAGES_PER_PRODUCT = 5


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--urls", type=int, default=10_000)
    options = parser.parse_args()
    served = BENCH / "served"
    catalogue.make(served)
    catalogue.make_people(served)
    shutil.rmtree(FOLDER, ignore_errors=True)
    _distinct(served / "people", FOLDER / "served", options.urls)
    with catalogue.nginx(FOLDER / "served") as address, _source(address, options.urls) as variables:
        print("| day | CPU s | wall s | requested | processed | share of day 1's CPU |")
        print("|---|---|---|---|---|---|")
        start_up, _ = _materialize(variables, "face_model")
        first = 0.0
        for day in DAYS:
            cpu, wall = _materialize(variables, _ASSETS, "--partition", f"{day}|shop")
            first = first or cpu - start_up
            share = (cpu - start_up) / first
            print(f"| {day} | {cpu:.2f} | {wall:.1f} | {_counts(day)} | {share:.1%} |", flush=True)
        print(f"\nStart-up: {start_up:.2f} CPU s.")
    shutil.rmtree(FOLDER)


def _distinct(source: Path, target: Path, count: int) -> None:
    """Write images that differ in a comment (a COM segment, after the SOI marker)."""
    target.mkdir(parents=True)
    for number in range(count):
        data = (source / f"{number % catalogue.IMAGES}.jpg").read_bytes()
        comment = f"{number:08d}".encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment
        (target / f"{number}.jpg").write_bytes(data[:2] + segment + data[2:])


@contextmanager
def _source(address: str, urls: int) -> Iterator[dict[str, str]]:
    """Start MongoDB with the same products on each day.

    Yields:
        The environment variables of processes that use it.
    """
    config = {
        "data_root": str(FOLDER / "data"),
        "source": {"database": "bench", "collection": "days"},
        "download": {"allow_private_addresses": True},
        # The images are composed; a failed check would draw images of its findings.
        "checks": {"max_residual_faces": 1, "severity": {"residual_faces": "warn"}},
    }
    (FOLDER / "config.yaml").write_text(yaml.safe_dump(config))
    mongodb = EmbeddedMongo(home() / "bench" / "mongodb")
    uri = mongodb.ensure_running()
    try:
        with MongoClient[dict[str, Any]](uri, tz_aware=True) as client:
            days = client["bench"]["days"]
            days.drop()
            for day in DAYS:
                noon = dt.datetime.combine(dt.date.fromisoformat(day), dt.time(12), dt.UTC)
                days.insert_many(
                    {
                        "product_retailer": "shop",
                        "product_images": [
                            f"{address}/{number}.jpg"
                            for number in range(start, min(start + _IMAGES_PER_PRODUCT, urls))
                        ],
                        "scraped_at": noon,
                    }
                    for start in range(0, urls, _IMAGES_PER_PRODUCT)
                )
        variables = {
            **os.environ,
            "PYTHONPATH": str(project_root()),
            "IMGASSETS_CONFIG": str(FOLDER / "config.yaml"),
            "MONGODB_URI": uri,
            "DAGSTER_HOME": str(FOLDER / "dagster_home"),
        }
        subprocess.run(
            [_program("imgassets"), "sync"], env=variables, check=True, stdout=subprocess.DEVNULL
        )
        yield variables
    finally:
        mongodb.stop()


def _materialize(variables: dict[str, str], assets: str, *options: str) -> tuple[float, float]:
    """Materialize assets; returns CPU and wall time in seconds."""
    before, start = os.times(), time.perf_counter()
    arguments = ["asset", "materialize", "--select", assets, *options]
    with (FOLDER / "log").open("a") as log:
        subprocess.run(
            [_program("dagster"), *arguments, "-m", "imgassets.definitions"],
            env=variables,
            check=True,
            stdout=log,
            stderr=log,
        )
    after = os.times()
    cpu = after.children_user + after.children_system
    return cpu - before.children_user - before.children_system, time.perf_counter() - start


def _counts(day: str) -> str:
    """Numbers of requested URLs and of processed images, as cells of the table."""
    raw, processed = (
        read_manifest(asset, data_root=str(FOLDER / "data"), start=day, end=day)
        for asset in ("raw_images", "processed_images")
    )
    new = processed[processed["reused_from"].isna() & (processed["outcome"] == "ok")]
    return f"{(raw['attempts'] > 0).sum()} | {len(new)}"


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


if __name__ == "__main__":
    main()
