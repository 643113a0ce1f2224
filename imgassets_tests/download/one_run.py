"""One run of a partition in a process of its own: FOLDER URLS_FILE CLIENT [FLUSH_S].

Prints the peak of the process's memory in MB, and the outcomes.
"""

from __future__ import annotations

import resource
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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(peak, count_outcomes(done))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
