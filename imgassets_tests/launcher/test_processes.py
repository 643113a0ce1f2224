"""Which process is which."""

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


def test_a_process_that_has_a_number_that_another_had_is_another() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        mark = ProcessIdentity.of(process.pid)
        assert mark is not None
        assert ProcessIdentity.load(mark.dump()) == mark
        for other in (replace(mark, began=mark.began - 1), replace(mark, boot="another")):
            assert not other.lives
            assert not other.send(signal.SIGKILL)
        assert process.poll() is None
        assert mark.lives
        assert mark.send(signal.SIGKILL)
        # It has ended, and is not collected.
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert not mark.lives
    assert ProcessIdentity.of(process.pid) is None


def test_a_signal_to_a_number_that_nobody_has_goes_nowhere() -> None:
    own = ProcessIdentity.of(os.getpid())
    assert own is not None
    assert not replace(own, pid=1 << 22).send(signal.SIGKILL)


@pytest.mark.parametrize("text", ["", "{}"])
def test_what_is_no_mark_is_an_error(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        ProcessIdentity.load(text)
