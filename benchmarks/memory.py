"""Peak memory of the steps of a partition of a million rows.

    python -m benchmarks.memory                    # 1,000,000 rows, all stages
    python -m benchmarks.memory --rows 100000 --only plan shard

The manifests are made up: URLs of 80 characters, SHA-256, boxes, landmarks; 60 % of the images have
a face, 2 % of the downloads failed. The image files are sparse files of the right size. All but the
last 100,000 images are processed before. Every stage is a process of its own, without its workers;
the figure is its largest resident size, with all imports, on Linux.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.programs import OUT
from imgassets.checks.context import CheckContext
from imgassets.checks.duplicates import duplicate_images
from imgassets.checks.files import processed_files_match_rows, raw_files_match_rows
from imgassets.checks.metrics import download_success_rate, face_removal, trim_ratios
from imgassets.checks.outcome import CheckOutcome
from imgassets.checks.rows import every_url_has_a_processed_row, every_url_has_a_raw_row
from imgassets.defs.metadata import size_metadata
from imgassets.download.partition import collect, plan
from imgassets.folders import models_folder
from imgassets.imaging.models import ensure_model
from imgassets.imaging.partition import (
    RAW_COLUMNS,
    Shard,
    plan_shards,
    process_partition,
    process_shard,
)
from imgassets.imaging.residual import detect_residual_faces
from imgassets.imaging.worker_protocol import settings_hash
from imgassets.manifests import (
    PROCESSED_IMAGES,
    RAW_IMAGES,
    SCHEMAS,
    URL_LIST,
    ProcessedRow,
    RawRow,
    UrlRow,
    as_manifest,
    count_outcomes,
    fingerprint,
    to_table,
)
from imgassets.review.pages import write_review
from imgassets.settings import DownloadSettings, RetailerSettings, Settings, SourceSettings
from imgassets.sources.table import TableSource
from imgassets.storage import PartitionFiles, Storage, processed_path, raw_path
from imgassets.tables import release_memory, set_column

FOLDER = OUT.parent / "imgassets-memory"
DAY, NEXT_DAY, RETAILER = "2026-01-02", "2026-01-03", "shop"
NEW_IMAGES = 100_000
_SHARDS = "shards.json"
_BATCH = 50_000
_PER_PRODUCT = 5
_FAILED_EVERY, _FACES_OF_TEN = 50, 6
_RAW_BYTES, _PROCESSED_BYTES = 190_000, 31_000


def url_list(numbers: range) -> pa.Table:
    """A part of a manifest of `url_list`.

    Args:
        numbers: Numbers of its rows.
    """
    return _table(UrlRow, URL_LIST, _url_columns(numbers))


def raw_images(numbers: range) -> pa.Table:
    """A part of a manifest of `raw_images`; each row has an image of its own.

    Args:
        numbers: Numbers of its rows.
    """
    hashes = list(map(_sha256, numbers))
    ok = list(map(_is_ok, numbers))

    def given(values: Sequence[object]) -> list[object]:
        return [value if good else None for value, good in zip(values, ok, strict=True)]

    columns = _url_columns(numbers) | {
        "outcome": ["ok" if good else "http_error" for good in ok],
        "http_status": [200 if good else 404 for good in ok],
        "error": [None if good else "the server answered with the status 404" for good in ok],
        "attempts": [1] * len(numbers),
        "path": given([raw_path(RETAILER, sha256, "jpg") for sha256 in hashes]),
        "bytes": given([_RAW_BYTES + number % 1000 for number in numbers]),
        "sha256": given(hashes),
        "format": given(["jpeg"] * len(numbers)),
        "width": given([1000] * len(numbers)),
        "height": given([1500] * len(numbers)),
        "etag": given([f'"{sha256[:32]}"' for sha256 in hashes]),
        "last_modified": ["Thu, 01 Jan 2026 08:15:00 GMT"] * len(numbers),
        "fetched_at": pa.array([1_767_340_800_000] * len(numbers), pa.timestamp("ms", "UTC")),
        "elapsed_ms": [100 + number % 900 for number in numbers],
        "reused_from": [None] * len(numbers),
    }
    return _table(RawRow, RAW_IMAGES, columns)


def processed_images(numbers: range, hash_: str) -> pa.Table:
    """A part of a manifest of `processed_images`.

    Args:
        numbers: Numbers of its rows.
        hash_: Hash of the settings.
    """
    hashes = list(map(_sha256, numbers))
    ok = list(map(_is_ok, numbers))
    boxes = [_boxes(number) if good else None for number, good in zip(numbers, ok, strict=True)]

    def given(values: Sequence[object]) -> list[object]:
        return [value if good else None for value, good in zip(values, ok, strict=True)]

    def of_faces(value: Callable[[int], object]) -> list[object]:
        return [
            value(number) if found else None for number, found in zip(numbers, boxes, strict=True)
        ]

    columns = _url_columns(numbers) | {
        "raw_path": given([raw_path(RETAILER, sha256, "jpg") for sha256 in hashes]),
        "raw_sha256": given(hashes),
        "outcome": ["ok" if good else "no_raw" for good in ok],
        "error": [None if good else "raw_images: http_error" for good in ok],
        "path": given([processed_path(RETAILER, sha, hash_, "jpg") for sha in hashes]),
        "bytes": given([_PROCESSED_BYTES + number % 1000 for number in numbers]),
        "sha256": given([_sha256(-1 - number) for number in numbers]),
        "width": given([299] * len(numbers)),
        "height": given([448] * len(numbers)),
        "face_count": [None if found is None else len(found) for found in boxes],
        "face_box": of_faces(lambda number: _boxes(number)[0]),
        "face_score": of_faces(lambda number: 0.7 + number % 30 / 100),
        "face_boxes": boxes,
        "face_scores": [
            None if found is None else [0.7 + number % 30 / 100] * len(found)
            for number, found in zip(numbers, boxes, strict=True)
        ],
        "face_landmarks": [
            None
            if found is None
            else [[430, 200, 560, 200, 495, 260, 440, 330, 550, 330]] * len(found)
            for found in boxes
        ],
        "face_action": of_faces(lambda _: "crop"),
        "face_rule": of_faces(lambda _: "lowest_chin"),
        "face_cut": of_faces(lambda number: 400 + number % 100),
        "face_removed": of_faces(lambda _: True),
        "trim_box": given([[40 + number % 50, 10, 900, 1050] for number in numbers]),
        "trim_threshold": given([12.5] * len(numbers)),
        "trim_ratio": given([0.3 + number % 600 / 1000 for number in numbers]),
        "kept_box": given([[40 + number % 50, 410, 900, 1050] for number in numbers]),
        "settings_hash": [hash_] * len(numbers),
        "reused_from": [None] * len(numbers),
    }
    return _table(ProcessedRow, PROCESSED_IMAGES, columns)


def list_urls(partition: PartitionFiles) -> None:
    """List the documents of a file-like source, as `url_list` does."""
    rows = partition.read_manifest("url_list", ["key"]).num_rows

    def records() -> Iterator[dict[str, object]]:
        for numbers in _parts(rows):
            columns = _url_columns(numbers)
            for url, product in zip(columns["url"], columns["product_id"], strict=True):
                yield {"url": url, "product_id": product, "retailer": RETAILER, "date": DAY}

    source = TableSource(records, SourceSettings(), dt.date(2026, 1, 1))
    listing = source.listing(DAY, RETAILER)
    table = as_manifest(listing.table, UrlRow)
    partition.write_manifest("listed", table)
    fingerprint(table, "key", "url")


def plan_raw(partition: PartitionFiles, date: str, **options: int) -> None:
    """Plan the download of the URLs on a day.

    Args:
        partition: The partition of `DAY`.
        date: The day.
        options: Settings of the section `download`.
    """
    settings = RetailerSettings(download=DownloadSettings.model_validate(options))
    print(len(plan(_urls_on(partition, date), _on(partition, date), settings, log=print)), "shards")


def collect_raw(partition: PartitionFiles, date: str) -> None:
    """Write the manifest of a day, and make its metadata."""
    table = collect(_urls_on(partition, date), _on(partition, date), RetailerSettings())
    print(count_outcomes(table), size_metadata(table))
    fingerprint(table, "key", "outcome", "sha256")


def check(partition: PartitionFiles, asset: str) -> None:
    """Run the checks of an asset."""
    context = CheckContext(partition, Settings().for_retailer(RETAILER))
    checks: list[Callable[[CheckContext], CheckOutcome]] = (
        [every_url_has_a_raw_row, raw_files_match_rows, duplicate_images, download_success_rate]
        if asset == "raw_images"
        else [
            every_url_has_a_processed_row,
            processed_files_match_rows,
            trim_ratios,
            face_removal,
            residual_faces,
        ]
    )
    for each in checks:
        print(each(context).description)
        release_memory()


def residual_faces(context: CheckContext) -> CheckOutcome:
    """The detection of the check `residual_faces`."""
    model = ensure_model(context.options.faces, models_folder())
    found = detect_residual_faces(
        context.processed_table, context.storage, context.options, model, threads=2
    )
    return CheckOutcome(summary=f"{len(found.unreadable)} files without an image were read")


def _on(partition: PartitionFiles, date: str) -> PartitionFiles:
    return partition.storage.partition(date, partition.retailer)


def _urls_on(partition: PartitionFiles, date: str) -> pa.Table:
    table = partition.read_manifest("url_list")
    dates = pa.array([date], pa.string()).cast(pa.date32())[0]
    return set_column(table, "date", pa.repeat(dates, table.num_rows))


def _plan(partition: PartitionFiles) -> None:
    raw = partition.read_manifest("raw_images", RAW_COLUMNS)
    shards = plan_shards(raw, partition, RetailerSettings(), log=_ignore)
    (FOLDER / _SHARDS).write_text(json.dumps([asdict(shard) for shard in shards]))


def _shard(partition: PartitionFiles) -> None:
    """Process the shards; their files are no images, so the workers only read them."""
    settings = RetailerSettings()
    model = ensure_model(settings.faces, models_folder())
    for shard in json.loads((FOLDER / _SHARDS).read_text()):
        process_shard(Shard(**shard), partition, settings, model, log=_ignore)


def _collect(partition: PartitionFiles) -> None:
    """Take over the plan and the shards, and write the manifest and the sheets."""
    raw = partition.read_manifest("raw_images", RAW_COLUMNS)
    model = ensure_model(RetailerSettings().faces, models_folder())
    table = process_partition(raw, partition, RetailerSettings(), model, log=_ignore)
    del raw
    write_review(table, partition, RetailerSettings().review)
    fingerprint(table, "key", "outcome", "sha256")


def _ignore(_line: str) -> None:
    pass


STAGES: dict[str, Callable[[PartitionFiles], object]] = {
    "url_list": list_urls,
    "raw_images: plan, nothing known": lambda p: plan_raw(p, NEXT_DAY, reuse_days=0),
    "raw_images: plan, another day's are asked whether they changed": lambda p: plan_raw(
        p, NEXT_DAY, revalidate_after_days=0
    ),
    "raw_images: plan, another day's are taken over": lambda p: plan_raw(
        p, NEXT_DAY, revalidate_after_days=3650
    ),
    "raw_images: collect what was taken over": lambda p: collect_raw(p, NEXT_DAY),
    "raw_images: plan, all done": lambda p: plan_raw(p, DAY),
    "raw_images: collect, all done": lambda p: collect_raw(p, DAY),
    "raw_images: checks": lambda p: check(p, "raw_images"),
    "processed_images: checks": lambda p: check(p, "processed_images"),
    "processed_images: plan": _plan,
    "processed_images: shard": _shard,
    "processed_images: collect": _collect,
}
"""What is measured, by name: a function that does it with a partition of `make_partition`."""


def main() -> None:
    """Run every stage in a process of its own, and print its peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="*", choices=STAGES, default=list(STAGES))
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    partition = Storage(str(FOLDER)).partition(DAY, RETAILER)
    if options.stage is not None:
        STAGES[options.stage](partition)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = usage.ru_utime + usage.ru_stime
        print(f"| {options.stage} | {_peak_bytes() / 1e6:.0f} | {cpu_s:.1f} |", flush=True)
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    started = time.monotonic()
    make_partition(partition, options.rows)
    print(f"made in {time.monotonic() - started:.0f} s\n")
    print(f"| {options.rows:,} rows | peak MB | CPU s |\n|---|---|---|", flush=True)
    command = [sys.executable, "-m", "benchmarks.memory"]
    for stage in options.only:
        subprocess.run([*command, "--stage", stage], check=True)
    shutil.rmtree(FOLDER)


def _peak_bytes() -> int:
    """The largest resident size of this process; `ru_maxrss` has that of its parent, if larger."""
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    )
    return int(line.split()[1]) * 1024


def make_partition(partition: PartitionFiles, rows: int) -> None:
    """Write the manifests and the image files of a partition.

    All images are processed but the last `NEW_IMAGES`.

    Args:
        partition: The partition, on a disk.
        rows: Number of rows of `url_list` and `raw_images`.
    """
    hash_ = settings_hash(RetailerSettings())
    for asset, part, count in (
        ("url_list", url_list, rows),
        ("raw_images", raw_images, rows),
        ("processed_images", lambda part: processed_images(part, hash_), rows - NEW_IMAGES),
    ):
        tables = [part(numbers) for numbers in _parts(count)]
        partition.write_manifest(asset, pa.concat_tables(tables))
        for table in tables:
            if asset != "url_list":
                _make_files(partition.storage, table)


def _make_files(storage: Storage, table: pa.Table) -> None:
    """Make sparse files of the size that the rows say."""
    for path, size in zip(table["path"].to_pylist(), table["bytes"].to_pylist(), strict=True):
        if path is not None:
            address = storage.address(path)
            try:
                handle = os.open(address, os.O_WRONLY | os.O_CREAT)
            except FileNotFoundError:
                Path(address).parent.mkdir(parents=True)
                handle = os.open(address, os.O_WRONLY | os.O_CREAT)
            os.ftruncate(handle, size)
            os.close(handle)


def _parts(count: int) -> Iterator[range]:
    return (range(start, min(start + _BATCH, count)) for start in range(0, count, _BATCH))


def _url_columns(numbers: range) -> dict[str, list[Any]]:
    products = [number // _PER_PRODUCT for number in numbers]
    return {
        "key": [
            f"{product:012d}-{number % _PER_PRODUCT}"
            for product, number in zip(products, numbers, strict=True)
        ],
        "url": [
            f"https://static.example.com/photos/2026/I/0/2/p/{number:032x}.jpg"
            for number in numbers
        ],
        "retailer": [RETAILER] * len(numbers),
        "date": [DAY] * len(numbers),
        "product_id": [f"{product:012d}" for product in products],
        "position": [number % _PER_PRODUCT for number in numbers],
        "document_id": [f"{product:024x}" for product in products],
    }


def _table(row_class: type[UrlRow], schema: pa.Schema, columns: dict[str, object]) -> pa.Table:
    metadata = to_table([], row_class).schema.metadata
    arrays = []
    for field in schema:
        values = columns[field.name]
        if pa.types.is_date(field.type):
            values = pa.array(values, pa.string()).cast(field.type)
        arrays.append(values if isinstance(values, pa.Array) else pa.array(values, field.type))
    return pa.table(arrays, schema=SCHEMAS[row_class].with_metadata(metadata))


def _sha256(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def _is_ok(number: int) -> bool:
    return (number + 1) % _FAILED_EVERY != 0


def _boxes(number: int) -> list[list[int]]:
    return [[400 + number % 50, 120, 180, 240]] if number % 10 < _FACES_OF_TEN else []


if __name__ == "__main__":
    main()
