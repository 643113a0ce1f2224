"""Date x retailer: what one run handles.

Here live the definition and its keys. Which retailers exist is known to the Dagster instance
(`imgassets sync` and the sensor register them); how names become slugs is in `sources.listing`.
https://docs.dagster.io/guides/build/partitions-and-backfills/partitioning-assets
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import dagster as dg

from imgassets.configuration import load_settings

retailers = dg.DynamicPartitionsDefinition(name="retailer")

catalogue = dg.MultiPartitionsDefinition(
    {
        # Today has a partition too: documents are scraped, and wanted, all day long.
        "date": dg.DailyPartitionsDefinition(
            start_date=load_settings().start_date.isoformat(), timezone="UTC", end_offset=1
        ),
        "retailer": retailers,
    }
)


class Partition(NamedTuple):
    """One day of one retailer."""

    date: str
    retailer: str

    @property
    def key(self) -> dg.MultiPartitionKey:
        """The key that Dagster knows it by, `2026-01-31|zara`."""
        return dg.MultiPartitionKey(self._asdict())


def partition_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> Partition:
    """The partition of a run.

    Raises:
        dagster.Failure: the run has a range of partitions; one run handles one.
    """
    # `partition_keys` asks the database whether the retailer is known, as Dagster has before.
    keys = [context.partition_key] if context.has_partition_key else context.partition_keys
    return only_partition(keys)


def only_partition(keys: Sequence[str]) -> Partition:
    """The partition of these keys; raises as `partition_of` does."""
    if len(keys) != 1:
        # Zero is what Dagster makes of a reversed range.
        raise dg.Failure(
            f"this run has {len(keys)} partitions, and one run handles one: launch a backfill, "
            "which makes a run of each",
            allow_retries=False,
        )
    date, retailer = keys[0].split("|")
    return Partition(date, retailer)
