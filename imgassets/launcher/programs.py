"""A program whose standard input and output are ours, for work that may crash.

Here lives starting it: forked from the warm server where this process was, which takes a fiftieth
of the time, and as a fresh interpreter elsewhere. Either way it has the environment, the folder,
the standard error and `sys.path` of this process: the same modules, wherever a launcher found them.
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
# numpy's linear algebra, which no program here needs, starts threads that spin for 0.15 CPU s.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


class Program(Protocol):
    """A program that was started.

    Attributes:
        stdin: what it reads.
        stdout: what it writes.
    """

    stdin: BinaryIO
    stdout: BinaryIO

    def kill(self) -> None:
        """End it at once, if it is there."""

    def wait(self) -> int | None:
        """Wait for its end.

        Returns:
            Its exit code, the negative number of the signal that killed it, or nothing where that
            cannot be known.
        """


def start(module: str) -> Program:
    """Start `python -m MODULE`."""
    link = client.inherited()
    if link is not None:
        try:
            return _Forked(module, link)
        except client.ForkServerError as error:
            logging.getLogger(__name__).warning(f"{module} is started anew: {error}")
    return _Fresh(module)


class _Fresh:
    def __init__(self, module: str) -> None:
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(  # noqa: S603  (this interpreter, and a module of ours)
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**_ONE_THREAD, **os.environ, "PYTHONPATH": paths},
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("asked for above")
        self.stdin: BinaryIO = self._process.stdin  # type: ignore[assignment]
        self.stdout: BinaryIO = self._process.stdout  # type: ignore[assignment]

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int | None:
        return self._process.wait()


class _Forked:
    def __init__(self, module: str, link: client.Link) -> None:
        its_input, ours = os.pipe()
        self.stdin: BinaryIO = os.fdopen(ours, "wb")
        ours, its_output = os.pipe()
        self.stdout: BinaryIO = os.fdopen(ours, "rb")
        self._mark: Future[ProcessIdentity] = Future()
        self._status: Future[int | None] = Future()
        try:
            link.start(
                module,
                [],
                like_this=True,
                descriptors=(its_input, its_output, 2),
                ready=self._mark.set_result,
                ended=self._status.set_result,
            )
        except client.ForkServerError:
            self.stdin.close()
            self.stdout.close()
            raise
        finally:
            os.close(its_input)
            os.close(its_output)

    def kill(self) -> None:
        self._mark.result().send(signal.SIGKILL)

    def wait(self) -> int | None:
        status = self._status.result()
        while status is None and self._mark.result().lives:  # the server has gone before it
            time.sleep(_POLL_S)
        return status
