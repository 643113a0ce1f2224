"""Finds or creates DAGSTER_HOME, the folder of the Dagster instance, and opens the instance."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from imgassets.folders import home, project_root
from imgassets.project import template

if TYPE_CHECKING:
    import dagster as dg

DAGSTER_HOME_VARIABLE = "DAGSTER_HOME"


def prepare_dagster_home(default: Path | None = None) -> Path:
    """Create the folder and its `dagster.yaml`, and set DAGSTER_HOME for this process.

    An existing `dagster.yaml` is not changed; a link to a file that no longer exists is replaced.

    Args:
        default: the folder to use if DAGSTER_HOME is not set; by default `.imgassets/dagster_home`
            of the project folder.

    Returns:
        The absolute path of the folder.
    """
    named = os.environ.get(DAGSTER_HOME_VARIABLE, "").strip()
    folder = Path(named or default or home() / "dagster_home").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    project_file, instance_file = project_root() / "dagster.yaml", folder / "dagster.yaml"
    if not instance_file.exists():
        instance_file.unlink(missing_ok=True)  # after a move of the project folder, it dangles
        if project_file.is_file():
            # A link, so that changes to the project's file apply to the instance.
            instance_file.symlink_to(project_file)
        else:
            instance_file.write_text(template("dagster.yaml"), "utf-8")
    os.environ[DAGSTER_HOME_VARIABLE] = str(folder)
    return folder


def open_instance() -> dg.DagsterInstance:
    """Open the Dagster instance in DAGSTER_HOME.

    A file lock keeps processes that start at the same time with an empty folder from creating the
    database tables concurrently.
    """
    import dagster as dg
    from filelock import FileLock

    folder = prepare_dagster_home()
    with FileLock(folder / ".imgassets.lock"):
        return dg.DagsterInstance.get()
