"""Tests of the steps of `raw_images`: which there are, and what a retry or a new run repeats."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from PIL import Image

from imgassets.demo.server import CatalogueServer
from imgassets.journal import Journal
from imgassets.manifests import RawRow, UrlRow, from_table, to_table
from imgassets.storage import Storage
from imgassets_tests.defs.assets.raw_images_job import execute, temporary_instance
from imgassets_tests.rows import PARTITION, url_row

PLAN, COLLECT = "raw_images.download_images", "raw_images.collect_manifest"
SHARDS = [f"raw_images.download_shard[shard_{number:04d}]" for number in range(2)]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[CatalogueServer]:
    folder = tmp_path / "shop"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (40, 30), (number * 60, 0, 0)).save(folder / f"{number}.jpg")
    with CatalogueServer(folder) as server:
        yield server


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with temporary_instance(tmp_path / "home") as instance:
        yield instance


def list_urls(storage: Storage, *urls: str) -> None:
    rows = [url_row(number, url=url) for number, url in enumerate(urls)]
    storage.partition(*PARTITION).write_manifest("url_list", to_table(rows, UrlRow))


def config(storage: Storage, executor: str = "in_process", **download: Any) -> dict[str, Any]:
    # Dagster keeps the job of the first test, with its settings.
    options = {"allow_private_addresses": True, "retries": 0, "robots": False, "opt_outs": []}
    overrides = {"data_root": storage.root, "download": options | download}
    return {
        "execution": {"config": {executor: {}}},
        "resources": {"imgassets_settings": {"config": {"overrides": overrides}}},
    }


def rows_of(storage: Storage) -> list[RawRow]:
    return from_table(storage.partition(*PARTITION).read_manifest("raw_images"), RawRow)


def steps(instance: dg.DagsterInstance, run_id: str) -> dict[str, bool]:
    """Whether each step of a run that ended succeeded, in their order."""
    events = [entry.dagster_event for entry in instance.all_logs(run_id)]
    return {
        str(event.step_key): event.is_step_success
        for event in events
        if event is not None and (event.is_step_success or event.is_step_failure)
    }


def metadata_of(instance: dg.DagsterInstance) -> dict[str, Any]:
    event = instance.get_latest_materialization_event(dg.AssetKey("raw_images"))
    assert event is not None
    materialization = event.asset_materialization
    assert materialization is not None
    return {name: value.value for name, value in materialization.metadata.items()}


@pytest.mark.parametrize(
    ("size", "executor"), [(4, "in_process"), (2, "in_process"), (2, "multiprocess")]
)
@pytest.mark.slow
def test_a_manifest_that_could_not_be_written_is_retried_without_another_request(
    instance: dg.DagsterInstance,
    storage: Storage,
    shop: CatalogueServer,
    size: int,
    executor: str,
) -> None:
    list_urls(storage, *(f"{shop.url}/{number}.jpg" for number in range(4)))
    folder = Path(storage.root, "manifests/raw_images")
    folder.symlink_to("not mounted")  # has no manifest, and takes none
    run_config = config(storage, executor, shard_size=size)
    failed = execute(instance, run_config)
    downloaded = [PLAN] if size == 4 else [PLAN, *SHARDS]
    found = steps(instance, failed.run_id)
    assert sorted(found) == sorted([*downloaded, COLLECT])
    assert [step for step, succeeded in found.items() if not succeeded] == [COLLECT]

    folder.unlink()
    again = execute(instance, run_config, retry_of=failed.run_id)
    assert steps(instance, again.run_id) == {COLLECT: True}
    assert [str(row.outcome) for row in rows_of(storage)] == ["ok"] * 4
    assert shop.requests == {f"/{number}.jpg": 1 for number in range(4)}
    # What the steps of the run before it have done.
    assert metadata_of(instance)["this run/images"] == 4


def test_a_download_that_failed_is_retried_from_where_it_was(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    list_urls(storage, *(f"{shop.url}/{number}.jpg" for number in range(4)))
    folder = Path(storage.root, "images/raw", PARTITION.retailer)
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way of the images")
    failed = execute(instance, config(storage))
    assert steps(instance, failed.run_id) == {PLAN: False}
    assert storage.partition(*PARTITION).manifest("raw_images") not in storage.find("manifests")

    folder.unlink()
    again = execute(instance, config(storage), retry_of=failed.run_id)
    assert steps(instance, again.run_id) == {PLAN: True, COLLECT: True}
    assert [str(row.outcome) for row in rows_of(storage)] == ["ok"] * 4
    assert metadata_of(instance)["this run/images"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("size", [5, 2])
def test_a_run_that_was_killed_is_continued_by_a_new_one(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer, tmp_path: Path, size: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = f"http://127.0.0.1:{silent.getsockname()[1]}/4.jpg"
        list_urls(storage, *(f"{shop.url}/{number}.jpg" for number in range(4)), hanging)
        module = [sys.executable, "-m", "imgassets_tests.defs.assets.raw_images_job"]
        with subprocess.Popen(
            [*module, str(tmp_path / "killed")], stdin=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            json.dump(config(storage, shard_size=size), process.stdin)
            process.stdin.close()
            journal = Journal(storage.partition(*PARTITION), "raw_images")
            deadline = time.monotonic() + 60
            while len(list(journal.rows())) < 4 and time.monotonic() < deadline:
                time.sleep(0.1)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        again = execute(instance, config(storage, shard_size=size, read_timeout_s=0.2))
    # One URL is left, so one step downloads it, whatever there was before.
    assert steps(instance, again.run_id) == {PLAN: True, COLLECT: True}
    assert [str(row.outcome) for row in rows_of(storage)] == ["ok"] * 4 + ["timeout"]
    assert shop.requests == {f"/{number}.jpg": 1 for number in range(4)}
    assert metadata_of(instance)["this run/images"] == 0
