from __future__ import annotations

import os
import subprocess
import sys

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
