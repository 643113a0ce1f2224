"""Resources: the settings, MongoDB, and the manifests of other assets.

They only connect Dagster to the plain libraries.
https://docs.dagster.io/guides/build/external-resources
"""

from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from imgassets.defs.partitions import only_partition
from imgassets.settings import Settings, SettingsError

if TYPE_CHECKING:
    import pandas as pd

    from imgassets.sources.listing import Source
    from imgassets.storage import Storage


class SettingsResource(dg.ConfigurableResource[Settings]):
    """The options of these definitions; a run may override some in the launchpad.

    `build_defs` binds it to its settings: see `bound_to`.
    """

    overrides: dict[str, Any] = Field(
        default_factory=dict,
        description=(
            "options changed for this run, as in config/default.yaml, for example "
            "{download: {threads: 8}, trim: {method: none}}"
        ),
    )

    def base(self) -> Settings:
        """The settings without overrides: all defaults, unless the class is bound to others."""
        return Settings()

    def load(self) -> Settings:
        """The settings with this run's overrides.

        Raises:
            dagster.Failure: an override is wrong.
        """
        from imgassets.configuration import with_overrides

        if not self.overrides:
            return self.base()
        try:
            return with_overrides(self.base(), self.overrides)
        except SettingsError as error:
            raise dg.Failure(str(error), allow_retries=False) from None

    def storage(self) -> "Storage":
        """The storage of manifests and images."""
        from imgassets.storage import open_storage

        return open_storage(self.load())


def bound_to(settings: Settings) -> type[SettingsResource]:
    """A settings resource whose base is a `Settings` object.

    A subclass, because Dagster makes a new object from the class and the run's config for each run,
    and because settings as config would fill the launchpad with every option.
    """

    class BoundSettingsResource(SettingsResource):
        def base(self) -> Settings:
            return settings

    return BoundSettingsResource


class MongoDBResource(dg.ConfigurableResource["MongoDBResource"]):
    """The MongoDB whose address is in `MONGODB_URI`.

    The address is read from the environment when it is needed and is not part of the resource's
    configuration, so that it never appears in a run's config.
    """

    def address(self) -> str:
        """The address of the server.

        Raises:
            SourceError: `MONGODB_URI` is not set.
        """
        from imgassets.sources.opening import mongodb_address

        return mongodb_address()

    def source(self, settings: Settings) -> "Source":
        """The source that the settings name; reads the address only where it is MongoDB.

        Raises:
            SourceError: the source does not exist.
        """
        from imgassets.sources.opening import open_source

        return open_source(settings, self.address)


class ManifestIOManager(dg.ConfigurableIOManager):
    """Gives an asset's manifest to assets that depend on it, as a `pandas.DataFrame`.

    The assets write their manifests themselves, last and atomically: a run that continues after a
    kill must find what the killed one had done.
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
