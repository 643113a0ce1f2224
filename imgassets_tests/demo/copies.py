"""A copy of the project with no state at all, as a newcomer has it."""

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
    """The copy; what runs in it is stopped, and it is removed, at the end."""
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
    """This process's, with nothing in it that would change what a newcomer sees."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("IMGASSETS", "DAGSTER"))}
    # A database of the user's own must not be touched by the demo.
    return {**own, "COLUMNS": "120", "MONGODB_URI": "mongodb://127.0.0.1:9/"}


def imgassets(folder: Path, *arguments: str) -> str:
    """Run our command from the copy, whose package comes first where it is the working folder."""
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
