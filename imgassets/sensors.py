"""New documents become runs, and failed runs become messages.

Here live Dagster's questions and answers. What was touched and what is due is in
`sources.changes`, how MongoDB is followed in `sources.mongo_changes`, the message in `webhook`.
https://docs.dagster.io/guides/automate/sensors
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg

from imgassets.configuration import load_settings
from imgassets.jobs import catalogue_job
from imgassets.partitions import Partition, retailers
from imgassets.resources import MongoDBResource

if TYPE_CHECKING:
    from imgassets.sources.changes import Cursor, PartitionName, Touch


@dg.sensor(
    job=catalogue_job,
    minimum_interval_seconds=load_settings().sensor.interval_s,
    default_status=(
        dg.DefaultSensorStatus.RUNNING
        if load_settings().sensor.enabled
        else dg.DefaultSensorStatus.STOPPED
    ),
)
def new_documents(
    context: dg.SensorEvaluationContext, mongodb: MongoDBResource
) -> dg.SensorResult | dg.SkipReason:
    """Looks for product documents that were inserted or changed; requests runs of their partitions.

    The first look launches nothing for documents that are there (`sensor.start_from`): backfill
    them. A partition's run waits until scrapers have left it alone for `sensor.settle_s`. The
    partition that a deleted or moved document left is seen only where MongoDB keeps documents as
    they were before a change; see the README.
    """
    from imgassets.demo.mongod import EmbeddedMongoError
    from imgassets.sources.listing import SourceError

    if load_settings().source.kind != "mongodb":
        return dg.SkipReason(
            f"the source is {load_settings().source.kind}, which tells nobody of new rows; "
            "use the schedule every_day"
        )
    try:
        return _look(context, mongodb)
    except (SourceError, EmbeddedMongoError) as error:
        # The cursor stays: the next look reads on from the same place.
        context.log.warning(str(error))
        return dg.SkipReason(str(error))


def _look(context: dg.SensorEvaluationContext, mongodb: MongoDBResource) -> dg.SensorResult:
    from imgassets.sources.changes import due, look, read_cursor
    from imgassets.sources.listing import SourceError, today
    from imgassets.sources.mongo_changes import READ_SECONDS, follow

    options, began, now = load_settings().sensor, time.monotonic(), time.time()
    changes = follow(load_settings(), mongodb.address())
    with changes.in_time():
        cursor = read_cursor(context.cursor) if context.cursor else None
        if cursor is None or cursor.source != changes.name:
            cursor, names = changes.start(now), changes.names()
            waiting = len(cursor.pending) or "no"
            first = f"first look at {changes.name}: {len(names)} retailers, {waiting} partitions"
            return _answer(context, cursor, {}, names, f"{first} wait for a run")
        found = look(
            cursor,
            changes.pages,
            now=now,
            out_of_time=lambda: time.monotonic() - began > READ_SECONDS,
        )
        for note in found.notes:
            context.log.warning(note)
        ready = due(found, options, now=now, today=today())
        try:
            names = changes.names() if ready else {}
        except SourceError as error:
            # They are due again at the next look; what was read must not be lost.
            return _answer(context, found.cursor, {}, {}, str(error))
    waiting = len(found.cursor.pending)
    nothing = f"{waiting} touched partitions wait" if waiting else "nothing has changed"
    return _answer(context, found.cursor, ready, names, nothing)


def _answer(
    context: dg.SensorEvaluationContext,
    cursor: "Cursor",
    ready: "Mapping[PartitionName, Touch]",
    names: "Mapping[str, list[str]]",
    nothing: str,
) -> dg.SensorResult:
    """Request runs of partitions that are due, and register retailers that are new.

    Args:
        context: of the tick.
        cursor: what to remember.
        ready: the partitions that are due.
        names: the retailers' names by slug; those that share a slug are held back.
        nothing: what to say where no run is requested.
    """
    from imgassets.sources.changes import requested, run_key
    from imgassets.sources.listing import conflict

    conflicts = {slug: same for slug, same in names.items() if len(same) > 1}
    for slug, same in conflicts.items():
        # Its partitions stay in the cursor until the names are mended.
        context.log.error(conflict(slug, same))
    free = {name: touch for name, touch in ready.items() if name.split("|")[1] not in conflicts}
    runs = dict(list(free.items())[: load_settings().sensor.max_runs])
    known = context.instance.get_dynamic_partitions(str(retailers.name))
    found = {name.split("|")[1] for name in runs} | set(names) - set(conflicts)
    new = sorted(found - set(known))
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=run_key(name, touch), partition_key=Partition(*name.split("|")).key
            )
            for name, touch in runs.items()
        ],
        skip_reason=None if runs else dg.SkipReason(nothing),
        dynamic_partitions_requests=[retailers.build_add_request(new)] if new else [],
        cursor=requested(cursor, runs).to_json(),
    )


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Posts failed runs to the address in IMGASSETS_WEBHOOK_URL; without it, nothing is posted."
    ),
)
def failed_runs(context: dg.RunFailureSensorContext) -> None:
    """Posts one message for each failed run.

    Raises:
        WebhookError: it could not be posted. The tick shows it, and goes on to the next failure:
            Dagster repeats no message, so a webhook that is down delays nothing.
    """
    from imgassets.webhook import failure_message, post, webhook_url

    url = webhook_url()
    if url is not None:
        post(url, failure_message(context.dagster_run, context.get_step_failure_events()))
