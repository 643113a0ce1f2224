"""Builds valid manifest rows for tests; a test overrides the columns that it is about."""

from __future__ import annotations

import hashlib
from typing import Any

from imgassets.defs.partitions import Partition
from imgassets.manifests import Outcome, ProcessedRow, RawRow, UrlRow

PARTITION = Partition("2026-01-31", "zara")
FILE = b"four"
_SAVED = {"bytes": len(FILE), "sha256": hashlib.sha256(FILE).hexdigest()}


def url_row(number: int = 0, **changes: Any) -> UrlRow:
    """Return a row of `url_list`."""
    return UrlRow(**_url_values(number) | changes)


def raw_row(number: int = 0, **changes: Any) -> RawRow:
    """Return a row of `raw_images` whose image was downloaded; its file is `FILE`."""
    saved = {"outcome": Outcome.OK, "path": f"images/image-{number}.jpeg", **_SAVED}
    return RawRow(**_url_values(number) | saved | changes)


def processed_row(number: int = 0, **changes: Any) -> ProcessedRow:
    """Return a row of `processed_images` whose image had no face."""
    url_values = {
        name: value for name, value in _url_values(number).items() if name in _URL_COLUMNS
    }
    processed = {
        "outcome": Outcome.OK,
        "path": f"images/image-{number}.jpg",
        **_SAVED,
        "face_count": 0,
        "trim_ratio": 0.8,
    }
    return ProcessedRow(**url_values | processed | changes)


_URL_COLUMNS = ("key", "url", "product_id")


def _url_values(number: int) -> dict[str, Any]:
    return {
        "key": f"image-{number}",
        "url": f"http://127.0.0.1/{number}.jpg",
        "retailer": PARTITION.retailer,
        "date": PARTITION.date,
        "product_id": f"product-{number}",
        "position": 0,
        "document_id": f"document-{number}",
    }
