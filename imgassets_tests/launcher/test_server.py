"""A forked process equals a new interpreter, and the fork server leaves nothing behind."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from imgassets.folders import project_root
from imgassets.launcher.client import ForkServer, ForkServerError
from imgassets.launcher.processes import ProcessIdentity
from imgassets.launcher.server import PRELOADED_MODULES
from imgassets_tests.launcher.conftest import TIMEOUT_S, Started, servers

REPORT_ENVIRONMENT = "imgassets_tests.launcher.report_environment"


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def environment_of_forked(server: ForkServer, file: Path) -> dict[str, Any]:
    """Return what a forked process reports about itself."""
    assert Started(server, REPORT_ENVIRONMENT, str(file), "a b", "ü").wait() == 0
    report: dict[str, Any] = json.loads(file.read_text())
    return report


def test_a_forked_process_has_the_same_environment_as_a_new_interpreter(
    server: ForkServer, tmp_path: Path
) -> None:
    forked, forked_again = (environment_of_forked(server, tmp_path / name) for name in ("a", "b"))
    subprocess.run(
        [sys.executable, "-m", REPORT_ENVIRONMENT, tmp_path / "fresh", "a b", "ü"],
        check=True,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    fresh = json.loads((tmp_path / "fresh").read_text())
    assert forked["random"] != forked_again["random"]
    # The forked process has one more: its connection to the server. A new interpreter has more
    # threads, OpenBLAS's.
    assert len(forked.pop("open")) == len(fresh.pop("open")) + 1
    assert forked.pop("threads") == 1
    for report in (forked, fresh):
        del report["random"]
    fresh.pop("threads")
    assert forked == fresh


def test_a_program_runs_the_code_that_is_on_disk_when_it_starts(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    out = tmp_path / "out"
    for text in ("first version", "second version"):
        (tmp_path / "user_code.py").write_text(
            f"import sys\nassert not [m for m in sys.modules if m.startswith('imgassets')]\n"
            f"import pathlib; pathlib.Path(sys.argv[1]).write_text({text!r})"
        )
        assert Started(server, "user_code", str(out)).wait() == 0
        assert out.read_text() == text


def test_the_next_process_gets_a_changed_environment_and_working_folder(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(project_root()))
    for number, folder in enumerate((tmp_path, tmp_path / "here")):
        monkeypatch.setenv("IMGASSETS_SOMETHING", str(number))
        monkeypatch.chdir(folder)
        report = environment_of_forked(server, tmp_path / "report")
        assert report["environment"]["IMGASSETS_SOMETHING"] == str(number)
        assert report["folder"] == report["path"][0] == str(folder)
    wait_for(lambda: len(servers()) == 1)  # the first server has ended


def test_the_exit_code_of_a_program_is_reported_and_its_process_removed(server: ForkServer) -> None:
    assert Started(server, "imgassets_tests.launcher.exits", "3").wait() == 3
    assert Started(server, "imgassets_tests.launcher.exits", "raise").wait() == 1
    waiting = Started(server, "imgassets_tests.launcher.exits", "wait")
    assert waiting.process.is_alive
    assert waiting.process.send_signal(signal.SIGKILL)
    assert waiting.wait() == -signal.SIGKILL
    assert not waiting.process.is_alive
    assert not waiting.process.send_signal(signal.SIGKILL)
    assert not psutil.pid_exists(waiting.process.pid)


def test_a_program_does_not_start_if_its_process_cannot_be_recorded(
    server: ForkServer, tmp_path: Path
) -> None:
    processes: list[ProcessIdentity] = []

    def fail(process: ProcessIdentity) -> None:
        processes.append(process)
        raise OSError("the database is gone")

    with pytest.raises(OSError, match="database"):
        server.start(
            REPORT_ENVIRONMENT,
            [str(tmp_path / "out")],
            on_forked=fail,
            on_exit=lambda _: pytest.fail("the program ran"),
        )
    wait_for(lambda: not processes[0].is_alive)
    assert not (tmp_path / "out").exists()


def test_a_killed_server_is_replaced_and_its_programs_continue(
    server: ForkServer, tmp_path: Path
) -> None:
    first = Started(server, "imgassets_tests.launcher.exits", "wait", str(tmp_path / "began"))
    # Before that, the program would end with the server.
    wait_for((tmp_path / "began").exists)
    (process,) = servers()
    process.kill()
    assert first.wait() is None
    wait_for(lambda: not servers())
    second = Started(server, "imgassets_tests.launcher.exits", "wait")
    for started in (first, second):
        assert started.process.is_alive
        started.process.send_signal(signal.SIGKILL)
    assert second.wait() == -signal.SIGKILL


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_server_ends_with_its_owner_and_its_programs_continue(
    tmp_path: Path, signal_number: signal.Signals
) -> None:
    out = tmp_path / "identity"
    owner = subprocess.Popen([sys.executable, "-m", "imgassets_tests.launcher.owns_server", out])
    wait_for(out.exists)
    identity = ProcessIdentity.from_json(out.read_text())
    (server,) = servers(owner.pid)
    owner.send_signal(signal_number)
    owner.wait(TIMEOUT_S)
    wait_for(lambda: not server.is_running())
    assert identity.is_alive
    assert identity.send_signal(signal.SIGTERM)
    wait_for(lambda: not identity.is_alive)


def test_a_server_with_several_threads_refuses_to_fork(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "protego.py").write_text(
        textwrap.dedent("""
            import threading
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        """)
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ForkServerError, match="2 threads"):
        Started(server, "imgassets_tests.launcher.exits", "0")


def test_a_server_that_cannot_start_is_an_error(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ForkServerError, match="has exited"):
        Started(server, "imgassets_tests.launcher.exits", "0")


def test_every_preloaded_module_exists() -> None:
    # The server skips a missing module, and each run would then import it itself.
    for name in PRELOADED_MODULES:
        assert importlib.util.find_spec(name) is not None, name


def test_several_threads_start_programs_at_the_same_time(server: ForkServer) -> None:
    exit_codes: list[int | None] = []
    threads = [
        threading.Thread(
            target=lambda n=n: exit_codes.append(
                Started(server, "imgassets_tests.launcher.exits", str(n)).wait()
            )
        )
        for n in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(exit_codes, key=str) == sorted(range(12), key=str)
