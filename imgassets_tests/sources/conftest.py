from __future__ import annotations

import time
from collections.abc import Iterator

import pytest


@pytest.fixture(params=["Pacific/Kiritimati", "Etc/GMT+12"])
def time_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Sets the local time zone of this process: 14 hours ahead of UTC, and 12 hours behind.

    At any time, the local day in one of the two differs from the day in UTC.
    """
    name = str(request.param)
    with monkeypatch.context() as patched:
        patched.setenv("TZ", name)
        time.tzset()
        yield name
    time.tzset()
