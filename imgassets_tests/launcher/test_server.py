"""What is forked is as a fresh interpreter would be, and nothing is left behind."""

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
from imgassets.launcher.server import LIBRARIES
from imgassets_tests.launcher.conftest import PATIENCE, Started, servers

SURROUNDINGS = "imgassets_tests.launcher.surroundings"


def wait_for(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def seen(server: ForkServer, file: Path) -> dict[str, Any]:
    """What a forked process finds around it."""
    assert Started(server, SURROUNDINGS, str(file), "a b", "ü").wait() == 0
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_a_forked_process_is_what_a_fresh_interpreter_is(
    server: ForkServer, tmp_path: Path
) -> None:
    forked, forked_again = (seen(server, tmp_path / name) for name in ("a", "b"))
    subprocess.run(
        [sys.executable, "-m", SURROUNDINGS, tmp_path / "fresh", "a b", "ü"],
        check=True,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    fresh = json.loads((tmp_path / "fresh").read_text())
    assert forked["drawn"] != forked_again["drawn"]
    # The descriptor on which it may ask for processes of its own; OpenBLAS has threads elsewhere.
    assert len(forked.pop("open")) == len(fresh.pop("open")) + 1
    assert forked.pop("threads") == 1
    for found in (forked, fresh):
        del found["drawn"]
    fresh.pop("threads")
    assert forked == fresh


def test_code_is_read_when_a_program_starts(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    out = tmp_path / "out"
    for text in ("as it was", "as it is"):
        (tmp_path / "code_of_a_user.py").write_text(
            f"import sys\nassert not [m for m in sys.modules if m.startswith('imgassets')]\n"
            f"import pathlib; pathlib.Path(sys.argv[1]).write_text({text!r})"
        )
        assert Started(server, "code_of_a_user", str(out)).wait() == 0
        assert out.read_text() == text


def test_a_changed_environment_or_folder_is_that_of_the_next_process(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(project_root()))
    for number, folder in enumerate((tmp_path, tmp_path / "here")):
        monkeypatch.setenv("IMGASSETS_SOMETHING", str(number))
        monkeypatch.chdir(folder)
        found = seen(server, tmp_path / "found")
        assert found["environment"]["IMGASSETS_SOMETHING"] == str(number)
        assert found["folder"] == found["path"][0] == str(folder)
    wait_for(lambda: len(servers()) == 1)  # the first has ended


def test_the_end_of_a_program_is_told_and_nothing_is_left_of_it(server: ForkServer) -> None:
    assert Started(server, "imgassets_tests.launcher.ends", "3").wait() == 3
    assert Started(server, "imgassets_tests.launcher.ends", "raise").wait() == 1
    waiting = Started(server, "imgassets_tests.launcher.ends", "wait")
    assert waiting.mark.lives
    assert waiting.mark.send(signal.SIGKILL)
    assert waiting.wait() == -signal.SIGKILL
    assert not waiting.mark.lives
    assert not waiting.mark.send(signal.SIGKILL)
    assert not psutil.pid_exists(waiting.mark.pid)


def test_what_cannot_be_noted_is_not_started(server: ForkServer, tmp_path: Path) -> None:
    marks: list[ProcessIdentity] = []

    def refuse(mark: ProcessIdentity) -> None:
        marks.append(mark)
        raise OSError("the database is gone")

    with pytest.raises(OSError, match="database"):
        server.start(
            SURROUNDINGS,
            [str(tmp_path / "out")],
            ready=refuse,
            ended=lambda _: pytest.fail("it ran"),
        )
    wait_for(lambda: not marks[0].lives)
    assert not (tmp_path / "out").exists()


def test_a_server_that_was_killed_is_started_anew_and_its_programs_go_on(
    server: ForkServer, tmp_path: Path
) -> None:
    first = Started(server, "imgassets_tests.launcher.ends", "wait", str(tmp_path / "began"))
    # A program that the server has not released yet ends with it.
    wait_for((tmp_path / "began").exists)
    (process,) = servers()
    process.kill()
    assert first.wait() is None
    wait_for(lambda: not servers())
    second = Started(server, "imgassets_tests.launcher.ends", "wait")
    for started in (first, second):
        assert started.mark.lives
        started.mark.send(signal.SIGKILL)
    assert second.wait() == -signal.SIGKILL


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_server_ends_with_its_owner_and_its_programs_go_on(
    tmp_path: Path, how: signal.Signals
) -> None:
    out = tmp_path / "mark"
    owner = subprocess.Popen([sys.executable, "-m", "imgassets_tests.launcher.owner", out])
    wait_for(out.exists)
    mark = ProcessIdentity.load(out.read_text())
    (server,) = servers(owner.pid)
    owner.send_signal(how)
    owner.wait(PATIENCE)
    wait_for(lambda: not server.is_running())
    assert mark.lives
    assert mark.send(signal.SIGTERM)
    wait_for(lambda: not mark.lives)


def test_a_server_with_threads_refuses(
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
        Started(server, "imgassets_tests.launcher.ends", "0")


def test_a_server_that_cannot_start_is_told(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ForkServerError, match="gone"):
        Started(server, "imgassets_tests.launcher.ends", "0")


def test_every_module_that_the_server_imports_beforehand_exists() -> None:
    # The server passes over one that is missing, and every run would import it instead.
    for name in LIBRARIES:
        assert importlib.util.find_spec(name) is not None, name


def test_many_threads_ask_at_once(server: ForkServer) -> None:
    ended: list[int | None] = []
    threads = [
        threading.Thread(
            target=lambda n=n: ended.append(
                Started(server, "imgassets_tests.launcher.ends", str(n)).wait()
            )
        )
        for n in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended, key=str) == sorted(range(12), key=str)
