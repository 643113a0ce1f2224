"""Dagster's files, written and read through our storage and through its own."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

OURS = "instance_class: {module: imgassets.dagster_instance, class: Instance}\n"
DAGSTERS = "telemetry: {enabled: false}\n"


@dg.asset(check_specs=[dg.AssetCheckSpec("whole", asset="thing")])
def thing() -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    yield dg.MaterializeResult(metadata={"number": 7})
    yield dg.AssetCheckResult(passed=True)


def _instance(home: Path, options: str) -> dg.DagsterInstance:
    (home / "dagster.yaml").write_text(options)
    return dg.DagsterInstance.from_config(str(home))


def _is_ours(instance: dg.DagsterInstance) -> bool:
    return type(instance.event_log_storage).__module__ == "imgassets.sqlite_storage"


def _run(instance: dg.DagsterInstance) -> str:
    return dg.materialize([thing], instance=instance).run_id


def _told(instance: dg.DagsterInstance, run: str) -> list[str]:
    return [str(record) for record in instance.all_logs(run)]


@pytest.mark.parametrize(("writer", "reader"), [(OURS, DAGSTERS), (DAGSTERS, OURS)])
def test_runs_and_events_are_the_same_to_dagsters_own_storage(
    tmp_path: Path, writer: str, reader: str
) -> None:
    with _instance(tmp_path, writer) as instance:
        assert _is_ours(instance) == (writer == OURS)
        runs = [_run(instance) for _ in range(3)]
        told = {run: _told(instance, run) for run in runs}
    assert all(len(lines) > 8 for lines in told.values())
    with _instance(tmp_path, reader) as instance:
        assert _is_ours(instance) == (reader == OURS)
        assert {run.run_id: run.status for run in instance.get_runs()} == dict.fromkeys(
            runs, dg.DagsterRunStatus.SUCCESS
        )
        assert {run: _told(instance, run) for run in runs} == told
        latest = instance.get_latest_materialization_event(thing.key)
        assert latest is not None
        assert latest.run_id == runs[-1]
        assert latest.asset_materialization is not None
        assert latest.asset_materialization.metadata["number"].value == 7
        again = _run(instance)
        assert len(_told(instance, again)) == len(told[runs[0]])


def test_events_of_runs_side_by_side_are_not_mixed(tmp_path: Path) -> None:
    with _instance(tmp_path, OURS) as instance:
        runs: list[str] = []
        threads = [
            threading.Thread(target=lambda: runs.append(_run(instance)), name=f"run-{n}")
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(runs)) == 4
        for run in runs:
            assert {record.run_id for record in instance.all_logs(run)} == {run}
            assert instance.get_run_by_id(run).status == dg.DagsterRunStatus.SUCCESS  # type: ignore[union-attr]


def test_a_database_that_another_process_writes_is_waited_for(tmp_path: Path) -> None:
    with _instance(tmp_path, OURS) as instance:
        _run(instance)
        index = tmp_path / "history" / "runs" / "index.db"
        other = sqlite3.connect(index, check_same_thread=False, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(1.0, lambda: other.execute("ROLLBACK"))
        release.start()
        run = _run(instance)
        release.join()
        other.close()
        assert instance.get_run_by_id(run).status == dg.DagsterRunStatus.SUCCESS  # type: ignore[union-attr]


def test_few_databases_are_held_open_and_none_after_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "history" / "runs"
    with _instance(tmp_path, OURS) as instance:
        runs = [_run(instance) for _ in range(3)]
        assert {file.name for file in folder.glob("*.db-wal")} == {
            "index.db-wal",
            f"{runs[-1]}.db-wal",
        }
        assert (tmp_path / "history" / "runs.db-wal").exists()
    assert list((tmp_path / "history").rglob("*.db-*")) == []
