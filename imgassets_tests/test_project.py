"""Tests of `imgassets init`: the files of a project folder, and the commands that read them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from imgassets.configuration import load_settings, settings_files
from imgassets.folders import project_root
from imgassets.project import template, write_project
from imgassets.settings import Settings

FILES = ["config/imgassets.yaml", "workspace.yaml", "dagster.yaml", ".env.example", ".gitignore"]


def init(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("imgassets"), "init", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_init_writes_a_project(tmp_path: Path) -> None:
    done = init(tmp_path)
    assert done.returncode == 0
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == set(FILES)
    assert done.stdout.splitlines()[: len(FILES)] == [f"wrote {name}" for name in FILES]
    assert "DAGSTER_HOME" in done.stdout


def test_init_elsewhere_warns_that_a_checkout_reads_its_own_settings(tmp_path: Path) -> None:
    done = init(tmp_path)
    assert f"runs from the checkout {project_root()} and reads the settings there" in done.stderr
    assert f"pip install {project_root()}" in done.stderr


def test_init_accepts_a_folder_and_keeps_existing_files(tmp_path: Path) -> None:
    (tmp_path / "mine" / "config").mkdir(parents=True)
    kept = tmp_path / "mine" / "config" / "imgassets.yaml"
    kept.write_text("start_date: 2020-01-01\n")
    done = init(tmp_path, "mine")
    assert "kept  mine/config/imgassets.yaml" in done.stdout
    assert "wrote mine/workspace.yaml" in done.stdout
    assert kept.read_text() == "start_date: 2020-01-01\n"


def test_the_settings_that_init_writes_are_valid_and_equal_to_the_defaults(
    tmp_path: Path,
) -> None:
    values = yaml.safe_load(template("imgassets.yaml"))
    settings = Settings.model_validate(values)
    usual = Settings().model_dump()
    usual["download"]["user_agent"] = settings.download.user_agent
    assert settings.model_dump() == usual
    created = [file.created for file in write_project(tmp_path, postgres=False)]
    assert created == [True] * len(FILES)


def test_with_postgres_only_a_storage_section_is_added_to_dagster_yaml(tmp_path: Path) -> None:
    init(tmp_path, "--postgres")
    written = yaml.safe_load((tmp_path / "dagster.yaml").read_text())
    storage = written.pop("storage")
    assert storage == {"postgres": {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}}}
    assert written == yaml.safe_load((project_root() / "dagster.yaml").read_text())


def test_the_settings_of_a_project_folder_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgassets.configuration.project_root", lambda: tmp_path)
    monkeypatch.delenv("IMGASSETS_CONFIG", raising=False)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "imgassets.yaml").write_text("download: {threads: 7}\n")
    (tmp_path / "config" / "default.yaml").write_text("download: {threads: 6, retries: 9}\n")
    load_settings.cache_clear()
    try:
        download = load_settings().download
        assert (download.threads, download.retries) == (7, 9)
        assert [file.name for file in settings_files()] == [
            "config/imgassets.yaml",
            "config/default.yaml",
        ]
        other = tmp_path / "other.yaml"
        other.write_text("download: {threads: 5}\n")
        monkeypatch.setenv("IMGASSETS_CONFIG", str(other))
        load_settings.cache_clear()
        download = load_settings().download
        assert (download.threads, download.retries) == (5, 9)
    finally:
        load_settings.cache_clear()


def test_commands_read_the_env_file_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "MONGODB_URI=mongodb://127.0.0.1:9/\nIMGASSETS__SOURCE__DATABASE=from_env_file\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "MONGODB_URI"}
    done = subprocess.run(
        [Path(sys.executable).with_name("imgassets"), "doctor"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert "MongoDB at mongodb://127.0.0.1:9 cannot be reached" in done.stdout


def test_without_mongodb_uri_the_commands_fail_and_say_what_to_do(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "MONGODB_URI"}
    for command in ("sync", "doctor"):
        done = subprocess.run(
            [Path(sys.executable).with_name("imgassets"), command],
            cwd=tmp_path,
            env={**environment, "DAGSTER_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == 1
        assert "MONGODB_URI is not set" in done.stdout + done.stderr
        assert "imgassets db start" in done.stdout + done.stderr
