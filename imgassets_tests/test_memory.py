"""Tests that a large partition is not held as Python objects; `benchmarks.memory` has a million."""

from __future__ import annotations

import datetime as dt
import tracemalloc
from collections.abc import Iterator

import pyarrow as pa

from imgassets.checks.context import CheckContext
from imgassets.checks.duplicates import duplicate_images
from imgassets.checks.metrics import download_success_rate
from imgassets.checks.rows import every_url_has_a_raw_row
from imgassets.download.partition import collect, plan
from imgassets.manifests import RawRow, UrlRow, as_manifest, fingerprint, to_table
from imgassets.settings import RetailerSettings, Settings, SourceSettings
from imgassets.sources.table import TableSource
from imgassets.storage import PartitionFiles, Storage
from imgassets.tables import set_column
from imgassets_tests.rows import PARTITION, raw_row

SMALL, LARGE = 10_000, 25_000
# Bytes of the file, of indices and of masks; an object per row takes more than 1,000.
MAX_BYTES_PER_ROW = 300


def raw_table(rows: int, url: str) -> pa.Table:
    """Rows that differ in key, URL and SHA-256; their files do not exist."""
    table = as_manifest(
        pa.concat_tables([to_table([raw_row()] * 5_000, RawRow)] * (rows // 5_000)), RawRow
    )
    table = set_column(table, "key", pa.array(f"key-{number:08d}" for number in range(rows)))
    table = set_column(table, "url", pa.array(f"{url}/{number}.jpg" for number in range(rows)))
    return set_column(table, "sha256", pa.array(f"{number:064x}" for number in range(rows)))


def list_plan_collect_and_check(partition: PartitionFiles, rows: int) -> None:
    def records() -> Iterator[dict[str, object]]:
        for number in range(rows):
            yield {"url": f"http://a/{number}.jpg", "product_id": number // 500}

    source = SourceSettings(retailer="Zara")
    day = dt.date.fromisoformat(PARTITION.date)
    listing = TableSource(records, source, day).listing(*PARTITION)
    assert listing.table.num_rows == rows
    urls = partition.read_manifest("url_list")
    shards = plan(urls, partition, RetailerSettings(), log=print)
    assert len(shards) == -(-rows // 10_000)
    fingerprint(collect(urls, partition, RetailerSettings()), "key", "outcome", "sha256")
    context = CheckContext(partition, Settings().for_retailer("zara"))
    outcome = every_url_has_a_raw_row(context)
    assert (outcome.metrics["problems"], outcome.found) == (rows, rows)
    assert len(outcome.findings) == 100
    assert duplicate_images(context).metrics["images"] == rows
    assert download_success_rate(context).passed


def test_the_memory_of_a_partition_grows_little_with_its_rows(storage: Storage) -> None:
    peaks = []
    for rows in (5_000, SMALL, LARGE):  # the first one imports and fills caches
        partition = storage.partition(*PARTITION)
        raw = raw_table(rows, "http://a")
        partition.write_manifest("raw_images", raw)
        partition.write_manifest("url_list", as_manifest(raw, UrlRow))
        del raw
        tracemalloc.start()
        try:
            list_plan_collect_and_check(partition, rows)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert (peaks[2] - peaks[1]) / (LARGE - SMALL) < MAX_BYTES_PER_ROW
