"""Jobs: which assets and checks a run includes.

What a run does is in `assets` and `checks`; what launches runs is in `schedules` and `sensors`.
https://docs.dagster.io/guides/build/jobs
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import dagster as dg

from imgassets.defs.scope import Scope

Job: TypeAlias = Any
"""The type that `dagster.define_asset_job` returns; Dagster has no public name for it."""


@dataclass(frozen=True)
class Jobs:
    """The jobs of one set of definitions.

    Attributes:
        catalogue: the job `catalogue_job`: all assets of a partition, with their checks.
        retry_failed: the job `retry_failed`: the failed downloads of a partition.
        freshness: the job `freshness_job`: the check of `product_documents`.
    """

    catalogue: Job
    retry_failed: Job
    freshness: Job


def build_jobs(scope: Scope, freshness_check: dg.AssetChecksDefinition) -> Jobs:
    """Build the jobs.

    Args:
        scope: names and settings of the definitions.
        freshness_check: the check that `freshness_job` runs.
    """
    return Jobs(
        catalogue=dg.define_asset_job(
            scope.name("catalogue_job"),
            selection=dg.AssetSelection.assets(
                *(scope.key(asset) for asset in ("url_list", "raw_images", "processed_images"))
            ),
            description=(
                "Make a partition: from product documents to training images, with all checks."
            ),
        ),
        retry_failed=dg.define_asset_job(
            scope.name("retry_failed"),
            selection=dg.AssetSelection.assets(
                *(scope.key(asset) for asset in ("raw_images", "processed_images"))
            ),
            description=(
                "Retry the failed downloads of a partition. The URL list is not read again, and "
                "stored images are not requested again."
            ),
        ),
        freshness=dg.define_asset_job(
            scope.name("freshness_job"),
            selection=dg.AssetSelection.checks(freshness_check),
            description="Find retailers without a recent document.",
        ),
    )
