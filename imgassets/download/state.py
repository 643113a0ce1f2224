"""Determine which images of a partition are stored, and which URLs need a download.

Reading the manifest and the journal of a partition belongs here; writing them is in `partition` and
`journal`. A row is done if its outcome is `ok` and its file is in the folder with the right size or
was removed on purpose. That needs one listing of the folder instead of one request per file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import pyarrow as pa
import pyarrow.compute as pc

from imgassets.download import journal
from imgassets.manifests import OUTCOMES, RAW_IMAGES, URL_FIELDS, Outcome, RawRow, UrlRow
from imgassets.storage import IMAGES, Folder, image_name, read_removed, read_table

_BATCH = 5_000
_url_values = attrgetter(*URL_FIELDS)


@dataclass(frozen=True)
class PartitionState:
    """What earlier runs have done in a partition.

    Attributes:
        done: URL by key, for the images that are stored.
        failed: Outcome by key, for the URLs whose last download failed.
        done_in_journal: Keys done by a run that has not written its manifest; a refresh does not
            request them again.
    """

    done: dict[str, str]
    failed: dict[str, str]
    done_in_journal: frozenset[str]

    def is_stored(self, row: UrlRow) -> bool:
        """Return whether the image of the row is stored."""
        return self.done.get(row.key) == row.url

    def needs_download(
        self, row: UrlRow, *, refresh: bool, retry: Collection[Outcome] | None
    ) -> bool:
        """Return whether the URL of the row needs a request; see `partition.download_shard`."""
        if self.is_stored(row):
            return refresh and row.key not in self.done_in_journal
        return retry is None or self.failed.get(row.key) in (None, Outcome.NOT_FETCHED, *retry)


def read_manifest_and_journal(folder: Folder) -> pa.Table:
    """Return the rows of the manifest, then those of the journal; the last row of a key counts.

    Raises:
        StorageError: The manifest or a part of the journal is broken.
    """
    return pa.concat_tables([_read_manifest(folder), journal.read(folder)])


def read_state(folder: Folder, url_rows: Collection[UrlRow]) -> PartitionState:
    """Return what earlier runs have done for these rows.

    Raises:
        StorageError: The manifest or a part of the journal is broken.
    """
    keys = [row.key for row in url_rows]
    columns = ["key", "url", "outcome", "path", "bytes", "sha256"]
    tables = [
        _filter_keys(table, keys).to_pydict()
        for table in (_read_manifest(folder, columns), journal.read(folder, columns))
    ]
    # Skip the listing for a shard without rows: it visits every file of the partition.
    sizes = (folder / IMAGES).sizes() if any(table["key"] for table in tables) else {}
    removed_names = read_removed(folder)
    # After a killed refresh, a file may be newer than its row in the manifest.
    refresh_unfinished = journal.is_refresh_unfinished(folder)
    done: dict[str, str] = {}
    failed: dict[str, str] = {}
    done_in_journal: set[str] = set()
    for table, is_journal in zip(tables, (False, True), strict=True):
        for key, url, outcome, path, size, sha256 in zip(*table.values(), strict=True):
            done.pop(key, None)
            failed.pop(key, None)
            done_in_journal.discard(key)
            if outcome != Outcome.OK:
                failed[key] = outcome
                continue
            name = image_name(path)
            # If the file exists, ignore the record of its removal.
            stored = name in removed_names if name not in sizes else sizes[name] == size
            size_is_enough = is_journal or not refresh_unfinished or name not in sizes
            if stored and (size_is_enough or folder.sha256(path) == sha256):
                done[key] = url
                if is_journal:
                    done_in_journal.add(key)
    return PartitionState(done, failed, frozenset(done_in_journal))


def read_manifest_rows(folder: Folder, url_rows: Sequence[UrlRow]) -> dict[str, RawRow]:
    """Return the rows of the manifest for these URLs, by key."""
    keys = [row.key for row in url_rows]
    return latest_rows(_filter_keys(_read_manifest(folder), keys), url_rows)


def latest_rows(table: pa.Table, url_rows: Iterable[UrlRow]) -> dict[str, RawRow]:
    """Return the last row of each URL in a table, with the present catalogue data of `url_rows`.

    Args:
        table: Rows of `raw_images`, oldest first.
        url_rows: The URLs; a row of the table counts if its key and its URL are the same.

    Returns:
        Rows by key.
    """
    wanted = {row.key: row for row in url_rows}
    rows: dict[str, RawRow] = {}
    # Batches and shared strings save memory: a partition may have 200,000 rows.
    for batch in table.to_batches(max_chunksize=_BATCH):
        for values in batch.to_pylist():
            row = wanted.get(values["key"])
            if row is not None and row.url == values["url"]:
                values.update(zip(URL_FIELDS, _url_values(row), strict=True))
                values["outcome"] = OUTCOMES[values["outcome"]]
                rows[row.key] = RawRow(**values)
    return rows


def _filter_keys(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    return table.filter(pc.is_in(table["key"], value_set=pa.array(keys, pa.string())))


def _read_manifest(folder: Folder, columns: Sequence[str] = RAW_IMAGES.names) -> pa.Table:
    try:
        return read_table(folder, columns=columns)
    except FileNotFoundError:
        return RAW_IMAGES.empty_table().select(columns)
