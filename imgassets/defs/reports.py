"""The assets `daily_report` and `retailer_report`, and the checks of `daily_report`.

Numbers, texts and images are made in `imgassets.reports`. This module adds what only Dagster knows:
the newest run of each partition and its failed checks, which are in the tags of runs.

The checks are not partitioned: a partitioned check stays red as long as one of its partitions
failed, an unpartitioned one shows the newest day.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from imgassets.defs.checks import CHECK_NAMES
from imgassets.defs.failed_checks import failed_checks_of_tags, tag_run
from imgassets.defs.metadata import as_dagster_failure, location_metadata, round_for_display
from imgassets.defs.scope import Scope
from imgassets.errors import SourceError, StorageError
from imgassets.settings import Period
from imgassets.wording import counted

if TYPE_CHECKING:
    from imgassets.manifests import ProcessedRow
    from imgassets.reports.day import RetailerDay
    from imgassets.reports.measure import Measured, RetailerRun
    from imgassets.reports.text import Links
    from imgassets.settings import Settings
    from imgassets.storage import Storage

CHECKS = {
    "every_retailer_succeeded": (
        "No retailer of the newest reported day has a failed run, a failed check of severity "
        "error, or a success rate below `checks.min_success_rate`."
    ),
    "nothing_is_missing": (
        "Every retailer with documents of the newest reported day has processed images."
    ),
}
"""Descriptions of the checks of `daily_report`, by name."""

_DATE_TAG, _RETAILER_TAG = "dagster/partition/date", "dagster/partition/retailer"
_RUNS_PER_QUERY = 1_000
_MAX_QUERIES = 20


def build_daily_report(scope: Scope) -> dg.AssetsDefinition:
    """Build the asset `daily_report`."""

    @dg.asset(
        key=scope.key("daily_report"),
        partitions_def=scope.partitions.get_partitions_def_for_dimension("date"),
        deps=[scope.key("processed_images")],
        group_name="reports",
        kinds={"parquet"},
        owners=scope.settings.owners,
        required_resource_keys=scope.resource_keys("settings", "mongodb"),
    )
    def daily_report(context: dg.AssetExecutionContext) -> None:
        """What happened on a day: all retailers, what failed, what is missing, doubtful images.

        The numbers of a day are also stored as a small table, from which later reports are made.
        Materialize it again for newer numbers.
        """
        from imgassets.reports.day import save_day
        from imgassets.storage import open_storage

        options = scope.settings_resource(context).load()
        storage = open_storage(options)
        with as_dagster_failure(SourceError, StorageError):
            inventory = scope.mongodb_resource(context).source(options).inventory()
            measured = measure(
                scope,
                options,
                context.instance,
                context.partition_key,
                inventory.partitions(options.partitions.period),
            )
            save_day(storage, measured.day)
            metadata = _daily_metadata(scope, measured, storage, options)
        # As metadata of the result, Dagster would store the images twice.
        context.add_asset_metadata(metadata)

    return daily_report


def build_report_checks(scope: Scope) -> dg.AssetChecksDefinition:
    """Build the checks of `daily_report`."""

    @dg.multi_asset_check(
        name=scope.name("daily_report_checks"),
        specs=[
            dg.AssetCheckSpec(name, asset=scope.key("daily_report"), description=description)
            for name, description in CHECKS.items()
        ],
        required_resource_keys=scope.resource_keys("settings"),
    )
    def daily_report_checks(
        context: dg.AssetCheckExecutionContext,
    ) -> Iterator[dg.AssetCheckResult]:
        """Check the newest day of which there is a report."""
        from imgassets.reports.day import day_path, load_days, newest_date
        from imgassets.reports.text import missing_sentence, success_sentence
        from imgassets.storage import open_storage

        storage = open_storage(scope.settings_resource(context).load())
        with as_dagster_failure(StorageError):
            date = newest_date(storage)
            day = None if date is None else load_days(storage, [date]).get(date)
        if day is None:
            raise dg.Failure(
                "there are no numbers of any day; materialize daily_report first"
                if date is None
                else f"{storage.address(day_path(date))} is damaged; materialize daily_report of "
                f"{date} again",
                allow_retries=False,
            )
        outcomes = {
            "every_retailer_succeeded": (day.unsuccessful, success_sentence(day)),
            "nothing_is_missing": (day.missing, missing_sentence(day)),
        }
        results = {
            name: dg.AssetCheckResult(
                asset_key=scope.key("daily_report"),
                check_name=name,
                passed=not culprits,
                description=sentence,
                metadata={"day": day.date, "retailers": len(culprits)},
            )
            for name, (culprits, sentence) in outcomes.items()
        }
        tag_run(context, results.items())
        yield from results.values()

    return daily_report_checks


def build_retailer_report(scope: Scope) -> dg.AssetsDefinition:
    """Build the asset `retailer_report`."""

    @dg.asset(
        key=scope.key("retailer_report"),
        partitions_def=scope.partitions.get_partitions_def_for_dimension("retailer"),
        deps=[scope.key("processed_images")],
        group_name="reports",
        kinds={"parquet"},
        owners=scope.settings.owners,
        required_resource_keys=scope.resource_keys("settings"),
    )
    def retailer_report(context: dg.AssetExecutionContext) -> None:
        """One retailer's last 30 days: success rate and images as a chart, and a table with links.

        Days without a `daily_report` are read from the retailer's manifests. If the retailer has
        nothing in the last 30 days, these are the days up to the newest `daily_report`.
        """
        from imgassets.reports.day import dates_before, newest_date
        from imgassets.reports.history import retailer_days
        from imgassets.sources.listing import today
        from imgassets.storage import open_storage

        options = scope.settings_resource(context).load()
        retailer = context.partition_key
        storage, own = open_storage(options), options.for_retailer(retailer)
        period = options.partitions.period
        dates = dates_before(today().isoformat(), period)
        with as_dagster_failure(StorageError):
            days = retailer_days(storage, retailer, dates, own)
            newest = newest_date(storage)
            if not days and newest is not None:
                dates = dates_before(newest, period)
                days = retailer_days(storage, retailer, dates, own)
        # As metadata of the result, Dagster would store the chart twice.
        links = _links(scope, options)
        context.add_asset_metadata(_retailer_metadata(days, dates, period, links))

    return retailer_report


def measure(
    scope: Scope,
    options: "Settings",
    instance: dg.DagsterInstance,
    date: str,
    documents: Mapping[tuple[str, str], int],
) -> "Measured":
    """Compute the numbers of a day, with what the Dagster instance knows about its runs.

    Args:
        scope: names and settings of the definitions.
        options: the settings of the run.
        instance: the Dagster instance.
        date: the day, `YYYY-MM-DD`.
        documents: number of documents by retailer and date of the partition.

    Raises:
        StorageError: the storage is not reachable or not readable.
    """
    from imgassets.reports.measure import measure_day
    from imgassets.storage import open_storage

    return measure_day(
        open_storage(options),
        date,
        documents={slug: number for (slug, day), number in documents.items() if day == date},
        retailers=scope.registered_retailers(instance),
        runs=runs_of_day(scope, instance, date),
        options=options.for_retailer,
    )


def runs_of_day(scope: Scope, instance: dg.DagsterInstance, date: str) -> "dict[str, RetailerRun]":
    """The newest run of each retailer's partition of a day, and the checks that failed.

    One query per 1,000 runs of the day. A run that has not ended says nothing yet: what the one
    before it says counts, and `is_active` is true. A check that failed counts until a later run
    covers it. A run of checks only counts for these checks.

    Args:
        scope: names of the definitions; runs of other catalogues are left out.
        instance: the Dagster instance.
        date: the day, `YYYY-MM-DD`.
    """
    from imgassets.reports.measure import RetailerRun

    newest: dict[str, dg.DagsterRun] = {}
    active: dict[str, dg.DagsterRun] = {}
    checks: dict[str, dict[str, str | None]] = {}
    for run in _runs_newest_first(instance, date):
        retailer = run.tags.get(_RETAILER_TAG)
        if retailer is None:
            continue
        assets = _image_assets(scope, run)
        if assets:
            (newest if run.is_finished else active).setdefault(retailer, run)
        if run.is_finished:
            failed, known = failed_checks_of_tags(run.tags), checks.setdefault(retailer, {})
            for name in _checks(scope, run, assets):
                known.setdefault(name, failed.get(name))
    found = {}
    for retailer, run in {**active, **newest}.items():
        severities = checks.get(retailer, {})
        failed = {name: severity for name, severity in severities.items() if severity is not None}
        found[retailer] = RetailerRun(run.run_id, run.status.value, failed, retailer in active)
    return found


def _runs_newest_first(instance: dg.DagsterInstance, date: str) -> Iterator[dg.DagsterRun]:
    cursor = None
    for _ in range(_MAX_QUERIES):
        page = instance.get_run_records(
            dg.RunsFilter(tags={_DATE_TAG: date}), limit=_RUNS_PER_QUERY, cursor=cursor
        )
        yield from (record.dagster_run for record in page)
        if len(page) < _RUNS_PER_QUERY:
            return
        cursor = page[-1].dagster_run.run_id


def _image_assets(scope: Scope, run: dg.DagsterRun) -> set[str]:
    """Which of `raw_images` and `processed_images` of these definitions a run covers."""
    if run.job_name in (scope.name("catalogue_job"), scope.name("retry_failed")):
        return set(CHECK_NAMES)
    keys = run.asset_selection or ()
    return {asset for asset in CHECK_NAMES if scope.key(asset) in keys}


def _checks(scope: Scope, run: dg.DagsterRun, assets: set[str]) -> set[str]:
    """The checks that a run covers: all of its assets, unless it has a selection of checks."""
    if run.asset_check_selection is None:
        return {name for asset in assets for name in CHECK_NAMES[asset]}
    return {key.name for key in run.asset_check_selection if scope.owns(key.asset_key)}


def _links(scope: Scope, options: "Settings") -> "Links":
    from imgassets.reports.text import Links

    return Links("/".join(scope.key("processed_images").path), options.ui_path_prefix)


def _daily_metadata(
    scope: Scope, measured: "Measured", storage: "Storage", options: "Settings"
) -> dict[str, Any]:
    """Texts, images and numbers of a day; the UI keeps this order.

    Raises:
        StorageError: an image or the numbers of an earlier day cannot be read.
    """
    from imgassets.reports.day import dates_before, day_path, load_days
    from imgassets.reports.pictures import heat_map
    from imgassets.reports.text import MAX_ROWS, problem_table, retailer_record, summary

    day, links = measured.day, _links(scope, options)
    period = options.partitions.period
    dates = dates_before(day.date, period)
    worst = day.worst_first
    records = [dg.TableRecord(retailer_record(each)) for each in worst[:MAX_ROWS]]
    title = "retailers" if len(worst) <= MAX_ROWS else f"retailers ({MAX_ROWS} of {len(worst)})"
    return {
        "summary": dg.MetadataValue.md(summary(day, links)),
        **_doubtful_images(measured.doubtful, storage, options),
        **({title: dg.MetadataValue.table(records)} if records else {}),
        "problems, with links": dg.MetadataValue.md(problem_table(day, links)),
        f"success rates of {counted(len(dates), period)}": dg.MetadataValue.md(
            heat_map(load_days(storage, dates), dates)
        ),
        **{
            name: round_for_display(value) if isinstance(value, float) else value
            for name, value in day.totals.items()
        },
        "numbers": location_metadata(storage.address(day_path(day.date))),
    }


def _doubtful_images(
    rows: "Sequence[ProcessedRow]", storage: "Storage", options: "Settings"
) -> dict[str, dg.MetadataValue[Any]]:
    """The most doubtful images of the retailers whose images may be shown inline."""
    from imgassets.reports.pictures import doubtful_sheet

    shown = [row for row in rows if options.for_retailer(row.retailer).review.inline]
    if not shown:
        return {}
    sheet = doubtful_sheet(
        shown, storage, hide_faces=lambda slug: options.for_retailer(slug).review.hide_faces
    )
    return {"most doubtful images": dg.MetadataValue.md(sheet)}


def _retailer_metadata(
    days: "Mapping[str, RetailerDay]", dates: list[str], period: Period, links: "Links"
) -> dict[str, Any]:
    """The chart and the table of a retailer, and its numbers over all days."""
    from imgassets.reports.pictures import history_chart
    from imgassets.reports.text import days_table

    urls = sum(each.urls for each in days.values())
    downloaded = sum(each.downloaded for each in days.values())
    return {
        f"last {counted(len(dates), period)}": dg.MetadataValue.md(history_chart(days, dates)),
        f"{period}s, with links": dg.MetadataValue.md(days_table(days.items(), links)),
        f"{period}s with data": len(days),
        "URLs": urls,
        "images": sum(each.images for each in days.values()),
        **({"success rate": round_for_display(downloaded / urls)} if urls else {}),
    }
