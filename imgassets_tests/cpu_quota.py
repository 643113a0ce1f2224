"""Run a program under the CPU quota of a container."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

import pytest

_SCRIPT = 'mount -t tmpfs none /sys/fs/cgroup && echo "$0" >/sys/fs/cgroup/cpu.max && exec "$@"'


def with_quota(quota: str, command: Sequence[str]) -> list[str]:
    """Build a command that runs another one where the control group has a quota (cgroup v2).

    The kernel does not enforce it: only the file that says it is there. Skips the test where mount
    namespaces are not permitted.

    Args:
        quota: Content of `cpu.max`: microseconds of CPU time, or `max`, and of the period.
        command: The other command.
    """
    prefix = ["unshare", "-m", "sh", "-c", _SCRIPT, quota]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no permission to create a mount namespace (unshare -m)")
    return [*prefix, *command]
