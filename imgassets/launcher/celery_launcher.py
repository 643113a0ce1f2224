"""The run launcher that `deploy/celery/dagster.yaml` names: sends runs to Celery workers."""

from __future__ import annotations

from dagster_celery.launcher import CeleryRunLauncher


class CancellingCeleryRunLauncher(CeleryRunLauncher):  # type: ignore[misc]
    """dagster-celery's launcher, of which terminated runs end as canceled.

    Without the status "canceling", Dagster would take the signal that the worker sends to the run's
    process for a crash, mark the run as failed and retry it.
    """

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
