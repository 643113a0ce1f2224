"""Pictures that lie there under another key: taken over instead of downloaded.

A key holds the picture's position in its document. Where a document is updated and a URL moves,
its key changes, and the shop may no longer serve the picture. Here lives finding such pictures,
and which files are superfluous afterwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from imgassets.download import journal
from imgassets.download.state import URL_FIELDS, known, read_state
from imgassets.manifests import Outcome, RawRow, UrlRow, from_table
from imgassets.storage import IMAGES, Folder


def adopt(url_rows: Sequence[UrlRow], folder: Folder) -> int:
    """Copy pictures that have a row's URL, but another key, to the key of the row.

    Returns:
        How many rows got their picture so.

    Raises:
        StorageError: the storage cannot be read or written.
    """
    state = read_state(folder, url_rows)
    missing = {row.key: row for row in url_rows if not state.is_done(row)}
    there = _pictures(folder, {row.url for row in missing.values()})
    images = folder / IMAGES
    writer = journal.JournalWriter(folder, "adopted")
    adopted = 0
    for row in missing.values():
        found = there.get(row.url)
        if found is None:
            continue
        data = folder.read(str(found.path))
        if hashlib.sha256(data).hexdigest() != found.sha256:
            continue  # a refresh that was killed replaced the file before its row
        name = f"{row.key}.{str(found.path).rpartition('.')[2]}"
        images.write(name, data)
        own = {field: getattr(row, field) for field in URL_FIELDS}
        writer.add([replace(found, **own, path=f"{IMAGES}/{name}")])
        writer.flush_if_due()
        adopted += 1
    writer.flush()
    return adopted


def superfluous(names: Iterable[str], rows: Sequence[RawRow], before: pa.Table) -> set[str]:
    """Files of a partition that may go, now that its rows are these.

    Those are files of a row's key that the row does not name (of another format, or left by a run
    that was killed), and pictures that were taken over. A picture whose URL has left the catalogue
    stays: it may be had nowhere else.

    Args:
        names: of the files in the partition's folder of pictures.
        rows: the manifest that is written now.
        before: key, URL and path of the manifest before, and of the journal.
    """
    keys = {row.key for row in rows}
    named = {_name(row.path) for row in rows if row.path is not None}
    old = before.filter(pc.invert(pc.is_in(before["key"], value_set=pa.array(keys, pa.string()))))
    urls = {row.url for row in rows if row.path is not None} if old.num_rows else set()
    moved = {
        _name(path)
        for url, path in zip(old["url"].to_pylist(), old["path"].to_pylist(), strict=True)
        if path is not None and url in urls
    }
    return {n for n in names if n not in named and (n.rpartition(".")[0] in keys or n in moved)}


def _pictures(folder: Folder, urls: set[str]) -> dict[str, RawRow]:
    """Rows whose pictures are there in the right size, by URL."""
    if not urls:
        return {}
    table = known(folder)
    sizes = (folder / IMAGES).sizes()
    chosen = table.filter(pc.is_in(table["url"], value_set=pa.array(urls, pa.string())))
    return {
        row.url: row
        for row in from_table(chosen, RawRow)
        if row.outcome is Outcome.OK
        and row.path is not None
        and sizes.get(_name(row.path)) == row.bytes
    }


def _name(path: str) -> str:
    return path.removeprefix(f"{IMAGES}/")
