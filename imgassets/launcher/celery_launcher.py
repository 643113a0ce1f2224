"""The run launcher that `deploy/celery/dagster.yaml` names: sends runs to Celery workers."""

from __future__ import annotations

import logging
import time
from typing import Any

import dagster as dg
from dagster_celery.launcher import CeleryRunLauncher

_log = logging.getLogger(__name__)
_RETRY_S = 5
_PRIORITY = "dagster/priority"


class CancellingCeleryRunLauncher(CeleryRunLauncher):  # type: ignore[misc]
    """dagster-celery's launcher, with retries that go first and terminated runs that are canceled.

    Without the status "canceling", Dagster would take the signal that the worker sends to the run's
    process for a crash, mark the run as failed and retry it.
    """

    def launch_run(self, context: Any) -> None:
        """Send a run to the workers.

        If Dagster's database is away, this waits until it is back, and raises. Then the daemon can
        mark the run as failed. Otherwise, a run that was not sent would hold its place in Dagster's
        queue for ever.
        """
        run = context.dagster_run
        try:
            self._raise_priority_of_retries(run)
            super().launch_run(context)
        except Exception:
            self._wait_for_database(run.run_id)
            raise

    def _raise_priority_of_retries(self, run: dg.DagsterRun) -> None:
        """Raise a run's priority by one.

        The run has left Dagster's queue; but its retry, to which Dagster copies its tags, then goes
        before the runs that wait there.
        """
        priority = run.tags.get(_PRIORITY, "0")
        if priority.lstrip("-").isdecimal():
            self._instance.add_run_tags(run.run_id, {_PRIORITY: str(int(priority) + 1)})

    def _wait_for_database(self, run_id: str) -> None:
        while True:
            try:
                self._instance.get_run_by_id(run_id)
            except Exception:  # noqa: BLE001  (whatever the database's driver raises)
                message = f"run {run_id} cannot be launched without Dagster's database"
                _log.exception(f"{message}; next attempt in {_RETRY_S} s")
                time.sleep(_RETRY_S)
            else:
                return

    def terminate(self, run_id: str) -> bool:
        """Have the worker interrupt a run, which keeps the files that it has written.

        Returns:
            Whether the run had not ended yet.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        return bool(super().terminate(run_id))
