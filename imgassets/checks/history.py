"""Figures of a partition, and of the retailer's earlier ones.

They are read from the manifests, a few columns each: whatever made those, and whether or not
Dagster still knows of it. Only earlier days count, so that a backfill of the past is not compared
with what came later. When a figure has drifted is said in `drift`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from imgassets.checks.drift import Figure, compare
from imgassets.manifests import Outcome
from imgassets.settings import DriftSettings
from imgassets.storage import MANIFEST, Storage

SUCCESS, FACES = "success rate", "share with a face"
TRIM, UNTRIMMED = "trim ratio/mean", "share not trimmed"

Figures = dict[str, Figure]

_RAW_COLUMNS = ["product_id", "outcome"]
_PROCESSED_COLUMNS = ["product_id", "trim_ratio", "face_count", "settings_hash"]


@dataclass(frozen=True, slots=True)
class Compared:
    """Figures of a partition beside those of the retailer's earlier ones.

    Attributes:
        told: a sentence for each figure that differs too much.
        changes: of those figures, with their sign.
        medians: of the earlier ones, to be plotted.
    """

    told: list[str]
    changes: dict[str, float]
    medians: dict[str, float]


def raw_figures(table: pa.Table) -> Figures:
    """The success rate of a manifest of `raw_images`, over all URLs."""
    ok = pc.equal(table["outcome"].cast(pa.string()), str(Outcome.OK))
    return {SUCCESS: _figure(table, ok.cast(pa.float64()))}


def processed_figures(table: pa.Table) -> Figures:
    """Mean trim ratio and shares of a manifest of `processed_images`, over what has a value."""
    ratios, faces = table["trim_ratio"], table["face_count"]
    return {
        TRIM: _figure(table, ratios),
        UNTRIMMED: _figure(table, pc.greater_equal(ratios, 1).cast(pa.float64())),
        FACES: _figure(table, pc.greater(faces, 0).cast(pa.float64())),
    }


def earlier_raw(
    storage: Storage, date: str, retailer: str, options: DriftSettings
) -> list[Figures]:
    """Figures of the retailer's partitions of `raw_images` before that date, the latest first."""
    found = _earlier(storage, "raw_images", date, retailer, columns=_RAW_COLUMNS, options=options)
    return [raw_figures(table) for table in islice(found, options.partitions)]


def earlier_processed(
    storage: Storage, date: str, retailer: str, options: DriftSettings, today: pa.Table
) -> list[Figures]:
    """The same of `processed_images`, where they were made with the same settings as today's."""
    made_with = _settings_hash(today)
    found = _earlier(
        storage, "processed_images", date, retailer, columns=_PROCESSED_COLUMNS, options=options
    )
    alike = (table for table in found if made_with in (None, _settings_hash(table)))
    return [processed_figures(table) for table in islice(alike, options.partitions)]


def compared(
    figures: Figures,
    earlier: Sequence[Figures],
    allowed: Mapping[str, float],
    options: DriftSettings,
    *,
    falls_only: bool = False,
) -> Compared:
    """Compare those figures for which a difference is allowed; of some, only a fall counts."""
    result = Compared([], {}, {})
    for name, most in allowed.items():
        figure = figures[name]
        recent = [one[name] for one in earlier if one[name].pictures >= options.min_pictures]
        drift = compare(figure, recent) if figure.pictures >= options.min_pictures else None
        if drift is None:
            continue
        result.medians[f"{name}, recent median"] = drift.median
        if drift.exceeds(most) and not (falls_only and drift.difference > 0):
            result.changes[name] = drift.difference
            result.told.append(
                f"{name} is {figure.mean:.3f}; the median of the {len(recent)} partitions before "
                f"is {drift.median:.3f}, and chance explains {drift.chance:.3f}"
            )
    return result


def _earlier(
    storage: Storage,
    asset: str,
    date: str,
    retailer: str,
    *,
    columns: list[str],
    options: DriftSettings,
) -> Iterator[pa.Table]:
    """Some columns of the manifests of earlier days, the latest first."""
    day = dt.date.fromisoformat(date)
    for back in range(1, options.days + 1):
        earlier = (day - dt.timedelta(days=back)).isoformat()
        try:
            data = storage.partition(asset, earlier, retailer).read(MANIFEST)
        except FileNotFoundError:
            continue
        table = _columns(data, columns)
        if table is not None and table.num_rows >= options.min_pictures:
            yield table


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
