"""Tests of `imgassets forget`: nothing of what is taken down is left, and nothing else is lost."""

from __future__ import annotations

import datetime as dt
import getpass
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from imgassets.cli import cli
from imgassets.defs.event_log import runs_of_partitions
from imgassets.defs.instance import open_instance
from imgassets.defs.partitions import Partition, catalogue_partitions
from imgassets.errors import StorageError, TakedownError
from imgassets.forget import Forgotten, Selection, forget
from imgassets.journal import Journal
from imgassets.manifests import Outcome, RawRow, UrlRow, from_table, to_table
from imgassets.storage import Storage, read_table, write_all, write_table
from imgassets.takedown import read_records, read_takedowns, url_sha256
from imgassets_tests.removal_fixture import (
    SETTINGS_HASH,
    Listed,
    files_with,
    processed_bytes,
    raw_rows,
    redacted,
    sha256_of,
    snapshot,
    url_rows,
    write_files,
    write_journals,
    write_partition,
)

COAT_URL = "https://shop.example/coat.jpg?size=2"
COAT = Listed("p1", COAT_URL, b"bytes of a coat")
SHOE = Listed("p2", "https://shop.example/shoe.jpg", b"bytes of a shoe")
# The same image as COAT, at another URL of another product.
COPY = Listed("p3", "https://cdn.example/copy.jpg", COAT.image)
REDIRECTED = Listed("p4", "https://shop.example/old", error=f"redirects to {COAT_URL}: too many")
FAILED_COAT = Listed("p1", COAT_URL, error=f"HTTP 500 at {COAT_URL}")
EMPTY_COLUMNS = {"path", "bytes", "sha256", "format", "etag", "error", "http_status", "raw_path"}


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty data root on the disk and in S3."""
    if request.param == "local":
        return Storage(f"{tmp_path}/data")
    return Storage(f"s3://{request.getfixturevalue('s3')}/data")


def take_down(storage: Storage, *, dry_run: bool = False, **selection: Any) -> Forgotten:
    reason = "request 12"
    return forget(storage, Selection(**selection), reason=reason, removed_by="ann", dry_run=dry_run)


def write_catalogue(storage: Storage) -> None:
    """Two days of zara, one of mango; a killed run of zara's third day."""
    write_partition(storage.partition("2026-01-02", "zara"), [COAT, SHOE, REDIRECTED])
    write_partition(storage.partition("2026-01-03", "zara"), [SHOE, COAT])
    write_partition(storage.partition("2026-01-02", "mango"), [SHOE])
    write_journals(storage.partition("2026-01-04", "zara"), [COAT, SHOE, REDIRECTED])


def outcomes(storage: Storage, date: str, retailer: str, asset: str) -> dict[str, str]:
    table = storage.partition(date, retailer).read_manifest(asset, ["url", "outcome"])
    return dict(zip(table["url"].to_pylist(), table["outcome"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    "selection",
    [
        {"url": COAT_URL},
        {"url": "HTTPS://Shop.example/coat.jpg?size=2#top"},
        {"product_id": "p1"},
        {"sha256": sha256_of(COAT.image or b"")},
        {"retailer": "zara", "url": COAT_URL},
        {"retailer": "zara", "product_id": "p1"},
        {"retailer": "zara", "sha256": sha256_of(COAT.image or b"")},
    ],
)
def test_nothing_of_a_selected_image_is_left_and_the_rest_is(
    root: Storage, selection: dict[str, Any]
) -> None:
    write_catalogue(root)
    assert files_with(root, COAT_URL, COAT.image or b"")
    take_down(root, **selection)
    assert files_with(root, COAT_URL, COAT.image or b"", processed_bytes(COAT.image or b"")) == []
    for date in ("2026-01-02", "2026-01-03"):
        for asset in ("raw_images", "processed_images"):
            found = outcomes(root, date, "zara", asset)
            assert found[redacted(COAT_URL)] == "removed"
            assert found[SHOE.url] == "ok"
    assert outcomes(root, "2026-01-02", "mango", "raw_images") == {SHOE.url: "ok"}
    assert len(root.find("images")) == 4
    assert len(root.find(root.partition("2026-01-02", "mango").review)) == 3


def test_a_removed_row_keeps_its_place_and_the_columns_of_its_url(root: Storage) -> None:
    partition = root.partition("2026-01-02", "zara")
    write_partition(partition, [SHOE, COAT])
    before = partition.read_manifest("raw_images")
    take_down(root, url=COAT_URL)
    after = partition.read_manifest("raw_images")
    assert after.schema.equals(before.schema, check_metadata=True)
    assert after.schema.metadata[b"imgassets.settings_hash"] == SETTINGS_HASH.encode()
    (url_row,) = url_rows([SHOE, COAT], partition)[1:]
    shoe, coat = from_table(after, RawRow)
    assert shoe == from_table(before, RawRow)[0]
    assert coat == RawRow(
        **{name: getattr(url_row, name) for name in UrlRow.__slots__ if name != "url"},
        url=redacted(COAT_URL),
        outcome=Outcome.REMOVED,
    )
    listed = partition.read_manifest("url_list")
    assert listed["url"].to_pylist() == [SHOE.url, redacted(COAT_URL)]
    processed = partition.read_manifest("processed_images").to_pylist()[1]
    empty = {name for name, value in processed.items() if value is None}
    assert empty == set(processed) - set(UrlRow.__slots__) - {"outcome"}


def test_the_record_says_when_who_what_why_and_how_many_files_without_the_url(
    root: Storage,
) -> None:
    write_catalogue(root)
    done = forget(
        root,
        Selection(retailer="zara", url=COAT_URL),
        reason=f"the photographer of {COAT_URL}, asked",
        removed_by="ann",
    )
    (path,) = root.find("removed")
    assert path == done.path
    (row,) = read_table(root, path).to_pylist()
    sha256 = sha256_of(COAT.image or b"")
    assert time.time() - row.pop("removed_at").timestamp() < 100
    assert row == {
        "removed_by": "ann",
        "reason": f"the photographer of {redacted(COAT_URL)}, asked",
        "retailer": "zara",
        "product_id": None,
        "whole_retailer": False,
        "everywhere": False,
        "url_sha256": [url_sha256(COAT_URL)],
        "image_sha256": [sha256],
        "shared_sha256": [],
        "rows": 2,
        "files": 2,
        "bytes": len(COAT.image or b"") + len(processed_bytes(COAT.image or b"")),
        "paths": [
            f"images/processed/zara/{sha256[:2]}/{sha256}-{SETTINGS_HASH}.jpg",
            f"images/raw/zara/{sha256[:2]}/{sha256}.jpg",
        ],
        "complete": True,
    }
    assert done.rows == {"url_list": 2, "raw_images": 2, "processed_images": 2, "journal": 2}


def test_a_source_that_still_lists_it_does_not_bring_it_back(storage: Storage) -> None:
    write_catalogue(storage)
    take_down(storage, url=COAT_URL)
    takedowns = read_takedowns(storage)
    rows = url_rows([COAT, SHOE], storage.partition("2026-02-01", "mango"))
    urls = takedowns.redact("mango", to_table(rows, UrlRow))["url"]
    assert urls.to_pylist() == [redacted(COAT_URL), SHOE.url]
    assert takedowns.image_sha256 == {sha256_of(COAT.image or b"")}


def test_bytes_that_other_urls_share_are_kept_and_counted(root: Storage) -> None:
    partition = root.partition("2026-01-02", "zara")
    write_partition(partition, [COAT, COPY])
    image = COAT.image or b""
    done = take_down(root, url=COAT_URL)
    assert (done.record.files, done.kept_files) == (0, 2)
    assert done.kept_bytes == len(image) + len(processed_bytes(image))
    assert files_with(root, COAT_URL) == []
    assert len(root.find("images")) == 2
    assert outcomes(root, "2026-01-02", "zara", "processed_images") == {
        redacted(COAT_URL): "removed",
        COPY.url: "ok",
    }
    assert read_takedowns(root).image_sha256 == frozenset()


def test_bytes_of_another_retailer_are_kept_and_counted(storage: Storage) -> None:
    write_partition(storage.partition("2026-01-02", "zara"), [COAT])
    write_partition(storage.partition("2026-01-02", "mango"), [COAT])
    done = take_down(storage, retailer="zara", url=COAT_URL)
    assert (done.record.files, done.kept_files) == (2, 2)
    assert len(storage.find("images/raw/mango")) == 1
    assert storage.find("images/raw/zara") == {}
    assert outcomes(storage, "2026-01-02", "mango", "raw_images") == {COAT_URL: "ok"}
    takedowns = read_takedowns(storage)
    assert takedowns.image_sha256 == frozenset()
    assert takedowns.covers("zara", "any", COAT_URL)
    assert not takedowns.covers("mango", "any", COAT_URL)


@pytest.mark.parametrize("selection", [{"url": COAT_URL}, {"product_id": "p1"}])
@pytest.mark.parametrize("first_without", [False, True])
def test_everywhere_removes_the_bytes_and_the_other_urls_that_share_them(
    root: Storage, selection: dict[str, Any], first_without: bool
) -> None:
    write_partition(root.partition("2026-01-02", "zara"), [COAT, SHOE])
    write_partition(root.partition("2026-01-02", "mango"), [SHOE, COPY])
    if first_without:
        take_down(root, retailer="zara", **selection)
        assert files_with(root, COAT.image or b"")
    done = take_down(root, retailer="zara", everywhere=True, **selection)
    assert (done.is_new, done.kept_files) == (True, 0)
    assert files_with(root, COAT_URL, COPY.url, COAT.image or b"") == []
    assert len(root.find("images")) == 4
    takedowns = read_takedowns(root)
    assert takedowns.image_sha256 == {sha256_of(COAT.image or b"")}
    assert takedowns.covers("bershka", "any", COPY.url)
    before = snapshot(root)
    assert not take_down(root, retailer="zara", everywhere=True, **selection).is_new
    assert snapshot(root) == before


def test_a_whole_retailer_is_removed_and_stays_removed(root: Storage) -> None:
    write_catalogue(root)
    orphan = Listed("p9", "https://shop.example/orphan.jpg", b"never in a manifest")
    write_files([orphan], root.partition("2026-01-02", "zara"))
    done = take_down(root, retailer="zara")
    assert root.find("images/raw/zara") == root.find("images/processed/zara") == {}
    assert root.find("review/retailer=zara") == {}
    assert files_with(root, COAT_URL, COAT.image or b"", REDIRECTED.url) == []
    for asset in ("raw_images", "processed_images"):
        assert set(outcomes(root, "2026-01-02", "zara", asset).values()) == {"removed"}
    assert (done.record.url_sha256, done.record.image_sha256) == ([], [])
    assert (done.record.files, done.record.rows) == (6, 5)
    # mango has the shoe, too
    assert done.kept_files == 2
    assert outcomes(root, "2026-01-02", "mango", "raw_images") == {SHOE.url: "ok"}
    takedowns = read_takedowns(root)
    assert takedowns.covers("zara", "new", "https://shop.example/new.jpg")
    assert not takedowns.covers("mango", "new", "https://shop.example/new.jpg")


def test_a_whole_retailer_everywhere_removes_its_images_from_other_retailers(
    storage: Storage,
) -> None:
    write_catalogue(storage)
    other = Listed("p8", "https://mango.example/other.jpg", b"of mango only")
    write_partition(storage.partition("2026-01-03", "mango"), [other, COPY])
    take_down(storage, retailer="zara", everywhere=True)
    images = [each.image or b"" for each in (COAT, SHOE)]
    assert files_with(storage, COAT_URL, COPY.url, SHOE.url, *images) == []
    assert len(storage.find("images")) == 2
    takedowns = read_takedowns(storage)
    assert takedowns.covers("zara", "new", "https://shop.example/new.jpg")
    assert not takedowns.covers("mango", "new", "https://shop.example/new.jpg")
    assert takedowns.image_sha256 == {sha256_of(image) for image in images}


def test_a_reason_of_a_whole_retailer_does_not_keep_a_url(storage: Storage) -> None:
    write_catalogue(storage)
    reason = f"{COAT_URL} and others, see https://tracker.example/12"
    forget(storage, Selection(retailer="zara"), reason=reason, removed_by="ann")
    assert files_with(storage, COAT_URL) == []
    (record,) = read_records(storage).values()
    assert record.reason == f"{redacted(COAT_URL)} and others, see https://tracker.example/12"
    assert record.url_sha256 == []


def test_a_url_that_another_product_lists_stays_available_to_it(storage: Storage) -> None:
    partition = storage.partition("2026-01-02", "zara")
    same_url = Listed("p5", COAT_URL, COAT.image)
    own = Listed("p1", "https://shop.example/back.jpg", b"the back of the coat")
    write_partition(partition, [COAT, own, same_url])
    done = take_down(storage, product_id="p1")
    found = from_table(partition.read_manifest("raw_images"), RawRow)
    assert [row.outcome for row in found] == [Outcome.REMOVED, Outcome.REMOVED, Outcome.OK]
    assert found[2].url == COAT_URL
    assert (done.record.files, done.kept_files) == (2, 2)
    assert done.record.url_sha256 == [url_sha256(own.url)]
    takedowns = read_takedowns(storage)
    assert takedowns.covers("zara", "p1", "https://shop.example/new.jpg")
    assert not takedowns.covers("zara", "p5", COAT_URL)


def test_another_image_that_the_url_had_on_another_day_is_removed_too(storage: Storage) -> None:
    earlier = Listed("p1", COAT_URL, b"an earlier version of the coat")
    write_partition(storage.partition("2026-01-02", "zara"), [earlier])
    write_partition(storage.partition("2026-01-03", "zara"), [COAT])
    take_down(storage, sha256=sha256_of(COAT.image or b""))
    assert files_with(storage, COAT_URL, COAT.image or b"", earlier.image or b"") == []


def test_files_of_other_settings_and_without_a_manifest_are_removed(root: Storage) -> None:
    write_catalogue(root)
    sha256 = sha256_of(COAT.image or b"")
    old = f"images/processed/zara/{sha256[:2]}/{sha256}-{'f' * 16}.png"
    root.write(old, b"of other settings")
    neighbour = f"images/processed/zara/{sha256[:2]}/{sha256[:2]}{'0' * 62}-{'f' * 16}.png"
    root.write(neighbour, b"of another image")
    done = take_down(root, url=COAT_URL)
    assert old in done.record.paths
    assert old not in root.find("images")
    assert neighbour in root.find("images")


def test_a_raw_file_that_was_removed_before_is_no_error(storage: Storage) -> None:
    partition = storage.partition("2026-01-02", "zara")
    write_partition(partition, [COAT])
    (row,) = raw_rows([COAT], partition)
    storage.remove(str(row.path))  # process.keep_raw: false
    done = take_down(storage, url=COAT_URL)
    assert done.record.files == 1
    assert storage.find("images") == {}


def test_a_url_in_the_error_of_another_row_is_replaced(root: Storage) -> None:
    partition = root.partition("2026-01-02", "zara")
    write_partition(partition, [SHOE, REDIRECTED])
    before = partition.read_manifest("raw_images")
    done = take_down(root, url=COAT_URL)
    assert files_with(root, COAT_URL) == []
    raw = partition.read_manifest("raw_images")
    assert raw["error"].to_pylist() == [None, f"redirects to {redacted(COAT_URL)}: too many"]
    assert raw.drop_columns("error").equals(before.drop_columns("error"))
    assert done.rows["raw_images"] == 0
    # Nothing that they show was taken down.
    assert len(root.find(partition.review)) == 3


def test_tables_beside_a_journal_lose_the_rows(root: Storage) -> None:
    partition = root.partition("2026-01-02", "zara")
    listed = [COAT, SHOE, REDIRECTED]
    write_journals(partition, [SHOE])
    folder = partition.journal("raw_images")
    write_table(
        root, f"{folder}/shard_0000.urls.parquet", to_table(url_rows(listed, partition), UrlRow)
    )
    write_table(root, f"{folder}/previous.parquet", to_table(raw_rows(listed, partition), RawRow))
    take_down(root, url=COAT_URL)
    assert files_with(root, COAT_URL) == []
    urls = read_table(root, f"{folder}/shard_0000.urls.parquet")["url"].to_pylist()
    assert urls == [SHOE.url, REDIRECTED.url]
    previous = from_table(read_table(root, f"{folder}/previous.parquet"), RawRow)
    assert [row.url for row in previous] == [SHOE.url, REDIRECTED.url]


def test_a_run_that_is_working_keeps_its_other_rows(storage: Storage) -> None:
    partition = storage.partition("2026-01-02", "zara")
    coat, shoe = raw_rows([COAT, SHOE], partition)
    with Journal(partition, "raw_images").writer("a") as writer:
        writer.add([coat])
        done = take_down(storage, url=COAT_URL)
        writer.add([shoe])
    assert [row["url"] for row in Journal(partition, "raw_images").rows()] == [SHOE.url]
    assert files_with(storage, COAT_URL) == []
    assert done.active == [partition]


def test_a_run_that_finishes_meanwhile_keeps_the_bytes_that_it_shares(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_partition(storage.partition("2026-01-02", "zara"), [COAT])
    running = storage.partition("2026-01-03", "zara")
    write_journals(running, [COPY])
    original = Journal.snapshot

    def finish_first(self: Journal, *columns: str) -> list[tuple[Any, ...]]:
        write_partition(running, [COPY])
        self.remove()
        return original(self, *columns)

    monkeypatch.setattr(Journal, "snapshot", finish_first)
    done = take_down(storage, url=COAT_URL)
    assert (done.record.files, done.kept_files) == (0, 2)
    assert len(storage.find("images")) == 2
    assert outcomes(storage, "2026-01-03", "zara", "raw_images") == {COPY.url: "ok"}


def test_the_unfinished_line_of_a_killed_run_is_erased(storage: Storage) -> None:
    partition = storage.partition("2026-01-02", "zara")
    write_journals(partition, [SHOE])
    path = f"{partition.journal('raw_images')}/00000002-a.jsonl"
    storage.write(path, b'{"key": "p1-0", "url": "' + COAT_URL.encode())
    take_down(storage, url=COAT_URL)
    assert files_with(storage, COAT_URL) == []
    assert [row["url"] for row in Journal(partition, "raw_images").rows()] == [SHOE.url]


def test_a_temporary_file_of_a_killed_writer_is_removed(storage: Storage) -> None:
    write_catalogue(storage)
    storage.write("journal/temporary/1-1", COAT.image or b"")
    os.utime(storage.address("journal/temporary/1-1"), (0, 0))
    take_down(storage, url=COAT_URL)
    assert files_with(storage, COAT.image or b"") == []


def test_the_review_files_of_affected_partitions_only_are_removed(storage: Storage) -> None:
    write_catalogue(storage)
    write_partition(storage.partition("2026-01-05", "zara"), [SHOE])
    done = take_down(storage, url=COAT_URL)
    left = {path.rpartition("/")[0] for path in storage.find("review")}
    assert left == {
        storage.partition("2026-01-05", "zara").review,
        storage.partition("2026-01-02", "mango").review,
    }
    assert [each.date for each in done.partitions] == ["2026-01-02", "2026-01-03", "2026-01-04"]


def test_only_affected_manifests_are_written(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_catalogue(storage)
    write_partition(storage.partition("2026-01-05", "zara"), [SHOE])
    written = []
    original = Storage.write

    def write(self: Storage, path: str, data: bytes) -> None:
        written.append(path)
        original(self, path, data)

    monkeypatch.setattr(Storage, "write", write)
    take_down(storage, url=COAT_URL)
    assert len(written) == 2 + 6
    assert not [path for path in written if "2026-01-05" in path or "mango" in path]


@pytest.mark.parametrize(
    "selection", [{"url": COAT_URL}, {"product_id": "p1"}, {"retailer": "zara"}]
)
def test_a_dry_run_counts_the_same_and_writes_nothing(
    storage: Storage, selection: dict[str, Any]
) -> None:
    write_catalogue(storage)
    before = snapshot(storage)
    planned = take_down(storage, dry_run=True, **selection)
    assert snapshot(storage) == before
    done = take_down(storage, **selection)
    assert (planned.path, planned.is_new) == (None, True)
    assert (planned.rows, planned.partitions) == (done.rows, done.partitions)
    assert (planned.kept_files, planned.kept_bytes) == (done.kept_files, done.kept_bytes)
    assert planned.record.paths == done.record.paths
    assert planned.record.bytes == done.record.bytes


class KilledError(BaseException):
    """Ends the process at this point, as `kill -9` does."""


def killed_at(number: int) -> Callable[[], None]:
    """Let the change of storage with this number not happen, and end the process.

    Returns:
        A function that restores the storage.
    """
    patch = pytest.MonkeyPatch()
    changes = 0

    def killing(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any) -> Any:
            nonlocal changes
            changes += 1
            if changes == number:
                raise KilledError
            return original(*args)

        return wrapped

    for name in ("write", "remove"):
        patch.setattr(Storage, name, killing(getattr(Storage, name)))
    patch.setattr("imgassets.journal.write_all", killing(write_all))
    return patch.undo


@pytest.mark.parametrize(
    "selection",
    [
        {"url": COAT_URL},
        {"product_id": "p1"},
        {"sha256": sha256_of(COAT.image or b"")},
        {"retailer": "zara"},
        {"retailer": "zara", "product_id": "p1", "everywhere": True},
    ],
    ids=["url", "product", "sha256", "retailer", "everywhere"],
)
def test_a_killed_take_down_is_completed_by_the_same_command(
    tmp_path: Path, selection: dict[str, Any]
) -> None:
    def catalogue(name: str) -> Storage:
        storage = Storage(f"{tmp_path}/{name}")
        write_catalogue(storage)
        write_partition(storage.partition("2026-01-03", "mango"), [COPY, SHOE])
        return storage

    reference = catalogue("reference")
    expected = take_down(reference, **selection)
    number = 1
    while True:
        storage = catalogue(str(number))
        restore = killed_at(number)
        try:
            take_down(storage, **selection)
        except KilledError:
            pass
        else:
            break
        finally:
            restore()
        if number > 1:
            # A run that starts now knows that the coat is taken down already.
            assert read_takedowns(storage).covers("zara", "p1", COAT_URL)
        done = take_down(storage, **selection)
        assert files_with(storage, COAT_URL) == []
        assert set(storage.find("images")) == set(reference.find("images"))
        assert set(storage.find("review")) == set(reference.find("review"))
        for path in reference.find("manifests"):
            assert read_table(storage, path).equals(read_table(reference, path))
        for path in reference.find("journal"):
            assert storage.read(path) == reference.read(path)
        (record,) = read_records(storage).values()
        assert record.complete
        assert (record.rows, record.files) == (expected.record.rows, expected.record.files)
        assert record.paths == expected.record.paths
        if done.resumed:
            assert (done.is_new, done.path) == (False, None)
            # Without the partition that has only a journal.
            named = {(each.date, each.retailer) for each in expected.partitions}
            assert named - {("2026-01-04", "zara")} <= {
                (each.date, each.retailer) for each in done.partitions
            }
        number += 1
    assert number > 15


def test_a_take_down_that_fails_in_s3_is_completed_by_the_same_command(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(f"s3://{s3}/data")
    write_catalogue(storage)
    original = Storage.remove

    def fail(self: Storage, path: str) -> None:
        if path.startswith("review/"):
            raise StorageError("not reachable")
        original(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "remove", fail)
        with pytest.raises(StorageError, match="not reachable"):
            take_down(storage, url=COAT_URL)
    assert [record.complete for record in read_records(storage).values()] == [False]
    take_down(storage, url=COAT_URL)
    assert files_with(storage, COAT_URL, COAT.image or b"") == []
    assert [record.complete for record in read_records(storage).values()] == [True]


def test_another_command_completes_an_interrupted_take_down_first(storage: Storage) -> None:
    write_catalogue(storage)
    restore = killed_at(3)
    with pytest.raises(KilledError):
        take_down(storage, url=COAT_URL)
    restore()
    planned = take_down(storage, url=SHOE.url, dry_run=True)
    assert len(planned.resumed) == 1
    done = take_down(storage, url=SHOE.url)
    assert done.resumed == planned.resumed
    assert done.path not in (None, *done.resumed)
    assert files_with(storage, COAT_URL, SHOE.url) == []
    assert [record.complete for record in read_records(storage).values()] == [True, True]


def test_a_second_take_down_of_the_same_writes_nothing(storage: Storage) -> None:
    write_catalogue(storage)
    selections: list[dict[str, Any]] = [
        {"url": COAT_URL},
        {"retailer": "zara", "url": COAT_URL},
        {"sha256": sha256_of(COAT.image or b"")},
        {"product_id": "p2"},
        {"retailer": "zara"},
        {"retailer": "zara", "product_id": "p4"},
    ]
    for selection in selections:
        take_down(storage, **selection)
        before = snapshot(storage)
        done = take_down(storage, **selection)
        assert (done.is_new, done.path) == (False, None)
        assert snapshot(storage) == before


def test_a_take_down_of_all_retailers_follows_one_of_a_single_retailer(storage: Storage) -> None:
    write_catalogue(storage)
    take_down(storage, retailer="zara", url=SHOE.url)
    assert outcomes(storage, "2026-01-02", "mango", "raw_images") == {SHOE.url: "ok"}
    assert take_down(storage, url=SHOE.url).is_new
    assert files_with(storage, SHOE.url, SHOE.image or b"") == []


@pytest.mark.parametrize(
    "selection",
    [
        {"url": "https://shop.example/unknown.jpg"},
        {"product_id": "unknown"},
        {"sha256": "a" * 64},
    ],
)
def test_what_is_not_stored_is_recorded_so_that_it_never_will_be(
    storage: Storage, selection: dict[str, Any]
) -> None:
    write_catalogue(storage)
    before = snapshot(storage)
    done = take_down(storage, **selection)
    assert (done.is_new, done.record.files, any(done.rows.values())) == (True, 0, False)
    after = snapshot(storage)
    assert [path for path in after if path not in before] == [done.path]
    assert {path: after[path] for path in before} == before
    takedowns = read_takedowns(storage)
    assert takedowns.covers("new", "unknown", "https://shop.example/unknown.jpg") or (
        takedowns.image_sha256 == {"a" * 64}
    )
    assert not takedowns.covers("zara", "p1", COAT_URL)


def test_an_image_that_only_another_retailer_has_does_not_take_the_named_one_down(
    storage: Storage,
) -> None:
    write_partition(storage.partition("2026-01-02", "zara"), [COAT])
    write_partition(storage.partition("2026-01-02", "mango"), [SHOE])
    before = snapshot(storage)
    done = take_down(storage, retailer="mango", sha256=sha256_of(COAT.image or b""))
    assert not done.is_new
    assert snapshot(storage) == before


@pytest.mark.parametrize(
    "selection", [{"retailer": "zarra"}, {"retailer": "zarra", "url": COAT_URL}]
)
def test_an_unknown_retailer_is_an_error_that_names_the_known_ones(
    storage: Storage, selection: dict[str, Any]
) -> None:
    write_catalogue(storage)
    with pytest.raises(TakedownError, match=r"'zarra'; known retailers: mango, zara"):
        take_down(storage, **selection)
    assert storage.find("removed") == {}


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({}, "nothing is selected"),
        ({"everywhere": True}, "nothing is selected"),
        ({"url": "u", "product_id": "p"}, "only one of"),
        ({"sha256": "a" * 64, "product_id": "p"}, "only one of"),
        ({"sha256": "a" * 63}, "64 hex digits"),
        ({"sha256": "A" * 64}, "64 hex digits"),
        ({"sha256": "g" * 64}, "64 hex digits"),
        ({"product_id": ""}, "is empty"),
        ({"retailer": ""}, "is empty"),
    ],
)
def test_a_selection_that_is_not_valid_is_rejected(selection: dict[str, Any], message: str) -> None:
    with pytest.raises(TakedownError, match=message):
        Selection(**selection)


def test_a_broken_manifest_stops_before_anything_is_removed(storage: Storage) -> None:
    write_catalogue(storage)
    storage.write("manifests/raw_images/zara.2026-01-03.parquet", b"not Parquet")
    before = snapshot_without_broken(storage)
    with pytest.raises(StorageError, match=r"zara.2026-01-03.parquet is broken"):
        take_down(storage, url=COAT_URL)
    assert snapshot_without_broken(storage) == before


def snapshot_without_broken(storage: Storage) -> dict[str, bytes]:
    folders = ("manifests", "images", "review", "journal", "removed")
    return {path: storage.read(path) for folder in folders for path in storage.find(folder)}


def test_manifests_stay_readable_in_one_scan(storage: Storage) -> None:
    write_catalogue(storage)
    take_down(storage, url=COAT_URL)
    table = pq.read_table(storage.address("manifests/processed_images"))
    assert table.num_rows == 6
    assert table.schema.field("face_boxes").type == pa.list_(pa.list_(pa.int32()))


@pytest.mark.slow
def test_a_process_that_is_killed_is_completed_by_the_same_command(tmp_path: Path) -> None:
    storage = Storage(f"{tmp_path}/data")
    many = [
        Listed("p1", f"https://shop.example/{number}.jpg", b"image %d" % number)
        for number in range(300)
    ]
    for day in range(1, 10):
        write_partition(storage.partition(f"2026-01-0{day}", "zara"), [*many, SHOE])
    command = [sys.executable, "-m", "imgassets.cli", "forget", "--product", "p1", "--reason", "x"]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"},
        "IMGASSETS__DATA_ROOT": storage.root,
    }
    process = subprocess.Popen(command, env=environment, cwd=tmp_path)
    folder = Path(storage.root)
    while not list(folder.glob("removed/*.parquet")):
        assert process.poll() is None
        time.sleep(0.001)
    time.sleep(0.02)
    process.kill()
    assert process.wait() == -9
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    urls = [each.url for each in many]
    assert files_with(storage, *urls) == []
    assert len(storage.find("images")) == 2
    (record,) = read_records(storage).values()
    assert (record.complete, record.files, record.rows) == (True, 600, 2700)


@pytest.fixture
def command(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A function that runs `imgassets forget` on the catalogue."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    write_catalogue(storage)
    return lambda *arguments: CliRunner().invoke(cli, ["forget", *arguments])


def test_the_command_prints_what_it_removed(
    storage: Storage, command: Callable[..., Result]
) -> None:
    arguments = ("--url", COAT_URL, "--reason", "request 12")
    dry = command(*arguments, "--dry-run")
    assert storage.find("removed") == {}
    done = command(*arguments)
    assert done.exit_code == 0
    ((path, record),) = read_records(storage).items()
    assert record.removed_by == getpass.getuser()
    assert done.output.splitlines() == [
        "removed 2 files (40 bytes)",
        "removed the URLs of rows: 2 in url_list, 2 in raw_images, 2 in processed_images, "
        "2 in journal",
        "removed the contact sheets and plots of 3 partitions; materialize processed_images to "
        "draw them again",
        "runs are working or were killed in: 2026-01-04|zara; a run that is working may store an "
        "image again that it had requested before: run imgassets gc --grace-hours 0 when nothing "
        "runs",
        f"record: {storage.address(path)}",
        "DAGSTER_HOME is not set, so Dagster's runs were not looked up: those of the 3 partitions "
        "may still have thumbnails and URLs in the event log",
    ]
    assert dry.output.splitlines() == [
        line.replace("removed ", "would remove ", 1)
        for line in done.output.splitlines()
        if not line.startswith("record")
    ]
    again = command(*arguments)
    assert again.output.startswith("nothing to remove: it is not stored, or was taken down before")
    assert len(storage.find("removed")) == 1


def test_the_command_says_that_nothing_was_stored(command: Callable[..., Result]) -> None:
    done = command("--product", "unknown", "--reason", "request 12")
    assert done.exit_code == 0
    assert "nothing of it is stored; future runs will not request it" in done.output


def test_the_command_counts_what_other_urls_share(
    storage: Storage, command: Callable[..., Result]
) -> None:
    write_partition(storage.partition("2026-01-03", "mango"), [COPY])
    done = command("--retailer", "zara", "--product", "p1", "--reason", "request 12")
    assert "kept 2 files (40 bytes) that other rows share; --everywhere takes" in done.output
    done = command("--retailer", "zara", "--product", "p1", "--reason", "r", "--everywhere")
    assert "removed 2 files (40 bytes)" in done.output
    assert files_with(storage, COAT.image or b"") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", COAT_URL], "Missing option '--reason'"),
        (["--url", COAT_URL, "--reason", " "], "--reason must not be empty"),
        (["--reason", "r"], "nothing is selected"),
        (["--reason", "r", "--url", "u", "--product", "p"], "only one of"),
        (["--reason", "r", "--sha256", "abc"], "64 hex digits"),
        (["--reason", "r", "--retailer", "zarra"], "known retailers: mango, zara"),
    ],
)
def test_the_command_explains_a_user_error_without_a_traceback(
    storage: Storage, command: Callable[..., Result], arguments: list[str], message: str
) -> None:
    done = command(*arguments)
    assert done.exit_code in (1, 2)
    assert message in done.output
    assert storage.find("removed") == {}


def test_the_command_accepts_a_sha256_in_upper_case(
    storage: Storage, command: Callable[..., Result]
) -> None:
    command("--sha256", sha256_of(COAT.image or b"").upper(), "--reason", "request 12")
    assert files_with(storage, COAT_URL, COAT.image or b"") == []


def test_the_command_lists_the_runs_whose_events_show_the_partitions(
    command: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "dagster_home").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster_home"))
    runs = materialize_partitions([Partition("2026-01-03", "zara"), Partition("2026-01-03", "x")])
    done = command("--url", COAT_URL, "--reason", "request 12")
    assert done.exit_code == 0
    deletions = [line.strip() for line in done.output.splitlines() if "dagster run" in line]
    assert deletions == [f"dagster run delete {runs[0]}"]
    assert "Detected faces are pixelated in them, undetected ones are not" in done.output
    unknown = command("--url", "https://shop.example/x", "--reason", "r")
    assert "Dagster" not in unknown.output


def test_the_command_says_that_no_run_shows_the_partitions(
    command: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "dagster_home").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster_home"))
    done = command("--url", COAT_URL, "--reason", "request 12")
    assert "no run in Dagster's event log has thumbnails or URLs" in done.output


def materialize_partitions(partitions: list[Partition]) -> list[str]:
    """Materialize partitions of an asset with a check; returns the ids of the runs."""
    definition = catalogue_partitions(dt.date(2026, 1, 1), "day")

    @dg.asset(key=["eu", "processed_images"], partitions_def=definition)
    def processed_images() -> None:
        pass

    with open_instance() as instance:
        instance.add_dynamic_partitions("retailer", [each.retailer for each in partitions])
        return [
            dg.materialize([processed_images], partition_key=each.key, instance=instance).run_id
            for each in partitions
        ]


def test_runs_of_checks_and_of_ranges_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    keys = [f"2026-01-{day:02}|zara" for day in range(1, 29)]
    with open_instance() as instance:
        definition = dg.StaticPartitionsDefinition(keys)

        @dg.asset(partitions_def=definition)
        def raw_images() -> None:
            pass

        @dg.asset_check(asset=raw_images, partitions_def=definition)
        def looks_good() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=True)

        made = dg.materialize([raw_images], partition_key=keys[0], instance=instance)
        job = dg.define_asset_job("checks", selection=dg.AssetSelection.checks(looks_good))
        defs = dg.Definitions([raw_images], asset_checks=[looks_good], jobs=[job])
        checked = defs.resolve_job_def("checks").execute_in_process(
            tags={"dagster/partition": keys[1]}, instance=instance
        )
        start_and_end = {
            f"dagster/asset_partition_range_{end}": keys[2] for end in ("start", "end")
        }
        ranged = dg.materialize([raw_images], tags=start_and_end, instance=instance)
        other = dg.materialize([raw_images], partition_key=keys[3], instance=instance)
        expected = [ranged.run_id, checked.run_id, made.run_id]
        assert runs_of_partitions(instance, keys[:3]) == expected
        assert runs_of_partitions(instance, keys[5:]) == []
        instance.delete_run(other.run_id)
        assert runs_of_partitions(instance, keys) == expected
