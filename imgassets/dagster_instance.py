"""Where Dagster keeps runs, events and schedules: SQLite in DAGSTER_HOME, or Postgres.

Here lives the choice, which an environment variable makes, so that every process that opens the
instance (webserver, daemon, runs, command line) makes the same one, and the address with its
password stands in no file and on no command line. `dagster.yaml` names the class.
https://docs.dagster.io/deployment/oss/oss-instance-configuration
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster._serdes import ConfigurableClassData

VARIABLE = "DAGSTER_POSTGRES_URL"


class Instance(dg.DagsterInstance):
    """Dagster's own instance, which is kept in Postgres where `DAGSTER_POSTGRES_URL` is set."""

    @staticmethod
    def config_schema() -> Mapping[str, Any]:
        """Options that this class adds to `dagster.yaml`: none."""
        return {}

    @staticmethod
    def config_defaults(base_dir: str) -> Mapping[str, ConfigurableClassData | None]:
        """What holds for all that `dagster.yaml` does not name."""
        defaults = dict(InstanceRef.config_defaults(base_dir))
        if os.environ.get(VARIABLE, "").strip():
            storage = "imgassets.postgres_storage", "PostgresStorage", "{}\n"
        else:
            files = yaml.safe_dump({"base_dir": base_dir})
            storage = "imgassets.sqlite_storage", "SqliteStorage", files
        defaults["storage"] = ConfigurableClassData(*storage)
        return defaults
