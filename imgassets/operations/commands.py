"""The commands `imgassets report`, `status` and `backfill`."""

from __future__ import annotations

import datetime as dt
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE
from rich.table import Table

from imgassets.configuration import load_settings
from imgassets.errors import SourceError
from imgassets.operations.messages import console_for, errors_as_click_exceptions
from imgassets.periods import first_days
from imgassets.sources.factory import mongodb_address, open_source
from imgassets.wording import counted

if TYPE_CHECKING:
    import dagster as dg

    from imgassets.defs.scope import Scope
    from imgassets.operations.partition_state import Key, PartitionState
    from imgassets.reports.day import Day
    from imgassets.reports.measure import RetailerRun
    from imgassets.settings import Period, Settings
    from imgassets.sources.listing import Inventory

MAX_LISTED = 100
"""Number of partitions that `status` and `backfill --dry-run` list."""
_MAX_NAMES = 5


def _day(
    context: click.Context | None, parameter: click.Parameter | None, value: str | None
) -> dt.date | None:
    """The day that an option names: `today`, `yesterday` or `YYYY-MM-DD`."""
    from imgassets.sources.listing import today

    ages = {"today": 0, "yesterday": 1}
    if value is None:
        return None
    try:
        if value in ages:
            return today() - dt.timedelta(days=ages[value])
        return dt.date.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no day; write today, yesterday or YYYY-MM-DD", context, parameter
        ) from None


_DAYS_AGO_30 = dt.timedelta(days=29)


@click.command()
@click.option(
    "--since",
    callback=_day,
    metavar="DAY",
    default="yesterday",
    show_default=True,
    help="First day.",
)
@click.option(
    "--until",
    callback=_day,
    metavar="DAY",
    help="Last day; by default yesterday, or --since if later.",
)
@click.option("--retailer", help="Slug or name of the retailer to show; by default all.")
def report(*, since: dt.date, until: dt.date | None, retailer: str | None) -> None:
    """Print what happened on each day: per retailer, what failed, what is missing.

    Shows the numbers of the asset daily_report; days without one are computed, with a look at the
    source. Days are today, yesterday or YYYY-MM-DD. With partitions.period, the weeks or months
    that contain them are shown.
    """
    from imgassets.sources.listing import today

    with errors_as_click_exceptions():
        period = load_settings().partitions.period
        dates = _dates(since, until or max(since, today() - dt.timedelta(days=1)), period)
        slug = None if retailer is None else _registered_slug(retailer)
        for day in _days(dates):
            _print_day(day, slug)


@click.command()
@click.option(
    "--since", callback=_day, metavar="DAY", help="First day; by default 29 days before --until."
)
@click.option(
    "--until", callback=_day, metavar="DAY", default="today", show_default=True, help="Last day."
)
@click.option("--retailer", multiple=True, help="Slug or name of a retailer; by default all.")
@click.option("--disk", is_flag=True, help="Also sum up the files of each retailer, listing all.")
def status(*, since: dt.date | None, until: dt.date, retailer: tuple[str, ...], disk: bool) -> None:
    """Show which partitions with documents are missing, failed or outdated, and why.

    Outdated: the source has another number of documents than when the images were made, or they
    were made with other settings. Exit code 1 if any partition is missing, failed or outdated.
    """
    with errors_as_click_exceptions():
        settings = load_settings()
        since = since or until - _DAYS_AGO_30
        found = _states(settings, since, until, retailer)
        use = _disk_use(settings, {each.retailer for each in found}) if disk else {}
    if not found:
        click.echo(
            f"no partition from {since} to {until} has documents; "
            "--since and --until choose other days"
        )
        return
    table = _status_table(found, use, settings.partitions.period)
    console_for(table).print(table)
    others = [each for each in found if not each.is_current]
    _print_partitions(others)
    if others:
        sys.exit(1)


@click.command()
@click.option("--start", callback=_day, metavar="DAY", required=True, help="First day.")
@click.option(
    "--end", callback=_day, metavar="DAY", default="yesterday", show_default=True, help="Last day."
)
@click.option("--retailer", multiple=True, help="Slug or name of a retailer; by default all.")
@click.option("--missing", is_flag=True, help="Only partitions without processed images.")
@click.option("--failed", is_flag=True, help="Only partitions that failed; see status.")
@click.option("--outdated", is_flag=True, help="Only partitions that are outdated; see status.")
@click.option("--dry-run", is_flag=True, help="Only print the partitions.")
def backfill(
    *,
    start: dt.date,
    end: dt.date,
    retailer: tuple[str, ...],
    missing: bool,
    failed: bool,
    outdated: bool,
    dry_run: bool,
) -> None:
    """Launch runs of the partitions that have documents, and of no others.

    --missing, --failed and --outdated narrow them down, and can be combined. Partitions with a run
    that is queued or in progress are left out. With partitions.period, the weeks or months that
    contain the days are selected. New retailers are registered. The daemon executes
    the runs.
    """
    with errors_as_click_exceptions():
        found = _states(load_settings(), start, end, retailer)
        if missing or failed or outdated:
            found = [
                each
                for each in found
                if (missing and each.is_missing)
                or (failed and each.is_failed)
                or (outdated and each.outdated)
            ]
        ready = [each for each in found if not each.is_active]
        if len(ready) < len(found):
            left_out = counted(len(found) - len(ready), "partition")
            click.echo(f"left out: {left_out} with a run that is queued or in progress")
        found = ready
        if dry_run or not found:
            _print_partitions(found)
            click.echo(f"{counted(len(found), 'partition')}; nothing was launched")
            return
        from imgassets.operations.backfill import daemon_is_running, launch_backfill

        _register({each.retailer for each in found})
        done = 0
        for number in launch_backfill([f"{each.date}|{each.retailer}" for each in found]):
            done += number
            click.echo(f"queued {done:,} of {counted(len(found), 'run')}")
        if not daemon_is_running():
            click.echo(
                f"no daemon works on {os.environ['DAGSTER_HOME']}: the runs wait until one is "
                "started, with `dagster dev -w workspace.yaml` or as a service"
            )


def _dates(first: dt.date, last: dt.date, period: Period) -> list[str]:
    """The partitions of the days from the first to the last one, or to today, if earlier."""
    from imgassets.sources.listing import today

    last = min(last, today())
    if first > last:
        raise click.UsageError(
            f"the first day, {first}, is after the last, {last}; choose an earlier first or a "
            "later last day, up to today (UTC)"
        )
    return [day.isoformat() for day in first_days(first, last, period)]


def _registered_slug(name: str) -> str:
    """The slug of a retailer that is registered or in the source."""
    from imgassets.defs.instance import open_instance

    settings = load_settings()
    with open_instance() as instance:
        registered = _scope(settings).registered_retailers(instance)
    try:
        return _slug(name, settings, registered)
    except SourceError:
        return _slug(name, settings, {*registered, *_inventory(settings).names})


def _slug(name: str, settings: Settings, known: Collection[str]) -> str:
    """The slug of a retailer.

    Args:
        name: A slug, or a name as in documents or `source.retailer_aliases`.
        settings: The settings.
        known: The slugs that there are.

    Raises:
        SourceError: It is none of them; the message lists those that are spelled alike.
    """
    from imgassets.sources.retailers import Retailers

    found = Retailers.from_settings(settings.source).named(name)
    slug = name if found is None else found.slug
    if slug in known:
        return slug
    near = get_close_matches(slug, known, _MAX_NAMES, cutoff=0.4)
    names = list(dict.fromkeys([*near, *sorted(known)]))[:_MAX_NAMES]
    rest = len(known) - len(names)
    raise SourceError(
        f"there is no retailer {name!r}; there are: {', '.join(names) or 'none'}"
        + (f", and {rest:,} more" if rest else "")
    )


def _days(dates: list[str]) -> Iterator[Day]:
    """The numbers of days: the stored ones, others computed."""
    from imgassets.reports.day import load_days
    from imgassets.storage import open_storage

    settings = load_settings()
    stored = load_days(open_storage(settings), dates)
    if len(stored) == len(dates):
        yield from stored.values()
        return
    from imgassets.defs.instance import open_instance
    from imgassets.defs.reports import measure

    documents = _inventory(settings).partitions(settings.partitions.period)
    with open_instance() as instance:
        for date in dates:
            known = stored.get(date)
            yield known or measure(_scope(settings), settings, instance, date, documents).day


def _inventory(settings: Settings) -> Inventory:
    return open_source(settings, mongodb_address).inventory()


def _scope(settings: Settings) -> Scope:
    from imgassets.defs.partitions import RETAILERS, catalogue_partitions
    from imgassets.defs.scope import Scope

    period = settings.partitions.period
    return Scope(settings, (), catalogue_partitions(settings.start_date, period, RETAILERS))


def _states(
    settings: Settings, first: dt.date, last: dt.date, retailers: Collection[str]
) -> list[PartitionState]:
    """The states of the partitions that have documents."""
    from imgassets.defs.instance import open_instance
    from imgassets.operations.partition_state import partition_states
    from imgassets.storage import open_storage

    period = settings.partitions.period
    dates = set(_dates(first, last, period))
    inventory = _inventory(settings)
    slugs = {_slug(name, settings, inventory.names) for name in retailers}
    wanted = {
        (slug, date): number
        for (slug, date), number in inventory.partitions(period).items()
        if date in dates and (not slugs or slug in slugs)
    }
    with open_instance() as instance:
        runs = _runs(_scope(settings), instance, {date for _, date in wanted})
    return partition_states(open_storage(settings), wanted, runs, settings)


def _runs(
    scope: Scope, instance: dg.DagsterInstance, dates: Collection[str]
) -> dict[Key, RetailerRun]:
    from imgassets.defs.reports import runs_of_day

    return {
        (retailer, date): run
        for date in sorted(dates)
        for retailer, run in runs_of_day(scope, instance, date).items()
    }


def _register(retailers: Collection[str]) -> None:
    from imgassets.defs.instance import open_instance
    from imgassets.defs.partitions import RETAILERS

    with open_instance() as instance:
        known = set(instance.get_dynamic_partitions(RETAILERS))
        if new := sorted(set(retailers) - known):
            instance.add_dynamic_partitions(RETAILERS, new)


def _disk_use(settings: Settings, retailers: Collection[str]) -> dict[str, tuple[int, int]]:
    from imgassets.operations.partition_state import disk_use
    from imgassets.storage import open_storage

    storage = open_storage(settings)
    return {retailer: disk_use(storage, retailer) for retailer in retailers}


def _print_day(day: Day, retailer: str | None) -> None:
    from imgassets.reports.text import headline, missing_sentence, retailer_record, success_sentence

    if not day.retailers:
        click.echo(f"{day.date}: no documents, runs or images\n")
        return
    click.echo(f"{day.date} (as of {day.made_at:%Y-%m-%d %H:%M} UTC): {headline(day)}")
    records = [
        retailer_record(each) for each in day.worst_first if retailer in (None, each.retailer)
    ]
    if records:
        table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
        for name, value in records[0].items():
            table.add_column(name, justify="right" if isinstance(value, int) else "left")
        for record in records:
            table.add_row(*map(str, record.values()))
        console_for(table).print(table)
    if retailer is None:
        click.echo(f"{success_sentence(day)}\n{missing_sentence(day)}\n")
    elif not records:
        click.echo(f"nothing of {retailer}\n")


def _status_table(
    states: list[PartitionState], use: Mapping[str, tuple[int, int]], period: Period
) -> Table:
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("retailer", no_wrap=True)
    names = [
        f"{period}s",
        "current",
        "missing",
        "failed",
        "outdated",
        *(["raw MB", "made MB"] * bool(use)),
    ]
    for name in names:
        table.add_column(name, justify="right")
    for retailer in sorted({each.retailer for each in states}):
        own = [each for each in states if each.retailer == retailer]
        counts = (
            len(own),
            sum(each.is_current for each in own),
            sum(each.is_missing for each in own),
            sum(each.is_failed for each in own),
            sum(bool(each.outdated) for each in own),
        )
        sizes = (f"{size / 1e6:,.1f}" for size in use.get(retailer, ()))
        table.add_row(retailer, *map(str, counts), *sizes)
    return table


def _print_partitions(states: list[PartitionState]) -> None:
    for each in states[:MAX_LISTED]:
        click.echo(f"{each.date}|{each.retailer}: {each.reason or 'current'}")
    if len(states) > MAX_LISTED:
        click.echo(f"and {len(states) - MAX_LISTED:,} more; narrow them down with --retailer")
