"""The files in deploy/celery agree with those of one machine and with each other."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
import yaml
from dagster_aws.s3.compute_log_manager import S3ComputeLogManager

from imgassets.folders import project_root
from imgassets.launcher.celery_launcher import CancellingCeleryRunLauncher

OWN = {"storage", "compute_logs", "run_launcher", "run_monitoring"}
OURS = ("setup", "webserver", "daemon", "worker")


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((project_root() / name).read_text("utf-8"))
    return found


def test_the_instance_has_the_limits_retries_and_retention_of_one_machine() -> None:
    here, there = load("dagster.yaml"), load("deploy/celery/dagster.yaml")
    assert {name: there[name] for name in there if name not in OWN} == {
        name: here[name] for name in here if name not in OWN
    }
    # With run monitoring, Dagster ignores the message of a lost worker's run.
    assert there["run_monitoring"] == {"enabled": False}


def test_the_instance_loads_the_launcher_and_the_logs_of_the_object_store(
    monkeypatch: pytest.MonkeyPatch, s3: str
) -> None:
    monkeypatch.setenv("IMGASSETS_LOGS_BUCKET", s3)
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://user:secret@127.0.0.1:9//")
    config = load("deploy/celery/dagster.yaml")
    with dg.instance_for_test(
        overrides={name: config[name] for name in config if name != "storage"}
    ) as instance:
        assert isinstance(instance.run_launcher, CancellingCeleryRunLauncher)
        assert isinstance(instance.compute_log_manager, S3ComputeLogManager)
        celery = instance.run_launcher.celery
        assert celery.connection_for_write().hostname == "127.0.0.1"
        assert not instance.run_monitoring_enabled
        assert "secret" not in instance.info_str()


def test_every_container_of_imgassets_has_the_addresses_and_the_instance() -> None:
    services = load("deploy/celery/docker-compose.yaml")["services"]
    for name in OURS:
        environment = services[name]["environment"]
        assert {"CELERY_BROKER_URL", "IMGASSETS__DATA_ROOT", "IMGASSETS_LOGS_BUCKET"} <= {
            *environment
        }, name
        assert "./deploy/celery/dagster.yaml:/app/dagster.yaml:ro" in services[name]["volumes"]
    base = load("docker-compose.yaml")["services"]["daemon"]["environment"]
    worker = services["worker"]["environment"]
    for name in ("MONGODB_URI", "DAGSTER_POSTGRES_URL", "IMGASSETS_CONFIG"):
        assert worker[name] == base[name]
