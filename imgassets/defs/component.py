"""The Dagster component `imgassets.CatalogueComponent`: `build_defs` configured in YAML.

https://docs.dagster.io/guides/build/components
"""

from __future__ import annotations

from typing import Any

import dagster as dg
from pydantic import Field


class CatalogueComponent(dg.Component, dg.Model, dg.Resolvable):
    """Turns product documents into image datasets: assets, checks, jobs, schedules and sensors.

    ```yaml
    type: imgassets.CatalogueComponent
    attributes:
      key_prefix: fashion
      settings:
        data_root: s3://my-bucket/images
        source: {database: catalogue, collection: products}
    ```

    The address of MongoDB is a secret; it is read from the environment variable `MONGODB_URI`.

    Attributes:
        settings: options by section and name, as in `config/imgassets.yaml`.
        key_prefix: prefix of the asset keys and of all other names; see `imgassets.build_defs`.
    """

    settings: dict[str, Any] = Field(
        default_factory=dict, description="options; see the settings reference of imgassets"
    )
    key_prefix: str | list[str] = Field(
        default_factory=list,
        description="prefix of asset keys, and of the names of jobs, sensors and resources",
    )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the definitions; see `imgassets.build_defs`.

        Raises:
            SettingsError: an option is unknown, has the wrong type or is out of range.
        """
        del context
        from imgassets.configuration import validate_settings
        from imgassets.defs.build import build_defs

        settings = validate_settings(self.settings, [("settings", self.settings)])
        return build_defs(settings, key_prefix=self.key_prefix)
