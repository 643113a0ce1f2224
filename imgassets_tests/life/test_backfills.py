"""Backfills of the real assets, launched through the webserver as the UI does."""

from __future__ import annotations

from itertools import pairwise

import dagster as dg
import pytest

from imgassets.defs.partitions import Partition
from imgassets_tests.life import past
from imgassets_tests.life.deployment import WORKSPACE, Deployment, Shop, wait_for

ASSETS = ["url_list", "raw_images", "processed_images"]
BROKEN = past.PARTITIONS[2]

LAUNCH = """
mutation ($backfill: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $backfill) {
    ... on LaunchBackfillSuccess { backfillId }
    ... on Error { message }
  }
}
"""
REEXECUTE = """
mutation ($run: ReexecutionParams!) {
  launchRunReexecution(reexecutionParams: $run) {
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
  }
}
"""
STATUS = """
query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status }
    ... on Error { message }
  }
}
"""


def launch(deployment: Deployment, *partitions: Partition) -> str:
    """Launch a backfill; return its id."""
    backfill = {
        "assetSelection": [{"path": [name]} for name in ASSETS],
        "partitionNames": [str(partition.key) for partition in partitions],
    }
    return str(deployment.graphql(LAUNCH, backfill=backfill)["backfillId"])


def wait_for_backfill(deployment: Deployment, backfill: str) -> str:
    """Wait until a backfill has ended; return its status."""

    def final_status() -> str | None:
        status = str(deployment.graphql(STATUS, id=backfill)["status"])
        return status if status.startswith("COMPLETED") else None

    return wait_for("the end of the backfill", final_status)


@pytest.mark.slow
def test_a_backfill_runs_each_partition_and_the_failed_one_is_re_executed_alone(
    deployment: Deployment, past_shops: dict[str, Shop]
) -> None:
    assert not any(deployment.runs(partition) for partition in past.PARTITIONS)
    for shop in past_shops.values():
        shop.gate.clear()
    obstacle = deployment.manifest_file("url_list", BROKEN)
    obstacle.mkdir(parents=True)  # a folder where a file should be

    backfill = launch(deployment, *past.PARTITIONS)
    # Different retailers run at the same time: no first day ends before both have begun.
    wait_for(
        "requests to both shops",
        lambda: all(shop.hits[f"/{past.DAYS[0]}-0.jpg"] for shop in past_shops.values()),
    )
    for shop in past_shops.values():
        shop.gate.set()
    assert wait_for_backfill(deployment, backfill) == "COMPLETED_FAILED"

    runs = {partition: deployment.runs(partition) for partition in past.PARTITIONS}
    assert all(len(found) == 1 for found in runs.values())  # a failed step is not retried
    statuses = {partition: found[0].dagster_run.status for partition, found in runs.items()}
    assert statuses.pop(BROKEN) is dg.DagsterRunStatus.FAILURE
    assert set(statuses.values()) == {dg.DagsterRunStatus.SUCCESS}
    for partition in statuses:
        outcomes = deployment.outcomes("processed_images", partition)
        assert [*outcomes.values()] == ([] if partition == past.EMPTY else ["ok"] * 3)

    # Two runs never download from one retailer at the same time.
    for name in past.SHOPS:
        times = sorted(
            (record.start_time or 0, record.end_time or 0)
            for partition, (record,) in runs.items()
            if partition.retailer == name
        )
        assert all(ended <= started for (_, ended), (started, _) in pairwise(times))

    # The cause is repaired, and only the failed partition is re-executed.
    obstacle.rmdir()
    failed = runs[BROKEN][0].dagster_run.run_id
    assert "run" in deployment.graphql(
        REEXECUTE, run={"parentRunId": failed, "strategy": "FROM_FAILURE"}
    )
    assert deployment.wait_for_run(BROKEN, 1).dagster_run.status is dg.DagsterRunStatus.SUCCESS
    assert {p: len(deployment.runs(p)) for p in past.PARTITIONS} == {
        p: 2 if p == BROKEN else 1 for p in past.PARTITIONS
    }
    assert [*deployment.outcomes("processed_images", BROKEN).values()] == ["ok"] * 3


@pytest.mark.slow
def test_dagsters_command_line_backfills_a_job(deployment: Deployment) -> None:
    partitions = [Partition("2026-01-05", name) for name in past.SHOPS]
    keys = ",".join(str(partition.key) for partition in partitions)
    command = ("dagster", "job", "backfill", "-j", "catalogue_job", "--noprompt", *WORKSPACE)
    assert "Launched backfill job" in deployment.run(*command, "--partitions", keys)
    for partition in partitions:
        assert deployment.wait_for_run(partition).dagster_run.status is dg.DagsterRunStatus.SUCCESS
        assert deployment.rows("processed_images", partition) == []
