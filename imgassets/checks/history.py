"""Figures of a partition, and of the retailer's earlier ones.

They are read from the manifests, a few columns each: whatever made those, and whether or not
Dagster still knows of it. Only earlier days count, so that a backfill of the past is not compared
with what came later.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from imgassets.checks.drift import Drift, Figure, compare
from imgassets.checks.evidence import PROCESSED, RAW, Evidence
from imgassets.manifests import Outcome
from imgassets.settings import DriftSettings
from imgassets.storage import MANIFEST

SUCCESS, FACES = "success rate", "share with a face"
TRIM, UNTRIMMED = "trim ratio/mean", "share not trimmed"

_RAW_COLUMNS = ["product_id", "outcome"]
_PROCESSED_COLUMNS = ["product_id", "trim_ratio", "face_count", "settings_hash"]


@dataclass(frozen=True, slots=True)
class Compared:
    """A partition beside the retailer's earlier ones.

    Attributes:
        told: a sentence for each figure that differs too much.
        changes: of those figures, with their sign.
        figures: the recent medians, to be plotted.
    """

    told: list[str]
    changes: dict[str, float]
    figures: dict[str, float]


def raw_figures(table: pa.Table) -> dict[str, Figure]:
    """The success rate of a manifest of `raw_images`, over all URLs."""
    ok = pc.equal(table["outcome"].cast(pa.string()), str(Outcome.OK))
    return {SUCCESS: _figure(table, ok.cast(pa.float64()))}


def processed_figures(table: pa.Table) -> dict[str, Figure]:
    """Mean trim ratio and shares of a manifest of `processed_images`, over what has a value."""
    ratios, faces = table["trim_ratio"], table["face_count"]
    return {
        TRIM: _figure(table, ratios),
        UNTRIMMED: _figure(table, pc.greater_equal(ratios, 1).cast(pa.float64())),
        FACES: _figure(table, pc.greater(faces, 0).cast(pa.float64())),
    }


def raw_drift(evidence: Evidence) -> Compared:
    """Compare the success rate; only its fall counts."""
    options = evidence.options.checks.drift
    earlier = [raw_figures(table) for table in _earlier(evidence, RAW, _RAW_COLUMNS, options)]
    allowed = {SUCCESS: options.success_rate}
    return _compared(raw_figures(evidence.raw_table), earlier, allowed, options, falls_only=True)


def processed_drift(evidence: Evidence, *names: str) -> Compared:
    """Compare some figures with those of earlier partitions made with the same settings."""
    options = evidence.options.checks.drift
    allowed = {
        TRIM: options.trim_ratio_mean,
        UNTRIMMED: options.untrimmed_share,
        FACES: options.face_share,
    }
    made_with = _settings_hash(evidence.processed_table)
    earlier = [
        processed_figures(table)
        for table in _earlier(evidence, PROCESSED, _PROCESSED_COLUMNS, options, made_with)
    ]
    figures = processed_figures(evidence.processed_table)
    return _compared(figures, earlier, {name: allowed[name] for name in names}, options)


def _compared(
    figures: Mapping[str, Figure],
    earlier: list[dict[str, Figure]],
    allowed: Mapping[str, float],
    options: DriftSettings,
    *,
    falls_only: bool = False,
) -> Compared:
    told: list[str] = []
    changes: dict[str, float] = {}
    medians: dict[str, float] = {}
    for name, most in allowed.items():
        figure = figures[name]
        recent = [one[name] for one in earlier if one[name].pictures >= options.min_pictures]
        if figure.pictures < options.min_pictures:
            continue
        drift = compare(figure, recent)
        if drift is None:
            continue
        medians[f"{name}, recent median"] = drift.median
        if drift.exceeds(most) and not (falls_only and drift.difference > 0):
            told.append(_told(name, figure, drift, len(recent)))
            changes[name] = drift.difference
    return Compared(told, changes, medians)


def _told(name: str, figure: Figure, drift: Drift, partitions: int) -> str:
    return (
        f"{name} is {figure.mean:.3f}; the median of the {partitions} partitions before is "
        f"{drift.median:.3f}, and chance explains {drift.chance:.3f}"
    )


def _earlier(
    evidence: Evidence,
    asset: str,
    columns: list[str],
    options: DriftSettings,
    made_with: str | None = None,
) -> Iterator[pa.Table]:
    """Manifests of the retailer's partitions before this one, the latest first."""
    day = dt.date.fromisoformat(evidence.date)
    found = 0
    for back in range(1, options.days + 1):
        date = (day - dt.timedelta(days=back)).isoformat()
        folder = evidence.storage.partition(asset, date, evidence.retailer)
        try:
            table = _columns(folder.read(MANIFEST), columns)
        except FileNotFoundError:
            continue
        if table is None or table.num_rows < options.min_pictures:
            continue
        if made_with is not None and _settings_hash(table) != made_with:
            continue
        yield table
        found += 1
        if found == options.partitions:
            return


def _columns(data: bytes, columns: list[str]) -> pa.Table | None:
    """Some columns of a manifest; none where it is broken or has no such columns."""
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read(columns=columns)
    except (pa.ArrowException, OSError):
        # That partition's own checks tell of it.
        return None
    return table if set(columns) <= set(table.column_names) else None


def _settings_hash(table: pa.Table) -> str | None:
    """Of the settings that most of the pictures were made with."""
    counts = pc.value_counts(table["settings_hash"].drop_null()).to_pylist()
    return max(counts, key=lambda one: one["counts"])["values"] if counts else None


def _figure(table: pa.Table, values: pa.ChunkedArray) -> Figure:
    chosen = pc.is_valid(values)
    products = table["product_id"].filter(chosen).combine_chunks().dictionary_encode()
    numbers: NDArray[np.int64] = products.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return Figure.of(values.filter(chosen).to_numpy().astype(np.float64), numbers)
