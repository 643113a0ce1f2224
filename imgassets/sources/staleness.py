"""Find the retailers that have no recent document."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from imgassets.sources.listing import Inventory


@dataclass(frozen=True)
class StaleRetailer:
    """A retailer without a recent document.

    Attributes:
        slug: Slug of the retailer.
        newest: Day of its newest document, `YYYY-MM-DD`; None if it has no document.
        age_days: Age of its newest document in days; None if it has no document.
        allowed_days: Maximum age in days.
    """

    slug: str
    newest: str | None
    age_days: int | None
    allowed_days: int


def stale_retailers(
    inventory: Inventory, registered: Iterable[str], allowed: Callable[[str], int], today: dt.date
) -> list[StaleRetailer]:
    """Find the retailers whose newest document is too old.

    Args:
        inventory: Retailers and days of the source.
        registered: Slugs of the registered retailers; one without any document is stale.
        allowed: Returns the maximum age of a retailer's newest document in days, by slug.
        today: Current day in UTC.

    Returns:
        The stale retailers: first those without a document, then by the day of the newest document.
    """
    newest: dict[str, str] = {}
    for slug, date in inventory.documents:
        newest[slug] = max(date, newest.get(slug, date))
    stale = []
    for slug in {*registered, *inventory.names}:
        day: str | None = newest.get(slug)
        age = None if day is None else (today - dt.date.fromisoformat(day)).days
        if age is None or age > allowed(slug):
            stale.append(StaleRetailer(slug, day, age, allowed(slug)))
    return sorted(stale, key=lambda retailer: (retailer.newest or "", retailer.slug))
