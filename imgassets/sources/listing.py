"""The common part of all sources: the `Source` protocol, URL rows, keys and anomalies.

Keys and days must be the same for all sources, so they are made here only; slugs are made in
`retailers`. Documents are read in `mongodb` and `table`; how URLs are found in a document is in
`images`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from slugify import slugify

from imgassets.errors import SourceError
from imgassets.manifests import URL_LIST, UrlRow, from_table, to_table
from imgassets.periods import first_day
from imgassets.settings import Period, SourceSettings
from imgassets.sources.images import (
    fields_near,
    image_entries,
    is_phrase,
    is_placeholder,
    is_relative,
    values_at_paths,
    well_formed,
)
from imgassets.wording import counted

MAX_EXAMPLES = 20
SAMPLE_SIZE = 100


class Anomaly(StrEnum):
    """The kinds of anomalies of a document. Each is counted and reported, never dropped silently.

    A document that has no partition for several reasons is counted for the first one in this order.
    """

    NO_RETAILER = "no_retailer"
    """The name is missing, neither text nor a whole number, or contains no letter or digit."""
    SEVERAL_RETAILERS = "several_retailers"
    """There is a list with the names of several retailers."""
    NO_DATE = "no_date"
    """There is neither a date nor an ObjectId with a creation time."""
    INVALID_DATE = "invalid_date"
    """The value is no date, or ambiguous; see `dates.parse_day` and `source.date_format`."""
    BEFORE_START_DATE = "before_start_date"
    """Dated before `start_date`, the first day that has a partition."""
    IN_FUTURE = "in_future"
    """Dated after today (UTC); the partition does not exist yet."""
    NO_IMAGES = "no_images"
    """The list of URLs is missing or empty."""
    NON_STRING_URL = "non_string_url"
    """An entry of the list is empty or not text; the other entries become rows."""
    DUPLICATE_URL = "duplicate_url"
    """The document lists a URL more than once; it becomes one row."""
    PLACEHOLDER_URL = "placeholder_url"
    """An entry is a text that names no file: `N/A`, `null`, `-`, `data:...`, `No image`."""
    RELATIVE_URL = "relative_url"
    """A URL has no host and `source.base_url` is not set; its row becomes `invalid_url`."""
    INVALID_RECORD = "invalid_record"
    """A line of a file cannot be read; the other lines are."""
    NOT_UTF_8 = "not_utf_8"
    """A line of a file is not UTF-8; it is read as Windows-1252."""


LINE_ANOMALIES = frozenset({Anomaly.INVALID_RECORD, Anomaly.NOT_UTF_8})
"""Anomalies of lines of a file, whichever document they belong to."""


@dataclass
class SourceReport:
    """The anomalies of documents.

    Attributes:
        counts: Number of anomalies of each kind.
        examples: `(anomaly, document id, detail)`, at most `MAX_EXAMPLES` of each kind.
    """

    counts: Counter[Anomaly] = field(default_factory=Counter)
    examples: list[tuple[Anomaly, str, str]] = field(default_factory=list)

    def add(self, anomaly: Anomaly, document_id: str, detail: str, count: int = 1) -> None:
        """Count an anomaly, and keep it as an example if there are fewer than `MAX_EXAMPLES`.

        Args:
            anomaly: The anomaly.
            document_id: Id of a document that has it.
            detail: What is wrong with this document, for messages.
            count: Number of documents that have it.
        """
        if self.counts[anomaly] < MAX_EXAMPLES:
            self.examples.append((anomaly, document_id, well_formed(detail[:200])))
        self.counts[anomaly] += count


@dataclass(frozen=True)
class Unpartitioned:
    """Why a document has no partition.

    Attributes:
        anomaly: The anomaly of the document.
        detail: What is wrong, for messages.
    """

    anomaly: Anomaly
    detail: str


@dataclass(frozen=True)
class Listing:
    """The contents of one partition.

    Attributes:
        table: The manifest of `url_list`, sorted by document and position.
        documents: Number of documents.
        report: Anomalies of the documents.
        note: Warning about the whole partition, if there is one.
    """

    table: pa.Table
    documents: int
    report: SourceReport
    note: str | None = None

    @property
    def rows(self) -> list[UrlRow]:
        """The rows of `table`."""
        return from_table(self.table, UrlRow)


@dataclass(frozen=True)
class Inventory:
    """The retailers and days of the whole source.

    Attributes:
        names: The retailers' names by slug, each as in most of its documents.
        documents: Number of documents by `(slug, day)`, for days that have a partition.
        report: Documents that have no partition, and why.
        spellings: All names of the retailers that have several, by slug, the most frequent first.
        warnings: What is wrong with the source as a whole.
    """

    names: dict[str, str]
    documents: dict[tuple[str, str], int]
    report: SourceReport
    spellings: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def partitions(self, period: Period) -> dict[tuple[str, str], int]:
        """Number of documents by `(slug, first day)` of their partition.

        Args:
            period: `partitions.period`.
        """
        found: Counter[tuple[str, str]] = Counter()
        for (slug, day), number in self.documents.items():
            found[slug, first_day(dt.date.fromisoformat(day), period).isoformat()] += number
        return dict(found)


@dataclass(frozen=True)
class Sample:
    """The images of some documents of a source, to check its settings.

    Attributes:
        documents: Number of documents.
        urls: The first URL of each document that has one.
        hints: By field and path of `source.fields` that finds nothing in any document, such as
            `images: pics`: the fields that the first document has near it.
        report: Anomalies of the documents' images.
    """

    documents: int
    urls: list[str]
    hints: dict[str, str]
    report: SourceReport


def anomaly_notes(report: SourceReport) -> Iterator[str]:
    """A sentence for each kind of anomaly of a survey, with its first example."""
    for anomaly, count in report.counts.items():
        _, name, detail = next(example for example in report.examples if example[0] is anomaly)
        if anomaly in LINE_ANOMALIES:
            found = counted(count, "line")
        else:
            found = f"{counted(count, 'document')} without a partition"
        yield f"{found}: {anomaly}, for example {name}: {detail}"


class Source(Protocol):
    """A source of product documents."""

    def listing(self, date: str, retailer: str) -> Listing:
        """Read the URL rows of one partition.

        Args:
            date: First day of the partition in UTC, `YYYY-MM-DD`.
            retailer: Slug of the retailer.

        Raises:
            SourceError: The source cannot be read, or has no retailer at all.
        """

    def inventory(self) -> Inventory:
        """Read the retailers and days of the whole source.

        Raises:
            SourceError: The source cannot be read.
        """

    def sample(self) -> Sample:
        """Read the images of some documents, at most `SAMPLE_SIZE`.

        Raises:
            SourceError: The source cannot be read.
        """


def spellings_note(slug: str, names: Sequence[str]) -> str:
    """The note that several names are one retailer.

    Args:
        slug: Slug of the retailer.
        names: Its names in the documents, the most frequent first.
    """
    quoted = ", ".join(repr(name) for name in names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"retailer {slug} is written in {len(names)} ways: {quoted}{more}"


def listing_without_retailer(slug: str, known: Collection[str]) -> Listing:
    """The empty listing of a retailer that has left the source, with a note.

    Args:
        slug: Slug of the partition's retailer.
        known: The slugs of the source's retailers.

    Raises:
        SourceError: The source has no retailer at all, so its settings are probably wrong.
    """
    if not known:
        raise SourceError(
            "the source has no document with a retailer's name; check that it contains documents "
            "(for MongoDB also source.database, source.collection, source.fields.retailer and "
            "source.query)"
        )
    slugs = ", ".join(sorted(known)[:20])
    note = (
        f"the source has no document of retailer {slug!r}; retailers in the source: {slugs}; if it "
        "has left the source, delete its partition in the UI; otherwise check its name in the "
        "source (for MongoDB also source.fields.retailer and source.query)"
    )
    return Listing(URL_LIST.empty_table(), 0, SourceReport(), note)


def day_anomaly(day: dt.date, start_date: dt.date, period: Period) -> Anomaly | None:
    """The reason why a day has no partition; None if it has one.

    Args:
        day: Day of a document in UTC.
        start_date: `start_date`, whose partition is the first one.
        period: `partitions.period`. The days of the current week or month that are still to come
            have a partition.
    """
    first = first_day(day, period)
    if first < first_day(start_date, period):
        return Anomaly.BEFORE_START_DATE
    if first > today():
        return Anomaly.IN_FUTURE
    return None


def today() -> dt.date:
    """The current day in UTC, whose partition is the last one."""
    return dt.datetime.now(dt.UTC).date()


def image_key(document_id: str, product_id: str, position: int, url: str) -> str:
    """Make the key of an image: stable, unique in its partition, and safe as a file name.

    Two images can have the same readable part (product and position). The 64-bit hash of all four
    arguments makes the key unique: among ten million images, the probability that any two share a
    key is 3 in a million.
    """
    identity = "\0".join((document_id, product_id, str(position), url))
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{_readable_part(product_id)}-{position:03d}-{digest}"


@lru_cache(1)  # the images of a product follow one another
def _readable_part(product_id: str) -> str:
    return slugify(product_id, max_length=40) or "product"


def product_name(value: object) -> str | None:
    """The id of a product as text.

    Args:
        value: The value in the document: any single value, a list of one, or `{"$oid": ...}` as in
            exports of MongoDB.

    Returns:
        The text; None if there is no id.
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping):
        value = value.get("$oid", value)
    if isinstance(value, float):  # pandas writes whole numbers like this if one is missing
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    return None if value is None or value == "" else well_formed(str(value))


def document_rows(
    *,
    document_id: str,
    product_id: str,
    images: object,
    date: str,
    retailer: str,
    report: SourceReport,
    separator: str | None = None,
    base_url: str | None = None,
) -> list[UrlRow]:
    """Make the URL rows of one document, and add the anomalies of its images to the report.

    Args:
        document_id: Id of the document.
        product_id: Id of the product.
        images: What the document has as images: a text, an object, or a list of any depth.
        date: Day of the document in UTC, `YYYY-MM-DD`.
        retailer: Slug of the retailer.
        report: The report that receives the anomalies.
        separator: `source.separator`.
        base_url: `source.base_url` of the retailer.

    Returns:
        One row per distinct URL, in the order of the document. The position of a row is its index
        in the flattened list, which counts invalid entries, too.
    """
    entries = image_entries(images, separator, base_url)
    if not entries:
        report.add(Anomaly.NO_IMAGES, document_id, f"the list of URLs is {images!r}")
    rows: dict[str, UrlRow] = {}
    for position, entry in enumerate(entries):
        if not isinstance(entry, str) or not entry:
            report.add(Anomaly.NON_STRING_URL, document_id, f"entry {position} is {entry!r}")
        elif is_placeholder(entry) or is_phrase(entry):
            detail = f"entry {position} is {entry[:100]!r}"
            report.add(Anomaly.PLACEHOLDER_URL, document_id, detail)
        elif entry in rows:
            report.add(Anomaly.DUPLICATE_URL, document_id, entry)
        else:
            if is_relative(entry):
                detail = f"{entry}; set source.base_url to the address of the shop"
                report.add(Anomaly.RELATIVE_URL, document_id, detail)
            rows[entry] = UrlRow(
                key=image_key(document_id, product_id, position, entry),
                url=entry,
                retailer=retailer,
                date=date,
                product_id=product_id,
                position=position,
                document_id=document_id,
            )
    return list(rows.values())


def build_inventory(
    names: Mapping[str, Counter[str]],
    documents: Mapping[tuple[str, str], int],
    report: SourceReport,
    warnings: Sequence[str] = (),
) -> Inventory:
    """Choose the name of each retailer.

    Args:
        names: Number of documents by the name in them, by slug.
        documents: Number of documents by `(slug, day)`.
        report: Anomalies of the documents.
        warnings: What is wrong with the source as a whole.
    """
    # The most frequent first; names that are as frequent in the order of the alphabet.
    ordered = {
        slug: [name for name, _ in sorted(same.items(), key=lambda item: (-item[1], item[0]))]
        for slug, same in sorted(names.items())
    }
    return Inventory(
        names={slug: same[0] for slug, same in ordered.items()},
        documents=dict(documents),
        report=report,
        spellings={slug: same for slug, same in ordered.items() if len(same) > 1},
        warnings=list(warnings),
    )


def build_listing(documents: Iterable[Sequence[UrlRow]], report: SourceReport) -> Listing:
    """Collect and sort the rows of a partition, in an order that does not depend on the source's.

    Args:
        documents: The rows of each document, made while they are read: only their table is kept.
        report: Anomalies of the documents.

    Raises:
        SourceError: Two rows have the same key, so one image would overwrite the other.
    """
    number = 0

    def rows() -> Iterator[UrlRow]:
        nonlocal number
        for document in documents:
            number += 1
            yield from document

    # Arrow compares text by its UTF-8 bytes, which is the order of its code points.
    order = [(name, "ascending") for name in ("document_id", "position", "key")]
    table = to_table(rows(), UrlRow).sort_by(order)
    if pc.count_distinct(table["key"]).as_py() < table.num_rows:
        counts = table["key"].value_counts()
        repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        raise SourceError(
            f"keys of images are not unique ({len(repeated):,}), for example "
            f"{repeated[0].as_py()!r}: "
            "the same document was read twice; check the source for repeated ids"
        )
    note = None
    if number and not table.num_rows:
        note = (
            f"there is no image URL in {counted(number, 'document')} of the partition; check "
            "source.fields.images (`imgassets doctor` shows the URLs that it finds)"
        )
    return Listing(table, number, report, note)


def build_sample(
    documents: Iterable[tuple[str, str | None, Mapping[str, Any]]],
    paths: Sequence[str],
    settings: SourceSettings,
    others: Sequence[tuple[str, str]] = (),
) -> Sample:
    """Find the images of some documents.

    Args:
        documents: Ids, slugs of the retailers (None if there is none) and documents.
        paths: Where the images are, in place of `source.fields.images`.
        settings: How several URLs in a text are separated, and what relative URLs refer to.
        others: Further fields of `source.fields` and their paths that documents should have.
    """
    report = SourceReport()
    total, urls = 0, []
    checked = [*(("images", path) for path in paths), *others]
    hints: dict[str, str] = {}
    found: set[tuple[str, str]] = set()
    for number, (document_id, retailer, document) in enumerate(documents):
        total += 1
        found.update(entry for entry in checked if values_at_paths(document, [entry[1]]))
        if number == 0:
            hints = {f"{name}: {path}": _fields_hint(document, path) for name, path in checked}
        rows = document_rows(
            document_id=document_id,
            product_id=document_id,
            images=values_at_paths(document, paths),
            date="",
            retailer=retailer or "",
            report=report,
            separator=settings.separator,
            base_url=settings.base_url_of(retailer or ""),
        )
        urls += [row.url for row in rows[:1]]
    for name, path in found:
        del hints[f"{name}: {path}"]
    return Sample(total, urls, hints, report)


def _fields_hint(document: Mapping[str, Any], path: str) -> str:
    place, names = fields_near(document, path)
    shown = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
    return f"fields of {place or 'the document'}: {shown}"
