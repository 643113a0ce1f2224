"""Reuse images that are stored under another key instead of downloading them.

A key contains the position of the image in its document. When a document is updated and a URL
moves, its key changes, and the shop may no longer serve the image. Finding such images, and the
files that are not needed afterwards, belongs here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from imgassets.download import journal
from imgassets.download.state import read_manifest_and_journal, read_state
from imgassets.manifests import URL_FIELDS, Outcome, RawRow, UrlRow, from_table
from imgassets.storage import IMAGES, Folder, image_name


def reuse_stored_images(url_rows: Sequence[UrlRow], folder: Folder) -> int:
    """Copy stored images to the keys of rows that have the same URL and no image.

    Returns:
        Number of rows that got an image.

    Raises:
        StorageError: The storage cannot be read or written.
    """
    state = read_state(folder, url_rows)
    missing = {row.key: row for row in url_rows if not state.is_stored(row)}
    stored = _stored_rows(folder, {row.url for row in missing.values()})
    images = folder / IMAGES
    writer = journal.JournalWriter(folder, "reused")
    reused = 0
    for row in missing.values():
        source = stored.get(row.url)
        if source is None:
            continue
        data = folder.read(str(source.path))
        if hashlib.sha256(data).hexdigest() != source.sha256:
            continue  # A refresh replaced the file and was killed before it wrote the row.
        name = f"{row.key}.{str(source.path).rpartition('.')[2]}"
        images.write(name, data)
        url_values = {field: getattr(row, field) for field in URL_FIELDS}
        writer.add([replace(source, **url_values, path=f"{IMAGES}/{name}")])
        writer.flush_if_due()
        reused += 1
    writer.flush()
    return reused


def find_obsolete_files(
    names: Iterable[str], rows: Sequence[RawRow], previous: pa.Table
) -> set[str]:
    """Return the image files of a partition that are not needed any more.

    A file is obsolete if it belongs to the key of a row that does not name it (another format, or
    left by a killed run), or if its image was copied to another key. An image whose URL has left
    the catalogue stays, because it may not be available anywhere else.

    Args:
        names: File names in the image folder of the partition.
        rows: Rows of the new manifest.
        previous: Columns `key`, `url` and `path` of the previous manifest and of the journal.

    Returns:
        File names, a subset of `names`.
    """
    keys = {row.key for row in rows}
    in_use = {image_name(row.path) for row in rows if row.path is not None}
    is_current = pc.is_in(previous["key"], value_set=pa.array(keys, pa.string()))
    old = previous.filter(pc.invert(is_current))
    urls = {row.url for row in rows if row.path is not None} if old.num_rows else set()
    moved = {
        image_name(path)
        for url, path in zip(old["url"].to_pylist(), old["path"].to_pylist(), strict=True)
        if path is not None and url in urls
    }
    return {n for n in names if n not in in_use and (n.rpartition(".")[0] in keys or n in moved)}


def _stored_rows(folder: Folder, urls: set[str]) -> dict[str, RawRow]:
    """Return the rows whose files are stored with the right size, by URL."""
    if not urls:
        return {}
    table = read_manifest_and_journal(folder)
    sizes = (folder / IMAGES).sizes()
    with_urls = table.filter(pc.is_in(table["url"], value_set=pa.array(urls, pa.string())))
    return {
        row.url: row
        for row in from_table(with_urls, RawRow)
        if row.outcome is Outcome.OK
        and row.path is not None
        and sizes.get(image_name(row.path)) == row.bytes
    }
