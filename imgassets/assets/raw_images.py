"""`raw_images`: the served bytes of every URL, and what happened to each.

A graph of three ops: the URLs are cut into shards, each shard is downloaded by a pool of threads,
and the rows of all become the manifest. In one process the shards run one after the other; under a
distributed executor they spread. Ops pass descriptions of shards, never pixels.
"""

import threading
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg

from imgassets.assets.showing import counted, logger_of, manifest_metadata, table, told_as_failure
from imgassets.partitions import catalogue, partition_of
from imgassets.resources import SettingsResource

if TYPE_CHECKING:
    from imgassets.manifests import UrlRow
    from imgassets.storage import Folder


@dg.op(ins={"url_list": dg.In(dg.Nothing)}, out=dg.DynamicOut(dict))
def plan_shards(
    context: dg.AssetExecutionContext, settings: SettingsResource
) -> Iterator[dg.DynamicOutput[dict[str, Any]]]:
    """Cut the URLs into shards, and leave out shards that have all their pictures."""
    from imgassets.download.partition import plan

    urls, folder = _inputs(context, settings)
    options = settings.load().for_retailer(partition_of(context).retailer)
    for shard in plan(urls, folder, options.download.shard_size):
        yield dg.DynamicOutput(asdict(shard), mapping_key=shard.name)


@dg.op
def download_shard(
    context: dg.AssetExecutionContext, settings: SettingsResource, shard: dict[str, Any]
) -> dict[str, Any]:
    """Download the pictures of one shard with a pool of threads."""
    from imgassets.download.partition import Shard, shard_rows
    from imgassets.download.partition import download_shard as download
    from imgassets.storage import StorageError

    urls, folder = _inputs(context, settings)
    options = settings.load().for_retailer(partition_of(context).retailer)
    planned = Shard(**shard)
    with told_as_failure(StorageError):
        report = download(
            shard_rows(urls, planned),
            folder,
            options.download,
            shard=planned.name,
            log=logger_of(context),
            cancelled=threading.Event(),
        )
    return asdict(report)


@dg.op(out=dg.Out(dg.Nothing, io_manager_key="manifests"))
def collect_manifest(
    context: dg.AssetExecutionContext, settings: SettingsResource, reports: list[dict[str, Any]]
) -> dg.Output[None]:
    """Write the manifest, one row a URL, and show what happened."""
    from imgassets.download.partition import collect
    from imgassets.manifests import Outcome, count_outcomes, fingerprint
    from imgassets.storage import StorageError

    urls, folder = _inputs(context, settings)
    with told_as_failure(StorageError):
        rows = collect(urls, folder)
    failed = [row for row in rows if row.outcome is not Outcome.OK]
    seconds = sum(report["seconds"] for report in reports)
    downloaded = sum(report["outcomes"].get(Outcome.OK, 0) for report in reports)
    version = fingerprint(rows, "key", "outcome", "sha256")
    metadata = {
        **manifest_metadata(folder, len(rows)),
        **counted(count_outcomes(rows), "outcome"),
        "downloaded now": downloaded,
        "bytes": sum(row.bytes or 0 for row in rows),
        "success rate": 1 - len(failed) / len(rows) if rows else 1.0,
        "images per second": downloaded / seconds if downloaded else 0.0,
        "failures": table(
            [{"outcome": str(row.outcome), "url": row.url, "error": row.error} for row in failed]
        ),
    }
    with warnings.catch_warnings():
        # Dagster 1.13 has no other way for an op in a graph to give its data a version.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.Output(None, metadata=metadata, data_version=dg.DataVersion(version))


@dg.graph_asset(
    partitions_def=catalogue,
    ins={"url_list": dg.AssetIn(dagster_type=dg.Nothing)},
    group_name="images",
    kinds={"http", "parquet"},
)
def raw_images(url_list: Any) -> Any:
    """The pictures as they were served, untouched, and one row a URL: what happened to it.

    A partition that is materialized again downloads only what is missing.
    """
    shards = plan_shards(url_list)
    return collect_manifest(shards.map(download_shard).collect())


def _inputs(
    context: dg.AssetExecutionContext, settings: SettingsResource
) -> tuple[list["UrlRow"], "Folder"]:
    """The partition's URLs, and the folder of its pictures."""
    from imgassets.manifests import UrlRow, from_table
    from imgassets.storage import StorageError, read_table

    partition, storage = partition_of(context), settings.storage()
    try:
        with told_as_failure(StorageError):
            table = read_table(storage.partition("url_list", *partition))
    except FileNotFoundError:
        raise dg.Failure(
            f"url_list of {partition.key} was never materialized; materialize it first",
            allow_retries=False,
        ) from None
    return from_table(table, UrlRow), storage.partition("raw_images", *partition)
