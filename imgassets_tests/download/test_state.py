"""Tests what a partition has according to its manifest, its journal and its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from imgassets.download.exchange import raw_row
from imgassets.download.partition import collect
from imgassets.download.state import latest_rows, read_state, recorded_rows
from imgassets.errors import BrokenFileError
from imgassets.journal import Journal
from imgassets.manifests import Outcome, RawRow, UrlRow, from_table, to_table
from imgassets.settings import RetailerSettings
from imgassets.storage import PartitionFiles, Storage, processed_path
from imgassets_tests.download.conftest import DAY, path_of, url_row, url_rows
from imgassets_tests.download.images import image_bytes

JPEG = image_bytes()
OTHER = image_bytes(seed=1)
URL = "http://shop/a.jpg"
Record = Callable[..., None]
"""Writes rows to the manifest or to the journal of a partition."""


@pytest.fixture
def files(tmp_path: Path) -> PartitionFiles:
    return Storage(str(tmp_path / "data")).partition(DAY, "zara")


def ok_row(row: UrlRow, data: bytes = JPEG, **changes: Any) -> RawRow:
    """Return the row of a URL whose image was downloaded."""
    values: dict[str, object] = {
        "path": path_of(data),
        "bytes": len(data),
        "sha256": sha256(data).hexdigest(),
        "attempts": 1,
    }
    return raw_row(row, Outcome.OK, **values | changes)


def failed_row(row: UrlRow, outcome: Outcome = Outcome.TIMEOUT) -> RawRow:
    return raw_row(row, outcome, attempts=1)


def save_file(files: PartitionFiles, row: RawRow, data: bytes = JPEG) -> RawRow:
    """Write the file that a row names; return the row."""
    files.storage.write(str(row.path), data)
    return row


def write_manifest(files: PartitionFiles, *rows: RawRow) -> None:
    files.write_manifest("raw_images", to_table(rows, RawRow))


def write_journal(files: PartitionFiles, *rows: RawRow) -> None:
    with Journal(files, "raw_images").writer("shard_0000") as writer:
        writer.add(rows)


def needs_download(
    files: PartitionFiles,
    row: UrlRow,
    *,
    refresh: bool = False,
    retry: list[Outcome] | None = None,
    keep_raw: bool = True,
) -> bool:
    state = read_state(files, to_table([row], UrlRow), keep_raw=keep_raw)
    (needed,) = state.needs_download(refresh=refresh, retry=retry).tolist()
    return bool(needed)


def is_requested(files: PartitionFiles, row: UrlRow) -> bool:
    """Whether the image is stored, but a refresh does not request it."""
    state = read_state(files, to_table([row], UrlRow), keep_raw=True)
    return bool(state.stored[0] and state.requested[0])


def latest(files: PartitionFiles, urls: list[UrlRow]) -> dict[str, RawRow]:
    """The last row of each URL that has one, by key."""
    table = latest_rows(files, to_table(urls, UrlRow))
    assert table.num_rows == len(urls)
    rows = from_table(table.filter(pc.is_valid(table["outcome"])), RawRow)
    return {row.key: row for row in rows}


@pytest.mark.parametrize("record", [write_manifest, write_journal])
def test_an_image_is_done_if_its_file_has_the_size_of_its_row(
    files: PartitionFiles, record: Record
) -> None:
    row = url_row("a", URL)
    assert needs_download(files, row)
    record(files, save_file(files, ok_row(row)))
    assert not needs_download(files, row)
    files.storage.write(path_of(JPEG), JPEG + b"x")
    assert needs_download(files, row)
    files.storage.write(path_of(JPEG), JPEG[:-1])
    assert needs_download(files, row)
    files.storage.remove(path_of(JPEG))
    assert needs_download(files, row)


def test_a_key_with_a_new_url_is_not_done(files: PartitionFiles) -> None:
    write_manifest(files, save_file(files, ok_row(url_row("a", URL))))
    assert needs_download(files, url_row("a", "http://shop/other.jpg"))
    assert not needs_download(files, url_row("a", URL))


@pytest.mark.parametrize(
    ("outcome", "retry", "retried"),
    [
        (Outcome.TIMEOUT, None, True),
        (Outcome.REMOVED, None, False),
        (Outcome.REMOVED, [Outcome.REMOVED], False),
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
    files: PartitionFiles,
    record: Record,
    outcome: Outcome,
    retry: list[Outcome] | None,
    retried: bool,
) -> None:
    row = url_row("a", URL)
    record(files, failed_row(row, outcome))
    for refresh in (False, True):
        assert needs_download(files, row, refresh=refresh, retry=retry) is retried
        assert needs_download(files, url_row("new", URL), refresh=refresh, retry=retry)


def test_an_image_whose_file_is_missing_is_downloaded_with_any_retry_option(
    files: PartitionFiles,
) -> None:
    row = url_row("a", URL)
    write_manifest(files, ok_row(row))
    assert needs_download(files, row, retry=[])


def test_a_refresh_requests_images_of_the_manifest_but_not_of_the_journal(
    files: PartitionFiles,
) -> None:
    a, b = url_rows("http://shop/a.jpg", "http://shop/b.jpg")
    write_manifest(files, save_file(files, ok_row(a)), save_file(files, ok_row(b)))
    write_journal(files, ok_row(b))
    assert [needs_download(files, row, refresh=True) for row in (a, b)] == [True, False]
    assert [needs_download(files, row, refresh=False) for row in (a, b)] == [False, False]


def test_the_last_row_of_a_key_overrides_all_earlier_rows(files: PartitionFiles) -> None:
    row = url_row("a", URL)
    write_manifest(files, save_file(files, ok_row(row)))
    write_journal(files, failed_row(row))
    assert needs_download(files, row)
    assert not needs_download(files, row, retry=[])
    write_journal(files, ok_row(row))
    assert not needs_download(files, row)
    assert not needs_download(files, row, refresh=True)
    assert is_requested(files, row)
    write_journal(
        files, ok_row(row, bytes=1)
    )  # the file has another size, so the image is not stored
    assert not is_requested(files, row)
    assert needs_download(files, row, retry=[])
    assert needs_download(files, row, refresh=True, retry=[])


def test_a_refresh_requests_images_that_the_journal_took_over_without_a_request(
    files: PartitionFiles,
) -> None:
    row = url_row("a", URL)
    write_journal(files, save_file(files, ok_row(row, attempts=0, reused_from="2026-01-01")))
    assert not needs_download(files, row)
    assert needs_download(files, row, refresh=True)


def test_a_raw_file_that_is_not_kept_counts_as_stored_once_it_is_processed(
    files: PartitionFiles,
) -> None:
    row = ok_row(url_row("a", URL))
    write_manifest(files, row)
    assert needs_download(files, row, keep_raw=False)
    files.storage.write(processed_path("zara", str(row.sha256), "0" * 16, "jpg"), b"processed")
    assert not needs_download(files, row, keep_raw=False)
    assert needs_download(files, row, keep_raw=True)
    # If the file exists nevertheless, its size counts.
    files.storage.write(str(row.path), JPEG[:10])
    assert needs_download(files, row, keep_raw=False)


def test_a_processed_image_of_other_bytes_or_of_another_retailer_does_not_count(
    files: PartitionFiles,
) -> None:
    row = ok_row(url_row("a", URL))
    write_manifest(files, row)
    sha256 = str(row.sha256)
    files.storage.write(processed_path("hm", sha256, "0" * 16, "jpg"), b"processed")
    other = sha256[:2] + "0" * 62
    files.storage.write(processed_path("zara", other, "0" * 16, "jpg"), b"processed")
    assert needs_download(files, row, keep_raw=False)


def test_every_row_has_its_own_state(files: PartitionFiles) -> None:
    done, lost, bad, other = url_rows(*(f"http://shop/{n}.jpg" for n in range(4)))
    write_manifest(
        files,
        save_file(files, ok_row(done)),
        ok_row(lost, OTHER),
        failed_row(bad),
        save_file(files, ok_row(other)),
    )
    state = read_state(files, to_table([bad, done, lost], UrlRow), keep_raw=True)
    assert state.stored.tolist() == [False, True, False]
    assert state.failed.to_pylist() == ["timeout", None, None]
    assert state.requested.tolist() == [False] * 3


def test_journal_rows_follow_manifest_rows(files: PartitionFiles) -> None:
    a, b = url_rows("http://shop/a.jpg", "http://shop/b.jpg")
    assert latest(files, [a, b]) == {}
    write_manifest(files, failed_row(a), ok_row(b))
    write_journal(files, ok_row(a))
    assert latest(files, [a, b]) == {a.key: ok_row(a), b.key: ok_row(b)}
    assert latest(files, [b]) == {b.key: ok_row(b)}
    assert latest(files, [replace(a, url="http://shop/other.jpg")]) == {}
    assert from_table(recorded_rows(files), RawRow) == [failed_row(a), ok_row(b), ok_row(a)]


def test_a_broken_manifest_of_the_partition_is_an_error(files: PartitionFiles) -> None:
    files.storage.write(files.manifest("raw_images"), b"PAR1 broken")
    with pytest.raises(BrokenFileError, match=r"zara\.2026-01-02\.parquet is broken"):
        needs_download(files, url_row("a", URL))


def test_rows_get_the_present_catalogue_data_and_keep_their_outcome(files: PartitionFiles) -> None:
    old = url_row("a", URL)
    new = replace(old, product_id="q", position=7, document_id="e")
    downloaded = ok_row(old, http_status=200, etag='"1"', attempts=3)
    write_manifest(files, downloaded)
    manifest = collect(to_table([new], UrlRow), files, RetailerSettings())
    (row,) = from_table(manifest, RawRow)
    assert row == replace(downloaded, product_id="q", position=7, document_id="e")
    assert row.outcome is Outcome.OK


def test_no_row_of_a_large_partition_is_lost(files: PartitionFiles) -> None:
    urls = url_rows(*(f"http://shop/{n}.jpg" for n in range(10_001)))
    rows = [failed_row(row) for row in urls]
    write_manifest(files, *rows)
    found = latest(files, urls)
    assert len(found) == len(rows)
    assert all(found[row.key] == row for row in rows)
