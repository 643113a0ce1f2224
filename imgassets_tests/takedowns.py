"""Records take-downs for tests of what must not be requested, stored or listed again."""

from __future__ import annotations

import datetime as dt
from typing import Any

from imgassets.storage import Storage
from imgassets.takedown import TakedownRecord, write_record


def takedown_record(**values: Any) -> TakedownRecord:
    """The record of a complete take-down that removed no file; `values` say of what."""
    nothing: dict[str, Any] = {
        "removed_at": dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC),
        "removed_by": "ann",
        "reason": "request 12",
        "retailer": None,
        "product_id": None,
        "whole_retailer": False,
        "everywhere": False,
        "url_sha256": [],
        "image_sha256": [],
        "shared_sha256": [],
        "rows": 0,
        "files": 0,
        "bytes": 0,
        "paths": [],
        "complete": True,
    }
    return TakedownRecord(**nothing | values)


def take_down(storage: Storage, **values: Any) -> None:
    """Write a `takedown_record`."""
    path = f"removed/{len(storage.names('removed'))}.parquet"
    write_record(storage, path, takedown_record(**values))
