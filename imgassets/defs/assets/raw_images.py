"""The asset `raw_images`: the served bytes of every URL, and the outcome of each download.

A graph of three ops: `plan_shards` splits the URLs into shards, `download_shard` downloads one
shard with a pool of threads, `collect_manifest` writes the rows of all shards as the manifest. The
in-process executor runs the shards one after another, a distributed executor runs them in parallel.
Ops pass descriptions of shards, never image data.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from imgassets.defs.metadata import (
    as_dagster_failure,
    bar_chart,
    count_metadata,
    location_metadata,
    logger_of,
    manifest_metadata,
    markdown_table,
    read_manifest,
    round_for_display,
    size_metadata,
    summary,
    tables,
)
from imgassets.defs.partitions import partition_of
from imgassets.defs.resources import SettingsResource
from imgassets.defs.scope import Scope
from imgassets.errors import SettingsError, SharedLimitsError, StorageError

if TYPE_CHECKING:
    from imgassets.manifests import Outcome, RawRow, UrlRow
    from imgassets.settings import RetailerSettings
    from imgassets.storage import PartitionFiles


FAILED = "failed"


class DownloadConfig(dg.Config):
    """Which URLs of an earlier run are requested again."""

    refresh: bool = Field(
        default=False,
        description="also check whether stored images have changed (ETag, Last-Modified)",
    )
    retry: list[str] = Field(
        default=[FAILED],
        description=(
            "which failed URLs to retry: [failed] for all of them, a list of outcomes such as "
            "[timeout, http_error], or an empty list for none"
        ),
    )


def build_raw_images(scope: Scope) -> dg.AssetsDefinition:
    """Build the asset `raw_images`, a graph of three ops."""
    plan_shards, download_shard = _plan_op(scope), _download_op(scope)
    collect_manifest = _collect_op(scope)

    @dg.config_mapping
    def _for_plan(config: DownloadConfig) -> dict[str, Any]:
        """Pass the asset's config to the first op, which passes it on to the others."""
        return {plan_shards.name: {"config": config.model_dump()}}

    @dg.graph_asset(
        key=scope.key("raw_images"),
        partitions_def=scope.partitions,
        config=_for_plan,
        ins={"url_list": dg.AssetIn(key=scope.key("url_list"), dagster_type=dg.Nothing)},
        group_name="images",
        kinds={"http", "parquet"},
        owners=list(scope.settings.owners),
        metadata=scope.uri("raw_images"),
    )
    def raw_images(url_list: Any) -> Any:
        """The images exactly as served, and one row per URL with the outcome of its download.

        Only what is missing is downloaded: neither an image of an earlier run of the partition, nor
        one that another day of the retailer has downloaded.
        """
        shards = plan_shards(url_list)
        return collect_manifest(shards.map(download_shard).collect())

    return raw_images


def _plan_op(scope: Scope) -> dg.OpDefinition:
    @dg.op(
        name=scope.name("plan_shards"),
        ins={"url_list": dg.In(dg.Nothing)},
        out=dg.DynamicOut(dict, io_manager_key=scope.resource_key("op_values")),
        required_resource_keys=scope.resource_keys("settings"),
    )
    def plan_shards(
        context: dg.AssetExecutionContext, config: DownloadConfig
    ) -> Iterator[dg.DynamicOutput[dict[str, Any]]]:
        """Take over images that are stored, and split the other URLs into shards."""
        from imgassets.download.partition import plan

        urls, files, options = _inputs(context, scope.settings_resource(context))
        retry = _outcomes(config.retry)
        log = logger_of(context)
        with as_dagster_failure(StorageError):
            shards = plan(urls, files, options, log=log, refresh=config.refresh, retry=retry)
        for shard in shards:
            yield dg.DynamicOutput(asdict(shard), mapping_key=shard.name)

    return plan_shards


def _download_op(scope: Scope) -> dg.OpDefinition:
    @dg.op(
        name=scope.name("download_shard"),
        out=dg.Out(dict, io_manager_key=scope.resource_key("op_values")),
        required_resource_keys=scope.resource_keys("settings"),
    )
    def download_shard(
        context: dg.AssetExecutionContext, planned: dict[str, Any]
    ) -> dict[str, Any]:
        """Download the images of one shard with a pool of threads."""
        from imgassets.download.partition import Shard
        from imgassets.download.partition import download_shard as download

        files, options = _partition(context, scope.settings_resource(context))
        with as_dagster_failure(StorageError, SettingsError, SharedLimitsError):
            report = download(Shard(**planned), files, options.download, log=logger_of(context))
        return asdict(report)

    return download_shard


def _collect_op(scope: Scope) -> dg.OpDefinition:
    @dg.op(
        name=scope.name("collect_manifest"),
        out=dg.Out(dg.Nothing, io_manager_key=scope.resource_key("manifests")),
        required_resource_keys=scope.resource_keys("settings"),
    )
    def collect_manifest(
        context: dg.AssetExecutionContext, reports: list[dict[str, Any]]
    ) -> dg.Output[None]:
        """Write the manifest, one row per URL, and show the outcomes."""
        from imgassets.download.partition import collect
        from imgassets.manifests import RawRow, count_outcomes, fingerprint, to_table

        urls, files, options = _inputs(context, scope.settings_resource(context))
        with as_dagster_failure(StorageError):
            rows = collect(urls, files, options)
        table = to_table(rows, RawRow)
        context.log.info(f"raw_images {summary(partition_of(context), count_outcomes(table))}")
        # As metadata of the output, Dagster would store it twice.
        context.add_asset_metadata(_manifest_metadata(rows, reports, files))
        version = fingerprint(table, "key", "outcome", "sha256")
        with warnings.catch_warnings():
            # In Dagster 1.13 an op of a graph has no other way to set a data version.
            warnings.simplefilter("ignore", dg.BetaWarning)
            return dg.Output(None, data_version=dg.DataVersion(version))

    return collect_manifest


def _manifest_metadata(
    rows: Sequence["RawRow"], reports: list[dict[str, Any]], files: "PartitionFiles"
) -> dict[str, Any]:
    """Outcomes and failures of the partition, and numbers of this run.

    Args:
        rows: the rows of the manifest.
        reports: the reports of the shards that this run downloaded.
        files: the files of the partition.
    """
    from imgassets.manifests import Outcome, RawRow, count_outcomes, to_table
    from imgassets.storage import RAW_FILES

    table = to_table(rows, RawRow)
    outcomes = count_outcomes(table)
    wanted = [row for row in rows if row.outcome is not Outcome.REMOVED]
    failed = [row for row in wanted if row.outcome is not Outcome.OK]
    storage = files.storage
    return {
        "outcomes": bar_chart(outcomes),
        "success rate": round_for_display(1 - len(failed) / len(wanted)) if wanted else 1.0,
        **tables(
            "failures",
            [
                {
                    "outcome": str(row.outcome),
                    "status": row.http_status,
                    "attempts": row.attempts,
                    "error": row.error,
                    "url": row.url,
                }
                for row in failed
            ],
        ),
        **count_metadata(outcomes, "outcome"),
        "bytes": sum(row.bytes or 0 for row in rows),
        "reused from other days": sum(row.reused_from is not None for row in rows),
        **_metrics(reports),
        "slowest hosts": markdown_table(
            [host for report in reports for host in report["slowest_hosts"]]
        ),
        **manifest_metadata(storage.address(files.manifest("raw_images")), len(rows), RawRow),
        **size_metadata(table),
        "raw image files": location_metadata(storage.address(f"{RAW_FILES}/{files.retailer}")),
    }


def _outcomes(names: list[str]) -> list["Outcome"] | None:
    """The outcomes to retry; `None` means all failures."""
    from imgassets.manifests import OUTCOMES

    if FAILED in names:
        return None
    if unknown := sorted(set(names) - set(OUTCOMES)):
        raise dg.Failure(
            f"raw_images: retry: got {unknown[0]!r}; allowed: {FAILED}, {', '.join(OUTCOMES)}",
            allow_retries=False,
        )
    return [OUTCOMES[name] for name in names]


def _metrics(reports: list[dict[str, Any]]) -> dict[str, int | float]:
    """Numbers of this run."""
    totals = {
        name: sum(report[name] for report in reports)
        for name in ("seconds", "bytes", "retries", "unchanged", "changed", "not_refreshed")
    }
    images = sum(report["outcomes"].get("ok", 0) for report in reports)
    seconds = totals.pop("seconds")
    downloaded = totals.pop("bytes")
    return {
        "this run/images": images,
        "this run/bytes": downloaded,
        "this run/seconds": round_for_display(seconds),
        "this run/images per second": round_for_display(images / seconds) if seconds else 0.0,
        "this run/MB per second": round_for_display(downloaded / seconds / 1e6) if seconds else 0.0,
        **{f"this run/{name}": value for name, value in totals.items()},
    }


def _inputs(
    context: dg.AssetExecutionContext, settings: SettingsResource
) -> tuple[list["UrlRow"], "PartitionFiles", "RetailerSettings"]:
    """The rows of the partition's `url_list`, its files, and the settings of its retailer."""
    from imgassets.manifests import UrlRow, from_table

    files, options = _partition(context, settings)
    table = read_manifest(files.storage, "url_list", partition_of(context))
    return from_table(table, UrlRow), files, options


def _partition(
    context: dg.AssetExecutionContext, settings: SettingsResource
) -> tuple["PartitionFiles", "RetailerSettings"]:
    """The files of the run's partition, and the settings of its retailer."""
    from imgassets.storage import open_storage

    partition, options = partition_of(context), settings.load()
    files = open_storage(options).partition(*partition)
    return files, options.for_retailer(partition.retailer)
