"""Find the runs whose events in Dagster's event log show images of given partitions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Iterator

_ASSETS = ("raw_images", "processed_images")
_DAILY = "daily_report"  # shows images of all retailers of a day
_PARTITION_TAG = "dagster/partition"
_KEYS_PER_QUERY = 200  # databases limit the parameters of a statement
_EVENTS_PER_QUERY = 1_000


def runs_of_partitions(instance: dg.DagsterInstance, keys: Collection[str]) -> list[str]:
    """Ids of the runs that materialized, checked or reported images of partitions, newest first.

    Their events have thumbnails, galleries and URLs.

    Args:
        instance: The Dagster instance.
        keys: Partition keys, for example `["2026-01-31|zara"]`.
    """
    known = instance.get_asset_keys()
    assets = [key for key in known if key.path[-1] in _ASSETS]
    reports = [key for key in known if key.path[-1] == _DAILY]
    found: dict[str, float] = {}
    remaining = iter(sorted(keys))
    while batch := list(islice(remaining, _KEYS_PER_QUERY)):
        # Runs that only ran checks have no materialization; runs of a range have no such tag.
        filters = dg.RunsFilter(tags={_PARTITION_TAG: batch})
        for record in instance.get_run_records(filters):
            found[record.dagster_run.run_id] = record.create_timestamp.timestamp()
        for asset in assets:
            for run_id, timestamp in _materializations(instance, asset, batch):
                found.setdefault(run_id, timestamp)
        for asset in reports:
            days = sorted({key.partition("|")[0] for key in batch})
            for run_id, timestamp in _materializations(instance, asset, days):
                found.setdefault(run_id, timestamp)
    return sorted(found, key=lambda run_id: found[run_id], reverse=True)


def _materializations(
    instance: dg.DagsterInstance, asset: dg.AssetKey, keys: Sequence[str]
) -> Iterator[tuple[str, float]]:
    filters = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=keys)
    cursor = None
    has_more = True
    while has_more:
        page = instance.fetch_materializations(filters, limit=_EVENTS_PER_QUERY, cursor=cursor)
        yield from ((record.run_id, record.timestamp) for record in page.records)
        cursor, has_more = page.cursor, page.has_more
