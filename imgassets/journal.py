"""Record the rows that a run has finished, so that a killed run loses only what was in flight.

A journal is a folder of text files with one row per line, as JSON. On a disk a writer appends each
row as soon as its image is stored. Object stores cannot append, so there the rows are written in
parts every `PART_INTERVAL_S` seconds. The manifest replaces the journal when a partition is
complete.
"""

from __future__ import annotations

import datetime as dt
import io
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from imgassets.errors import StorageError
from imgassets.manifests import OUTCOMES, SCHEMAS, ProcessedRow, RawRow
from imgassets.storage import JOURNALS, PartitionFiles, Storage, open_local, write_all

PART_INTERVAL_S = 2.0
"""Seconds between two parts in an object store: a killed run loses at most this much work there."""
_FILE = re.compile(r"(\d{8})-([\w-]+)\.jsonl")
_SNAPSHOT_ATTEMPTS = 10
_COMPACT_AT = 64
"""Number of parts per writer that are merged into one, so that a run of hours does not leave
thousands of objects."""
_READS = 16  # parts that are read at the same time, because a run waits for them


@dataclass(frozen=True, slots=True)
class Journal:
    """The journal of one partition of `raw_images` or `processed_images`.

    Attributes:
        partition: The partition.
        asset: The name of the asset.
    """

    partition: PartitionFiles
    asset: str

    @property
    def folder(self) -> str:
        """The path of the journal's folder."""
        return self.partition.journal(self.asset)

    def rows(self, writer: str | None = None, start: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the rows, oldest first, as keyword arguments of their row class.

        A key may have several rows; the last one counts. Lines that are not valid, as a killed
        writer leaves them, are skipped: the work that they record is done again.

        Args:
            writer: Name of a writer, for its rows only.
            start: Number of the first file to read; see `next_number`.

        Raises:
            StorageError: The storage is not reachable or not readable.
        """
        storage = self.partition.storage
        names = set(SCHEMAS[RawRow if self.asset == "raw_images" else ProcessedRow].names)
        for number, name, file in self._files():
            if number < start or writer not in (None, name):
                continue
            for line in storage.lines(f"{self.folder}/{file}"):
                values = _parse(line, names)
                if values is not None:
                    yield values

    def writer(self, name: str) -> JournalWriter:
        """Create a writer that continues the journal.

        Args:
            name: The name of the writer, different from that of other active writers of the
                partition; matches `[A-Za-z0-9_-]+`.

        Raises:
            StorageError: The storage is not reachable or not readable.
        """
        return JournalWriter(self.partition.storage, self.folder, name, self.next_number())

    def next_number(self) -> int:
        """The number of the next file: files of later writers have this number or a higher one.

        Raises:
            StorageError: The storage is not reachable or not readable.
        """
        return 1 + max((number for number, _, _ in self._files()), default=0)

    def remove(self) -> None:
        """Remove the journal, on a disk oldest file first.

        In this order, the files that an interrupted removal leaves are the newest, so that no
        outdated row becomes the last one of its key. An object store removes all with one request.

        Raises:
            StorageError: The storage is not reachable or not writable.
        """
        self.partition.storage.remove_folder(self.folder)

    def snapshot(self, *columns: str) -> list[tuple[Any, ...]]:
        """Columns of all rows, oldest first, also while a run writes, compacts or removes it.

        Args:
            columns: Names of the columns; a row has None for those that it lacks.

        Raises:
            StorageError: The storage is not reachable or not readable.
        """
        for _ in range(_SNAPSHOT_ATTEMPTS):
            # A file that is gone was replaced by a newer file, or by the manifest.
            with suppress(FileNotFoundError):
                return [tuple(map(row.get, columns)) for row in self.rows()]
        raise StorageError(
            f"{self.partition.storage.address(self.folder)} changes while it is read; try again"
        )

    def erase(self, is_selected: Callable[[dict[str, Any]], bool]) -> None:
        """Overwrite rows, and all lines that are not valid, with blanks.

        The files keep their place and their length, because a run may be appending to them.

        Args:
            is_selected: Whether to overwrite a row, given as keyword arguments of its class.

        Raises:
            StorageError: The storage is not reachable or not writable.
        """
        storage = self.partition.storage
        names = set(SCHEMAS[RawRow if self.asset == "raw_images" else ProcessedRow].names)
        for _, _, name in self._files():
            path = f"{self.folder}/{name}"
            with suppress(FileNotFoundError):  # removed by its run meanwhile
                data = storage.read(path)
                lines = []
                for line in io.BytesIO(data):
                    row = _parse(line, names)
                    lines.append(_blank(line) if row is None or is_selected(row) else line)
                if (kept := b"".join(lines)) != data:
                    _overwrite(storage, path, kept)

    def _files(self) -> list[tuple[int, str, str]]:
        """Number, name of the writer and file name of each file, oldest first."""
        matches = map(_FILE.fullmatch, self.partition.storage.names(self.folder))
        return [(int(match[1]), match[2], match[0]) for match in matches if match]


def list_journals(storage: Storage, asset: str, retailer: str | None = None) -> list[Journal]:
    """The journals of an asset: those of running partitions and of killed runs.

    Args:
        storage: The storage.
        asset: The name of the asset.
        retailer: Slug of a retailer, for its partitions only.

    Raises:
        StorageError: The storage is not reachable or not readable.
    """
    folder = f"{JOURNALS}/{asset}"
    prefix, date = "retailer=", "date="
    retailers = [
        name.removeprefix(prefix)
        for name in storage.names(folder)
        if name.startswith(prefix) and retailer in (None, name.removeprefix(prefix))
    ]
    return [
        Journal(storage.partition(name.removeprefix(date), slug), asset)
        for slug in retailers
        for name in storage.names(f"{folder}/{prefix}{slug}")
        if name.startswith(date)
    ]


class JournalWriter:
    """Appends rows to a journal; thread-safe. A context manager that writes the last part."""

    def __init__(self, storage: Storage, folder: str, name: str, number: int) -> None:
        self._storage, self._folder, self._name, self._number = storage, folder, name, number
        self._lock = threading.Lock()
        self._handle: int | None = None
        self._pending: list[bytes] = []
        self._written: list[str] = []
        self._flushed_at = time.monotonic()

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
        finally:
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None

    def add(self, rows: Sequence[RawRow] | Sequence[ProcessedRow]) -> None:
        """Record rows whose images are stored: at once on a disk, else in the next part.

        Raises:
            StorageError: The disk is full or not writable.
        """
        data = b"".join(map(_line, rows))
        if not data:
            return
        with self._lock:
            if not self._storage.is_local:
                self._pending.append(data)
                return
            path = self._storage.address(self._next_path())
            try:
                if self._handle is None:
                    self._handle = open_local(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                write_all(self._handle, data)
            except OSError as error:
                raise StorageError(
                    f"cannot write {path}: {error}; free space or repair the storage, then run the "
                    "partition again; finished work is kept"
                ) from error

    def flush_if_due(self) -> None:
        """Write a part if the last one is at least `PART_INTERVAL_S` old.

        Raises:
            StorageError: The part cannot be written; its rows are kept for the next attempt.
        """
        if time.monotonic() - self._flushed_at >= PART_INTERVAL_S:
            self.flush()

    def flush(self) -> None:
        """Write a part with all rows since the last one; on a disk they are written already.

        Raises:
            StorageError: The part cannot be written; its rows are kept for the next attempt.
        """
        self._flushed_at = time.monotonic()
        with self._lock:
            pending, self._pending = self._pending, []
        if not pending:
            return
        try:
            self._write_part(b"".join(pending))
        except StorageError:
            with self._lock:
                self._pending[:0] = pending
            raise
        if len(self._written) >= _COMPACT_AT:
            old, self._written = self._written, []
            # Keep the order, because the last row of a key counts.
            with ThreadPoolExecutor(_READS, thread_name_prefix="journal") as pool:
                self._write_part(b"".join(pool.map(self._storage.read, old)))
            self._storage.remove_all(old)

    def _write_part(self, data: bytes) -> None:
        path = self._next_path()
        self._storage.write(path, data)
        self._written.append(path)
        self._number += 1

    def _next_path(self) -> str:
        return f"{self._folder}/{self._number:08d}-{self._name}.jsonl"


# Numbers in rows of processed images may be NumPy's.
_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY


def _line(row: RawRow | ProcessedRow) -> bytes:
    return orjson.dumps(row, option=_OPTIONS)


def _parse(line: bytes, names: Collection[str]) -> dict[str, Any] | None:
    try:
        values: dict[str, Any] = orjson.loads(line)
        values["outcome"] = OUTCOMES[values["outcome"]]
        if fetched_at := values.get("fetched_at"):
            values["fetched_at"] = dt.datetime.fromisoformat(fetched_at)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return values if values.keys() == names else None


def _blank(line: bytes) -> bytes:
    return b" " * len(line.rstrip(b"\n")) + (b"\n" if line.endswith(b"\n") else b"")


def _overwrite(storage: Storage, path: str, data: bytes) -> None:
    """Replace the start of a journal file; what a run appends to it on a disk meanwhile is kept."""
    if not storage.is_local:
        storage.write(path, data)
        return
    try:
        handle = os.open(storage.address(path), os.O_WRONLY)
        try:
            write_all(handle, data)
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"cannot write {storage.address(path)}: {error}") from error
