"""Programs that a forked process starts, as a run starts its imaging worker processes."""

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
from imgassets_tests.launcher.conftest import TIMEOUT_S, Started, servers

STARTS_ECHO = "imgassets_tests.launcher.starts_echo"


def read_answer(folder: Path) -> dict[str, Any]:
    """Wait for the answer that `starts_echo` writes, and check what is the same in all cases."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (folder / "answer").exists() or not (folder / "answer").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    answer: dict[str, Any] = json.loads((folder / "answer").read_text())
    assert answer["line"] == "hello"
    assert answer["rest"] == ""
    # The program has the environment that its parent had when it started it.
    assert answer["variable"] == "changed"
    assert "/appended/by/the/parent" in answer["path"]
    assert "echo got hello" in (folder / "errors").read_text()
    assert ProcessIdentity.of(answer["pid"]) is None
    return answer


def test_a_program_is_forked_by_the_server_that_forked_its_parent(
    server: ForkServer, tmp_path: Path
) -> None:
    parent = Started(server, STARTS_ECHO, str(tmp_path), "server lives")
    (process,) = servers()
    assert parent.wait() == 0
    answer = read_answer(tmp_path)
    assert answer["parent"] == process.pid
    assert answer["exit_code"] == -signal.SIGKILL


def test_a_program_of_a_process_that_was_not_forked_is_a_new_interpreter(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", STARTS_ECHO, tmp_path, "server lives"], check=True)
    answer = read_answer(tmp_path)
    assert answer["parent"] == answer["started_by"]
    assert answer["exit_code"] == -signal.SIGKILL


def test_a_program_is_a_new_interpreter_after_the_server_has_died(
    server: ForkServer, tmp_path: Path
) -> None:
    Started(server, STARTS_ECHO, str(tmp_path), "server is gone")
    answer = read_answer(tmp_path)
    assert answer["parent"] == answer["started_by"]


def test_a_program_continues_when_the_server_dies(server: ForkServer, tmp_path: Path) -> None:
    Started(server, STARTS_ECHO, str(tmp_path), "server dies")
    assert read_answer(tmp_path)["exit_code"] is None


@pytest.mark.slow
def test_the_tests_of_crashing_images_pass_in_a_forked_process(
    server: ForkServer,
) -> None:
    tests = project_root() / "imgassets_tests" / "imaging" / "test_partition.py"
    assert Started(server, "pytest", "-q", "-k", "crash", str(tests)).wait() == 0
