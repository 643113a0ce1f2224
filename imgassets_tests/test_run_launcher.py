"""Whether a run's process is found again, with real processes. Whole runs are in `life`."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import dagster as dg
import psutil
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher import WorkerStatus

from imgassets.run_launcher import WatchingRunLauncher


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
    launcher = WatchingRunLauncher()
    launcher.register_instance(instance)
    assert launcher.supports_check_run_worker_health
    return launcher.check_run_worker_health(run).status


@dg.job
def _job() -> None:
    """Nothing."""


def test_a_run_is_found_while_its_process_lives_and_no_longer(
    instance: dg.DagsterInstance,
) -> None:
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
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
