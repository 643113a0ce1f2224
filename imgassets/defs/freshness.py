"""The external asset `product_documents` and its check for retailers without a recent document.

Dagster's `FreshnessPolicy` cannot do this. It applies to a whole asset: a new partition of one
retailer resets it and hides all stale retailers. And backfills and schedules materialize
partitions whether or not there are new documents. The check therefore reads the documents. How old
a retailer's newest document may be is decided in `sources`.
https://docs.dagster.io/guides/test/asset-checks
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from imgassets.defs.failed_checks import tag_run
from imgassets.defs.metadata import as_dagster_failure, markdown_table
from imgassets.defs.scope import Scope
from imgassets.errors import SourceError
from imgassets.settings import Settings

if TYPE_CHECKING:
    from imgassets.sources.staleness import StaleRetailer


def build_product_documents(scope: Scope) -> dg.AssetSpec:
    """Build the external asset `product_documents`: the source."""
    return dg.AssetSpec(
        scope.key("product_documents"),
        group_name="source",
        kinds={scope.settings.source.kind},
        owners=scope.settings.owners,
        description=(
            "The product documents that your scrapers write (`source` in the settings). imgassets "
            "only reads them."
        ),
    )


def build_freshness_check(scope: Scope) -> dg.AssetChecksDefinition:
    """Build the check `every_retailer_delivers` of the asset `product_documents`."""

    @dg.asset_check(
        asset=scope.key("product_documents"),
        required_resource_keys=scope.resource_keys("settings", "mongodb"),
    )
    def every_retailer_delivers(
        context: dg.AssetCheckExecutionContext,
    ) -> dg.AssetCheckResult:
        """The newest document of each retailer is at most `checks.max_age_days` days old."""
        from imgassets.sources.listing import today
        from imgassets.sources.staleness import stale_retailers

        options = scope.settings_resource(context).load()
        with as_dagster_failure(SourceError):
            inventory = scope.mongodb_resource(context).source(options).inventory()
        registered = scope.registered_retailers(context.instance)
        stale = stale_retailers(
            inventory,
            registered,
            lambda slug: options.for_retailer(slug).checks.max_age_days,
            today(),
        )
        result = _result(stale, len({*registered, *inventory.names}), options)
        tag_run(context, [("every_retailer_delivers", result)])
        return result

    return every_retailer_delivers


def _result(stale: "Sequence[StaleRetailer]", total: int, options: Settings) -> dg.AssetCheckResult:
    """Build the result of the check.

    Args:
        stale: the retailers without a recent document.
        total: the number of all retailers.
        options: the settings, which contain the severities.
    """
    names = ", ".join(retailer.slug for retailer in stale)
    severities = {
        options.for_retailer(retailer.slug).checks.severity.every_retailer_delivers
        for retailer in stale
    }
    return dg.AssetCheckResult(
        passed=not stale,
        severity=dg.AssetCheckSeverity.WARN
        if severities == {"warn"}
        else dg.AssetCheckSeverity.ERROR,
        description=(
            f"no recent document of {names}; check their scrapers, or raise checks.max_age_days"
            if stale
            else "every retailer has a recent document"
        ),
        metadata={
            "retailers": total,
            "stale": len(stale),
            "stale retailers": markdown_table(
                [
                    {
                        "retailer": retailer.slug,
                        "newest document": retailer.newest,
                        "days ago": retailer.age_days,
                        "allowed": retailer.allowed_days,
                    }
                    for retailer in stale
                ]
            ),
        },
    )
