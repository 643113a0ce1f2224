"""The numbers of a day: one row per retailer, stored in one small file per day.

With `partitions.period`, a day here is a week or month, named by its first day.

Reading 30 days of all retailers from these files takes 31 requests to an object store; from
manifests, it would take one request per retailer, day and asset. The numbers are computed in
`measure`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import pyarrow as pa

from imgassets.errors import BrokenFileError
from imgassets.periods import last_first_days
from imgassets.settings import Period
from imgassets.storage import Storage, read_table, write_table

FOLDER = "reports"
DAYS = 30
"""Number of days, weeks or months that reports show."""

_FILE = re.compile(r"(\d{4}-\d\d-\d\d)\.parquet")
_MADE_AT = b"imgassets.made_at"
_THREADS = 32
_MAX_REASONS = 3


@dataclass(frozen=True, kw_only=True)
class RetailerDay:
    """The numbers of one retailer on one day.

    Attributes:
        retailer: Slug of the retailer.
        documents: Number of product documents in the source.
        is_complete: Whether there is a manifest of `processed_images`.
        urls: Number of URLs that were not taken down.
        downloaded: Number of URLs of which there is a served image.
        reused: Number of those that another day downloaded.
        failures: Number of URLs without a processed image, by the outcome that says why.
        images: Number of processed images.
        with_face: Number of processed images in which a face was detected.
        bytes: Size of the processed images in bytes.
        min_success_rate: `checks.min_success_rate` of the retailer.
        run_id: Id of the newest run in Dagster; null if there is none, or it is not known.
        run_status: Status of that run, for example `SUCCESS` or `FAILURE`.
        failed_checks: Severity, `warn` or `error`, of each failed check, by name.
    """

    retailer: str
    documents: int = 0
    is_complete: bool = False
    urls: int = 0
    downloaded: int = 0
    reused: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    images: int = 0
    with_face: int = 0
    bytes: int = 0
    min_success_rate: float = 0.0
    run_id: str | None = None
    run_status: str | None = None
    failed_checks: dict[str, str] = field(default_factory=dict)

    @property
    def new(self) -> int:
        """Number of images that this day downloaded."""
        return self.downloaded - self.reused

    @property
    def failed(self) -> int:
        """Number of URLs without a processed image."""
        return sum(self.failures.values())

    @property
    def success_rate(self) -> float | None:
        """Share of the URLs that gave a served image; None if there is no URL."""
        return self.downloaded / self.urls if self.urls else None

    @property
    def is_missing(self) -> bool:
        """Whether there are documents, but no manifest of `processed_images`."""
        return self.documents > 0 and not self.is_complete

    @property
    def is_relevant(self) -> bool:
        """Whether there is anything to report: documents, URLs, or a run that failed."""
        return bool(self.documents or self.urls or self.failed_checks or self._run_failed)

    @property
    def top_failures(self) -> str:
        """The most frequent reasons, for example `timeout 30, http_error 4`."""
        return ", ".join(f"{name} {count}" for name, count in _most_common(self.failures))

    @property
    def problems(self) -> list[str]:
        """Why the retailer did not succeed on that day; empty if it did.

        A run that failed, checks that failed with severity `error`, or a success rate below
        `checks.min_success_rate`.
        """
        rate = self.success_rate
        found = []
        if self._run_failed:
            found.append(f"run {str(self.run_status).lower()}")
        if errors := sorted(name for name, level in self.failed_checks.items() if level == "error"):
            found.append(f"failed: {', '.join(errors)}")
        if rate is not None and rate < self.min_success_rate:
            found.append(f"success rate {rate:.0%} ({self.top_failures})")
        return found

    @property
    def _run_failed(self) -> bool:
        return self.run_status in ("FAILURE", "CANCELED")


def _most_common(counts: dict[str, int]) -> list[tuple[str, int]]:
    return Counter(counts).most_common(_MAX_REASONS)


@dataclass(frozen=True)
class Day:
    """The numbers of all retailers on one day.

    Attributes:
        date: The day in UTC, `YYYY-MM-DD`.
        retailers: One entry per retailer with anything to report, sorted by slug.
        made_at: When the numbers were computed, in UTC.
    """

    date: str
    retailers: Sequence[RetailerDay]
    made_at: dt.datetime

    @cached_property
    def by_retailer(self) -> dict[str, RetailerDay]:
        """The entries by slug."""
        return {each.retailer: each for each in self.retailers}

    @property
    def with_documents(self) -> list[RetailerDay]:
        """The retailers with documents in the source."""
        return [each for each in self.retailers if each.documents]

    @property
    def missing(self) -> list[RetailerDay]:
        """The retailers with documents, but without processed images; see `is_missing`."""
        return [each for each in self.retailers if each.is_missing]

    @property
    def unsuccessful(self) -> list[RetailerDay]:
        """The retailers with `problems`, lowest success rate first."""
        return sorted(
            (each for each in self.retailers if each.problems),
            key=lambda each: (each.success_rate or 0.0, each.retailer),
        )

    @property
    def worst_first(self) -> list[RetailerDay]:
        """All retailers: with problems, missing, with failed checks, then by success rate."""
        return sorted(
            self.retailers,
            key=lambda each: (
                not each.problems,
                not each.is_missing,
                not each.failed_checks,
                1.0 if each.success_rate is None else each.success_rate,
                each.retailer,
            ),
        )

    @property
    def totals(self) -> dict[str, int | float]:
        """Numbers over all retailers, by the name under which the UI plots them."""
        every = self.retailers
        total = {
            "URLs": sum(each.urls for each in every),
            "downloaded": sum(each.downloaded for each in every),
            "new": sum(each.new for each in every),
            "reused": sum(each.reused for each in every),
            "failed": sum(each.failed for each in every),
            "images": sum(each.images for each in every),
            "images with a face": sum(each.with_face for each in every),
            "bytes": sum(each.bytes for each in every),
            "failed checks": sum(len(each.failed_checks) for each in every),
        }
        rate = {"success rate": total["downloaded"] / total["URLs"]} if total["URLs"] else {}
        counts = {
            "retailers with documents": len(self.with_documents),
            "retailers missing": len(self.missing),
            "retailers with problems": len(self.unsuccessful),
        }
        return {**counts, **total, **rate}


_COUNTS = pa.map_(pa.string(), pa.int64())
_TYPES = {
    "str": pa.string(),
    "str | None": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "dict[str, int]": _COUNTS,
    "dict[str, str]": pa.map_(pa.string(), pa.string()),
}
_SCHEMA = pa.schema([(each.name, _TYPES[str(each.type)]) for each in fields(RetailerDay)])


def day_path(date: str) -> str:
    """The path of the file with the numbers of a day."""
    return f"{FOLDER}/{date}.parquet"


def save_day(storage: Storage, day: Day) -> None:
    """Store the numbers of a day; earlier ones of that day are replaced.

    Raises:
        StorageError: The storage is full, not reachable or not writable.
    """
    rows = [
        {each.name: getattr(retailer, each.name) for each in fields(RetailerDay)}
        for retailer in day.retailers
    ]
    schema = _SCHEMA.with_metadata({_MADE_AT: day.made_at.isoformat()})
    write_table(storage, day_path(day.date), pa.Table.from_pylist(rows, schema))


def load_days(storage: Storage, dates: Collection[str]) -> dict[str, Day]:
    """Read the stored numbers of days, by date in ascending order.

    Args:
        storage: The storage.
        dates: The days, `YYYY-MM-DD`; those without a file, or with a broken one, are left out.

    Raises:
        StorageError: The storage is not reachable or not readable.
    """
    wanted = sorted(set(_stored_dates(storage)) & set(dates))
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="reports") as pool:
        days = pool.map(lambda date: _load(storage, date), wanted)
        return {day.date: day for day in days if day is not None}


def newest_date(storage: Storage) -> str | None:
    """The newest day with stored numbers; None if there is none.

    Raises:
        StorageError: The storage is not reachable or not readable.
    """
    return max(_stored_dates(storage), default=None)


def dates_before(date: str, period: Period, number: int = DAYS) -> list[str]:
    """The dates of the partitions up to and including one, in ascending order.

    Args:
        date: A day of the last partition, `YYYY-MM-DD`.
        period: `partitions.period`.
        number: The number of partitions.
    """
    first_days = last_first_days(dt.date.fromisoformat(date), number, period)
    return [day.isoformat() for day in first_days]


def _stored_dates(storage: Storage) -> list[str]:
    """The days that have a file; other files, for example copies made by hand, are ignored."""
    found = map(_FILE.fullmatch, storage.names(FOLDER))
    return [name[1] for name in found if name is not None]


def _load(storage: Storage, date: str) -> Day | None:
    """The numbers of a day; None if the file is missing, or is not as `save_day` writes it.

    Materializing `daily_report` writes it again. Columns of other versions are ignored or missing.
    """
    try:
        table = read_table(storage, day_path(date))
        made_at = dt.datetime.fromisoformat(table.schema.metadata[_MADE_AT].decode())
        known = [field for field in _SCHEMA if field.name in table.column_names]
        rows = table.select([field.name for field in known]).cast(pa.schema(known)).to_pylist()
        return Day(date, [_retailer_day(row) for row in rows], made_at)
    # TypeError: there is no metadata, or no column with the retailers.
    except (
        FileNotFoundError,
        BrokenFileError,
        pa.ArrowException,
        LookupError,
        ValueError,
        TypeError,
    ):
        return None


def _retailer_day(row: dict[str, Any]) -> RetailerDay:
    values = {name: value for name, value in row.items() if value is not None}
    for name in ("failures", "failed_checks"):
        values[name] = dict(values.get(name, {}))
    return RetailerDay(**values)
