"""Cost of a partition, compared with a partition of an asset that does nothing.

    python -m benchmarks.partition_cost                # all parts, about 13 minutes
    python -m benchmarks.partition_cost imports
    python -m benchmarks.partition_cost run
    python -m benchmarks.partition_cost backfill --partitions 10

`imports`: import time in new interpreters. `run`: the steps of one run of the real assets and one
of `benchmarks.trivial`, each in a new interpreter and forked from the fork server. `backfill`: a
backfill through Dagster's daemon with the project's `dagster.yaml`, of the real assets ("ours") and
of `benchmarks.trivial`, the latter also with Dagster's default launcher ("stock").

The CPU of a backfill is that of the daemon, its servers and all runs with their children, from the
launch to the end of the last run. It excludes MongoDB, the image server and all start-up before the
launch. All files are in `.imgassets/bench/partition`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import dagster as dg
import numpy as np
import psutil
import yaml
from PIL import Image as PILImage
from pymongo import MongoClient

from imgassets.demo.mongod import EmbeddedMongo
from imgassets.demo.server import CatalogueServer
from imgassets.folders import home, project_root
from imgassets.launcher.client import ForkServer

BENCH = home() / "bench" / "partition"
FIRST_DAY = dt.date(2026, 1, 1)
RETAILERS = [f"shop-{number}" for number in range(10)]
IMAGES = 20
OURS, TRIVIAL = "imgassets.definitions", "benchmarks.trivial"
# Code location by name of the backfill; "stock" uses Dagster's default launcher.
BACKFILLS = {"stock": TRIVIAL, "trivial": TRIVIAL, "ours": OURS}
ASSETS = {OURS: ["url_list", "raw_images", "processed_images"], TRIVIAL: ["nothing"]}
JOBS = {TRIVIAL: "__ASSET_JOB", OURS: "catalogue_job"}
HEAVY = (
    "sqlalchemy",
    "numpy",
    "pyarrow",
    "pyarrow.parquet",
    "pandas",
    "pymongo",
    "requests",
    "cv2",
)
_TIMEOUT_S = 470
_SETTLE_S = 10  # the first ticks of all daemons

_LAUNCH = """
mutation ($backfill: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $backfill) {
    ... on LaunchBackfillSuccess { backfillId }
    ... on Error { message }
  }
}
"""


@dataclass(frozen=True)
class Cost:
    """The cost of a backfill: wall time and CPU, in seconds."""

    wall: float
    cpu: float


def main() -> None:
    """Run the benchmarks and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("imports", "run", "backfill")
    parser.add_argument("part", choices=parts, nargs="?", help="run only this part")
    parser.add_argument("--rounds", type=int, default=9, help="number of imports per module")
    parser.add_argument(
        "--partitions", type=int, default=100, help="number of partitions per backfill"
    )
    parser.add_argument(
        "--only",
        choices=BACKFILLS,
        help="run only this backfill: stock is trivial with Dagster's default launcher",
    )
    options = parser.parse_args()
    if options.part in (None, "imports"):
        _imports(options.rounds)
    with ExitStack() as stack:
        if options.part != "imports":
            environment = stack.enter_context(_sources(max(3, options.partitions)))
        if options.part in (None, "run"):
            _run(environment)
        if options.part in (None, "backfill"):
            _backfills(options.partitions, environment, options.only)


def _imports(rounds: int) -> None:
    modules = {"dagster": "import dagster", OURS: f"import {OURS}", TRIVIAL: f"import {TRIVIAL}"}
    cpu: dict[str, list[float]] = {name: [] for name in modules}
    for _ in range(rounds):
        for name, statement in modules.items():
            cpu[name].append(_cpu_of(statement))
    print(f"| import, medians of {rounds} | CPU s | / dagster |\n|---|---|---|")
    medians = {name: statistics.median(times) for name, times in cpu.items()}
    for name, median in medians.items():
        print(f"| {name} | {median:.3f} | {median / medians['dagster']:.2f} |", flush=True)


def _cpu_of(statement: str) -> float:
    before = os.times()
    environment = {**os.environ, "DAGSTER_HOME": str(BENCH), **_PATHS}
    subprocess.run([sys.executable, "-c", statement], check=True, env=environment)
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


# Import imgassets from this checkout, even if another version is installed.
_PATHS = {"PYTHONPATH": str(project_root())}


@contextmanager
def _sources(partitions: int) -> Iterator[dict[str, str]]:
    """Start MongoDB with products, and a server of their images.

    Args:
        partitions: number of partitions that the products belong to.

    Yields:
        The environment variables of processes that use them.
    """
    shutil.rmtree(BENCH, ignore_errors=True)
    (BENCH / "served").mkdir(parents=True)
    mongodb = EmbeddedMongo(home() / "bench" / "mongodb")
    with CatalogueServer(BENCH / "served") as server:
        address = mongodb.ensure_running()
        try:
            with MongoClient[dict[str, Any]](address, tz_aware=True) as client:
                products = client["bench"]["products"]
                products.drop()
                products.insert_many(_documents(partitions, server.url))
            config = {
                "data_root": str(BENCH / "data"),
                "source": {"database": "bench", "collection": "products"},
                "download": {"allow_private_addresses": True},
            }
            (BENCH / "config.yaml").write_text(yaml.safe_dump(config))
            yield {
                **os.environ,
                **_PATHS,
                "IMGASSETS_CONFIG": str(BENCH / "config.yaml"),
                "MONGODB_URI": address,
            }
        finally:
            mongodb.stop()


def _documents(partitions: int, url: str) -> list[dict[str, Any]]:
    """Write the images; returns one product with `IMAGES` different images per partition."""
    found = []
    for partition in range(partitions):
        day, retailer = divmod(partition, len(RETAILERS))
        names = [f"{partition}-{number}.jpg" for number in range(IMAGES)]
        for number, name in enumerate(names):
            data = _image(partition * IMAGES + number)
            (BENCH / "served" / name).write_bytes(data)
        noon = dt.datetime.combine(FIRST_DAY, dt.time(12), dt.UTC) + dt.timedelta(days=day)
        found.append(
            {
                "product_retailer": RETAILERS[retailer],
                "product_images": [f"{url}/{name}" for name in names],
                "scraped_at": noon,
            }
        )
    return found


def _image(seed: int) -> bytes:
    """A JPEG of 160 x 240 pixels: a coloured rectangle on white."""
    pixels = np.full((240, 160, 3), 255, dtype=np.uint8)
    small = np.random.default_rng(seed).integers(0, 255, (14, 10, 3), dtype=np.uint8)
    pixels[50:190, 30:130] = small.repeat(10, axis=0).repeat(10, axis=1)
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, format="JPEG")
    return buffer.getvalue()


def _keys(partitions: int) -> list[str]:
    """Partition keys of the first partitions, as Dagster writes them."""
    return [
        str(
            dg.MultiPartitionKey(
                {
                    "date": (FIRST_DAY + dt.timedelta(days=number // len(RETAILERS))).isoformat(),
                    "retailer": RETAILERS[number % len(RETAILERS)],
                }
            )
        )
        for number in range(partitions)
    ]


def _run(environment: Mapping[str, str]) -> None:
    folder = BENCH / "one_run"
    with _instance(folder) as instance:
        instance.add_dynamic_partitions("retailer", RETAILERS)
    variables = {**environment, "DAGSTER_HOME": str(folder)}
    first, second, third = _keys(3)
    program = ("-m", "benchmarks.one_run")
    for module, job in JOBS.items():
        print("new interpreter:", flush=True)
        subprocess.run([sys.executable, *program, module, job, first], env=variables, check=True)
        print("forked:", flush=True)
        _run_forked("benchmarks.one_run", [module, job, third], variables)
    # A separate run, because `-X importtime` slows down imports.
    subprocess.run(
        [sys.executable, "-X", "importtime", *program, OURS, JOBS[OURS], second],
        env=variables,
        check=True,
        capture_output=True,
    )
    print("| import | s |\n|---|---|")
    for line in (folder / "one_run.log").read_text().splitlines():
        _, _, columns = line.partition("import time:")
        microseconds, name = ([*columns.split("|"), "", ""])[1:3]
        if name.strip() in HEAVY:
            print(f"| {name.strip()} | {int(microseconds) / 1e6:.2f} |", flush=True)
    shutil.rmtree(BENCH / "data")


def _run_forked(module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run a module in a process that is forked from a fork server, as runs are."""
    before = dict(os.environ)
    os.environ.update(environment)
    server, ended = ForkServer(), Event()
    server.start(module, arguments, on_forked=lambda _: None, on_exit=lambda _: ended.set())
    ended.wait()
    server.close()
    os.environ.clear()
    os.environ.update(before)


def _backfills(partitions: int, environment: Mapping[str, str], only: str | None) -> None:
    print(
        f"| backfill of {partitions} partitions | wall s | CPU s | CPU s per partition |\n"
        "|---|---|---|---|"
    )
    costs = {}
    for name in [only] if only else BACKFILLS:
        cost = costs[name] = _backfill(name, partitions, environment)
        each = cost.cpu / partitions
        print(f"| {name} | {cost.wall:.1f} | {cost.cpu:.1f} | {each:.2f} |", flush=True)
    for name in [] if only else ["stock", "trivial"]:
        wall, cpu = (
            costs["ours"].wall / costs[name].wall,
            costs["ours"].cpu / costs[name].cpu,
        )
        print(f"| ours / {name} | {wall:.2f} | {cpu:.2f} | |", flush=True)


def _backfill(name: str, partitions: int, environment: Mapping[str, str]) -> Cost:
    folder, module = BENCH / name, BACKFILLS[name]
    with _instance(folder, stock=name == "stock") as instance:
        instance.add_dynamic_partitions("retailer", RETAILERS)
        with _daemon(module, folder, environment) as daemon:
            backfill = _launch(module, _keys(partitions), folder, environment)
            before, began = _tree_cpu(daemon), time.monotonic()
            _wait_until(lambda: _has_ended(instance, backfill))
            cost = Cost(time.monotonic() - began, _tree_cpu(daemon) - before)
        statuses = [run.status for run in instance.get_runs()]
        if statuses != [dg.DagsterRunStatus.SUCCESS] * partitions:
            raise SystemExit(f"{name}: runs failed, statuses: {statuses}; see the logs in {folder}")
    return cost


def _has_ended(instance: dg.DagsterInstance, backfill: str) -> bool:
    found = instance.get_backfill(backfill)
    return found is not None and found.status.value.startswith("COMPLETED")


@contextmanager
def _instance(folder: Path, *, stock: bool = False) -> Iterator[dg.DagsterInstance]:
    options = yaml.safe_load((project_root() / "dagster.yaml").read_text())
    if stock:
        del options["run_launcher"]
    folder.mkdir()
    (folder / "dagster.yaml").write_text(yaml.safe_dump(options))
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        yield instance


@contextmanager
def _daemon(module: str, folder: Path, environment: Mapping[str, str]) -> Iterator[psutil.Process]:
    """Start Dagster's daemon, and wait until it has loaded the code location."""
    with (folder / "daemon.log").open("w") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("dagster-daemon"), "run", "-m", module],
            env={**environment, "DAGSTER_HOME": str(folder)},
            cwd=project_root(),
            stdout=log,
            stderr=log,
        )
    daemon = psutil.Process(process.pid)
    try:
        _wait_until(lambda: len(daemon.children()) > 0)
        time.sleep(_SETTLE_S)
        yield daemon
    finally:
        tree = [daemon, *daemon.children(recursive=True)]
        process.send_signal(signal.SIGINT)
        _, alive = psutil.wait_procs(tree, timeout=20)
        for survivor in alive:
            survivor.kill()
        process.wait()


def _launch(module: str, keys: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    variables = {
        "backfill": {
            "assetSelection": [{"path": [name]} for name in ASSETS[module]],
            "partitionNames": list(keys),
        }
    }
    output = folder / "launched.json"
    subprocess.run(
        [
            Path(sys.executable).with_name("dagster-graphql"),
            *("-m", module, "-t", _LAUNCH, "-v", json.dumps(variables), "-o", output),
        ],
        env={**environment, "DAGSTER_HOME": str(folder)},
        cwd=project_root(),
        check=True,
        capture_output=True,
    )
    response = json.loads(output.read_text())["data"]["launchPartitionBackfill"]
    return str(response["backfillId"])


def _tree_cpu(root: psutil.Process) -> float:
    """CPU seconds of a process, its live descendants, and the ended children of all of them."""
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"no result within {_TIMEOUT_S} s; see the logs in {BENCH}")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
