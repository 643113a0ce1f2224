"""Starts runs, and knows whether the process of a run is still there.

Here lives the one question that Dagster's own `DefaultRunLauncher` does not answer. A run's process
that dies alone is seen by the code server that started it. Where both end at once (the machine went
off, the container was replaced), nobody would ever say so: the run would stay "started", hold its
retailer's slot, and let no other run of that retailer begin. `run_monitoring` asks this launcher,
marks such a run as failed, and it is retried. `dagster.yaml` names it.
https://docs.dagster.io/deployment/execution/run-monitoring
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import psutil
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus

if TYPE_CHECKING:
    from dagster import DagsterRun

_STARTED = "Started process for run"
# The process exists before it tells its number; a clock that is set moves what psutil calculates.
_CLOCK_SECONDS = 60
# Dagster's code server starts runs by Python's multiprocessing, which names itself so.
_MULTIPROCESSING = "multiprocessing"


class WatchingRunLauncher(dg.DefaultRunLauncher):
    """Starts a run as a process of this machine, and finds that process again.

    The daemon, which asks, must be on the machine (or in the container) that runs are started on;
    it is, as long as the code location is a module or a file in `workspace.yaml`.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether run monitoring may ask."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a started run is there."""
        told = self._told(run.run_id)
        if told is None:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the run has told of no process")
        pid, moment = told
        if _lives(pid, moment):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"its process {pid} has gone")

    def _told(self, run_id: str) -> tuple[int, float] | None:
        """The run's process, and when it said so in seconds since 1970."""
        for entry in self._instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            event = entry.dagster_event
            if event is not None and str(event.message).startswith(_STARTED):
                pid = event.engine_event_data.metadata["pid"].value
                return int(str(pid)), entry.timestamp
        return None


def _lives(pid: int, moment: float) -> bool:
    """Whether this process exists, is a run and began before that moment.

    Numbers are used again: in a container that is replaced, within seconds, by a server.
    """
    try:
        process = psutil.Process(pid)
        began, command = process.create_time(), process.cmdline()  # a zombie has none
    except psutil.Error:
        return False
    return began < moment + _CLOCK_SECONDS and any(_MULTIPROCESSING in word for word in command)
