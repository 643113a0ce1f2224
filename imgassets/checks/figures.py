"""Do a partition's figures lie within the retailer's bounds, and near those of recent days?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imgassets.checks.evidence import PROCESSED, Evidence
from imgassets.checks.history import FACES, SUCCESS, TRIM, UNTRIMMED, Compared, compared
from imgassets.checks.verdict import Concern, Verdict
from imgassets.manifests import Outcome, ProcessedRow, count_outcomes
from imgassets.settings import Bounds
from imgassets.storage import Folder


@dataclass(frozen=True, slots=True)
class _Bounded:
    """A figure beside its bounds."""

    name: str
    value: float
    bounds: Bounds

    @property
    def change(self) -> float:
        """How far it lies outside, negative below; 0 inside."""
        return min(0.0, self.value - self.bounds.min) + max(0.0, self.value - self.bounds.max)

    @property
    def told(self) -> str:
        return (
            f"{self.name} is {self.value:.3f}; "
            f"it should lie between {self.bounds.min:g} and {self.bounds.max:g}"
        )


def download_success_rate(evidence: Evidence) -> Verdict:
    """Judge how many of the URLs gave a picture."""
    rows = evidence.raw_rows
    least = evidence.options.checks.min_success_rate
    good = sum(row.outcome is Outcome.OK for row in rows)
    rate = evidence.raw_figures[SUCCESS].mean if rows else 1.0
    told = f"{good} of {len(rows)} URLs gave a picture; at least {least:.1%} should"
    options = evidence.options.checks.drift
    drift = compared(
        evidence.raw_figures,
        evidence.earlier_raw,
        {SUCCESS: options.success_rate},
        options,
        falls_only=True,
    )
    often = Counter(row.outcome for row in rows)
    failed = sorted(
        (row for row in rows if row.outcome is not Outcome.OK),
        key=lambda row: often[row.outcome],
        reverse=True,
    )
    return Verdict(
        fine=told,
        wrong=[told] if rate < least else [],
        drift=drift.told,
        figures={SUCCESS: rate, "least": least, **drift.medians, **count_outcomes(rows)},
        concerns=[
            Concern(row.key, " ".join(filter(None, (row.outcome, row.error, row.url))))
            for row in failed
        ],
    )


def trim_ratios(evidence: Evidence) -> Verdict:
    """Judge whether the trim keeps neither too little nor too much."""
    ratios = {
        row.key: row.trim_ratio for row in evidence.processed_rows if row.trim_ratio is not None
    }
    if not ratios:
        return Verdict(fine="no picture was trimmed", figures={"pictures": 0})
    options = evidence.options.checks
    figures = evidence.processed_figures
    mean, untrimmed = figures[TRIM].mean, figures[UNTRIMMED].mean
    p05, p95 = np.percentile(list(ratios.values()), [5, 95]).tolist()
    bounded = [
        _Bounded("mean", mean, options.trim_ratio_mean),
        _Bounded("5th percentile", p05, options.trim_ratio_p05),
        _Bounded("95th percentile", p95, options.trim_ratio_p95),
        _Bounded("share of pictures not trimmed at all", untrimmed, options.untrimmed_share),
    ]
    outside = [one for one in bounded if one.change]
    drift = _processed_drift(evidence, TRIM, UNTRIMMED)
    changes = [*(one.change for one in outside), *drift.changes.values()]
    folder = evidence.folder(PROCESSED)
    paths = {row.key: row.path for row in evidence.processed_rows}
    tightest = [
        Concern(key, f"{ratio:.1%} of the area kept", folder, paths[key])
        for key, ratio in sorted(ratios.items(), key=lambda item: item[1])
    ]
    return Verdict(
        fine=f"mean {mean:.3f}, 5th percentile {p05:.3f}, 95th percentile {p95:.3f}, "
        f"{untrimmed:.1%} of the pictures not trimmed at all",
        wrong=[one.told for one in outside],
        drift=drift.told,
        figures={
            TRIM: mean,
            "trim ratio/p05": p05,
            "trim ratio/p95": p95,
            UNTRIMMED: untrimmed,
            "pictures": len(ratios),
            **drift.medians,
        },
        concerns=_by_direction(
            changes,
            tightest,
            tightest[::-1],
        ),
    )


def face_removal(evidence: Evidence) -> Verdict:
    """Judge whether every face found was removed, and whether as many were found as usual."""
    rows = [row for row in evidence.processed_rows if row.face_count is not None]
    removing = evidence.options.faces.action != "none"
    with_face = [row for row in rows if row.face_count]
    # A picture that was refused has its face, but nobody sees it: it was not saved.
    left = [row for row in with_face if row.path is not None and not row.face_removed]
    share = len(with_face) / len(rows) if rows else 0.0
    bounded = _Bounded("share of pictures with a face", share, evidence.options.checks.face_share)
    drift = _processed_drift(evidence, FACES)
    wrong = []
    if left and removing:
        wrong.append(f"{len(left)} of {len(with_face)} pictures with a face still have it")
    if rows and bounded.change:
        wrong.append(bounded.told)
    folder = evidence.folder(PROCESSED)
    without = [row for row in rows if not row.face_count]
    return Verdict(
        fine=f"{len(with_face)} of {len(rows)} pictures had a face, "
        + ("and none has it still" if removing else "and faces are left as they are"),
        wrong=wrong,
        drift=drift.told,
        figures={
            "faces found": sum(row.face_count or 0 for row in rows),
            "pictures with a face": len(with_face),
            "pictures that still have one": len(left),
            FACES: share,
            **drift.medians,
        },
        concerns=[_with_face(row, folder) for row in left if removing]
        or _by_direction(
            [bounded.change, *drift.changes.values()],
            # Where too few were found, those without one may show one.
            [Concern(row.key, "no face found", folder, row.path) for row in _made_first(without)],
            [_with_face(row, folder) for row in _made_first(with_face)],
        ),
    )


def _processed_drift(evidence: Evidence, *names: str) -> Compared:
    options = evidence.options.checks.drift
    allowed = {
        TRIM: options.trim_ratio_mean,
        UNTRIMMED: options.untrimmed_share,
        FACES: options.face_share,
    }
    return compared(
        evidence.processed_figures,
        evidence.earlier_processed,
        {name: allowed[name] for name in names},
        options,
    )


def _by_direction(
    changes: Sequence[float], low: Sequence[Concern], high: Sequence[Concern]
) -> list[Concern]:
    """What explains figures that are too low, or too high; both by turns where some are each."""
    if not any(change > 0 for change in changes):
        return list(low) if any(change < 0 for change in changes) else []
    if not any(change < 0 for change in changes):
        return list(high)
    half = -(-max(len(low), len(high)) // 2)
    turns = [one for pair in zip(low[:half], high[:half], strict=False) for one in pair]
    return list({one.key: one for one in turns}.values())


def _with_face(row: ProcessedRow, folder: Folder) -> Concern:
    score = "" if row.face_score is None else f", score {row.face_score:.2f}"
    return Concern(row.key, f"{row.face_count} faces found{score}", folder, row.path)


def _made_first(rows: Sequence[ProcessedRow]) -> list[ProcessedRow]:
    """Those that a person can look at before those that were refused."""
    return sorted(rows, key=lambda row: row.path is None)
