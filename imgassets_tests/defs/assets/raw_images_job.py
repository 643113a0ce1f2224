"""A job of `raw_images` that other processes can load; as a program, it runs until it is killed.

Argument: DAGSTER_HOME. The configuration of the run, as JSON, is on stdin.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from imgassets_tests.project import project_defs
from imgassets_tests.rows import PARTITION


def raw_images_job() -> dg.JobDefinition:
    """The asset without its checks; its executor is `in_process` or `multiprocess`."""
    job = dg.define_asset_job(
        "job",
        selection=dg.AssetSelection.assets("raw_images").without_checks(),
        executor_def=dg.multi_or_in_process_executor,
    )
    defs = dg.Definitions.merge(project_defs(), dg.Definitions(jobs=[job]))
    return defs.resolve_job_def("job")


def execute(
    instance: dg.DagsterInstance, run_config: Mapping[str, Any], retry_of: str | None = None
) -> dg.JobExecutionResult:
    """Run the job for `PARTITION`, or retry a run of it from its failure."""
    options = None
    if retry_of is not None:
        options = dg.ReexecutionOptions.from_failure(retry_of, instance)
    return dg.execute_job(
        dg.reconstructable(raw_images_job),
        instance,
        run_config=dict(run_config),
        tags={
            "dagster/partition": PARTITION.key,
            "dagster/partition/date": PARTITION.date,
            "dagster/partition/retailer": PARTITION.retailer,
        },
        reexecution_options=options,
    )


@contextmanager
def temporary_instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """An instance with its storage in a new folder."""
    home.mkdir()
    options = {"telemetry": {"enabled": False}}
    with dg.DagsterInstance.local_temp(str(home), options) as instance:
        instance.add_dynamic_partitions("retailer", [PARTITION.retailer])
        yield instance


if __name__ == "__main__":
    with temporary_instance(Path(sys.argv[1])) as own:
        execute(own, json.load(sys.stdin))
