from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from imgassets.launcher import server as program
from imgassets.launcher.client import ForkServer
from imgassets.launcher.processes import ProcessIdentity

# The first program waits for all imports, beside other work on two cores.
PATIENCE = 120


class Started:
    """A program that a server was asked for."""

    def __init__(self, server: ForkServer, module: str, *arguments: str) -> None:
        self._over = threading.Event()
        self.status: int | None = None
        server.start(module, arguments, ready=self._note, ended=self._end)

    def _note(self, mark: ProcessIdentity) -> None:
        self.mark = mark

    def _end(self, status: int | None) -> None:
        self.status = status
        self._over.set()

    def wait(self) -> int | None:
        assert self._over.wait(PATIENCE)
        return self.status


def servers(owner: int | None = None) -> list[psutil.Process]:
    """The warm servers of a process."""
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
