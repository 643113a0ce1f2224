from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imgassets.cores import available_cores
from imgassets_tests.cpu_quota import with_quota


def test_only_the_cores_that_this_process_may_use_are_counted() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", None),
        ("100000 100000", 1),
        ("5000 10000", 1),
        ("110000 100000", 2),
        ("99900000 100000", None),
    ],
)
def test_the_cpu_quota_of_a_container_limits_the_cores(quota: str, cores: int | None) -> None:
    all_cores = len(os.sched_getaffinity(0))
    program = "from imgassets.cores import available_cores; print(available_cores())"
    command = with_quota(quota, [sys.executable, "-c", program])
    found = int(subprocess.run(command, capture_output=True, check=True).stdout)
    assert found == min(all_cores, cores or all_cores)


_READS_A_TABLE = """
import os, sys
import pyarrow as pa
from imgassets.storage import Storage, read_table, write_table

pa.set_cpu_count(16)  # as on a node with 16 cores
storage = Storage(sys.argv[1])
write_table(storage, "t.parquet", pa.table({f"c{i}": range(20_000) for i in range(30)}))
before = len(os.listdir("/proc/self/task"))
read_table(storage, "t.parquet")
print(len(os.listdir("/proc/self/task")) - before)
"""


def test_reading_a_manifest_starts_no_thread_per_core_of_the_machine(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _READS_A_TABLE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, check=True)
    assert int(done.stdout) == 0
