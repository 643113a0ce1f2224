"""The run launcher that `deploy/celery/dagster.yaml` names: sends runs to Celery workers."""

from __future__ import annotations

from typing import Any

from dagster_celery.launcher import CeleryRunLauncher

_PRIORITY = "dagster/priority"


class CancellingCeleryRunLauncher(CeleryRunLauncher):  # type: ignore[misc]
    """dagster-celery's launcher, with retries that go first and terminated runs that are canceled.

    Without the status "canceling", Dagster would take the signal that the worker sends to the run's
    process for a crash, mark the run as failed and retry it.
    """

    def launch_run(self, context: Any) -> None:
        """Send a run to the workers.

        Its priority is raised by one first. The run has left Dagster's queue; but its retry, to
        which Dagster copies its tags, then goes before the runs that wait there.
        """
        run = context.dagster_run
        priority = run.tags.get(_PRIORITY, "0")
        if priority.lstrip("-").isdecimal():
            self._instance.add_run_tags(run.run_id, {_PRIORITY: str(int(priority) + 1)})
        super().launch_run(context)

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
