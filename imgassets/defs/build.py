"""Builds all definitions from a `Settings` object.

Add new assets, checks, jobs, schedules and sensors here. Building definitions accesses no network,
database or file, and imports no heavy library, because every run builds them when it starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from imgassets.defs.assets.face_model import build_face_model
from imgassets.defs.assets.processed_images import build_processed_images
from imgassets.defs.assets.raw_images import build_raw_images
from imgassets.defs.assets.url_list import build_url_list
from imgassets.defs.checks import build_checks
from imgassets.defs.freshness import build_freshness_check, build_product_documents
from imgassets.defs.jobs import build_jobs
from imgassets.defs.partitions import RETAILERS, catalogue_partitions
from imgassets.defs.reports import (
    build_daily_report,
    build_report_checks,
    build_retailer_report,
)
from imgassets.defs.resources import (
    ManifestIOManager,
    MongoDBResource,
    OpValueIOManager,
    SettingsResource,
    settings_resource_class,
)
from imgassets.defs.schedules import build_schedules
from imgassets.defs.scope import Scope
from imgassets.defs.sensors import (
    build_failed_checks_sensor,
    build_failed_runs_sensor,
    build_new_documents_sensor,
)
from imgassets.errors import SettingsError
from imgassets.imports import import_object
from imgassets.settings import Settings

_RESOURCES = ("settings", "mongodb", "manifests", "op_values")


def build_defs(
    settings: Settings,
    *,
    key_prefix: str | Sequence[str] = (),
    partitions: dg.MultiPartitionsDefinition | None = None,
    resources: Mapping[str, Any] | None = None,
    executor: dg.ExecutorDefinition | None = None,
) -> dg.Definitions:
    """Build the assets, checks, jobs, schedules, sensors and resources of one catalogue.

    The result can be merged with other definitions (`dagster.Definitions.merge`), including those
    of another call with a different prefix.

    Args:
        settings: the options; see `imgassets.Settings`.
        key_prefix: prefix of the asset keys and of the names of ops, jobs, schedules, sensors,
            resources and the retailers' dynamic partitions.
        partitions: partitions with the dimensions `date` (daily, or as
            `settings.partitions.period` says) and `retailer` (dynamic); by default they start at
            `settings.start_date`.
        resources: resources that replace the default ones, by name: `settings`, `mongodb`,
            `manifests` or `op_values`. Resources that depend on a replaced one are built from the
            replacement.
        executor: the executor of the jobs; by default `settings.executor`, or the executor of the
            code location if that is not set.

    Returns:
        The definitions of the catalogue.

    Raises:
        ValueError: a name in `resources` is unknown, or `partitions` has other dimensions.
        SettingsError: `settings.executor` cannot be imported, or rejects its configuration.
    """
    prefix = (key_prefix,) if isinstance(key_prefix, str) else tuple(key_prefix)
    retailers = "_".join([*prefix, RETAILERS])
    scope = Scope(
        settings,
        prefix,
        partitions
        or catalogue_partitions(settings.start_date, settings.partitions.period, retailers),
    )
    freshness_check = build_freshness_check(scope)
    jobs = build_jobs(scope, freshness_check)
    return dg.Definitions(
        assets=[
            build_product_documents(scope),
            build_url_list(scope),
            build_face_model(scope),
            build_raw_images(scope),
            build_processed_images(scope),
            build_daily_report(scope),
            build_retailer_report(scope),
        ],
        asset_checks=[*build_checks(scope), freshness_check, build_report_checks(scope)],
        jobs=[jobs.catalogue, jobs.retry_failed, jobs.freshness, jobs.daily_report],
        schedules=build_schedules(scope, jobs),
        sensors=[
            build_new_documents_sensor(scope, jobs),
            build_failed_runs_sensor(scope, jobs),
            build_failed_checks_sensor(scope, jobs),
        ],
        resources=_resources(scope, resources or {}),
        executor=executor or _executor(settings),
    )


def _executor(settings: Settings) -> dg.ExecutorDefinition | None:
    """The executor that the settings name; None if they name none.

    Raises:
        SettingsError: it cannot be imported, is no executor, or rejects its configuration.
    """
    if settings.executor is None:
        return None
    executor = import_object("executor", settings.executor, SettingsError)
    if not isinstance(executor, dg.ExecutorDefinition):
        raise SettingsError(
            f"executor: {settings.executor} is a {type(executor).__name__}, not an executor; give "
            "the dotted path of an executor such as dagster.multiprocess_executor"
        )
    if not settings.executor_config:
        return executor
    return executor.configured(settings.executor_config)


def _resources(scope: Scope, replacements: Mapping[str, Any]) -> dict[str, Any]:
    """The resources by their keys in Dagster; `replacements` replaces the default ones."""
    if unknown := sorted(set(replacements) - set(_RESOURCES)):
        raise ValueError(
            f"unknown resource {unknown[0]!r}; resources that can be replaced: "
            f"{', '.join(_RESOURCES)}"
        )
    resource_class = settings_resource_class(scope.settings)
    settings = replacements.get("settings", resource_class.configure_at_launch())
    if type(settings) is SettingsResource:
        # The overrides of a plain SettingsResource apply to the settings of these definitions.
        settings = resource_class(overrides=settings.overrides)
    resources = {
        "settings": settings,
        "mongodb": replacements.get("mongodb", MongoDBResource()),
        "manifests": replacements.get("manifests", ManifestIOManager(settings=settings)),
        "op_values": replacements.get("op_values", OpValueIOManager(settings=settings)),
    }
    return {scope.resource_key(name): resource for name, resource in resources.items()}
