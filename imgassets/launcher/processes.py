"""A process of this machine that can be told from all others, also after it has gone.

Here lives knowing one again: numbers are used anew, in a container that is replaced within seconds.
Linux alone tells enough; elsewhere nothing is started in this way.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """What no other process has.

    Attributes:
        pid: its number.
        began: when it began, in the system's ticks since the machine's start.
        boot: the id of that start.
    """

    pid: int
    began: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The mark of a process; nothing where there is none, or where it has ended."""
        try:
            # The name of the program, in brackets, may have any character in it.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = _BOOT.read_text().strip()
        except OSError:
            return None
        state, began = fields[0], int(fields[19])
        return None if state in "ZX" else cls(pid, began, boot)

    @property
    def lives(self) -> bool:
        """Whether this very process is there; not one that has ended and waits for its parent."""
        return self == ProcessIdentity.of(self.pid)

    def send(self, signal_number: signal.Signals) -> bool:
        """Send a signal to this process, and to none that has taken its number.

        Returns:
            Whether it was there to get it.
        """
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            # From here on the descriptor stands for one process, whichever number it has.
            if not self.lives:
                return False
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal_number)
                return True
            return False
        finally:
            os.close(descriptor)

    def dump(self) -> str:
        """As text, for `load`."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> ProcessIdentity:
        """The mark that `dump` wrote."""
        return cls(**json.loads(text))
