"""Termination of a run in the UI."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pytest

from imgassets.defs.partitions import Partition
from imgassets_tests.life import past
from imgassets_tests.life.deployment import Deployment, Shop, wait_for
from imgassets_tests.life.test_backfills import launch

TERMINATE = """
mutation ($id: String!) {
  terminateRun(runId: $id) {
    ... on TerminateRunSuccess { run { runId } }
    ... on Error { message }
  }
}
"""
DAY = past.DAYS[0]


@pytest.mark.slow
def test_a_terminated_run_ends_at_once_and_keeps_its_downloads(
    deployment: Deployment, open_shop: Callable[[str], Shop]
) -> None:
    shop = open_shop("stopped")
    shop.gate.clear()
    quick, slow = shop.sell("quick-1", "quick-2"), shop.sell("slow-1", "slow-2", gated=True)
    partition = Partition(DAY.isoformat(), shop.name)
    deployment.products.insert_one(shop.document(DAY, [*quick, *slow]))
    images = deployment.data / "images" / "raw" / shop.name

    # The sensor launches the first run.
    wait_for(
        "the quick images, while the server holds back the slow ones",
        lambda: shop.hits["/slow-1.jpg"] and len([*images.rglob("*.jpg")]) == 2,
    )
    (run,) = deployment.runs(partition)
    assert "run" in deployment.graphql(TERMINATE, id=run.dagster_run.run_id)
    assert deployment.wait_for_run(partition).dagster_run.status is dg.DagsterRunStatus.CANCELED
    # It did not wait for the images that the server still holds back.
    assert len([*images.rglob("*.jpg")]) == 2

    shop.gate.set()
    launch(deployment, partition)
    assert deployment.wait_for_run(partition, 1).dagster_run.status is dg.DagsterRunStatus.SUCCESS
    assert deployment.outcomes("raw_images", partition) == dict.fromkeys([*quick, *slow], "ok")
    assert [shop.hits[f"/quick-{n}.jpg"] for n in (1, 2)] == [1, 1]
