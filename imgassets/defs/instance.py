"""DAGSTER_HOME: finds and creates the folder of the Dagster instance that our commands use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from imgassets.folders import home, project_root
from imgassets.project import template

if TYPE_CHECKING:
    import dagster as dg

VARIABLE = "DAGSTER_HOME"


def prepare_dagster_home(default: Path | None = None) -> Path:
    """Make DAGSTER_HOME usable, and set the variable for this process and its children.

    Args:
        default: the folder where the variable is not set; by default `.imgassets/dagster_home`.

    Returns:
        The absolute path. A `dagster.yaml` that is there already stays as it is.
    """
    named = os.environ.get(VARIABLE, "").strip()
    folder = Path(named or default or home() / "dagster_home").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    ours, theirs = project_root() / "dagster.yaml", folder / "dagster.yaml"
    if not theirs.exists():
        if ours.is_file():
            # A link, so that a change of the project's file is a change of the instance.
            theirs.symlink_to(ours)
        else:
            theirs.write_text(template("dagster.yaml"), "utf-8")
    os.environ[VARIABLE] = str(folder)
    return folder


def open_instance() -> dg.DagsterInstance:
    """The persistent instance of DAGSTER_HOME.

    Several processes that meet an empty home at once would otherwise race to make its tables.
    """
    import dagster as dg
    from filelock import FileLock

    folder = prepare_dagster_home()
    with FileLock(folder / ".imgassets.lock"):
        return dg.DagsterInstance.get()
