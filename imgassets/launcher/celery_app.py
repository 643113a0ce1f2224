"""Celery application of the workers that execute runs: `deploy/celery/` and `docs/celery.md`.

Start a worker with `celery -A imgassets.launcher.celery_app worker --queues dagster`. It executes
the task that `celery_launcher` sends: one run, in a process that is forked for it from a process
that has imported its libraries, as its imaging processes are.

RabbitMQ keeps the message of a run until the run has ended. If the worker is killed or loses its
connection, RabbitMQ sends the message to another worker, where Dagster marks the run as failed,
because it has been started already, and retries it. What the message cannot do is in this module:
no process of a lost worker continues its run, and a run whose process could not report its end is
marked as failed, or as canceled if it was terminated before it began.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing import Pipe
from typing import Any

import dagster as dg
from celery.signals import (
    task_postrun,
    task_prerun,
    task_revoked,
    worker_init,
    worker_process_init,
)

# Dagster has no public names for these: see docs/upgrading-dagster.md.
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import unpack_value
from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_execute_job_task

from imgassets.launcher import server

_log = logging.getLogger(__name__)
_RETRY_S = 5
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

# The address of the broker is in CELERY_BROKER_URL, which Celery reads itself.
app = make_app()
app.conf.update(
    broker_connection_retry_on_startup=True,
    # RabbitMQ closes the connection of a machine that has sent nothing for twice this time.
    broker_heartbeat=30,  # seconds
    # Results would be messages that nobody reads: the run's status is in Dagster's database.
    result_backend="disabled://",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # Otherwise, a run would continue here while RabbitMQ sends its message to another worker.
    worker_cancel_long_running_tasks_on_connection_loss=True,
    # The settings of Dagster and of the run apply, and the run's output is its compute log.
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    worker_max_tasks_per_child=1,
    worker_prefetch_multiplier=1,
)
execute_job = create_execute_job_task(app)


def _preload(**_: Any) -> None:
    server.preload()
    gc.enable()


def _end_with_worker(**_: Any) -> None:
    """Let the system kill this process when the worker's main process ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _start_fork_server(**_: Any) -> None:
    """Fork a server that forks the run's imaging processes.

    As new interpreters, they would import their libraries again.
    """
    if sys.platform != "linux":
        return
    ours, theirs = Pipe()
    if os.fork():
        theirs.close()
        os.environ[server.FORK_SERVER_VARIABLE] = f"{os.getpid()}:{os.dup(ours.fileno())}"
        return
    # Celery has opened another file as standard input of its processes.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    # It takes this run's process for running as long as another process has its descriptors.
    os.closerange(3, theirs.fileno())
    os.closerange(theirs.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    server.serve(theirs)


def _fail_unfinished_run(kwargs: Mapping[str, Any], **_: Any) -> None:
    """Mark a run as failed that ended without a final status.

    Its definitions could not be loaded, or the database could not be reached. Then this waits until
    it can: no run could start before that anyway.
    """
    message = "The run ended without reporting how; see the log of its Celery worker."
    while True:
        try:
            _finish(kwargs, lambda instance, run: instance.report_run_failed(run, message))
        except Exception:  # noqa: BLE001  (whatever the database's driver raises)
            _log.exception(f"the end of a run cannot be recorded; next attempt in {_RETRY_S} s")
            time.sleep(_RETRY_S)
        else:
            return


def _cancel_waiting_run(request: Any, *, terminated: bool, **_: Any) -> None:
    """Mark a run as canceled that was terminated before it began.

    The process of a run that has begun is interrupted, and reports its end itself.
    """
    if not terminated:
        message = "The run was terminated before it began."
        _finish(request.kwargs, lambda instance, run: instance.report_run_canceled(run, message))


def _finish(
    kwargs: Mapping[str, Any], report: Callable[[dg.DagsterInstance, dg.DagsterRun], object]
) -> None:
    """Report the end of a run that has no final status.

    Args:
        kwargs: The arguments of the task that executes the run.
        report: Called with the instance and the run.
    """
    run_id = unpack_value(kwargs["execute_job_args_packed"], as_type=ExecuteRunArgs).run_id
    with dg.DagsterInstance.get() as instance:
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            report(instance, run)


worker_init.connect(_preload, weak=False)
worker_process_init.connect(_end_with_worker, weak=False)
task_prerun.connect(_start_fork_server, weak=False)
task_postrun.connect(_fail_unfinished_run, weak=False)
task_revoked.connect(_cancel_waiting_run, weak=False)
