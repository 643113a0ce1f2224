"""Identifies a process on this machine, so that a reused pid is not mistaken for it.

A container that is replaced reuses the pids of the old one within seconds. Works on Linux only;
elsewhere no process is forked, and so none is identified.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A pid together with what distinguishes its process from later ones with the same pid.

    Attributes:
        pid: Process id.
        began: Start time of the process, in clock ticks since the machine booted.
        boot: Kernel's boot id, a new one each time the machine boots.
    """

    pid: int
    began: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """Return the identity of the process that has this pid now.

        Returns:
            The identity, or None if there is no such process or it is a zombie.
        """
        try:
            # The second field is the program's name in brackets, which may contain any character.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = _BOOT_ID.read_text().strip()
        except OSError:
            return None
        state, began = fields[0], int(fields[19])
        return None if state in "ZX" else cls(pid, began, boot)

    @property
    def is_alive(self) -> bool:
        """Whether this process, not another with its pid, is running; a zombie is not."""
        return self == ProcessIdentity.of(self.pid)

    def send_signal(self, signal_number: signal.Signals) -> bool:
        """Send a signal to this process, never to another that has got its pid.

        Args:
            signal_number: Signal to send.

        Returns:
            Whether the process was running and got the signal.
        """
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            # The descriptor keeps referring to one process, even if the pid is reused from here on.
            if not self.is_alive:
                return False
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal_number)
                return True
            return False
        finally:
            os.close(descriptor)

    def to_json(self) -> str:
        """Return the identity as JSON text, for `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ProcessIdentity:
        """Return the identity that `to_json` wrote."""
        return cls(**json.loads(text))
