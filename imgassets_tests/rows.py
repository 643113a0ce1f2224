"""Builds valid manifest rows for tests; a test overrides the columns that it is about."""

from __future__ import annotations

import hashlib
from typing import Any

from imgassets.defs.partitions import Partition
from imgassets.manifests import Outcome, ProcessedRow, RawRow, UrlRow
from imgassets.storage import processed_path, raw_path

PARTITION = Partition("2026-01-31", "zara")
SETTINGS_HASH = "0123456789abcdef"


def url_row(number: int = 0, **changes: Any) -> UrlRow:
    """Return a row of `url_list`."""
    return UrlRow(**_url_values(number) | changes)


def raw_row(number: int = 0, **changes: Any) -> RawRow:
    """Return a row of `raw_images` whose image was downloaded; its file has `raw_file(key)`."""
    url_values = _url_values(number)
    values = {"outcome": Outcome.OK, **saved(raw_file(url_values["key"])), **url_values} | changes
    path = raw_path(values["retailer"], str(values["sha256"]), "jpg")
    return RawRow(**{"path": path} | values)


def processed_row(number: int = 0, **changes: Any) -> ProcessedRow:
    """Return a row of `processed_images` whose image had no face; see `processed_file`."""
    url_values = _url_values(number)
    key = url_values["key"]
    values = {
        "outcome": Outcome.OK,
        "raw_sha256": saved(raw_file(key))["sha256"],
        "settings_hash": SETTINGS_HASH,
        "face_count": 0,
        "trim_ratio": 0.8,
        **saved(processed_file(key)),
        **url_values,
    } | changes
    retailer, raw_sha256 = values["retailer"], str(values["raw_sha256"])
    paths = {
        "raw_path": raw_path(retailer, raw_sha256, "jpg"),
        "path": processed_path(retailer, raw_sha256, str(values["settings_hash"]), "jpg"),
    }
    return ProcessedRow(**paths | values)


def raw_file(key: str) -> bytes:
    """Return the bytes of the served file of a key: no image, but other bytes for each key."""
    return f"raw {key}".encode()


def processed_file(key: str) -> bytes:
    """Return the bytes of the processed file of a key; see `raw_file`."""
    return f"processed {key}".encode()


def saved(data: bytes) -> dict[str, Any]:
    """Return the columns that describe a file with these bytes: size and checksum."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


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
