"""Documents that exist before the deployment starts: two shops, two days."""

from __future__ import annotations

import datetime as dt
from typing import Any

from imgassets.defs.partitions import Partition
from imgassets_tests.life.deployment import Shop

SHOPS = ("north", "south")
DAYS = [dt.date(2026, 1, day) for day in (2, 3)]
PARTITIONS = [Partition(day.isoformat(), shop) for day in DAYS for shop in SHOPS]
EMPTY = PARTITIONS[-1]


def documents(shops: dict[str, Shop]) -> list[dict[str, Any]]:
    """Return documents with three images per partition, none for `EMPTY`; day 1 is gated."""
    documents = []
    for date, name in PARTITIONS:
        if (date, name) != EMPTY:
            day = dt.date.fromisoformat(date)
            names = [f"{date}-{number}" for number in range(3)]
            urls = shops[name].sell(*names, gated=day == DAYS[0])
            documents.append(shops[name].document(day, urls))
    return documents
