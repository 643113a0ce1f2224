"""Paths of the project folder and its subfolders.

The layout of manifests and images below `data_root` is in `storage`.
"""

from __future__ import annotations

from pathlib import Path


def project_root() -> Path:
    """The folder that relative paths in the settings are relative to.

    In a checkout it is the checkout's root, so that every shell and Dagster process uses the same
    files. With an installed package it is the current working directory.
    """
    return checkout() or Path.cwd()


def checkout() -> Path | None:
    """The root of the checkout that this package is imported from; None if it is installed."""
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "config" / "default.yaml").is_file() else None


def resolve_data_root(data_root: str) -> str:
    """The absolute path, or the address, of a data root.

    Args:
        data_root: A folder, relative to the project folder or absolute, or an fsspec address.
    """
    root = data_root.removeprefix("file://").rstrip("/")
    return root if "://" in root else str(project_root() / root)


def home() -> Path:
    """The folder for data, models, DAGSTER_HOME and the embedded database; git ignores it."""
    return project_root() / ".imgassets"


def models_folder() -> Path:
    """The folder for the face detectors' files, shared by all runs on this machine."""
    return home() / "models"
