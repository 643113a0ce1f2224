"""The warm server: a program that has libraries imported, and forks when it is asked to.

`client` starts this file, with the number of the file descriptor on which it will ask. It imports
libraries of others alone, never `imgassets` nor code of the user's, so that what it forks runs the
code as it stands on the disk at that moment. It opens nothing and starts nothing: a process with
threads cannot be forked safely, and it refuses where it has come to have some. It ends when the one
who started it ends; what it forked goes on.

A forked process waits until the one who asked for it has noted which it is. It then becomes what a
fresh `python -m MODULE ARGUMENTS` would be, in a session of its own, with the environment, folder
and paths of the one who started the server.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import runpy
import socket
import sys
import threading
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

# All that a run, its checks and its imaging process import. A library that is missing or broken is
# passed over: whoever needs it will say so.
LIBRARIES = (
    "dagster._cli",  # what `python -m dagster` is; the next ones it imports when it runs a job
    "dagster._core.definitions.external_asset",
    "dagster._core.definitions.repository_definition.repository_data_builder",
    "dagster._core.execution.plan.active",
    "dagster._core.execution.plan.execute_plan",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.instance.runs.run_domain",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.system_config.composite_descent",
    "dagster_postgres",
    "sqlalchemy.dialects.sqlite",
    "alembic.command",
    "watchdog.observers.polling",
    "psutil",
    "numpy",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.pandas_compat",
    "pyarrow.parquet",
    "pymongo",
    "fsspec.implementations.local",
    "upath.implementations.local",
    "slugify",
    "requests",
    "pycurl",
    "protego",
    "cv2",
    "onnxruntime",
    "simplejpeg",
    "PIL.BmpImagePlugin",
    "PIL.GifImagePlugin",
    "PIL.ImageCms",
    "PIL.ImageDraw",
    "PIL.ImageFont",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
)

# Where a forked process finds the descriptor on which it can ask for processes in turn, as
# `PID:FD`; other processes inherit the variable, and not the descriptor.
VARIABLE = "IMGASSETS_FORK_SERVER"

_GC_THRESHOLD = 10_000

# Threads that libraries start where they are imported, and that can be told not to.
_QUIET = {
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # one of pyarrow's allocators
    "ORT_DISABLE_TELEMETRY": "1",
}


def main() -> None:
    """Serve; a process that was forked goes on here too, and becomes what it was forked for."""
    if not sys.flags.safe_path:
        sys.path[0] = str(Path.cwd())  # as `python -m` has it; this file's folder is there now
    _import_libraries()
    _become(**_Server(Connection(int(sys.argv[1]))).serve())


def _import_libraries() -> None:
    gc.disable()
    before = dict(os.environ)
    os.environ.update(_QUIET)
    for name in LIBRARIES:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    os.environ.clear()
    os.environ.update(before)
    gc.collect()
    # What is here stays, and its memory is shared as long as nobody writes to it; a collection
    # would.
    gc.freeze()
    # OpenBLAS (numpy, cv2) ends its threads where a process forks, and starts them where they are
    # needed.
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)


class _Server:
    """Those who ask, and what was forked for them."""

    def __init__(self, owner: Connection[Any, Any]) -> None:
        self._owner = owner
        self._clients = {owner}
        # By a descriptor that is ready when the process has ended: its number, for whom, for what.
        self._forked: dict[int, tuple[int, Connection[Any, Any], int]] = {}
        # Those that wait, by for whom and for what: what they are told on whether to go.
        self._waiting: dict[tuple[Connection[Any, Any], int], Connection[Any, Any]] = {}

    def serve(self) -> dict[str, Any]:
        """Answer until the owner is gone; returns in forked processes alone."""
        ready: Any
        while True:
            for ready in wait([*self._clients, *self._forked]):
                if isinstance(ready, int):
                    self._tell_end(ready)
                    continue
                try:
                    kind, number, request = ready.recv()
                    descriptors = _received(ready, request.pop("descriptors", 0))
                except (EOFError, OSError):
                    self._forget(ready)
                    continue
                if kind == "go":
                    _send(self._waiting.pop((ready, number)), request["go"])
                elif self._fork(ready, number):
                    return {**request, "descriptors": descriptors}
                for descriptor in descriptors:
                    os.close(descriptor)

    def _fork(self, client: Connection[Any, Any], number: int) -> bool:
        """Whether this is the forked process."""
        threads = len([*Path("/proc/self/task").iterdir()])
        if threads > 1:
            told = f"it has {threads} threads, and cannot be forked safely"
            _send(client, ("refused", number, told))
            return False
        here, there = Pipe()
        if child := os.fork():
            there.close()
            self._clients.add(here)
            self._waiting[client, number] = here
            self._forked[os.pidfd_open(child)] = (child, client, number)
            _send(client, ("forked", number, child))
            return False
        for connection in (here, *self._clients):
            connection.close()
        for descriptor in self._forked:
            os.close(descriptor)
        try:
            go = there.recv()
        except EOFError:
            go = False
        if not go:
            os._exit(0)
        kept = os.dup(there.fileno())
        os.environ[VARIABLE] = f"{os.getpid()}:{kept}"
        return True

    def _tell_end(self, descriptor: int) -> None:
        child, client, number = self._forked.pop(descriptor)
        os.close(descriptor)
        _, status = os.waitpid(child, 0)
        _send(client, ("ended", number, os.waitstatus_to_exitcode(status)))

    def _forget(self, client: Connection[Any, Any]) -> None:
        if client is self._owner:
            os._exit(0)
        for whom, number in [*self._waiting]:
            if whom is client:
                _send(self._waiting.pop((whom, number)), message=False)
        self._clients.discard(client)
        client.close()


def _send(client: Connection[Any, Any], message: object) -> None:
    with contextlib.suppress(OSError):  # it is gone
        client.send(message)


def _received(client: Connection[Any, Any], count: int) -> list[int]:
    if not count:
        return []
    with socket.socket(fileno=os.dup(client.fileno())) as channel:
        return socket.recv_fds(channel, 1, count)[1]


def _become(
    module: str,
    arguments: list[str],
    like: tuple[dict[str, str], str, list[str]] | None,
    descriptors: list[int],
) -> None:
    """Be a fresh interpreter that runs a module."""
    os.setsid()
    for descriptor, standard in zip(descriptors, (0, 1, 2), strict=False):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    if like is not None:
        environment, folder, sys.path[:] = like
        environment[VARIABLE] = os.environ[VARIABLE]
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
    # Or all processes would draw the same numbers. (Python's own `random` sees to it itself.)
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    gc.enable()
    # A run allocates many short-lived objects; collecting every 700 of them, Python's default,
    # costs a run about 0.1 CPU s.
    gc.set_threshold(_GC_THRESHOLD)
    sys.argv = [module, *arguments]
    status = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        status = _status(ended)
    except BaseException:  # noqa: BLE001  (the end of a program)
        sys.excepthook(*sys.exc_info())
        status = 1
    # As Python's multiprocessing ends what it forked: an interpreter's own end would take all that
    # the server has imported to pieces, a fifth of a second.
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
    atexit._run_exitfuncs()  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)


def _status(ended: SystemExit) -> int:
    if ended.code is None or isinstance(ended.code, int):
        return ended.code or 0
    print(ended.code, file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    main()
