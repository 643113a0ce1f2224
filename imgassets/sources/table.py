"""Sources that yield one record an image URL: a CSV file, or a function of the user's own.

Here lives how such records become partitions. A record is a mapping with `url` and, where the
source knows them, `retailer`, `date` (ISO 8601, a date or a datetime) and `product_id`.
"""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import importlib
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from upath import UPath

from imgassets.errors import SourceError
from imgassets.folders import project_root
from imgassets.sources.listing import (
    Anomaly,
    Inventory,
    Listing,
    SourceReport,
    conflict,
    day_anomaly,
    document_rows,
    finished,
    retailer_slug,
    unknown_retailer,
)

Record = Mapping[str, Any]
Records = Callable[..., Iterable[Record]]
"""Yields records. If it takes arguments named `date` and `retailer` (texts, as in the partition's
key; None in a inventory), it is told what is asked for; it may yield more than that."""

_COLUMNS = ("url", "retailer", "date", "product_id")


class TableSource:
    """Records that one function yields.

    Args:
        records: the function.
        start_date: first day with a partition, and the day of records without a date column.
    """

    def __init__(self, records: Records, start_date: dt.date) -> None:
        self._records = records
        self._start_date = start_date

    def listing(self, date: str, retailer: str) -> Listing:
        """The URL rows of one partition; see `Source.listing`."""
        report = SourceReport()
        names: dict[str, set[str]] = defaultdict(set)
        products: dict[str, list[object]] = defaultdict(list)
        for place, record in enumerate(self._read(date, retailer), 1):
            slug, day = self._partition(record, f"record {place}", report)
            if slug is not None:
                names[slug].add(record["retailer"])
            if slug == retailer and day == date:
                products[_product_of(record)].append(record.get("url"))
        if retailer not in names and not self._narrowed:
            raise unknown_retailer(retailer, names)
        if len(names[retailer]) > 1:
            raise SourceError(conflict(retailer, list(names[retailer])))
        rows = [
            row
            for product, urls in products.items()
            for row in document_rows(
                document_id=product,
                product_id=product,
                images=urls,
                date=date,
                retailer=retailer,
                report=report,
            )
        ]
        return finished(rows, len(products), report)

    def inventory(self) -> Inventory:
        """Retailers and days of all records; a product is counted once a day."""
        report = SourceReport()
        names: dict[str, set[str]] = defaultdict(set)
        products: dict[tuple[str, str], set[str]] = defaultdict(set)
        for place, record in enumerate(self._read(None, None), 1):
            slug, day = self._partition(record, f"record {place}", report)
            if slug is not None:
                names[slug].add(record["retailer"])
                if day is not None:
                    products[slug, day].add(_product_of(record))
        conflicts = {slug: sorted(same) for slug, same in names.items() if len(same) > 1}
        return Inventory(
            names={slug: min(same) for slug, same in names.items() if slug not in conflicts},
            documents={k: len(ids) for k, ids in products.items() if k[0] not in conflicts},
            conflicts=conflicts,
            report=report,
        )

    @property
    def _narrowed(self) -> list[str]:
        """Which of the partition's two names the function wants to be told."""
        known = inspect.signature(self._records).parameters
        return [name for name in ("date", "retailer") if name in known]

    def _read(self, date: str | None, retailer: str | None) -> Iterator[Record]:
        asked = {"date": date, "retailer": retailer}
        for record in self._records(**{name: asked[name] for name in self._narrowed}):
            if not isinstance(record, Mapping):
                raise SourceError(
                    f"the source yields {record!r}; it should yield mappings with the keys "
                    f"{', '.join(_COLUMNS)}"
                )
            yield record

    def _partition(
        self, record: Record, name: str, report: SourceReport
    ) -> tuple[str | None, str | None]:
        slug = retailer_slug(record.get("retailer"))
        if slug is None:
            report.add(Anomaly.NO_RETAILER, name, f"it is {record.get('retailer')!r}")
            return None, None
        date = record.get("date", self._start_date)
        day = _day(date)
        if date is None or date == "":
            report.add(Anomaly.NO_DATE, name, "its date is empty")
        elif day is None:
            report.add(Anomaly.INVALID_DATE, name, f"its date is {date!r}")
        elif anomaly := day_anomaly(day, self._start_date):
            report.add(anomaly, name, f"its date is {date!r}")
        else:
            return slug, day.isoformat()
        return slug, None


def csv_records(address: str) -> Records:
    """The records of a CSV file.

    With a header it has the columns `url[,retailer][,date][,product_id]` in any order. Without one
    it has the two columns `url,save_path`, and the last folder of the save path names the retailer.
    Where nothing names a retailer, the file's name does.

    Args:
        address: a path, relative to the project, or an fsspec address.
    """

    def records() -> Iterator[Record]:
        path = UPath(address) if "://" in address else UPath(project_root() / address)
        try:
            with path.open("r", encoding="utf-8-sig", newline="") as file:
                yield from _csv(csv.reader(file), address)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise SourceError(
                f"source.csv_path: {address} cannot be read as CSV: {error}"
            ) from None

    return records


def function_records(dotted: str) -> Records:
    """The user's own function, by its dotted path (`package.module.function`).

    Raises:
        SourceError: it cannot be imported, or is no function.
    """
    module, _, name = dotted.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SourceError(
            f"source.function: {dotted} cannot be imported: {error}; "
            "install its package, or put its folder on PYTHONPATH"
        ) from None
    if not callable(function):
        raise SourceError(f"source.function: {dotted} is no function")
    found: Records = function
    return found


def _csv(lines: Iterator[list[str]], address: str) -> Iterator[Record]:
    first = next((line for line in lines if line), None)
    if first is None:
        return
    header = [cell.strip().lower() for cell in first]
    own_name = Path(address).stem
    if "url" in header:
        for line in lines:
            if line:
                yield {"retailer": own_name, **dict(zip(header, line, strict=False))}
    elif len(first) == 2 and "://" in first[0]:
        for line in (first, *lines):
            if line:
                folder = PurePosixPath(line[1].strip() if len(line) > 1 else "").parent.name
                yield {"url": line[0], "retailer": folder or own_name}
    else:
        raise SourceError(
            f"source.csv_path: {address} begins with {','.join(first)[:100]!r}; it should begin "
            "with a header (url[,retailer][,date][,product_id]), or have two columns: url,save_path"
        )


def _day(value: object) -> dt.date | None:
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if isinstance(value, dt.datetime):
        return (value.astimezone(dt.UTC) if value.tzinfo else value).date()
    return value if isinstance(value, dt.date) else None


def _product_of(record: Record) -> str:
    if product := record.get("product_id"):
        return str(product)
    # Stable however the records are sorted.
    return hashlib.sha256(str(record.get("url")).encode()).hexdigest()[:12]
