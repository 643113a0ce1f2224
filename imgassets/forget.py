"""Take images down: remove their files, their URLs and what was made of them, for good.

The order makes it safe against `kill -9` at any time: the record of the take-down is written first,
marked as incomplete. From then on, no run requests or stores the images, and everything that is
left to remove can be found with the record alone. It is marked as complete at the end.

How runs respect the records is in `takedown`. Dagster's event log is not part of the data root; see
`defs.event_log`.
"""

from __future__ import annotations

import datetime as dt
import re
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from imgassets.errors import TakedownError
from imgassets.journal import Journal, list_journals
from imgassets.manifests import REMOVED_URL, URL_FIELDS, Outcome
from imgassets.storage import (
    PROCESSED_FILES,
    RAW_FILES,
    REMOVED,
    REVIEW,
    PartitionFiles,
    Storage,
    list_manifests,
    read_table,
    retailers_with_images,
    write_table,
)
from imgassets.takedown import (
    TakedownRecord,
    Takedowns,
    cached_url_sha256,
    read_records,
    redacted_url,
    url_sha256,
    write_record,
)

# Per asset, the column with the SHA-256 of the served file; `url_list` has none.
_SHA256 = {"url_list": "", "raw_images": "sha256", "processed_images": "raw_sha256"}
_WITH_IMAGES = ("raw_images", "processed_images")
_JOURNAL = "journal"
_COLUMNS = ["url", "product_id", "sha256"]
# Other columns of a row that was taken down are null.
_REMOVED_VALUES = {"outcome": Outcome.REMOVED.value, "attempts": 0}
_READ_AT_ONCE = 8  # tables in memory; hides the latency of an object store
# A killed writer may leave an image or a URL; an active one needs seconds.
_TEMPORARY_AGE = dt.timedelta(minutes=10)
_SHA256_LENGTH = 64
_HEX_SHA256 = re.compile("[0-9a-f]{64}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What to take down: a product, a URL, an image, or all of a retailer.

    Attributes:
        retailer: Slug of the only retailer to look at; `None` for all.
        product_id: Id of a product.
        url: URL of an image, in any spelling that `urls.normalise` maps to the same URL.
        sha256: SHA-256 of a served file, in hexadecimal.
        everywhere: Whether to take down the rows of other URLs that have the same images, too.

    Raises:
        TakedownError: Nothing is selected, options exclude each other, or `sha256` is malformed.
    """

    retailer: str | None = None
    product_id: str | None = None
    url: str | None = None
    sha256: str | None = None
    everywhere: bool = False

    def __post_init__(self) -> None:
        narrow = [each for each in (self.product_id, self.url, self.sha256) if each is not None]
        if self.retailer is None and not narrow:
            raise TakedownError("nothing is selected: give a retailer, product, URL or SHA-256")
        if len(narrow) > 1:
            raise TakedownError("give only one of product, URL and SHA-256")
        if "" in (self.retailer, *narrow):
            raise TakedownError("the retailer, product, URL or SHA-256 is empty")
        if self.sha256 is not None and not _HEX_SHA256.fullmatch(self.sha256):
            raise TakedownError(f"the SHA-256 is {self.sha256!r}; it must be 64 hex digits")

    @property
    def is_whole_retailer(self) -> bool:
        """Whether all of a retailer is selected."""
        return self.product_id is None and self.url is None and self.sha256 is None


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was taken down; in a dry run, what would be.

    Attributes:
        record: The record of the take-down; its counts are totals.
        path: Path of the record; `None` if none was written, because it was a dry run, or all was
            taken down before.
        is_new: Whether there was anything to take down.
        rows: Number of rows by asset; those of journals under `journal`.
        kept_files: Number of files of the selected images that other rows share, and which stay.
        kept_bytes: Their size in bytes.
        partitions: Partitions with rows that are taken down, also by a resumed take-down.
        active: Partitions of the retailers concerned whose run is working or was killed.
        resumed: Paths of the records of interrupted take-downs, which were completed first.
    """

    record: TakedownRecord
    path: str | None
    is_new: bool
    rows: Mapping[str, int]
    kept_files: int
    kept_bytes: int
    partitions: Sequence[PartitionFiles]
    active: Sequence[PartitionFiles]
    resumed: Sequence[str]


def forget(
    storage: Storage, selection: Selection, *, reason: str, removed_by: str, dry_run: bool = False
) -> Forgotten:
    """Take images down, and complete take-downs that were interrupted.

    The files, URLs and journal rows of the selected rows are removed, and the review files of their
    partitions. Their rows keep the columns of the URL, with the outcome `removed`. Files that other
    rows share stay, unless `selection.everywhere`.

    Args:
        storage: The storage.
        selection: What to take down.
        reason: Why, for the record. URLs in it that are taken down are replaced.
        removed_by: Who does it, for the record.
        dry_run: Whether to change nothing.

    Raises:
        TakedownError: The retailer is not known.
        StorageError: The storage is not reachable or not writable, or a manifest is broken. Run it
            again to complete what was begun.
    """
    known = _known_retailers(storage)
    if selection.retailer not in (None, *known):
        raise TakedownError(
            f"the data root has nothing of the retailer {selection.retailer!r}; known retailers: "
            f"{', '.join(known) or 'none'}"
        )
    records = read_records(storage)
    interrupted = {path: record for path, record in records.items() if not record.complete}
    partitions: set[PartitionFiles] = set()
    if not dry_run:
        for path, record in interrupted.items():
            partitions |= _carry_out(storage, path, record)
    draft = _draft(selection, reason, removed_by)
    planned = _plan(storage, selection, draft, known, records.values())
    written = None
    if planned.is_new and not dry_run:
        written = f"{REMOVED}/{draft.removed_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}.parquet"
        write_record(storage, written, planned.record)
        partitions |= _carry_out(storage, written, planned.record)
    partitions |= set(planned.partitions)
    return replace(
        planned,
        path=written,
        partitions=sorted(partitions, key=lambda each: (each.retailer, each.date)),
        resumed=list(interrupted),
    )


def _draft(selection: Selection, reason: str, removed_by: str) -> TakedownRecord:
    return TakedownRecord(
        removed_at=dt.datetime.now(dt.UTC),
        removed_by=removed_by,
        reason=reason,
        retailer=selection.retailer,
        product_id=selection.product_id,
        whole_retailer=selection.is_whole_retailer,
        everywhere=selection.everywhere,
        url_sha256=[],
        image_sha256=[],
        shared_sha256=[],
        rows=0,
        files=0,
        bytes=0,
        paths=[],
        complete=False,
    )


def _known_retailers(storage: Storage) -> list[str]:
    found = set(retailers_with_images(storage))
    for asset in _SHA256:
        found |= {partition.retailer for partition in list_manifests(storage, asset)}
        found |= {journal.partition.retailer for journal in list_journals(storage, asset)}
    return sorted(found)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of a manifest or a journal, with the columns `url`, `product_id`, `sha256`."""

    partition: PartitionFiles
    source: str
    table: pa.Table

    def images(self) -> set[str]:
        """SHA-256 of the served files."""
        return set(self.table["sha256"].drop_null().unique().to_pylist())

    def urls(self) -> set[str]:
        """SHA-256 of the URLs."""
        return {cached_url_sha256(url) for url in self.table["url"].unique().to_pylist()}

    def filter(self, mask: pa.ChunkedArray) -> _Rows:
        return replace(self, table=self.table.filter(mask))

    def covered_by(self, takedowns: Takedowns) -> pa.ChunkedArray:
        return takedowns.covered(self.partition.retailer, self.table)


def _plan(
    storage: Storage,
    selection: Selection,
    draft: TakedownRecord,
    known: Sequence[str],
    records: Collection[TakedownRecord],
) -> Forgotten:
    """Find what to take down.

    Args:
        storage: The storage.
        selection: What to take down.
        draft: The record without URLs, images and counts.
        known: The retailers of the data root.
        records: The earlier take-downs.
    """
    record, selected = _select(storage, selection, draft, known, records)
    takedowns = Takedowns([record])
    scope = _scope(record, known)
    counts, partitions, images = _find_rows(storage, scope, takedowns)
    images |= selected
    shared = _shared(storage, known, takedowns, images)
    files: dict[str, int] = {}
    for retailer in scope:
        if record.whole_retailer and retailer == record.retailer:
            files |= _all_files(storage, retailer)
        else:
            files |= _files(storage, retailer, images - shared[retailer])
    kept = [
        size
        for retailer in known
        for size in _files(storage, retailer, shared[retailer] & selected).values()
    ]
    shared_anywhere = {sha256 for sha256s in shared.values() for sha256 in sha256s}
    lists_images = selection.everywhere or not record.whole_retailer
    record = replace(
        record,
        image_sha256=sorted(images - shared_anywhere) if lists_images else [],
        shared_sha256=sorted(selected & shared_anywhere),
        rows=counts["raw_images"],
        files=len(files),
        bytes=sum(files.values()),
        paths=sorted(files),
    )
    return Forgotten(
        record=record,
        path=None,
        is_new=bool(counts.total() or files or not Takedowns(records).includes(record)),
        rows={name: counts[name] for name in (*_SHA256, _JOURNAL)},
        kept_files=len(kept),
        kept_bytes=sum(kept),
        partitions=partitions,
        active=list(dict.fromkeys(journal.partition for journal in _journals(storage, scope))),
        resumed=[],
    )


def _select(
    storage: Storage,
    selection: Selection,
    draft: TakedownRecord,
    known: Sequence[str],
    records: Iterable[TakedownRecord],
) -> tuple[TakedownRecord, set[str]]:
    """Find the URLs to take down.

    Returns:
        The record with these URLs, and SHA-256 of the images of the selected rows.
    """
    own = [selection.retailer] if selection.retailer is not None else known
    images = {selection.sha256} if selection.sha256 is not None else set()
    urls = {url_sha256(selection.url)} if selection.url is not None else set()
    takedowns = Takedowns([replace(draft, url_sha256=list(urls))])
    # The URLs of a whole retailer are many, and its record covers them without a list.
    needs_urls = selection.everywhere or not draft.whole_retailer or "://" in draft.reason
    for rows in _scan(storage, own, _SHA256):
        if selection.sha256 is not None:
            found = rows.filter(pc.equal(rows.table["sha256"], selection.sha256))
        else:
            found = rows.filter(rows.covered_by(takedowns))
        images |= found.images()
        if needs_urls:
            urls |= found.urls()
    listed = urls
    if selection.everywhere:
        images |= _kept_before(records, selection)
        listed = urls | _urls_of_images(storage, known, images)
    elif draft.product_id is not None:
        listed = urls - _urls_of_other_products(storage, own, draft, urls)
    reason = Takedowns([replace(draft, url_sha256=list(urls | listed))]).redact_text(
        draft.retailer, draft.reason
    )
    if draft.whole_retailer and not selection.everywhere:
        listed = set()
    return replace(draft, reason=reason, url_sha256=sorted(listed)), images


def _find_rows(
    storage: Storage, retailers: Collection[str], takedowns: Takedowns
) -> tuple[Counter[str], list[PartitionFiles], set[str]]:
    """Find the rows that are taken down.

    Returns:
        The number of rows that have to be removed, by asset; the partitions with rows that are
        taken down, now or before; and the SHA-256 of the images of the rows.
    """
    counts: Counter[str] = Counter()
    partitions: dict[PartitionFiles, None] = {}
    images: set[str] = set()
    for rows in _scan(storage, retailers, _SHA256):
        covered = rows.filter(rows.covered_by(takedowns))
        if covered.table.num_rows:
            partitions[rows.partition] = None
        pending = covered.filter(pc.invert(pc.starts_with(covered.table["url"], REMOVED_URL)))
        counts[rows.source] += pending.table.num_rows
        images |= pending.images()
    return counts, list(partitions), images


def _kept_before(records: Iterable[TakedownRecord], selection: Selection) -> set[str]:
    """SHA-256 of the images that an earlier take-down of the same selection kept."""
    same = (
        record
        for record in records
        if not record.everywhere
        and record.retailer == selection.retailer
        and record.product_id == selection.product_id
        and record.whole_retailer == selection.is_whole_retailer
        and (selection.url is None or url_sha256(selection.url) in record.url_sha256)
        and (selection.sha256 is None or selection.sha256 in record.shared_sha256)
    )
    return {sha256 for record in same for sha256 in record.shared_sha256}


def _urls_of_images(storage: Storage, retailers: Collection[str], images: set[str]) -> set[str]:
    """SHA-256 of the URLs of all rows that have one of the images."""
    wanted = pa.array(images, pa.string())
    found: set[str] = set()
    for rows in _scan(storage, retailers, _WITH_IMAGES):
        found |= rows.filter(pc.is_in(rows.table["sha256"], value_set=wanted)).urls()
    return found


def _urls_of_other_products(
    storage: Storage, retailers: Collection[str], draft: TakedownRecord, urls: set[str]
) -> set[str]:
    """Those of the URLs that a product lists that is not taken down."""
    takedowns = Takedowns([replace(draft, product_id=None, url_sha256=list(urls))])
    found: set[str] = set()
    for rows in _scan(storage, retailers, _SHA256):
        others = rows.filter(pc.not_equal(rows.table["product_id"], draft.product_id))
        found |= others.filter(others.covered_by(takedowns)).urls()
    return found


def _shared(
    storage: Storage, known: Collection[str], takedowns: Takedowns, images: set[str]
) -> dict[str, set[str]]:
    """Those of the images that rows which are not taken down have, per retailer."""
    wanted = pa.array(images, pa.string())
    shared: dict[str, set[str]] = {retailer: set() for retailer in known}
    for rows in _scan(storage, known, _WITH_IMAGES):
        found = rows.filter(pc.is_in(rows.table["sha256"], value_set=wanted))
        others = found.filter(pc.invert(found.covered_by(takedowns)))
        shared[rows.partition.retailer] |= others.images()
    return shared


def _scope(record: TakedownRecord, known: Sequence[str]) -> Sequence[str]:
    """The retailers whose rows a record may cover."""
    return known if record.everywhere or record.retailer is None else [record.retailer]


def _files(storage: Storage, retailer: str, images: Collection[str]) -> dict[str, int]:
    """Sizes of the served and processed files of some images of a retailer, by path."""
    # By name, because there may be files that no manifest references.
    return {
        path: info.size
        for start in sorted({sha256[:2] for sha256 in images})
        for folder in (RAW_FILES, PROCESSED_FILES)
        for path, info in storage.find(f"{folder}/{retailer}/{start}").items()
        if path.rpartition("/")[2][:_SHA256_LENGTH] in images
    }


def _all_files(storage: Storage, retailer: str) -> dict[str, int]:
    return {
        path: info.size
        for folder in (RAW_FILES, PROCESSED_FILES)
        for path, info in storage.find(f"{folder}/{retailer}").items()
    }


def _scan(storage: Storage, retailers: Collection[str], assets: Collection[str]) -> Iterator[_Rows]:
    """Read what the selection needs of all manifests and journals of some retailers.

    Journals come first: a run writes its manifest before it removes its journal, so that each row
    is in one of them.
    """
    for journal in _journals(storage, retailers, assets):
        yield _journal_rows(journal)
        for path in _journal_tables(journal):
            if (rows := _table_rows(journal.partition, path, journal.asset, _JOURNAL)) is not None:
                yield rows
    reads = [
        partial(_table_rows, partition, partition.manifest(asset), asset, asset)
        for asset in assets
        for partition in _manifests(storage, retailers, asset)
    ]
    yield from (rows for rows in _in_parallel(reads) if rows is not None)


def _manifests(storage: Storage, retailers: Collection[str], asset: str) -> list[PartitionFiles]:
    return [each for each in list_manifests(storage, asset) if each.retailer in retailers]


def _journals(
    storage: Storage, retailers: Collection[str], assets: Collection[str] = _WITH_IMAGES
) -> list[Journal]:
    return [
        journal
        for asset in assets
        for journal in list_journals(storage, asset)
        if journal.partition.retailer in retailers
    ]


def _journal_tables(journal: Journal) -> list[str]:
    """Paths of the tables in a journal's folder, which list what a run has to do."""
    names = journal.partition.storage.names(journal.folder)
    return [f"{journal.folder}/{name}" for name in names if name.endswith(".parquet")]


def _journal_rows(journal: Journal) -> _Rows:
    rows = journal.snapshot("url", "product_id", _SHA256[journal.asset])
    columns = zip(*rows, strict=True) if rows else ([], [], [])
    arrays = [pa.array(column, pa.string()) for column in columns]
    return _Rows(journal.partition, _JOURNAL, pa.table(arrays, _COLUMNS))


def _table_rows(partition: PartitionFiles, path: str, asset: str, source: str) -> _Rows | None:
    image_column = _SHA256[asset]
    try:
        table = read_table(partition.storage, path, ["url", "product_id", image_column])
    except FileNotFoundError:  # removed since it was listed
        return None
    images = (
        table[image_column]
        if image_column in table.column_names
        else pa.nulls(table.num_rows, pa.string())
    )
    return _Rows(partition, source, pa.table([table["url"], table["product_id"], images], _COLUMNS))


def _in_parallel(reads: Sequence[Callable[[], T]]) -> Iterator[T]:
    with ThreadPoolExecutor(_READ_AT_ONCE, thread_name_prefix="read") as pool:
        for start in range(0, len(reads), _READ_AT_ONCE):
            batch = reads[start : start + _READ_AT_ONCE]
            yield from pool.map(lambda read: read(), batch)


def _carry_out(storage: Storage, path: str, record: TakedownRecord) -> set[PartitionFiles]:
    """Remove everything that a record covers, then mark it as complete.

    Returns:
        The partitions with rows that are taken down.
    """
    scope = _scope(record, _known_retailers(storage))
    takedowns = Takedowns([record])
    storage.remove_all(record.paths)
    for retailer in scope:
        for folder in (RAW_FILES, PROCESSED_FILES):
            storage.remove_empty_folders(f"{folder}/{retailer}")
    if record.whole_retailer:
        storage.remove_folder(f"{REVIEW}/retailer={record.retailer}")
    for journal in _journals(storage, scope):
        _erase_in_journal(journal, takedowns)
    partitions = set()
    for asset in _SHA256:
        for partition in _manifests(storage, scope, asset):
            if _redact_manifest(partition, asset, takedowns):
                partitions.add(partition)
    storage.remove_old_temporaries(_TEMPORARY_AGE)
    write_record(storage, path, replace(record, complete=True))
    return partitions


def _erase_in_journal(journal: Journal, takedowns: Takedowns) -> None:
    retailer = journal.partition.retailer

    def is_removed(row: dict[str, Any]) -> bool:
        error = row.get("error") or ""
        return (
            takedowns.covers(retailer, row.get("product_id", ""), row["url"])
            or takedowns.redact_text(retailer, error) != error
        )

    journal.erase(is_removed)
    storage = journal.partition.storage
    for path in _journal_tables(journal):
        with suppress(FileNotFoundError):  # removed by its run meanwhile
            table = read_table(storage, path)
            kept = table.filter(pc.invert(takedowns.covered(retailer, table)))
            redacted = _redact_errors(kept, takedowns, retailer)
            if redacted != table:
                write_table(storage, path, redacted)


def _redact_manifest(partition: PartitionFiles, asset: str, takedowns: Takedowns) -> bool:
    """Rewrite a manifest if it has something that was taken down.

    Returns:
        Whether it has rows that were taken down, now or before.
    """
    retailer = partition.retailer
    try:
        some = partition.read_manifest(asset, ["url", "product_id", "error"])
        covered = takedowns.covered(retailer, some)
        pending = pc.and_(covered, pc.invert(pc.starts_with(some["url"], REMOVED_URL)))
        if pc.any(pending).as_py():
            # Before the manifest, whose rows say that its review files have to go.
            partition.storage.remove_folder(partition.review)
            table = _redact_rows(partition.read_manifest(asset), takedowns, retailer)
            partition.write_manifest(asset, table)
        elif _redact_errors(some, takedowns, retailer) != some:
            table = _redact_errors(partition.read_manifest(asset), takedowns, retailer)
            partition.write_manifest(asset, table)
    except FileNotFoundError:  # removed since it was listed
        return False
    return bool(pc.any(covered).as_py())


def _redact_rows(table: pa.Table, takedowns: Takedowns, retailer: str) -> pa.Table:
    """Clear the rows that were taken down, except for the columns of the URL."""
    table = _redact_errors(table.combine_chunks(), takedowns, retailer)
    covered = takedowns.covered(retailer, table)
    for number, field in enumerate(table.schema):
        column = table[field.name]
        if field.name == "url":
            urls = zip(column.to_pylist(), covered.to_pylist(), strict=True)
            values = [redacted_url(url) if mark else url for url, mark in urls]
            column = pa.array(values, pa.string())
        elif field.name not in URL_FIELDS:
            value = _REMOVED_VALUES.get(field.name)
            column = pc.if_else(covered, pa.scalar(value, field.type), column)
        table = table.set_column(number, field, column)
    return table


def _redact_errors(table: pa.Table, takedowns: Takedowns, retailer: str) -> pa.Table:
    """Replace URLs that were taken down in the error messages of other rows."""
    if "error" not in table.column_names:
        return table
    errors = [
        error and takedowns.redact_text(retailer, error) for error in table["error"].to_pylist()
    ]
    number = table.column_names.index("error")
    return table.set_column(number, table.schema.field(number), pa.array(errors, pa.string()))
