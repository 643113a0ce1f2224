"""A program that a forked process starts in turn, as a run does its imaging process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from imgassets.folders import project_root
from imgassets.launcher.client import ForkServer
from imgassets.launcher.processes import ProcessIdentity
from imgassets_tests.launcher.conftest import PATIENCE, Started, servers

ASKS = "imgassets_tests.launcher.asks"


def found(folder: Path) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while not (folder / "found").exists() or not (folder / "found").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    said: dict[str, Any] = json.loads((folder / "found").read_text())
    assert said["line"] == "hello"
    assert said["rest"] == ""
    # It has what the one has that asked, as it was at that moment.
    assert said["variable"] == "changed"
    assert "/a/folder/of/a/user" in said["path"]
    assert "said by hello" in (folder / "errors").read_text()
    assert ProcessIdentity.of(said["pid"]) is None
    return said


def test_it_is_forked_by_the_server_that_forked_this_process(
    server: ForkServer, tmp_path: Path
) -> None:
    asking = Started(server, ASKS, str(tmp_path), "with")
    (process,) = servers()
    assert asking.wait() == 0
    said = found(tmp_path)
    assert said["parent"] == process.pid
    assert said["status"] == -signal.SIGKILL


def test_it_is_a_fresh_interpreter_elsewhere(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", ASKS, tmp_path, "with"], check=True)
    said = found(tmp_path)
    assert said["parent"] == said["ours"]
    assert said["status"] == -signal.SIGKILL


def test_it_is_a_fresh_interpreter_where_the_server_has_gone(
    server: ForkServer, tmp_path: Path
) -> None:
    Started(server, ASKS, str(tmp_path), "without")
    said = found(tmp_path)
    assert said["parent"] == said["ours"]


def test_it_goes_on_where_the_server_goes(server: ForkServer, tmp_path: Path) -> None:
    Started(server, ASKS, str(tmp_path), "server dies")
    assert found(tmp_path)["status"] is None


@pytest.mark.slow
def test_pictures_that_crash_the_process_cost_as_little_where_it_is_forked(
    server: ForkServer,
) -> None:
    tests = project_root() / "imgassets_tests" / "imaging" / "test_partition.py"
    assert Started(server, "pytest", "-q", "-k", "crash", str(tests)).wait() == 0
