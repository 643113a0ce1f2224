"""Recovery after a crash of the whole machine."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pytest

from imgassets.defs.partitions import Partition
from imgassets.sources.listing import today
from imgassets_tests.life.deployment import Deployment, Shop, wait_for


@pytest.mark.slow
def test_runs_that_a_machine_crash_ended_are_retried_after_the_restart(
    deployment: Deployment, open_shop: Callable[[str], Shop]
) -> None:
    shop = open_shop("crash")
    shop.gate.clear()
    day = today()
    partition = Partition(day.isoformat(), shop.name)
    deployment.products.insert_one(shop.document(day, shop.sell("a", "b", gated=True)))
    wait_for("a request for a gated image", lambda: shop.hits["/a.jpg"])

    deployment.crash()
    shop.gate.set()
    (lost,) = deployment.runs(partition)
    assert lost.dagster_run.status is dg.DagsterRunStatus.STARTED
    deployment.start_daemon()

    assert deployment.wait_for_run(partition).dagster_run.status is dg.DagsterRunStatus.FAILURE
    retry = deployment.wait_for_run(partition, 1).dagster_run
    assert retry.status is dg.DagsterRunStatus.SUCCESS
    assert retry.parent_run_id == lost.dagster_run.run_id
    assert set(deployment.outcomes("processed_images", partition).values()) == {"ok"}
