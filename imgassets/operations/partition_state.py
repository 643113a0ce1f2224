"""The state of partitions: missing, failed, outdated or current.

Only partitions with documents are judged; others would be empty runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from imgassets.errors import BrokenFileError
from imgassets.imaging.worker_protocol import settings_hash
from imgassets.manifests import documents_of, settings_hash_of
from imgassets.reports.day import RetailerDay
from imgassets.reports.measure import RetailerRun, measure_retailer
from imgassets.settings import Settings, section_hash
from imgassets.storage import PartitionFiles, Storage
from imgassets.wording import counted

Key = tuple[str, str]
"""Retailer and day of a partition."""
_THREADS = 32


@dataclass(frozen=True)
class PartitionState:
    """The state of a partition that has documents.

    Attributes:
        date: The day, `YYYY-MM-DD`.
        numbers: The numbers of the retailer on that day.
        outdated: Why the images are not those that a run would make now; empty if they are. The
            source has another number of documents than when `url_list` was made, or the images were
            made with other settings. A document that was changed is not noticed: the sensor
            `new_documents` is for that.
        is_active: Whether a run of it is queued or in progress.
    """

    date: str
    numbers: RetailerDay
    outdated: str = ""
    is_active: bool = False

    @property
    def retailer(self) -> str:
        """The slug of the retailer."""
        return self.numbers.retailer

    @property
    def is_missing(self) -> bool:
        """Whether there is no manifest of `processed_images`."""
        return self.numbers.is_missing

    @property
    def is_failed(self) -> bool:
        """Whether the run, a check of severity `error`, or too many downloads failed."""
        return bool(self.numbers.problems)

    @property
    def is_current(self) -> bool:
        """Whether nothing is to be done."""
        return not (self.is_missing or self.is_failed or self.outdated)

    @property
    def reason(self) -> str:
        """Why it is not current, and whether a run is under way; empty if neither."""
        missing = "no processed images" if self.is_missing else ""
        active = "a run is queued or in progress" if self.is_active else ""
        return "; ".join(filter(None, [missing, *self.numbers.problems, self.outdated, active]))


def partition_states(
    storage: Storage,
    documents: Mapping[Key, int],
    runs: Mapping[Key, RetailerRun],
    settings: Settings,
) -> list[PartitionState]:
    """The states of partitions, by retailer and day.

    Up to four manifests of each partition are read.

    Args:
        storage: The storage of the manifests.
        documents: Number of documents of each partition to judge.
        runs: What Dagster knows.
        settings: The settings, with those of retailers.

    Raises:
        StepError: A user's step cannot be imported.
        StorageError: The storage is not reachable or not readable.
    """
    options = {retailer: settings.for_retailer(retailer) for retailer, _ in documents}
    hashes = {retailer: settings_hash(each) for retailer, each in options.items()}
    source_hash = section_hash(settings.source)

    def state(key: Key) -> PartitionState:
        retailer, date = key
        files = storage.partition(date, retailer)
        run = runs.get(key)
        numbers, _ = measure_retailer(files, documents[key], run, options[retailer])
        reason = (
            ""
            if numbers.is_missing
            else _outdated(files, documents[key], source_hash, hashes[retailer])
        )
        return PartitionState(date, numbers, reason, run is not None and run.is_active)

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="status") as pool:
        return list(pool.map(state, sorted(documents)))


def disk_use(storage: Storage, retailer: str) -> tuple[int, int]:
    """Size of the served and of the processed images of a retailer, in bytes.

    All of its files are listed.

    Raises:
        StorageError: The storage is not reachable or not readable.
    """
    from imgassets.storage import PROCESSED_FILES, RAW_FILES

    raw, processed = (
        sum(info.size for info in storage.find(f"{folder}/{retailer}").values())
        for folder in (RAW_FILES, PROCESSED_FILES)
    )
    return raw, processed


def _outdated(files: PartitionFiles, documents: int, source_hash: str, image_hash: str) -> str:
    urls, processed = _read(files, "url_list"), _read(files, "processed_images")
    if urls is None or processed is None:
        return "a manifest is missing or broken"
    listed = documents_of(urls)
    reasons = []
    if listed not in (None, documents):
        reasons.append(
            f"{counted(documents, 'document')} in the source, {listed:,} when it was made"
        )
    if settings_hash_of(urls) != source_hash:
        reasons.append("made with other settings of source")
    if settings_hash_of(processed) != image_hash:
        reasons.append("made with other settings of images")
    return "; ".join(reasons)


def _read(files: PartitionFiles, asset: str) -> pa.Table | None:
    try:
        return files.read_manifest(asset, ["key"])
    except (FileNotFoundError, BrokenFileError):
        return None
