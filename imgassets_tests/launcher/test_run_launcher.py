"""Runs that are forked, and whether a run's process is found again, with real processes.

The daemon that launches them, and the webserver that ends them, are in `life`.
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
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import yaml
from dagster._core.events import EngineEventData
from dagster._core.launcher import LaunchRunContext, WorkerStatus
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from imgassets.folders import project_root
from imgassets.launcher import server
from imgassets.launcher.processes import ProcessIdentity
from imgassets.launcher.run_launcher import PROCESS_TAG, ForkingRunLauncher
from imgassets_tests.launcher import jobs

PATIENCE = 120


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def verdict(instance: dg.DagsterInstance, pid: int | None) -> WorkerStatus:
    """What is said of a run whose process has told this number, as Dagster's code server does."""
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
    """Nothing."""


def test_a_run_is_found_while_its_process_lives_and_no_longer(
    instance: dg.DagsterInstance,
) -> None:
    process = multiprocessing.get_context("spawn").Process(target=signal.pause)
    process.start()
    assert process.pid is not None
    assert verdict(instance, process.pid) is WorkerStatus.RUNNING
    process.kill()
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert verdict(instance, process.pid) is WorkerStatus.NOT_FOUND  # nobody has collected it yet
    process.join()
    assert verdict(instance, process.pid) is WorkerStatus.NOT_FOUND


def test_another_program_that_got_the_number_is_no_run(instance: dg.DagsterInstance) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert verdict(instance, process.pid) is WorkerStatus.NOT_FOUND
        process.kill()


def test_a_run_that_told_of_no_process_is_not_found(instance: dg.DagsterInstance) -> None:
    assert verdict(instance, None) is WorkerStatus.NOT_FOUND
    assert verdict(instance, os.getpid()) is WorkerStatus.NOT_FOUND


class Launched:
    """A run of `jobs.waiting`, started by the launcher that `dagster.yaml` names."""

    def __init__(
        self, instance: dg.DagsterInstance, folder: Path, tags: dict[str, str] | None = None
    ) -> None:
        self.instance = instance
        self.folder = folder
        pointed = dg.reconstructable(jobs.waiting)
        location = ManagedGrpcPythonEnvCodeLocationOrigin(
            LoadableTargetOrigin(module_name=jobs.__name__)
        )
        run = instance.create_run_for_job(
            jobs.waiting,
            run_config={"ops": {"waits": {"config": {"folder": str(folder)}}}},
            tags=tags,
            job_code_origin=pointed.get_python_origin(),
            remote_job_origin=RemoteJobOrigin(
                RemoteRepositoryOrigin(location, "__repository__"), "waiting"
            ),
        )
        self.id = run.run_id
        # Without the workspace that Dagster's own way needs.
        instance.run_launcher.launch_run(LaunchRunContext(run, None))

    @property
    def run(self) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(self.id)
        assert found is not None
        return found

    @property
    def health(self) -> str:
        return str(self.instance.run_launcher.check_run_worker_health(self.run).status.value)

    @property
    def pid(self) -> int:
        """What the run itself has said."""
        events = self.instance.all_logs(self.id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        told = [event.message for event in events if "Started process" in event.message]
        return int(told[0].rpartition("pid: ")[2].partition(")")[0])

    def began(self) -> Launched:
        self.wait((self.folder / "began").exists)
        return self

    def ended(self) -> dg.DagsterRunStatus:
        self.wait(lambda: self.run.is_finished)
        return self.run.status

    def wait(self, found: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not found():
            assert time.monotonic() < deadline, self.run.status
            time.sleep(0.02)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    options = yaml.safe_load((project_root() / "dagster.yaml").read_text())
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(options))
    yield tmp_path
    (tmp_path / "go").touch()  # also where a test failed


@pytest.fixture
def kept(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def test_a_run_is_forked_and_its_process_stands_in_its_tags(
    kept: dg.DagsterInstance, tmp_path: Path
) -> None:
    run = Launched(kept, tmp_path).began()
    assert run.pid in [p.pid for p in psutil.Process().children(recursive=True)]
    assert f'"pid": {run.pid},' in run.run.tags[PROCESS_TAG]
    events = kept.all_logs(run.id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    assert [e.message for e in events if f"Forked process {run.pid} for this run" in e.message]
    assert run.health == "RUNNING"
    (tmp_path / "go").touch()
    assert run.ended() is dg.DagsterRunStatus.SUCCESS
    run.wait(lambda: not psutil.pid_exists(run.pid))
    assert run.health == "NOT_FOUND"


def test_a_run_that_is_killed_is_marked_as_failed_at_once(
    kept: dg.DagsterInstance, tmp_path: Path
) -> None:
    run = Launched(kept, tmp_path).began()
    os.kill(run.pid, signal.SIGKILL)
    assert run.ended() is dg.DagsterRunStatus.FAILURE
    said = [entry.dagster_event.message for entry in kept.all_logs(run.id) if entry.dagster_event]
    assert "The run's process ended: Killed." in said
    # A run that is done again has the tags of the first.
    again = kept.create_run_for_job(jobs.waiting, run_config=run.run.run_config, tags=run.run.tags)
    assert PROCESS_TAG in again.tags
    kept.report_engine_event(
        f"Started process for run (pid: {os.getpid()}).", again, EngineEventData.in_process(1)
    )
    assert kept.run_launcher.terminate(again.run_id) is False


def test_another_process_terminates_a_run(
    kept: dg.DagsterInstance, home: Path, tmp_path: Path
) -> None:
    run = Launched(kept, tmp_path).began()
    code = (
        "import sys, dagster as dg\n"
        "with dg.DagsterInstance.from_config(sys.argv[1]) as instance:\n"
        "    assert instance.run_launcher.terminate(sys.argv[2]) is True"
    )
    subprocess.run([sys.executable, "-c", code, home, run.id], check=True)
    assert run.ended() is dg.DagsterRunStatus.CANCELED
    assert kept.run_launcher.terminate(run.id) is False


def test_a_run_outlives_the_one_who_launched_it(home: Path, tmp_path: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as launching:
        run = Launched(launching, tmp_path).began()
        pid = run.pid
    children = psutil.Process().children
    run.wait(lambda: not any(map(_is_server, children())))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run.instance = instance
        assert run.health == "RUNNING"
        (tmp_path / "go").touch()
        assert run.ended() is dg.DagsterRunStatus.SUCCESS
        run.wait(lambda: not _there(pid))


def _is_server(process: psutil.Process) -> bool:
    try:
        return server.__file__ in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


def _there(pid: int) -> bool:
    mark = ProcessIdentity.of(pid)
    return mark is not None and mark.lives


def test_a_process_that_took_a_runs_number_is_not_terminated(
    kept: dg.DagsterInstance, tmp_path: Path
) -> None:
    run = Launched(kept, tmp_path).began()
    told = run.run.tags[PROCESS_TAG].replace('"began": ', '"began": 1')
    assert told != run.run.tags[PROCESS_TAG]
    kept.add_run_tags(run.id, {PROCESS_TAG: told})
    assert run.health == "NOT_FOUND"
    assert kept.run_launcher.terminate(run.id) is False
    assert _there(run.pid)
    os.kill(run.pid, signal.SIGKILL)


@pytest.mark.parametrize("options", [{"fork": False}, {}])
def test_dagsters_own_way_is_taken_where_nothing_can_be_forked(
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
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (0 if options else 1)
    assert all("Dagster's own way" in line and "gone" in line for line in said)
