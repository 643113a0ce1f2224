"""Schedules: jobs that run at fixed times.

The sensor that requests runs for new documents is in `sensors`.
https://docs.dagster.io/guides/automate/schedules
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import dagster as dg

from imgassets.defs.jobs import Jobs
from imgassets.defs.partitions import Partition
from imgassets.defs.scope import Scope
from imgassets.periods import first_day

DAILY_CRON = "0 1 * * *"
FRESHNESS_CRON = "0 6 * * *"
REPORT_CRON = "0 7 * * *"


def build_schedules(scope: Scope, jobs: Jobs) -> list[dg.ScheduleDefinition]:
    """Build the schedules, which are off until you turn them on.

    They are `every_day`, `freshness` and `daily_report_schedule`.
    """

    def yesterday_of(context: dg.ScheduleEvaluationContext) -> tuple[dt.date, str]:
        """The day before a tick, and the first day of its partition."""
        yesterday = (context.scheduled_execution_time - dt.timedelta(days=1)).date()
        return yesterday, first_day(yesterday, scope.settings.partitions.period).isoformat()

    @dg.schedule(
        name=scope.name("every_day"),
        job=jobs.catalogue,
        description=(
            "Requests the partition of yesterday (UTC) of every registered retailer. For sources "
            "that the sensor new_documents cannot follow, or in addition to it."
        ),
        cron_schedule=DAILY_CRON,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
    )
    def every_day(
        context: dg.ScheduleEvaluationContext,
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        """Requests the partition of yesterday (UTC) of every registered retailer.

        A week or month is therefore requested every day, and each run adds what is new. For sources
        that the sensor `new_documents` cannot follow, or in addition to it. A retailer that left
        the catalogue causes an empty run per day until you delete its partition in the UI: the
        source does not show whether its documents are late or will never come.
        """
        yesterday, date = yesterday_of(context)
        known = scope.registered_retailers(context.instance)
        if not known:
            yield dg.SkipReason("no retailer is registered; run `imgassets sync` first")
        for retailer in sorted(known):
            yield dg.RunRequest(
                run_key=f"daily {yesterday}|{retailer}", partition_key=Partition(date, retailer).key
            )

    freshness = dg.ScheduleDefinition(
        name=scope.name("freshness"),
        job=jobs.freshness,
        cron_schedule=FRESHNESS_CRON,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Finds retailers without a recent document, every morning.",
    )

    @dg.schedule(
        name=scope.name("daily_report_schedule"),
        job=jobs.daily_report,
        cron_schedule=REPORT_CRON,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Requests the report of yesterday (UTC), after the runs of every_day.",
    )
    def daily_report_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        """Requests the report of yesterday's (UTC) partition, after the runs of `every_day`."""
        yesterday, date = yesterday_of(context)
        return dg.RunRequest(run_key=f"report {yesterday}", partition_key=date)

    return [every_day, freshness, daily_report_schedule]
