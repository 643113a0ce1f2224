"""Check success rate, trim ratios and face removal against the retailer's bounds and recent days.

Computing the metrics of earlier partitions is in `history`; the statistics are in `drift`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgassets.checks.context import CheckContext
from imgassets.checks.history import (
    FACE_SHARE,
    SUCCESS_RATE,
    TRIM_RATIO_MEAN,
    UNTRIMMED_SHARE,
    DriftReport,
    detect_drift,
)
from imgassets.checks.outcome import MAX_FINDINGS, CheckOutcome, Finding
from imgassets.manifests import Outcome, ProcessedRow, RawRow, count_outcomes, from_table
from imgassets.settings import Bounds
from imgassets.tables import as_mask, take_rows
from imgassets.wording import counted


@dataclass(frozen=True, slots=True)
class _BoundedMetric:
    """A value with its bounds, which are the option `checks.<option>`."""

    name: str
    value: float
    option: str
    bounds: Bounds

    @property
    def excess(self) -> float:
        """Signed distance from the bounds: negative below, positive above, 0 within."""
        return min(0.0, self.value - self.bounds.min) + max(0.0, self.value - self.bounds.max)

    @property
    def violation(self) -> str:
        return (
            f"{self.name} is {self.value:.3f}; "
            f"expected between {self.bounds.min:g} and {self.bounds.max:g} (checks.{self.option})"
        )


def download_success_rate(context: CheckContext) -> CheckOutcome:
    """Check the share of URLs that returned an image, of those that were not taken down."""
    table = context.raw_table
    counts = count_outcomes(table)
    urls = table.num_rows - counts.get(Outcome.REMOVED, 0)
    ok_count = counts.get(Outcome.OK, 0)
    bounds = context.options.checks
    min_rate = bounds.min_success_rate
    rate = context.raw_metrics[SUCCESS_RATE].mean if urls else 1.0
    summary = (
        f"{ok_count} of {counted(urls, 'URL')} returned an image; expected at least {min_rate:.1%}"
    )
    failed = _failed_rows(table, counts)
    fatal = rate < min(min_rate, bounds.fatal_success_rate)
    violations = [summary] if rate < min_rate else []
    if fatal:
        # No URL and no message of a server: this text is posted to the webhook.
        most_frequent = table["outcome"][int(failed[0])].as_py()
        violations.append(
            f"this is below {bounds.fatal_success_rate:.1%} (checks.fatal_success_rate), so the "
            f"run fails; the outcome of {counted(counts[most_frequent], 'URL')} is "
            f"{most_frequent}"
        )
    drift = detect_drift(
        context.raw_metrics,
        context.earlier_raw,
        {SUCCESS_RATE: bounds.drift.success_rate},
        bounds.drift,
        falls_only=True,
    )
    return CheckOutcome(
        summary=summary,
        violations=violations,
        fatal=fatal,
        drift=drift.messages,
        metrics={
            SUCCESS_RATE: rate,
            "minimum success rate": min_rate,
            **drift.medians,
            **counts,
        },
        findings=[
            Finding(row.key, " ".join(filter(None, (row.outcome, row.error, row.url))))
            for row in from_table(take_rows(table, failed[:MAX_FINDINGS]), RawRow)
        ],
        found=len(failed),
    )


def _failed_rows(table: pa.Table, counts: Mapping[str, int]) -> NDArray[np.int64]:
    """The indices of the failed rows, those with the most frequent outcome first.

    Args:
        table: The manifest of `raw_images`.
        counts: Number of rows by outcome.
    """
    others = pa.array([str(Outcome.OK), str(Outcome.REMOVED)])
    failed = np.flatnonzero(~as_mask(pc.is_in(table["outcome"], value_set=others)))
    outcomes = table["outcome"].take(pa.array(failed)).combine_chunks().dictionary_encode()
    frequencies = np.array([counts[word] for word in outcomes.dictionary.to_pylist()], np.int64)
    return failed[np.argsort(-frequencies[outcomes.indices.to_numpy()], kind="stable")]


def trim_ratios(context: CheckContext) -> CheckOutcome:
    """Check that the trim keeps neither too little nor too much of the images."""
    column = context.processed_table["trim_ratio"]
    numbers = np.flatnonzero(as_mask(pc.is_valid(column)))
    ratios = column.drop_null().to_numpy()
    if not ratios.size:
        return CheckOutcome(summary="no image was trimmed", metrics={"images": 0})
    options = context.options.checks
    metrics = context.processed_metrics
    mean, untrimmed = metrics[TRIM_RATIO_MEAN].mean, metrics[UNTRIMMED_SHARE].mean
    p05, p95 = np.percentile(ratios, [5, 95]).tolist()
    bounded = [
        _BoundedMetric(name, value, option, getattr(options, option))
        for name, value, option in (
            ("mean trim ratio", mean, "trim_ratio_mean"),
            ("5th percentile of the trim ratio", p05, "trim_ratio_p05"),
            ("95th percentile of the trim ratio", p95, "trim_ratio_p95"),
            ("share of untrimmed images", untrimmed, "untrimmed_share"),
        )
    ]
    outside = [metric for metric in bounded if metric.excess]
    drift = _processed_drift(context, TRIM_RATIO_MEAN, UNTRIMMED_SHARE)
    differences = [*(metric.excess for metric in outside), *drift.differences.values()]
    smallest_first = numbers[np.argsort(ratios, kind="stable")]
    to_show = _by_direction(differences, smallest_first, smallest_first[::-1])
    return CheckOutcome(
        summary=f"mean {mean:.3f}, 5th percentile {p05:.3f}, 95th percentile {p95:.3f}, "
        f"{untrimmed:.1%} of the images not trimmed at all",
        violations=[metric.violation for metric in outside],
        drift=drift.messages,
        metrics={
            TRIM_RATIO_MEAN: mean,
            "trim ratio/p05": p05,
            "trim ratio/p95": p95,
            UNTRIMMED_SHARE: untrimmed,
            "images": ratios.size,
            **drift.medians,
        },
        findings=[
            Finding(row.key, f"{row.trim_ratio:.1%} of the area kept", row.path)
            for row in _processed_rows(context, to_show)
        ],
        found=len(to_show),
    )


def face_removal(context: CheckContext) -> CheckOutcome:
    """Check that all people's faces were removed, and that the share of faces is as expected."""
    table = context.processed_table
    removing = context.options.faces.action != "none"
    is_searched = as_mask(pc.is_valid(table["face_count"]))
    has_face = as_mask(pc.greater(table["face_count"], 0))
    # A rejected image still has its face, but no file was saved.
    is_saved = as_mask(pc.is_valid(table["path"]))
    left = np.flatnonzero(has_face & is_saved & as_mask(pc.equal(table["face_removed"], False)))
    searched, with_face = int(is_searched.sum()), int(has_face.sum())
    share = with_face / searched if searched else 0.0
    bounded = _BoundedMetric(
        "share of images with a face", share, "face_share", context.options.checks.face_share
    )
    drift = _processed_drift(context, FACE_SHARE)
    violations = []
    if left.size and removing:
        violations.append(
            f"{len(left)} of {counted(with_face, 'image')} with a face kept it; "
            "see the images below and faces.too_close, faces.action"
        )
    if searched and bounded.excess:
        violations.append(bounded.violation)
    to_show = left
    if not (removing and left.size):
        # If too few faces were found, images without one may show a missed face.
        to_show = _by_direction(
            [bounded.excess, *drift.differences.values()],
            _saved_first(is_searched & ~has_face, is_saved),
            _saved_first(has_face, is_saved),
        )
    return CheckOutcome(
        summary=f"{with_face} of {counted(searched, 'image')} had a face; "
        + (
            "all people's faces were removed" if removing else "faces are kept (faces.action: none)"
        ),
        violations=violations,
        drift=drift.messages,
        metrics={
            "faces found": pc.sum(table["face_count"]).as_py() or 0,
            "images with a face": with_face,
            "images that still have one": len(left),
            "images that keep a printed one": int(
                (is_searched & as_mask(pc.equal(table["face_rule"], "printed"))).sum()
            ),
            FACE_SHARE: share,
            **drift.medians,
        },
        findings=[_of_faces(row) for row in _processed_rows(context, to_show)],
        found=len(to_show),
    )


def _processed_rows(context: CheckContext, to_show: NDArray[np.int64]) -> list[ProcessedRow]:
    """The first of some rows of `processed_images`, given by their indices."""
    return from_table(take_rows(context.processed_table, to_show[:MAX_FINDINGS]), ProcessedRow)


def _processed_drift(context: CheckContext, *names: str) -> DriftReport:
    options = context.options.checks.drift
    allowed = {
        TRIM_RATIO_MEAN: options.trim_ratio_mean,
        UNTRIMMED_SHARE: options.untrimmed_share,
        FACE_SHARE: options.face_share,
    }
    return detect_drift(
        context.processed_metrics,
        context.earlier_processed,
        {name: allowed[name] for name in names},
        options,
    )


def _by_direction(
    differences: Sequence[float], low: NDArray[np.int64], high: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Select the rows that explain the differences.

    Args:
        differences: Signed differences of the metrics; negative is too low.
        low: Indices of rows that explain a metric that is too low, worst first.
        high: Indices of rows that explain a metric that is too high, worst first.

    Returns:
        `low`, `high`, or both alternating if there are differences in both directions.
    """
    if not any(difference > 0 for difference in differences):
        return low if any(difference < 0 for difference in differences) else low[:0]
    if not any(difference < 0 for difference in differences):
        return high
    half = min(-(-max(len(low), len(high)) // 2), len(low), len(high))
    turns = np.stack([low[:half], high[:half]], axis=1).ravel()
    _, first = np.unique(turns, return_index=True)
    return turns[np.sort(first)]


def _of_faces(row: ProcessedRow) -> Finding:
    if not row.face_count:
        return Finding(row.key, "no face found", row.path)
    score = "" if row.face_score is None else f", score {row.face_score:.2f}"
    return Finding(row.key, f"{counted(row.face_count, 'face')} found{score}", row.path)


def _saved_first(is_wanted: NDArray[np.bool_], is_saved: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Indices of rows, those with a file before rejected images, which have none to show."""
    return np.concatenate(
        [np.flatnonzero(is_wanted & is_saved), np.flatnonzero(is_wanted & ~is_saved)]
    )
