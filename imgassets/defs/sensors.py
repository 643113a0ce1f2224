"""New documents become runs, and failed runs become messages.

Here live Dagster's questions and answers. What was touched and what is due is in
`sources.changes`, how MongoDB is followed in `sources.mongo_changes`, the message in `webhook`.
https://docs.dagster.io/guides/automate/sensors
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg

from imgassets.defs.jobs import Jobs
from imgassets.defs.partitions import Partition
from imgassets.defs.scope import Scope

if TYPE_CHECKING:
    from imgassets.defs.resources import MongoDBResource
    from imgassets.sources.changes import Cursor, PartitionName, Touch


def build_new_documents_sensor(scope: Scope, jobs: Jobs) -> dg.SensorDefinition:
    """The sensor `new_documents`."""
    settings = scope.settings

    @dg.sensor(
        name=scope.name("new_documents"),
        job=jobs.catalogue,
        minimum_interval_seconds=settings.sensor.interval_s,
        default_status=(
            dg.DefaultSensorStatus.RUNNING
            if settings.sensor.enabled
            else dg.DefaultSensorStatus.STOPPED
        ),
        required_resource_keys=scope.resource_keys("mongodb"),
    )
    def new_documents(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        """Looks for product documents that were inserted or changed; requests runs for them.

        The first scan launches nothing for documents that exist already (`sensor.start_from`):
        backfill them. A partition's run waits until scrapers have left it alone for
        `sensor.settle_s`. The partition that a deleted or moved document left is seen only where
        MongoDB keeps documents as they were before a change; see the documentation.
        """
        return tick(context, scope, scope.mongodb_resource(context))

    return new_documents


def tick(
    context: dg.SensorEvaluationContext, scope: Scope, mongodb: "MongoDBResource"
) -> dg.SensorResult | dg.SkipReason:
    """One tick of the sensor `new_documents`.

    Args:
        context: holds the cursor and the Dagster instance.
        scope: of the definitions.
        mongodb: names the server.
    """
    from imgassets.sources.listing import SourceError

    kind = scope.settings.source.kind
    if kind != "mongodb":
        return dg.SkipReason(
            f"the source is {kind}, which does not report new rows; use the schedule every_day"
        )
    try:
        return _look(context, scope, mongodb)
    except SourceError as error:
        # The cursor stays: the next tick continues from the same position.
        context.log.warning(str(error))
        return dg.SkipReason(str(error))


def _look(
    context: dg.SensorEvaluationContext, scope: Scope, mongodb: "MongoDBResource"
) -> dg.SensorResult:
    from imgassets.sources.changes import due, look, read_cursor
    from imgassets.sources.listing import SourceError, today
    from imgassets.sources.mongo_changes import READ_SECONDS, follow

    options, began, now = scope.settings.sensor, time.monotonic(), time.time()
    changes = follow(scope.settings, mongodb.address())
    with changes.in_time():
        cursor = read_cursor(context.cursor) if context.cursor else None
        if cursor is None or cursor.source != changes.name:
            cursor, names = changes.start(now), changes.names()
            waiting = len(cursor.pending) or "no"
            first = f"first look at {changes.name}: {len(names)} retailers, {waiting} partitions"
            return _answer(
                context,
                scope,
                cursor,
                ready={},
                names=names,
                nothing=f"{first} wait for a run",
            )
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
            return _answer(context, scope, found.cursor, ready={}, names={}, nothing=str(error))
    waiting = len(found.cursor.pending)
    nothing = f"{waiting} touched partitions wait" if waiting else "nothing has changed"
    return _answer(context, scope, found.cursor, ready=ready, names=names, nothing=nothing)


def _answer(
    context: dg.SensorEvaluationContext,
    scope: Scope,
    cursor: "Cursor",
    *,
    ready: "Mapping[PartitionName, Touch]",
    names: "Mapping[str, list[str]]",
    nothing: str,
) -> dg.SensorResult:
    """Request runs of partitions that are due, and register retailers that are new.

    Args:
        context: of the tick.
        scope: of the definitions.
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
    runs = dict(list(free.items())[: scope.settings.sensor.max_runs])
    known = scope.registered_retailers(context.instance)
    found = {name.split("|")[1] for name in runs} | set(names) - set(conflicts)
    new = sorted(found - set(known))
    add_request = dg.DynamicPartitionsDefinition(name=scope.retailers).build_add_request(new)
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=run_key(name, touch), partition_key=Partition(*name.split("|")).key
            )
            for name, touch in runs.items()
        ],
        skip_reason=None if runs else dg.SkipReason(nothing),
        dynamic_partitions_requests=[add_request] if new else [],
        cursor=requested(cursor, runs).to_json(),
    )


def build_failed_runs_sensor(scope: Scope, jobs: Jobs) -> dg.SensorDefinition:
    """The sensor `failed_runs`."""
    names = {job.name for job in (jobs.catalogue, jobs.retry_failed, jobs.freshness)}

    @dg.run_failure_sensor(
        name=scope.name("failed_runs"),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Posts failed runs to the address in IMGASSETS_WEBHOOK_URL; posts nothing where it is "
            "not set."
        ),
    )
    def failed_runs(context: dg.RunFailureSensorContext) -> None:
        """Posts one message per failed run of these definitions.

        Raises:
            WebhookError: it could not be posted. The tick shows it, and the next one continues with
                the next failure: a webhook that is down delays nothing.
        """
        from imgassets.defs.webhook import failure_message, post, webhook_url

        run, url = context.dagster_run, webhook_url()
        # Dagster calls the sensor for every run of the code location, which may hold more jobs.
        keys = run.asset_selection or ()
        own = run.job_name in names or any(scope.owns(key) for key in keys)
        if url is not None and own:
            post(url, failure_message(run, context.get_step_failure_events()))

    return failed_runs
