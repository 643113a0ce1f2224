"""The project's own definitions, built from the settings as they are now."""

from __future__ import annotations

import dagster as dg

from imgassets.configuration import load_settings
from imgassets.defs.build import build_defs
from imgassets.defs.partitions import catalogue_partitions
from imgassets.defs.scope import Scope


def project_defs() -> dg.Definitions:
    """What `imgassets.definitions` builds when it is imported."""
    return build_defs(load_settings(), executor=dg.in_process_executor)


def project_scope() -> Scope:
    """The names and partitions of these definitions."""
    settings = load_settings()
    return Scope(
        settings, (), catalogue_partitions(settings.start_date, settings.partitions.period)
    )
