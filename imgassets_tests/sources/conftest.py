from __future__ import annotations

import time
from collections.abc import Iterator

import pytest


@pytest.fixture(params=["Pacific/Kiritimati", "Etc/GMT+12"])
def time_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A local time of this process 14 hours ahead of UTC, and one 12 hours behind.

    At any moment, one of the two has another day than UTC.
    """
    name = str(request.param)
    with monkeypatch.context() as patched:
        patched.setenv("TZ", name)
        time.tzset()
        yield name
    time.tzset()
