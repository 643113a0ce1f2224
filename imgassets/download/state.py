"""What a partition has, and which of its URLs are to be fetched.

Here live the questions to manifest and journal. A row is done when it is `ok` and its file lies
there in the right size, or was removed on purpose: one listing of the folder, not one look a file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter

import pyarrow as pa
import pyarrow.compute as pc

from imgassets.download import journal
from imgassets.manifests import OUTCOMES, RAW_IMAGES, Outcome, RawRow, UrlRow
from imgassets.storage import IMAGES, Folder, read_removed, read_table

_BATCH = 5_000
URL_FIELDS = tuple(field.name for field in fields(UrlRow))
_catalogues = attrgetter(*URL_FIELDS)


@dataclass(frozen=True)
class State:
    """What is known of a partition's URLs."""

    done: dict[str, str]
    """Key and URL of the pictures that are there."""
    failed: dict[str, str]
    """Key and outcome of what was tried and gave no picture."""
    current: frozenset[str]
    """Keys done by a run that has not ended yet: a refresh does not ask for them again."""

    def is_done(self, row: UrlRow) -> bool:
        """Whether the row's picture is there."""
        return self.done.get(row.key) == row.url

    def is_work(self, row: UrlRow, *, refresh: bool, retry: Collection[Outcome] | None) -> bool:
        """Whether the row is to be fetched; see `partition.download_shard`."""
        if self.is_done(row):
            return refresh and row.key not in self.current
        return retry is None or self.failed.get(row.key) in (None, Outcome.NOT_FETCHED, *retry)


def known(folder: Folder) -> pa.Table:
    """The rows of the manifest, then those of the journal: of one key, the last row holds.

    Raises:
        StorageError: the manifest or a part of the journal is broken.
    """
    return pa.concat_tables([_manifest(folder), journal.read(folder)])


def read_state(folder: Folder, url_rows: Collection[UrlRow]) -> State:
    """What is known of these rows.

    Raises:
        StorageError: the manifest or a part of the journal is broken.
    """
    keys = [row.key for row in url_rows]
    columns = ["key", "url", "outcome", "path", "bytes", "sha256"]
    tables = [
        _of_keys(table, keys).to_pydict()
        for table in (_manifest(folder, columns), journal.read(folder, columns))
    ]
    # A listing costs a look at every file of the partition: not for a shard that has none yet.
    sizes = (folder / IMAGES).sizes() if any(table["key"] for table in tables) else {}
    gone = read_removed(folder)
    # Where a refresh was killed, a picture may be newer than the manifest's row.
    doubtful = journal.is_refresh(folder)
    done: dict[str, str] = {}
    failed: dict[str, str] = {}
    current: set[str] = set()
    for table, is_journal in zip(tables, (False, True), strict=True):
        for key, url, outcome, path, size, sha256 in zip(*table.values(), strict=True):
            done.pop(key, None)
            failed.pop(key, None)
            current.discard(key)
            if outcome != Outcome.OK:
                failed[key] = outcome
                continue
            name = path.removeprefix(f"{IMAGES}/")
            # A file that is there says more than the note that it went.
            whole = name in gone if name not in sizes else sizes[name] == size
            certain = is_journal or not doubtful or name not in sizes
            if whole and (certain or folder.sha256(path) == sha256):
                done[key] = url
                if is_journal:
                    current.add(key)
    return State(done, failed, frozenset(current))


def rows_of(folder: Folder, url_rows: Sequence[UrlRow]) -> dict[str, RawRow]:
    """What the manifest says of these rows, by key."""
    return last_rows(_of_keys(_manifest(folder), [row.key for row in url_rows]), url_rows)


def last_rows(table: pa.Table, url_rows: Iterable[UrlRow]) -> dict[str, RawRow]:
    """The last row of each of these URLs, by key; what stands beside the URL is the catalogue's."""
    asked = {row.key: row for row in url_rows}
    rows: dict[str, RawRow] = {}
    # In batches, and with the strings that are there already: 200,000 rows are a lot of memory.
    for batch in table.to_batches(max_chunksize=_BATCH):
        for found in batch.to_pylist():
            row = asked.get(found["key"])
            if row is not None and row.url == found["url"]:
                found.update(zip(URL_FIELDS, _catalogues(row), strict=True))
                found["outcome"] = OUTCOMES[found["outcome"]]
                rows[row.key] = RawRow(**found)
    return rows


def _of_keys(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    return table.filter(pc.is_in(table["key"], value_set=pa.array(keys, pa.string())))


def _manifest(folder: Folder, columns: Sequence[str] = RAW_IMAGES.names) -> pa.Table:
    try:
        return read_table(folder, columns=columns)
    except FileNotFoundError:
        return RAW_IMAGES.empty_table().select(columns)
