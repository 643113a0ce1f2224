"""A code location with as little in it as can be: one asset that does nothing, date x retailer.

`partition_cost` measures what a partition of it costs, which is Dagster's own share.
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
    """Does nothing."""


defs = dg.Definitions(assets=[nothing], executor=dg.in_process_executor)
