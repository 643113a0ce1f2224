"""Where this checkout, its data and its models lie; what is kept in them is elsewhere."""

from __future__ import annotations

from pathlib import Path


def project_root() -> Path:
    """The folder that relative paths of the settings start from.

    It is the checkout that this package lies in, so that every shell and every Dagster process
    means the same files; the working directory where the package is installed without one.
    """
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "config" / "default.yaml").is_file() else Path.cwd()


def home() -> Path:
    """The ignored folder of data, models, DAGSTER_HOME and the embedded database."""
    return project_root() / ".imgassets"


def models_folder() -> Path:
    """Where face detectors' files are kept; every run on this machine shares them."""
    return home() / "models"
