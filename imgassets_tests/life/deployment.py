"""Starts a deployment of the project in its own processes, and the shops that it downloads from."""

from __future__ import annotations

import datetime as dt
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import numpy as np
import psutil
import pyarrow.parquet as pq
import requests
import yaml
from PIL import Image
from pymongo.collection import Collection

from imgassets.defs.partitions import Partition
from imgassets.folders import project_root
from imgassets_tests.download.server import Answer, Handler, Server

T = TypeVar("T")

# Seconds; far more than any step takes, even on two busy cores.
TIMEOUT_S = 150
WORKSPACE = ("-w", "workspace.yaml")


def product(seed: int) -> bytes:
    """Return a small JPEG image of a coloured rectangle on white."""
    pixels = np.full((120, 80, 3), 255, dtype=np.uint8)
    noise = np.random.default_rng(seed).integers(0, 255, (70, 50, 3), dtype=np.uint8)
    pixels[25:95, 15:65] = noise
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG")
    return buffer.getvalue()


class Shop:
    """The image server of one retailer; it keeps its port when it is closed and opened again.

    Attributes:
        name: Name of the retailer.
        gate: Gated images are served while this event is set.
        hits: Number of requests per path.
        port: TCP port on 127.0.0.1.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.gate = threading.Event()
        self.gate.set()
        self.hits: Counter[str] = Counter()
        self.port = 0
        self._answers: dict[str, Answer] = {}
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self.open()

    def open(self) -> None:
        """Start serving."""
        self._server = Server(self.port)
        self.port = int(self._server.server_address[1])
        self._server.answers, self._server.hits = self._answers, self.hits
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving: connections are refused."""
        if self._server is None or self._thread is None:
            return
        self._server.closing.set()
        self.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server = self._thread = None

    def sell(self, *names: str, gated: bool = False) -> list[str]:
        """Serve one image per name, gated or not; return their URLs."""
        return [self._sell(name, gated=gated) for name in names]

    def _sell(self, name: str, *, gated: bool) -> str:
        body = product(zlib.crc32(f"{self.name} {name}".encode()))

        def answer(handler: Handler) -> None:
            if gated:
                self.gate.wait(TIMEOUT_S)
            handler.reply(body)

        self._answers[f"/{name}.jpg"] = answer
        return f"http://127.0.0.1:{self.port}/{name}.jpg"

    def document(self, day: dt.date, urls: Sequence[str], **values: Any) -> dict[str, Any]:
        """Return a product document as a scraper writes it."""
        noon = dt.datetime.combine(day, dt.time(12), dt.UTC)
        defaults = {"product_retailer": self.name, "product_images": [*urls], "scraped_at": noon}
        return {**defaults, **values}


class Deployment:
    """A DAGSTER_HOME, a webserver and a daemon for one MongoDB collection."""

    def __init__(
        self, folder: Path, mongodb_uri: str, products: Collection[dict[str, Any]]
    ) -> None:
        self.folder = folder
        self.products = products
        self.dagster_home = folder / "dagster_home"
        self.environment = {
            **os.environ,
            "DAGSTER_HOME": str(self.dagster_home),
            "IMGASSETS_CONFIG": str(folder / "config.yaml"),
            "MONGODB_URI": mongodb_uri,
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(self._settings()))
        self.dagster_home.mkdir()
        (self.dagster_home / "dagster.yaml").write_text(yaml.safe_dump(_instance()))
        self._processes: list[subprocess.Popen[bytes]] = []
        self.daemon: subprocess.Popen[bytes] | None = None

    def _settings(self) -> dict[str, Any]:
        return {
            "data_root": str(self.data),
            "source": {"database": self.products.database.name, "collection": self.products.name},
            "sensor": {"enabled": True, "interval_s": 1, "settle_s": 2},
            "download": {
                "threads": 2,
                "retries": 1,
                "backoff_s": 0.01,
                "breaker_failures": 3,
                "breaker_cooldown_s": 0.1,
                "allow_private_addresses": True,
            },
        }

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the webserver and the daemon, started as in docker-compose.yaml."""
        self.run("imgassets", "sync")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        self.address = f"http://127.0.0.1:{port}"
        self.instance = dg.DagsterInstance.from_config(str(self.dagster_home))
        try:
            self.start_daemon()
            self._start("dagster-webserver", "-h", "127.0.0.1", "-p", port, *WORKSPACE)
            wait_for("the webserver", lambda: _is_up(f"{self.address}/server_info"))
            # The first tick launches no runs; documents that exist before it are not new.
            wait_for("the sensor's first tick", self._sensor_has_ticked)
            yield
        finally:
            self.instance.dispose()
            self._stop()

    def _sensor_has_ticked(self) -> bool:
        states = self.instance.all_instigator_state(instigator_statuses=None)
        cursors = {state.instigator_name: state.instigator_data for state in states}
        return bool(getattr(cursors.get("new_documents"), "cursor", None))

    def start_daemon(self) -> None:
        """Start Dagster's daemon."""
        self.daemon = self._start("dagster-daemon", "run", *WORKSPACE)

    def crash(self) -> None:
        """Kill the daemon, its code server and all runs, as a power failure does."""
        assert self.daemon is not None
        process = psutil.Process(self.daemon.pid)
        for victim in [process, *process.children(recursive=True)]:
            victim.kill()
        self.daemon.wait()

    def _start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{program}.log").open("ab") as log:
            process = subprocess.Popen(
                [Path(sys.executable).with_name(program), *arguments],
                env=self.environment,
                cwd=project_root(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._processes.append(process)
        return process

    def _stop(self) -> None:
        running = []
        for process in self._processes:
            if process.poll() is None:
                root = psutil.Process(process.pid)
                running += [root, *root.children(recursive=True)]
                process.send_signal(signal.SIGINT)
        _, survivors = psutil.wait_procs(running, timeout=20)
        for survivor in survivors:
            survivor.kill()
        for process in self._processes:
            process.wait()

    def run(self, *command: str) -> str:
        """Run a command of the Python environment of the tests; return its output."""
        done = subprocess.run(
            [Path(sys.executable).with_name(command[0]), *command[1:]],
            env=self.environment,
            cwd=project_root(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """Send a GraphQL request for a single field; return that field's value."""
        body = {"query": query, "variables": variables}
        response = requests.post(f"{self.address}/graphql", json=body, timeout=60).json()
        assert "errors" not in response, response["errors"]
        (field,) = response["data"].values()
        assert isinstance(field, dict)
        return field

    def runs(self, partition: Partition, **tags: str) -> list[dg.RunRecord]:
        """Return the runs of a partition, oldest first."""
        filters = dg.RunsFilter(tags={"dagster/partition": partition.key, **tags})
        return [*self.instance.get_run_records(filters, ascending=True)]

    def wait_for_run(self, partition: Partition, index: int = 0) -> dg.RunRecord:
        """Wait until a run of a partition has ended; `index` counts its runs from the oldest, 0."""

        def finished_run() -> dg.RunRecord | None:
            runs = self.runs(partition)
            finished = len(runs) > index and runs[index].dagster_run.is_finished
            return runs[index] if finished else None

        return wait_for(f"the end of run {index} of {partition.key}", finished_run)

    def process_of(self, run_id: str) -> psutil.Process:
        """Return the process of a run."""
        events = self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        messages = [
            str(event.message) for event in events if "Started process for run" in event.message
        ]
        (pid,) = {int(text.rpartition("pid: ")[2].partition(")")[0]) for text in messages}
        return psutil.Process(pid)

    def checks(self, run: dg.RunRecord) -> dict[str, bool]:
        """Return whether each check of a run passed, by name."""
        kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
        events = self.instance.all_logs(run.dagster_run.run_id, of_type=kind)
        evaluations = [
            e.dagster_event.asset_check_evaluation_data for e in events if e.dagster_event
        ]
        return {evaluation.check_name: evaluation.passed for evaluation in evaluations}

    @property
    def data(self) -> Path:
        """The data root, to which the paths in manifests are relative."""
        return self.folder / "data"

    def manifest_file(self, asset: str, partition: Partition) -> Path:
        """Return the path of the manifest of an asset's partition."""
        name = f"{partition.retailer}.{partition.date}.parquet"
        return self.data / "manifests" / asset / name

    def rows(self, asset: str, partition: Partition) -> list[dict[str, Any]]:
        """Return the rows of the manifest of an asset's partition."""
        table = pq.read_table(self.manifest_file(asset, partition))
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    def outcomes(self, asset: str, partition: Partition) -> dict[str, str]:
        """Return the outcome of each URL in a manifest, which must have one row per URL."""
        rows = self.rows(asset, partition)
        outcomes = {row["url"]: row["outcome"] for row in rows}
        assert len(outcomes) == len(rows)
        return outcomes


def wait_for(what: str, get: Callable[[], T | None]) -> T:
    """Poll a function until it returns something true, and return that.

    Args:
        what: Name of the awaited thing, for the failure message.
        get: Function to poll.
    """
    deadline = time.monotonic() + TIMEOUT_S
    while not (value := get()):
        assert time.monotonic() < deadline, f"no sign of {what} within {TIMEOUT_S} s"
        time.sleep(0.2)
    return value


def _is_up(address: str) -> bool:
    try:
        return requests.get(address, timeout=5).ok
    except requests.RequestException:
        return False


def _instance() -> dict[str, Any]:
    """Return the project's dagster.yaml, with a shorter interval of run monitoring."""
    options: dict[str, Any] = yaml.safe_load((project_root() / "dagster.yaml").read_text())
    options["run_monitoring"]["poll_interval_seconds"] = 2
    return options
