"""The asset `url_list`: one row per image URL of a partition's product documents."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from imgassets.defs.metadata import (
    as_dagster_failure,
    column_metadata,
    count_metadata,
    manifest_metadata,
    tables,
)
from imgassets.defs.partitions import partition_of
from imgassets.defs.scope import Scope
from imgassets.errors import SourceError, StorageError
from imgassets.wording import counted

if TYPE_CHECKING:
    from imgassets.sources.listing import Listing


def build_url_list(scope: Scope) -> dg.AssetsDefinition:
    """Build the asset `url_list`."""

    @dg.asset(
        key=scope.key("url_list"),
        partitions_def=scope.partitions,
        deps=[scope.key("product_documents")],
        group_name="images",
        kinds={scope.settings.source.kind, "parquet"},
        owners=scope.settings.owners,
        metadata={**scope.uri("url_list"), **column_metadata("url_list")},
        io_manager_key=scope.resource_key("manifests"),
        required_resource_keys=scope.resource_keys("settings", "mongodb"),
    )
    def url_list(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        """One row per image URL in the retailer's product documents of that day, week or month.

        Reads MongoDB, a file or your own function (`source` in the settings). Documents without
        a row and URLs that are listed twice are counted and shown with examples.
        """
        from imgassets.manifests import UrlRow, as_manifest, fingerprint
        from imgassets.settings import section_hash
        from imgassets.storage import open_storage
        from imgassets.takedown import read_takedowns

        partition = partition_of(context)
        options = scope.settings_resource(context).load()
        storage = open_storage(options)
        files = storage.partition(*partition)
        with as_dagster_failure(SourceError, StorageError):
            listing = scope.mongodb_resource(context).source(options).listing(*partition)
            rows = read_takedowns(storage).redact(partition.retailer, listing.table)
            table = as_manifest(rows, UrlRow, section_hash(options.source), listing.documents)
            files.write_manifest("url_list", table)

        if listing.note is not None:
            context.log.warning(listing.note)
        elif not listing.documents:
            context.log.warning(
                f"The source has no document of {partition.retailer} in the "
                f"{options.partitions.period} of {partition.date} (UTC), so the partition is empty."
            )
        context.log.info(
            f"url_list {partition.key}: {counted(table.num_rows, 'URL')} in "
            f"{counted(listing.documents, 'document')}"
        )
        # As metadata of the result, Dagster would store it twice.
        context.add_asset_metadata(_metadata(listing, storage.address(files.manifest("url_list"))))
        return dg.MaterializeResult(data_version=dg.DataVersion(fingerprint(table, "key", "url")))

    return url_list


def _metadata(listing: "Listing", manifest: str) -> dict[str, Any]:
    """Counts of documents, URLs and anomalies, and the location of the manifest."""
    report = listing.report
    return {
        "documents": listing.documents,
        "urls": listing.table.num_rows,
        **({"note": listing.note} if listing.note is not None else {}),
        **count_metadata({str(name): count for name, count in report.counts.items()}, "anomaly"),
        **tables(
            "anomalies",
            [
                {"anomaly": str(anomaly), "document": document, "detail": detail}
                for anomaly, document, detail in report.examples
            ],
        ),
        **manifest_metadata(manifest, listing.table.num_rows),
    }
