"""The asset `processed_images`: training images, with faces removed, trimmed and resized."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from imgassets.defs.metadata import (
    as_dagster_failure,
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
from imgassets.defs.scope import Scope
from imgassets.errors import ModelError, StepError, StorageError, WorkerError
from imgassets.folders import models_folder

if TYPE_CHECKING:
    from imgassets.manifests import ProcessedRow, RawRow
    from imgassets.review.pages import Page
    from imgassets.settings import RetailerSettings
    from imgassets.storage import PartitionFiles


def build_processed_images(scope: Scope) -> dg.AssetsDefinition:
    """Build the asset `processed_images`."""

    @dg.asset(
        key=scope.key("processed_images"),
        partitions_def=scope.partitions,
        deps=[scope.key("raw_images"), scope.key("face_model")],
        group_name="images",
        kinds={"opencv", "parquet"},
        owners=scope.settings.owners,
        metadata=scope.uri("processed_images"),
        io_manager_key=scope.resource_key("manifests"),
        required_resource_keys=scope.resource_keys("settings"),
    )
    def processed_images(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        """Images ready for training: face cut off, background trimmed, resized; one row per URL.

        Only images whose served bytes or settings have changed are processed, compared with earlier
        runs of the partition and with the retailer's other days.
        """
        from imgassets.imaging.partition import remove_raw_images
        from imgassets.manifests import (
            ProcessedRow,
            RawRow,
            count_outcomes,
            fingerprint,
            from_table,
            to_table,
        )
        from imgassets.review.pages import write_review
        from imgassets.storage import open_storage

        partition = partition_of(context)
        common = scope.settings_resource(context).load()
        options, storage = common.for_retailer(partition.retailer), open_storage(common)
        files = storage.partition(*partition)
        raw_rows = from_table(read_manifest(storage, "raw_images", partition), RawRow)
        rows = _process(raw_rows, files, options, log=logger_of(context))
        table = to_table(rows, ProcessedRow)
        with as_dagster_failure(StorageError):
            pages = write_review(rows, files, options.review)
            metadata = _metadata(rows, pages, files, inline=options.review.inline)
            if not options.process.keep_raw:
                metadata["raw images removed"] = remove_raw_images(rows, storage)
        # As metadata of the result, Dagster would store the images twice: also in the event of the
        # step's output.
        context.add_asset_metadata(metadata)
        context.log.info(f"processed_images {summary(partition, count_outcomes(table))}")
        version = dg.DataVersion(fingerprint(table, "key", "outcome", "sha256"))
        return dg.MaterializeResult(data_version=version)

    return processed_images


def _process(
    raw_rows: Sequence["RawRow"],
    files: "PartitionFiles",
    options: "RetailerSettings",
    *,
    log: Callable[[str], None],
) -> list["ProcessedRow"]:
    """Process the images of a partition, and write the manifest.

    Args:
        raw_rows: the rows of `raw_images`.
        files: the files of the partition.
        options: the settings of the retailer.
        log: called with log messages.

    Returns:
        The rows of the manifest.
    """
    from imgassets.imaging.models import ensure_model
    from imgassets.imaging.partition import process_partition

    with as_dagster_failure(StorageError, ModelError, StepError, WorkerError):
        model = ensure_model(options.faces, models_folder())
        return process_partition(raw_rows, files, options, model, log=log)


def _metadata(
    rows: list["ProcessedRow"], pages: Sequence["Page"], files: "PartitionFiles", *, inline: bool
) -> dict[str, Any]:
    """Images, metrics, outcomes and file locations; the UI keeps this order.

    Args:
        rows: the rows of the manifest.
        pages: the full-size contact sheets.
        files: the files of the partition.
        inline: whether the UI shows images (`review.inline`).

    Raises:
        StorageError: the contact sheet cannot be read.
    """
    from imgassets.manifests import Outcome, ProcessedRow, count_outcomes, to_table

    table = to_table(rows, ProcessedRow)
    done = [row for row in rows if row.outcome is Outcome.OK]
    # Images that were not downloaded last: `raw_images` shows why.
    not_processed = sorted(
        (row for row in rows if row.outcome is not Outcome.OK),
        key=lambda row: row.outcome is Outcome.NO_RAW,
    )
    return {
        **(_inline_images(rows, files) if done and inline else {}),
        **tables(
            "not processed",
            [
                {"outcome": str(row.outcome), "error": row.error, "key": row.key}
                for row in not_processed
            ],
        ),
        **_metrics(done),
        **count_metadata(count_outcomes(table), "outcome"),
        "reused from other days": sum(row.reused_from is not None for row in rows),
        **manifest_metadata(
            files.storage.address(files.manifest("processed_images")), len(rows), ProcessedRow
        ),
        **size_metadata(table),
        **(_file_locations(files, pages) if done else {}),
    }


def _inline_images(
    rows: list["ProcessedRow"], files: "PartitionFiles"
) -> dict[str, dg.MetadataValue[Any]]:
    """The contact sheet and the histograms, which the UI shows inline."""
    from imgassets.markdown import CONTACT_SHEET_BYTES, inline_image
    from imgassets.review.contact_sheet import inline_contact_sheet
    from imgassets.review.pages import CONTACT_SHEET
    from imgassets.review.plots import histograms

    data = files.storage.read(f"{files.review}/{CONTACT_SHEET}")
    sheet = inline_contact_sheet(data, CONTACT_SHEET_BYTES)
    return {
        "contact sheet": dg.MetadataValue.md(sheet),
        "histograms": dg.MetadataValue.md(inline_image(histograms(rows), "png")),
    }


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


def _metrics(done: list["ProcessedRow"]) -> dict[str, int | float]:
    """Numbers about faces and trim."""
    import numpy as np

    with_face = [row for row in done if row.face_count]
    metrics: dict[str, int | float] = {
        "images": len(done),
        "images with a face": len(with_face),
        "faces found": sum(row.face_count or 0 for row in done),
        "faces removed": sum(bool(row.face_removed) for row in with_face),
    }
    ratios = [row.trim_ratio for row in done if row.trim_ratio is not None]
    if ratios:
        low, middle, high = np.percentile(ratios, [5, 50, 95])
        metrics |= {
            "trim ratio/mean": round_for_display(np.mean(ratios)),
            "trim ratio/p05": round_for_display(low),
            "trim ratio/median": round_for_display(middle),
            "trim ratio/p95": round_for_display(high),
        }
    return metrics
