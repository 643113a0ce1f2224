"""Sources with one record per image URL: a CSV file, or a Python function of the user.

A record is a mapping with `url` and, if known, `retailer`, `date` (see `dates.parse_day`)
and `product_id`. URL rows and keys are made in `listing`, slugs in `retailers`.
"""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import inspect
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from upath import UPath

from imgassets.errors import SourceError
from imgassets.folders import project_root
from imgassets.imports import import_function
from imgassets.settings import SourceSettings
from imgassets.sources.dates import invalid_date_hint, parse_day
from imgassets.sources.listing import (
    Anomaly,
    Inventory,
    Listing,
    SourceReport,
    Unpartitioned,
    build_inventory,
    build_listing,
    day_anomaly,
    document_rows,
    listing_without_retailer,
)
from imgassets.sources.retailers import Retailer, Retailers

Record = Mapping[str, Any]
Records = Callable[..., Iterable[Record]]
"""A function that returns records.

If it has a parameter `date` or `retailer`, it gets the day or the slug of the requested partition,
or None if all records are requested. It may return more records than requested.
"""

_COLUMNS = ("url", "retailer", "date", "product_id")


class TableSource:
    """A source whose records are returned by a function.

    Args:
        records: The function.
        settings: The format of dates, and the retailer of all records or the retailers' aliases.
        start_date: First day that has a partition; also the day of records without a `date` key.
    """

    def __init__(self, records: Records, settings: SourceSettings, start_date: dt.date) -> None:
        self._records = records
        self._retailers = Retailers.from_settings(settings)
        self._start_date = start_date
        self._date_format = settings.date_format

    def listing(self, date: str, retailer: str) -> Listing:
        """Read the URL rows of one partition; see `Source.listing`."""
        report = SourceReport()
        slugs: set[str] = set()
        products: dict[str, list[object]] = defaultdict(list)
        for number, record in enumerate(self._read(date, retailer), 1):
            found, day = self._partition_of(record, f"record {number}", report)
            if found is None:
                continue
            slugs.add(found.slug)
            if found.slug == retailer and day == date:
                products[_product_id(record)].append(record.get("url"))
        # A function that gets the partition may have no records for it.
        if retailer not in slugs and not self._partition_parameters:
            return listing_without_retailer(retailer, slugs)
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
        return build_listing(rows, len(products), report)

    def inventory(self) -> Inventory:
        """Read the retailers and days of all records; a product is counted once per day."""
        report = SourceReport()
        names: dict[str, Counter[str]] = defaultdict(Counter)
        products: dict[tuple[str, str], set[str]] = defaultdict(set)
        for number, record in enumerate(self._read(None, None), 1):
            found, day = self._partition_of(record, f"record {number}", report)
            if found is not None:
                names[found.slug][found.name] += 1
                if day is not None:
                    products[found.slug, day].add(_product_id(record))
        documents = {partition: len(ids) for partition, ids in products.items()}
        return build_inventory(names, documents, report)

    @property
    def _partition_parameters(self) -> list[str]:
        """The parameters of the function that receive the partition: `date`, `retailer` or both."""
        parameters = inspect.signature(self._records).parameters
        return [name for name in ("date", "retailer") if name in parameters]

    def _read(self, date: str | None, retailer: str | None) -> Iterator[Record]:
        partition = {"date": date, "retailer": retailer}
        arguments = {name: partition[name] for name in self._partition_parameters}
        for record in self._records(**arguments):
            if not isinstance(record, Mapping):
                raise SourceError(
                    f"the source yields {record!r}; it must yield mappings with the keys "
                    f"{', '.join(_COLUMNS)}"
                )
            yield record

    def _partition_of(
        self, record: Record, name: str, report: SourceReport
    ) -> tuple[Retailer | None, str | None]:
        retailer = self._retailers.resolve(record.get("retailer"))
        if isinstance(retailer, Unpartitioned):
            report.add(retailer.anomaly, name, retailer.detail)
            return None, None
        date = record.get("date", self._start_date)
        day = parse_day(date, self._date_format)
        if date is None or date == "":
            report.add(Anomaly.NO_DATE, name, "the date is empty")
        elif day is None:
            report.add(
                Anomaly.INVALID_DATE, name, f"the date is {date!r}; {invalid_date_hint(date)}"
            )
        elif anomaly := day_anomaly(day, self._start_date):
            report.add(anomaly, name, f"the date is {date!r}")
        else:
            return retailer, day.isoformat()
        return retailer, None


def csv_records(address: str) -> Records:
    """Make a function that reads the records of a CSV file.

    With a header, the columns are `url[,retailer][,date][,product_id]` in any order. Without a
    header, there are two columns, `url,save_path`, and the last folder of the save path is the
    retailer. If the file gives no retailer, the file name without its extension is the retailer.

    Args:
        address: Path, relative to the project folder, or an fsspec address.
    """

    def records() -> Iterator[Record]:
        path = UPath(address) if "://" in address else UPath(project_root() / address)
        try:
            with path.open("r", encoding="utf-8-sig", newline="") as file:
                yield from _parse_csv(csv.reader(file), address)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise SourceError(
                f"source.csv_path: {address} cannot be read as CSV: {error}; "
                "correct the path, or save the file as CSV in UTF-8"
            ) from None

    return records


def function_records(dotted: str) -> Records:
    """Import the function that returns the records.

    Args:
        dotted: Path of the function: `package.module.function`.

    Raises:
        SourceError: The path cannot be imported, or is not callable.
    """
    return import_function("source.function", dotted, SourceError)


def _parse_csv(lines: Iterator[list[str]], address: str) -> Iterator[Record]:
    first = next((line for line in lines if line), None)
    if first is None:
        return
    header = [cell.strip().lower() for cell in first]
    default_retailer = Path(address).stem
    if "url" in header:
        for line in lines:
            if line:
                yield {"retailer": default_retailer, **dict(zip(header, line, strict=False))}
    elif len(first) == 2 and "://" in first[0]:
        for line in (first, *lines):
            if line:
                folder = PurePosixPath(line[1].strip() if len(line) > 1 else "").parent.name
                yield {"url": line[0], "retailer": folder or default_retailer}
    else:
        raise SourceError(
            f"source.csv_path: {address} starts with {','.join(first)[:100]!r}; it must start "
            "with a header (url[,retailer][,date][,product_id]), or have two columns: url,save_path"
        )


def _product_id(record: Record) -> str:
    if product := record.get("product_id"):
        return str(product)
    # Does not depend on the order of the records.
    return hashlib.sha256(str(record.get("url")).encode()).hexdigest()[:12]
