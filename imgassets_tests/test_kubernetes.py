"""The files in deploy/kubernetes, with Dagster's launcher and a server in place of Kubernetes.

No test starts a cluster or Helm: `instance` is what the templates of Dagster's chart make of the
values.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from imgassets.folders import project_root

FOLDER = project_root() / "deploy" / "kubernetes"
NAMESPACE = "catalogue"
PASSWORD = {"name": "imgassets-postgres", "key": "postgresql-password"}


def instance(values: Mapping[str, Any]) -> dict[str, Any]:
    """The dagster.yaml that the chart makes, but for Postgres."""
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    run_k8s_config = launcher["runK8sConfig"]
    daemon = values["dagsterDaemon"]
    monitoring, queue = daemon["runMonitoring"], daemon["runCoordinator"]["config"]
    queue = queue["queuedRunCoordinator"]
    logs = values["computeLogManager"]["config"]["s3ComputeLogManager"]
    assert daemon["runRetries"] == {"enabled": False}  # otherwise the chart repeats the section
    return {
        "run_launcher": {
            "module": "dagster_k8s",
            "class": values["runLauncher"]["type"],
            "config": {
                "load_incluster_config": True,
                "job_namespace": NAMESPACE,
                "image_pull_policy": launcher["imagePullPolicy"],
                "service_account_name": values["global"]["serviceAccountName"],
                "dagster_home": values["global"]["dagsterHome"],
                "instance_config_map": "dagster-instance",
                "postgres_password_secret": values["global"]["postgresqlSecretName"],
                "env_secrets": [secret["name"] for secret in launcher["envSecrets"]],
                "volume_mounts": launcher["volumeMounts"],
                "volumes": launcher["volumes"],
                "resources": launcher["resources"],
                "run_k8s_config": {
                    "pod_spec_config": run_k8s_config["podSpecConfig"],
                    "pod_template_spec_metadata": run_k8s_config["podTemplateSpecMetadata"],
                    "job_spec_config": run_k8s_config["jobSpecConfig"],
                },
            },
        },
        "run_coordinator": {
            "module": "dagster.core.run_coordinator",
            "class": daemon["runCoordinator"]["type"],
            "config": {
                "max_concurrent_runs": queue["maxConcurrentRuns"],
                "tag_concurrency_limits": queue["tagConcurrencyLimits"],
                "dequeue_use_threads": queue["dequeueUseThreads"],
                "dequeue_num_workers": queue["dequeueNumWorkers"],
            },
        },
        "compute_logs": {
            "module": "dagster_aws.s3.compute_log_manager",
            "class": values["computeLogManager"]["type"],
            "config": {
                "bucket": logs["bucket"],
                "prefix": logs["prefix"],
                "verify": True,
                "skip_empty_files": logs["skipEmptyFiles"],
            },
        },
        "run_monitoring": {
            "enabled": monitoring["enabled"],
            "start_timeout_seconds": monitoring["startTimeoutSeconds"],
            "cancel_timeout_seconds": monitoring["cancelTimeoutSeconds"],
            "max_resume_run_attempts": monitoring["maxResumeRunAttempts"],
            "poll_interval_seconds": monitoring["pollIntervalSeconds"],
            "free_slots_after_run_end_seconds": monitoring["freeSlotsAfterRunEndSeconds"],
        },
        "sensors": {
            "use_threads": daemon["sensors"]["useThreads"],
            "num_workers": daemon["sensors"]["numWorkers"],
            "num_submit_workers": daemon["sensors"]["numSubmitWorkers"],
        },
        "python_logs": {"python_log_level": values["pythonLogs"]["pythonLogLevel"]},
        "telemetry": values["telemetry"],
        "retention": {
            of: {"purge_after_days": values["retention"][of]["purgeAfterDays"]}
            for of in ("sensor", "schedule")
        },
        **values["additionalInstanceConfig"],
    }


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "values.yaml").read_text("utf-8"))
    return found


@pytest.fixture(scope="module")
def requests() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """The address of a server in place of Kubernetes, and path and body of what it is sent."""
    received: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, json.loads(body)))
            self.send_response(201)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()


@pytest.fixture(scope="module")
def job(
    values: Mapping[str, Any],
    requests: tuple[str, list[tuple[str, Any]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """The job that Kubernetes is sent for a run of `catalogue_job`."""
    address, received = requests
    folder = tmp_path_factory.mktemp("kubernetes")
    cluster = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": address}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "users": [{"name": "me", "user": {}}],
        "current-context": "here",
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(cluster))
    settings = instance(values)
    settings["run_launcher"]["config"] |= {
        "load_incluster_config": False,
        "kubeconfig_file": str(folder / "kubeconfig"),
    }
    # Without a queue, which only the daemon empties.
    settings["run_coordinator"] |= {"class": "DefaultRunCoordinator", "config": {}}
    del settings["compute_logs"]
    (folder / "dagster.yaml").write_text(yaml.safe_dump(settings))
    (location,) = values["dagster-user-deployments"]["deployments"]
    assert location["includeConfigInLaunchedRuns"] == {"enabled": False}
    image = location["image"]
    command = [sys.executable, "-m", "dagster", "job", "launch", "-j", "catalogue_job"]
    subprocess.run(
        [*command, *location["dagsterApiGrpcArgs"]],
        env={
            **os.environ,
            "DAGSTER_HOME": str(folder),
            "DAGSTER_CURRENT_IMAGE": f"{image['repository']}:{image['tag']}",
        },
        cwd=folder,
        check=True,
        timeout=120,
    )
    ((path, body),) = received
    assert path == f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
    found: dict[str, Any] = body
    return found


@pytest.mark.slow
def test_a_run_is_one_pod_with_image_secrets_settings_and_resources(job: dict[str, Any]) -> None:
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "registry.example.com/imgassets:2026-01-31"
    assert container["args"][:3] == ["dagster", "api", "execute_run"]
    assert container["resources"] == {
        "requests": {"cpu": "1", "memory": "2Gi"},
        "limits": {"cpu": "2", "memory": "3Gi"},
    }
    environment = {variable["name"]: variable for variable in container["env"]}
    assert environment["DAGSTER_HOME"]["value"] == "/app"
    assert environment["DAGSTER_PG_PASSWORD"]["valueFrom"] == {"secretKeyRef": PASSWORD}
    secrets = [
        source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source
    ]
    assert secrets == ["imgassets-env"]
    assert container["volumeMounts"] == [{"mountPath": "/app/config", "name": "imgassets-config"}]
    assert pod["volumes"] == [
        {"name": "imgassets-config", "configMap": {"name": "imgassets-config"}}
    ]
    assert pod["serviceAccountName"] == "imgassets"
    assert pod["securityContext"] == {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}


@pytest.mark.slow
def test_a_pod_is_not_restarted_or_moved_and_is_deleted_after_an_hour(job: dict[str, Any]) -> None:
    spec = job["spec"]
    # Dagster starts a lost run again, not Kubernetes, which would start it beside its retry.
    assert spec["backoffLimit"] == 0
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["ttlSecondsAfterFinished"] == 3600
    assert spec["template"]["metadata"]["annotations"] == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }


def test_dagster_accepts_the_instance_and_its_limits_are_those_of_dagster_yaml(
    values: Mapping[str, Any], tmp_path: Path
) -> None:
    local = yaml.safe_load((project_root() / "dagster.yaml").read_text("utf-8"))
    settings = instance(values)
    for section in ("run_retries", "retention", "sensors", "python_logs", "telemetry", "nux"):
        assert settings[section] == local[section], section
    limits = settings["run_coordinator"]["config"]["tag_concurrency_limits"]
    assert limits == local["concurrency"]["runs"]["tag_concurrency_limits"]
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings))
    with dg.DagsterInstance.from_config(str(tmp_path)) as found:
        assert found.run_monitoring_enabled
        assert found.run_retries_enabled
        assert found.get_concurrency_config().run_queue_config is not None
        assert type(found.compute_log_manager).__name__ == "S3ComputeLogManager"


def test_all_pods_have_one_image_whose_project_folder_is_dagster_home(
    values: Mapping[str, Any],
) -> None:
    (location,) = values["dagster-user-deployments"]["deployments"]
    pods = [values["dagsterWebserver"], values["dagsterDaemon"], location]
    assert len({json.dumps(pod["image"]) for pod in pods}) == 1
    assert {json.dumps(pod["podSecurityContext"]) for pod in pods} == {
        json.dumps({"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000})
    }
    dockerfile = (project_root() / "Dockerfile").read_text("utf-8")
    assert "--uid 1000" in dockerfile
    # The chart mounts dagster.yaml there.
    assert f"WORKDIR {values['global']['dagsterHome']}\n" in dockerfile
    webserver = values["dagsterWebserver"]
    assert webserver["readinessProbe"]["httpGet"]["port"] == webserver["service"]["port"]


def test_the_job_for_giant_partitions_runs_the_same_steps_in_pods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    defs = runpy.run_path(str(FOLDER / "definitions.py"))["defs"]
    giant, usual = map(defs.resolve_job_def, ("catalogue_in_pods", "catalogue_job"))
    assert (giant.executor_def.name, usual.executor_def.name) == ("k8s", "in_process")
    assert giant.asset_layer.executable_asset_keys == usual.asset_layer.executable_asset_keys
    assert giant.partitions_def == usual.partitions_def
    assert {node.name for node in giant.nodes} == {node.name for node in usual.nodes}
    assert dg.validate_run_config(giant, {})["execution"]["k8s"]["max_concurrent"] == 8
