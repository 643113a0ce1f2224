"""Starts a deployment of several machines: folders that share no file, only network services."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import yaml
from pymongo.collection import Collection

from imgassets.folders import project_root
from imgassets.storage import Storage, storage_at
from imgassets_tests.download.server import Handler, Server
from imgassets_tests.life.deployment import product

TIMEOUT_S = 300
_RETRY_WITHIN_S = 20


@dataclass(frozen=True)
class Request:
    """A request that a shop has answered.

    Attributes:
        retailer: Slug of the retailer.
        path: Path of the image.
        machine: Name of the machine that requested it.
        begin: Time when it arrived, in seconds of the monotonic clock.
        end: Time when it was answered.
    """

    retailer: str
    path: str
    machine: str
    begin: float
    end: float


class Shops:
    """The images of all retailers, on one server that answers slowly."""

    def __init__(self, server: Server, delay_s: float) -> None:
        self.requests: list[Request] = []
        self._server, self._delay_s, self._lock = server, delay_s, threading.Lock()

    def sell(self, retailer: str, day: dt.date, images: int) -> dict[str, object]:
        """Serve images; return the product document that lists them."""
        noon = dt.datetime.combine(day, dt.time(12), dt.UTC)
        urls = [self._sell(retailer, f"/{retailer}/{day}/{n}.jpg") for n in range(images)]
        return {"product_retailer": retailer, "product_images": urls, "scraped_at": noon}

    def _sell(self, retailer: str, path: str) -> str:
        body = product(hash(path) % 2**32)

        def answer(handler: Handler) -> None:
            begin = time.monotonic()
            handler.server.closing.wait(self._delay_s)
            machine = str(handler.headers["User-Agent"])
            with self._lock:
                self.requests.append(Request(retailer, path, machine, begin, time.monotonic()))
            handler.reply(body)

        return self._server.add(path, answer)

    def machines(self) -> set[str]:
        """Return the names of the machines that requested images so far."""
        with self._lock:
            return {request.machine for request in self.requests}

    def answered(self, retailer: str, day: dt.date) -> list[Request]:
        """Return the requests of a partition that were answered so far."""
        with self._lock:
            folder = f"/{retailer}/{day}/"
            return [each for each in self.requests if each.path.startswith(folder)]

    def shared_retailers(self) -> list[tuple[Request, Request]]:
        """Return pairs of requests of one retailer that two machines had at the same time."""
        with self._lock:
            done = sorted(self.requests, key=lambda request: request.begin)
        return [
            (first, second)
            for at, first in enumerate(done)
            for second in done[at + 1 :]
            if second.begin < first.end
            and first.retailer == second.retailer
            and first.machine != second.machine
        ]


class Machine:
    """A folder with an installation, a working folder, a home and a DAGSTER_HOME of its own.

    Attributes:
        name: Name of the machine, which is the User-Agent of its requests.
        folder: Its working folder and home.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], settings: object, instance: Any
    ) -> None:
        self.name, self.folder = folder.name, folder
        package = project_root() / "imgassets"
        shutil.copytree(package, folder / "site/imgassets")
        shutil.copy(project_root() / "workspace.yaml", folder)
        (folder / "dagster_home").mkdir()
        # Each run leaves an empty folder of its output.
        instance["compute_logs"]["config"]["local_dir"] = str(folder / "output")
        (folder / "dagster_home/dagster.yaml").write_text(yaml.safe_dump(instance))
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        self.environment = {
            **os.environ,
            **environment,
            "HOME": str(folder),
            "DAGSTER_HOME": str(folder / "dagster_home"),
            "IMGASSETS_CONFIG": str(folder / "config.yaml"),
            "IMGASSETS__DOWNLOAD__USER_AGENT": self.name,
            "PYTHONPATH": str(folder / "site"),
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a program of the Python environment of the tests."""
        with (self.folder / f"{command[0]}.log").open("ab") as log:
            process = subprocess.Popen(
                [Path(sys.executable).with_name(command[0]), *command[1:]],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._processes.append(process)
        return process

    def start_worker(self, slots: int = 1) -> subprocess.Popen[bytes]:
        """Start a Celery worker as the compose file does."""
        app = ("-A", "imgassets.launcher.celery_app")
        name = ("--hostname", f"{self.name}@localhost")
        options = ("--queues", "dagster", "--concurrency", str(slots), *name)
        return self.start("celery", *app, "worker", *options)

    def run(self, *command: str) -> str:
        """Run a command to its end; return its output."""
        process = self.start(*command)
        assert process.wait(TIMEOUT_S) == 0, self.log(command[0])
        return self.log(command[0])

    def log(self, program: str) -> str:
        """Return what a program has printed."""
        return (self.folder / f"{program}.log").read_text()

    def cpu_s(self) -> float:
        """Return the CPU seconds of the programs that still run, and of their children."""
        return sum(cpu_s(each.pid) for each in self._processes if each.poll() is None)

    def stop(self) -> None:
        """Stop everything that runs on the machine."""
        victims = []
        for process in self._processes:
            if process.poll() is None:
                root = psutil.Process(process.pid)
                victims += [*root.children(recursive=True), root]
                process.send_signal(signal.SIGTERM)
        _, survivors = psutil.wait_procs(victims, timeout=10)
        for survivor in survivors:
            survivor.kill()
        for process in self._processes:
            process.wait()


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and of its children, also of those that have ended."""
    root = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:4]) for each in (root, *root.children(recursive=True)))


def _instance(*, local: bool, slots: int | None) -> Any:
    """Return the settings of the Dagster instance."""
    found = yaml.safe_load((project_root() / "deploy/celery/dagster.yaml").read_text())
    if slots is not None:
        found["concurrency"]["runs"]["max_concurrent_runs"] = slots
    if local:
        here = yaml.safe_load((project_root() / "dagster.yaml").read_text())
        found |= {name: here[name] for name in ("run_launcher", "run_monitoring")}
    return found


class Cluster:
    """Machines that share an object store, Postgres, MongoDB and RabbitMQ, and nothing else.

    Attributes:
        control: The machine of the daemon.
        days: The days of the documents, in ascending order.
        workers: The machines of the workers.
        products: The collection of product documents.
        relaunched: Whether partitions were launched again that Dagster did not retry.
        storage: The data root, in the object store.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int,
        bucket: str,
        services: Mapping[str, str],
        products: Collection[dict[str, object]],
        days: Sequence[dt.date],
        threads: int = 4,
        slots: int | None = None,
        local: bool = False,
    ) -> None:
        """Write the folders of the machines; nothing is started.

        Args:
            folder: An empty folder.
            workers: Number of machines for workers.
            bucket: Bucket of the data root and of the output of runs.
            services: Environment variables with the addresses of the services.
            products: The collection of product documents.
            days: The days of the documents, in ascending order.
            threads: `download.threads`.
            slots: `max_concurrent_runs`, if not that of `deploy/celery/dagster.yaml`.
            local: Whether the daemon's machine executes the runs, with the launcher of one machine.
        """
        self.products, self.days, self._bucket = products, days, bucket
        self.relaunched = False
        self.data_root = f"s3://{bucket}/data"
        settings = {
            "data_root": self.data_root,
            "source": {"database": products.database.name, "collection": products.name},
            "download": {"threads": threads, "robots": False, "allow_private_addresses": True},
            "review": {"max_pages": 0},  # all machines share the cores of one
        }
        environment = {**services, "IMGASSETS_LOGS_BUCKET": bucket}
        instance = _instance(local=local, slots=slots)
        names = ("control", *(f"worker-{n}" for n in range(workers)))
        self.control, *self.workers = (
            Machine(folder / name, environment, settings, instance) for name in names
        )

    @property
    def storage(self) -> Storage:
        """The data root."""
        return storage_at(self.data_root)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the daemon."""
        try:
            self.control.run("imgassets", "sync")
            self.control.start("dagster-daemon", "run", "-w", "workspace.yaml")
            with dg.DagsterInstance.from_config(self.control.environment["DAGSTER_HOME"]) as found:
                self.instance = found
                yield
        finally:
            for machine in (*self.workers, self.control):
                machine.stop()

    def backfill(self, *options: str) -> None:
        """Launch runs of the partitions that have documents."""
        days = ("--start", str(self.days[0]), "--end", str(self.days[-1]))
        self.control.run("imgassets", "backfill", *days, *options)

    def runs(self) -> list[dg.RunRecord]:
        """Return all runs, oldest first."""
        return [*self.instance.get_run_records(ascending=True)]

    def wait_until_done(self, timeout_s: float = TIMEOUT_S) -> list[dg.RunRecord]:
        """Wait until each partition has a successful run and no run is unfinished; return all."""
        deadline, finished = time.monotonic() + timeout_s, 0.0
        while True:
            runs = self.runs()
            keys = {run.dagster_run.tags["dagster/partition"] for run in runs}
            succeeded = {
                run.dagster_run.tags["dagster/partition"]
                for run in runs
                if run.dagster_run.status is dg.DagsterRunStatus.SUCCESS
            }
            if runs and keys == succeeded and all(run.dagster_run.is_finished for run in runs):
                return runs
            if runs and all(run.dagster_run.is_finished for run in runs):
                finished = finished or time.monotonic()
            # Dagster 1.13 never retries a run if its daemon sees the event of the failure before
            # the run's status is updated.
            if finished and time.monotonic() > finished + _RETRY_WITHIN_S and not self.relaunched:
                self.relaunched = True
                self.backfill("--missing", "--failed")
            assert time.monotonic() < deadline, [
                (run.dagster_run.tags["dagster/partition"], run.dagster_run.status) for run in runs
            ]
            time.sleep(0.5)

    def why_failed(self, run: dg.RunRecord) -> str:
        """Return what a run's log says of its failure: when, what, and the errors."""
        lines = []
        for entry in self.instance.all_logs(run.dagster_run.run_id):
            event = entry.dagster_event
            error = getattr(event.event_specific_data, "error", None) if event else None
            if event and (error or event.is_failure):
                lines.append(f"{entry.timestamp:.1f} {event.message} {error or ''}")
        return "\n".join(lines)

    def runs_with_logs(self) -> set[str]:
        """Return the ids of the runs whose output is in the object store."""
        files = storage_at(f"s3://{self._bucket}/dagster").find("storage")
        return {path.split("/")[1] for path in files if path.endswith((".out", ".err"))}

    def outcomes(self, retailer: str, day: dt.date, asset: str = "processed_images") -> list[str]:
        """Return the outcomes in a manifest, which must have one row per URL."""
        table = self.storage.partition(day.isoformat(), retailer).read_manifest(asset)
        urls: list[str] = table["url"].to_pylist()
        assert len(set(urls)) == len(urls)
        outcomes: list[str] = table["outcome"].to_pylist()
        return outcomes
