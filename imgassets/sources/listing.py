"""What every source yields: the URL rows of a partition, and an report of what was odd.

Here live keys, slugs and days, which must be the same whatever the source. How documents are read
is in `mongodb` and `table`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from slugify import slugify

from imgassets.errors import SourceError
from imgassets.manifests import UrlRow

MAX_EXAMPLES = 20


class Anomaly(StrEnum):
    """What can be odd about a document. Each is counted and reported; nothing is dropped silently.

    Of documents with several retailers, dates or lists the first reason in this order counts.
    """

    NO_RETAILER = "no_retailer"
    """No name, one that is no text, or one without a letter or digit."""
    NO_DATE = "no_date"
    """No date, and no ObjectId whose creation time could stand in."""
    INVALID_DATE = "invalid_date"
    """Something is there, but it is neither a date nor an ISO 8601 text."""
    BEFORE_START_DATE = "before_start_date"
    IN_FUTURE = "in_future"
    """Dated after today (UTC); its partition does not exist yet."""
    NO_IMAGES = "no_images"
    """No list of URLs, or an empty one."""
    NON_STRING_URL = "non_string_url"
    """An entry of the list that is no text, or an empty one; the document's others count."""
    DUPLICATE_URL = "duplicate_url"
    """A URL that the same document lists twice: it becomes one row."""


@dataclass
class SourceReport:
    """How many documents were odd and why, with a few examples of each."""

    counts: Counter[Anomaly] = field(default_factory=Counter)
    examples: list[tuple[Anomaly, str, str]] = field(default_factory=list)
    """`(anomaly, document id, detail)`, at most `MAX_EXAMPLES` of each anomaly."""

    def add(self, anomaly: Anomaly, document_id: str, detail: str) -> None:
        """Count one anomaly and keep it as an example while there are few."""
        if self.counts[anomaly] < MAX_EXAMPLES:
            self.examples.append((anomaly, document_id, detail[:200]))
        self.counts[anomaly] += 1


@dataclass(frozen=True)
class Listing:
    """The URL rows of one partition."""

    rows: list[UrlRow]
    documents: int
    report: SourceReport


@dataclass(frozen=True)
class Inventory:
    """What the whole source holds.

    Attributes:
        names: the retailers' names as the documents have them, by slug.
        documents: number of documents by `(slug, day)`, for days that have a partition.
        conflicts: slugs that several names fall on; they are in neither of the above.
        report: documents that have no partition, and why.
    """

    names: dict[str, str]
    documents: dict[tuple[str, str], int]
    conflicts: dict[str, list[str]]
    report: SourceReport


class Source(Protocol):
    """Where product documents come from."""

    def listing(self, date: str, retailer: str) -> Listing:
        """The URL rows of one partition.

        Raises:
            SourceError: the source cannot be read, or does not know the retailer.
        """

    def inventory(self) -> Inventory:
        """Retailers and days of the whole source.

        Raises:
            SourceError: the source cannot be read.
        """


def retailer_slug(name: object) -> str | None:
    """The partition key of a retailer's name (`[a-z0-9-]`); none where nothing is left of it."""
    return slugify(name, max_length=64) or None if isinstance(name, str) else None


def conflict(slug: str, names: list[str]) -> str:
    """The sentence for two names that fall on one slug."""
    told = " and ".join(repr(name) for name in sorted(names))
    return (
        f"retailers {told} both become the partition {slug!r}; give them one name in the "
        "documents, or leave one out with source.query"
    )


def unknown_retailer(slug: str, known: Mapping[str, object]) -> SourceError:
    """The error for a partition whose retailer the source does not have."""
    others = ", ".join(sorted(known)[:20]) or "none at all"
    return SourceError(f"the source has no document of retailer {slug!r}; it has: {others}")


def day_anomaly(day: dt.date, start_date: dt.date) -> Anomaly | None:
    """Why a day has no partition, or none where it has one."""
    if day < start_date:
        return Anomaly.BEFORE_START_DATE
    if day > today():
        return Anomaly.IN_FUTURE
    return None


def today() -> dt.date:
    """The current day in UTC, the last one that has a partition."""
    return dt.datetime.now(dt.UTC).date()


def picture_key(document_id: str, product_id: str, position: int, url: str) -> str:
    """A stable name for a picture: unique in its partition, safe as a file name anywhere.

    The readable part (product and position) may be the same for two pictures; the hash, over all
    that tells them apart, is not: 64 bits, so that of ten million pictures two share a key with a
    probability of 3 in a million.
    """
    identity = "\0".join((document_id, product_id, str(position), url))
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{slugify(product_id, max_length=40) or 'product'}-{position:03d}-{digest}"


def document_rows(
    *,
    document_id: str,
    product_id: str,
    images: object,
    date: str,
    retailer: str,
    report: SourceReport,
) -> list[UrlRow]:
    """The rows of one document; what is odd about its list is reported to the report.

    Args:
        document_id: names the document.
        product_id: names the product.
        images: what the document has as its list; a single URL counts as a list of one.
        date: day of the document, `YYYY-MM-DD`.
        retailer: slug of the retailer.
        report: takes the anomalies.
    """
    entries = [images] if isinstance(images, str) else images
    if not isinstance(entries, list | tuple) or not entries:
        report.add(Anomaly.NO_IMAGES, document_id, f"the list of URLs is {images!r}")
        return []
    rows: dict[str, UrlRow] = {}
    for position, entry in enumerate(entries):
        url = entry.strip() if isinstance(entry, str) else ""
        if not url:
            report.add(Anomaly.NON_STRING_URL, document_id, f"entry {position} is {entry!r}")
        elif url in rows:
            report.add(Anomaly.DUPLICATE_URL, document_id, url)
        else:
            rows[url] = UrlRow(
                key=picture_key(document_id, product_id, position, url),
                url=url,
                retailer=retailer,
                date=date,
                product_id=product_id,
                position=position,
                document_id=document_id,
            )
    return list(rows.values())


def finished(rows: list[UrlRow], documents: int, report: SourceReport) -> Listing:
    """The listing, in an order that does not depend on how the source was read.

    Raises:
        SourceError: two rows have one key, so that a picture would overwrite another.
    """
    rows.sort(key=lambda row: (row.document_id, row.position, row.key))
    repeated = [key for key, count in Counter(row.key for row in rows).items() if count > 1]
    if repeated:
        raise SourceError(
            f"{len(repeated)} keys stand for two pictures each, for example {repeated[0]!r}: "
            "the same document was read twice; check the source for repeated ids"
        )
    return Listing(rows, documents, report)
