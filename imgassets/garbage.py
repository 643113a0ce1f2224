"""Remove image files that no manifest references.

Runs never remove the files of earlier runs, because other rows, products and days may share them.
It is safe to work beside running partitions: a run writes an image first, then a row of its journal
that names it, then the manifest, and only then removes the journal.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from imgassets.errors import StorageError
from imgassets.journal import list_journals
from imgassets.storage import (
    MANIFESTS,
    PROCESSED_FILES,
    RAW_FILES,
    REVIEW,
    FileInfo,
    PartitionFiles,
    Storage,
    list_manifests,
    retailers_with_images,
)

# The columns that have paths of files.
_PATHS = {"raw_images": ("path",), "processed_images": ("path", "raw_path")}
_RETAILER = "retailer="


@dataclass(frozen=True, slots=True)
class RetailerGarbage:
    """What was removed of one retailer; in a dry run, what would be.

    Attributes:
        retailer: Slug of the retailer.
        files: Number of removed files.
        bytes: Their size in bytes.
        kept: Number of image and review files that stay.
        recent: Number of those that are not referenced, but younger than the grace period.
        error: Why the retailer was skipped; `None` if it was not.
    """

    retailer: str
    files: int = 0
    bytes: int = 0
    kept: int = 0
    recent: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Garbage:
    """What was removed of a data root; in a dry run, what would be.

    Attributes:
        retailers: Per retailer with image files or review files, sorted by slug.
        temporaries: Number of removed temporary files of killed writers.
        temporary_bytes: Their size in bytes.
    """

    retailers: list[RetailerGarbage]
    temporaries: int
    temporary_bytes: int


def remove_garbage(storage: Storage, grace: dt.timedelta, *, dry_run: bool = False) -> Garbage:
    """Remove image files that no manifest and no journal of their retailer references.

    Also removes the review files of partitions without a manifest of `processed_images`, the
    temporary files of killed writers, values between ops that are a week old, and empty folders. A
    retailer with a manifest that cannot be read is skipped.

    Args:
        storage: The storage.
        grace: Files that were written within this time before now stay, because the row of a
            running partition that references them may not be stored yet.
        dry_run: Whether to remove nothing.

    Raises:
        StorageError: The storage is not reachable or not writable.
    """
    oldest = dt.datetime.now(dt.UTC) - grace
    reviewed = {
        name.removeprefix(_RETAILER) for name in storage.names(REVIEW) if name.startswith(_RETAILER)
    }
    retailers = []
    for retailer in sorted({*retailers_with_images(storage), *reviewed}):
        try:
            retailers.append(_remove_of_retailer(storage, retailer, oldest, dry_run=dry_run))
        except StorageError as error:
            retailers.append(RetailerGarbage(retailer, error=str(error)))
    temporaries = storage.old_temporaries(grace)
    if not dry_run:
        storage.remove_old_temporaries(grace)
    sizes = [info.size for info in temporaries.values()]
    return Garbage(retailers, len(sizes), sum(sizes))


def _remove_of_retailer(
    storage: Storage, retailer: str, oldest: dt.datetime, *, dry_run: bool
) -> RetailerGarbage:
    folders = [
        f"{RAW_FILES}/{retailer}",
        f"{PROCESSED_FILES}/{retailer}",
        f"{REVIEW}/{_RETAILER}{retailer}",
    ]
    # The files are listed before the references are read: a file without a reference is either
    # garbage, or younger than the grace period.
    files = {path: info for folder in folders for path, info in storage.find(folder).items()}
    unreferenced = _unreferenced(storage, retailer, files)
    garbage = {path for path in unreferenced if files[path].modified < oldest}
    recent = len(unreferenced) - len(garbage)
    if not dry_run:
        if garbage:
            # A run may have taken over a file since.
            garbage = _remove_old(storage, _unreferenced(storage, retailer, garbage), oldest)
        for folder in folders:
            storage.remove_empty_folders(folder)
    size = sum(files[path].size for path in garbage)
    return RetailerGarbage(retailer, len(garbage), size, len(files) - len(garbage), recent)


def _unreferenced(storage: Storage, retailer: str, unused: Iterable[str]) -> set[str]:
    """The paths that no row of the retailer references.

    Journals are read before manifests: a run writes its manifest before it removes its journal, so
    that each row is in one of them.
    """
    left = set(unused)
    for asset, columns in _PATHS.items():
        for journal in list_journals(storage, asset, retailer):
            for row in journal.snapshot(*columns):
                left.difference_update(row)
    for asset, columns in _PATHS.items():
        for partition in list_manifests(storage, asset, retailer):
            for paths in _paths_in_manifest(partition, asset, columns):
                left.difference_update(paths)
    # The manifest is written before the review files.
    reviewed = {each.review for each in list_manifests(storage, "processed_images", retailer)}
    return {path for path in left if path.rpartition("/")[0] not in reviewed}


def _paths_in_manifest(
    partition: PartitionFiles, asset: str, columns: Sequence[str]
) -> Iterator[list[str]]:
    try:
        table = partition.read_manifest(asset, columns)
    except FileNotFoundError:  # removed since it was listed
        return
    for column in columns:
        if column not in table.column_names:
            raise StorageError(
                f"{partition.storage.address(partition.manifest(asset))} has no column {column!r}, "
                f"so it is no manifest of this version: move it out of {MANIFESTS}/{asset}, or "
                "materialize its partition again"
            )
        yield table[column].unique().to_pylist()


def _remove_old(storage: Storage, paths: Iterable[str], oldest: dt.datetime) -> set[str]:
    """Remove files that nobody has written again; returns their paths."""
    removed: set[str] = set()
    for folder, group in groupby(sorted(paths), key=lambda path: path.rpartition("/")[0]):
        # Listed right before they are removed: a run may have written one again, and the row that
        # references it follows.
        current: dict[str, FileInfo] = storage.find(folder)
        old = [path for path in group if path in current and current[path].modified < oldest]
        storage.remove_all(old)
        removed.update(old)
    return removed
