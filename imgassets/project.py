"""The files of a project folder: writes them for `imgassets init`, and finds them as templates.

A project folder holds `config/imgassets.yaml`, `workspace.yaml`, `dagster.yaml` and `.env.example`.
What they mean is in `configuration` and in Dagster.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imgassets.folders import project_root

_TEMPLATES = Path(__file__).with_name("templates")
_IGNORED = ".imgassets/\n.env\n"


@dataclass(frozen=True)
class Written:
    """A file of a project folder.

    Attributes:
        path: of the file.
        new: whether it was written now; an existing file is left as it is.
    """

    path: Path
    new: bool


def template(name: str) -> str:
    """The text of a template.

    `dagster.yaml` and `workspace.yaml` are the project's own: a wheel carries copies of them.
    """
    packaged = _TEMPLATES / name
    return (packaged if packaged.is_file() else project_root() / name).read_text("utf-8")


def instance_yaml(*, postgres: bool) -> str:
    """The text of `dagster.yaml`, for SQLite files or for Postgres."""
    return template("dagster.yaml") + (template("postgres.yaml") if postgres else "")


def write_project(folder: Path, *, postgres: bool) -> Iterator[Written]:
    """Write the files of a project folder; a file that exists is left as it is.

    Args:
        folder: need not exist.
        postgres: whether Dagster keeps its runs and events in Postgres.
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
        new = not path.exists()
        if new:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        yield Written(path, new)
