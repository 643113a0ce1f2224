"""Turn product documents (MongoDB, CSV, a Python function) into image datasets with Dagster.

    from imgassets import Settings, build_defs

    defs = build_defs(Settings(data_root="s3://my-bucket/images"), key_prefix="fashion")

or read what they wrote:

    images = read_manifest("processed_images", data_root="s3://my-bucket/images", outcome="ok")

Public names are imported on first use, so `import imgassets` alone imports neither Dagster nor
OpenCV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imgassets.defs.build import build_defs
    from imgassets.defs.component import CatalogueComponent
    from imgassets.errors import ImgassetsError
    from imgassets.reader import read_manifest
    from imgassets.settings import Settings

    __version__: str

__all__ = [
    "CatalogueComponent",
    "ImgassetsError",
    "Settings",
    "__version__",
    "build_defs",
    "read_manifest",
]

_MODULES = {
    "CatalogueComponent": "imgassets.defs.component",
    "ImgassetsError": "imgassets.errors",
    "Settings": "imgassets.settings",
    "build_defs": "imgassets.defs.build",
    "read_manifest": "imgassets.reader",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name == "__version__":
        from importlib.metadata import version

        return version("imgassets")
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """All names, including those not imported yet: `dg` finds components in this list."""
    return sorted({*globals(), *__all__})
