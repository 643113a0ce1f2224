"""The last days of one retailer, from the stored numbers or from its manifests."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from imgassets.reports.day import RetailerDay, load_days
from imgassets.reports.measure import measure_retailer
from imgassets.settings import RetailerSettings
from imgassets.storage import Storage

_THREADS = 32


def retailer_days(
    storage: Storage, retailer: str, dates: Sequence[str], options: RetailerSettings
) -> dict[str, RetailerDay]:
    """The numbers of one retailer by date, in ascending order; days without any are left out.

    Args:
        storage: The storage.
        retailer: Slug of the retailer.
        dates: The days. Those without stored numbers take two more requests each.
        options: The settings of the retailer.

    Raises:
        StorageError: The storage is not reachable or not readable.
    """
    stored = load_days(storage, dates)
    others = [date for date in dates if date not in stored]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="reports") as pool:
        measured = pool.map(
            lambda date: measure_retailer(storage.partition(date, retailer), 0, None, options)[0],
            others,
        )
        found = dict(zip(others, measured, strict=True))
    for date, day in stored.items():
        if retailer in day.by_retailer:
            found[date] = day.by_retailer[retailer]
    return {date: found[date] for date in dates if date in found and found[date].is_relevant}
