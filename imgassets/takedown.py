"""Know what was taken down: which URLs and images must never be requested or stored again.

`imgassets forget` records each take-down as a file with one row in the folder `removed/` of the
data root. A record has no URL, only its SHA-256. Removing what is stored is in `forget`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from imgassets.errors import InvalidUrlError
from imgassets.manifests import REMOVED_URL
from imgassets.storage import REMOVED, Storage, read_table, write_table
from imgassets.tables import set_column
from imgassets.urls import normalise

_URL_IN_TEXT = re.compile(r"https?://[^\s\"'<>]+")
_CACHED_URLS = 2**18  # of one retailer; about 90 MB
_BATCH = 5_000  # URLs
_PUNCTUATION = ".,;:!?)]}"  # after a URL in a text


@dataclass(frozen=True, slots=True, kw_only=True)
class TakedownRecord:
    """One take-down; the columns of a file in `removed/`.

    A row is taken down if it is of `retailer` (of any, if that is None), and has a URL of
    `url_sha256` or the product `product_id`, or `whole_retailer` is true. With `everywhere`, the
    URLs are taken down in all retailers. An image is taken down if its SHA-256 is in
    `image_sha256`.
    """

    removed_at: dt.datetime
    """Time of the take-down, in UTC."""
    removed_by: str
    """Who took it down: the user name of the process."""
    reason: str
    """Why."""
    retailer: str | None
    """Slug of the retailer; null for all."""
    product_id: str | None
    """Id of the product; null if it was not selected by product."""
    whole_retailer: bool
    """Whether all rows of `retailer` are taken down."""
    everywhere: bool
    """Whether the rows of other URLs that have the same images are taken down, in all retailers."""
    url_sha256: list[str]
    """SHA-256 of the normalised URLs that were taken down, in hexadecimal."""
    image_sha256: list[str]
    """SHA-256 of the served files that must not be stored again, in hexadecimal."""
    shared_sha256: list[str]
    """SHA-256 of the served files that were kept because other rows have them, in hexadecimal."""
    rows: int
    """Number of rows of `raw_images` that got the outcome `removed`."""
    files: int
    """Number of files removed."""
    bytes: int
    """Their size in bytes."""
    paths: list[str]
    """Paths of the image files to remove."""
    complete: bool
    """Whether everything is removed; false while `imgassets forget` works, or if it was killed."""


_TEXTS = pa.list_(pa.string())
_SCHEMA = pa.schema(
    {
        "removed_at": pa.timestamp("ms", tz="UTC"),
        "removed_by": pa.string(),
        "reason": pa.string(),
        "retailer": pa.string(),
        "product_id": pa.string(),
        "whole_retailer": pa.bool_(),
        "everywhere": pa.bool_(),
        "url_sha256": _TEXTS,
        "image_sha256": _TEXTS,
        "shared_sha256": _TEXTS,
        "rows": pa.int64(),
        "files": pa.int64(),
        "bytes": pa.int64(),
        "paths": _TEXTS,
        "complete": pa.bool_(),
    }
)


class Takedowns:
    """All take-downs of a data root, for lookups."""

    def __init__(self, records: Iterable[TakedownRecord]) -> None:
        self._retailers: set[str | None] = set()
        self._products: set[tuple[str | None, str]] = set()
        self._urls: set[tuple[str | None, str]] = set()
        images: set[str] = set()
        for record in records:
            if record.whole_retailer:
                self._retailers.add(record.retailer)
            if record.product_id is not None:
                self._products.add((record.retailer, record.product_id))
            scope = None if record.everywhere else record.retailer
            self._urls |= {(scope, sha256) for sha256 in record.url_sha256}
            images |= set(record.image_sha256)
        self.image_sha256 = frozenset(images)
        """SHA-256 of the served files that must not be stored, in hexadecimal."""

    def redact(self, retailer: str, table: pa.Table) -> pa.Table:
        """Replace the URLs in a table that were taken down by `removed:` and a SHA-256.

        Args:
            retailer: Slug of the retailer of the rows.
            table: Columns of a manifest, with `url` and `product_id`.
        """
        replaced = pc.and_(
            self.covered(retailer, table), pc.invert(pc.starts_with(table["url"], REMOVED_URL))
        )
        urls = table["url"].filter(replaced).to_pylist()
        if not urls:
            return table
        changed = pc.replace_with_mask(
            table["url"].combine_chunks(),
            replaced.combine_chunks(),
            pa.array(map(redacted_url, urls), pa.string()),
        )
        return set_column(table, "url", changed)

    def covers(self, retailer: str, product_id: str, url: str) -> bool:
        """Whether a row was taken down.

        Args:
            retailer: Slug of the retailer.
            product_id: Id of the product.
            url: URL of the row; may be replaced already.
        """
        return (
            retailer in self._retailers
            or (retailer, product_id) in self._products
            or (None, product_id) in self._products
            or self._has_url(retailer, url)
        )

    def redact_text(self, retailer: str | None, text: str) -> str:
        """A text, with the URLs in it replaced that were taken down.

        Args:
            retailer: Slug of the retailer that the text is about; `None` for no particular one.
            text: An error message or another text.
        """
        return _URL_IN_TEXT.sub(lambda match: self._redact_url(retailer, match[0]), text)

    def covered(self, retailer: str, table: pa.Table) -> pa.ChunkedArray:
        """Which rows of a table were taken down, as `covers` decides, as booleans.

        Args:
            retailer: Slug of the retailer of the rows.
            table: Columns of a manifest, with `url` and `product_id`.
        """
        if retailer in self._retailers:
            return pa.chunked_array([pa.repeat(True, table.num_rows)])
        products = [product for scope, product in self._products if scope in (retailer, None)]
        distinct = table["url"].unique() if self._urls else pa.array([], pa.string())
        urls = [
            url
            for start in range(0, len(distinct), _BATCH)
            for url in distinct[start : start + _BATCH].to_pylist()
            if self._has_sha256(retailer, cached_url_sha256(url))
        ]
        return pc.or_(
            pc.is_in(table["product_id"], value_set=pa.array(products, pa.string())),
            pc.is_in(table["url"], value_set=pa.array(urls, pa.string())),
        )

    def includes(self, record: TakedownRecord) -> bool:
        """Whether everything that a record takes down is taken down already."""
        other = Takedowns([record])
        return (
            other._retailers <= self._retailers
            and all(self._includes(self._products, *each) for each in other._products)
            and all(self._includes(self._urls, *each) for each in other._urls)
            and other.image_sha256 <= self.image_sha256
        )

    def _includes(
        self, known: set[tuple[str | None, str]], retailer: str | None, value: str
    ) -> bool:
        return retailer in self._retailers or not known.isdisjoint(
            {(retailer, value), (None, value)}
        )

    def _has_url(self, retailer: str | None, url: str) -> bool:
        return bool(self._urls) and self._has_sha256(retailer, url_sha256(url))

    def _has_sha256(self, retailer: str | None, sha256: str) -> bool:
        return (retailer, sha256) in self._urls or (None, sha256) in self._urls

    def _redact_url(self, retailer: str | None, text: str) -> str:
        url = text
        while not self._has_url(retailer, url):
            if url[-1] not in _PUNCTUATION:
                return text
            url = url[:-1]
        return redacted_url(url) + text[len(url) :]


def url_sha256(url: str) -> str:
    """SHA-256 of a URL in normalised form, in hexadecimal: spellings of one URL have the same.

    Args:
        url: The URL, or what `redacted_url` returned for it.
    """
    if is_redacted(url):
        return url.removeprefix(REMOVED_URL)
    from requests.utils import requote_uri  # 0.08 CPU s, for runs after a take-down only

    with suppress(InvalidUrlError):
        # Servers read spellings as the same that are requested differently: `%7E` and `~`.
        url = requote_uri(normalise(url))
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()


cached_url_sha256 = lru_cache(_CACHED_URLS)(url_sha256)
"""`url_sha256` for scans of many manifests: a catalogue lists mostly the same URLs every day."""


def redacted_url(url: str) -> str:
    """What rows have instead of a URL that was taken down."""
    return f"{REMOVED_URL}{url_sha256(url)}"


def is_redacted(url: str) -> bool:
    """Whether a URL was taken down, and replaced by `redacted_url`."""
    return url.startswith(REMOVED_URL)


def read_records(storage: Storage) -> dict[str, TakedownRecord]:
    """All take-downs of a data root, by the path of their file, oldest first.

    Raises:
        StorageError: The storage is not reachable or not readable, or a record is broken.
    """
    found = {}
    for name in storage.names(REMOVED):
        if name.endswith(".parquet"):
            path = f"{REMOVED}/{name}"
            (values,) = read_table(storage, path).to_pylist()
            found[path] = TakedownRecord(**values)
    return found


def read_takedowns(storage: Storage) -> Takedowns:
    """The take-downs of a data root, for lookups; see `read_records`."""
    return Takedowns(read_records(storage).values())


def write_record(storage: Storage, path: str, record: TakedownRecord) -> None:
    """Write or replace the record of a take-down.

    Raises:
        StorageError: The storage is full, not reachable or not writable.
    """
    write_table(storage, path, pa.Table.from_pylist([asdict(record)], _SCHEMA))
