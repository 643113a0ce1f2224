"""Tests of `dagster.yaml`, the configuration of the Dagster instance."""

import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from imgassets.folders import project_root

FILE = project_root() / "dagster.yaml"


@pytest.fixture
def options() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return loaded


def test_dagster_accepts_the_file_and_stores_runs_in_sqlite_files(tmp_path: Path) -> None:
    shutil.copy(FILE, tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        instance.add_dynamic_partitions("retailer", ["zara"])
        assert instance.get_settings("run_retries")["retry_on_asset_or_op_failure"] is False
        assert not instance.telemetry_enabled
    assert list(tmp_path.rglob("*.db"))


def test_at_most_one_run_per_retailer_at_a_time(options: dict[str, Any]) -> None:
    (limit,) = options["concurrency"]["runs"]["tag_concurrency_limits"]
    assert limit == {
        "key": "dagster/partition/retailer",
        "value": {"applyLimitPerUniqueValue": True},
        "limit": 1,
    }
    assert options["concurrency"]["runs"]["max_concurrent_runs"] > 1
