"""One run of a partition in a process of its own: FOLDER URLS_FILE CLIENT [FLUSH_S].

Prints the peak of the process's memory in MB, and the outcomes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from imgassets.download import journal
from imgassets.manifests import count_outcomes
from imgassets.storage import Folder
from imgassets_tests.download.conftest import Partition, url_rows


def main(folder: str, urls_file: str, client: str, flush_s: str = "2") -> None:
    journal.FLUSH_S = float(flush_s)
    rows = url_rows(*Path(urls_file).read_text().splitlines())
    partition = Partition(Folder(folder))
    partition.with_settings(client=client, robots=True, user_agent="imgassets")
    done = partition.run_rows(rows)
    print(_peak_mb(), count_outcomes(done))  # noqa: T201


def _peak_mb() -> int:
    # Not `getrusage`: it starts from the peak of the process that started this one, which is the
    # whole test run's.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
