"""Dagster's storage in the Postgres that `DAGSTER_POSTGRES_URL` names.

Here lives how the address is read. When it is used is in `dagster_instance`. This module needs
`imgassets[postgres]`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from imgassets.dagster_instance import VARIABLE

try:
    from dagster_postgres import DagsterPostgresStorage
except ImportError:
    raise ImportError(
        f"{VARIABLE} is set, but the package for it is not installed: "
        "pip install 'imgassets[postgres]'"
    ) from None

from dagster._serdes import ConfigurableClassData


class PostgresStorage(DagsterPostgresStorage):
    """Dagster's own, whose address is read from the environment and is no configuration."""

    @classmethod
    def config_type(cls) -> Mapping[str, object]:
        """The options in `dagster.yaml`: none."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, object]
    ) -> PostgresStorage:
        """Open the storage."""
        del config_value
        return cls(postgres_url=postgres_url(os.environ[VARIABLE]), inst_data=inst_data)


def postgres_url(text: str) -> str:
    """The address for SQLAlchemy, which by itself would ask for another driver than is installed.

    Raises:
        ValueError: it is no address of a Postgres; does not repeat it, since it holds a password.
    """
    scheme, sign, rest = text.strip().partition("://")
    if not sign or scheme.partition("+")[0] not in ("postgres", "postgresql"):
        raise ValueError(f"{VARIABLE} should begin with postgresql://")
    return f"postgresql+psycopg2://{rest}"
