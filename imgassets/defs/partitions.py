"""Partitions: date x retailer. One run handles one partition.

The date is a day, or the first day of a week or month (`partitions.period`; see `periods`).

The retailers are dynamic partitions in the Dagster instance; `imgassets sync` and the sensor
`new_documents` register them. How names become slugs is in `sources.listing`.
https://docs.dagster.io/guides/build/partitions-and-backfills/partitioning-assets
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from typing import NamedTuple

import dagster as dg

from imgassets.periods import first_day
from imgassets.settings import Period
from imgassets.wording import counted

RETAILERS = "retailer"
"""Name of the retailers' dynamic partitions in the Dagster instance, without a key prefix."""

_SLUG = re.compile("[a-z0-9-]+")


def catalogue_partitions(
    start_date: dt.date, period: Period, retailers: str = RETAILERS
) -> dg.MultiPartitionsDefinition:
    """Build the partitions of the assets, date x retailer.

    Args:
        start_date: the first day with a partition (UTC).
        period: `partitions.period`.
        retailers: the name of the retailers' dynamic partitions in the Dagster instance.
    """
    start = first_day(start_date, period).isoformat()
    # end_offset=1: today has a partition too, because documents arrive during the day.
    date: dg.TimeWindowPartitionsDefinition
    match period:
        case "day":
            date = dg.DailyPartitionsDefinition(start, timezone="UTC", end_offset=1)
        case "week":  # day_offset=1: from Monday
            date = dg.WeeklyPartitionsDefinition(start, day_offset=1, timezone="UTC", end_offset=1)
        case "month":
            date = dg.MonthlyPartitionsDefinition(start, timezone="UTC", end_offset=1)
    return dg.MultiPartitionsDefinition(
        {
            "date": date,
            "retailer": dg.DynamicPartitionsDefinition(name=retailers),
        }
    )


class Partition(NamedTuple):
    """One day, week or month of one retailer.

    Attributes:
        date: the first day in UTC, `YYYY-MM-DD`.
        retailer: the slug of the retailer.
    """

    date: str
    retailer: str

    @classmethod
    def parse(cls, key: str) -> Partition:
        """The partition of a key in Dagster, for example `2026-01-31|zara`."""
        date, _, retailer = key.partition("|")
        return cls(date, retailer)

    @property
    def key(self) -> dg.MultiPartitionKey:
        """The partition key in Dagster, for example `2026-01-31|zara`."""
        return dg.MultiPartitionKey(self._asdict())


def partition_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> Partition:
    """The partition of a run.

    Raises:
        dagster.Failure: see `only_partition`.
    """
    # `partition_keys` queries the instance for the retailers; `partition_key` does not.
    keys = [context.partition_key] if context.has_partition_key else context.partition_keys
    return only_partition(keys)


def only_partition(keys: Sequence[str]) -> Partition:
    """The partition of a list with one key.

    Args:
        keys: partition keys, for example `["2026-01-31|zara"]`.

    Raises:
        dagster.Failure: there is not exactly one key, or its retailer is no slug: the UI lets users
            add any text as a partition, and manifests would be written to the path that it names.
    """
    if len(keys) != 1:
        # Zero: Dagster turns a range whose end is before its start into no partitions.
        raise dg.Failure(
            f"this run has {counted(len(keys), 'partition')}, but a run handles exactly one: "
            "launch a backfill, which starts one run per partition",
            allow_retries=False,
        )
    partition = Partition.parse(keys[0])
    if not _SLUG.fullmatch(partition.retailer):
        raise dg.Failure(
            f"the retailer of this partition, {partition.retailer!r}, is no slug (a-z, 0-9 and -), "
            "so no document belongs to it: delete it from the partitions `retailer`; "
            "`imgassets sync` registers the retailers of the source",
            allow_retries=False,
        )
    return partition
