"""Tests what a partition has according to its manifest, its journal and its files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imgassets.download import journal
from imgassets.download.exchange import raw_row
from imgassets.download.partition import collect
from imgassets.download.state import (
    latest_rows,
    read_manifest_and_journal,
    read_manifest_rows,
    read_state,
)
from imgassets.manifests import Outcome, RawRow, UrlRow, to_table
from imgassets.storage import IMAGES, Folder, mark_removed, write_table
from imgassets_tests.download.conftest import url_row, url_rows
from imgassets_tests.download.images import image_bytes

JPEG = image_bytes()
OTHER = image_bytes(seed=1)
URL = "http://shop/a.jpg"
Record = Callable[..., None]
"""Writes rows to the manifest or to the journal of a folder."""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "raw_images"))


def ok_row(row: UrlRow, data: bytes = JPEG, **changes: Any) -> RawRow:
    """Return the row of a URL whose image was saved with these bytes."""
    values: dict[str, object] = {
        "path": f"{IMAGES}/{row.key}.jpg",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return replace(raw_row(row, Outcome.OK, **values), **changes)


def failed_row(row: UrlRow, outcome: Outcome = Outcome.TIMEOUT) -> RawRow:
    return ok_row(row, outcome=outcome, path=None, bytes=None, sha256=None)


def save_file(folder: Folder, row: RawRow, data: bytes = JPEG) -> RawRow:
    """Write the file that a row names; return the row."""
    (folder / IMAGES).write(str(row.path).removeprefix(f"{IMAGES}/"), data)
    return row


def write_manifest(folder: Folder, *rows: RawRow) -> None:
    write_table(folder, to_table(rows, RawRow))


def write_journal(folder: Folder, *rows: RawRow) -> None:
    writer = journal.JournalWriter(folder, "shard_0000")
    writer.add([*rows])
    writer.flush()


def needs_download(
    folder: Folder, row: UrlRow, *, refresh: bool = False, retry: list[Outcome] | None = None
) -> bool:
    return read_state(folder, [row]).needs_download(row, refresh=refresh, retry=retry)


@pytest.mark.parametrize("record", [write_manifest, write_journal])
def test_an_image_is_done_if_its_file_has_the_size_of_its_row(
    folder: Folder, record: Record
) -> None:
    row = url_row("a", URL)
    assert needs_download(folder, row)
    record(folder, save_file(folder, ok_row(row)))
    assert not needs_download(folder, row)
    (folder / IMAGES).write("a.jpg", JPEG + b"x")
    assert needs_download(folder, row)
    (folder / IMAGES).write("a.jpg", JPEG[:-1])
    assert needs_download(folder, row)
    (folder / IMAGES).remove("a.jpg")
    assert needs_download(folder, row)


def test_a_key_with_a_new_url_is_not_done(folder: Folder) -> None:
    write_manifest(folder, save_file(folder, ok_row(url_row("a", URL))))
    assert needs_download(folder, url_row("a", "http://shop/other.jpg"))
    assert not read_state(folder, [url_row("a", URL)]).needs_download(
        url_row("a", URL), refresh=False, retry=None
    )


@pytest.mark.parametrize(
    ("outcome", "retry", "retried"),
    [
        (Outcome.TIMEOUT, None, True),
        (Outcome.TIMEOUT, [], False),
        (Outcome.TIMEOUT, [Outcome.HTTP_ERROR], False),
        (Outcome.TIMEOUT, [Outcome.HTTP_ERROR, Outcome.TIMEOUT], True),
        (Outcome.NOT_FETCHED, None, True),
        (Outcome.NOT_FETCHED, [], True),
        (Outcome.NOT_FETCHED, [Outcome.TIMEOUT], True),
    ],
)
@pytest.mark.parametrize("record", [write_manifest, write_journal])
def test_retry_selects_failed_outcomes_and_always_includes_not_fetched(
    folder: Folder,
    record: Record,
    outcome: Outcome,
    retry: list[Outcome] | None,
    retried: bool,
) -> None:
    row = url_row("a", URL)
    record(folder, failed_row(row, outcome))
    for refresh in (False, True):
        assert needs_download(folder, row, refresh=refresh, retry=retry) is retried
        assert needs_download(folder, url_row("new", URL), refresh=refresh, retry=retry)


def test_an_image_whose_file_is_missing_is_downloaded_with_any_retry_option(folder: Folder) -> None:
    row = url_row("a", URL)
    write_manifest(folder, ok_row(row))
    assert needs_download(folder, row, retry=[])


def test_a_refresh_requests_images_of_the_manifest_but_not_of_the_journal(
    folder: Folder,
) -> None:
    a, b = url_rows("http://shop/a.jpg", "http://shop/b.jpg")
    write_manifest(folder, save_file(folder, ok_row(a)), save_file(folder, ok_row(b)))
    write_journal(folder, ok_row(b))
    assert [needs_download(folder, row, refresh=True) for row in (a, b)] == [True, False]
    assert [needs_download(folder, row, refresh=False) for row in (a, b)] == [False, False]


def test_the_last_row_of_a_key_overrides_all_earlier_rows(folder: Folder) -> None:
    row = url_row("a", URL)
    write_manifest(folder, save_file(folder, ok_row(row)))
    write_journal(folder, failed_row(row))
    assert needs_download(folder, row)
    assert not needs_download(folder, row, retry=[])
    write_journal(folder, ok_row(row))
    assert not needs_download(folder, row)
    assert not needs_download(folder, row, refresh=True)
    assert read_state(folder, [row]).done_in_journal == {row.key}
    write_journal(
        folder, ok_row(row, bytes=1)
    )  # the file has another size, so the image is not stored
    assert read_state(folder, [row]).done_in_journal == frozenset()
    assert needs_download(folder, row, retry=[])
    assert needs_download(folder, row, refresh=True, retry=[])


def test_a_file_that_was_removed_on_purpose_counts_as_stored(folder: Folder) -> None:
    a, b = url_rows("http://shop/a.jpg", "http://shop/b.jpg")
    write_manifest(folder, save_file(folder, ok_row(a)), save_file(folder, ok_row(b)))
    for row in (a, b):
        mark_removed(folder, [f"{row.key}.jpg"])
        (folder / IMAGES).remove(f"{row.key}.jpg")
    # The second record of a removal does not replace the first.
    assert [needs_download(folder, row) for row in (a, b)] == [False, False]
    # Once the file exists again, its size counts.
    (folder / IMAGES).write(f"{a.key}.jpg", JPEG[:10])
    assert [needs_download(folder, row) for row in (a, b)] == [True, False]


def test_after_an_unfinished_refresh_the_checksum_of_a_file_is_verified(folder: Folder) -> None:
    same, replaced, removed, journalled = url_rows(*(f"http://shop/{n}.jpg" for n in range(4)))
    rows = [save_file(folder, ok_row(row)) for row in (same, replaced, removed, journalled)]
    write_manifest(folder, *rows)
    newer = bytes([JPEG[0] ^ 1]) + JPEG[1:]
    (folder / IMAGES).write(f"{replaced.key}.jpg", newer)
    mark_removed(folder, [f"{removed.key}.jpg"])
    (folder / IMAGES).remove(f"{removed.key}.jpg")
    assert not needs_download(folder, replaced)
    journal.mark_refresh(folder)
    assert needs_download(folder, replaced)
    assert [needs_download(folder, row) for row in (same, removed, journalled)] == [False] * 3
    # Files that the refresh has recorded in the journal need no verification.
    (folder / IMAGES).write(f"{journalled.key}.jpg", newer)
    write_journal(folder, ok_row(journalled, newer))
    assert not needs_download(folder, journalled)
    assert needs_download(folder, replaced)


def test_every_row_has_its_own_state(folder: Folder) -> None:
    done, lost, bad, other = url_rows(*(f"http://shop/{n}.jpg" for n in range(4)))
    write_manifest(
        folder,
        save_file(folder, ok_row(done)),
        ok_row(lost),
        failed_row(bad),
        save_file(folder, ok_row(other)),
    )
    state = read_state(folder, [done, lost, bad])
    assert state.done == {done.key: done.url}
    assert state.failed == {bad.key: "timeout"}
    assert state.done_in_journal == frozenset()
    assert state.is_stored(done)
    assert not state.is_stored(lost)


def test_only_the_requested_rows_of_a_manifest_are_returned(folder: Folder) -> None:
    a, b, c = url_rows(*(f"http://shop/{n}.jpg" for n in range(3)))
    write_manifest(folder, ok_row(a), ok_row(b, OTHER), ok_row(c))
    write_journal(folder, failed_row(a))
    assert read_manifest_rows(folder, [a, b]) == {a.key: ok_row(a), b.key: ok_row(b, OTHER)}
    assert read_manifest_rows(folder, [replace(a, url="http://shop/other.jpg")]) == {}


def test_journal_rows_follow_manifest_rows(folder: Folder) -> None:
    a, b = url_rows("http://shop/a.jpg", "http://shop/b.jpg")
    assert read_manifest_and_journal(folder).num_rows == 0
    write_manifest(folder, failed_row(a), ok_row(b))
    write_journal(folder, ok_row(a))
    assert read_manifest_and_journal(folder).column("key").to_pylist() == [a.key, b.key, a.key]
    assert latest_rows(read_manifest_and_journal(folder), [a, b]) == {
        a.key: ok_row(a),
        b.key: ok_row(b),
    }


def test_rows_get_the_present_catalogue_data_and_keep_their_outcome(folder: Folder) -> None:
    old = url_row("a", URL)
    new = replace(old, product_id="q", position=7, document_id="e")
    downloaded = ok_row(old, http_status=200, etag='"1"', attempts=3)
    write_manifest(folder, downloaded)
    (row,) = collect([new], folder)
    assert row == replace(downloaded, product_id="q", position=7, document_id="e")
    assert row.outcome is Outcome.OK


def test_no_row_of_a_large_partition_is_lost(folder: Folder) -> None:
    urls = url_rows(*(f"http://shop/{n}.jpg" for n in range(10_001)))
    rows = [failed_row(row) for row in urls]
    write_manifest(folder, *rows)
    found = latest_rows(read_manifest_and_journal(folder), urls)
    assert len(found) == len(rows)
    assert all(found[row.key] == row for row in rows)
