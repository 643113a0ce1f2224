"""Is everything there that a run needs? Each examination answers in one sentence.

Here lives what `imgassets doctor` looks at. It changes nothing but one small file that it writes
to the storage and removes again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from imgassets.configuration import load_settings, settings_files
from imgassets.folders import models_folder
from imgassets.settings import Settings, SettingsError

Verdict = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """The answer of one examination: what was looked at, how it stands, and what to do."""

    what: str
    verdict: Verdict
    sentence: str


def examine(mongodb_uri: Callable[[], str]) -> Iterator[Finding]:
    """Look at settings, source, storage, face model and DAGSTER_HOME, in this order.

    Args:
        mongodb_uri: gives the address of MongoDB; called only where the source is one.
    """
    try:
        settings = load_settings()
    except SettingsError as error:
        yield Finding("settings", "error", str(error))
        return
    files = " over ".join(str(file.path) for file in settings_files())
    yield Finding("settings", "ok", files or "no file: all defaults, and environment variables")
    yield from _source(settings, mongodb_uri)
    yield _storage(settings)
    yield _model(settings)
    yield _dagster_home()


def _source(settings: Settings, mongodb_uri: Callable[[], str]) -> Iterator[Finding]:
    from imgassets.sources.listing import SourceError, conflict
    from imgassets.sources.mongodb import MongoSource, masked
    from imgassets.sources.opening import open_source

    addresses: list[str] = []

    def address() -> str:
        addresses.append(mongodb_uri())
        return addresses[-1]

    try:
        source = open_source(settings, address)
        survey = source.survey()
    except SourceError as error:
        yield Finding("source", "error", str(error))
        return
    place = settings.source.csv_path or settings.source.function or ""
    if addresses:
        place = f"{masked(addresses[-1])} {settings.source.database}.{settings.source.collection}"
    total = sum(survey.documents.values())
    if total:
        retailers = f"{len(survey.names)} retailers, {len(survey.documents)} partitions"
        yield Finding("source", "ok", f"{place}: {total} documents, {retailers}")
    else:
        yield Finding(
            "source",
            "warning",
            f"{place} has no document that belongs to a partition; see that source.database, "
            "source.collection, source.fields and start_date are right",
        )
    for slug, names in survey.conflicts.items():
        yield Finding("source", "error", conflict(slug, names))
    for oddity, count in survey.account.counts.items():
        example = next(e for e in survey.account.examples if e[0] is oddity)
        yield Finding(
            "source",
            "warning",
            f"{count} documents: {oddity}, for example {example[1]}: {example[2]}",
        )
    if isinstance(source, MongoSource) and not source.has_index():
        keys = ", ".join(f'"{name}": {way}' for name, way in source.index_keys)
        yield Finding(
            "index",
            "warning",
            "every run reads the whole collection; in mongosh: "
            f"db.{settings.source.collection}.createIndex({{{keys}}})",
        )
    elif isinstance(source, MongoSource):
        yield Finding("index", "ok", "a partition's documents are found by an index")


def _storage(settings: Settings) -> Finding:
    from imgassets.storage import StorageError, open_storage

    root = open_storage(settings).root
    name = ".imgassets-doctor"
    try:
        root.write(name, b"written by imgassets doctor")
        root.read(name)
        root.remove(name)
    except (StorageError, OSError) as error:
        return Finding("storage", "error", str(error))
    return Finding("storage", "ok", f"{root.address} can be written")


def _model(settings: Settings) -> Finding:
    from imgassets.imaging.models import ModelError, ensure_model

    try:
        path = ensure_model(settings.faces, models_folder())
    except ModelError as error:
        return Finding("face model", "error", str(error))
    return Finding("face model", "ok", f"{settings.faces.model}, {path.name}, checksum verified")


def _dagster_home() -> Finding:
    folder = os.environ.get("DAGSTER_HOME")
    if not folder:
        return Finding(
            "DAGSTER_HOME",
            "warning",
            "is not set in this shell; before you run `dagster` yourself: "
            'export DAGSTER_HOME="$PWD/.imgassets/dagster_home"',
        )
    if not os.path.isabs(folder):  # noqa: PTH117  (no file is touched)
        return Finding("DAGSTER_HOME", "error", f"is {folder!r}, but must be an absolute path")
    return Finding("DAGSTER_HOME", "ok", folder)
