"""Process one partition of the retailer `zara` in a separate process.

Arguments: DATA_ROOT DATE MODEL OPTIONS, the options as JSON. Reads the manifest of `raw_images`,
and removes the raw files in the end if `process.keep_raw` is false. Prints the log.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from imgassets.imaging.partition import process_partition, remove_raw_images
from imgassets.manifests import RawRow, from_table
from imgassets.settings import RetailerSettings
from imgassets.storage import Storage


def main(data_root: str, date: str, model: str, options: str) -> None:
    settings = RetailerSettings.model_validate(json.loads(options))
    storage = Storage(data_root)
    partition = storage.partition(date, "zara")
    raw_rows = from_table(partition.read_manifest("raw_images"), RawRow)
    rows = process_partition(raw_rows, partition, settings, Path(model), log=print)
    if not settings.process.keep_raw:
        remove_raw_images(rows, storage)


if __name__ == "__main__":
    main(*sys.argv[1:])
