"""The asset `processed_images`: training images, with faces removed, trimmed and resized.

A graph of three ops: `plan_processing` splits the images of a large partition into shards,
`process_shard` processes one, and `process_images` takes over what the shards did, processes the
rest, and writes the manifest. An ordinary partition has no shard: its images are the rest. The
in-process executor runs the shards one after another, a distributed executor runs them in parallel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from imgassets.defs.metadata import (
    MAX_TABLE_ROWS,
    as_dagster_failure,
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
from imgassets.defs.resources import partition_inputs
from imgassets.defs.scope import Scope
from imgassets.errors import ModelError, SettingsError, StepError, StorageError, WorkerError
from imgassets.folders import models_folder

if TYPE_CHECKING:
    import pyarrow as pa

    from imgassets.review.pages import Page
    from imgassets.settings import RetailerSettings
    from imgassets.storage import PartitionFiles

_ERRORS = (StorageError, SettingsError, ModelError, StepError, WorkerError)


def build_processed_images(scope: Scope) -> dg.AssetsDefinition:
    """Build the asset `processed_images`, a graph of three ops."""
    plan_processing, process_shard = _plan_op(scope), _shard_op(scope)
    process_images = _process_op(scope)

    @dg.graph_asset(
        key=scope.key("processed_images"),
        partitions_def=scope.partitions,
        ins={
            name: dg.AssetIn(key=scope.key(name), dagster_type=dg.Nothing)
            for name in ("raw_images", "face_model")
        },
        group_name="images",
        kinds={"opencv", "parquet"},
        owners=list(scope.settings.owners),
        metadata={**scope.uri("processed_images"), **column_metadata("processed_images")},
    )
    def processed_images(raw_images: Any, face_model: Any) -> Any:
        """Images ready for training: face cut off, background trimmed, resized; one row per URL.

        Only images whose served bytes or settings have changed are processed, compared with earlier
        runs of the partition and with the retailer's other days.
        """
        shards = plan_processing(raw_images=raw_images, face_model=face_model)
        return process_images(shards.map(process_shard).collect())

    return processed_images


def _plan_op(scope: Scope) -> dg.OpDefinition:
    @dg.op(
        name=scope.name("plan_processing"),
        ins={name: dg.In(dg.Nothing) for name in ("raw_images", "face_model")},
        out=dg.DynamicOut(dict, io_manager_key=scope.resource_key("op_values")),
        required_resource_keys=scope.resource_keys("settings"),
    )
    def plan_processing(
        context: dg.AssetExecutionContext,
    ) -> Iterator[dg.DynamicOutput[dict[str, Any]]]:
        """Split the images of a partition above `process.shard_size` into shards."""
        files, options = partition_inputs(context, scope.settings_resource(context))
        # An ordinary partition is not read here, because the last op reads it anyway.
        rows = read_manifest(files.storage, "raw_images", partition_of(context), []).num_rows
        if rows <= options.process.shard_size:
            return
        from imgassets.imaging.partition import RAW_COLUMNS, plan_shards

        raw = read_manifest(files.storage, "raw_images", partition_of(context), RAW_COLUMNS)
        with as_dagster_failure(*_ERRORS):
            shards = plan_shards(raw, files, options, log=logger_of(context))
        for shard in shards:
            yield dg.DynamicOutput(asdict(shard), mapping_key=shard.name)

    return plan_processing


def _shard_op(scope: Scope) -> dg.OpDefinition:
    @dg.op(
        name=scope.name("process_shard"),
        out=dg.Out(dg.Nothing),
        required_resource_keys=scope.resource_keys("settings"),
    )
    def process_shard(context: dg.AssetExecutionContext, planned: dict[str, Any]) -> None:
        """Process the images of one shard."""
        from imgassets.imaging.partition import Shard
        from imgassets.imaging.partition import process_shard as process

        files, options = partition_inputs(context, scope.settings_resource(context))
        with as_dagster_failure(*_ERRORS):
            process(Shard(**planned), files, options, _model(options), log=logger_of(context))

    return process_shard


def _process_op(scope: Scope) -> dg.OpDefinition:
    @dg.op(
        name=scope.name("process_images"),
        ins={"shards": dg.In(dg.Nothing)},
        out=dg.Out(dg.Nothing, io_manager_key=scope.resource_key("manifests")),
        required_resource_keys=scope.resource_keys("settings"),
    )
    def process_images(context: dg.AssetExecutionContext) -> dg.Output[None]:
        """Process the images that no shard has processed, and write the manifest and the sheets."""
        from imgassets.imaging.partition import RAW_COLUMNS, process_partition, remove_raw_images
        from imgassets.manifests import count_outcomes, fingerprint
        from imgassets.review.pages import write_review

        partition = partition_of(context)
        files, options = partition_inputs(context, scope.settings_resource(context))
        raw = read_manifest(files.storage, "raw_images", partition, RAW_COLUMNS)
        with as_dagster_failure(*_ERRORS):
            model = _model(options)
            table = process_partition(raw, files, options, model, log=logger_of(context))
        del raw
        with as_dagster_failure(StorageError):
            pages = write_review(table, files, options.review)
            metadata = _metadata(table, pages, files, inline=options.review.inline)
            if not options.process.keep_raw:
                metadata["raw images removed"] = remove_raw_images(table, files.storage)
        # As metadata of the output, Dagster would store the images twice.
        context.add_asset_metadata(metadata)
        context.log.info(f"processed_images {summary(partition, count_outcomes(table))}")
        return output_of_version(fingerprint(table, "key", "outcome", "sha256"))

    return process_images


def _model(options: "RetailerSettings") -> Path:
    """The file of the face detector; downloaded, if this machine lacks it."""
    from imgassets.imaging.models import ensure_model

    return ensure_model(options.faces, models_folder())


def _metadata(
    table: "pa.Table", pages: Sequence["Page"], files: "PartitionFiles", *, inline: bool
) -> dict[str, Any]:
    """Images, metrics, outcomes and file locations; the UI keeps this order.

    Args:
        table: the manifest.
        pages: the full-size contact sheets.
        files: the files of the partition.
        inline: whether the UI shows images (`review.inline`).

    Raises:
        StorageError: the images cannot be read.
    """
    import pyarrow.compute as pc

    from imgassets.manifests import Outcome, count_outcomes
    from imgassets.review.pages import read_inline_images

    columns = ["trim_ratio", "face_count", "face_removed"]
    done = table.select(columns).filter(pc.equal(table["outcome"], str(Outcome.OK)))
    images = read_inline_images(files) if done.num_rows and inline else {}
    return {
        **{name: dg.MetadataValue.md(text) for name, text in images.items()},
        **tables("not processed", *_not_processed(table)),
        **_metrics(done),
        **count_metadata(count_outcomes(table), "outcome"),
        "reused from other days": table.num_rows - table["reused_from"].null_count,
        **manifest_metadata(
            files.storage.address(files.manifest("processed_images")), table.num_rows
        ),
        **size_metadata(table),
        **(_file_locations(files, pages) if done.num_rows else {}),
    }


def _not_processed(table: "pa.Table") -> tuple[list[dict[str, str | None]], int]:
    """The first images that were not processed, and their number.

    Those that were not downloaded come last: `raw_images` shows why.
    """
    import numpy as np
    import pyarrow.compute as pc

    from imgassets.manifests import Outcome
    from imgassets.tables import as_mask

    outcomes = table["outcome"]
    failed = np.flatnonzero(as_mask(pc.not_equal(outcomes, str(Outcome.OK))))
    has_no_raw = as_mask(pc.equal(outcomes, str(Outcome.NO_RAW)))[failed]
    first = failed[np.argsort(has_no_raw, kind="stable")][:MAX_TABLE_ROWS]
    rows = table.select(["outcome", "error", "key"]).take(first).to_pylist()
    return rows, len(failed)


def _file_locations(
    files: "PartitionFiles", pages: Sequence["Page"]
) -> dict[str, dg.MetadataValue[Any]]:
    """The locations of the processed images, the contact sheets and the full-size plots."""
    from imgassets.review.pages import CONTACT_SHEET, HISTOGRAMS
    from imgassets.storage import PROCESSED_FILES

    address = files.storage.address
    review = address(files.review)
    rows: list[dict[str, str | int | float | None]] = [
        {"file": f"{review}/{page.name}", "images": len(page.keys), "first": page.keys[0]}
        for page in pages
    ]
    return {
        "processed image files": location_metadata(address(f"{PROCESSED_FILES}/{files.retailer}")),
        "contact sheet file": location_metadata(f"{review}/{CONTACT_SHEET}"),
        "histograms file": location_metadata(f"{review}/{HISTOGRAMS}"),
        "review folder": location_metadata(review),
        "full-size contact sheets": markdown_table(rows),
    }


def _metrics(done: "pa.Table") -> dict[str, int | float]:
    """Numbers about faces and trim of the processed images."""
    import numpy as np
    import pyarrow.compute as pc

    counts = done["face_count"].fill_null(0)
    has_removed = pc.and_(pc.greater(counts, 0), done["face_removed"].fill_null(fill_value=False))
    metrics: dict[str, int | float] = {
        "images": done.num_rows,
        "images with a face": pc.sum(pc.greater(counts, 0)).as_py() or 0,
        "faces found": pc.sum(counts).as_py() or 0,
        "faces removed": pc.sum(has_removed).as_py() or 0,
    }
    ratios = done["trim_ratio"].drop_null().to_numpy()
    if len(ratios):
        low, middle, high = np.percentile(ratios, [5, 50, 95])
        metrics |= {
            "trim ratio/mean": round_for_display(np.mean(ratios)),
            "trim ratio/p05": round_for_display(low),
            "trim ratio/median": round_for_display(middle),
            "trim ratio/p95": round_for_display(high),
        }
    return metrics
