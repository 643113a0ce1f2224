"""Compute the numbers of a day from manifests, and find the most doubtful images.

Only the partitions that can exist are read, with two requests each, and nothing is listed: a folder
of manifests has one file per retailer and day. What Dagster knows about the runs is an argument.
"""

from __future__ import annotations

import datetime as dt
import heapq
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from imgassets.errors import BrokenFileError
from imgassets.manifests import Outcome, ProcessedRow, count_outcomes, from_table
from imgassets.reports.day import Day, RetailerDay
from imgassets.review.contact_sheet import review_priorities, review_priority, showable_rows
from imgassets.settings import RetailerSettings
from imgassets.storage import PartitionFiles, Storage

MAX_DOUBTFUL = 12
"""Number of images that the report of a day shows."""
BROKEN = "broken manifest"

_RAW, _PROCESSED = "raw_images", "processed_images"
_RAW_COLUMNS = ["outcome", "reused_from"]
_THREADS = 32
_BATCH = 5_000  # rows
# So that one retailer does not fill the sheet.
_IN_A_ROW = 3


@dataclass(frozen=True)
class RetailerRun:
    """What Dagster knows about a partition.

    Attributes:
        run_id: Id of the newest run.
        status: Its status, for example `SUCCESS`.
        failed_checks: Severity, `warn` or `error`, of each failed check, by name.
        is_active: Whether a run, perhaps a newer one, is queued or in progress.
    """

    run_id: str
    status: str
    failed_checks: Mapping[str, str] = field(default_factory=dict)
    is_active: bool = False


@dataclass(frozen=True)
class Measured:
    """The numbers of a day, and the images to look at.

    Attributes:
        day: The numbers.
        doubtful: Rows of `processed_images` of all retailers, most doubtful first, at most
            `MAX_DOUBTFUL`.
    """

    day: Day
    doubtful: Sequence[ProcessedRow]


def measure_day(
    storage: Storage,
    date: str,
    *,
    documents: Mapping[str, int],
    retailers: Collection[str],
    runs: Mapping[str, RetailerRun],
    options: Callable[[str], RetailerSettings],
) -> Measured:
    """Compute the numbers of a day.

    Args:
        storage: The storage of the manifests.
        date: The day, `YYYY-MM-DD`.
        documents: Number of documents in the source by retailer.
        retailers: Further retailers that may have manifests.
        runs: What Dagster knows, by retailer.
        options: Returns the settings of a retailer.

    Raises:
        StorageError: The storage is not reachable or not readable.
    """

    def measure(retailer: str) -> tuple[RetailerDay, list[ProcessedRow]]:
        return measure_retailer(
            storage.partition(date, retailer),
            documents.get(retailer, 0),
            runs.get(retailer),
            options(retailer),
        )

    names = sorted({*documents, *retailers, *runs})
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="reports") as pool:
        found = list(pool.map(measure, names))
    day = Day(date, [each for each, _ in found if each.is_relevant], dt.datetime.now(dt.UTC))
    return Measured(day, _merge([rows for _, rows in found]))


def measure_retailer(
    files: PartitionFiles, documents: int, run: RetailerRun | None, options: RetailerSettings
) -> tuple[RetailerDay, list[ProcessedRow]]:
    """Compute the numbers of one retailer on one day.

    Args:
        files: The files of the partition.
        documents: Number of documents in the source.
        run: What Dagster knows about the partition; None if nothing.
        options: The settings of the retailer.

    Returns:
        The numbers, and the most doubtful of the images that the partition itself processed.

    Raises:
        StorageError: The storage is not reachable or not readable.
    """
    numbers = RetailerDay(
        retailer=files.retailer,
        documents=documents,
        min_success_rate=options.checks.min_success_rate,
        run_id=None if run is None else run.run_id,
        run_status=None if run is None else run.status,
        failed_checks={} if run is None else dict(run.failed_checks),
    )
    try:
        return _with_manifests(numbers, files)
    # KeyError: a column is missing, or an outcome is unknown.
    except (BrokenFileError, KeyError):
        return replace(numbers, failures={BROKEN: 1}), []


def _with_manifests(
    numbers: RetailerDay, files: PartitionFiles
) -> tuple[RetailerDay, list[ProcessedRow]]:
    """Add what the manifests of a partition say, and return the most doubtful images, too.

    Raises:
        BrokenFileError: A manifest cannot be read.
        KeyError: A manifest is of another version.
        StorageError: The storage is not reachable or not readable.
    """
    raw = _read(files, _RAW, _RAW_COLUMNS)
    processed = _read(files, _PROCESSED, None)
    if raw is None:
        return numbers, []
    outcomes = Counter(count_outcomes(raw))
    removed = outcomes.pop(Outcome.REMOVED, 0)
    downloaded = outcomes.pop(Outcome.OK, 0)
    numbers = replace(
        numbers,
        urls=raw.num_rows - removed,
        downloaded=downloaded,
        reused=raw.num_rows - raw["reused_from"].null_count,
        failures=dict(outcomes),
    )
    if processed is None:
        return numbers, []
    made = Counter(count_outcomes(processed))
    done = processed.filter(pc.equal(processed["outcome"], str(Outcome.OK)))
    # Of images that were not downloaded, `raw_images` says why.
    for known in (Outcome.OK, Outcome.NO_RAW, Outcome.REMOVED):
        made.pop(known, None)
    numbers = replace(
        numbers,
        is_complete=True,
        failures=dict(outcomes + made),
        images=done.num_rows,
        with_face=pc.sum(pc.greater(done["face_count"], 0)).as_py() or 0,
        bytes=pc.sum(done["bytes"]).as_py() or 0,
    )
    return numbers, _most_doubtful(processed)


def _read(files: PartitionFiles, asset: str, columns: Sequence[str] | None) -> pa.Table | None:
    try:
        return files.read_manifest(asset, columns)
    except FileNotFoundError:
        return None


def _most_doubtful(processed: pa.Table) -> list[ProcessedRow]:
    """The most doubtful images that a partition itself processed, most doubtful first."""
    own = processed.filter(pc.is_null(processed["reused_from"]))
    candidates, priorities = showable_rows(own), review_priorities(own)
    first = heapq.nlargest(MAX_DOUBTFUL, candidates, key=priorities.__getitem__)
    return from_table(own.take(pa.array(first, pa.int64())), ProcessedRow)


def _merge(by_retailer: Sequence[Sequence[ProcessedRow]]) -> list[ProcessedRow]:
    """The most doubtful images of all retailers, a few of each before more of one.

    Args:
        by_retailer: Rows of each retailer, most doubtful first.
    """
    ranked = [
        (number // _IN_A_ROW, -review_priority(row), row)
        for rows in by_retailer
        for number, row in enumerate(rows)
    ]
    ranked.sort(key=lambda each: each[:2])
    return [row for *_, row in ranked[:MAX_DOUBTFUL]]
