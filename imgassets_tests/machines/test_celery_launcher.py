"""The launcher of Celery workers, with a real Postgres that is stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import yaml

from imgassets.folders import project_root


@dg.job
def _job() -> None:
    """A job that is never executed."""


@pytest.fixture
def instance(
    tmp_path: Path, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An instance with the launcher and the Postgres of `deploy/celery`; no broker answers."""
    address = postgres.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", address)
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://127.0.0.1:9//")
    found = yaml.safe_load((project_root() / "deploy/celery/dagster.yaml").read_text())
    settings = {name: found[name] for name in ("storage", "run_launcher", "telemetry")}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


@pytest.mark.slow
def test_a_launch_without_the_database_ends_when_the_database_is_back(
    instance: dg.DagsterInstance, postgres: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run = instance.create_run_for_job(_job)
    postgres.stop()
    with ThreadPoolExecutor(1) as executor:
        context: Any = SimpleNamespace(dagster_run=run)  # Dagster's class has no public name
        launch = executor.submit(instance.run_launcher.launch_run, context)
        waits = f"run {run.run_id} cannot be launched without Dagster's database"
        while waits not in caplog.text:
            assert not launch.done(), launch.result()
            time.sleep(0.1)
        postgres.ensure_postgres_running()
        # So that the daemon, which sees this error, can mark the run as failed.
        with pytest.raises(Exception, match="too many retries for DB connection"):
            launch.result()
    assert instance.get_run_by_id(run.run_id) is not None
