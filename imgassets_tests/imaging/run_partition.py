"""Process one partition of the retailer `zara` in a separate process.

Arguments: DATA_ROOT DATE MODEL OPTIONS, the options as JSON. Reads the manifest of `raw_images`,
and removes the raw files in the end if `process.keep_raw` is false. Prints the log.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from imgassets.imaging.partition import process_partition, remove_raw_images
from imgassets.settings import RetailerSettings
from imgassets.storage import Storage


def main(data_root: str, date: str, model: str, options: str) -> None:
    settings = RetailerSettings.model_validate(json.loads(options))
    storage = Storage(data_root)
    partition = storage.partition(date, "zara")
    raw = partition.read_manifest("raw_images")
    table = process_partition(raw, partition, settings, Path(model), log=print)
    if not settings.process.keep_raw:
        remove_raw_images(table, storage)


if __name__ == "__main__":
    main(*sys.argv[1:])
