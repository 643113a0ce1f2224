from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from imgassets.launcher import server as program
from imgassets.launcher.client import ForkServer
from imgassets.launcher.processes import ProcessIdentity

# Seconds. The first program waits for all imports, on a machine with two busy cores.
TIMEOUT_S = 120


class Started:
    """A program that a fork server was asked to start."""

    def __init__(self, server: ForkServer, module: str, *arguments: str) -> None:
        self._exited = threading.Event()
        self.exit_code: int | None = None
        server.start(module, arguments, on_forked=self._record, on_exit=self._end)

    def _record(self, process: ProcessIdentity) -> None:
        self.process = process

    def _end(self, exit_code: int | None) -> None:
        self.exit_code = exit_code
        self._exited.set()

    def wait(self) -> int | None:
        assert self._exited.wait(TIMEOUT_S)
        return self.exit_code


def servers(owner: int | None = None) -> list[psutil.Process]:
    """Return the fork servers that a process owns; this process by default."""
    found = []
    for child in psutil.Process(owner).children():
        with suppress(psutil.Error):  # it has just ended
            if program.__file__ in child.cmdline():
                found.append(child)
    return found


@pytest.fixture
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()
