"""Starts a Python program with pipes to its standard input and output, for work that may crash.

In a process that a fork server serves, the program is forked from that server, which takes a
fiftieth of the time; elsewhere it is a new interpreter. Either way it gets this process's
environment, working folder, standard error and `sys.path`, so that it imports the same modules.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from typing import BinaryIO, Protocol

from imgassets.launcher import client
from imgassets.launcher.processes import ProcessIdentity

_POLL_S = 0.05
# No program here needs numpy's linear algebra; its threads would spin for 0.15 CPU s at the start.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


class Program(Protocol):
    """A program that was started.

    Attributes:
        stdin: Pipe to the program's standard input.
        stdout: Pipe from the program's standard output.
    """

    stdin: BinaryIO
    stdout: BinaryIO

    def kill(self) -> None:
        """Send SIGKILL to the program if it is still running."""

    def wait(self) -> int | None:
        """Wait until the program has ended.

        Returns:
            Its exit code, or the negative number of the signal that killed it; None if the fork
            server ended first: the exit code is then unknown.
        """


def start(module: str) -> Program:
    """Start `python -m MODULE`.

    Args:
        module: Name of the module to run as `__main__`.

    Returns:
        The running program.
    """
    connection = client.inherited_connection()
    if connection is not None:
        try:
            return _ForkedProgram(module, connection)
        except client.ForkServerError as error:
            logging.getLogger(__name__).warning(
                f"{module} starts in a new interpreter, which takes longer: {error}"
            )
    return _SpawnedProgram(module)


class _SpawnedProgram:
    """A program in a new interpreter."""

    def __init__(self, module: str) -> None:
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(  # noqa: S603  (our interpreter, our module)
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**_ONE_THREAD, **os.environ, "PYTHONPATH": paths},
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("Popen did not open the pipes it was asked for")
        self.stdin: BinaryIO = self._process.stdin  # type: ignore[assignment]
        self.stdout: BinaryIO = self._process.stdout  # type: ignore[assignment]

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int | None:
        return self._process.wait()


class _ForkedProgram:
    """A program in a process that the fork server forks."""

    def __init__(self, module: str, connection: client.ServerConnection) -> None:
        child_stdin, our_end = os.pipe()
        self.stdin: BinaryIO = os.fdopen(our_end, "wb")
        our_end, child_stdout = os.pipe()
        self.stdout: BinaryIO = os.fdopen(our_end, "rb")
        self._identity: Future[ProcessIdentity] = Future()
        self._exit_code: Future[int | None] = Future()
        try:
            connection.start(
                module,
                [],
                copy_environment=True,
                descriptors=(child_stdin, child_stdout, 2),
                on_forked=self._identity.set_result,
                on_exit=self._exit_code.set_result,
            )
        except client.ForkServerError:
            self.stdin.close()
            self.stdout.close()
            raise
        finally:
            os.close(child_stdin)
            os.close(child_stdout)

    def kill(self) -> None:
        self._identity.result().send_signal(signal.SIGKILL)

    def wait(self) -> int | None:
        exit_code = self._exit_code.result()
        # The fork server ended first: poll for the end of the program.
        while exit_code is None and self._identity.result().is_alive:
            time.sleep(_POLL_S)
        return exit_code
