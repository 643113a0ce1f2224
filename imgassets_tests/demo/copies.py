"""Run commands in a copy of the project without any state, as after a fresh checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imgassets.folders import project_root


@contextmanager
def project_copy(folder: Path) -> Iterator[Path]:
    """Copy the project; at the end, stop its database and remove the copy."""
    for name in ("imgassets", "config"):
        shutil.copytree(project_root() / name, folder / name)
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(project_root() / name, folder / name)
    try:
        yield folder
    finally:
        imgassets(folder, "db", "stop")
        shutil.rmtree(folder)


def environment() -> dict[str, str]:
    """The environment of this process without the variables that configure imgassets or Dagster."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("IMGASSETS", "DAGSTER"))}
    # The demo must not use the user's own database: nothing listens at this address.
    return {**clean, "COLUMNS": "120", "MONGODB_URI": "mongodb://127.0.0.1:9/"}


def imgassets(folder: Path, *arguments: str) -> str:
    """Run `imgassets` in the copy; the working folder comes first on the import path."""
    done = subprocess.run(
        [sys.executable, "-m", "imgassets.cli", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
