"""What assets are given from outside: the settings, MongoDB, the manifests of other assets.

Here live Dagster's handles on plain libraries, and nothing that those could do themselves.
https://docs.dagster.io/guides/build/external-resources
"""

from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from imgassets.configuration import load_settings, with_overrides
from imgassets.partitions import only_partition
from imgassets.settings import Settings, SettingsError

if TYPE_CHECKING:
    import pandas as pd

    from imgassets.sources.listing import Source
    from imgassets.storage import Storage


class SettingsResource(dg.ConfigurableResource[Settings]):
    """The options of this code location; a run may change some in the launchpad."""

    overrides: dict[str, Any] = Field(
        default_factory=dict,
        description=(
            "options changed for this run, as in config/default.yaml, for example "
            "{download: {threads: 8}, trim: {method: none}}"
        ),
    )

    def load(self) -> Settings:
        """The settings with this run's overrides.

        Raises:
            dagster.Failure: an override is wrong.
        """
        try:
            return with_overrides(load_settings(), self.overrides)
        except SettingsError as error:
            raise dg.Failure(str(error), allow_retries=False) from None

    def storage(self) -> "Storage":
        """Where manifests and pictures lie."""
        from imgassets.storage import open_storage

        return open_storage(self.load())


class MongoDBResource(dg.ConfigurableResource["MongoDBResource"]):
    """The MongoDB that `MONGODB_URI` names; where it is not set, the embedded one.

    The address is read from the environment when it is needed and is no configuration of the
    resource, so that it never stands in a run's config.
    """

    def address(self) -> str:
        """The address of a server; starts the embedded one if it is wanted and not running.

        Raises:
            EmbeddedMongoError: there is no `mongod` to start, or it does not start.
        """
        from imgassets.database import mongodb_address

        return mongodb_address()

    def source(self, settings: Settings) -> "Source":
        """The source that the settings name; asks for MongoDB only where it is one.

        Raises:
            SourceError: the source does not exist.
        """
        from imgassets.sources.opening import open_source

        return open_source(settings, self.address)


class ManifestIOManager(dg.ConfigurableIOManager):
    """Gives an asset's manifest to assets that depend on it, as a `pandas.DataFrame`.

    The assets write their manifests themselves, last and atomically, since a run that is killed
    must find what it had.
    """

    settings: dg.ResourceDependency[SettingsResource]

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Refuse values: there is one way to write a manifest."""
        raise dg.DagsterInvariantViolationError(
            f"{context.asset_key.to_user_string()} returned a {type(obj).__name__}; "
            "write the manifest with imgassets.storage and return a MaterializeResult"
        )

    def load_input(self, context: dg.InputContext) -> "pd.DataFrame":
        """The manifest of one partition.

        Raises:
            dagster.Failure: the partition was never materialized, its manifest is broken, or the
                run has several partitions.
        """
        from imgassets.storage import StorageError, read_table

        partition, asset = only_partition(context.asset_partition_keys), context.asset_key.path[-1]
        try:
            table = read_table(self.settings.storage().partition(asset, *partition))
        except FileNotFoundError:
            raise dg.Failure(
                f"{asset} of {partition.key} was never materialized; materialize it first",
                allow_retries=False,
            ) from None
        except StorageError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        manifest: pd.DataFrame = table.to_pandas()
        return manifest
