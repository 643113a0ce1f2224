"""Download the URLs of a file with imgassets, and optionally process the images.

    python -m benchmarks.imgassets_run URLS FOLDER CLIENT [PROCESSED_FOLDER]

Runs the three steps of the Dagster ops with all checks and records: plan, download, collect. Prints
images/s of the download and of all three steps. With PROCESSED_FOLDER, the images are then
processed into it with default settings.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pandas as pd  # noqa: F401  (else pyarrow imports it in the measured time)

from imgassets.download.partition import collect, download_shard, plan, shard_rows
from imgassets.folders import models_folder
from imgassets.manifests import ProcessedRow, RawRow, UrlRow, count_outcomes
from imgassets.settings import DownloadSettings, RetailerSettings
from imgassets.storage import Folder


def main(urls: str, folder: str, client: str, processed: str | None = None) -> None:
    """Download the images, process them if `processed` is given, and print the rates.

    Args:
        urls: path of a file with one URL per line.
        folder: folder for the downloaded partition.
        client: value of `download.client`.
        processed: folder for the processed images; `None` to process none.
    """
    rows = [
        UrlRow(
            key=f"{number:08d}-0-0123456789",
            url=url,
            retailer="bench",
            date="2026-01-01",
            product_id=f"{number:08d}",
            position=0,
            document_id=f"{number:024x}",
        )
        for number, url in enumerate(Path(urls).read_text().splitlines())
    ]
    settings = DownloadSettings.model_validate(
        {"client": client, "allow_private_addresses": True, "threads": 32, "per_host": 32}
    )
    target = Folder(folder)
    start, download_seconds = time.perf_counter(), 0.0
    for shard in plan(rows, target, settings.shard_size):
        report = download_shard(
            shard_rows(rows, shard),
            target,
            settings,
            shard=shard.name,
            log=lambda _line: None,
        )
        download_seconds += report.seconds
    raw = collect(rows, target)
    seconds = time.perf_counter() - start
    outcomes = count_outcomes(raw)
    if processed is not None:
        outcomes = count_outcomes(_process(raw, target, Folder(processed)))
    if outcomes != {"ok": len(rows)}:
        sys.exit(f"expected {len(rows)} images; outcomes: {outcomes}")
    print(f"{len(rows) / download_seconds:.1f} {len(rows) / seconds:.1f}")


def _process(raw: list[RawRow], raw_folder: Folder, folder: Folder) -> list[ProcessedRow]:
    from imgassets.imaging.models import ensure_model
    from imgassets.imaging.partition import process_partition

    settings = RetailerSettings()
    return process_partition(
        raw,
        raw_folder,
        folder,
        settings,
        ensure_model(settings.faces, models_folder()),
        log=lambda _line: None,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
