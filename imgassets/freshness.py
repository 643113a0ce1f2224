"""Which retailers no longer deliver.

Here live the source of product documents as Dagster sees it, and its check. Dagster's own
`FreshnessPolicy` was tried and cannot say this: it holds for an asset, whose newest partition of
any retailer resets it, so that one busy retailer hides all that fell silent. And a partition is
materialized by backfills and schedules, whether or not something was delivered. So the documents
themselves are asked, and the answer names the retailers.
https://docs.dagster.io/guides/test/asset-checks
"""

import dagster as dg

from imgassets.assets.showing import table, told_as_failure
from imgassets.configuration import load_settings
from imgassets.partitions import retailers
from imgassets.resources import MongoDBResource, SettingsResource

product_documents = dg.AssetSpec(
    "product_documents",
    group_name="source",
    kinds={load_settings().source.kind},
    description=(
        "The product documents that scrapers write (`source` in the settings). imgassets reads "
        "them and never writes them."
    ),
)


@dg.asset_check(asset=product_documents.key)
def every_retailer_delivers(
    context: dg.AssetCheckExecutionContext, settings: SettingsResource, mongodb: MongoDBResource
) -> dg.AssetCheckResult:
    """Each registered retailer has a document that is recent enough (`checks.max_age_days`)."""
    from imgassets.demo.mongod import EmbeddedMongoError
    from imgassets.sources.lateness import late_retailers
    from imgassets.sources.listing import SourceError, today

    options = settings.load()
    with told_as_failure(SourceError, EmbeddedMongoError):
        survey = mongodb.source(options).survey()
    registered = context.instance.get_dynamic_partitions(str(retailers.name))
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
