"""Finds or creates DAGSTER_HOME, the folder of the Dagster instance, and opens the instance."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from imgassets.errors import SettingsError
from imgassets.folders import home, project_root
from imgassets.project import template

if TYPE_CHECKING:
    import dagster as dg

DAGSTER_HOME_VARIABLE = "DAGSTER_HOME"


def dagster_home(default: Path | None = None) -> Path:
    """The absolute path of the folder of the Dagster instance, which need not exist.

    Args:
        default: the folder if DAGSTER_HOME is not set; by default `.imgassets/dagster_home` of the
            project folder.
    """
    named = os.environ.get(DAGSTER_HOME_VARIABLE, "").strip()
    return Path(named or default or home() / "dagster_home").absolute()


def check_dagster_home() -> None:
    """Check that the folder of the Dagster instance exists.

    Raises:
        SettingsError: it does not, so the instance would be empty.
    """
    folder = dagster_home()
    if not folder.is_dir():
        raise SettingsError(
            f"{DAGSTER_HOME_VARIABLE}, {folder}, does not exist; set it to the folder of your "
            "Dagster instance, or run `imgassets sync`, which creates it"
        )


def prepare_dagster_home(default: Path | None = None) -> Path:
    """Create the folder and its `dagster.yaml`, and set DAGSTER_HOME for this process.

    An existing `dagster.yaml` is not changed; a link to a file that no longer exists is replaced.

    Args:
        default: see `dagster_home`.

    Returns:
        The absolute path of the folder.
    """
    folder = dagster_home(default)
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


def open_instance(*, create: bool = False) -> dg.DagsterInstance:
    """Open the Dagster instance in DAGSTER_HOME.

    A file lock keeps processes that start at the same time with an empty folder from creating the
    database tables concurrently.

    Args:
        create: whether to create the folder if it does not exist. Otherwise, a typo in DAGSTER_HOME
            would give an instance without runs.

    Raises:
        SettingsError: the folder does not exist.
    """
    import dagster as dg
    from filelock import FileLock

    if not create:
        check_dagster_home()
    folder = prepare_dagster_home()
    with FileLock(folder / ".imgassets.lock"):
        return dg.DagsterInstance.get()
