"""Download one partition in a separate process, with the limits of a Redis server.

Arguments: DATA_ROOT URLS_FILE SETTINGS (JSON). Prints a line when it is ready, waits for one on
stdin, and prints the number of rows per outcome and what was logged.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import imgassets.download.curl_client
import imgassets.download.requests_client
import imgassets.download.shared_limits  # noqa: F401  (before the process is ready)
from imgassets.manifests import RawRow, count_outcomes, to_table
from imgassets.storage import Storage
from imgassets_tests.download.conftest import Partition


def main(data_root: str, urls_file: str, settings: str) -> None:
    partition = Partition(Storage(data_root)).with_settings(**json.loads(settings))
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    rows = partition.run(*Path(urls_file).read_text().splitlines())
    print(count_outcomes(to_table(rows, RawRow)), *partition.log, sep="\n")  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
