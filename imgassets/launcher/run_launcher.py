"""The run launcher that `dagster.yaml` names: forks runs, and checks that their processes exist.

Dagster's `DefaultRunLauncher` starts a new interpreter for each run, which spends about 2 s on
imports: one on Dagster, one on the assets' libraries. This launcher asks the fork server (`server`)
to fork the run, which then executes `dagster api execute_run` as the launchers for containers do.
If a run cannot be forked, the default launcher starts it.

If only the run's process ends, the fork server reports it and the run is marked as failed. If the
machine or the container goes down, nothing reports it: the run would stay "started" and hold its
retailer's slot, so that no other run of that retailer begins. Run monitoring asks this launcher
whether the process exists, marks such a run as failed, and the run is retried.
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

# Dagster has no public names for these: see docs/upgrading-dagster.md.
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClassData

from imgassets.launcher import server
from imgassets.launcher.client import ForkServer, ForkServerError
from imgassets.launcher.processes import ProcessIdentity

if TYPE_CHECKING:
    from dagster import DagsterRun

# Dagster's UI hides tags that begin with ".dagster/".
PROCESS_TAG = ".dagster/imgassets_process"

# Dagster's message when a run's process begins; the event has the pid in its metadata.
_STARTED_MESSAGE = "Started process for run"
# A run's process starts before that event. Tolerates a clock that was set in the meantime, which
# moves the start time that psutil calculates.
_CLOCK_TOLERANCE_S = 60
# Parts of a run's command line: Dagster's code server starts runs with Python's multiprocessing.
_RUN_COMMANDS = ("multiprocessing", server.__file__)


class ForkingRunLauncher(dg.DefaultRunLauncher):
    """Run launcher that forks each run from a process that has imported its libraries.

    Configure an instance to use it with a section in `dagster.yaml`. This shows every option with
    its default:

    .. code-block:: yaml

        run_launcher:
          module: imgassets.launcher.run_launcher
          class: ForkingRunLauncher
          config:
            # Fork runs from a process that has imported their libraries (Linux only). With false,
            # Dagster's default launcher starts them, and this one only checks their processes.
            fork: true

    Runs are processes on the machine (or in the container) of the daemon. They can be terminated
    only from the same machine, so run the webserver there too. Only runs of a code location that
    Dagster itself loads (a module or a file in `workspace.yaml`) with this Python interpreter are
    forked; runs of a `grpc_server` location are started there by the default launcher.
    """

    def __init__(
        self, inst_data: ConfigurableClassData | None = None, *, fork: bool = True
    ) -> None:
        super().__init__(inst_data)
        self._server = ForkServer() if fork else None

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return the options under `run_launcher: config:` in `dagster.yaml`."""
        return {
            "fork": dg.Field(
                bool,
                default_value=True,
                description="Fork runs from a process that has imported their libraries.",
            )
        }

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> ForkingRunLauncher:
        """Return a launcher with these options."""
        return cls(inst_data, **config_value)

    def dispose(self) -> None:
        """End the fork server; the runs that it forked continue."""
        if self._server is not None:
            self._server.close()
        super().dispose()

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the process of a run."""
        run = context.dagster_run
        if self._server is None or not _can_fork(run):
            super().launch_run(context)
            return
        try:
            self._fork(self._server, run)
        except ForkServerError as error:
            logging.getLogger(__name__).warning(
                f"run {run.run_id} is started by Dagster's default launcher, which takes longer, "
                f"because it cannot be forked: {error}. If this persists, set `fork: false` under "
                f"`run_launcher: config:` in dagster.yaml."
            )
            super().launch_run(context)

    def _fork(self, fork_server: ForkServer, run: DagsterRun) -> None:
        origin = run.job_code_origin
        if origin is None:
            raise ForkServerError("the run has no job_code_origin")
        arguments = ExecuteRunArgs(origin, run.run_id, self._instance.get_ref())
        # The last three arguments, "api execute_run JSON"; the program before them is `dagster`.
        command = [*arguments.get_command_args()][-3:]
        fork_server.start(
            "dagster",
            command,
            on_forked=partial(self._record_process, run),
            on_exit=partial(self._handle_exit, run.run_id),
        )

    def _record_process(self, run: DagsterRun, process: ProcessIdentity) -> None:
        # The tag contains the run's id because a re-executed run inherits its parent's tags.
        tag = f"{run.run_id} {process.to_json()}"
        self._instance.add_run_tags(run.run_id, {PROCESS_TAG: tag})
        self._instance.report_engine_event(
            f"Forked process {process.pid} for this run, with its libraries already imported.",
            run,
            cls=type(self),
        )

    def _handle_exit(self, run_id: str, exit_code: int | None) -> None:
        """Report the end of a run whose process ended without reporting it."""
        if exit_code == 0 or not self.has_instance:
            return
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return
        if exit_code is None:
            process = _forked_process(run)
            if process is None or process.is_alive:
                return  # the fork server has ended, the run continues
            reason = "exit status unknown"
        elif exit_code < 0:
            reason = str(signal.strsignal(-exit_code))
        else:
            reason = f"exit status {exit_code}"
        message = f"The run's process ended: {reason}."
        if run.status is dg.DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(run, message)
        else:
            self._instance.report_run_failed(run, message)

    def terminate(self, run_id: str) -> bool:
        """Interrupt a run, which ends as canceled and keeps the files that it has written.

        Returns:
            Whether the run's process existed and was interrupted.
        """
        run = self._instance.get_run_by_id(run_id)
        process = None if run is None else _forked_process(run)
        if run is None or process is None:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        if run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        if process.send_signal(signal.SIGINT):
            return True
        self._instance.report_engine_event(
            f"Process {process.pid} of this run has ended, or is on another machine.",
            run,
            cls=type(self),
        )
        return False

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether run monitoring may call `check_run_worker_health`."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Check whether the process of a started run exists."""
        process = _forked_process(run)
        if process is not None:
            pid, is_alive = process.pid, process.is_alive
        else:
            started = self._started_process(run.run_id)
            if started is None:
                return CheckRunHealthResult(
                    WorkerStatus.NOT_FOUND, "no process of the run has been recorded"
                )
            pid, is_alive = started[0], _is_run_process(*started)
        if is_alive:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"process {pid} of the run has ended")

    def _started_process(self, run_id: str) -> tuple[int, float] | None:
        """Return the pid that a run's event log states, and the event's time (Unix seconds)."""
        for entry in self._instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            event = entry.dagster_event
            if event is not None and str(event.message).startswith(_STARTED_MESSAGE):
                pid = event.engine_event_data.metadata["pid"].value
                return int(str(pid)), entry.timestamp
        return None


def _can_fork(run: DagsterRun) -> bool:
    """Return whether a run's code is loaded on this machine and with this Python interpreter."""
    remote, code = run.remote_job_origin, run.job_code_origin
    if remote is None or code is None:
        return False
    location = remote.repository_origin.code_location_origin
    return (
        not isinstance(location, GrpcServerCodeLocationOrigin)
        and code.executable_path == sys.executable
    )


def _forked_process(run: DagsterRun) -> ProcessIdentity | None:
    """Return the process that was forked for a run; None if it was started in another way."""
    run_id, _, identity = run.tags.get(PROCESS_TAG, "").partition(" ")
    return ProcessIdentity.from_json(identity) if run_id == run.run_id else None


def _is_run_process(pid: int, event_time: float) -> bool:
    """Return whether a pid belongs to a run's process that started before a time (Unix seconds).

    Pids are reused: when a container is replaced, one of its servers may get the same pid within
    seconds.
    """
    try:
        process = psutil.Process(pid)
        start_time, command = process.create_time(), process.cmdline()  # empty for a zombie
    except psutil.Error:
        return False
    is_run = any(part in argument for argument in command for part in _RUN_COMMANDS)
    return is_run and start_time < event_time + _CLOCK_TOLERANCE_S
