"""Resources: the settings, MongoDB, and IO managers for manifests and for values between ops.

They connect Dagster to the libraries; keep code that does the work there.
https://docs.dagster.io/guides/build/external-resources
"""

from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from imgassets.defs.metadata import read_manifest
from imgassets.defs.partitions import only_partition, partition_of
from imgassets.errors import SettingsError
from imgassets.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from imgassets.settings import RetailerSettings
    from imgassets.sources.listing import Source
    from imgassets.storage import PartitionFiles, Storage


class SettingsResource(dg.ConfigurableResource[Settings]):
    """The settings of the definitions; a run can override options in the launchpad.

    `build_defs` uses a subclass that is bound to its settings; see `settings_resource_class`.
    """

    overrides: dict[str, Any] = Field(
        default_factory=dict,
        description=(
            "options for this run only, in the same form as in config/imgassets.yaml, for example "
            "{download: {threads: 8}, trim: {method: none}}"
        ),
    )

    def base_settings(self) -> Settings:
        """The settings without overrides: the defaults, unless the class is bound to others."""
        return Settings()

    def load(self) -> Settings:
        """The settings with this run's overrides.

        Raises:
            dagster.Failure: an override is not valid; the message names it.
        """
        from imgassets.configuration import with_overrides

        if not self.overrides:
            return self.base_settings()
        try:
            return with_overrides(self.base_settings(), self.overrides)
        except SettingsError as error:
            raise dg.Failure(str(error), allow_retries=False) from None

    def storage(self) -> "Storage":
        """The storage of manifests and images, at `data_root` of the settings."""
        from imgassets.storage import open_storage

        return open_storage(self.load())


def settings_resource_class(settings: Settings) -> type[SettingsResource]:
    """Create a subclass of `SettingsResource` that is bound to settings.

    A subclass rather than an attribute: Dagster creates a new resource from the class and the run's
    config for each run. If the settings were config fields, the launchpad would list every option.

    Args:
        settings: the settings that `base_settings` of the subclass returns.
    """

    class BoundSettingsResource(SettingsResource):
        def base_settings(self) -> Settings:
            return settings

    return BoundSettingsResource


class MongoDBResource(dg.ConfigurableResource["MongoDBResource"]):
    """The MongoDB server whose address is in `MONGODB_URI`.

    The address is read from the environment when it is needed. It is not part of the resource's
    configuration, so that the password never appears in a run's config.
    """

    def address(self) -> str:
        """The address of the server, including user and password: never log it.

        Raises:
            SourceError: `MONGODB_URI` is not set.
        """
        from imgassets.sources.factory import mongodb_address

        return mongodb_address()

    def source(self, settings: Settings) -> "Source":
        """The source that `source.kind` selects; `MONGODB_URI` is read only for MongoDB.

        Raises:
            SourceError: the source cannot be opened.
        """
        from imgassets.sources.factory import open_source

        return open_source(settings, self.address)


class OpValueIOManager(dg.ConfigurableIOManagerFactory[dg.IOManager]):
    """Stores what the ops of a graph pass to each other below `data_root`, pickled.

    Dagster's default is a folder of the machine, where neither a step that another machine executes
    nor a retry of the run there finds them. `imgassets gc` deletes old ones.
    """

    settings: dg.ResourceDependency[SettingsResource]

    def create_io_manager(self, context: dg.InitResourceContext) -> dg.IOManager:
        """Create Dagster's IO manager for files, which fsspec also writes to object stores."""
        from imgassets.storage import OP_VALUES

        base_dir = self.settings.storage().address(OP_VALUES)
        return dg.FilesystemIOManager(base_dir=base_dir).create_io_manager(context)


class ManifestIOManager(dg.ConfigurableIOManager):
    """Loads the manifest of an upstream asset as a `pandas.DataFrame`.

    It writes nothing. The assets write their manifests themselves, atomically and as the last step,
    so that a run after a crash continues from what was done.
    """

    settings: dg.ResourceDependency[SettingsResource]

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Reject the returned value: assets write manifests with `imgassets.storage`.

        Raises:
            dagster.DagsterInvariantViolationError: always.
        """
        raise dg.DagsterInvariantViolationError(
            f"{context.asset_key.to_user_string()} returned a {type(obj).__name__}; "
            "write the manifest with imgassets.storage and return a MaterializeResult"
        )

    def load_input(self, context: dg.InputContext) -> "pd.DataFrame":
        """Read the manifest of the run's partition.

        Raises:
            dagster.Failure: the partition was never materialized, its manifest cannot be read, or
                the run has several partitions.
        """
        partition, asset = only_partition(context.asset_partition_keys), context.asset_key.path[-1]
        table = read_manifest(self.settings.storage(), asset, partition)
        manifest: pd.DataFrame = table.to_pandas(use_threads=False)
        return manifest


def partition_inputs(
    context: dg.AssetExecutionContext, settings: SettingsResource
) -> tuple["PartitionFiles", "RetailerSettings"]:
    """The files of the run's partition, and the settings of its retailer.

    Args:
        context: the context of an op or asset.
        settings: the settings of the run.
    """
    from imgassets.storage import open_storage

    partition, options = partition_of(context), settings.load()
    files = open_storage(options).partition(*partition)
    return files, options.for_retailer(partition.retailer)
