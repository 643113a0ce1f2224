"""Explain partitions that `dagster asset materialize` refuses, in one sentence.

Dagster ends the command with a traceback, before any code of a run. The commands of `imgassets`
are in `cli`.
"""

from __future__ import annotations

import datetime as dt
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
import dagster as dg
from dagster_shared.check import CheckError

from imgassets.defs.instance import DAGSTER_HOME_VARIABLE
from imgassets.defs.partitions import RETAILERS
from imgassets.periods import first_day
from imgassets.settings import Period

# What a key of an asset's partition consists of; of all other assets, date and retailer.
_FORMS = {"daily_report": ("date",), "retailer_report": ("retailer",)}
_MAX_NAMED = 5


def explain_partition_errors(start_date: dt.date, period: Period) -> None:
    """Make `dagster asset materialize` end with one sentence if it refuses the partition.

    Called while this command loads the definitions, it adds to the command's click context. It
    does nothing in other processes: webserver, daemon, code servers and runs.

    Args:
        start_date: The first day with a partition.
        period: `partitions.period`.
    """
    context = click.get_current_context(silent=True)
    if context is not None and context.command_path.endswith(" asset materialize"):
        context.with_resource(_explained(context.params, start_date, period))


@contextmanager
def _explained(options: Mapping[str, Any], start_date: dt.date, period: Period) -> Iterator[None]:
    select, key = str(options["select"]), options["partition"]
    start_date = first_day(start_date, period)
    try:
        yield
    except dg.DagsterInvalidSubsetError as error:
        if not isinstance(error.__context__, dg.DagsterUnknownPartitionError):
            raise click.ClickException(str(error)) from None
        sentence = unknown_partition(str(key), select, start_date, period, _registered_retailers())
        raise click.ClickException(sentence) from None
    except CheckError as error:
        if "artition" not in str(error):
            raise
        if options["partition_range"]:
            sentence = (
                "a run handles one partition, not a range; `imgassets backfill --start DAY --end "
                "DAY --retailer RETAILER` launches one run for each"
            )
        elif key is None:
            sentence = f"{select} has partitions; add --partition {_example(select, start_date)}"
        else:
            sentence = str(error).removeprefix("Failure condition: ")
        raise click.ClickException(sentence) from None


def unknown_partition(
    key: str, select: str, start_date: dt.date, period: Period, retailers: Sequence[str] | None
) -> str:
    """Say why there is no such partition, and what to do.

    Args:
        key: The key that Dagster refused, for example `2026-01-31|zara`.
        select: The selection of assets, for example `url_list,raw_images`.
        start_date: The first day of the first partition.
        period: `partitions.period`.
        retailers: The registered retailers; None if DAGSTER_HOME is not set.
    """
    from imgassets.sources.listing import today

    form, values = _form(select), key.split("|")
    parts = dict(zip(form, values, strict=False))
    day = _day(parts["date"]) if "date" in parts else start_date
    if len(values) != len(form) or day is None:
        problems = [f"write {'|'.join(form)}, for example {_example(select, start_date)}"]
    else:
        problems = []
        if day < start_date:
            problems.append(f"{day} is before start_date, {start_date}")
        if day > today():
            problems.append(f"{day} is after today, {today()} (UTC)")
        first = first_day(day, period)
        if first != day and not problems:
            problems.append(f"{day} is in the partition of the {period} that starts on {first}")
        if "retailer" in parts and parts["retailer"] not in (retailers or ()):
            problems.append(_unknown_retailer(parts["retailer"], retailers))
    return f"there is no partition {key!r}: {' and '.join(problems) or 'Dagster refuses it'}"


def _unknown_retailer(retailer: str, retailers: Sequence[str] | None) -> str:
    if retailers is None:
        return (
            "DAGSTER_HOME is not set in this shell, so no retailer is known; before you run "
            '`dagster`: export DAGSTER_HOME="$PWD/.imgassets/dagster_home"'
        )
    if near := difflib.get_close_matches(retailer, retailers):
        others = f"similar: {', '.join(near)}"
    else:
        more = " ..." if len(retailers) > _MAX_NAMED else ""
        others = f"registered: {', '.join(retailers[:_MAX_NAMED]) or 'none'}{more}"
    return (
        f"retailer {retailer!r} is not registered ({others}); `imgassets sync` registers those of "
        "the source and lists their days"
    )


def _form(select: str) -> tuple[str, ...]:
    return next((form for name, form in _FORMS.items() if name in select), ("date", "retailer"))


def _example(select: str, start_date: dt.date) -> str:
    example = {"date": str(start_date), "retailer": "zara"}
    return f"'{'|'.join(example[part] for part in _form(select))}'"


def _day(text: str) -> dt.date | None:
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        return None
    return day if day.isoformat() == text else None


def _registered_retailers() -> list[str] | None:
    if not os.environ.get(DAGSTER_HOME_VARIABLE):
        return None
    with dg.DagsterInstance.get() as instance:
        return sorted(instance.get_dynamic_partitions(RETAILERS))
