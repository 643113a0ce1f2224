"""The asset `processed_images`: training images, with faces removed, trimmed and resized."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from imgassets.defs.metadata import (
    as_dagster_failure,
    count_metadata,
    inline_image,
    location_metadata,
    logger_of,
    manifest_metadata,
    rounded,
    table,
)
from imgassets.defs.partitions import partition_of
from imgassets.defs.scope import Scope
from imgassets.folders import models_folder

if TYPE_CHECKING:
    from imgassets.manifests import ProcessedRow
    from imgassets.review.pages import Page
    from imgassets.storage import Folder


def build_processed_images(scope: Scope) -> dg.AssetsDefinition:
    """Build the asset `processed_images`."""

    @dg.asset(
        key=scope.key("processed_images"),
        partitions_def=scope.partitions,
        deps=[scope.key("raw_images"), scope.key("face_model")],
        group_name="images",
        kinds={"opencv", "parquet"},
        owners=scope.settings.owners,
        io_manager_key=scope.resource_key("manifests"),
        required_resource_keys=scope.resource_keys("settings"),
    )
    def processed_images(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        """Images ready for training: face cut off, background trimmed, resized; one row per URL.

        A partition that is materialized again processes only the images whose served bytes or
        settings have changed.
        """
        from imgassets.errors import ModelError, StepError, StorageError, WorkerError
        from imgassets.imaging.models import ensure_model
        from imgassets.imaging.partition import process_partition, remove_raw_images
        from imgassets.manifests import (
            Outcome,
            ProcessedRow,
            RawRow,
            count_outcomes,
            fingerprint,
            from_table,
        )
        from imgassets.review.pages import write_review
        from imgassets.storage import open_storage, read_table

        partition = partition_of(context)
        common = scope.settings_resource(context).load()
        options, storage = common.for_retailer(partition.retailer), open_storage(common)
        raw_folder = storage.partition("raw_images", *partition)
        folder = storage.partition("processed_images", *partition)
        with as_dagster_failure(StorageError, ModelError, StepError, WorkerError):
            try:
                raw_rows = from_table(read_table(raw_folder), RawRow)
            except FileNotFoundError:
                raise dg.Failure(
                    f"raw_images of {partition.key} was never materialized; materialize it first",
                    allow_retries=False,
                ) from None
            rows = process_partition(
                raw_rows,
                raw_folder,
                folder,
                options,
                ensure_model(options.faces, models_folder()),
                log=logger_of(context),
            )
        done = [row for row in rows if row.outcome is Outcome.OK]
        with as_dagster_failure(StorageError):
            pages = write_review(
                rows,
                raw_rows,
                raw_folder,
                folder,
                title=partition.key,
                max_pages=options.review.max_pages,
            )
            # The UI keeps this order: images first, file locations last.
            metadata: dict[str, Any] = _inline_images(rows, folder) if done else {}
        metadata |= {
            **_metrics(done),
            **count_metadata(count_outcomes(rows), "outcome"),
            "not processed": table(
                [
                    {"outcome": str(row.outcome), "key": row.key, "error": row.error}
                    for row in rows
                    if row.outcome not in (Outcome.OK, Outcome.NO_RAW)
                ]
            ),
            **manifest_metadata(folder, len(rows), ProcessedRow),
            **(_file_locations(folder, pages) if done else {}),
        }
        if not options.process.keep_raw:
            with as_dagster_failure(StorageError):
                metadata["raw images removed"] = remove_raw_images(rows, raw_rows, raw_folder)
        version = dg.DataVersion(fingerprint(rows, "key", "outcome", "sha256"))
        return dg.MaterializeResult(metadata=metadata, data_version=version)

    return processed_images


def _inline_images(
    rows: list["ProcessedRow"], folder: "Folder"
) -> dict[str, dg.MetadataValue[Any]]:
    """The contact sheet and the histograms, which the UI shows inline."""
    from imgassets.review.plots import histograms
    from imgassets.storage import CONTACT_SHEET

    return {
        "contact sheet": inline_image(folder.read(CONTACT_SHEET), "jpeg"),
        "histograms": inline_image(histograms(rows), "png"),
    }


def _file_locations(folder: "Folder", pages: Sequence["Page"]) -> dict[str, dg.MetadataValue[Any]]:
    """The locations of the processed images, the contact sheets and the full-size plots."""
    from imgassets.review.pages import REVIEW
    from imgassets.storage import CONTACT_SHEET, IMAGES

    review = folder / REVIEW
    rows: list[dict[str, str | int | float | None]] = [
        {"file": f"{review.address}/{page.name}", "images": len(page.keys), "first": page.keys[0]}
        for page in pages
    ]
    return {
        "processed image files": location_metadata((folder / IMAGES).address),
        "contact sheet file": location_metadata(f"{folder.address}/{CONTACT_SHEET}"),
        "review folder": location_metadata(review.address),
        "full-size contact sheets": table(rows),
    }


def _metrics(done: list["ProcessedRow"]) -> dict[str, int | float]:
    """Numbers that the UI plots over partitions."""
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
            "trim ratio/mean": rounded(np.mean(ratios)),
            "trim ratio/p05": rounded(low),
            "trim ratio/median": rounded(middle),
            "trim ratio/p95": rounded(high),
        }
    return metrics
