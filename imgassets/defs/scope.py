"""Settings, names and partitions that all definitions of one `build_defs` call share.

A code location can contain several sets of definitions. Dagster requires the names of ops, jobs,
sensors and resources to be unique in it, so this module derives every name from the key prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import dagster as dg

from imgassets.folders import resolve_data_root

if TYPE_CHECKING:
    from imgassets.defs.resources import MongoDBResource, SettingsResource
    from imgassets.settings import Period, Settings

# Resource keys are global in a code location, and many locations have a resource `settings`.
_RESOURCE_PREFIX = "imgassets"

ASSETS = (
    "product_documents",
    "url_list",
    "face_model",
    "raw_images",
    "processed_images",
    "daily_report",
    "retailer_report",
)
"""Names of the assets, in the order of the data flow."""


@dataclass(frozen=True)
class Scope:
    """Settings, names and partitions that the definitions of one `build_defs` call share.

    Attributes:
        settings: the options that the definitions are built from.
        key_prefix: prefix of the asset keys and of all other names.
        partitions: the partitions of the assets, date x retailer.

    Raises:
        ValueError: `partitions` has no dynamic dimension `retailer`, or its dates are not those of
            `settings.partitions.period`.
    """

    settings: Settings
    key_prefix: tuple[str, ...]
    partitions: dg.MultiPartitionsDefinition

    def __post_init__(self) -> None:
        """Check the partitions."""
        retailers_name(self.partitions)
        _check_dates(self.partitions, self.settings.partitions.period)

    def key(self, asset: str) -> dg.AssetKey:
        """The key of an asset: the key prefix and the name."""
        return dg.AssetKey([*self.key_prefix, asset])

    def owns(self, key: dg.AssetKey) -> bool:
        """Whether an asset key belongs to these definitions."""
        return any(key == self.key(asset) for asset in ASSETS)

    def name(self, name: str) -> str:
        """The name of an op, job, schedule or sensor: key prefix and name, joined by `_`."""
        return "_".join([*self.key_prefix, name])

    def uri(self, asset: str) -> dict[str, str]:
        """The folder of an asset's manifests, under the metadata key that Dagster reserves."""
        return {"dagster/uri": f"{resolve_data_root(self.settings.data_root)}/manifests/{asset}"}

    def resource_key(self, resource: str) -> str:
        """The key of a resource: `imgassets_settings`, or `eu_imgassets_settings` with a prefix."""
        return self.name(f"{_RESOURCE_PREFIX}_{resource}")

    @property
    def retailers(self) -> str:
        """The name of the retailers' dynamic partitions in the Dagster instance."""
        return retailers_name(self.partitions)

    def settings_resource(self, context: Any) -> SettingsResource:
        """The settings resource of a run.

        Args:
            context: the context of an asset, op or check that requires this resource.
        """
        resource = getattr(context.resources, self.resource_key("settings"))
        return cast("SettingsResource", resource)

    def mongodb_resource(self, context: Any) -> MongoDBResource:
        """The MongoDB resource of a run or sensor tick.

        Args:
            context: the context of an asset, op, check or sensor that requires this resource.
        """
        return cast("MongoDBResource", getattr(context.resources, self.resource_key("mongodb")))

    def resource_keys(self, *resources: str) -> set[str]:
        """The keys of several resources, for `required_resource_keys`."""
        return {self.resource_key(resource) for resource in resources}

    def registered_retailers(self, instance: dg.DagsterInstance) -> Sequence[str]:
        """The slugs of the retailers that are registered in the Dagster instance."""
        return instance.get_dynamic_partitions(self.retailers)


def retailers_name(partitions: dg.MultiPartitionsDefinition) -> str:
    """The name of the dynamic partitions of the dimension `retailer`.

    Raises:
        ValueError: there is no dimension `retailer`, or it is not dynamic.
    """
    for dimension in partitions.partitions_defs:
        definition = dimension.partitions_def
        if dimension.name == "retailer" and isinstance(definition, dg.DynamicPartitionsDefinition):
            return str(definition.name)
    raise ValueError(
        "partitions must be a MultiPartitionsDefinition with the dimensions date (daily) and "
        "retailer (a DynamicPartitionsDefinition with a name)"
    )


_DATES: dict[Period, type[dg.TimeWindowPartitionsDefinition]] = {
    "day": dg.DailyPartitionsDefinition,
    "week": dg.WeeklyPartitionsDefinition,
    "month": dg.MonthlyPartitionsDefinition,
}


def _check_dates(partitions: dg.MultiPartitionsDefinition, period: Period) -> None:
    """Refuse partitions of another period than that of the settings, which sources and reports use.

    Raises:
        ValueError: the dimension `date` is daily, weekly or monthly, unlike the settings.
    """
    date = partitions.get_partitions_def_for_dimension("date")
    wrong = [name for name, type_ in _DATES.items() if name != period and isinstance(date, type_)]
    if wrong:
        raise ValueError(
            f"a date of the partitions is a {wrong[0]}, but partitions.period is {period}; set it "
            f"to {wrong[0]}"
        )
