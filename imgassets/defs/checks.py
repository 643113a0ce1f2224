"""What must hold of the manifests of a partition, as Dagster's checks.

Here live the checks' names, what a user reads of them, and how a verdict is shown: its numbers also
when it passes, so that the page plots them, and the pictures when it fails. How it is judged is in
`imgassets.checks`; bounds and severities are in the settings, per retailer.

All checks of an asset are one step: a step of its own costs each a quarter more in Dagster's event
log, and the manifest would be read for each.
https://docs.dagster.io/guides/test/asset-checks
"""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from imgassets.defs.metadata import rounded
from imgassets.defs.partitions import partition_of
from imgassets.defs.resources import SettingsResource
from imgassets.defs.scope import Scope
from imgassets.folders import models_folder

if TYPE_CHECKING:
    from imgassets.checks.evidence import Evidence
    from imgassets.checks.verdict import Verdict
    from imgassets.settings import CheckSettings


@dataclass(frozen=True)
class _Check:
    """A check's name and what a user reads of it."""

    name: str
    description: str
    blocking: bool = False


_RAW: Sequence[_Check] = (
    _Check(
        "every_url_has_a_raw_row",
        "Each URL of `url_list` has exactly one row, and each picture that a row names is there.",
        blocking=True,
    ),
    _Check(
        "raw_files_match_rows",
        "Each served file has the size that its row says, and those that are read "
        "(`checks.files_sample`) have its checksum.",
        blocking=True,
    ),
    _Check(
        "download_success_rate",
        "Enough of the URLs gave a picture (`checks.min_success_rate`), and not far fewer than on "
        "the retailer's recent days (`checks.drift.success_rate`).",
    ),
    _Check(
        "duplicate_pictures",
        "Few pictures are copies of another (`checks.max_duplicates`), and none is shared by many "
        "products, as placeholders and size charts are (`checks.max_products`).",
    ),
)
_PROCESSED: Sequence[_Check] = (
    _Check(
        "every_url_has_a_processed_row",
        "Each URL of `url_list` has exactly one row, and each picture that a row names is there.",
        blocking=True,
    ),
    _Check(
        "processed_files_match_rows",
        "Each picture made has the size that its row says, and those that are read "
        "(`checks.files_sample`) have its checksum.",
        blocking=True,
    ),
    _Check(
        "trim_ratios",
        "The trim keeps neither too little nor too much (`checks.trim_ratio_mean`, `_p05`, `_p95`, "
        "`untrimmed_share`), and about as much as on the retailer's recent days (`checks.drift`).",
    ),
    _Check(
        "face_removal",
        "Every face found was removed, and as many pictures have one as expected "
        "(`checks.face_share`) and as on the retailer's recent days (`checks.drift.face_share`).",
    ),
    _Check(
        "residual_faces",
        "A second look at the pictures made finds hardly any face (`checks.max_residual_faces`).",
        blocking=True,
    ),
)


def build_checks(scope: Scope) -> list[dg.AssetChecksDefinition]:
    """The checks of `raw_images` and `processed_images`; those of one asset are one step."""

    @dg.multi_asset_check(
        name=scope.name("raw_images_checks"),
        specs=_specs(scope, "raw_images", _RAW),
        can_subset=True,
        required_resource_keys=scope.resource_keys("settings"),
    )
    def raw_images_checks(
        context: dg.AssetCheckExecutionContext,
    ) -> Iterator[dg.AssetCheckResult]:
        """All checks of a partition of `raw_images`."""
        from imgassets.checks import duplicates, figures, files, rows

        judges = {
            "every_url_has_a_raw_row": rows.every_url_has_a_raw_row,
            "raw_files_match_rows": files.raw_files_match_rows,
            "download_success_rate": figures.download_success_rate,
            "duplicate_pictures": duplicates.duplicate_pictures,
        }
        yield from _judged(context, scope.settings_resource(context), judges)

    @dg.multi_asset_check(
        name=scope.name("processed_images_checks"),
        specs=_specs(scope, "processed_images", _PROCESSED),
        can_subset=True,
        required_resource_keys=scope.resource_keys("settings"),
    )
    def processed_images_checks(
        context: dg.AssetCheckExecutionContext,
    ) -> Iterator[dg.AssetCheckResult]:
        """All checks of a partition of `processed_images`."""
        from imgassets.checks import figures, files, rows

        judges = {
            "every_url_has_a_processed_row": rows.every_url_has_a_processed_row,
            "processed_files_match_rows": files.processed_files_match_rows,
            "trim_ratios": figures.trim_ratios,
            "face_removal": figures.face_removal,
            "residual_faces": _residual_faces,
        }
        yield from _judged(context, scope.settings_resource(context), judges)

    return [raw_images_checks, processed_images_checks]


def _specs(scope: Scope, asset: str, checks: Sequence[_Check]) -> list[dg.AssetCheckSpec]:
    with warnings.catch_warnings():
        # Dagster 1.13 marks checks of partitions as a preview.
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


def _judged(
    context: dg.AssetCheckExecutionContext,
    settings: SettingsResource,
    judges: Mapping[str, Callable[["Evidence"], "Verdict"]],
) -> Iterator[dg.AssetCheckResult]:
    """The results of the checks that were selected.

    One that cannot judge does not keep the others from it; the step fails once they have.
    """
    from imgassets.checks.evidence import Evidence
    from imgassets.checks.verdict import CannotJudgeError
    from imgassets.storage import StorageError, open_storage

    partition = partition_of(context)
    common = settings.load()
    evidence = Evidence(
        open_storage(common), *partition, options=common.for_retailer(partition.retailer)
    )
    selected = {key.name: key for key in context.selected_asset_check_keys}
    problems: list[str] = []
    for name, judge in judges.items():
        if name not in selected:
            continue
        try:
            verdict = judge(evidence)
        except (CannotJudgeError, StorageError) as error:
            problems.append(str(error))
        else:
            yield _result(selected[name], verdict, evidence.options.checks)
    if problems:
        raise dg.Failure("\n".join(dict.fromkeys(problems)), allow_retries=False)


def _result(
    key: dg.AssetCheckKey, verdict: "Verdict", options: "CheckSettings"
) -> dg.AssetCheckResult:
    from imgassets.checks.gallery import gallery

    metadata: dict[str, Any] = {
        name: rounded(figure) if isinstance(figure, float) else figure
        for name, figure in verdict.figures.items()
    }
    if not verdict.passed and verdict.concerns:
        metadata["pictures to look at"] = dg.MetadataValue.md(gallery(verdict.concerns))
    drifted_only = bool(verdict.drift) and not verdict.wrong
    severity = getattr(options.severity, "drift" if drifted_only else key.name)
    return dg.AssetCheckResult(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=verdict.passed,
        severity=dg.AssetCheckSeverity(severity.upper()),
        description=verdict.told,
        metadata=metadata,
    )


def _residual_faces(evidence: "Evidence") -> "Verdict":
    """Look a second time at a sample of the pictures made."""
    from imgassets.checks.evidence import PROCESSED
    from imgassets.checks.verdict import CannotJudgeError, Concern, Verdict
    from imgassets.imaging.models import ModelError, ensure_model
    from imgassets.imaging.residual import check_residual

    rows, folder, options = (
        evidence.processed_rows,
        evidence.folder(PROCESSED),
        evidence.options,
    )
    try:
        model = ensure_model(options.faces, models_folder())
        residual = check_residual(rows, folder, options, model, threads=os.cpu_count() or 1)
    except ModelError as error:
        raise CannotJudgeError(str(error)) from error
    most = options.checks.max_residual_faces
    told = (
        f"{len(residual.with_face)} of {residual.looked_at} pictures looked at again "
        f"still show a face; at most {most:.1%} may"
    )
    wrong = [told] if residual.share > most else []
    if residual.unreadable:
        wrong.append(f"{len(residual.unreadable)} pictures cannot be read")
    paths = {row.key: row.path for row in rows}
    return Verdict(
        fine=told,
        wrong=wrong,
        figures={
            "looked at": residual.looked_at,
            "with a face": len(residual.with_face),
            "share": residual.share,
            "not readable": len(residual.unreadable),
        },
        concerns=[
            Concern(key, what, folder, paths[key])
            for keys, what in (
                (residual.with_face, "still shows a face"),
                (residual.unreadable, "cannot be read"),
            )
            for key in keys
        ],
    )
