"""Client of the fork server: starts it, and asks it to start programs.

The server is started again when it has died, or when its environment, folder or libraries have
changed. What it does is in `server`. Where it cannot be used, `ForkServerError` says why, and the
caller starts the program without it.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from imgassets.launcher import server
from imgassets.launcher.processes import ProcessIdentity

# The first answer comes when all is imported: two seconds, on a busy machine twenty.
_PATIENCE_S = 120


class ForkServerError(Exception):
    """No program could be started in this way; the message says why."""


class ForkServer:
    """A server of this process's own, which is started when it is first asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._seen: object = None

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        ready: Callable[[ProcessIdentity], None],
        ended: Callable[[int | None], None],
    ) -> None:
        """Start `python -m MODULE ARGUMENTS`, which goes on when this process ends.

        Args:
            module: its name.
            arguments: of the program.
            ready: called when the process is there, and before the program begins; what it raises
                is passed on, and there is no program.
            ended: called in another thread when it has ended, with its exit code (the negative
                number of a signal that killed it); with none where the server was gone before.

        Raises:
            ForkServerError: it cannot be started.
        """
        self._current().start(module, arguments, ready=ready, ended=ended)

    def close(self) -> None:
        """End the server. What it started goes on."""
        with self._lock:
            if self._link is not None:
                self._link.close()
            self._link = None

    def _current(self) -> Link:
        with self._lock:
            seen = _surroundings()
            if self._link is not None and (self._link.broken or self._seen != seen):
                self._link.close()
                self._link = None
            if self._link is None:
                self._link, self._seen = Link(*_started()), seen
            return self._link


def _surroundings() -> object:
    """What a server has from its start on, and a fresh interpreter would find anew."""
    libraries = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    # A folder's time changes when a library is installed or removed.
    times = [Path(path).stat().st_mtime_ns for path in sorted(libraries)]
    return dict(os.environ), Path.cwd(), times


def _started() -> tuple[Connection, subprocess.Popen[bytes]]:
    if sys.platform != "linux":
        raise ForkServerError(f"processes are not forked on {sys.platform}")
    ours, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(  # noqa: S603  (this interpreter, and a file of ours)
            [sys.executable, server.__file__, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    return ours, process


_inherited: Link | None = None


def inherited() -> Link | None:
    """The server that this process was forked from, if it was."""
    global _inherited  # noqa: PLW0603  (as the descriptor is: one a process)
    pid, _, descriptor = os.environ.get(server.VARIABLE, "").partition(":")
    if pid != str(os.getpid()):
        return None
    if _inherited is None:
        _inherited = Link(Connection(os.dup(int(descriptor))), None)
    return _inherited


class Link:
    """The connection to a server."""

    def __init__(self, connection: Connection, process: subprocess.Popen[bytes] | None) -> None:
        self.broken = False
        self._connection = connection
        self._process = process
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        self._sending = threading.Lock()
        self._numbers = itertools.count()
        self._asked: dict[int, Future[int]] = {}
        self._ended: dict[int, Callable[[int | None], None]] = {}
        threading.Thread(target=self._listen, name="fork-server", daemon=True).start()

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        like_this: bool = False,
        descriptors: Sequence[int] = (),
        ready: Callable[[ProcessIdentity], None],
        ended: Callable[[int | None], None],
    ) -> None:
        """As `ForkServer.start`.

        Args:
            module: its name.
            arguments: of the program.
            like_this: with the environment, folder and `sys.path` of this process as they are now,
                not those that the server was started with.
            descriptors: its standard input, output and error, likewise.
            ready: as there.
            ended: as there.

        Raises:
            ForkServerError: it cannot be started.
        """
        request = {
            "module": module,
            "arguments": [*arguments],
            "like": (dict(os.environ), str(Path.cwd()), [*sys.path]) if like_this else None,
            "descriptors": len(descriptors),
        }
        asked: Future[int] = Future()
        try:
            with self._sending:
                if self.broken:
                    raise ForkServerError("the fork server is gone")
                number = next(self._numbers)
                self._asked[number], self._ended[number] = asked, ended
                self._connection.send(("fork", number, request))
                if descriptors:
                    socket.send_fds(self._socket, [b"\0"], descriptors)
            pid = asked.result(_PATIENCE_S)
        except TimeoutError:
            if self._process is not None:
                self._process.kill()  # or it might start the program yet
            raise ForkServerError(
                f"the fork server did not answer within {_PATIENCE_S} s"
            ) from None
        except OSError as error:
            raise ForkServerError(f"the fork server is gone: {error}") from None
        go = False
        try:
            mark = ProcessIdentity.of(pid)
            if mark is None:
                raise ForkServerError(f"the process {pid} was killed before it began")
            ready(mark)
            go = True
        finally:
            with self._sending, suppress(OSError):
                if not go:
                    self._ended.pop(number, None)
                self._connection.send(("go", number, {"go": go}))

    def close(self) -> None:
        """Hang up: a server of this process's own ends."""
        self.broken = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # which the listening thread notices

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                kind, number, what = self._connection.recv()
                if kind == "forked":
                    self._asked.pop(number).set_result(what)
                elif kind == "refused":
                    del self._ended[number]
                    refusal = ForkServerError(f"the fork server refuses: {what}")
                    self._asked.pop(number).set_exception(refusal)
                elif (ended := self._ended.pop(number, None)) is not None:
                    ended(what)
        with self._sending:
            self.broken = True
            self._connection.close()
            self._socket.close()
        for asked in self._asked.values():
            asked.set_exception(ForkServerError("the fork server is gone"))
        for ended in self._ended.values():
            ended(None)
        if self._process is not None:
            self._process.wait()
