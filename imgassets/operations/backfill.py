"""Launch runs of given partitions by `dagster job backfill`; the daemon executes them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from imgassets.errors import BackfillError
from imgassets.folders import project_root
from imgassets.wording import counted

JOB = "catalogue_job"
# Linux limits an argument to 128 kB; a key has at most 75 characters.
_PER_COMMAND = 1_500
_BACKFILL_ID = re.compile(r"Launched backfill job `(\w+)`")


def launch_backfill(keys: Sequence[str]) -> Iterator[int]:
    """Launch a backfill of `catalogue_job`; large ones are several backfills.

    Args:
        keys: Partition keys, for example `["2026-01-31|zara"]`.

    Yields:
        The number of runs that each command has queued.

    Raises:
        BackfillError: There is no `workspace.yaml`, or Dagster refused.
    """
    workspace = project_root() / "workspace.yaml"
    if not workspace.is_file():
        raise BackfillError(f"{workspace} does not exist; run `imgassets init` in this folder")
    program = _program("dagster")
    for start in range(0, len(keys), _PER_COMMAND):
        part = keys[start : start + _PER_COMMAND]
        command = [program, "job", "backfill", "-j", JOB, "-w", str(workspace), "--noprompt"]
        done = subprocess.run(  # noqa: S603
            [*command, "--partitions", ",".join(part)],
            cwd=project_root(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            reason = lines[-1].strip() if lines else "no message"
            raise BackfillError(
                f"`dagster job backfill` failed after {start:,} of "
                f"{counted(len(keys), 'partition')}: {reason}; "
                "is DAGSTER_HOME that of the daemon?"
            )
        _reopen(done.stdout)
        yield len(part)


def _reopen(output: str) -> None:
    """Mark a backfill as in progress; the daemon marks it as ended when all its runs have ended.

    `dagster job backfill` (1.13) marks it as completed once its runs are queued, and the daemon
    retries no crashed runs of completed backfills. It launches no partition of a backfill twice.

    Args:
        output: What `dagster job backfill` has printed.
    """
    import dagster as dg

    (backfill_id,) = _BACKFILL_ID.findall(output)
    with dg.DagsterInstance.get() as instance:
        backfill: Any = instance.get_backfill(backfill_id)
        in_progress = type(backfill.status).REQUESTED
        instance.update_backfill(backfill.with_status(in_progress))


def daemon_is_running() -> bool:
    """Whether Dagster's daemon, which executes queued runs, works on the `DAGSTER_HOME`."""
    command = [_program("dagster-daemon"), "liveness-check"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))
