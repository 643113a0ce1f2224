"""What a partition has, and which of its URLs are to be fetched.

Here live the questions to manifest and journal. A row is done when it is `ok` and its file lies
there in the right size, or was removed on purpose: one listing of the folder, not one look a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter

import pyarrow as pa
import pyarrow.compute as pc

from imgassets.download import journal
from imgassets.manifests import RAW_IMAGES, Outcome, RawRow, UrlRow, from_table
from imgassets.storage import IMAGES, Folder, read_table, removed

_SLICE = 5_000
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
    sizes = (folder / IMAGES).sizes()
    gone = removed(folder)
    # Where a refresh was killed, a picture may be newer than the manifest's row.
    doubtful = journal.is_refresh(folder)
    keys = [row.key for row in url_rows]
    done: dict[str, str] = {}
    failed: dict[str, str] = {}
    current: set[str] = set()
    columns = ["key", "url", "outcome", "path", "bytes", "sha256"]
    for table, is_journal in ((_manifest(folder), False), (journal.read(folder), True)):
        chosen = _of_keys(table, keys).select(columns).to_pydict()
        for key, url, outcome, path, size, sha256 in zip(*chosen.values(), strict=True):
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
            if whole and (certain or _sha256(folder, path) == sha256):
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
    # In slices, and with the strings that are there already: 200,000 rows are a lot of memory.
    for start in range(0, table.num_rows, _SLICE):
        for found in from_table(table.slice(start, _SLICE), RawRow):
            row = asked.get(found.key)
            if row is None or row.url != found.url:
                continue
            own = _catalogues(row)
            rows[row.key] = (
                found
                if own == _catalogues(found)
                else replace(found, **dict(zip(URL_FIELDS, own, strict=True)))
            )
    return rows


def _of_keys(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    return table.filter(pc.is_in(table["key"], value_set=pa.array(keys, pa.string())))


def _manifest(folder: Folder) -> pa.Table:
    try:
        return read_table(folder).select(RAW_IMAGES.names)
    except FileNotFoundError:
        return RAW_IMAGES.empty_table()


def _sha256(folder: Folder, path: str) -> str:
    return hashlib.sha256(folder.read(path)).hexdigest()
