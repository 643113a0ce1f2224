"""Records take-downs for tests of what must not be requested, stored or listed again."""

from __future__ import annotations

import datetime as dt
from typing import Any

from imgassets.storage import Storage
from imgassets.takedown import TakedownRecord, write_record


def take_down(storage: Storage, **values: Any) -> None:
    """Write the record of a complete take-down that removed no file; `values` say of what."""
    nothing: dict[str, Any] = {
        "retailer": None,
        "product_id": None,
        "whole_retailer": False,
        "everywhere": False,
        "url_sha256": [],
        "image_sha256": [],
        "shared_sha256": [],
    }
    record = TakedownRecord(
        removed_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        removed_by="anna",
        reason="the photographer asked for it",
        rows=0,
        files=0,
        bytes=0,
        paths=[],
        complete=True,
        **nothing | values,
    )
    write_record(storage, f"removed/{len(storage.names('removed'))}.parquet", record)
