"""Download the URLs of a file with imgassets, and optionally process the images.

    python -m benchmarks.imgassets_run URLS DATA_ROOT CLIENT [--process] [--date DATE]

Runs the three steps of the Dagster ops with all checks and records: plan, download, collect. Prints
images/s of the download and of all three steps. With `--process`, the images are then processed
with default settings.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import pandas as pd  # noqa: F401  (else pyarrow imports it in the measured time)
import pyarrow as pa

from imgassets.download.partition import collect, download_shard, plan
from imgassets.folders import models_folder
from imgassets.manifests import ProcessedRow, RawRow, UrlRow, count_outcomes, from_table, to_table
from imgassets.settings import DownloadSettings, RetailerSettings
from imgassets.storage import PartitionFiles, Storage


def main() -> None:
    """Download the images, process them if that is asked for, and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("urls", type=Path, help="file with one URL per line")
    parser.add_argument("data_root")
    parser.add_argument("client", choices=("curl", "requests"))
    parser.add_argument("--process", action="store_true")
    parser.add_argument("--date", default="2026-01-01")
    options = parser.parse_args()
    rows = (
        UrlRow(
            key=f"{number:08d}-0-0123456789",
            url=url,
            retailer="bench",
            date=options.date,
            product_id=f"{number:08d}",
            position=0,
            document_id=f"{number:024x}",
        )
        for number, url in enumerate(options.urls.read_text().splitlines())
    )
    urls = to_table(rows, UrlRow)
    download = {"client": options.client, "allow_private_addresses": True, "threads": 32}
    settings = RetailerSettings(
        download=DownloadSettings.model_validate(download | {"per_host": 32})
    )
    partition = Storage(options.data_root).partition(options.date, "bench")
    start, download_seconds = time.perf_counter(), 0.0
    for shard in plan(urls, partition, settings, log=_ignore):
        report = download_shard(shard, partition, settings.download, log=_ignore)
        download_seconds += report.seconds
    raw = collect(urls, partition, settings)
    seconds = time.perf_counter() - start
    outcomes = count_outcomes(to_table(raw, RawRow))
    if options.process:
        outcomes = count_outcomes(
            to_table(_process(from_table(raw, RawRow), partition, settings), ProcessedRow)
        )
    if outcomes != {"ok": urls.num_rows}:
        sys.exit(f"expected {urls.num_rows} images; outcomes: {outcomes}")
    rate = urls.num_rows / download_seconds if download_seconds else float("inf")
    print(f"{rate:.1f} {urls.num_rows / seconds:.1f}")


def _process(raw: list[RawRow], partition: PartitionFiles, settings: RetailerSettings) -> pa.Table:
    from imgassets.imaging.models import ensure_model
    from imgassets.imaging.partition import process_partition

    model = ensure_model(settings.faces, models_folder())
    return process_partition(to_table(raw, RawRow), partition, settings, model, log=_ignore)


def _ignore(_line: str) -> None:
    pass


if __name__ == "__main__":
    main()
