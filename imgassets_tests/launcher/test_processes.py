"""A process is identified even when its pid is reused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from imgassets.launcher.processes import ProcessIdentity


def test_a_process_with_a_reused_pid_is_a_different_process() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = ProcessIdentity.of(process.pid)
        assert identity is not None
        assert ProcessIdentity.from_json(identity.to_json()) == identity
        for other in (
            replace(identity, began=identity.began - 1),
            replace(identity, boot="another"),
        ):
            assert not other.is_alive
            assert not other.send_signal(signal.SIGKILL)
        assert process.poll() is None
        assert identity.is_alive
        assert identity.send_signal(signal.SIGKILL)
        # It becomes a zombie, because this process has not waited for it.
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert not identity.is_alive
    assert ProcessIdentity.of(process.pid) is None


def test_no_signal_is_sent_to_a_pid_that_no_process_has() -> None:
    own = ProcessIdentity.of(os.getpid())
    assert own is not None
    assert not replace(own, pid=1 << 22).send_signal(signal.SIGKILL)


@pytest.mark.parametrize("text", ["", "{}"])
def test_text_that_is_no_identity_is_an_error(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        ProcessIdentity.from_json(text)
