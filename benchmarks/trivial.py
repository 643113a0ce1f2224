"""Minimal code location: one asset that does nothing, partitioned by date and retailer.

`partition_cost` measures the cost of its partitions, which is the cost of Dagster alone.
"""

import dagster as dg

partitions = dg.MultiPartitionsDefinition(
    {
        "date": dg.DailyPartitionsDefinition("2026-01-01", timezone="UTC", end_offset=1),
        "retailer": dg.DynamicPartitionsDefinition(name="retailer"),
    }
)


@dg.asset(partitions_def=partitions)
def nothing() -> None:
    """An asset without work."""


defs = dg.Definitions(assets=[nothing], executor=dg.in_process_executor)
