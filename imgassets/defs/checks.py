"""Define the asset checks of `raw_images` and `processed_images`.

This module has the names and the descriptions of the checks, and converts their outcomes to Dagster
results: metrics always, and images if a check fails. The logic of the
checks is in `imgassets.checks`; bounds and severities are settings, per retailer. For the check
`residual_faces`, this module calls `imgassets.imaging`, which `imgassets.checks` does not import.

The checks of an asset run in one step: one step per check would enlarge the event log by a quarter
per check, and read the manifest each time. `download_success_rate` has a step of its own: it can
fail the run, and the images that were downloaded must be processed all the same.
https://docs.dagster.io/guides/test/asset-checks
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import dagster as dg

from imgassets.defs.failed_checks import tag_run
from imgassets.defs.metadata import round_for_display
from imgassets.defs.partitions import partition_of
from imgassets.defs.resources import SettingsResource
from imgassets.defs.scope import Scope
from imgassets.errors import CheckError, ModelError, StorageError
from imgassets.folders import models_folder

if TYPE_CHECKING:
    from imgassets.checks.context import CheckContext
    from imgassets.checks.gallery import FindFaces
    from imgassets.checks.outcome import CheckOutcome


@dataclass(frozen=True)
class _Check:
    """Name and description of a check."""

    name: str
    description: str
    blocking: bool = False


_RAW: Sequence[_Check] = (
    _Check(
        "every_url_has_a_raw_row",
        "Each URL of `url_list` has exactly one row, and the file that a row names exists.",
        blocking=True,
    ),
    _Check(
        "raw_files_match_rows",
        "Each raw image file has the size in its row, and a sample of the files "
        "(`checks.files_sample`) has the checksum in its row.",
        blocking=True,
    ),
    _Check(
        "duplicate_images",
        "Few images are copies of another (`checks.max_duplicates`), and none is shared by many "
        "products, as placeholders and size charts are (`checks.max_products`).",
    ),
)
_SUCCESS: Sequence[_Check] = (
    _Check(
        "download_success_rate",
        "Enough of the URLs returned an image (`checks.min_success_rate`), and not many fewer than "
        "on the retailer's recent days (`checks.drift.success_rate`). If hardly any did "
        "(`checks.fatal_success_rate`), the run fails.",
    ),
)
_PROCESSED: Sequence[_Check] = (
    _Check(
        "every_url_has_a_processed_row",
        "Each URL of `url_list` has exactly one row, and the file that a row names exists.",
        blocking=True,
    ),
    _Check(
        "processed_files_match_rows",
        "Each processed image file has the size in its row, and a sample of the files "
        "(`checks.files_sample`) has the checksum in its row.",
        blocking=True,
    ),
    _Check(
        "trim_ratios",
        "The trim keeps neither too little nor too much (`checks.trim_ratio_mean`, `_p05`, `_p95`, "
        "`untrimmed_share`), and about as much as on the retailer's recent days (`checks.drift`).",
    ),
    _Check(
        "face_removal",
        "Every detected face was removed, and the share of images with a face is as expected "
        "(`checks.face_share`) and as on the retailer's recent days (`checks.drift.face_share`).",
    ),
    _Check(
        "residual_faces",
        "A second face detection, on a sample of the images that this partition processed, finds "
        "hardly any face (`checks.max_residual_faces`).",
        blocking=True,
    ),
)


CHECK_NAMES: Mapping[str, frozenset[str]] = {
    "raw_images": frozenset(check.name for check in (*_RAW, *_SUCCESS)),
    "processed_images": frozenset(check.name for check in _PROCESSED),
}
"""Names of the checks by asset."""


def build_checks(scope: Scope) -> list[dg.AssetChecksDefinition]:
    """Build the checks of `raw_images` and `processed_images`."""

    @dg.multi_asset_check(
        name=scope.name("raw_images_checks"),
        specs=_specs(scope, "raw_images", _RAW),
        can_subset=True,
        required_resource_keys=scope.resource_keys("settings"),
    )
    def raw_images_checks(
        context: dg.AssetCheckExecutionContext,
    ) -> Iterator[dg.AssetCheckResult]:
        """Check a partition of `raw_images`."""
        from imgassets.checks import duplicates, files, rows

        checks = {
            "every_url_has_a_raw_row": rows.every_url_has_a_raw_row,
            "raw_files_match_rows": files.raw_files_match_rows,
            "duplicate_images": duplicates.duplicate_images,
        }
        yield from run_checks(context, scope.settings_resource(context), checks)

    @dg.multi_asset_check(
        name=scope.name("download_success"),
        specs=_specs(scope, "raw_images", _SUCCESS),
        required_resource_keys=scope.resource_keys("settings"),
    )
    def download_success(
        context: dg.AssetCheckExecutionContext,
    ) -> Iterator[dg.AssetCheckResult]:
        """Check how many URLs of a partition gave an image; fail the run if hardly any did."""
        from imgassets.checks import metrics

        checks = {"download_success_rate": metrics.download_success_rate}
        yield from run_checks(context, scope.settings_resource(context), checks)

    @dg.multi_asset_check(
        name=scope.name("processed_images_checks"),
        specs=_specs(scope, "processed_images", _PROCESSED),
        can_subset=True,
        required_resource_keys=scope.resource_keys("settings"),
    )
    def processed_images_checks(
        context: dg.AssetCheckExecutionContext,
    ) -> Iterator[dg.AssetCheckResult]:
        """Check a partition of `processed_images`."""
        from imgassets.checks import files, metrics, rows

        checks = {
            "every_url_has_a_processed_row": rows.every_url_has_a_processed_row,
            "processed_files_match_rows": files.processed_files_match_rows,
            "trim_ratios": metrics.trim_ratios,
            "face_removal": metrics.face_removal,
            "residual_faces": _residual_faces,
        }
        yield from run_checks(context, scope.settings_resource(context), checks)

    return [raw_images_checks, download_success, processed_images_checks]


def _specs(scope: Scope, asset: str, checks: Sequence[_Check]) -> list[dg.AssetCheckSpec]:
    with warnings.catch_warnings():
        # Dagster 1.13 marks partitioned checks as a preview feature.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                check.name,
                asset=scope.key(asset),
                description=check.description,
                blocking=check.blocking,
                partitions_def=scope.partitions,
            )
            for check in checks
        ]


def run_checks(
    context: dg.AssetCheckExecutionContext,
    settings: SettingsResource,
    checks: Mapping[str, Callable[["CheckContext"], "CheckOutcome"]],
) -> Iterator[dg.AssetCheckResult]:
    """Run the selected checks, tag the run with those that failed, and yield the results.

    A check that cannot run, that has a bug or whose outcome is fatal does not prevent the others;
    the step fails after the last one. The results follow the last check, because the failed ones
    share the bytes of their images.
    """
    from imgassets.checks.context import CheckContext
    from imgassets.storage import open_storage
    from imgassets.tables import release_memory

    partition = partition_of(context)
    common = settings.load()
    check_context = CheckContext(
        open_storage(common).partition(*partition), common.for_retailer(partition.retailer)
    )
    selected = {key.name: key for key in context.selected_asset_check_keys}
    outcomes: dict[str, CheckOutcome] = {}
    problems: list[str] = []
    bug: Exception | None = None
    for name, check in checks.items():
        if name not in selected:
            continue
        try:
            outcomes[name] = check(check_context)
        except (CheckError, StorageError) as error:
            problems.append(str(error))
        except Exception as error:  # noqa: BLE001  (raised again after the results of the others)
            bug = bug or error
        release_memory()
    galleries = sum(outcome.shows_images for outcome in outcomes.values())
    results = {
        name: _result(selected[name], outcome, check_context, galleries)
        for name, outcome in outcomes.items()
    }
    tag_run(context, results.items())
    yield from results.values()
    problems += [outcome.description for outcome in outcomes.values() if outcome.fatal]
    if bug is not None:
        raise bug
    if problems:
        raise dg.Failure("\n".join(dict.fromkeys(problems)), allow_retries=False)


def _result(
    key: dg.AssetCheckKey, outcome: "CheckOutcome", check_context: "CheckContext", galleries: int
) -> dg.AssetCheckResult:
    """Convert the outcome of a check to Dagster's result.

    Args:
        key: The key of the check.
        outcome: The outcome.
        check_context: The partition.
        galleries: The number of checks with images, which share the bytes of the asset.
    """
    options = check_context.options.checks
    metadata: dict[str, Any] = {
        name: round_for_display(value) if isinstance(value, float) else value
        for name, value in outcome.metrics.items()
    }
    if not outcome.passed and outcome.findings:
        metadata["images to look at"] = _gallery(key, outcome, check_context, galleries)
    drifted_only = bool(outcome.drift) and not outcome.violations
    severity = getattr(options.severity, "drift" if drifted_only else key.name)
    return dg.AssetCheckResult(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=outcome.passed,
        severity=dg.AssetCheckSeverity("ERROR" if outcome.fatal else severity.upper()),
        description=outcome.description,
        metadata=metadata,
    )


def _gallery(
    key: dg.AssetCheckKey, outcome: "CheckOutcome", check_context: "CheckContext", galleries: int
) -> dg.MetadataValue[Any]:
    """The images of a failed check; faces are pixelated and images inline as the settings say."""
    from imgassets.checks.gallery import gallery
    from imgassets.markdown import GALLERY_BYTES

    review = check_context.options.review
    max_bytes = GALLERY_BYTES[key.asset_key.path[-1]] // max(1, galleries) if review.inline else 0
    find_faces = _face_finder(check_context) if review.hide_faces else None
    return dg.MetadataValue.md(
        gallery(outcome.findings, check_context.storage, max_bytes, find_faces, outcome.found)
    )


def _face_finder(check_context: "CheckContext") -> "FindFaces":
    """Return a function that finds the detected faces in an image file.

    The manifest of `processed_images` says where they are in its files and in the raw files that
    they were made from. In other files, faces are detected as `processed_images` would: in raw
    images that are not processed yet, as in the first run of a partition, and in files that are not
    those of their rows.
    """
    from imgassets.imaging.faces import FaceDetector, load_detector
    from imgassets.imaging.models import ensure_model
    from imgassets.imaging.pipeline import find_faces

    options = check_context.options
    detects = options.faces.action != "none" and "remove_face" in options.steps

    @cache
    def detector() -> FaceDetector | None:
        try:
            return load_detector(ensure_model(options.faces, models_folder()), options.faces)
        except ModelError:
            return None

    def find(data: bytes) -> Sequence[Sequence[int]] | None:
        known = check_context.known_faces(hashlib.sha256(data).hexdigest())
        if known is not None or not detects:
            return known or []
        loaded = detector()
        return None if loaded is None else find_faces(data, options, loaded)

    return find


def _residual_faces(check_context: "CheckContext") -> "CheckOutcome":
    """Detect faces a second time, on a sample of the processed images, and check the result."""
    from imgassets.checks.residual_faces import residual_faces
    from imgassets.imaging.models import ensure_model
    from imgassets.imaging.residual_sample import read_result, write_result
    from imgassets.settings import FaceSettings

    table, options = check_context.processed_table, check_context.options
    partition = check_context.partition
    try:
        # The check always runs YuNet: its score and its input size suit no other network.
        faces = options.faces if options.faces.model == "yunet" else FaceSettings()
        model = ensure_model(faces, models_folder())
        found = read_result(table, partition, options, model)
        if found is None:
            from imgassets.cores import available_cores
            from imgassets.imaging.residual import detect_residual_faces

            storage, threads = partition.storage, available_cores()
            found = detect_residual_faces(table, storage, options, model, threads=threads)
            write_result(found, table, partition, options, model)
    except ModelError as error:
        raise CheckError(str(error)) from error
    return residual_faces(check_context, found.checked, found.with_face, found.unreadable)
