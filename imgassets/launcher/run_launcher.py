"""Starts runs, and knows whether the process of a run is still there.

Here live the two things that Dagster's own `DefaultRunLauncher` does not do; `dagster.yaml` names
this one.

Dagster starts a fresh interpreter for every run, which imports a second of Dagster and a second of
what the assets need before it does anything. Here a run is forked from `warm.server`, which has
all of it imported, and is then what `dagster api execute_run` is, as launchers for containers start
it. Where that cannot be done, Dagster's own way is taken.

A run's process that dies alone is seen by the server that forked it, and the run is marked as
failed. Where both end at once (the machine went off, the container was replaced), nobody would
ever say so: the run would stay "started", hold its retailer's slot, and let no other run of that
retailer begin. `run_monitoring` asks this launcher, marks such a run as failed, and it is retried.
https://docs.dagster.io/deployment/execution/run-monitoring
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
import psutil

# Dagster has no public names for what a launcher is given and answers.
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClassData

from imgassets.launcher import server
from imgassets.launcher.client import ForkServer, ForkServerError
from imgassets.launcher.processes import ProcessIdentity

if TYPE_CHECKING:
    from dagster import DagsterRun

# The page hides tags of that beginning.
PROCESS_TAG = ".dagster/imgassets_process"

_STARTED = "Started process for run"
# The process exists before it tells its number; a clock that is set moves what psutil calculates.
_CLOCK_SECONDS = 60
# Dagster's code server starts runs by Python's multiprocessing, which names itself so.
_PROGRAMS = ("multiprocessing", server.__file__)


class ForkingRunLauncher(dg.DefaultRunLauncher):
    """Starts a run as a process of this machine, and finds that process again.

    The daemon, which asks, must be on the machine (or in the container) that runs are started on;
    it is, as long as the code location is a module or a file in `workspace.yaml`.
    """

    def __init__(
        self, inst_data: ConfigurableClassData | None = None, *, fork: bool = True
    ) -> None:
        super().__init__(inst_data)
        self._server = ForkServer() if fork else None

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Options under `run_launcher: config:` in `dagster.yaml`."""
        return {
            "fork": dg.Field(
                bool,
                default_value=True,
                description="fork runs from a process that has imported their libraries",
            )
        }

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> ForkingRunLauncher:
        """The launcher with these options."""
        return cls(inst_data, **config_value)

    def dispose(self) -> None:
        """End the warm server; its runs go on."""
        if self._server is not None:
            self._server.close()
        super().dispose()

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start a run's process."""
        run = context.dagster_run
        if self._server is None or not _is_of_this_interpreter(run):
            super().launch_run(context)
            return
        try:
            self._fork(self._server, run)
        except ForkServerError as error:
            logging.getLogger(__name__).warning(
                f"run {run.run_id} is started in Dagster's own way, which takes longer: {error}"
            )
            super().launch_run(context)

    def _fork(self, server: ForkServer, run: DagsterRun) -> None:
        origin = run.job_code_origin
        if origin is None:
            raise ForkServerError("it does not say where its code is")
        arguments = ExecuteRunArgs(origin, run.run_id, self._instance.get_ref())
        # Before them stands the program, which is `dagster`.
        command = [*arguments.get_command_args()][-3:]
        server.start(
            "dagster",
            command,
            ready=partial(self._note, run),
            ended=partial(self._has_ended, run.run_id),
        )

    def _note(self, run: DagsterRun, process: ProcessIdentity) -> None:
        # With the run's id: a run that is executed again inherits the tags of the first.
        tag = f"{run.run_id} {process.dump()}"
        self._instance.add_run_tags(run.run_id, {PROCESS_TAG: tag})
        self._instance.report_engine_event(
            f"Forked process {process.pid} for this run, with its libraries already imported.",
            run,
            cls=type(self),
        )

    def _has_ended(self, run_id: str, status: int | None) -> None:
        """Mark a run whose process ended before it could say how the run ended."""
        if status == 0 or not self.has_instance:
            return
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return
        if status is None:
            mark = _mark(run)
            if mark is None or mark.lives:
                return  # it goes on without the server
            how = "unknown"
        else:
            how = str(signal.strsignal(-status)) if status < 0 else f"status {status}"
        told = f"The run's process ended: {how}."
        if run.status is dg.DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(run, told)
        else:
            self._instance.report_run_failed(run, told)

    def terminate(self, run_id: str) -> bool:
        """Interrupt a run, which then ends as canceled and keeps what it has.

        Returns:
            Whether its process was there.
        """
        run = self._instance.get_run_by_id(run_id)
        mark = None if run is None else _mark(run)
        if run is None or mark is None:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        if run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        if mark.send(signal.SIGINT):
            return True
        self._instance.report_engine_event(
            f"Its process {mark.pid} is not on this machine, or has gone.", run, cls=type(self)
        )
        return False

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether run monitoring may ask."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a started run is there."""
        mark = _mark(run)
        if mark is not None:
            pid, lives = mark.pid, mark.lives
        else:
            told = self._told(run.run_id)
            if told is None:
                return CheckRunHealthResult(
                    WorkerStatus.NOT_FOUND, "the run has told of no process"
                )
            pid, lives = told[0], _lives(*told)
        if lives:
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


def _is_of_this_interpreter(run: DagsterRun) -> bool:
    """Whether its code can be loaded here: in no server of the user's, with no other Python."""
    remote, code = run.remote_job_origin, run.job_code_origin
    if remote is None or code is None:
        return False
    location = remote.repository_origin.code_location_origin
    return (
        not isinstance(location, GrpcServerCodeLocationOrigin)
        and code.executable_path == sys.executable
    )


def _mark(run: DagsterRun) -> ProcessIdentity | None:
    """The process that was forked for a run."""
    run_id, _, told = run.tags.get(PROCESS_TAG, "").partition(" ")
    return ProcessIdentity.load(told) if run_id == run.run_id else None


def _lives(pid: int, moment: float) -> bool:
    """Whether this process exists, is a run and began before that moment.

    Numbers are used again: in a container that is replaced, within seconds, by a server.
    """
    try:
        process = psutil.Process(pid)
        began, command = process.create_time(), process.cmdline()  # a zombie has none
    except psutil.Error:
        return False
    is_run = any(program in word for word in command for program in _PROGRAMS)
    return is_run and began < moment + _CLOCK_SECONDS
