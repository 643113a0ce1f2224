"""Check that everything a run needs is available (`imgassets doctor`).

It writes and removes one small file in the storage, and fetches the face model if it is missing.
How the results are printed is in `cli`.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from imgassets.configuration import load_settings, settings_files
from imgassets.errors import ModelError, SettingsError, SourceError, StorageError
from imgassets.folders import models_folder
from imgassets.periods import first_day, first_days
from imgassets.settings import Settings
from imgassets.wording import counted

if TYPE_CHECKING:
    from imgassets.sources.listing import Inventory, Source
    from imgassets.sources.mongo_places import Place
    from imgassets.sources.mongodb import MongoSource

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Diagnosis:
    """The result of one check.

    Attributes:
        subject: What was checked, for example `storage`.
        status: `error` if no run can succeed, `warning` if something needs attention.
        message: What was found and, if something is wrong, what to do.
    """

    subject: str
    status: Status
    message: str


def diagnose(mongodb_uri: Callable[[], str]) -> Iterator[Diagnosis]:
    """Check settings, source, partitions, images, storage, face model and DAGSTER_HOME, in order.

    Args:
        mongodb_uri: Returns the address of MongoDB; called only if the source is MongoDB.

    Yields:
        One or more results per check; only one if the settings are not valid.
    """
    try:
        settings = load_settings()
    except SettingsError as error:
        yield Diagnosis("settings", "error", str(error))
        return
    files = " overriding ".join(str(file.path) for file in settings_files())
    yield Diagnosis("settings", "ok", files or "no file; defaults and environment variables only")
    yield from _source(settings, mongodb_uri)
    yield from _storage(settings)
    yield _model(settings)
    yield _dagster_home()


def _source(settings: Settings, mongodb_uri: Callable[[], str]) -> Iterator[Diagnosis]:
    from imgassets.sources.factory import open_source
    from imgassets.sources.listing import today
    from imgassets.sources.mongodb import MongoSource

    addresses: list[str] = []

    def address() -> str:
        addresses.append(mongodb_uri())
        return addresses[-1]

    try:
        source = open_source(settings, address)
        inventory = source.inventory()
    except SourceError as error:
        yield Diagnosis("source", "error", str(error))
        return
    yield _documents(settings, inventory, *addresses)
    yield from _anomalies(inventory)
    if inventory.names:
        yield partition_count(settings, len(inventory.names), today())
    if isinstance(source, MongoSource):
        yield from _index(source)
    yield from _images(source)


def _documents(settings: Settings, inventory: Inventory, uri: str | None = None) -> Diagnosis:
    """How many documents have a partition.

    Args:
        settings: Settings whose `source` section selects the source.
        inventory: The retailers and days of the source.
        uri: Address of MongoDB; None for other sources.
    """
    from imgassets.sources.mongo_places import Places
    from imgassets.sources.mongodb import mask_uri

    options = settings.source
    location = options.path or options.function or ""
    if uri is not None:
        location = f"{mask_uri(uri)} {Places(options).name}"
    total = sum(inventory.documents.values())
    if not total:
        return Diagnosis(
            "source",
            "warning",
            f"{location} has no document that belongs to a partition; check {_HINTS[options.kind]}",
        )
    counts = {
        "document": total,
        "retailer": len(inventory.names),
        "partition": len(inventory.partitions(settings.partitions.period)),
    }
    found = ", ".join(counted(number, noun) for noun, number in counts.items())
    return Diagnosis("source", "ok", f"{location}: {found}")


_HINTS = {
    "mongodb": "source.database, source.collection, source.fields, source.query and start_date",
    **dict.fromkeys(
        ("csv", "jsonl", "parquet"), "the columns of the file, source.fields and start_date"
    ),
    "python": "the records that the function returns and start_date",
}


def _anomalies(inventory: Inventory) -> Iterator[Diagnosis]:
    from imgassets.sources.listing import anomaly_notes, spellings_note

    for slug, names in inventory.spellings.items():
        yield Diagnosis("source", "ok", spellings_note(slug, names))
    for warning in (*inventory.warnings, *anomaly_notes(inventory.report)):
        yield Diagnosis("source", "warning", warning)


# More per asset make pages and backfills of Dagster's UI slow.
# https://docs.dagster.io/guides/build/partitions-and-backfills/partitioning-assets
_MAX_PARTITIONS = 100_000
_WARN_DAYS = 90


def partition_count(settings: Settings, retailers: int, today: dt.date) -> Diagnosis:
    """Whether there are more partitions than Dagster advises, or will be within `_WARN_DAYS`.

    Args:
        settings: Settings with the start date and the period.
        retailers: Number of retailers in the source.
        today: Current day in UTC.
    """
    period = settings.partitions.period
    dates = first_days(settings.start_date, today, period)
    soon = first_days(settings.start_date, today + dt.timedelta(days=_WARN_DAYS), period)
    number, most = retailers * len(dates), _MAX_PARTITIONS // retailers
    counts = f"{counted(retailers, 'retailer')} x {counted(len(dates), period)}"
    found = (
        f"{number:,} ({counts} since start_date); Dagster advises at most {_MAX_PARTITIONS:,} per "
        "asset"
    )
    if len(soon) <= most:
        return Diagnosis("partitions", "ok", found)
    reached = "" if number > _MAX_PARTITIONS else f", which these retailers exceed on {soon[most]}"
    longer = {"day": "partitions.period: week or month, ", "week": "partitions.period: month, "}
    return Diagnosis(
        "partitions",
        "warning",
        f"{found}{reached}; set {longer.get(period, '')}a later start_date, which hides older "
        "partitions and keeps their images, or divide the retailers among several catalogues; see "
        "docs/operations.md",
    )


_QUERIES = {
    "partition": "each run reads the whole collection",
    "retailers": "each run reads the whole collection for the retailers' names",
    "survey": "imgassets sync and the freshness check read all documents instead of the index",
    "sensor": "each poll of the sensor reads the whole collection",
}
# How many commands for missing indexes are shown.
_MAX_COMMANDS = 5


def _index(source: MongoSource) -> Iterator[Diagnosis]:
    """Whether each query of the source uses an index."""
    try:
        unindexed = source.unindexed()
    except SourceError as error:
        yield Diagnosis("index", "warning", f"cannot be checked: {error}")
        return
    if source.settings.query:
        # With a filter, the survey has to look at the documents.
        unindexed.pop("survey", None)
    commands: dict[str, None] = {}  # in order; one index can serve several queries
    for query, places in unindexed.items():
        yield Diagnosis("index", "warning", f"missing for the {query} query, so {_QUERIES[query]}")
        updated = str(source.settings.fields.updated)
        keys = [(updated, 1)] if query == "sensor" else source.index_keys
        commands.update(dict.fromkeys(_index_command(place, keys) for place in places))
    if not commands:
        yield Diagnosis("index", "ok", "none is missing")
        return
    shown, others = list(commands)[:_MAX_COMMANDS], len(commands) - _MAX_COMMANDS
    more = f"; and {others} more" if others > 0 else ""
    yield Diagnosis("index", "warning", f"to create it, in mongosh: {'; '.join(shown)}{more}")


def _index_command(place: Place, keys: list[tuple[str, int]]) -> str:
    shown = "{" + ", ".join(f'"{name}": {direction}' for name, direction in keys) + "}"
    if not place.can_have_index:
        return f"index {shown} in the collection that the view {place} reads"
    collection = f'db.getSiblingDB("{place.database}").getCollection("{place.collection}")'
    return f"{collection}.createIndex({shown})"


def _images(source: Source) -> Iterator[Diagnosis]:
    """Which image URLs are found in some documents, and which paths find nothing."""
    try:
        sample = source.sample()
    except SourceError as error:
        yield Diagnosis("images", "error", str(error))
        return
    if not sample.documents:
        return
    for path, fields in sample.hints.items():
        yield Diagnosis(
            "images" if path.startswith("images") else "source",
            "warning",
            f"source.fields.{path} finds nothing in {counted(sample.documents, 'document')}; "
            f"{fields}",
        )
    if not sample.urls and any(path.startswith("images") for path in sample.hints):
        return
    if sample.urls:
        found = (
            f"URLs in {len(sample.urls)} of {counted(sample.documents, 'document')}, for example"
        )
        yield Diagnosis("images", "ok", f"{found} {' '.join(dict.fromkeys(sample.urls[:3]))}")
    for anomaly, count in sample.report.counts.items():
        example = next(e for e in sample.report.examples if e[0] is anomaly)
        yield Diagnosis(
            "images",
            "warning",
            f"{anomaly}: {count} in {counted(sample.documents, 'document')}, for example "
            f"{example[1]}: {example[2]}",
        )


def _storage(settings: Settings) -> Iterator[Diagnosis]:
    from imgassets.storage import JOURNALS, list_manifests, open_storage

    storage = replace(open_storage(settings), patience_s=0)
    path = ".imgassets-doctor"
    try:
        storage.write(path, b"written by imgassets doctor")
        storage.read(path)
        storage.remove(path)
        # A local write creates a folder for temporary files in it.
        storage.remove_empty_folders(JOURNALS)
        manifests = list_manifests(storage, "url_list")
    except (StorageError, OSError) as error:
        yield Diagnosis("storage", "error", str(error))
        return
    yield Diagnosis("storage", "ok", f"{storage.root} is writable")
    period, start = settings.partitions.period, settings.start_date
    dates = {dt.date.fromisoformat(each.date) for each in manifests}
    others = [
        day for day in dates if first_day(day, period) != day and day >= first_day(start, period)
    ]
    if others:
        yield Diagnosis(
            "storage",
            "warning",
            f"it has manifests of {counted(len(others), 'day')} since start_date that start no "
            f"{period}, for example {min(others)}: partitions.period was changed, and readers get "
            f"their rows twice; set start_date to a {period} without them, or delete them",
        )


def _model(settings: Settings) -> Diagnosis:
    from imgassets.imaging.models import ensure_model

    try:
        path = ensure_model(settings.faces, models_folder())
    except ModelError as error:
        return Diagnosis("face model", "error", str(error))
    return Diagnosis("face model", "ok", f"{settings.faces.model}, {path.name}, checksum verified")


def _dagster_home() -> Diagnosis:
    folder = os.environ.get("DAGSTER_HOME")
    if not folder:
        return Diagnosis(
            "DAGSTER_HOME",
            "warning",
            "is not set in this shell; before you run `dagster`: "
            'export DAGSTER_HOME="$PWD/.imgassets/dagster_home"',
        )
    if not os.path.isabs(folder):  # noqa: PTH117  (a check of the text; no file is accessed)
        return Diagnosis("DAGSTER_HOME", "error", f"is {folder!r}, but must be an absolute path")
    if not os.path.isdir(folder):  # noqa: PTH112
        return Diagnosis(
            "DAGSTER_HOME",
            "warning",
            f"{folder} does not exist; correct it, or run `imgassets sync`, which creates it",
        )
    return Diagnosis("DAGSTER_HOME", "ok", folder)
