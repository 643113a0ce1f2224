"""Sensors: `new_documents` requests runs for changed documents; two others post failures.

`failed_runs` posts failed runs, `failed_checks` the failed checks of runs that succeeded.

Only the Dagster side is here. Which partitions changed and are due is decided in `sources.changes`,
MongoDB is read in `sources.mongo_changes`, and the webhook message is in `webhook`.
https://docs.dagster.io/guides/automate/sensors
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg

from imgassets.defs.failed_checks import FAILED_TAG, find_failed_checks
from imgassets.defs.jobs import Jobs
from imgassets.defs.partitions import Partition
from imgassets.defs.scope import Scope
from imgassets.wording import counted

if TYPE_CHECKING:
    from imgassets.defs.resources import MongoDBResource
    from imgassets.sources.changes import Cursor, PartitionName, PendingPartition


def build_new_documents_sensor(scope: Scope, jobs: Jobs) -> dg.SensorDefinition:
    """Build the sensor `new_documents`."""
    settings = scope.settings

    @dg.sensor(
        name=scope.name("new_documents"),
        job=jobs.catalogue,
        description=(
            "Requests a run for each partition whose product documents were inserted or changed, "
            "and registers new retailers. Existing documents start no run (sensor.start_from)."
        ),
        minimum_interval_seconds=settings.sensor.interval_s,
        default_status=(
            dg.DefaultSensorStatus.RUNNING
            if settings.sensor.enabled
            else dg.DefaultSensorStatus.STOPPED
        ),
        required_resource_keys=scope.resource_keys("mongodb"),
    )
    def new_documents(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        """Requests a run for each partition whose product documents were inserted or changed.

        The first tick requests nothing for existing documents (see `sensor.start_from`): backfill
        them. A partition's run is requested once its documents were not changed for
        `sensor.settle_s` seconds. If a document is deleted, or moved to another day or retailer,
        the partition it left is detected only if MongoDB keeps pre-images of documents; see
        docs/documents.md.
        """
        return evaluate_tick(context, scope, scope.mongodb_resource(context))

    return new_documents


def evaluate_tick(
    context: dg.SensorEvaluationContext, scope: Scope, mongodb: "MongoDBResource"
) -> dg.SensorResult | dg.SkipReason:
    """Evaluate one tick of the sensor `new_documents`.

    Args:
        context: the context of the tick, with the cursor and the Dagster instance.
        scope: settings and names of the definitions.
        mongodb: the resource with the address of the server.

    Returns:
        The runs to request and the next cursor, or the reason why the tick is skipped.
    """
    from imgassets.errors import SourceError

    kind = scope.settings.source.kind
    if kind != "mongodb":
        return dg.SkipReason(
            f"source.kind is {kind}, which does not report new rows; use the schedule every_day"
        )
    try:
        return _scan(context, scope, mongodb)
    except SourceError as error:
        # Skipping keeps the cursor, so the next tick continues at the same position.
        context.log.warning(str(error))
        return dg.SkipReason(str(error))


def _scan(
    context: dg.SensorEvaluationContext, scope: Scope, mongodb: "MongoDBResource"
) -> dg.SensorResult:
    """Read the changes since the last tick, and request runs for the partitions that are due."""
    from imgassets.errors import SourceError
    from imgassets.sources.changes import due_partitions, read_cursor, scan
    from imgassets.sources.listing import today
    from imgassets.sources.mongo_changes import READ_SECONDS, open_changes

    options, began, now = scope.settings.sensor, time.monotonic(), time.time()
    changes = open_changes(scope.settings, mongodb.address())
    with changes.time_limit():
        cursor = read_cursor(context.cursor) if context.cursor else None
        if cursor is None or cursor.source != changes.source_name:
            cursor, retailers = changes.initial_cursor(), changes.retailers()
            return _sensor_result(
                context,
                scope,
                cursor,
                ready={},
                retailers=retailers,
                skip_message=(
                    f"first scan of {changes.source_name}: {counted(len(retailers), 'retailer')}; "
                    f"the next ones read {_NEXT[options.start_from]}"
                ),
            )
        result = scan(
            cursor,
            changes.pages,
            now=now,
            out_of_time=lambda: time.monotonic() - began > READ_SECONDS,
        )
        for note in result.notes:
            context.log.warning(note)
        ready = due_partitions(result, options, now=now, today=today())
        try:
            retailers = changes.retailers() if ready else set()
        except SourceError as error:
            # Keep the new cursor: the changes were read, and stay due at the next tick.
            return _sensor_result(
                context, scope, result.cursor, ready={}, retailers=set(), skip_message=str(error)
            )
    skip_message = _waiting_message(len(result.cursor.pending))
    return _sensor_result(
        context, scope, result.cursor, ready=ready, retailers=retailers, skip_message=skip_message
    )


_NEXT = {"now": "the changes from now on", "everything": "the existing documents, then the changes"}


def _waiting_message(partitions: int) -> str:
    """The skip reason of a tick after which a number of partitions wait for a run."""
    if not partitions:
        return "no changes"
    return (
        f"waiting until documents stop changing: {counted(partitions, 'changed partition')} "
        "(sensor.settle_s)"
    )


def _sensor_result(
    context: dg.SensorEvaluationContext,
    scope: Scope,
    cursor: "Cursor",
    *,
    ready: "Mapping[PartitionName, PendingPartition]",
    retailers: set[str],
    skip_message: str,
) -> dg.SensorResult:
    """Request runs for partitions that are due, and register new retailers.

    Args:
        context: the context of the tick.
        scope: settings and names of the definitions.
        cursor: the cursor after the scan.
        ready: the partitions that are due for a run.
        retailers: the slugs of the retailers in the source.
        skip_message: the skip reason of the tick if no run is requested.
    """
    from imgassets.sources.changes import remove_requested, run_key

    runs = dict(list(ready.items())[: scope.settings.sensor.max_runs])
    known = scope.registered_retailers(context.instance)
    found = {Partition.parse(name).retailer for name in runs} | retailers
    new = sorted(found - set(known))
    add_request = dg.DynamicPartitionsDefinition(name=scope.retailers).build_add_request(new)
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(run_key=run_key(name, pending), partition_key=Partition.parse(name).key)
            for name, pending in runs.items()
        ],
        skip_reason=None if runs else dg.SkipReason(skip_message),
        dynamic_partitions_requests=[add_request] if new else [],
        cursor=remove_requested(cursor, runs).to_json(),
    )


def build_failed_runs_sensor(scope: Scope, jobs: Jobs) -> dg.SensorDefinition:
    """Build the sensor `failed_runs`."""

    @dg.run_failure_sensor(
        name=scope.name("failed_runs"),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Posts failed runs to the URL in IMGASSETS_WEBHOOK_URL; does nothing if the variable "
            "is not set."
        ),
    )
    def failed_runs(context: dg.RunFailureSensorContext) -> None:
        """Posts one message per failed run of these definitions, with its failed checks.

        Raises:
            WebhookError: the message could not be posted. The tick shows the error, and the next
                tick continues with the next failed run: a webhook that is down blocks nothing.
        """
        from imgassets.defs.webhook import failure_message, post, webhook_url

        run, url = context.dagster_run, webhook_url()
        # Dagster calls the sensor for every failed run of the code location, which may contain
        # other jobs.
        if url is not None and jobs.own(run, scope):
            checks = find_failed_checks(context.instance, run.run_id)
            post(url, failure_message(run, context.get_step_failure_events(), checks))

    return failed_runs


def build_failed_checks_sensor(scope: Scope, jobs: Jobs) -> dg.SensorDefinition:
    """Build the sensor `failed_checks`."""

    @dg.run_status_sensor(
        name=scope.name("failed_checks"),
        run_status=dg.DagsterRunStatus.SUCCESS,
        # Dagster handles 5 runs per tick: with its default of 30 s, fewer than a backfill makes.
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Posts the failed checks of runs that succeeded to the URL in IMGASSETS_WEBHOOK_URL; "
            "does nothing if the variable is not set."
        ),
    )
    def failed_checks(context: dg.RunStatusSensorContext) -> None:
        """Posts one message per run of these definitions that succeeded with failed checks.

        Raises:
            WebhookError: the message could not be posted; see `failed_runs`.
        """
        from imgassets.defs.webhook import checks_message, post, webhook_url

        run, url = context.dagster_run, webhook_url()
        if url is None or run.tags.get(FAILED_TAG) != "true" or not jobs.own(run, scope):
            return
        # The tag may be inherited from the run that this one retries.
        if checks := find_failed_checks(context.instance, run.run_id):
            post(url, checks_message(run, checks))

    return failed_checks
