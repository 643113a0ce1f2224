"""Schedules: jobs that run at fixed times.

Runs for new documents are requested by the sensor in `sensors`.
https://docs.dagster.io/guides/automate/schedules
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import dagster as dg

from imgassets.defs.jobs import Jobs
from imgassets.defs.partitions import Partition
from imgassets.defs.scope import Scope

DAILY_CRON = "0 1 * * *"
FRESHNESS_CRON = "0 6 * * *"


def build_schedules(scope: Scope, jobs: Jobs) -> list[dg.ScheduleDefinition]:
    """The schedules `every_day` and `freshness`; both are off until someone turns them on."""

    @dg.schedule(
        name=scope.name("every_day"),
        job=jobs.catalogue,
        cron_schedule=DAILY_CRON,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
    )
    def every_day(
        context: dg.ScheduleEvaluationContext,
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        """Yesterday's partition of every registered retailer, when its day (UTC) is over.

        For a source that the sensor cannot follow, or beside it as a safety net. A retailer that
        left the catalogue costs an empty run per day until its partition is deleted in the UI: a
        source without its documents does not tell whether it has left or is late.
        """
        yesterday = (context.scheduled_execution_time - dt.timedelta(days=1)).date().isoformat()
        known = scope.registered_retailers(context.instance)
        if not known:
            yield dg.SkipReason("no retailer is registered; run `imgassets sync`")
        for retailer in sorted(known):
            key = Partition(yesterday, retailer).key
            yield dg.RunRequest(run_key=f"daily {key}", partition_key=key)

    freshness = dg.ScheduleDefinition(
        name=scope.name("freshness"),
        job=jobs.freshness,
        cron_schedule=FRESHNESS_CRON,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Every morning: which retailers no longer deliver?",
    )
    return [every_day, freshness]
