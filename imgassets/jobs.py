"""Jobs and schedules: what is run together, and when without being asked.

Here live selections and times. What a run does is in `assets`; runs for new documents are the
sensor's (`sensors`).
https://docs.dagster.io/guides/build/jobs
"""

from collections.abc import Iterator

import dagster as dg

from imgassets.assets.processed_images import processed_images
from imgassets.assets.raw_images import raw_images
from imgassets.assets.url_list import url_list
from imgassets.freshness import every_retailer_delivers
from imgassets.partitions import Partition, retailers

DAILY_CRON = "0 1 * * *"
FRESHNESS_CRON = "0 6 * * *"

catalogue_job = dg.define_asset_job(
    "catalogue_job",
    selection=dg.AssetSelection.assets(url_list, raw_images, processed_images),
    description="A partition from its product documents to clean pictures, with all its checks.",
)

retry_failed = dg.define_asset_job(
    "retry_failed",
    selection=dg.AssetSelection.assets(raw_images, processed_images),
    description=(
        "The failed pictures of a partition once more: its list of URLs stays, pictures that are "
        "there are not asked for again."
    ),
)

freshness_job = dg.define_asset_job(
    "freshness_job",
    selection=dg.AssetSelection.checks(every_retailer_delivers),
    description="Looks for retailers that no longer deliver.",
)


@dg.schedule(
    job=catalogue_job,
    cron_schedule=DAILY_CRON,
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)
def every_day(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Yesterday's partition of every registered retailer, when its day (UTC) is over.

    For a source that the sensor cannot follow, or beside it as a safety net. A retailer that left
    the catalogue costs an empty run a day, until its partition is deleted in the UI: from a source
    without its documents nobody knows whether it has gone, or is late.
    """
    import datetime as dt

    yesterday = (context.scheduled_execution_time - dt.timedelta(days=1)).date().isoformat()
    known = context.instance.get_dynamic_partitions(str(retailers.name))
    if not known:
        yield dg.SkipReason("no retailer is registered; run `imgassets sync`")
    for retailer in sorted(known):
        key = Partition(yesterday, retailer).key
        yield dg.RunRequest(run_key=f"daily {key}", partition_key=key)


freshness = dg.ScheduleDefinition(
    name="freshness",
    job=freshness_job,
    cron_schedule=FRESHNESS_CRON,
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Every morning: which retailers no longer deliver?",
)
