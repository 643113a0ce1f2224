"""Check success rate, trim ratios and face removal against the retailer's bounds and recent days.

Computing the metrics of earlier partitions is in `history`; the statistics are in `drift`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imgassets.checks.context import CheckContext
from imgassets.checks.history import (
    FACE_SHARE,
    SUCCESS_RATE,
    TRIM_RATIO_MEAN,
    UNTRIMMED_SHARE,
    DriftReport,
    detect_drift,
)
from imgassets.checks.outcome import CheckOutcome, Finding
from imgassets.manifests import Outcome, ProcessedRow, count_outcomes
from imgassets.settings import Bounds
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
    rows = [row for row in context.raw_rows if row.outcome is not Outcome.REMOVED]
    bounds = context.options.checks
    min_rate = bounds.min_success_rate
    ok_count = sum(row.outcome is Outcome.OK for row in rows)
    rate = context.raw_metrics[SUCCESS_RATE].mean if rows else 1.0
    summary = (
        f"{ok_count} of {counted(len(rows), 'URL')} returned an image; "
        f"expected at least {min_rate:.1%}"
    )
    outcome_counts = Counter(row.outcome for row in rows)
    failed = sorted(
        (row for row in rows if row.outcome is not Outcome.OK),
        key=lambda row: outcome_counts[row.outcome],
        reverse=True,
    )
    fatal = rate < min(min_rate, bounds.fatal_success_rate)
    violations = [summary] if rate < min_rate else []
    if fatal:
        # No URL and no message of a server: this text is posted to the webhook.
        most_frequent = failed[0].outcome
        violations.append(
            f"this is below {bounds.fatal_success_rate:.1%} (checks.fatal_success_rate), so the "
            f"run fails; the outcome of {counted(outcome_counts[most_frequent], 'URL')} is "
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
            **count_outcomes(context.raw_table),
        },
        findings=[
            Finding(row.key, " ".join(filter(None, (row.outcome, row.error, row.url))))
            for row in failed
        ],
    )


def trim_ratios(context: CheckContext) -> CheckOutcome:
    """Check that the trim keeps neither too little nor too much of the images."""
    ratios = {
        row.key: row.trim_ratio for row in context.processed_rows if row.trim_ratio is not None
    }
    if not ratios:
        return CheckOutcome(summary="no image was trimmed", metrics={"images": 0})
    options = context.options.checks
    metrics = context.processed_metrics
    mean, untrimmed = metrics[TRIM_RATIO_MEAN].mean, metrics[UNTRIMMED_SHARE].mean
    p05, p95 = np.percentile(list(ratios.values()), [5, 95]).tolist()
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
    paths = {row.key: row.path for row in context.processed_rows}
    smallest_first = [
        Finding(key, f"{ratio:.1%} of the area kept", paths[key])
        for key, ratio in sorted(ratios.items(), key=lambda item: item[1])
    ]
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
            "images": len(ratios),
            **drift.medians,
        },
        findings=_by_direction(
            differences,
            smallest_first,
            smallest_first[::-1],
        ),
    )


def face_removal(context: CheckContext) -> CheckOutcome:
    """Check that all people's faces were removed, and that the share of faces is as expected."""
    rows = [row for row in context.processed_rows if row.face_count is not None]
    removing = context.options.faces.action != "none"
    with_face = [row for row in rows if row.face_count]
    # A rejected image still has its face, but no file was saved.
    left = [row for row in with_face if row.path is not None and row.face_removed is False]
    share = len(with_face) / len(rows) if rows else 0.0
    bounded = _BoundedMetric(
        "share of images with a face", share, "face_share", context.options.checks.face_share
    )
    drift = _processed_drift(context, FACE_SHARE)
    violations = []
    if left and removing:
        violations.append(
            f"{len(left)} of {counted(len(with_face), 'image')} with a face kept it; "
            "see the images below and faces.too_close, faces.action"
        )
    if rows and bounded.excess:
        violations.append(bounded.violation)
    without = [row for row in rows if not row.face_count]
    return CheckOutcome(
        summary=f"{len(with_face)} of {counted(len(rows), 'image')} had a face; "
        + (
            "all people's faces were removed" if removing else "faces are kept (faces.action: none)"
        ),
        violations=violations,
        drift=drift.messages,
        metrics={
            "faces found": sum(row.face_count or 0 for row in rows),
            "images with a face": len(with_face),
            "images that still have one": len(left),
            "images that keep a printed one": sum(row.face_rule == "printed" for row in rows),
            FACE_SHARE: share,
            **drift.medians,
        },
        findings=[_with_face(row) for row in left if removing]
        or _by_direction(
            [bounded.excess, *drift.differences.values()],
            # If too few faces were found, images without one may show a missed face.
            [Finding(row.key, "no face found", row.path) for row in _saved_first(without)],
            [_with_face(row) for row in _saved_first(with_face)],
        ),
    )


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
    differences: Sequence[float], low: Sequence[Finding], high: Sequence[Finding]
) -> list[Finding]:
    """Select the findings that explain the differences.

    Args:
        differences: Signed differences of the metrics; negative is too low.
        low: Findings that explain a metric that is too low, worst first.
        high: Findings that explain a metric that is too high, worst first.

    Returns:
        `low`, `high`, or both alternating if there are differences in both directions.
    """
    if not any(difference > 0 for difference in differences):
        return list(low) if any(difference < 0 for difference in differences) else []
    if not any(difference < 0 for difference in differences):
        return list(high)
    half = -(-max(len(low), len(high)) // 2)
    turns = [finding for pair in zip(low[:half], high[:half], strict=False) for finding in pair]
    return list({finding.key: finding for finding in turns}.values())


def _with_face(row: ProcessedRow) -> Finding:
    score = "" if row.face_score is None else f", score {row.face_score:.2f}"
    return Finding(row.key, f"{counted(row.face_count or 0, 'face')} found{score}", row.path)


def _saved_first(rows: Sequence[ProcessedRow]) -> list[ProcessedRow]:
    """Sort rows with a file before rows of rejected images, which have none to show."""
    return sorted(rows, key=lambda row: row.path is None)
