"""Puts the code location together: `defs` is what Dagster loads.

Loading it reads the settings and nothing else: no network, no database, no data. Whatever this
imports is paid on every run, so assets import what they need when they run.
"""
# ruff: noqa: E402  (see gc.freeze)

import gc
import logging
import os
from collections.abc import Mapping

import dagster as dg

# What Dagster has imported stays until the process ends. Python's garbage collector would look
# through all of it again and again: a fifth of a second of CPU in every run. And what a run makes
# itself is mostly short-lived: every 700 objects is far too often.
gc.freeze()
gc.set_threshold(10_000)

from imgassets.asset_checks import CHECKS
from imgassets.assets.face_model import face_model
from imgassets.assets.processed_images import processed_images
from imgassets.assets.raw_images import raw_images
from imgassets.assets.url_list import url_list
from imgassets.configuration import load_settings
from imgassets.freshness import every_retailer_delivers, product_documents
from imgassets.jobs import catalogue_job, every_day, freshness, freshness_job, retry_failed
from imgassets.resources import ManifestIOManager, MongoDBResource, SettingsResource
from imgassets.sensors import failed_runs, new_documents


def build_defs(*, resources: Mapping[str, object] | None = None) -> dg.Definitions:
    """The whole code location, with some resources swapped where a test or a deployment wants it.

    Args:
        resources: replace those of the same name: `settings`, `mongodb`, `manifests`.
    """
    settings = SettingsResource.configure_at_launch()
    owners = load_settings().owners
    return dg.Definitions(
        assets=dg.map_asset_specs(
            lambda spec: spec.replace_attributes(owners=owners),
            [product_documents, url_list, face_model, raw_images, processed_images],
        ),
        asset_checks=[*CHECKS, every_retailer_delivers],
        jobs=[catalogue_job, retry_failed, freshness_job],
        schedules=[every_day, freshness],
        sensors=[new_documents, failed_runs],
        resources={
            "settings": settings,
            "mongodb": MongoDBResource(),
            "manifests": ManifestIOManager(settings=settings),
            **(resources or {}),
        },
        # A process for each step would cost more than most steps (44 s against 1 s a run).
        executor=dg.in_process_executor,
    )


if not os.environ.get("DAGSTER_HOME"):
    # Dagster's own error would only say that it does not know the partition.
    logging.getLogger(__name__).warning(
        "DAGSTER_HOME is not set, so this process uses a throw-away instance that knows no "
        "retailer and keeps nothing. Set it before you materialize: "
        'export DAGSTER_HOME="$PWD/.imgassets/dagster_home" && imgassets sync'
    )

defs = build_defs()
