"""The asset `raw_images`: the served bytes of every URL, and the outcome of each download.

A graph of three ops. `download_images` finds out which URLs need a request, and downloads them with
a pool of threads, unless they are more than one shard (`download.shard_size`). Then it passes them
on: `download_shard` downloads one shard. The in-process executor runs the shards one after another,
a distributed executor runs them in parallel. `collect_manifest` writes the manifest.

Each step costs some 50 ms and 9 kB of event log, so a partition of one shard has two. Ops pass
descriptions of shards, never image data.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from imgassets.defs.metadata import (
    MAX_TABLE_ROWS,
    as_dagster_failure,
    bar_chart,
    column_metadata,
    count_metadata,
    location_metadata,
    logger_of,
    manifest_metadata,
    markdown_table,
    output_of_version,
    read_manifest,
    round_for_display,
    size_metadata,
    summary,
    tables,
)
from imgassets.defs.partitions import partition_of
from imgassets.defs.resources import SettingsResource, partition_inputs
from imgassets.defs.scope import Scope
from imgassets.errors import SettingsError, SharedLimitsError, StorageError

if TYPE_CHECKING:
    import pyarrow as pa

    from imgassets.download.partition import Shard
    from imgassets.download.report import ShardReport
    from imgassets.manifests import Outcome
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
    download_images, download_shard = _first_op(scope), _shard_op(scope)
    collect_manifest = _collect_op(scope)

    @dg.config_mapping
    def _for_first_op(config: DownloadConfig) -> dict[str, Any]:
        """Pass the asset's config to the op that plans the download."""
        return {download_images.name: {"config": config.model_dump()}}

    @dg.graph_asset(
        key=scope.key("raw_images"),
        partitions_def=scope.partitions,
        config=_for_first_op,
        ins={"url_list": dg.AssetIn(key=scope.key("url_list"), dagster_type=dg.Nothing)},
        group_name="images",
        kinds={"http", "parquet"},
        owners=list(scope.settings.owners),
        metadata={**scope.uri("raw_images"), **column_metadata("raw_images")},
    )
    def raw_images(url_list: Any) -> Any:
        """The images exactly as served, and one row per URL with the outcome of its download.

        Only what is missing is downloaded: neither an image of an earlier run of the partition, nor
        one that another day of the retailer has downloaded.
        """
        shards = download_images(url_list)
        return collect_manifest(shards.map(download_shard).collect())

    return raw_images


def _first_op(scope: Scope) -> dg.OpDefinition:
    @dg.op(
        name=scope.name("download_images"),
        ins={"url_list": dg.In(dg.Nothing)},
        out=dg.DynamicOut(dict, io_manager_key=scope.resource_key("op_values")),
        required_resource_keys=scope.resource_keys("settings"),
    )
    def download_images(
        context: dg.AssetExecutionContext, config: DownloadConfig
    ) -> Iterator[dg.DynamicOutput[dict[str, Any]]]:
        """Take over images that are stored, and download the others; pass on several shards."""
        from imgassets.download.partition import plan

        urls, files, options = _inputs(context, scope.settings_resource(context))
        retry = _outcomes(config.retry)
        log = logger_of(context)
        with as_dagster_failure(StorageError):
            shards = plan(urls, files, options, log=log, refresh=config.refresh, retry=retry)
        if len(shards) == 1:
            _download(shards[0], files, options, log)
            return
        for shard in shards:
            yield dg.DynamicOutput(asdict(shard), mapping_key=shard.name)

    return download_images


def _shard_op(scope: Scope) -> dg.OpDefinition:
    @dg.op(
        name=scope.name("download_shard"),
        out=dg.Out(dg.Nothing),
        required_resource_keys=scope.resource_keys("settings"),
    )
    def download_shard(context: dg.AssetExecutionContext, planned: dict[str, Any]) -> None:
        """Download the images of one of several shards with a pool of threads."""
        from imgassets.download.partition import Shard

        files, options = partition_inputs(context, scope.settings_resource(context))
        _download(Shard(**planned), files, options, logger_of(context))

    return download_shard


def _download(
    shard: "Shard",
    files: "PartitionFiles",
    options: "RetailerSettings",
    log: Callable[[str], None],
) -> None:
    from imgassets.download.partition import download_shard

    with as_dagster_failure(StorageError, SettingsError, SharedLimitsError):
        download_shard(shard, files, options.download, log=log)


def _collect_op(scope: Scope) -> dg.OpDefinition:
    @dg.op(
        name=scope.name("collect_manifest"),
        ins={"shards": dg.In(dg.Nothing)},
        out=dg.Out(dg.Nothing, io_manager_key=scope.resource_key("manifests")),
        required_resource_keys=scope.resource_keys("settings"),
    )
    def collect_manifest(context: dg.AssetExecutionContext) -> dg.Output[None]:
        """Write the manifest, one row per URL, and show the outcomes."""
        from imgassets.download.partition import collect, read_reports
        from imgassets.manifests import count_outcomes, fingerprint

        urls, files, options = _inputs(context, scope.settings_resource(context))
        with as_dagster_failure(StorageError):
            reports = read_reports(files)
            table = collect(urls, files, options)
        context.log.info(f"raw_images {summary(partition_of(context), count_outcomes(table))}")
        # As metadata of the output, Dagster would store it twice.
        context.add_asset_metadata(_manifest_metadata(table, reports, files))
        return output_of_version(fingerprint(table, "key", "outcome", "sha256"))

    return collect_manifest


def _manifest_metadata(
    table: "pa.Table", reports: Sequence["ShardReport"], files: "PartitionFiles"
) -> dict[str, Any]:
    """Outcomes and failures of the partition, and numbers of this run.

    Args:
        table: the manifest.
        reports: the reports of the shards that this run downloaded.
        files: the files of the partition.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from imgassets.manifests import Outcome, RawRow, count_outcomes, from_table
    from imgassets.storage import RAW_FILES

    outcomes = count_outcomes(table)
    wanted = table.num_rows - outcomes.get(Outcome.REMOVED, 0)
    failed = wanted - outcomes.get(Outcome.OK, 0)
    words = pa.array([str(Outcome.OK), str(Outcome.REMOVED)])
    is_failed = pc.invert(pc.is_in(table["outcome"], value_set=words))
    first_failed = from_table(table.filter(is_failed).slice(0, MAX_TABLE_ROWS), RawRow)
    storage = files.storage
    return {
        "outcomes": bar_chart(outcomes),
        "success rate": round_for_display(1 - failed / wanted) if wanted else 1.0,
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
                for row in first_failed
            ],
            failed,
        ),
        **count_metadata(outcomes, "outcome"),
        "bytes": pc.sum(table["bytes"]).as_py() or 0,
        "reused from other days": table.num_rows - table["reused_from"].null_count,
        **_metrics(reports),
        "slowest hosts": markdown_table(
            [asdict(host) for report in reports for host in report.slowest_hosts]
        ),
        **manifest_metadata(storage.address(files.manifest("raw_images")), table.num_rows),
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


def _metrics(reports: Sequence["ShardReport"]) -> dict[str, int | float]:
    """Numbers of this run."""
    totals = {
        name: sum(getattr(report, name) for report in reports)
        for name in ("retries", "unchanged", "changed", "not_refreshed")
    }
    images = sum(report.outcomes.get("ok", 0) for report in reports)
    seconds = sum(report.seconds for report in reports)
    downloaded = sum(report.bytes for report in reports)
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
) -> tuple["pa.Table", "PartitionFiles", "RetailerSettings"]:
    """The partition's `url_list`, its files, and the settings of its retailer."""
    files, options = partition_inputs(context, settings)
    return read_manifest(files.storage, "url_list", partition_of(context)), files, options
