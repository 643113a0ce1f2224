"""What a run has done so far, so that a run that is killed loses seconds.

Here live the journal's part files: small tables of rows, each written whole after the pictures that
it names. Object stores cannot append, so a journal is a folder of parts. The manifest, which takes
their place when a partition is complete, is written in `partition`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import pyarrow as pa

from imgassets.manifests import RAW_IMAGES, RawRow, from_table, to_table
from imgassets.storage import Folder, read_table, write_table

JOURNAL = "_journal"
FLUSH_S = 2.0
"""Rows wait at most this long for their part: the work that a `kill -9` costs."""
_PART = re.compile(r"(\d{8})-[\w-]+\.parquet")
_REFRESH = "refresh"
_COMPACT_AT = 64
"""Parts of one writer that are made one, so that a run of hours leaves no thousands of files."""


class JournalWriter:
    """Writes the parts of one shard; used by one thread."""

    def __init__(self, folder: Folder, shard: str) -> None:
        self._folder = folder / JOURNAL
        self._shard = shard
        self._next = 1 + max(map(_number, parts(folder)), default=0)
        self._rows: list[RawRow] = []
        self._own: list[str] = []
        self._flushed = time.monotonic()

    def add(self, rows: list[RawRow]) -> None:
        """Take rows whose pictures are saved; they are written with the next part."""
        self._rows += rows

    def flush_if_due(self) -> None:
        """Write a part when the last one is older than `FLUSH_S`.

        Raises:
            StorageError: it cannot be written; the rows are kept for the next try.
        """
        if time.monotonic() - self._flushed >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write a part of all rows taken since the last.

        Raises:
            StorageError: it cannot be written; the rows are kept for the next try.
        """
        self._flushed = time.monotonic()
        if not self._rows:
            return
        self._write(to_table(self._rows, RawRow))
        self._rows = []
        if len(self._own) >= _COMPACT_AT:
            self._compact()

    def _write(self, table: pa.Table) -> None:
        name = f"{self._next:08d}-{self._shard}.parquet"
        write_table(self._folder, table, name)
        self._next += 1
        self._own.append(name)

    def _compact(self) -> None:
        old, self._own = self._own, []
        # In order: where a URL stands twice, the later row holds.
        self._write(pa.concat_tables([read_table(self._folder, name) for name in old]))
        for name in old:
            self._folder.remove(name)


def parts(folder: Folder) -> list[str]:
    """Names of the journal's parts in a partition's folder, oldest first."""
    return sorted(name for name in (folder / JOURNAL).sizes() if _PART.fullmatch(name))


def read(folder: Folder, columns: Sequence[str] = RAW_IMAGES.names) -> pa.Table:
    """All rows of the journal, oldest first; a key may stand there more than once.

    Raises:
        StorageError: a part is broken.
    """
    found = [read_table(folder / JOURNAL, name, columns) for name in parts(folder)]
    return pa.concat_tables(found) if found else RAW_IMAGES.empty_table().select(columns)


def rows(folder: Folder) -> dict[str, RawRow]:
    """The last row of each key.

    Raises:
        StorageError: a part is broken.
    """
    return {row.key: row for row in from_table(read(folder), RawRow)}


def mark_refresh(folder: Folder) -> None:
    """Note that pictures which the manifest names may be replaced by newer ones."""
    (folder / JOURNAL).write(_REFRESH, b"")


def is_refresh(folder: Folder) -> bool:
    """Whether a refresh was begun and its manifest is not written yet."""
    return _REFRESH in (folder / JOURNAL).sizes()


def remove(folder: Folder) -> None:
    """Remove the journal, the oldest part first: what is left of it never ends with an old row."""
    journal = folder / JOURNAL
    for name in sorted(journal.sizes()):
        journal.remove(name)


def _number(name: str) -> int:
    found = _PART.fullmatch(name)
    return int(found[1]) if found else 0
