"""DAGSTER_HOME: the folder of the instance that our own commands use.

Here lives how that folder is found and made, so that nobody must do it by hand.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from imgassets.folders import home, project_root

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
    if ours.is_file() and not theirs.exists():
        # A link, so that a change of the project's file is a change of the instance.
        theirs.symlink_to(ours)
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
