"""The fork server: a process that imports libraries once, and forks on request.

`client` starts this file, and passes the number of the file descriptor of the connection on which
it sends requests. The server imports only third-party libraries, never `imgassets` or a user's
code, so that a forked process runs the code that is on the disk at that moment. It must have a
single thread, because forking a process with several is unsafe: it opens no database, starts no
thread, and refuses to fork if an imported library has started one. It ends when the process that
started it ends; the processes that it forked continue.

A forked process waits until the client has recorded its identity. Then it starts a session of its
own and runs `python -m MODULE ARGUMENTS` as a new interpreter would, with the environment, working
folder and `sys.path` of the process that started the server.
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

# What a run, its checks and its imaging processes import. A library that is missing or broken is
# skipped: the program that needs it reports the error. The private modules of Dagster are those
# that `python -m dagster` (its `_cli`) imports late, while it executes a run; a test checks that
# each still exists, and docs/upgrading-dagster.md says why they are listed.
PRELOADED_MODULES = (
    "dagster._cli",
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
    "http_sf",
    "cv2",
    "onnx",
    "onnxruntime",
    "loky",
    "simplejpeg",
    "PIL.BmpImagePlugin",
    "PIL.GifImagePlugin",
    "PIL.ImageCms",
    "PIL.ImageDraw",
    "PIL.ImageFont",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
)

# Tells a forked process the descriptor on which it can send requests of its own, as `PID:FD`. The
# pid is there because child processes inherit the variable but not the descriptor.
FORK_SERVER_VARIABLE = "IMGASSETS_FORK_SERVER"

# A run allocates many short-lived objects; collecting after every 700 of them, Python's default,
# costs a run about 0.1 CPU s.
_GC_THRESHOLD = 10_000

# Keeps libraries from starting threads while they are imported.
_NO_THREADS = {
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's jemalloc
    "ORT_DISABLE_TELEMETRY": "1",
}


def main() -> None:
    """Serve requests; in a forked process, run the program it was forked for."""
    if not sys.flags.safe_path:
        sys.path[0] = str(Path.cwd())  # as `python -m` sets it; it is this file's folder so far
    preload()
    serve(Connection(int(sys.argv[1])))


def serve(owner: Connection[Any, Any]) -> None:
    """Serve requests until the owner has exited; in a forked process, run its program.

    Neither returns.

    Args:
        owner: Connection to the process whose requests are served.
    """
    _run_program(**_Server(owner).serve())


def preload() -> None:
    """Import `PRELOADED_MODULES`, in a process that forks others and has a single thread."""
    gc.disable()
    before = dict(os.environ)
    os.environ.update(_NO_THREADS)
    for name in PRELOADED_MODULES:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    os.environ.clear()
    os.environ.update(before)
    gc.collect()
    # Forked processes share the server's memory until they write to it. The garbage collector
    # writes to every object that it tracks, so it must not track these.
    gc.freeze()
    # A first fork makes OpenBLAS (in numpy and cv2) end its threads; it starts them again on use.
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)


class _Server:
    """Answers the owner and the forked processes, and reports how each forked process ends."""

    def __init__(self, owner: Connection[Any, Any]) -> None:
        self._owner = owner
        self._clients = {owner}
        # A pidfd, which is readable once the process has ended -> pid, client, request id.
        self._forked: dict[int, tuple[int, Connection[Any, Any], int]] = {}
        # Client and request id -> connection to the forked process that waits to begin.
        self._waiting: dict[tuple[Connection[Any, Any], int], Connection[Any, Any]] = {}

    def serve(self) -> dict[str, Any]:
        """Serve until the owner has exited; the server's own process never returns.

        Returns:
            In a forked process, the arguments of `_run_program`.
        """
        ready: Any
        while True:
            for ready in wait([*self._clients, *self._forked]):
                if isinstance(ready, int):
                    self._report_exit(ready)
                    continue
                try:
                    kind, request_id, request = ready.recv()
                    descriptors = _receive_descriptors(ready, request.pop("descriptors", 0))
                except (EOFError, OSError):
                    self._disconnect(ready)
                    continue
                if kind == "go":
                    _send(self._waiting.pop((ready, request_id)), request["go"])
                elif self._fork(ready, request_id):
                    return {**request, "descriptors": descriptors}
                for descriptor in descriptors:
                    os.close(descriptor)

    def _fork(self, client: Connection[Any, Any], request_id: int) -> bool:
        """Fork a process, which waits for the client's permission to begin.

        Returns:
            Whether this is the forked process.
        """
        threads = len([*Path("/proc/self/task").iterdir()])
        if threads > 1:
            reason = f"it has {threads} threads; only a process with one can be forked safely"
            _send(client, ("refused", request_id, reason))
            return False
        server_end, child_end = Pipe()
        if child := os.fork():
            child_end.close()
            self._clients.add(server_end)
            self._waiting[client, request_id] = server_end
            self._forked[os.pidfd_open(child)] = (child, client, request_id)
            _send(client, ("forked", request_id, child))
            return False
        for connection in (server_end, *self._clients):
            connection.close()
        for descriptor in self._forked:
            os.close(descriptor)
        try:
            go = child_end.recv()
        except EOFError:
            go = False
        if not go:
            os._exit(0)
        # child_end closes its own descriptor when it is collected.
        descriptor = os.dup(child_end.fileno())
        os.environ[FORK_SERVER_VARIABLE] = f"{os.getpid()}:{descriptor}"
        return True

    def _report_exit(self, descriptor: int) -> None:
        child, client, request_id = self._forked.pop(descriptor)
        os.close(descriptor)
        _, status = os.waitpid(child, 0)
        _send(client, ("exited", request_id, os.waitstatus_to_exitcode(status)))

    def _disconnect(self, client: Connection[Any, Any]) -> None:
        if client is self._owner:
            os._exit(0)
        for waiting_client, request_id in [*self._waiting]:
            if waiting_client is client:
                _send(self._waiting.pop((waiting_client, request_id)), message=False)
        self._clients.discard(client)
        client.close()


def _send(client: Connection[Any, Any], message: object) -> None:
    with contextlib.suppress(OSError):  # the client has exited
        client.send(message)


def _receive_descriptors(client: Connection[Any, Any], count: int) -> list[int]:
    if not count:
        return []
    with socket.socket(fileno=os.dup(client.fileno())) as channel:
        return socket.recv_fds(channel, 1, count)[1]


def _run_program(
    module: str,
    arguments: list[str],
    environment: tuple[dict[str, str], str, list[str]] | None,
    descriptors: list[int],
) -> None:
    """Run a module as `python -m` does in a new interpreter, and end the process.

    Args:
        module: Name of the module.
        arguments: Command-line arguments.
        environment: Environment variables, working folder and `sys.path` of the program; None to
            keep the server's.
        descriptors: File descriptors for standard input, output and error; empty to keep the
            server's.
    """
    os.setsid()
    for descriptor, standard in zip(descriptors, (0, 1, 2), strict=False):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    if environment is not None:
        variables, folder, sys.path[:] = environment
        variables[FORK_SERVER_VARIABLE] = os.environ[FORK_SERVER_VARIABLE]
        os.environ.clear()
        os.environ.update(variables)
        os.chdir(folder)
    # Otherwise all forked processes draw the same random numbers. Python's `random` reseeds itself.
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    gc.enable()
    gc.set_threshold(_GC_THRESHOLD)
    sys.argv = [module, *arguments]
    exit_code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        exit_code = _exit_code(error)
    except BaseException:  # noqa: BLE001  (as the interpreter does: print the traceback, exit with 1)
        sys.excepthook(*sys.exc_info())
        exit_code = 1
    # Ends as multiprocessing's forked processes do: normal interpreter shutdown would tear down
    # every imported module (0.2 s).
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
    atexit._run_exitfuncs()  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(exit_code)


def _exit_code(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    print(error.code, file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    main()
