"""What is left behind where processes end without a word."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pytest

from imgassets.defs.partitions import Partition
from imgassets.sources.listing import today
from imgassets_tests.life.deployment import Deployment, Shop, wait_for


@pytest.mark.slow
def test_where_the_machine_goes_off_the_runs_of_that_moment_are_run_again(
    deployment: Deployment, open_shop: Callable[[str], Shop]
) -> None:
    shop = open_shop("crash")
    shop.gate.clear()
    day = today()
    partition = Partition(day.isoformat(), shop.name)
    deployment.products.insert_one(shop.document(day, shop.sell("a", "b", gated=True)))
    wait_for("a run in the middle of its downloads", lambda: shop.hits["/a.jpg"])

    deployment.crash()
    shop.gate.set()
    (lost,) = deployment.runs(partition)
    assert lost.dagster_run.status is dg.DagsterRunStatus.STARTED
    deployment.start_daemon()

    assert deployment.ended(partition).dagster_run.status is dg.DagsterRunStatus.FAILURE
    again = deployment.ended(partition, 1).dagster_run
    assert again.status is dg.DagsterRunStatus.SUCCESS
    assert again.parent_run_id == lost.dagster_run.run_id
    assert set(deployment.outcomes("processed_images", partition).values()) == {"ok"}
