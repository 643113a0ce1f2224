"""Write the files of a project folder (`imgassets init`) from templates.

A project folder contains `config/imgassets.yaml`, `workspace.yaml`, `dagster.yaml`, `.env.example`
and `.gitignore`. `configuration` reads the settings; Dagster reads the other two YAML files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imgassets.folders import project_root

_TEMPLATES = Path(__file__).with_name("templates")
_IGNORED = ".imgassets/\n.env\n"


@dataclass(frozen=True)
class ProjectFile:
    """A file of a project folder.

    Attributes:
        path: The path of the file.
        created: `True` if the file was written now, `False` if it existed and was kept.
    """

    path: Path
    created: bool


def template(name: str) -> str:
    """Read a template.

    The templates `dagster.yaml` and `workspace.yaml` are the files in the root of the repository;
    the wheel contains copies of them.

    Args:
        name: The file name of the template.
    """
    packaged = _TEMPLATES / name
    return (packaged if packaged.is_file() else project_root() / name).read_text("utf-8")


def instance_yaml(*, postgres: bool) -> str:
    """The text of `dagster.yaml`.

    Args:
        postgres: Whether Dagster stores runs and events in Postgres instead of SQLite files.
    """
    return template("dagster.yaml") + (template("postgres.yaml") if postgres else "")


def write_project(folder: Path, *, postgres: bool) -> Iterator[ProjectFile]:
    """Write the files of a project folder; existing files are kept.

    Args:
        folder: The project folder; it is created if it does not exist.
        postgres: Whether Dagster stores runs and events in Postgres instead of SQLite files.

    Yields:
        Each file of the project folder, after it was written or kept.
    """
    texts = {
        "config/imgassets.yaml": template("imgassets.yaml"),
        "workspace.yaml": template("workspace.yaml"),
        "dagster.yaml": instance_yaml(postgres=postgres),
        ".env.example": template("env.example"),
        ".gitignore": _IGNORED,
    }
    for name, text in texts.items():
        path = folder / name
        created = not path.exists()
        if created:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        yield ProjectFile(path, created)
