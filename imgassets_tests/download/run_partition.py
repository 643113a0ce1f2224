"""Download one partition in a separate process.

Arguments: DATA_ROOT DATE URLS_FILE CLIENT. Prints the peak memory of the process in MB, and the
number of rows per outcome.
"""

from __future__ import annotations

import sys
from pathlib import Path

from imgassets.manifests import RawRow, count_outcomes, to_table
from imgassets.storage import Storage
from imgassets_tests.download.conftest import Partition


def main(data_root: str, date: str, urls_file: str, client: str) -> None:
    partition = Partition(Storage(data_root), date)
    partition.with_settings(client=client, robots=True, user_agent="imgassets")
    rows = partition.run(*Path(urls_file).read_text().splitlines())
    print(_peak_mb(), count_outcomes(to_table(rows, RawRow)))  # noqa: T201


def _peak_mb() -> int:
    # Not `getrusage`: its peak is inherited from the parent process, here the whole test run.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
