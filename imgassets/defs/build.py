"""Builds all definitions from a `Settings` object.

Add a new asset, check, job, schedule or sensor here. Building touches no network, no database and
no file, and imports no heavy library: every run pays for what it imports.
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
from imgassets.defs.resources import (
    ManifestIOManager,
    MongoDBResource,
    SettingsResource,
    bound_to,
)
from imgassets.defs.schedules import build_schedules
from imgassets.defs.scope import Scope, retailers_name
from imgassets.defs.sensors import build_failed_runs_sensor, build_new_documents_sensor
from imgassets.settings import Settings

_RESOURCES = ("settings", "mongodb", "manifests")


def build_defs(
    settings: Settings,
    *,
    key_prefix: str | Sequence[str] = (),
    partitions: dg.MultiPartitionsDefinition | None = None,
    resources: Mapping[str, Any] | None = None,
    executor: dg.ExecutorDefinition | None = None,
) -> dg.Definitions:
    """Build the assets, checks, jobs, schedules, sensors and resources of one catalogue.

    The result can be merged with other definitions (`dagster.Definitions.merge`), also with those
    of another call under another prefix.

    Args:
        settings: the options; see `imgassets.Settings`.
        key_prefix: prefix of asset keys, and of the names of ops, jobs, schedules, sensors,
            resources and of the retailers' dynamic partitions.
        partitions: date x retailer, with dimensions of these names; by default daily from
            `settings.start_date`, and dynamic.
        resources: replace the project's own of the same name: `settings`, `mongodb`, `manifests`.
            What depends on one that is replaced is built from the new one.
        executor: of the jobs; by default that of the code location.

    Raises:
        ValueError: a resource has another name, or the partitions have other dimensions.
    """
    prefix = (key_prefix,) if isinstance(key_prefix, str) else tuple(key_prefix)
    retailers = "_".join([*prefix, RETAILERS])
    scope = Scope(
        settings, prefix, partitions or catalogue_partitions(settings.start_date, retailers)
    )
    retailers_name(scope.partitions)
    freshness_check = build_freshness_check(scope)
    jobs = build_jobs(scope, freshness_check)
    return dg.Definitions(
        assets=[
            build_product_documents(scope),
            build_url_list(scope),
            build_face_model(scope),
            build_raw_images(scope),
            build_processed_images(scope),
        ],
        asset_checks=[*build_checks(scope), freshness_check],
        jobs=[jobs.catalogue, jobs.retry_failed, jobs.freshness],
        schedules=build_schedules(scope, jobs),
        sensors=[build_new_documents_sensor(scope, jobs), build_failed_runs_sensor(scope, jobs)],
        resources=_resources(scope, resources or {}),
        executor=executor,
    )


def _resources(scope: Scope, given: Mapping[str, Any]) -> dict[str, Any]:
    """The resources by their keys in Dagster; given ones replace the project's own."""
    if unknown := sorted(set(given) - set(_RESOURCES)):
        raise ValueError(
            f"there is no resource {unknown[0]!r} to replace; there are {', '.join(_RESOURCES)}"
        )
    bound = bound_to(scope.settings)
    settings = given.get("settings", bound.configure_at_launch())
    if type(settings) is SettingsResource:
        # Its overrides apply to the settings of these definitions.
        settings = bound(overrides=settings.overrides)
    found = {
        "settings": settings,
        "mongodb": given.get("mongodb", MongoDBResource()),
        "manifests": given.get("manifests", ManifestIOManager(settings=settings)),
    }
    return {scope.resource_key(name): resource for name, resource in found.items()}
