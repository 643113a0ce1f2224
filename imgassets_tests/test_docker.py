"""docker-compose.yaml and the Dockerfile agree with each other and with the package.

`make image-test` builds the image and runs it; it takes too long for CI.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from imgassets.folders import project_root
from imgassets.settings import Settings

LONG_RUNNING = ("mongo", "postgres", "webserver", "daemon")
OURS = ("permissions", "setup", "webserver", "daemon")
MOUNT = re.compile(r"(.*):(/[^:]*)(:ro)?")


def text_of(name: str) -> str:
    return (project_root() / name).read_text("utf-8")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text_of("docker-compose.yaml"))["services"]
    return found


def test_the_file_needs_no_variable_to_be_set() -> None:
    lines = [line for line in text_of("docker-compose.yaml").splitlines() if "#" not in line]
    variables = re.findall(r"(?<!\$)\$\{?(\w+)(:-[^}]+)?", "\n".join(lines))
    assert len(variables) > 4
    assert [name for name, default in variables if not default] == []


def test_services_that_stay_up_are_restarted_checked_and_have_bounded_logs(
    services: dict[str, Any],
) -> None:
    for name in LONG_RUNNING:
        assert services[name]["restart"] == "unless-stopped", name
        assert services[name]["healthcheck"]["test"][0] == "CMD", name
        assert services[name]["logging"]["options"]["max-size"], name


def test_the_webserver_and_the_daemon_start_after_databases_permissions_and_setup(
    services: dict[str, Any],
) -> None:
    databases = {"mongo": "service_healthy", "postgres": "service_healthy"}
    permissions = {"permissions": "service_completed_successfully"}
    setup = {"setup": "service_completed_successfully"}
    expected = {
        "setup": databases | permissions,
        "webserver": databases | permissions | setup,
        "daemon": databases | permissions | setup,
    }
    for name, conditions in expected.items():
        found = {key: value["condition"] for key, value in services[name]["depends_on"].items()}
        assert found == conditions, name


def test_settings_and_addresses_reach_every_container_of_imgassets(
    services: dict[str, Any],
) -> None:
    for name in OURS:
        environment = services[name]["environment"]
        # No value: passed on if it is set.
        assert environment["IMGASSETS_CONFIG"] is None
        assert environment["IMGASSETS_WEBHOOK_URL"] is None
        assert environment["MONGODB_URI"].startswith("${MONGODB_URI:-mongodb://mongo:27017/")
        assert environment["DAGSTER_POSTGRES_URL"].startswith("${DAGSTER_POSTGRES_URL:-")
        assert services[name]["env_file"] == [{"path": ".env", "required": False}]


def test_the_default_data_root_is_the_mounted_folder_of_the_host(services: dict[str, Any]) -> None:
    for name in OURS:
        found = [MOUNT.fullmatch(volume) for volume in services[name]["volumes"]]
        mounts = {match[2]: match[1] for match in found if match}
        assert mounts[f"/app/{Settings().data_root}"] == "${IMGASSETS_DATA:-./data}"
        assert mounts["/app/config"] == "./config"
    assert "/data/" in text_of(".gitignore").splitlines()


def test_mongodb_is_the_replica_set_that_the_addresses_name(services: dict[str, Any]) -> None:
    command = services["mongo"]["command"]
    name = command[command.index("--replSet") + 1]
    assert f"_id: '{name}'" in services["mongo"]["healthcheck"]["test"][-1]
    assert f"replicaSet={name}}}" in services["daemon"]["environment"]["MONGODB_URI"]
    assert f"replicaSet={name}" in services["demo"]["environment"]["DEMO_MONGODB"]


def test_ports_are_published_on_this_machine_only(services: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports == {"webserver": ["127.0.0.1:3000:3000"], "demo": ["127.0.0.1:3001:3000"]}


def test_only_the_profile_starts_the_demo(services: dict[str, Any]) -> None:
    profiles = {
        name: service["profiles"] for name, service in services.items() if "profiles" in service
    }
    assert profiles == {"demo": ["demo"]}
    # The demo must not write where the settings of `.env` say.
    assert "env_file" not in services["demo"]
    assert "volumes" not in services["demo"]


def test_the_files_that_the_dockerfile_copies_exist_and_are_not_ignored() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", text_of("Dockerfile"), re.M)
    lists = ("docker", "kubernetes")
    names = [
        name
        for line in copied
        for requirements in lists
        for name in line.replace("${REQUIREMENTS}", requirements).split()
    ]
    assert {"requirements/docker.txt", "pyproject.toml", "imgassets"} <= set(names)
    ignored = text_of(".dockerignore").splitlines()
    assert [name for name in names if f"!{name}" not in ignored] == []
    assert [name for name in names if not (project_root() / name).exists()] == []
