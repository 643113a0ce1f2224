"""A backfill on two Celery workers that share only network services, all of which fail in turn."""

from __future__ import annotations

import datetime as dt
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import dagster as dg
import psutil
import pytest
from pymongo.database import Database

from imgassets_tests.download.server import running
from imgassets_tests.machines import rabbitmq
from imgassets_tests.machines.cluster import TIMEOUT_S, Cluster, Shops
from imgassets_tests.object_store import ObjectStore

RETAILERS = tuple(f"shop-{n}" for n in range(8))
DAYS = tuple(dt.date(2026, 1, n) for n in range(2, 7))
IMAGES = 4
# The partition whose worker is killed in the middle of it, after all runs were queued: crashed runs
# are not retried before (docs/operations.md).
LARGE = RETAILERS[4], DAYS[1]
LARGE_IMAGES = 24
DELAY_S = 1.0
THREADS = 2
SLOTS = 4  # max_concurrent_runs in deploy/celery/dagster.yaml


def images_of(retailer: str, day: dt.date) -> int:
    """Return the number of images of a partition."""
    return LARGE_IMAGES if (retailer, day) == LARGE else IMAGES


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
def shops() -> Iterator[Shops]:
    with running() as server:
        yield Shops(server, DELAY_S)


@pytest.fixture
def services(
    broker: rabbitmq.RabbitMQ, postgres: Any, mongodb_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set the environment variables with the addresses of the services."""
    address = postgres.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", address)
    monkeypatch.setenv("CELERY_BROKER_URL", broker.url)
    monkeypatch.setenv("MONGODB_URI", mongodb_uri)


@pytest.fixture
def cluster(
    tmp_path: Path, s3: str, mongo_database: Database[dict[str, Any]], shops: Shops, services: None
) -> Iterator[Cluster]:
    """A deployment with the documents of eight retailers on five days; no worker has started."""
    del services
    products = mongo_database["products"]
    products.insert_many(
        shops.sell(name, day, images_of(name, day)) for name in RETAILERS for day in DAYS
    )
    cluster = Cluster(
        tmp_path,
        workers=2,
        bucket=s3,
        services=dict(os.environ),
        products=products,
        days=DAYS,
        threads=THREADS,
    )
    with cluster.running():
        yield cluster


class Disturbances:
    """When which service was away, in Unix seconds."""

    def __init__(self, cluster: Cluster) -> None:
        self.times: dict[str, tuple[float, float]] = {}
        self._cluster = cluster

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Note that a service is away during this block."""
        begin = time.time()
        yield
        self.times[name] = begin, time.time()

    def at(self, run: dg.RunRecord, margin_s: float = 0) -> list[str]:
        """Return what was away while a run was in progress, or so long before or after it.

        A run that never starts was in progress from its launch: without Postgres, it is marked as
        failed some seconds after Postgres is back.
        """
        begun = run.start_time
        if begun is None:
            begun = self._cluster.instance.get_run_stats(run.dagster_run.run_id).launch_time
        assert begun
        assert run.end_time
        return [
            name
            for name, (begin, end) in self.times.items()
            if begun < end + margin_s and begin < run.end_time + margin_s
        ]


def wait_until(is_true: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def runs_that(cluster: Cluster, status: dg.DagsterRunStatus) -> list[dg.RunRecord]:
    return [run for run in cluster.runs() if run.dagster_run.status is status]


def wait_for_successes(cluster: Cluster, more: int) -> None:
    """Wait until so many more runs have succeeded than now, or none is left."""
    wanted = len(runs_that(cluster, dg.DagsterRunStatus.SUCCESS)) + more
    wait_until(
        lambda: (
            len(runs_that(cluster, dg.DagsterRunStatus.SUCCESS)) >= wanted
            or all(run.dagster_run.is_finished for run in cluster.runs())
        )
    )


def partition_of(run: dg.RunRecord) -> str:
    """Return the folder of a run's images at the shops."""
    tags = run.dagster_run.tags
    return f"/{tags['dagster/partition/retailer']}/{tags['dagster/partition/date']}"


def kill_the_large_partition(
    cluster: Cluster, shops: Shops, workers: Sequence[Popen[bytes]]
) -> int:
    """Kill the main process of the worker that downloads the large partition; return its index."""
    (name,) = {request.machine for request in shops.answered(*LARGE)}
    (lost,) = (n for n, machine in enumerate(cluster.workers) if machine.name == name)
    processes = psutil.Process(workers[lost].pid).children(recursive=True)
    workers[lost].kill()
    _, alive = psutil.wait_procs(processes, timeout=TIMEOUT_S)
    assert alive == []
    wait_until(lambda: runs_that(cluster, dg.DagsterRunStatus.FAILURE))
    return lost


@pytest.mark.slow
@pytest.mark.timeout(3 * TIMEOUT_S)
def test_a_backfill_survives_the_loss_of_a_worker_and_of_every_service(
    cluster: Cluster, shops: Shops, broker: rabbitmq.RabbitMQ, postgres: Any, s3_server: ObjectStore
) -> None:
    away = Disturbances(cluster)
    workers = [machine.start_worker(slots=3) for machine in cluster.workers]
    cluster.backfill()
    wait_until(lambda: len(shops.answered(*LARGE)) >= LARGE_IMAGES // 2)
    with away.of("worker"):
        lost = kill_the_large_partition(cluster, shops, workers)
    cluster.workers[lost].start_worker(slots=3)
    wait_for_successes(cluster, 3)
    with away.of("RabbitMQ"):
        broker.stop()
        time.sleep(5)
        broker.start()
    wait_for_successes(cluster, 3)
    with away.of("Postgres"):
        postgres.stop()
        time.sleep(20)
        postgres.ensure_postgres_running()
    wait_for_successes(cluster, 3)
    with away.of("object store"):
        s3_server.refusals = math.inf
        time.sleep(10)
        s3_server.refusals = 0
    wait_for_successes(cluster, 3)
    workers[1 - lost].terminate()
    assert workers[1 - lost].wait(TIMEOUT_S) == 0
    runs = cluster.wait_until_done()

    assert all(
        cluster.outcomes(retailer, day) == ["ok"] * images_of(retailer, day)
        for retailer in RETAILERS
        for day in DAYS
    )
    assert shops.shared_retailers() == []
    partitions = {(request.path.rpartition("/")[0], request.machine) for request in shops.requests}
    assert min(Counter(machine for _, machine in partitions).values()) >= 5
    begin, end = away.times["object store"]
    assert any(begin < request.time < end for request in s3_server.requests)

    failed = [run for run in runs if run.dagster_run.status is dg.DagsterRunStatus.FAILURE]
    for run in failed:
        # No run of the stopped worker failed, and an object store that is away was waited for.
        assert away.at(run) not in ([], ["object store"]), cluster.why_failed(run)
    hits = Counter(request.path for request in shops.requests)
    again = Counter(path.rpartition("/")[0] for path, number in hits.items() if number > 1)
    assert {*again} <= {partition_of(run) for run in failed}
    succeeded = [run for run in runs if run.dagster_run.is_success]
    # Output is uploaded once, at the end of a run or some seconds later.
    undisturbed = [run for run in succeeded if not away.at(run, margin_s=30)]
    assert {run.dagster_run.run_id for run in undisturbed} <= cluster.runs_with_logs()

    killed, *later = (run for run in failed if partition_of(run) == f"/{LARGE[0]}/{LARGE[1]}")
    if not later:  # Lost once only: what was in flight, and what the journal did not have yet.
        assert again[partition_of(killed)] < LARGE_IMAGES // 2
    retries = [run for run in runs if run.dagster_run.parent_run_id == killed.dagster_run.run_id]
    assert retries or cluster.relaunched  # Dagster forgets a retry now and then
    for retry in retries:  # It went before the runs that were queued, more than 20.
        queued, started = retry.create_timestamp.timestamp(), retry.start_time or 0
        before = [run for run in runs if queued < (run.start_time or 0) < started]
        assert len(before) <= 3 * SLOTS
