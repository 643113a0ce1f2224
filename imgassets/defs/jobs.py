"""Jobs: which assets and checks a run covers.

What a run does is in `assets` and `checks`; when a job runs by itself is in `schedules` and
`sensors`.
https://docs.dagster.io/guides/build/jobs
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import dagster as dg

from imgassets.defs.scope import Scope

Job: TypeAlias = Any
"""What `dagster.define_asset_job` returns: its type has no public name."""


@dataclass(frozen=True)
class Jobs:
    """The jobs of one set of definitions.

    Attributes:
        catalogue: a partition from its documents to its images.
        retry_failed: the failed downloads of a partition once more.
        freshness: the check of the source.
    """

    catalogue: Job
    retry_failed: Job
    freshness: Job


def build_jobs(scope: Scope, freshness_check: dg.AssetChecksDefinition) -> Jobs:
    """The jobs, which select the assets of this scope."""
    return Jobs(
        catalogue=dg.define_asset_job(
            scope.name("catalogue_job"),
            selection=dg.AssetSelection.assets(
                *(scope.key(asset) for asset in ("url_list", "raw_images", "processed_images"))
            ),
            description=(
                "A partition from its product documents to training images, with all its checks."
            ),
        ),
        retry_failed=dg.define_asset_job(
            scope.name("retry_failed"),
            selection=dg.AssetSelection.assets(
                *(scope.key(asset) for asset in ("raw_images", "processed_images"))
            ),
            description=(
                "Retry the failed downloads of a partition: its list of URLs stays, images that "
                "are stored are not requested again."
            ),
        ),
        freshness=dg.define_asset_job(
            scope.name("freshness_job"),
            selection=dg.AssetSelection.checks(freshness_check),
            description="Looks for retailers that no longer deliver.",
        ),
    )
