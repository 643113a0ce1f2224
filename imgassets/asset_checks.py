"""What must hold of the manifests of a partition.

Here lives what is compared with which bound, and how a check shows what it measured: also when it
passes, so that the page plots it. The bounds are in the settings, per retailer.
https://docs.dagster.io/guides/test/asset-checks
"""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from imgassets.assets.processed_images import processed_images
from imgassets.assets.raw_images import raw_images
from imgassets.assets.showing import table, told_as_failure
from imgassets.partitions import catalogue, partition_of
from imgassets.resources import SettingsResource
from imgassets.settings import models_folder

if TYPE_CHECKING:
    import pyarrow as pa

    from imgassets.manifests import ProcessedRow, RawRow
    from imgassets.settings import Bounds, CheckSettings
    from imgassets.storage import Folder


def _check_of(
    asset: dg.AssetsDefinition, *, blocking: bool = False
) -> Callable[[Callable[..., dg.AssetCheckResult]], dg.AssetChecksDefinition]:
    """Make a function a check of an asset's partitions."""

    def decorate(function: Callable[..., dg.AssetCheckResult]) -> dg.AssetChecksDefinition:
        with warnings.catch_warnings():
            # Dagster 1.13 calls checks of partitions a preview, at each import of this module.
            warnings.simplefilter("ignore", dg.PreviewWarning)
            check = dg.asset_check(asset=asset, partitions_def=catalogue, blocking=blocking)
            return check(function)

    return decorate


@_check_of(raw_images, blocking=True)
def every_url_has_a_raw_row(
    context: dg.AssetCheckExecutionContext, settings: SettingsResource
) -> dg.AssetCheckResult:
    """Each URL of url_list has exactly one row, and each picture named by a row is there, whole."""
    return _accounted_for(context, settings, "raw_images")


@_check_of(processed_images, blocking=True)
def every_url_has_a_processed_row(
    context: dg.AssetCheckExecutionContext, settings: SettingsResource
) -> dg.AssetCheckResult:
    """Each URL of url_list has exactly one row, and each picture that a row names is there."""
    return _accounted_for(context, settings, "processed_images")


@_check_of(raw_images)
def download_success_rate(
    context: dg.AssetCheckExecutionContext, settings: SettingsResource
) -> dg.AssetCheckResult:
    """Enough of the URLs gave a picture (`checks.min_success_rate`)."""
    from imgassets.manifests import Outcome, count_outcomes

    rows = _raw_rows(context, settings)
    least = _bounds_of(context, settings).min_success_rate
    good = sum(row.outcome is Outcome.OK for row in rows)
    rate = good / len(rows) if rows else 1.0
    return dg.AssetCheckResult(
        passed=rate >= least,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{good} of {len(rows)} URLs gave a picture; at least {least:.1%} should",
        metadata={"success rate": rate, "least": least, **count_outcomes(rows)},
    )


@_check_of(processed_images)
def trim_ratios(
    context: dg.AssetCheckExecutionContext, settings: SettingsResource
) -> dg.AssetCheckResult:
    """The trim keeps neither too little nor too much (`checks.trim_ratio_mean`, `_p05`)."""
    import numpy as np

    rows = _processed_rows(context, settings)
    bounds = _bounds_of(context, settings)
    ratios = {row.key: row.trim_ratio for row in rows if row.trim_ratio is not None}
    if not ratios:
        return dg.AssetCheckResult(passed=True, description="no picture was trimmed")
    mean = float(np.mean(list(ratios.values())))
    p05 = float(np.percentile(list(ratios.values()), 5))
    wrong = [
        text
        for name, value, bound in (
            ("mean", mean, bounds.trim_ratio_mean),
            ("5th percentile", p05, bounds.trim_ratio_p05),
        )
        if (text := _outside(name, value, bound))
    ]
    tightest = sorted(ratios.items(), key=lambda item: item[1])
    return dg.AssetCheckResult(
        passed=not wrong,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(wrong) or f"mean {mean:.3f}, 5th percentile {p05:.3f}",
        metadata={
            "trim ratio/mean": mean,
            "trim ratio/p05": p05,
            "pictures": len(ratios),
            "tightest": table([{"key": key, "trim ratio": ratio} for key, ratio in tightest[:10]]),
        },
    )


@_check_of(processed_images)
def face_removal(
    context: dg.AssetCheckExecutionContext, settings: SettingsResource
) -> dg.AssetCheckResult:
    """Every face found was removed, and as many pictures have one as expected (`face_share`)."""
    rows = [row for row in _processed_rows(context, settings) if row.face_count is not None]
    options = settings.load().for_retailer(partition_of(context).retailer)
    removing = options.faces.action != "none"
    with_face = [row for row in rows if row.face_count]
    # A picture that was refused has its face, but nobody sees it: it was not saved.
    left = [row for row in with_face if row.path is not None and not row.face_removed]
    share = len(with_face) / len(rows) if rows else 0.0
    wrong = []
    if left and removing:
        wrong.append(f"{len(left)} of {len(with_face)} pictures with a face still have it")
    if rows and (
        text := _outside("share of pictures with a face", share, options.checks.face_share)
    ):
        wrong.append(text)
    return dg.AssetCheckResult(
        passed=not wrong,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(wrong)
        or f"{len(with_face)} of {len(rows)} pictures had a face, "
        + ("and none has it still" if removing else "and faces are left as they are"),
        metadata={
            "faces found": sum(row.face_count or 0 for row in rows),
            "pictures with a face": len(with_face),
            "pictures that still have one": len(left),
            "share with a face": share,
            "still there": table([{"key": row.key, "score": row.face_score} for row in left]),
        },
    )


@_check_of(processed_images, blocking=True)
def residual_faces(
    context: dg.AssetCheckExecutionContext, settings: SettingsResource
) -> dg.AssetCheckResult:
    """A second look at the pictures made finds hardly any face (`checks.max_residual_faces`)."""
    from imgassets.imaging.models import ModelError, ensure_model
    from imgassets.imaging.residual import check_residual
    from imgassets.storage import StorageError

    options = settings.load().for_retailer(partition_of(context).retailer)
    with told_as_failure(ModelError, StorageError):
        residual = check_residual(
            _processed_rows(context, settings),
            _folder(context, settings, "processed_images"),
            options,
            ensure_model(options.faces, models_folder()),
            threads=os.cpu_count() or 1,
        )
    most = options.checks.max_residual_faces
    return dg.AssetCheckResult(
        passed=residual.share <= most,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(residual.with_face)} of {residual.looked_at} pictures looked at again "
        f"still show a face; at most {most:.1%} may",
        metadata={
            "looked at": residual.looked_at,
            "with a face": len(residual.with_face),
            "share": residual.share,
            "pictures": table([{"key": key} for key in residual.with_face]),
        },
    )


CHECKS = [
    every_url_has_a_raw_row,
    every_url_has_a_processed_row,
    download_success_rate,
    trim_ratios,
    face_removal,
    residual_faces,
]


def _accounted_for(
    context: dg.AssetCheckExecutionContext, settings: SettingsResource, asset: str
) -> dg.AssetCheckResult:
    from imgassets.manifests import RawRow
    from imgassets.storage import IMAGES, StorageError, removed

    wanted = _table(context, settings, "url_list").column("key").to_pylist()
    rows: Sequence[RawRow | ProcessedRow] = (
        _raw_rows(context, settings)
        if asset == "raw_images"
        else _processed_rows(context, settings)
    )
    found = Counter(row.key for row in rows)
    folder = _folder(context, settings, asset)
    with told_as_failure(StorageError):
        sizes, gone = (folder / IMAGES).sizes(), removed(folder)
    named = [(row, row.path.rsplit("/", 1)[-1]) for row in rows if row.path is not None]
    problems = [
        *_named("has no row", (key for key in wanted if key not in found)),
        *_named("has several rows", (key for key, count in found.items() if count > 1)),
        *_named("has a row, but is not in url_list", found.keys() - set(wanted)),
        *_named(
            "is named by its row, but its file is gone",
            (row.key for row, name in named if name not in sizes and name not in gone),
        ),
        *_named(
            "has a file of another size than its row says",
            (
                row.key
                for row, name in named
                if isinstance(row, RawRow) and sizes.get(name, row.bytes) != row.bytes
            ),
        ),
        *_named(
            "is ok, but its row names no file",
            (row.key for row in rows if row.outcome == "ok" and row.path is None),
        ),
    ]
    return dg.AssetCheckResult(
        passed=not problems,
        description=f"{len(problems)} problems with the rows of {len(wanted)} URLs"
        if problems
        else f"all {len(wanted)} URLs are accounted for",
        metadata={"urls": len(wanted), "rows": len(rows), "problems": table(problems)},
    )


def _named(what: str, keys: Iterable[str]) -> list[dict[str, str | int | float | None]]:
    return [{"key": key, "problem": what} for key in sorted(keys)]


def _outside(name: str, value: float, bounds: "Bounds") -> str | None:
    if bounds.min <= value <= bounds.max:
        return None
    return f"{name} is {value:.3f}; it should lie between {bounds.min:g} and {bounds.max:g}"


def _bounds_of(
    context: dg.AssetCheckExecutionContext, settings: SettingsResource
) -> "CheckSettings":
    return settings.load().for_retailer(partition_of(context).retailer).checks


def _folder(
    context: dg.AssetCheckExecutionContext, settings: SettingsResource, asset: str
) -> "Folder":
    return settings.storage().partition(asset, *partition_of(context))


def _table(
    context: dg.AssetCheckExecutionContext, settings: SettingsResource, asset: str
) -> "pa.Table":
    from imgassets.storage import StorageError, read_table

    try:
        with told_as_failure(StorageError):
            return read_table(_folder(context, settings, asset))
    except FileNotFoundError:
        raise dg.Failure(
            f"{asset} of {partition_of(context).key} was never materialized; materialize it first",
            allow_retries=False,
        ) from None


def _raw_rows(context: dg.AssetCheckExecutionContext, settings: SettingsResource) -> list["RawRow"]:
    from imgassets.manifests import RawRow, from_table

    return from_table(_table(context, settings, "raw_images"), RawRow)


def _processed_rows(
    context: dg.AssetCheckExecutionContext, settings: SettingsResource
) -> list["ProcessedRow"]:
    from imgassets.manifests import ProcessedRow, from_table

    return from_table(_table(context, settings, "processed_images"), ProcessedRow)
