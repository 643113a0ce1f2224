"""A day in production: scrapers write documents, shops fail, processes die, nobody intervenes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import cv2
import dagster as dg
import pytest

from imgassets.defs.partitions import Partition
from imgassets.sources.listing import today
from imgassets_tests.life.deployment import Deployment, Shop, wait_for

SUCCESS = dg.DagsterRunStatus.SUCCESS
FAILURE = dg.DagsterRunStatus.FAILURE

RUN_JOB = """
mutation ($run: ExecutionParams!) {
  launchRun(executionParams: $run) {
    __typename
    ... on PythonError { message }
  }
}
"""


def launch(deployment: Deployment, job: str, partition: Partition) -> None:
    """Launch a job's run of one partition, as the UI does."""
    tags = {
        "dagster/partition": str(partition.key),
        "dagster/partition/date": partition.date,
        "dagster/partition/retailer": partition.retailer,
    }
    selector = {
        "jobName": job,
        "repositoryName": "__repository__",
        "repositoryLocationName": "imgassets",
    }
    metadata = {"tags": [{"key": key, "value": value} for key, value in tags.items()]}
    run = {"selector": selector, "runConfigData": {}, "executionMetadata": metadata}
    assert deployment.graphql(RUN_JOB, run=run)["__typename"] == "LaunchRunSuccess"


def assert_every_url_has_its_row(
    deployment: Deployment, partition: Partition, day: dt.date
) -> None:
    """Assert one row per URL in both manifests, and a file for exactly the rows that are ok."""
    start = dt.datetime.combine(day, dt.time(), dt.UTC)
    documents = deployment.products.find(
        {
            "product_retailer": partition.retailer,
            "scraped_at": {"$gte": start, "$lt": start + dt.timedelta(days=1)},
        }
    )
    urls = sorted(url for document in documents for url in document["product_images"])
    assert urls
    for asset in ("raw_images", "processed_images"):
        rows = deployment.rows(asset, partition)
        assert sorted(row["url"] for row in rows) == urls
        for row in rows:
            assert (row["outcome"] == "ok") == (row["path"] is not None)
            if row["path"] is None:
                continue
            file = deployment.data / row["path"]
            image = cv2.imread(str(file))
            assert image is not None
            assert image.shape == (row["height"], row["width"], 3)
            if asset == "raw_images":
                assert file.stat().st_size == row["bytes"]


@pytest.mark.slow
def test_every_url_is_accounted_for_after_a_day_of_failures_without_a_person(
    deployment: Deployment, open_shop: Callable[[str], Shop]
) -> None:
    day = today()
    steady, down, killed = (open_shop(name) for name in ("steady", "down", "killed"))
    partitions = {
        shop.name: Partition(day.isoformat(), shop.name) for shop in (steady, down, killed)
    }
    of_steady, of_down, of_killed = partitions.values()

    # Scrapers write documents; one retailer's server is down, another's answers late.
    down_urls = down.sell("a", "b", "c", "d")
    down.close()
    killed.gate.clear()
    killed_urls = killed.sell("quick") + killed.sell("a", "b", "c", gated=True)
    documents = [
        steady.document(day, steady.sell("a", "b")),
        steady.document(day, steady.sell("c")),
        down.document(day, down_urls),
        killed.document(day, killed_urls),
    ]
    deployment.products.insert_many(documents)

    # The sensor launches runs and registers the new retailers.
    run = deployment.wait_for_run(of_steady)
    assert run.dagster_run.status is SUCCESS
    assert run.dagster_run.job_name == "catalogue_job"
    assert run.dagster_run.tags["dagster/sensor_name"] == "new_documents"
    checks = deployment.checks(run)
    assert len(checks) >= 5
    assert all(checks.values()), checks
    assert {*partitions} <= {*deployment.instance.get_dynamic_partitions("retailer")}

    # A run is killed during its downloads. Its retry starts, so its retailer's slot was released.
    wait_for("a request for a gated image", lambda: killed.hits["/a.jpg"])
    (first,) = deployment.runs(of_killed)
    deployment.process_of(first.dagster_run.run_id).kill()
    crashed = deployment.wait_for_run(of_killed)
    assert crashed.dagster_run.status is FAILURE
    killed.gate.set()
    retry = deployment.wait_for_run(of_killed, 1).dagster_run
    assert retry.status is SUCCESS
    assert retry.parent_run_id == crashed.dagster_run.run_id
    assert set(deployment.outcomes("processed_images", of_killed).values()) == {"ok"}

    # A shop that is down is no crash: its rows say so, a check fails the run, which is not retried.
    run = deployment.wait_for_run(of_down)
    assert run.dagster_run.status is FAILURE
    assert not deployment.checks(run)["download_success_rate"]
    assert len(deployment.runs(of_down)) == 1
    outcomes = deployment.outcomes("raw_images", of_down)
    assert set(outcomes) == set(down_urls)
    assert "ok" not in outcomes.values()

    # The shop is up again.
    down.open()
    launch(deployment, "retry_failed", of_down)
    assert deployment.wait_for_run(of_down, 1).dagster_run.status is SUCCESS
    assert set(deployment.outcomes("raw_images", of_down).values()) == {"ok"}

    # A document is updated. Images that were downloaded are not requested again.
    (new,) = steady.sell("new")
    deployment.products.update_one({"_id": documents[0]["_id"]}, {"$push": {"product_images": new}})
    assert deployment.wait_for_run(of_steady, 1).dagster_run.status is SUCCESS
    assert [steady.hits[f"/{name}.jpg"] for name in ("a", "b", "c", "new")] == [1, 1, 1, 1]

    for partition in partitions.values():
        assert_every_url_has_its_row(deployment, partition, day)
        last = deployment.runs(partition)[-1]
        checks = deployment.checks(last)
        assert all(checks.values()), checks
    assert [len(deployment.runs(partition)) for partition in partitions.values()] == [2, 2, 2]
