"""Partitions: date x retailer. One run handles one partition.

Which retailers exist is stored in the Dagster instance; `imgassets sync` and the sensor register
them. How names become slugs is in `sources.listing`.
https://docs.dagster.io/guides/build/partitions-and-backfills/partitioning-assets
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import NamedTuple

import dagster as dg

RETAILERS = "retailer"
"""Name of the dynamic partitions of retailers in the Dagster instance, without a key prefix."""


def catalogue_partitions(
    start_date: dt.date, retailers: str = RETAILERS
) -> dg.MultiPartitionsDefinition:
    """The partitions of all assets.

    Args:
        start_date: first day with a partition (UTC).
        retailers: name of the dynamic partitions in the Dagster instance.
    """
    return dg.MultiPartitionsDefinition(
        {
            # Today has a partition too: documents are scraped, and wanted, all day long.
            "date": dg.DailyPartitionsDefinition(
                start_date=start_date.isoformat(), timezone="UTC", end_offset=1
            ),
            "retailer": dg.DynamicPartitionsDefinition(name=retailers),
        }
    )


class Partition(NamedTuple):
    """One day of one retailer."""

    date: str
    retailer: str

    @property
    def key(self) -> dg.MultiPartitionKey:
        """The partition's key in Dagster, `2026-01-31|zara`."""
        return dg.MultiPartitionKey(self._asdict())


def partition_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> Partition:
    """The partition of a run.

    Raises:
        dagster.Failure: the run has a range of partitions; one run handles one.
    """
    # `partition_keys` queries the database for the retailer, which Dagster has already done.
    keys = [context.partition_key] if context.has_partition_key else context.partition_keys
    return only_partition(keys)


def only_partition(keys: Sequence[str]) -> Partition:
    """The partition of these keys; raises as `partition_of` does."""
    if len(keys) != 1:
        # Dagster turns a reversed range into zero partitions.
        raise dg.Failure(
            f"this run has {len(keys)} partitions, and one run handles one: launch a backfill, "
            "which starts one run per partition",
            allow_retries=False,
        )
    date, retailer = keys[0].split("|")
    return Partition(date, retailer)
