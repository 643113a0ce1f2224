"""Compute a partition's metrics, and those of the retailer's earlier partitions, from manifests.

A few columns of each manifest are read, whether or not Dagster still has its materialization. Only
earlier days count, so that a backfilled day is not compared with later ones. The statistics are in
`drift`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgassets.checks.drift import Metric, compare
from imgassets.errors import BrokenFileError
from imgassets.manifests import Outcome
from imgassets.settings import DriftSettings
from imgassets.storage import PartitionFiles, list_manifests
from imgassets.tables import as_mask, filter_rows

# Names of the metrics in the UI.
SUCCESS_RATE, FACE_SHARE = "success rate", "share with a face"
TRIM_RATIO_MEAN, UNTRIMMED_SHARE = "trim ratio/mean", "share not trimmed"

Metrics = dict[str, Metric]

_RAW_COLUMNS = ["product_id", "outcome"]
_PROCESSED_COLUMNS = ["product_id", "trim_ratio", "face_count", "settings_hash"]


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Metrics of a partition compared with those of the retailer's earlier partitions.

    Attributes:
        messages: One sentence per metric that differs too much.
        differences: Signed difference of each of those metrics from the median, by name.
        medians: Medians of the earlier metrics, by the name that the UI shows.
    """

    messages: list[str]
    differences: dict[str, float]
    medians: dict[str, float]


def raw_metrics(table: pa.Table) -> Metrics:
    """Compute the success rate of a manifest of `raw_images`, over all URLs not taken down."""
    is_listed = as_mask(pc.not_equal(table["outcome"], str(Outcome.REMOVED)))
    table = filter_rows(table.select(_RAW_COLUMNS), is_listed)
    ok = pc.equal(table["outcome"], str(Outcome.OK))
    return {SUCCESS_RATE: _metric(table, ok.cast(pa.float64()))}


def processed_metrics(table: pa.Table) -> Metrics:
    """Compute the metrics of a manifest of `processed_images`, over the rows that have a value."""
    ratios, faces = table["trim_ratio"], table["face_count"]
    return {
        TRIM_RATIO_MEAN: _metric(table, ratios),
        UNTRIMMED_SHARE: _metric(table, pc.greater_equal(ratios, 1).cast(pa.float64())),
        FACE_SHARE: _metric(table, pc.greater(faces, 0).cast(pa.float64())),
    }


def earlier_raw_metrics(partition: PartitionFiles, options: DriftSettings) -> list[Metrics]:
    """Compute the metrics of the retailer's earlier `raw_images` partitions, latest first."""
    found = _read_earlier_manifests(partition, "raw_images", _RAW_COLUMNS, options)
    return [raw_metrics(table) for table in islice(found, options.partitions)]


def earlier_processed_metrics(
    partition: PartitionFiles, options: DriftSettings, today: pa.Table
) -> list[Metrics]:
    """Compute the metrics of the retailer's earlier `processed_images` partitions, latest first.

    Partitions made with other settings than `today`, the manifest to compare, are left out.
    """
    settings_hash = _settings_hash(today)
    found = _read_earlier_manifests(partition, "processed_images", _PROCESSED_COLUMNS, options)
    same_settings = (table for table in found if settings_hash in (None, _settings_hash(table)))
    return [processed_metrics(table) for table in islice(same_settings, options.partitions)]


def detect_drift(
    metrics: Metrics,
    earlier: Sequence[Metrics],
    allowed: Mapping[str, float],
    options: DriftSettings,
    *,
    falls_only: bool = False,
) -> DriftReport:
    """Compare a partition's metrics with those of earlier partitions.

    Args:
        metrics: Metrics of the partition.
        earlier: Metrics of each earlier partition.
        allowed: Allowed absolute difference of each metric to compare, by name.
        options: Settings; metrics over fewer than `min_images` images are not compared.
        falls_only: Whether a rise is not drift.
    """
    report = DriftReport([], {}, {})
    for name, allowed_difference in allowed.items():
        metric = metrics[name]
        recent = [each[name] for each in earlier if each[name].images >= options.min_images]
        drift = compare(metric, recent) if metric.images >= options.min_images else None
        if drift is None:
            continue
        report.medians[f"{name}, recent median"] = drift.median
        if drift.exceeds(allowed_difference) and not (falls_only and drift.difference > 0):
            report.differences[name] = drift.difference
            report.messages.append(
                f"{name} is {metric.mean:.3f}; the median of the previous {len(recent)} partitions "
                f"is {drift.median:.3f}, and random variation explains a difference of up to "
                f"{drift.random_variation:.3f}"
            )
    return report


def _read_earlier_manifests(
    partition: PartitionFiles, asset: str, columns: list[str], options: DriftSettings
) -> Iterator[pa.Table]:
    """Yield some columns of the manifests of earlier days, latest first."""
    day = dt.date.fromisoformat(partition.date)
    first = (day - dt.timedelta(days=options.days)).isoformat()
    for earlier in reversed(list_manifests(partition.storage, asset, partition.retailer)):
        if not first <= earlier.date < partition.date:
            continue
        table = _read_columns(earlier, asset, columns)
        if table is not None and table.num_rows >= options.min_images:
            yield table


def _read_columns(partition: PartitionFiles, asset: str, columns: list[str]) -> pa.Table | None:
    """Read some columns of a manifest; None if it is broken or lacks one of them."""
    try:
        table = partition.read_manifest(asset, columns)
    except (FileNotFoundError, BrokenFileError):
        # The checks of that partition report it.
        return None
    return table if set(columns) <= set(table.column_names) else None


def _settings_hash(table: pa.Table) -> str | None:
    """The most frequent settings hash of the rows; None if no row has one."""
    counts = pc.value_counts(table["settings_hash"].drop_null()).to_pylist()
    return max(counts, key=lambda count: count["counts"])["values"] if counts else None


def _metric(table: pa.Table, values: pa.ChunkedArray) -> Metric:
    valid = pc.is_valid(values)
    products = table["product_id"].filter(valid).combine_chunks().dictionary_encode()
    numbers: NDArray[np.int64] = products.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return Metric.of(values.filter(valid).to_numpy().astype(np.float64), numbers)
