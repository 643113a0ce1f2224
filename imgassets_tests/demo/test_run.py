"""Tests of the demo in a copy of the project without any state."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from pymongo.database import Database

from imgassets.configuration import load_settings
from imgassets.demo import run
from imgassets.demo.catalogue import documents, expected
from imgassets.errors import SourceError
from imgassets_tests.demo.copies import imgassets, project_copy


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    with project_copy(tmp_path / "project") as folder:
        yield folder


def image_files(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in (folder / ".imgassets" / "demo" / "data" / "images").rglob("*")
    }


@pytest.mark.usefixtures("storage")  # forgets the settings
def test_the_documents_go_to_the_mongodb_that_is_named(
    mongodb_uri: str, mongo_database: Database[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGASSETS__SOURCE__DATABASE", mongo_database.name)
    monkeypatch.setenv("MONGODB_URI", "mongodb://127.0.0.1:9/")
    load_settings.cache_clear()
    run._insert_documents("http://127.0.0.1:8765", mongodb_uri)
    (name,) = mongo_database.list_collection_names()
    assert mongo_database[name].count_documents({}) == len(documents("http://127.0.0.1:8765"))
    assert os.environ["MONGODB_URI"] == mongodb_uri  # for the runs
    with pytest.raises(SourceError, match="is not a valid MongoDB address"):
        run._insert_documents("http://127.0.0.1:8765", "http://mongo:27017")


def test_ctrl_c_lets_the_program_of_the_ui_shut_down(tmp_path: Path) -> None:
    shuts_down = (
        "import signal, sys, time\n"
        "try:\n"
        "    print('started', flush=True)\n"
        "    signal.pause()\n"
        "except KeyboardInterrupt:\n"
        "    time.sleep(1)\n"
        "    print('shut down')\n"
    )
    command = [sys.executable, "-c", shuts_down]
    code = (
        "import signal, sys; from pathlib import Path; from imgassets.demo.run import run_to_end\n"
        # A shell's background processes ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.exit(run_to_end({command!r}, Path({str(tmp_path)!r})))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read() == "shut down\n"
    assert process.returncode == 0


@dg.op
def fail() -> None:
    raise dg.Failure("no space left on device")


@dg.job
def run_that_fails() -> None:
    fail()


@pytest.mark.slow
def test_the_demo_materializes_each_partition_once(copy: Path) -> None:
    first = imgassets(copy, "demo")
    assert first.count("9 passed") == 8
    assert "2026-01-03|nord-sol" in first
    assert first.count(" http_error ") == first.count(" corrupt ") == 4  # the most frequent error

    data = copy / ".imgassets" / "demo" / "data"
    manifests = sorted((data / "manifests" / "processed_images").iterdir())
    made = pd.concat([pd.read_parquet(path) for path in manifests])
    assert len(manifests) == 8
    assert len(made) >= 120
    assert set(made["outcome"]) == {"ok", "no_raw"}
    with_print = made["face_rule"] == "printed"
    assert with_print.sum() == sum(entry.scene == "printed face" for entry in expected().values())
    assert made.loc[~with_print, "face_removed"].dropna().all()
    assert made["face_removed"].eq(True).sum() == sum(e.has_face for e in expected().values())

    home = copy / ".imgassets" / "demo" / "dagster_home"
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert instance.get_runs_count() == 8
        keys = instance.get_materialized_partitions(dg.AssetKey("processed_images"))
        assert len(keys) == 8

    before = image_files(copy)
    # The next demo runs two partitions again: the last run of one failed, one has lost its data.
    with dg.DagsterInstance.from_config(str(home)) as instance:
        failed = run_that_fails.execute_in_process(
            instance=instance, tags={"dagster/partition": "2026-01-02|zara"}, raise_on_error=False
        )
        assert not failed.success
    (data / "manifests" / "url_list" / "nord-sol.2026-01-02.parquet").unlink()
    status = imgassets(copy, "db", "status")
    os.kill(int(status.rsplit(" ", 1)[1]), signal.SIGKILL)
    second = imgassets(copy, "demo")
    assert "already materialized: 6 partitions" in second
    assert second.count("9 passed") == 8
    assert image_files(copy) == before
    assert imgassets(copy, "db", "status").startswith(status.rsplit(",", 1)[0])
