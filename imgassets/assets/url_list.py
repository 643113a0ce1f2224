"""`url_list`: one row an image URL of a partition's product documents."""

from typing import Any

import dagster as dg

from imgassets.assets.showing import counted, manifest_metadata, table, told_as_failure
from imgassets.configuration import load_settings
from imgassets.partitions import catalogue, partition_of
from imgassets.resources import MongoDBResource, SettingsResource


@dg.asset(
    partitions_def=catalogue,
    deps=["product_documents"],
    group_name="images",
    kinds={load_settings().source.kind, "parquet"},
    io_manager_key="manifests",
)
def url_list(
    context: dg.AssetExecutionContext, settings: SettingsResource, mongodb: MongoDBResource
) -> dg.MaterializeResult[Any]:
    """The image URLs of the retailer's product documents of that day, one row each.

    Reads MongoDB, a CSV file or a function of your own (`source` in the settings). Documents that
    give no row, and URLs that stand twice, are counted and shown with examples.
    """
    from imgassets.demo.mongod import EmbeddedMongoError
    from imgassets.manifests import UrlRow, fingerprint, to_table
    from imgassets.sources.listing import SourceError
    from imgassets.storage import StorageError, open_storage, write_table

    partition = partition_of(context)
    options = settings.load()
    folder = open_storage(options).partition("url_list", *partition)
    with told_as_failure(SourceError, StorageError, EmbeddedMongoError):
        listing = mongodb.source(options).listing(*partition)
        write_table(folder, to_table(listing.rows, UrlRow))

    account = listing.account
    if not listing.documents:
        context.log.warning(
            f"The source has no document of {partition.retailer} dated {partition.date} (UTC); "
            "the partition is empty."
        )
    context.log.info(f"{len(listing.rows)} URLs in {listing.documents} documents")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(fingerprint(listing.rows, "key", "url")),
        metadata={
            "documents": listing.documents,
            "urls": len(listing.rows),
            **counted({str(k): n for k, n in account.counts.items()}, "odd"),
            "odd documents": table(
                [
                    {"what": str(oddity), "document": document, "detail": detail}
                    for oddity, document, detail in account.examples
                ]
            ),
            **manifest_metadata(folder, len(listing.rows), UrlRow),
        },
    )
