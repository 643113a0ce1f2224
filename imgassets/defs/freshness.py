"""Which retailers no longer deliver.

Here live the source of product documents as Dagster sees it, and its check. Dagster's own
`FreshnessPolicy` was tried and cannot say this: it holds for an asset, whose newest partition of
any retailer resets it, so that one busy retailer hides all that fell silent. And a partition is
materialized by backfills and schedules, whether or not something was delivered. So the documents
themselves are asked, and the answer names the retailers.
https://docs.dagster.io/guides/test/asset-checks
"""

import dagster as dg

from imgassets.defs.metadata import as_dagster_failure, table
from imgassets.defs.scope import Scope


def build_product_documents(scope: Scope) -> dg.AssetSpec:
    """The source of product documents, as an external asset."""
    return dg.AssetSpec(
        scope.key("product_documents"),
        group_name="source",
        kinds={scope.settings.source.kind},
        owners=scope.settings.owners,
        description=(
            "The product documents that scrapers write (`source` in the settings). imgassets reads "
            "them and never writes them."
        ),
    )


def build_freshness_check(scope: Scope) -> dg.AssetChecksDefinition:
    """The check `every_retailer_delivers` of the source."""

    @dg.asset_check(
        asset=scope.key("product_documents"),
        required_resource_keys=scope.resource_keys("settings", "mongodb"),
    )
    def every_retailer_delivers(
        context: dg.AssetCheckExecutionContext,
    ) -> dg.AssetCheckResult:
        """Each registered retailer has a document that is recent enough (`checks.max_age_days`)."""
        from imgassets.sources.lateness import late_retailers
        from imgassets.sources.listing import SourceError, today

        options = scope.settings_resource(context).load()
        with as_dagster_failure(SourceError):
            survey = scope.mongodb_resource(context).source(options).survey()
        registered = scope.registered_retailers(context.instance)
        late = late_retailers(
            survey,
            registered,
            lambda slug: options.for_retailer(slug).checks.max_age_days,
            today(),
        )
        names = ", ".join(retailer.slug for retailer in late)
        severities = {
            options.for_retailer(retailer.slug).checks.severity.every_retailer_delivers
            for retailer in late
        }
        return dg.AssetCheckResult(
            passed=not late,
            severity=dg.AssetCheckSeverity.WARN
            if severities == {"warn"}
            else dg.AssetCheckSeverity.ERROR,
            description=f"late: {names}" if late else "every retailer delivers",
            metadata={
                "retailers": len({*registered, *survey.names}),
                "late": len(late),
                "late retailers": table(
                    [
                        {
                            "retailer": retailer.slug,
                            "newest document": retailer.newest,
                            "days ago": retailer.age_days,
                            "allowed": retailer.allowed_days,
                        }
                        for retailer in late
                    ]
                ),
            },
        )

    return every_retailer_delivers
