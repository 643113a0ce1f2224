"""Record what a run has done so far, so that a killed run loses at most a few seconds of work.

The journal is a folder of part files, because object stores cannot append to a file. Each part is a
small table of rows, written after the images that its rows name. `partition` writes the manifest,
which replaces the journal when a partition is complete.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import pyarrow as pa

from imgassets.manifests import RAW_IMAGES, RawRow, to_table
from imgassets.storage import Folder, read_table, write_table

JOURNAL = "_journal"
FLUSH_S = 2.0
"""Maximum seconds between two parts: a killed run loses at most this much work."""
_PART = re.compile(r"(\d{8})-[\w-]+\.parquet")
_REFRESH = "refresh"
_COMPACT_AT = 64
"""Number of parts per writer that are merged into one, so that a run of hours does not leave
thousands of files."""


class JournalWriter:
    """Writes the parts of one shard; for use by one thread."""

    def __init__(self, folder: Folder, shard: str) -> None:
        self._folder = folder / JOURNAL
        self._shard = shard
        self._next_number = 1 + max(map(_part_number, part_names(folder)), default=0)
        self._rows: list[RawRow] = []
        self._written: list[str] = []
        self._flushed_at = time.monotonic()

    def add(self, rows: list[RawRow]) -> None:
        """Add rows to the next part; their images must be saved already."""
        self._rows += rows

    def flush_if_due(self) -> None:
        """Write a part if the last one is at least `FLUSH_S` old.

        Raises:
            StorageError: The part cannot be written; the rows are kept for the next attempt.
        """
        if time.monotonic() - self._flushed_at >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write a part with all rows added since the last part.

        Raises:
            StorageError: The part cannot be written; the rows are kept for the next attempt.
        """
        self._flushed_at = time.monotonic()
        if not self._rows:
            return
        self._write(to_table(self._rows, RawRow))
        self._rows = []
        if len(self._written) >= _COMPACT_AT:
            self._compact()

    def _write(self, table: pa.Table) -> None:
        name = f"{self._next_number:08d}-{self._shard}.parquet"
        write_table(self._folder, table, name)
        self._next_number += 1
        self._written.append(name)

    def _compact(self) -> None:
        old, self._written = self._written, []
        # Keep the order, because the last row of a key counts.
        self._write(pa.concat_tables([read_table(self._folder, name) for name in old]))
        for name in old:
            self._folder.remove(name)


def part_names(folder: Folder) -> list[str]:
    """Return the file names of the parts in a partition's journal, oldest first."""
    return sorted(name for name in (folder / JOURNAL).sizes() if _PART.fullmatch(name))


def read(folder: Folder, columns: Sequence[str] = RAW_IMAGES.names) -> pa.Table:
    """Return all rows of the journal, oldest first; a key may have several rows.

    Raises:
        StorageError: A part is broken.
    """
    tables = [read_table(folder / JOURNAL, name, columns) for name in part_names(folder)]
    return pa.concat_tables(tables) if tables else RAW_IMAGES.empty_table().select(columns)


def mark_refresh(folder: Folder) -> None:
    """Record that a refresh may replace images that the manifest names."""
    (folder / JOURNAL).write(_REFRESH, b"")


def is_refresh_unfinished(folder: Folder) -> bool:
    """Return whether a refresh has started and its manifest is not written yet."""
    return _REFRESH in (folder / JOURNAL).sizes()


def remove(folder: Folder) -> None:
    """Remove the journal, oldest part first.

    In this order, the parts that an interrupted removal leaves are the newest, so that no outdated
    row becomes the last one of its key.
    """
    journal = folder / JOURNAL
    for name in sorted(journal.sizes()):
        journal.remove(name)


def _part_number(name: str) -> int:
    match = _PART.fullmatch(name)
    return int(match[1]) if match else 0
