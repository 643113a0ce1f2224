"""Starts the RabbitMQ server of Debian's package `rabbitmq-server` on a port of 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from imgassets.folders import project_root
from imgassets_tests.machines.cluster import cpu_s

# The script behind the package's wrapper, which starts the server of the machine as another user.
PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_TIMEOUT_S = 60
_CONFIGURATION = "deploy/celery/rabbitmq.conf"


def is_installed() -> bool:
    """Return whether RabbitMQ and Erlang are installed."""
    return PROGRAM.is_file() and shutil.which("erl") is not None


class RabbitMQ:
    """A server with the configuration of `deploy/celery`, without a password.

    Attributes:
        folder: Folder of its data, log and configuration.
        port: TCP port of AMQP on 127.0.0.1.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self._erlang_port = _free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        (folder / "enabled_plugins").write_text("[].")
        (folder / "rabbitmq.conf").write_text(
            (project_root() / _CONFIGURATION).read_text()
            + f"listeners.tcp.local = 127.0.0.1:{self.port}\n"
            "distribution.listener.interface = 127.0.0.1\n"
            "disk_free_limit.absolute = 50MB\n"
        )

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def cpu_s(self) -> float:
        """Return the CPU seconds that the server has used."""
        return 0.0 if self._process is None else cpu_s(self._process.pid)

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        environment = {
            **os.environ,
            "HOME": str(self.folder),
            "RABBITMQ_BASE": str(self.folder),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_DIST_PORT": str(self._erlang_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_NODENAME": f"imgassets-{self.port}@localhost",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        with (self.folder / "output.log").open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM],
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _TIMEOUT_S
        while not self._accepts():
            output = (self.folder / "output.log").read_text()
            assert self._process.poll() is None, output
            assert time.monotonic() < deadline, output
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop the server; messages and queues are kept."""
        if self._process is None:
            return
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(_TIMEOUT_S)
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None

    def _accepts(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
