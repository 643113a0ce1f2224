"""What a partition has, judged by its manifest, its journal and its files."""

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
"""Notes rows in a folder: in its manifest, or in its journal."""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "raw_images"))


def ok(row: UrlRow, data: bytes = JPEG, **changes: Any) -> RawRow:
    """The row of a URL whose image was saved with these bytes."""
    values: dict[str, object] = {
        "path": f"{IMAGES}/{row.key}.jpg",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return replace(raw_row(row, Outcome.OK, **values), **changes)


def failed(row: UrlRow, outcome: Outcome = Outcome.TIMEOUT) -> RawRow:
    return ok(row, outcome=outcome, path=None, bytes=None, sha256=None)


def save(folder: Folder, row: RawRow, data: bytes = JPEG) -> RawRow:
    """Write the file that a row names."""
    (folder / IMAGES).write(str(row.path).removeprefix(f"{IMAGES}/"), data)
    return row


def manifest(folder: Folder, *rows: RawRow) -> None:
    write_table(folder, to_table(rows, RawRow))


def journalled(folder: Folder, *rows: RawRow) -> None:
    writer = journal.JournalWriter(folder, "shard_0000")
    writer.add([*rows])
    writer.flush()


def needs_download(
    folder: Folder, row: UrlRow, *, refresh: bool = False, retry: list[Outcome] | None = None
) -> bool:
    return read_state(folder, [row]).needs_download(row, refresh=refresh, retry=retry)


@pytest.mark.parametrize("record", [manifest, journalled])
def test_an_image_is_done_while_its_file_has_the_size_of_its_row(
    folder: Folder, record: Record
) -> None:
    row = url_row("a", URL)
    assert needs_download(folder, row)
    record(folder, save(folder, ok(row)))
    assert not needs_download(folder, row)
    (folder / IMAGES).write("a.jpg", JPEG + b"x")
    assert needs_download(folder, row)
    (folder / IMAGES).write("a.jpg", JPEG[:-1])
    assert needs_download(folder, row)
    (folder / IMAGES).remove("a.jpg")
    assert needs_download(folder, row)


def test_a_key_whose_url_changed_is_not_done(folder: Folder) -> None:
    manifest(folder, save(folder, ok(url_row("a", URL))))
    assert needs_download(folder, url_row("a", "http://shop/other.jpg"))
    assert not read_state(folder, [url_row("a", URL)]).needs_download(
        url_row("a", URL), refresh=False, retry=None
    )


@pytest.mark.parametrize(
    ("outcome", "retry", "tried"),
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
@pytest.mark.parametrize("record", [manifest, journalled])
def test_retry_chooses_among_failures_but_never_leaves_out_what_was_not_fetched(
    folder: Folder,
    record: Record,
    outcome: Outcome,
    retry: list[Outcome] | None,
    tried: bool,
) -> None:
    row = url_row("a", URL)
    record(folder, failed(row, outcome))
    for refresh in (False, True):
        assert needs_download(folder, row, refresh=refresh, retry=retry) is tried
        assert needs_download(folder, url_row("new", URL), refresh=refresh, retry=retry)


def test_retry_does_not_leave_out_an_image_whose_file_is_gone(folder: Folder) -> None:
    row = url_row("a", URL)
    manifest(folder, ok(row))
    assert needs_download(folder, row, retry=[])


def test_a_refresh_asks_for_what_earlier_runs_brought_but_not_for_what_the_journal_has(
    folder: Folder,
) -> None:
    a, b = url_rows("http://shop/a.jpg", "http://shop/b.jpg")
    manifest(folder, save(folder, ok(a)), save(folder, ok(b)))
    journalled(folder, ok(b))
    assert [needs_download(folder, row, refresh=True) for row in (a, b)] == [True, False]
    assert [needs_download(folder, row, refresh=False) for row in (a, b)] == [False, False]


def test_the_last_row_of_a_key_holds_whatever_came_before(folder: Folder) -> None:
    row = url_row("a", URL)
    manifest(folder, save(folder, ok(row)))
    journalled(folder, failed(row))
    assert needs_download(folder, row)
    assert not needs_download(folder, row, retry=[])
    journalled(folder, ok(row))
    assert not needs_download(folder, row)
    assert not needs_download(folder, row, refresh=True)
    assert read_state(folder, [row]).done_in_journal == {row.key}
    journalled(folder, ok(row, bytes=1))  # a file of another size: it is not there
    assert read_state(folder, [row]).done_in_journal == frozenset()
    assert needs_download(folder, row, retry=[])
    assert needs_download(folder, row, refresh=True, retry=[])


def test_a_file_that_was_removed_on_purpose_counts_as_there(folder: Folder) -> None:
    a, b = url_rows("http://shop/a.jpg", "http://shop/b.jpg")
    manifest(folder, save(folder, ok(a)), save(folder, ok(b)))
    for row in (a, b):
        mark_removed(folder, [f"{row.key}.jpg"])
        (folder / IMAGES).remove(f"{row.key}.jpg")
    # The second note does not replace the first.
    assert [needs_download(folder, row) for row in (a, b)] == [False, False]
    # Once a file is there again, its size counts.
    (folder / IMAGES).write(f"{a.key}.jpg", JPEG[:10])
    assert [needs_download(folder, row) for row in (a, b)] == [True, False]


def test_after_an_unfinished_refresh_the_bytes_of_a_file_count_too(folder: Folder) -> None:
    same, replaced, removed, told = url_rows(*(f"http://shop/{n}.jpg" for n in range(4)))
    rows = [save(folder, ok(row)) for row in (same, replaced, removed, told)]
    manifest(folder, *rows)
    newer = bytes([JPEG[0] ^ 1]) + JPEG[1:]
    (folder / IMAGES).write(f"{replaced.key}.jpg", newer)
    mark_removed(folder, [f"{removed.key}.jpg"])
    (folder / IMAGES).remove(f"{removed.key}.jpg")
    assert not needs_download(folder, replaced)
    journal.mark_refresh(folder)
    assert needs_download(folder, replaced)
    assert [needs_download(folder, row) for row in (same, removed, told)] == [False] * 3
    # What the refresh itself has noted needs no second look.
    (folder / IMAGES).write(f"{told.key}.jpg", newer)
    journalled(folder, ok(told, newer))
    assert not needs_download(folder, told)
    assert needs_download(folder, replaced)


def test_each_row_of_many_has_its_own_state(folder: Folder) -> None:
    done, lost, bad, other = url_rows(*(f"http://shop/{n}.jpg" for n in range(4)))
    manifest(folder, save(folder, ok(done)), ok(lost), failed(bad), save(folder, ok(other)))
    state = read_state(folder, [done, lost, bad])
    assert state.done == {done.key: done.url}
    assert state.failed == {bad.key: "timeout"}
    assert state.done_in_journal == frozenset()
    assert state.is_done(done)
    assert not state.is_done(lost)


def test_of_a_manifest_only_the_rows_that_are_asked_for_are_given(folder: Folder) -> None:
    a, b, c = url_rows(*(f"http://shop/{n}.jpg" for n in range(3)))
    manifest(folder, ok(a), ok(b, OTHER), ok(c))
    journalled(folder, failed(a))
    assert read_manifest_rows(folder, [a, b]) == {a.key: ok(a), b.key: ok(b, OTHER)}
    assert read_manifest_rows(folder, [replace(a, url="http://shop/other.jpg")]) == {}


def test_the_journal_comes_after_the_manifest(folder: Folder) -> None:
    a, b = url_rows("http://shop/a.jpg", "http://shop/b.jpg")
    assert read_manifest_and_journal(folder).num_rows == 0
    manifest(folder, failed(a), ok(b))
    journalled(folder, ok(a))
    assert read_manifest_and_journal(folder).column("key").to_pylist() == [a.key, b.key, a.key]
    assert latest_rows(read_manifest_and_journal(folder), [a, b]) == {a.key: ok(a), b.key: ok(b)}


def test_rows_take_what_the_catalogue_says_now_and_keep_what_happened(folder: Folder) -> None:
    old = url_row("a", URL)
    new = replace(old, product_id="q", position=7, document_id="e")
    happened = ok(old, http_status=200, etag='"1"', attempts=3)
    manifest(folder, happened)
    (row,) = collect([new], folder)
    assert row == replace(happened, product_id="q", position=7, document_id="e")
    assert row.outcome is Outcome.OK


def test_no_row_of_a_large_partition_is_lost(folder: Folder) -> None:
    urls = url_rows(*(f"http://shop/{n}.jpg" for n in range(10_001)))
    rows = [failed(row) for row in urls]
    manifest(folder, *rows)
    found = latest_rows(read_manifest_and_journal(folder), urls)
    assert len(found) == len(rows)
    assert all(found[row.key] == row for row in rows)
