"""Sources of records, each with one or several image URLs: a file, or a function of the user.

A record is a mapping with `url` and, if known, `retailer`, `date` (see `dates.parse_day`) and
`product_id`, or with the names that `source.fields` sets. Records of one product are one document.
Files are read in `files`; URL rows and keys are made in `listing`, slugs in `retailers`.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import inspect
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from imgassets.errors import SourceError
from imgassets.imports import import_function
from imgassets.periods import days_of
from imgassets.settings import Period, SourceSettings
from imgassets.sources.dates import invalid_date_hint, parse_day
from imgassets.sources.files import DEFAULT_PATHS, InvalidLine, Record, paths_of
from imgassets.sources.images import path_heads, value_at_path, values_at_paths
from imgassets.sources.listing import (
    SAMPLE_SIZE,
    Anomaly,
    Inventory,
    Listing,
    Sample,
    SourceReport,
    Unpartitioned,
    build_inventory,
    build_listing,
    build_sample,
    day_anomaly,
    document_rows,
    listing_without_retailer,
    product_name,
)
from imgassets.sources.retailers import Retailer, Retailers

Records = Callable[..., Iterable[Record | InvalidLine]]
"""A function that returns records.

If it has a parameter `date` or `retailer`, it gets a day or the slug of the requested partition, or
None if all records are requested. It may return more records than requested. With `date`, it is
called once for each day of a week or month.
"""

_COLUMNS = ("url", "retailer", "date", "product_id")


class TableSource:
    """A source whose records are returned by a function.

    Args:
        records: The function.
        settings: The names of the fields, how URLs and dates are written in them, and the retailer
            of all records or the retailers' aliases.
        start_date: First day that has a partition; also the day of records without a date.
        period: `partitions.period`.
    """

    def __init__(
        self,
        records: Records,
        settings: SourceSettings,
        start_date: dt.date,
        period: Period = "day",
    ) -> None:
        self._records = records
        self._settings = settings
        self._retailers = Retailers.from_settings(settings)
        self._start_date = start_date
        self._period: Period = period
        self._paths = {field: paths_of(settings, field) for field in DEFAULT_PATHS}

    def listing(self, date: str, retailer: str) -> Listing:
        """Read the URL rows of one partition; see `Source.listing`."""
        report = SourceReport()
        slugs: set[str] = set()
        products: dict[tuple[str, str], list[object]] = defaultdict(list)
        days = [day.isoformat() for day in days_of(dt.date.fromisoformat(date), self._period)]
        by_day = "date" in self._partition_parameters
        for wanted in [[day] for day in days] if by_day else [days]:
            for number, record in enumerate(self._read(wanted[0], retailer, report), 1):
                found, day = self._partition_of(record, f"record {number}", report)
                if found is None:
                    continue
                slugs.add(found.slug)
                if found.slug == retailer and day in wanted:
                    products[day, _product_id(record)].append(record.get("url"))
        # A function that gets the partition may have no records for it.
        if retailer not in slugs and not self._partition_parameters:
            return listing_without_retailer(retailer, slugs)
        documents = (
            document_rows(
                # The records of a product on another day of the partition are another document.
                document_id=product if self._period == "day" else f"{product}@{day}",
                product_id=product,
                images=urls if len(urls) > 1 else urls[0],
                date=day,
                retailer=retailer,
                report=report,
                separator=self._settings.separator,
                base_url=self._settings.base_url_of(retailer),
            )
            for (day, product), urls in products.items()
        )
        return build_listing(documents, report)

    def inventory(self) -> Inventory:
        """Read the retailers and days of all records; a product is counted once per day."""
        report = SourceReport()
        names: dict[str, Counter[str]] = defaultdict(Counter)
        products: dict[tuple[str, str], set[str]] = defaultdict(set)
        for number, record in enumerate(self._read(None, None, report), 1):
            found, day = self._partition_of(record, f"record {number}", report)
            if found is not None:
                names[found.slug][found.name] += 1
                if day is not None:
                    products[found.slug, day].add(_product_id(record))
        documents = {partition: len(ids) for partition, ids in products.items()}
        return build_inventory(names, documents, report)

    def sample(self) -> Sample:
        """Read the images of the first records; see `Source.sample`."""
        found = self._records(**dict.fromkeys(self._partition_parameters))
        read = (self._checked(record) for record in found if not isinstance(record, InvalidLine))
        records = list(itertools.islice(read, SAMPLE_SIZE))
        default = ("product_images",) if any("product_images" in r for r in records) else ("url",)
        return build_sample(
            (
                (f"record {number}", self._slug_of(record), record)
                for number, record in enumerate(records, 1)
            ),
            self._paths["images"] or default,
            self._settings,
            [(name, path) for name in ("date", "product_id") for path in self._paths[name] or ()],
        )

    def _slug_of(self, record: Record) -> str | None:
        found = self._retailers.resolve(self._as_record(record).get("retailer"))
        return found.slug if isinstance(found, Retailer) else None

    @property
    def _partition_parameters(self) -> list[str]:
        """The parameters of the function that receive the partition: `date`, `retailer` or both."""
        parameters = inspect.signature(self._records).parameters
        return [name for name in ("date", "retailer") if name in parameters]

    def _read(
        self, date: str | None, retailer: str | None, report: SourceReport
    ) -> Iterator[Record]:
        """The records, with the keys `url`, `retailer`, `date` and `product_id`."""
        partition = {"date": date, "retailer": retailer}
        arguments = {name: partition[name] for name in self._partition_parameters}
        for record in self._records(**arguments):
            if isinstance(record, InvalidLine):
                report.add(record.anomaly, record.name, record.detail)
            else:
                yield self._as_record(self._checked(record))

    def _checked(self, record: object) -> Record:
        if not isinstance(record, Mapping):
            raise SourceError(
                f"the source yields {record!r}; it must yield mappings with the keys "
                f"{', '.join(_COLUMNS)}"
            )
        return record

    def _as_record(self, found: Record) -> dict[str, Any]:
        """A record with the keys of `_COLUMNS`; a key is missing if its field is."""
        record: dict[str, Any] = {}
        for field in ("retailer", "date", "product_id"):
            for path in self._paths[field] or DEFAULT_PATHS[field]:
                if path in found:
                    record[field] = found[path]
                    break
                if "." in path and not found.keys().isdisjoint(path_heads(path)):
                    record[field] = value_at_path(found, path)
                    break
        if self._paths["date"]:
            record.setdefault("date", None)
        images = self._paths["images"]
        if images is None:
            images = tuple(path for path in DEFAULT_PATHS["images"] if path in found)[:1]
        record["url"] = values_at_paths(found, images)
        return record

    def _partition_of(
        self, record: Record, name: str, report: SourceReport
    ) -> tuple[Retailer | None, str | None]:
        retailer = self._retailers.resolve(record.get("retailer"))
        if isinstance(retailer, Unpartitioned):
            report.add(retailer.anomaly, name, retailer.detail)
            return None, None
        date = record.get("date", self._start_date)
        day = parse_day(date, self._settings.date_format)
        if date is None or date == "" or (isinstance(date, float) and math.isnan(date)):
            report.add(Anomaly.NO_DATE, name, "the date is empty")
        elif day is None:
            report.add(
                Anomaly.INVALID_DATE, name, f"the date is {date!r}; {invalid_date_hint(date)}"
            )
        elif anomaly := day_anomaly(day, self._start_date, self._period):
            report.add(anomaly, name, f"the date is {date!r}")
        else:
            return retailer, day.isoformat()
        return retailer, None


def function_records(dotted: str) -> Records:
    """Import the function that returns the records.

    Args:
        dotted: Path of the function: `package.module.function`.

    Raises:
        SourceError: The path cannot be imported, or is not callable.
    """
    function = import_function("source.function", dotted, SourceError)

    @functools.wraps(function)
    def records(**partition: str | None) -> Iterator[Any]:
        for record in function(**partition):
            if isinstance(record, Mapping):
                yield {name: _plain(value) for name, value in record.items()}
            else:
                yield record

    return records


def _plain(value: Any) -> Any:
    """A value of NumPy or pandas, such as a list column of a DataFrame, as one of Python."""
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    return value.tolist() if hasattr(value, "tolist") else value


def _product_id(record: Record) -> str:
    product = product_name(record.get("product_id"))
    if product is not None:
        return product
    # Does not depend on the order of the records.
    url = str(record.get("url"))
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:12]
