"""Jobs: which assets and checks a run includes.

What a run does is in `assets` and `checks`; what launches runs is in `schedules` and `sensors`.
https://docs.dagster.io/guides/build/jobs
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import dagster as dg

from imgassets.defs.scope import Scope

Job: TypeAlias = Any
"""The type that `dagster.define_asset_job` returns; Dagster has no public name for it."""


@dataclass(frozen=True)
class Jobs:
    """The jobs of one set of definitions.

    Attributes:
        catalogue: the job `catalogue_job`: all assets of a partition, with their checks.
        retry_failed: the job `retry_failed`: the failed downloads of a partition.
        freshness: the job `freshness_job`: the check of `product_documents`.
        daily_report: the job `daily_report_job`: the report of a day, with its checks.
    """

    catalogue: Job
    retry_failed: Job
    freshness: Job
    daily_report: Job

    def own(self, run: dg.DagsterRun, scope: Scope) -> bool:
        """Whether a run is of one of these jobs, or of selected assets of these definitions.

        Args:
            run: a run, which may be of another job of the code location.
            scope: names and settings of the definitions.
        """
        jobs = (self.catalogue, self.retry_failed, self.freshness, self.daily_report)
        checks = run.asset_check_selection or ()
        keys = {*(run.asset_selection or ()), *(check.asset_key for check in checks)}
        return run.job_name in {job.name for job in jobs} or any(map(scope.owns, keys))


def build_jobs(scope: Scope, freshness_check: dg.AssetChecksDefinition) -> Jobs:
    """Build the jobs.

    Args:
        scope: names and settings of the definitions.
        freshness_check: the check that `freshness_job` runs.
    """

    def assets(*names: str) -> dg.AssetSelection:
        return dg.AssetSelection.assets(*map(scope.key, names))

    # With `face_model` wherever `processed_images` is: until it has been materialized, the UI would
    # ask at each launch of a job without it whether you are sure.
    return Jobs(
        catalogue=dg.define_asset_job(
            scope.name("catalogue_job"),
            selection=assets("url_list", "face_model", "raw_images", "processed_images"),
            description=(
                "Make a partition: from product documents to training images, with all checks."
            ),
        ),
        retry_failed=dg.define_asset_job(
            scope.name("retry_failed"),
            selection=assets("face_model", "raw_images", "processed_images"),
            description=(
                "Retry the failed downloads of a partition. The URL list is not read again, and "
                "stored images are not requested again."
            ),
        ),
        freshness=dg.define_asset_job(
            scope.name("freshness_job"),
            selection=dg.AssetSelection.checks(freshness_check),
            description="Find retailers without a recent document.",
        ),
        daily_report=dg.define_asset_job(
            scope.name("daily_report_job"),
            selection=assets("daily_report"),
            description="Report a day: all retailers, what failed, and what is missing.",
        ),
    )
