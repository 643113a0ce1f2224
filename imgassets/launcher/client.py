"""Client of the fork server: starts the server, and asks it to fork programs.

A server that has died is replaced, and so is one whose environment, working folder or installed
libraries are out of date. If no program can be forked, `ForkServerError` says why, and the caller
starts it in another way. What the server itself does is in `server`.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from imgassets.launcher import server
from imgassets.launcher.processes import ProcessIdentity

# The server answers its first request after all imports: 2 s, or 20 s on a busy machine.
_ANSWER_TIMEOUT_S = 120


class ForkServerError(Exception):
    """The fork server cannot start a program; the message says why."""


class ForkServer:
    """A fork server that this process owns, started by the first request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: ServerConnection | None = None
        self._server_inputs: object = None

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        on_forked: Callable[[ProcessIdentity], None],
        on_exit: Callable[[int | None], None],
    ) -> None:
        """Start `python -m MODULE ARGUMENTS` in a process that outlives this one.

        Args:
            module: Name of the module to run as `__main__`.
            arguments: Command-line arguments of the program.
            on_forked: Called when the process exists and before the program begins. If it raises,
                the program does not begin and the exception is passed on.
            on_exit: Called in another thread when the program has ended, with its exit code or the
                negative number of the signal that killed it; with None if the server ended first.

        Raises:
            ForkServerError: The program cannot be started.
        """
        self._connect().start(module, arguments, on_forked=on_forked, on_exit=on_exit)

    def close(self) -> None:
        """End the server; the programs that it started continue."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _connect(self) -> ServerConnection:
        with self._lock:
            inputs = _server_inputs()
            outdated = self._server_inputs != inputs
            if self._connection is not None and (self._connection.broken or outdated):
                self._connection.close()
                self._connection = None
            if self._connection is None:
                self._connection = ServerConnection(*_start_server())
                self._server_inputs = inputs
            return self._connection


def _server_inputs() -> tuple[dict[str, str], Path, list[int]]:
    """Return what a server that starts now copies; if it changes, the server is out of date.

    Returns:
        Environment variables, working folder, and modification times (ns) of the library folders.
    """
    libraries = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    # Installing or removing a library changes the modification time of its folder.
    times = [Path(path).stat().st_mtime_ns for path in sorted(libraries)]
    return dict(os.environ), Path.cwd(), times


def _start_server() -> tuple[Connection, subprocess.Popen[bytes]]:
    if sys.platform != "linux":
        raise ForkServerError(f"forking is supported on Linux only, not on {sys.platform}")
    our_end, server_end = Pipe()
    with server_end:
        process = subprocess.Popen(  # noqa: S603  (our interpreter, our file)
            [sys.executable, server.__file__, str(server_end.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[server_end.fileno()],
            start_new_session=True,
        )
    return our_end, process


def _own_environment() -> tuple[dict[str, str], str, list[str]]:
    return dict(os.environ), str(Path.cwd()), [*sys.path]


_inherited_connection: ServerConnection | None = None


def inherited_connection() -> ServerConnection | None:
    """Return a connection to the fork server that serves this process; None if none does."""
    global _inherited_connection  # noqa: PLW0603  (one per process, as the descriptor is)
    pid, _, descriptor = os.environ.get(server.FORK_SERVER_VARIABLE, "").partition(":")
    if pid != str(os.getpid()):
        return None
    if _inherited_connection is None:
        _inherited_connection = ServerConnection(Connection(os.dup(int(descriptor))), None)
    return _inherited_connection


class ServerConnection:
    """A connection to a fork server, usable from several threads.

    Attributes:
        broken: Whether the server has ended or the connection was closed.
    """

    def __init__(self, connection: Connection, process: subprocess.Popen[bytes] | None) -> None:
        self.broken = False
        self._connection = connection
        self._process = process
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        self._sending = threading.Lock()
        self._request_ids = itertools.count()
        self._pids: dict[int, Future[int]] = {}
        self._exit_callbacks: dict[int, Callable[[int | None], None]] = {}
        threading.Thread(target=self._listen, name="fork-server", daemon=True).start()

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        copy_environment: bool = False,
        descriptors: Sequence[int] = (),
        on_forked: Callable[[ProcessIdentity], None],
        on_exit: Callable[[int | None], None],
    ) -> None:
        """Start a program, as `ForkServer.start` does.

        Args:
            module: Name of the module to run as `__main__`.
            arguments: Command-line arguments of the program.
            copy_environment: Whether the program gets this process's environment, working folder
                and `sys.path` as they are now, instead of those that the server started with.
            descriptors: File descriptors for the program's standard input, output and error, in
                this order; empty to leave the server's.
            on_forked: As in `ForkServer.start`.
            on_exit: As in `ForkServer.start`.

        Raises:
            ForkServerError: The program cannot be started.
        """
        request = {
            "module": module,
            "arguments": [*arguments],
            "environment": _own_environment() if copy_environment else None,
            "descriptors": len(descriptors),
        }
        request_id, pid = self._request_fork(request, descriptors, on_exit)
        self._allow_begin(request_id, pid, on_forked)

    def _request_fork(
        self,
        request: Mapping[str, object],
        descriptors: Sequence[int],
        on_exit: Callable[[int | None], None],
    ) -> tuple[int, int]:
        """Ask the server to fork a process, which waits before it begins its program.

        Returns:
            Id of the request, and pid of the process.
        """
        pid_received: Future[int] = Future()
        try:
            with self._sending:
                if self.broken:
                    raise ForkServerError("the fork server has exited")
                request_id = next(self._request_ids)
                self._pids[request_id], self._exit_callbacks[request_id] = pid_received, on_exit
                self._connection.send(("fork", request_id, request))
                if descriptors:
                    socket.send_fds(self._socket, [b"\0"], descriptors)
            return request_id, pid_received.result(_ANSWER_TIMEOUT_S)
        except TimeoutError:
            if self._process is not None:
                # A late answer must not start a program that the caller has started elsewhere.
                self._process.kill()
            raise ForkServerError(
                f"the fork server did not answer within {_ANSWER_TIMEOUT_S} s"
            ) from None
        except OSError as error:
            raise ForkServerError(f"the fork server has exited: {error}") from None

    def _allow_begin(
        self, request_id: int, pid: int, on_forked: Callable[[ProcessIdentity], None]
    ) -> None:
        """Let a forked process begin its program; if `on_forked` raises, the process ends."""
        go = False
        try:
            identity = ProcessIdentity.of(pid)
            if identity is None:
                raise ForkServerError(f"process {pid} was killed before its program began")
            on_forked(identity)
            go = True
        finally:
            with self._sending, suppress(OSError):
                if not go:
                    self._exit_callbacks.pop(request_id, None)
                self._connection.send(("go", request_id, {"go": go}))

    def close(self) -> None:
        """Close the connection; a server that this process owns then ends."""
        self.broken = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the listening thread

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                kind, request_id, value = self._connection.recv()
                if kind == "forked":
                    self._pids.pop(request_id).set_result(value)
                elif kind == "refused":
                    del self._exit_callbacks[request_id]
                    refusal = ForkServerError(f"the fork server refuses to fork: {value}")
                    self._pids.pop(request_id).set_exception(refusal)
                elif (on_exit := self._exit_callbacks.pop(request_id, None)) is not None:
                    on_exit(value)
        with self._sending:
            self.broken = True
            self._connection.close()
            self._socket.close()
        for pid_received in self._pids.values():
            pid_received.set_exception(ForkServerError("the fork server has exited"))
        for on_exit in self._exit_callbacks.values():
            on_exit(None)
        if self._process is not None:
            self._process.wait()
