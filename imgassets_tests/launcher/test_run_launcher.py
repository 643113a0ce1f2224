"""Runs are forked, checked and terminated; tested with real processes.

Tests with Dagster's daemon, which launches runs, and its webserver, which terminates them, are in
`life`.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import yaml
from dagster._core.events import EngineEventData
from dagster._core.launcher import LaunchRunContext, WorkerStatus
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from imgassets.folders import project_root
from imgassets.launcher import server
from imgassets.launcher.processes import ProcessIdentity
from imgassets.launcher.run_launcher import PROCESS_TAG, ForkingRunLauncher
from imgassets_tests.launcher import waiting_job

TIMEOUT_S = 120


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def health_of(instance: dg.DagsterInstance, pid: int | None) -> WorkerStatus:
    """Return the health of a run whose event log states this pid."""
    run = instance.create_run_for_job(_job)
    if pid is not None:
        instance.report_engine_event(
            f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid)
        )
    launcher = ForkingRunLauncher()
    launcher.register_instance(instance)
    assert launcher.supports_check_run_worker_health
    return launcher.check_run_worker_health(run).status


@dg.job
def _job() -> None:
    """Do nothing."""


def test_a_run_is_running_exactly_while_its_process_is_alive(
    instance: dg.DagsterInstance,
) -> None:
    process = multiprocessing.get_context("spawn").Process(target=signal.pause)
    process.start()
    assert process.pid is not None
    assert health_of(instance, process.pid) is WorkerStatus.RUNNING
    process.kill()
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert health_of(instance, process.pid) is WorkerStatus.NOT_FOUND  # a zombie
    process.join()
    assert health_of(instance, process.pid) is WorkerStatus.NOT_FOUND


def test_another_program_with_the_runs_pid_is_not_the_run(instance: dg.DagsterInstance) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert health_of(instance, process.pid) is WorkerStatus.NOT_FOUND
        process.kill()


def test_a_run_without_a_recorded_process_is_not_found(instance: dg.DagsterInstance) -> None:
    assert health_of(instance, None) is WorkerStatus.NOT_FOUND
    assert health_of(instance, os.getpid()) is WorkerStatus.NOT_FOUND


def test_the_docstring_shows_every_option_with_its_default() -> None:
    docstring = cleandoc(str(ForkingRunLauncher.__doc__))
    example = docstring.partition(".. code-block:: yaml\n")[2].partition("\n\nRuns are")[0]
    section = yaml.safe_load(example)["run_launcher"]
    assert (section["module"], section["class"]) == (
        ForkingRunLauncher.__module__,
        ForkingRunLauncher.__name__,
    )
    defaults = {
        name: option.default_value for name, option in ForkingRunLauncher.config_type().items()
    }
    assert section["config"] == defaults


LOCATION = ManagedGrpcPythonEnvCodeLocationOrigin(
    LoadableTargetOrigin(module_name=waiting_job.__name__)
)


class Launched:
    """A run of `waiting_job.waiting`, launched by the instance's launcher."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        folder: Path,
        location: ManagedGrpcPythonEnvCodeLocationOrigin | GrpcServerCodeLocationOrigin = LOCATION,
    ) -> None:
        self.instance = instance
        self.folder = folder
        job = dg.reconstructable(waiting_job.waiting)
        run = instance.create_run_for_job(
            waiting_job.waiting,
            run_config={"ops": {"waits": {"config": {"folder": str(folder)}}}},
            job_code_origin=job.get_python_origin(),
            remote_job_origin=RemoteJobOrigin(
                RemoteRepositoryOrigin(location, "__repository__"), "waiting"
            ),
        )
        self.id = run.run_id
        # Without a workspace, which the default launcher needs: it raises if it is used.
        instance.run_launcher.launch_run(LaunchRunContext(run, None))

    @property
    def run(self) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(self.id)
        assert run is not None
        return run

    @property
    def health(self) -> str:
        return str(self.instance.run_launcher.check_run_worker_health(self.run).status.value)

    @property
    def pid(self) -> int:
        """The pid in the event that the run itself writes."""
        events = self.instance.all_logs(self.id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        started = [event.message for event in events if "Started process" in event.message]
        return int(started[0].rpartition("pid: ")[2].partition(")")[0])

    def wait_for_start(self) -> Launched:
        self.wait((self.folder / "began").exists)
        return self

    def wait_for_end(self) -> dg.DagsterRunStatus:
        self.wait(lambda: self.run.is_finished)
        return self.run.status

    def wait(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, self.run.status
            time.sleep(0.02)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    options = yaml.safe_load((project_root() / "dagster.yaml").read_text())
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(options))
    yield tmp_path
    (tmp_path / "go").touch()  # ends the run even if the test failed


@pytest.fixture
def persistent(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def test_a_run_is_forked_and_its_process_recorded_in_its_tags(
    persistent: dg.DagsterInstance, tmp_path: Path
) -> None:
    run = Launched(persistent, tmp_path).wait_for_start()
    assert run.pid in [p.pid for p in psutil.Process().children(recursive=True)]
    assert f'"pid": {run.pid},' in run.run.tags[PROCESS_TAG]
    events = persistent.all_logs(run.id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    assert [e.message for e in events if f"Forked process {run.pid} for this run" in e.message]
    assert run.health == "RUNNING"
    (tmp_path / "go").touch()
    assert run.wait_for_end() is dg.DagsterRunStatus.SUCCESS
    run.wait(lambda: not psutil.pid_exists(run.pid))
    assert run.health == "NOT_FOUND"


def test_a_killed_run_is_marked_as_failed_at_once(
    persistent: dg.DagsterInstance, tmp_path: Path
) -> None:
    run = Launched(persistent, tmp_path).wait_for_start()
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait_for_end() is dg.DagsterRunStatus.FAILURE
    events = [entry.dagster_event for entry in persistent.all_logs(run.id)]
    assert "The run's process ended: Killed." in [event.message for event in events if event]
    # A re-executed run has the tags of its parent, which must not be taken for its own.
    again = persistent.create_run_for_job(
        waiting_job.waiting, run_config=run.run.run_config, tags=run.run.tags
    )
    assert PROCESS_TAG in again.tags
    persistent.report_engine_event(
        f"Started process for run (pid: {os.getpid()}).", again, EngineEventData.in_process(1)
    )
    assert persistent.run_launcher.terminate(again.run_id) is False


def test_another_process_terminates_a_run(
    persistent: dg.DagsterInstance, home: Path, tmp_path: Path
) -> None:
    run = Launched(persistent, tmp_path).wait_for_start()
    code = (
        "import sys, dagster as dg\n"
        "with dg.DagsterInstance.from_config(sys.argv[1]) as instance:\n"
        "    assert instance.run_launcher.terminate(sys.argv[2]) is True"
    )
    subprocess.run([sys.executable, "-c", code, home, run.id], check=True)
    assert run.wait_for_end() is dg.DagsterRunStatus.CANCELED
    assert persistent.run_launcher.terminate(run.id) is False


def test_a_run_outlives_the_process_that_launched_it(home: Path, tmp_path: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as launching:
        run = Launched(launching, tmp_path).wait_for_start()
        pid = run.pid
    children = psutil.Process().children
    run.wait(lambda: not any(map(_is_server, children())))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run.instance = instance
        assert run.health == "RUNNING"
        (tmp_path / "go").touch()
        assert run.wait_for_end() is dg.DagsterRunStatus.SUCCESS
        run.wait(lambda: not _is_alive(pid))


def _is_server(process: psutil.Process) -> bool:
    try:
        return server.__file__ in process.cmdline()
    except psutil.Error:  # the process has just ended
        return False


def _is_alive(pid: int) -> bool:
    process = ProcessIdentity.of(pid)
    return process is not None and process.is_alive


def test_another_process_with_the_runs_pid_is_not_terminated(
    persistent: dg.DagsterInstance, tmp_path: Path
) -> None:
    run = Launched(persistent, tmp_path).wait_for_start()
    tag = run.run.tags[PROCESS_TAG].replace('"began": ', '"began": 1')
    assert tag != run.run.tags[PROCESS_TAG]
    persistent.add_run_tags(run.id, {PROCESS_TAG: tag})
    assert run.health == "NOT_FOUND"
    assert persistent.run_launcher.terminate(run.id) is False
    assert _is_alive(run.pid)
    os.kill(run.pid, signal.SIGKILL)


@pytest.mark.parametrize("options", [{"fork": False}, {}])
def test_the_default_launcher_starts_runs_that_cannot_be_forked(
    options: dict[str, Any],
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    instance_options = yaml.safe_load((home / "dagster.yaml").read_text())
    instance_options["run_launcher"]["config"] = options
    (home / "dagster.yaml").write_text(yaml.safe_dump(instance_options))
    monkeypatch.setattr("imgassets.launcher.server.__file__", "/dev/null")
    with (
        dg.DagsterInstance.from_config(str(home)) as instance,
        caplog.at_level(logging.WARNING, "imgassets"),
        pytest.raises(dg.DagsterInvariantViolationError, match="DefaultRunLauncher requires"),
    ):
        Launched(instance, tmp_path)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == (0 if options else 1)
    assert all("default launcher" in line and "has exited" in line for line in messages)


def test_the_default_launcher_starts_runs_of_a_grpc_server(
    persistent: dg.DagsterInstance, tmp_path: Path
) -> None:
    elsewhere = GrpcServerCodeLocationOrigin(host="127.0.0.1", port=9)
    with pytest.raises(dg.DagsterInvariantViolationError, match="DefaultRunLauncher requires"):
        Launched(persistent, tmp_path, elsewhere)
