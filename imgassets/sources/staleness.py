"""Which retailers have no recent document. Nothing else lives here."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from imgassets.sources.listing import Inventory


@dataclass(frozen=True)
class StaleRetailer:
    """A retailer that no longer delivers.

    Attributes:
        slug: its partition.
        newest: the day of its newest document, `YYYY-MM-DD`; none where it has no document.
        age_days: how many days ago that was.
        allowed_days: how many there may be.
    """

    slug: str
    newest: str | None
    age_days: int | None
    allowed_days: int


def stale_retailers(
    inventory: Inventory, registered: Iterable[str], allowed: Callable[[str], int], today: dt.date
) -> list[StaleRetailer]:
    """The retailers without a document in the days allowed, the longest silent first.

    Args:
        inventory: what the source holds.
        registered: slugs of the retailers that are known; one without a document is late.
        allowed: days that a retailer's newest document may be old.
        today: the current day (UTC).
    """
    newest: dict[str, str] = {}
    for slug, date in inventory.documents:
        newest[slug] = max(date, newest.get(slug, date))
    late = []
    # Of two names on one slug it is not known which delivers; `imgassets sync` tells of those.
    for slug in {*registered, *inventory.names} - set(inventory.conflicts):
        day: str | None = newest.get(slug)
        age = None if day is None else (today - dt.date.fromisoformat(day)).days
        if age is None or age > allowed(slug):
            late.append(StaleRetailer(slug, day, age, allowed(slug)))
    return sorted(late, key=lambda retailer: (retailer.newest or "", retailer.slug))
