"""A deployment of the project in processes of its own, and the shops that it downloads from."""

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

# Far above what anything here takes, also beside other work on two cores.
PATIENCE = 150
WORKSPACE = ("-w", "workspace.yaml")


def product(seed: int) -> bytes:
    """A small picture of a coloured thing on white."""
    pixels = np.full((120, 80, 3), 255, dtype=np.uint8)
    thing = np.random.default_rng(seed).integers(0, 255, (70, 50, 3), dtype=np.uint8)
    pixels[25:95, 15:65] = thing
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG")
    return buffer.getvalue()


class Shop:
    """The image server of one retailer, on a port that stays its own while it is down."""

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
        """Come (back) up."""
        self._server = Server(self.port)
        self.port = int(self._server.server_address[1])
        self._server.answers, self._server.hits = self._answers, self.hits
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()

    def close(self) -> None:
        """Go down: connections are refused."""
        if self._server is None or self._thread is None:
            return
        self._server.closing.set()
        self.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server = self._thread = None

    def sell(self, *names: str, gated: bool = False) -> list[str]:
        """Serve a picture under each name; those that are gated, when the gate is open."""
        return [self._sell(name, gated=gated) for name in names]

    def _sell(self, name: str, *, gated: bool) -> str:
        body = product(zlib.crc32(f"{self.name} {name}".encode()))

        def found(handler: Handler) -> None:
            if gated:
                self.gate.wait(PATIENCE)
            handler.reply(body)

        self._answers[f"/{name}.jpg"] = found
        return f"http://127.0.0.1:{self.port}/{name}.jpg"

    def document(self, day: dt.date, urls: Sequence[str], **values: Any) -> dict[str, Any]:
        """A product document as a scraper writes it."""
        noon = dt.datetime.combine(day, dt.time(12), dt.UTC)
        usual = {"product_retailer": self.name, "product_images": [*urls], "scraped_at": noon}
        return {**usual, **values}


class Deployment:
    """A DAGSTER_HOME, a webserver and a daemon that follow one collection."""

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
            "data_root": str(self.folder / "data"),
            "source": {"database": self.products.database.name, "collection": self.products.name},
            "sensor": {"enabled": True, "interval_s": 1, "settle_s": 2},
            "download": {
                "threads": 2,
                "retries": 1,
                "backoff_s": 0.01,
                "breaker_failures": 3,
                "breaker_rest_s": 0.1,
                "allow_private_addresses": True,
            },
        }

    @contextmanager
    def running(self) -> Iterator[None]:
        """Webserver and daemon, as docker-compose.yaml starts them."""
        self.run("imgassets", "sync")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        self.address = f"http://127.0.0.1:{port}"
        self.instance = dg.DagsterInstance.from_config(str(self.dagster_home))
        try:
            self.start_daemon()
            self._start("dagster-webserver", "-h", "127.0.0.1", "-p", port, *WORKSPACE)
            wait_for("the webserver", lambda: _answers(f"{self.address}/server_info"))
            # What is there before it launches nothing.
            wait_for("the sensor's first look", self._has_looked)
            yield
        finally:
            self.instance.dispose()
            self._end()

    def _has_looked(self) -> bool:
        states = self.instance.all_instigator_state(instigator_statuses=None)
        cursors = {state.instigator_name: state.instigator_data for state in states}
        return bool(getattr(cursors.get("new_documents"), "cursor", None))

    def start_daemon(self) -> None:
        """Start Dagster's daemon."""
        self.daemon = self._start("dagster-daemon", "run", *WORKSPACE)

    def crash(self) -> None:
        """Kill the daemon, its code server and all runs at once, as a machine that goes off."""
        assert self.daemon is not None
        process = psutil.Process(self.daemon.pid)
        for doomed in [process, *process.children(recursive=True)]:
            doomed.kill()
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

    def _end(self) -> None:
        trees = []
        for process in self._processes:
            if process.poll() is None:
                root = psutil.Process(process.pid)
                trees += [root, *root.children(recursive=True)]
                process.send_signal(signal.SIGINT)
        _, left = psutil.wait_procs(trees, timeout=20)
        for straggler in left:
            straggler.kill()
        for process in self._processes:
            process.wait()

    def run(self, *command: str) -> str:
        """Run a command of the environment that the tests run in."""
        done = subprocess.run(
            [Path(sys.executable).with_name(command[0]), *command[1:]],
            env=self.environment,
            cwd=project_root(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The answer of the one field that a GraphQL request asks for."""
        body = {"query": query, "variables": variables}
        answer = requests.post(f"{self.address}/graphql", json=body, timeout=60).json()
        assert "errors" not in answer, answer["errors"]
        (field,) = answer["data"].values()
        assert isinstance(field, dict)
        return field

    def runs(self, partition: Partition, **tags: str) -> list[dg.RunRecord]:
        """The runs of a partition, the oldest first."""
        asked = dg.RunsFilter(tags={"dagster/partition": partition.key, **tags})
        return [*self.instance.get_run_records(asked, ascending=True)]

    def ended(self, partition: Partition, number: int = 0) -> dg.RunRecord:
        """Wait until a partition's run of this number is there and has ended."""

        def found() -> dg.RunRecord | None:
            runs = self.runs(partition)
            done = len(runs) > number and runs[number].dagster_run.is_finished
            return runs[number] if done else None

        return wait_for(f"the end of run {number} of {partition.key}", found)

    def process_of(self, run_id: str) -> psutil.Process:
        """The process of a run."""
        events = self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        said = [
            str(event.message) for event in events if "Started process for run" in event.message
        ]
        (pid,) = {int(text.rpartition("pid: ")[2].partition(")")[0]) for text in said}
        return psutil.Process(pid)

    def checks(self, run: dg.RunRecord) -> dict[str, bool]:
        """What the checks of a run said."""
        kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
        events = self.instance.all_logs(run.dagster_run.run_id, of_type=kind)
        said = [e.dagster_event.asset_check_evaluation_data for e in events if e.dagster_event]
        return {evaluation.check_name: evaluation.passed for evaluation in said}

    def place(self, asset: str, partition: Partition) -> Path:
        """The folder of an asset's partition."""
        return (
            self.folder
            / "data"
            / asset
            / f"date={partition.date}"
            / f"retailer={partition.retailer}"
        )

    def rows(self, asset: str, partition: Partition) -> list[dict[str, Any]]:
        """The manifest of an asset's partition."""
        rows: list[dict[str, Any]] = pq.read_table(
            self.place(asset, partition) / "manifest.parquet"
        ).to_pylist()
        return rows

    def outcomes(self, asset: str, partition: Partition) -> dict[str, str]:
        """What became of each URL; each has exactly one row."""
        rows = self.rows(asset, partition)
        found = {row["url"]: row["outcome"] for row in rows}
        assert len(found) == len(rows)
        return found


def wait_for(what: str, found: Callable[[], T | None]) -> T:
    """Ask again and again until something is there."""
    deadline = time.monotonic() + PATIENCE
    while not (there := found()):
        assert time.monotonic() < deadline, f"{what} did not come within {PATIENCE} s"
        time.sleep(0.2)
    return there


def _answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=5).ok
    except requests.RequestException:
        return False


def _instance() -> dict[str, Any]:
    """The project's instance, which looks after its runs more often."""
    options: dict[str, Any] = yaml.safe_load((project_root() / "dagster.yaml").read_text())
    options["run_monitoring"]["poll_interval_seconds"] = 2
    return options
