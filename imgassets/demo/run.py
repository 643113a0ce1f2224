"""Run the demo: materialize the same assets as in production, for the sample catalogue.

This module has the steps and the console output. Images are made in `catalogue` and served by
`server`; the database is started in `mongod`. The demo has its own DAGSTER_HOME, database and data,
and uses the MongoDB of MONGODB_URI only if it is told to.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from imgassets.configuration import CONFIG_VARIABLE, load_settings
from imgassets.defs.instance import DAGSTER_HOME_VARIABLE, open_instance, prepare_dagster_home
from imgassets.demo.catalogue import build_catalogue, documents
from imgassets.demo.mongod import EmbeddedMongo
from imgassets.demo.server import PORT, CatalogueServer, is_served
from imgassets.errors import CatalogueServerError, SettingsError, StorageError
from imgassets.folders import home, project_root
from imgassets.sources.factory import MONGODB_VARIABLE, mongodb_address, open_source
from imgassets.wording import counted

if TYPE_CHECKING:
    import dagster as dg
    import pyarrow as pa

    from imgassets.defs.partitions import Partition


def demo_folder() -> Path:
    """The folder of the demo's state and data."""
    return home() / "demo"


def use_demo_state() -> None:
    """Point this process and its child processes to the settings and the state of the demo."""
    os.environ.pop(DAGSTER_HOME_VARIABLE, None)
    os.environ[CONFIG_VARIABLE] = str(Path(__file__).with_name("settings.yaml"))
    prepare_dagster_home(demo_folder() / "dagster_home")


def run_demo(mongodb: str | None = None) -> bool:
    """Materialize the sample catalogue, and print the results.

    Partitions that are materialized and current, and whose last run succeeded with all checks
    passed, are skipped.

    Args:
        mongodb: Address of the MongoDB to use; None starts the embedded one.

    Returns:
        Whether every run succeeded and every check passed.

    Raises:
        EmbeddedMongoError: MongoDB cannot be started.
        SourceError: MongoDB cannot be read.
    """
    console = Console()
    use_demo_state()
    with _progress(console) as progress, _catalogue_server(progress) as address:
        with _step(progress, "start MongoDB and insert the product documents"):
            _insert_documents(address, mongodb)
        with _step(progress, "register the retailers as partitions"):
            partitions, instance = _register()
        with instance:
            todo = [
                partition
                for partition in partitions
                if not _is_current(partition, instance, address)
                or _last_run(partition, instance)[1]
            ]
            task = progress.add_task("materialize the partitions", total=len(partitions))
            progress.advance(task, len(partitions) - len(todo))
            for partition in todo:
                progress.update(task, description=f"materialize {partition.key}")
                _materialize(partition, instance)
                progress.advance(task)
            progress.update(task, description="materialize the partitions")
            table, problems = _results(partitions, instance)
    console.print(table)
    for problem in problems:
        console.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
    if len(todo) < len(partitions):
        console.print(f"already materialized: {counted(len(partitions) - len(todo), 'partition')}")
    data = load_settings().data_root
    console.print(
        f"\nProcessed images: {data}/images/processed/\n"
        f"Manifests: {data}/manifests/\n"
        f"Contact sheets: {data}/review/\n"
        "Dagster UI: [bold]make ui[/]\n"
        "To use Dagster's command line on the demo, run first:\n"
        f"  export {DAGSTER_HOME_VARIABLE}='{os.environ[DAGSTER_HOME_VARIABLE]}' "
        f"{CONFIG_VARIABLE}='{os.environ[CONFIG_VARIABLE]}' "
        f"{MONGODB_VARIABLE}='{os.environ[MONGODB_VARIABLE]}'",
        soft_wrap=True,
    )
    return not problems


def run_ui(port: int, host: str = "127.0.0.1", mongodb: str | None = None) -> int:
    """Serve the sample catalogue and the Dagster UI of the demo until it is stopped.

    Args:
        port: Port of the UI.
        host: Address that the UI listens on. It has no login.
        mongodb: Address of the MongoDB to use; None starts the embedded one.

    Returns:
        The exit code of `dagster dev`.

    Raises:
        SettingsError: The port is in use or not permitted.
    """
    _require_free_port(host, port)
    console = Console()
    use_demo_state()
    with _progress(console) as progress, _catalogue_server(progress) as address:
        with _step(progress, "start MongoDB and insert the product documents"):
            _insert_documents(address, mongodb)
        with _step(progress, "register the retailers as partitions"):
            _register()[1].dispose()
        progress.stop()
        console.print(f"Dagster UI: http://{host}:{port}  (Ctrl-C stops it)")
        command = ["dagster", "dev", "-w", "workspace.yaml", "-h", host, "-p", str(port)]
        program = str(Path(sys.executable).with_name(command[0]))
        return run_to_end([program, *command[1:]], project_root())


def run_to_end(command: list[str], folder: Path) -> int:
    """Run a program and let it shut down at Ctrl-C, which a terminal sends to it, too.

    Args:
        command: The program's path and its arguments.
        folder: Its working directory.

    Returns:
        Its exit code.
    """
    with subprocess.Popen(command, cwd=folder) as program:  # noqa: S603
        while True:
            try:
                return program.wait()
            except KeyboardInterrupt:
                continue


def _require_free_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise SettingsError(
            f"the UI cannot use port {port}: {reason}; stop the program that uses it, or choose "
            f"another port: make ui PORT={port + 1} (imgassets demo --ui --port {port + 1})"
        ) from None


@contextmanager
def _catalogue_server(progress: Progress) -> Iterator[str]:
    """Make and serve the images; yields the address of the server.

    The port is part of the URLs in the documents, so it is stored for the next run. If another
    process of the demo (for example `make ui`) already serves on it, that server is used; if
    another program or another folder's demo does, a free port is taken.
    """
    folder = demo_folder() / "catalogue"
    task = progress.add_task("draw the sample catalogue", total=None)
    build_catalogue(folder, lambda done, of: progress.update(task, completed=done, total=of))
    progress.update(task, total=1, completed=1)
    file = demo_folder() / "port"
    port = int(file.read_text()) if file.is_file() else PORT
    with ExitStack() as stack:
        try:
            address = stack.enter_context(CatalogueServer(folder, port)).url
        except CatalogueServerError:
            if is_served(folder, port):
                address = f"http://127.0.0.1:{port}"
            else:
                address = stack.enter_context(CatalogueServer(folder)).url
        file.write_text(address.rpartition(":")[2])
        yield address


def _insert_documents(address: str, mongodb: str | None) -> None:
    from pymongo import ReplaceOne

    from imgassets.sources.mongodb import MongoSource

    # Inherited by child processes: runs and the UI.
    uri = mongodb or EmbeddedMongo(home() / "mongodb").ensure_running()
    os.environ[MONGODB_VARIABLE] = uri
    settings = load_settings()
    source = MongoSource(uri, settings.source, settings.start_date)
    with source.client() as client:
        (place,) = source.places.find(client)
        place.open(client).bulk_write(
            [ReplaceOne({"_id": d["_id"]}, d, upsert=True) for d in documents(address)]
        )
    source.create_indexes()


def _register() -> tuple[list[Partition], dg.DagsterInstance]:
    from imgassets.defs.partitions import RETAILERS, Partition
    from imgassets.defs.sync import register_retailers

    inventory = open_source(load_settings(), mongodb_address).inventory()
    instance = open_instance()
    register_retailers(inventory, instance, RETAILERS)
    return sorted(Partition(day, slug) for slug, day in inventory.documents), instance


def _is_current(partition: Partition, instance: dg.DagsterInstance, address: str) -> bool:
    """Whether the partition was materialized with URLs of this server address."""
    import dagster as dg

    done = instance.get_materialized_partitions(dg.AssetKey("processed_images"))
    if partition.key not in done:
        return False
    try:
        urls = _manifest("url_list", partition).column("url").to_pylist()
    except (FileNotFoundError, StorageError):  # the data were removed or damaged
        return False
    return all(url.startswith(f"{address}/") for url in urls)


def _materialize(partition: Partition, instance: dg.DagsterInstance) -> None:
    import dagster as dg

    from imgassets.definitions import defs

    defs.resolve_implicit_global_asset_job_def().execute_in_process(
        partition_key=partition.key,
        instance=instance,
        raise_on_error=False,
        # Without the check of the source: the sample documents are old, so it would fail.
        asset_selection=[
            dg.AssetKey(name)
            for name in ("url_list", "face_model", "raw_images", "processed_images")
        ],
        # The console shows progress only; the UI and the event log have all log lines.
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def _results(partitions: list[Partition], instance: dg.DagsterInstance) -> tuple[Table, list[str]]:
    """The table of results, and a line per partition with a problem."""
    table = Table(title="Results of the sample catalogue", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("partition", no_wrap=True)
    for name in ("URLs", "down-\nloaded", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("most\nfrequent\nerror", no_wrap=True)
    table.add_column("faces\nremoved", justify="right", no_wrap=True)
    table.add_column("checks")
    problems = []
    for partition in partitions:
        result, problem = _last_run(partition, instance)
        checks = Text(result, "red" if problem else "green")
        try:
            raw = _manifest("raw_images", partition).to_pylist()
            made = _manifest("processed_images", partition).to_pylist()
        except (FileNotFoundError, StorageError):
            table.add_row(partition.key, *["-"] * 5, checks)
            problems.append(f"{partition.key}: {problem or 'a manifest is missing or damaged'}")
            continue
        failed = Counter((row["outcome"], row["error"]) for row in raw if row["outcome"] != "ok")
        (outcome, error), _ = failed.most_common(1)[0] if failed else (("-", None), 0)
        if problem:
            errors = f"; most frequent error: {error}" if error else ""
            problems.append(f"{partition.key}: {problem}{errors}")
        table.add_row(
            partition.key,
            str(len(raw)),
            str(len(raw) - failed.total()),
            str(failed.total()),
            outcome,
            str(sum(bool(row["face_removed"]) for row in made)),
            checks,
        )
    return table, problems


def _last_run(partition: Partition, instance: dg.DagsterInstance) -> tuple[str, str | None]:
    """The result of a partition's last run in short, and what is wrong; None if nothing is."""
    import dagster as dg

    status = dg.DagsterRunStatus
    finished = [status.SUCCESS, status.FAILURE, status.CANCELED]
    runs = instance.get_runs(
        dg.RunsFilter(tags={"dagster/partition": partition.key}, statuses=finished), limit=1
    )
    if not runs:
        return "no result", "no run has ended; see make ui"
    run = runs[0]
    if run.status is not status.SUCCESS:
        entries = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        reasons = [_reason(entry.dagster_event) for entry in entries if entry.dagster_event]
        return "failed", f"the run failed: {reasons[0] if reasons else 'see make ui'}"
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    evaluations = [e.dagster_event.asset_check_evaluation_data for e in events if e.dagster_event]
    failed = [evaluation.check_name for evaluation in evaluations if not evaluation.passed]
    if failed:
        return f"{len(failed)} failed", f"failed checks: {', '.join(failed)}"
    return f"{len(evaluations)} passed", None


def _reason(event: dg.DagsterEvent) -> str:
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    return f"{event.step_key}: see make ui"


def _manifest(asset: str, partition: Partition) -> pa.Table:
    from imgassets.storage import open_storage

    return open_storage(load_settings()).partition(*partition).read_manifest(asset)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<48}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


@contextmanager
def _step(progress: Progress, description: str) -> Iterator[None]:
    task = progress.add_task(description, total=1)
    yield
    progress.advance(task)
