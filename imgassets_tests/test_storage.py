"""Tests of storage: the layout, and atomic reads and writes on a disk and in an object store."""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import math
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random
from uuid import uuid4

import boto3
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import imgassets.storage
from imgassets.errors import BrokenFileError, StorageError
from imgassets.folders import project_root
from imgassets.settings import Settings
from imgassets.storage import (
    OP_VALUES,
    Storage,
    list_manifests,
    open_storage,
    processed_path,
    processed_raw_sha256,
    raw_path,
    read_table,
    retailers_with_images,
    storage_at,
    write_table,
)
from imgassets_tests.object_store import ObjectStore

TABLE = pa.table({"key": ["a", "b"], "width": pa.array([1, None], pa.int32())})
TEMPORARY = "journal/temporary"
RAW = "images/raw/zara/3f"


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A data root that does not exist yet: on the local disk and in S3."""
    if request.param == "local":
        return Storage(f"{tmp_path}/data")
    return Storage(f"s3://{request.getfixturevalue('s3')}/data")


def _write_externally(storage: Storage, path: str, data: bytes) -> None:
    """Write a file as another machine does, bypassing the caches of this process."""
    if storage.is_local:
        file = Path(storage.address(path))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    else:
        bucket, key = storage.address(path).removeprefix("s3://").split("/", 1)
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=data)


def _sizes(storage: Storage, folder: str) -> dict[str, int]:
    """Sizes of all files in a folder, by path."""
    return {path: info.size for path, info in storage.find(folder).items()}


def _files(storage: Storage) -> set[str]:
    """Paths of all files below the data root of a disk."""
    root = Path(storage.root)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("data", [b"", b"four", bytes(range(256)) * 80_000])
def test_a_written_file_is_read_back(storage: Storage, data: bytes) -> None:
    storage.write(f"{RAW}/a.jpg", data)
    assert storage.read(f"{RAW}/a.jpg") == data
    assert storage.sha256(f"{RAW}/a.jpg") == hashlib.sha256(data).hexdigest()
    assert storage.sizes([f"{RAW}/a.jpg"]) == {f"{RAW}/a.jpg": len(data)}


def test_a_file_can_be_replaced_by_a_shorter_one(storage: Storage) -> None:
    storage.write("review/a.jpg", b"long ago")
    storage.write("review/a.jpg", b"now")
    assert storage.read("review/a.jpg") == b"now"
    assert _sizes(storage, "review") == {"review/a.jpg": 3}


def test_each_kind_of_file_has_its_place_below_the_data_root(storage: Storage) -> None:
    partition = storage.partition("2026-01-31", "zara")
    sha256 = "3f" + 62 * "0"
    assert partition.manifest("raw_images") == "manifests/raw_images/zara.2026-01-31.parquet"
    assert partition.journal("raw_images") == "journal/raw_images/retailer=zara/date=2026-01-31"
    assert partition.review == "review/retailer=zara/date=2026-01-31"
    assert raw_path("zara", sha256, "png") == f"images/raw/zara/3f/{sha256}.png"
    processed = processed_path("zara", sha256, "0123456789abcdef", "jpg")
    assert processed == f"images/processed/zara/3f/{sha256}-0123456789abcdef.jpg"
    assert storage.address(processed) == f"{storage.root}/{processed}"


def test_a_folder_that_does_not_exist_is_empty(storage: Storage) -> None:
    assert storage.find("never/written") == {}
    assert storage.names("never/written") == []
    assert storage.sizes(["never/written/a.jpg", "never"]) == {}
    assert storage.remove_old_temporaries() == []
    storage.remove_folder("never/written")
    assert list_manifests(storage, "raw_images") == []
    assert retailers_with_images(storage) == []
    assert len(processed_raw_sha256(storage, "zara", pa.array(["3f" + 62 * "0"]))) == 0


def test_reading_a_missing_file_raises_file_not_found_error(storage: Storage) -> None:
    partition = storage.partition("2026-01-31", "zara")
    for _ in range(2):  # without and with the folder
        with pytest.raises(FileNotFoundError):
            storage.read("review/a.jpg")
        with pytest.raises(FileNotFoundError):
            storage.sha256("review/a.jpg")
        with pytest.raises(FileNotFoundError):
            read_table(storage, "review/a.jpg")
        with pytest.raises(FileNotFoundError):
            partition.read_manifest("raw_images")
        storage.write("review/b.jpg", b"")
        storage.partition("2026-01-30", "zara").write_manifest("raw_images", TABLE)


def test_removing_a_file_twice_succeeds_and_keeps_other_files(storage: Storage) -> None:
    storage.write("review/a.jpg", b"a")
    storage.write("review/b.jpg", b"b")
    storage.remove("review/a.jpg")
    storage.remove("review/a.jpg")
    storage.remove("review/never-there.jpg")
    storage.remove("never/there.jpg")
    assert _sizes(storage, "review") == {"review/b.jpg": 1}
    with pytest.raises(FileNotFoundError):
        storage.read("review/a.jpg")


def test_changes_by_other_processes_are_visible_at_once(storage: Storage) -> None:
    first, second = f"{RAW}/a.jpg", f"{RAW}/b.jpg"

    def listings() -> list[int]:
        names = [path.removeprefix(f"{RAW}/") for path in storage.sizes([first, second])]
        assert sorted(names) == storage.names(RAW)
        assert storage.sizes([first, second]) == _sizes(storage, "images")
        return sorted(storage.sizes([first, second]).values())

    storage.write(first, b"ours")
    assert listings() == [4]
    _write_externally(storage, first, b"theirs")
    assert storage.read(first) == b"theirs"
    _write_externally(storage, second, b"new")
    assert storage.read(second) == b"new"
    assert listings() == [3, 6]
    storage.remove(second)
    _write_externally(storage, second, b"again")
    storage.remove(second)
    assert listings() == [6]


def test_find_lists_subfolders_with_sizes_and_times_and_nothing_beside(storage: Storage) -> None:
    before = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(seconds=1)
    wanted = {f"{RAW}/a.jpg": 1, "images/raw/zara/40/b.jpg": 2, "images/raw/zara/c.jpg": 3}
    others = {"images/raw/zara-home/3f/d.jpg": 4, "images/processed/zara/3f/e.jpg": 5}
    for path, size in {**wanted, **others}.items():
        storage.write(path, bytes(size))
    found = storage.find("images/raw/zara")
    assert {path: info.size for path, info in found.items()} == wanted
    after = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
    assert all(before <= info.modified <= after for info in found.values())
    assert _sizes(storage, "images") == {**wanted, **others}
    assert _sizes(storage, RAW) == {f"{RAW}/a.jpg": 1}


def test_names_lists_files_and_folders_sorted_and_not_those_below(storage: Storage) -> None:
    for path in ("images/raw/zara/3f/b.jpg", "images/raw/7/3f/a.jpg", "images/raw/a.txt"):
        storage.write(path, b"x")
    storage.write("images/raw-not/c.jpg", b"x")
    assert storage.names("images/raw") == ["7", "a.txt", "zara"]
    assert storage.names("images/raw/zara") == ["3f"]
    assert storage.names("images/raw/zara/3f") == ["b.jpg"]


def test_sizes_leaves_out_missing_files_and_accepts_any_iterable(storage: Storage) -> None:
    storage.write(f"{RAW}/a.jpg", b"four")
    storage.write("images/processed/zara/40/b.png", b"")
    storage.write("images/raw/zara/40/not-asked-for.jpg", b"x")
    paths = [f"{RAW}/a.jpg", "images/processed/zara/40/b.png", f"{RAW}/gone.jpg", "gone/gone.jpg"]
    found = {f"{RAW}/a.jpg": 4, "images/processed/zara/40/b.png": 0}
    assert storage.sizes(paths) == found
    assert storage.sizes(iter([*paths, *paths])) == found
    assert storage.sizes([]) == {}
    # A file in the place of a folder: nothing can be below it.
    assert storage.sizes([f"{RAW}/a.jpg/below.jpg"]) == {}


def test_sizes_in_s3_come_from_the_fewest_requests_and_are_the_same(
    s3: str, s3_server: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(f"s3://{s3}/data")
    paths = {
        f"images/{kind}/zara/{folder:02x}/{name}.jpg": size
        for kind in ("raw", "processed")
        for folder in range(24)
        for size, name in enumerate("abc")
    }
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda path: storage.write(path, bytes(paths[path])), paths))
    missing = ["images/raw/zara/05/gone.jpg", "images/processed/zara/00/gone.jpg"]
    wanted = {path: size for path, size in paths.items() if not path.endswith("b.jpg")}

    def requests(files: Mapping[str, int]) -> dict[str, int]:
        s3_server.requests.clear()
        assert storage.sizes([*files, *missing]) == files
        return dict(Counter(request.method for request in s3_server.requests))

    def some(count: int) -> dict[str, int]:
        return dict(list(wanted.items())[:count])

    # A subfolder of each kind, which shows that the folders hold few files, then the whole.
    assert requests(wanted) == {"LIST": 4}
    # Folders with more files: each by itself.
    monkeypatch.setattr(imgassets.storage, "_DIGIT_FOLDERS", 10_000)
    assert requests(wanted) == {"LIST": 48}
    # With far more files than are looked for: a request for each. s3fs lists for a missing one.
    monkeypatch.setattr(imgassets.storage, "_LISTED_PER_FILE", 1)
    assert requests(some(20)) == {"LIST": 3, "HEAD": 19}
    assert requests(some(2)) == {"LIST": 2, "HEAD": 4}


def test_a_listing_that_s3_splits_into_pages_is_complete(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    storage = Storage(f"s3://{s3}/data")
    for number in range(23):
        storage.write(f"images/{number}.jpg", b"x")
    listed = boto3.client("s3").list_objects_v2(Bucket=s3)
    assert (len(listed["Contents"]), listed["IsTruncated"]) == (10, True)
    assert len(storage.find("images")) == 23
    assert len(storage.names("images")) == 23


def test_an_object_that_marks_a_folder_is_not_a_file_of_it(s3: str) -> None:
    # Web consoles and other tools create such objects.
    for key in ("data/", "data/images/", "data/images/raw/", "data/manifests/raw_images/"):
        boto3.client("s3").put_object(Bucket=s3, Key=key, Body=b"")
    storage = Storage(f"s3://{s3}/data")
    assert storage.find("images") == {}
    assert retailers_with_images(storage) == []
    assert list_manifests(storage, "raw_images") == []
    storage.write(f"{RAW}/a.jpg", b"x")
    assert [*storage.find("images")] == [f"{RAW}/a.jpg"]
    assert retailers_with_images(storage) == ["zara"]
    assert storage.names("images") == ["raw"]


@pytest.mark.parametrize("prefix", ["", "/deep/er"])
def test_paths_are_relative_to_the_data_root_wherever_it_is(s3: str, prefix: str) -> None:
    storage = Storage(f"s3://{s3}{prefix}")
    storage.write(f"{RAW}/a.jpg", b"four")
    assert [*storage.find("images")] == [f"{RAW}/a.jpg"]
    assert storage.names("images/raw") == ["zara"]


def test_threads_can_write_concurrently(storage: Storage) -> None:
    def write(number: int) -> None:
        for part in range(5):
            storage.write(f"images/{number}-{part}", bytes([number]) * 1_000)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    names = [f"images/{number}-{part}" for number in range(8) for part in range(5)]
    assert _sizes(storage, "images") == dict.fromkeys(names, 1_000)
    assert storage.read("images/7-4") == bytes([7]) * 1_000


def test_a_removed_folder_is_gone_with_its_files_and_its_empty_parents(storage: Storage) -> None:
    journal = storage.partition("2026-01-31", "zara").journal("raw_images")
    other = storage.partition("2026-01-30", "zara").journal("raw_images")
    for name in ("00000001-a.jsonl", "00000002-b.jsonl", "below/c"):
        storage.write(f"{journal}/{name}", b"x")
    storage.write(f"{other}/00000001-a.jsonl", b"x")
    storage.write("images/kept.jpg", b"x")
    storage.remove_folder(journal)
    assert _sizes(storage, "journal") == {f"{other}/00000001-a.jsonl": 1}
    assert storage.names("journal/raw_images/retailer=zara") == ["date=2026-01-30"]
    storage.remove_folder(other)
    storage.remove_folder(other)
    assert storage.names("journal") in ([], ["temporary"])
    assert _sizes(storage, "images") == {"images/kept.jpg": 1}


def test_the_files_of_a_folder_are_removed_in_the_order_of_their_names(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"journal/x/{number:08d}-{number % 3}.jsonl" for number in (3, 1, 12, 2)]
    for name in names:
        storage.write(name, b"x")
    removed: list[str] = []
    remove = Storage.remove

    def record(storage: Storage, path: str) -> None:
        removed.append(path)
        remove(storage, path)

    monkeypatch.setattr(Storage, "remove", record)
    storage.remove_folder("journal/x")
    assert removed == sorted(names)


def test_manifests_are_listed_by_retailer_and_date_and_other_files_are_ignored(
    storage: Storage,
) -> None:
    assert list_manifests(storage, "raw_images") == []
    for date, retailer in (
        ("2026-01-31", "zara"),
        ("2026-01-30", "zara"),
        ("2025-12-31", "zara-home"),
        ("2026-02-01", "7"),
    ):
        storage.partition(date, retailer).write_manifest("raw_images", TABLE)
    storage.partition("2026-03-01", "zara").write_manifest("processed_images", TABLE)
    for name in (
        "zara.2026-01-29.parquet.tmp",
        "zara.2026-01-29.csv",
        "zara.parquet",
        "zara.2026-1-29.parquet",
        "Zara.2026-01-29.parquet",
        ".zara.2026-01-29.parquet",
        "notes.txt",
    ):
        _write_externally(storage, f"manifests/raw_images/{name}", b"x")
    found = [(p.retailer, p.date) for p in list_manifests(storage, "raw_images")]
    expected = [
        ("7", "2026-02-01"),
        ("zara", "2026-01-30"),
        ("zara", "2026-01-31"),
        ("zara-home", "2025-12-31"),
    ]
    assert found == expected
    dates = [p.date for p in list_manifests(storage, "raw_images", "zara")]
    assert dates == ["2026-01-30", "2026-01-31"]
    assert list_manifests(storage, "raw_images", "zar") == []
    (other,) = list_manifests(storage, "processed_images")
    assert other == storage.partition("2026-03-01", "zara")
    assert other.read_manifest("processed_images").equals(TABLE)


def test_served_files_of_which_a_processed_image_is_stored_are_found(storage: Storage) -> None:
    first, second, third, fourth = (f"{digits}{62 * '0'}" for digits in ("3f", "40", "3e", "41"))
    storage.write(processed_path("zara", first, "a" * 16, "jpg"), b"x")
    storage.write(processed_path("zara", first, "b" * 16, "png"), b"x")
    storage.write(processed_path("zara", second, "a" * 16, "webp"), b"x")
    storage.write(processed_path("7", third, "a" * 16, "jpg"), b"x")
    storage.write(raw_path("zara", fourth, "jpg"), b"x")
    same_folder = f"3f{62 * '1'}"
    wanted = {first, third, fourth, same_folder}

    def found(retailer: str, *wanted: str | None) -> list[str]:
        column = pa.chunked_array([[], [*wanted, None]], pa.string())
        return sorted(processed_raw_sha256(storage, retailer, column).to_pylist())

    assert found("zara", *wanted) == [first]
    assert found("zara", first, second, first) == sorted([first, second])
    assert found("7", *wanted) == [third]
    assert found("zara") == []


def test_retailers_with_images_are_those_with_served_or_processed_files(storage: Storage) -> None:
    storage.write(raw_path("zara", 64 * "0", "jpg"), b"x")
    storage.write(raw_path("both", 64 * "0", "jpg"), b"x")
    storage.write(processed_path("both", 64 * "0", 16 * "0", "jpg"), b"x")
    storage.write(processed_path("7", 64 * "0", 16 * "0", "jpg"), b"x")
    storage.partition("2026-01-31", "empty").write_manifest("raw_images", TABLE)
    assert retailers_with_images(storage) == ["7", "both", "zara"]


def test_a_manifest_is_a_zstd_compressed_file_of_its_partition(storage: Storage) -> None:
    partition = storage.partition("2026-01-31", "zara")
    partition.write_manifest("raw_images", TABLE)
    data = storage.read("manifests/raw_images/zara.2026-01-31.parquet")
    metadata = pq.read_metadata(pa.BufferReader(data))
    compressions = {metadata.row_group(0).column(n).compression for n in range(2)}
    assert compressions == {"ZSTD"}
    assert partition.read_manifest("raw_images").equals(TABLE)
    assert partition.read_manifest("raw_images", ["width"]).equals(TABLE.select(["width"]))
    assert [*_sizes(storage, "manifests")] == ["manifests/raw_images/zara.2026-01-31.parquet"]


def test_a_table_and_a_selection_of_its_columns_are_read_back_unchanged(storage: Storage) -> None:
    write_table(storage, "removed/a.parquet", TABLE)
    write_table(storage, "removed/b.parquet", TABLE.slice(1))
    assert read_table(storage, "removed/a.parquet").equals(TABLE)
    assert read_table(storage, "removed/b.parquet").equals(TABLE.slice(1))
    width = read_table(storage, "removed/a.parquet", columns=["width"])
    assert width.equals(TABLE.select(["width"]))
    names = read_table(storage, "removed/a.parquet", ["width", "key"]).column_names
    assert names == ["width", "key"]
    assert read_table(storage, "removed/a.parquet", ["key", "none"]).column_names == ["key"]
    assert storage.names("removed") == ["a.parquet", "b.parquet"]


def test_an_empty_table_has_its_columns_and_no_row_group(storage: Storage) -> None:
    write_table(storage, "removed/empty.parquet", TABLE.slice(0, 0))
    assert read_table(storage, "removed/empty.parquet").equals(TABLE.slice(0, 0))
    metadata = pq.read_metadata(pa.BufferReader(storage.read("removed/empty.parquet")))
    assert (metadata.num_rows, metadata.num_row_groups) == (0, 0)
    write_table(storage, "removed/full.parquet", TABLE)
    metadata = pq.read_metadata(pa.BufferReader(storage.read("removed/full.parquet")))
    assert (metadata.num_rows, metadata.num_row_groups) == (2, 1)


def test_is_local_tells_a_disk_from_an_object_store(storage: Storage) -> None:
    assert storage.is_local is not storage.root.startswith("s3://")


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no parquet at all", b"PAR1" * 50])
def test_the_error_of_a_broken_table_names_its_path_and_the_remedy(
    storage: Storage, data: bytes
) -> None:
    partition = storage.partition("2026-01-31", "zara")
    path = partition.manifest("raw_images")
    storage.write(path, data)
    with pytest.raises(BrokenFileError, match="; delete it, then materialize its partition") as e:
        partition.read_manifest("raw_images")
    assert isinstance(e.value, StorageError)
    assert str(e.value).startswith(f"{storage.root}/{path} is broken: ")


@given(st.data())
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_table_is_a_storage_error_or_harmless(
    tmp_path: Path, data: st.DataObject
) -> None:
    storage = Storage(str(tmp_path))
    write_table(storage, "a.parquet", TABLE)
    whole = storage.read("a.parquet")
    offset = data.draw(st.integers(0, len(whole) - 1))
    damage = data.draw(st.binary(max_size=8))
    rest = whole[offset + data.draw(st.integers(1, 8)) :]
    storage.write("a.parquet", whole[:offset] + damage + rest)
    with suppress(StorageError):
        read_table(storage, "a.parquet").validate(full=True)


def test_a_damaged_column_name_is_a_storage_error(storage: Storage) -> None:
    write_table(storage, "a.parquet", pa.table({"outcome": ["ok"]}))
    whole = storage.read("a.parquet")
    storage.write("a.parquet", whole.replace(b"outcome", b"\x80utcome"))
    with pytest.raises(BrokenFileError, match="is broken: 'utf-8' codec can't decode"):
        read_table(storage, "a.parquet")


def test_a_damaged_value_is_a_storage_error(storage: Storage) -> None:
    write_table(storage, "a.parquet", pa.table({"outcome": ["removed by hand"]}))
    whole = storage.read("a.parquet")
    place = whole.index(b"removed by hand")
    storage.write("a.parquet", whole[:place] + b"R" + whole[place + 1 :])
    with pytest.raises(BrokenFileError, match=r"a\.parquet is broken: "):
        read_table(storage, "a.parquet")


def test_a_table_that_cannot_be_opened_is_not_called_broken(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").mkdir()
    with pytest.raises(StorageError, match=r"^cannot read .*a\.parquet: ") as e:
        read_table(Storage(str(tmp_path)), "a.parquet")
    assert not isinstance(e.value, BrokenFileError)


def test_writing_to_a_missing_bucket_is_a_storage_error(s3: str) -> None:
    storage = Storage(f"s3://{s3}-none/data")
    with pytest.raises(StorageError, match=f"cannot write s3://{s3}-none/data/a.jpg: "):
        storage.write("a.jpg", b"")


def test_a_request_is_repeated_while_the_object_store_is_away(
    s3: str,
    s3_server: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(imgassets.storage, "_RETRY_S", 0.01)
    storage = Storage(f"s3://{s3}/data")
    path = "images/a.jpg"
    actions: list[tuple[Callable[[], object], object]] = [
        (lambda: storage.write(path, b"data"), None),
        (lambda: storage.read(path), b"data"),
        (lambda: storage.sizes([path]), {path: 4}),
        (lambda: [*storage.find("images")], [path]),
        (lambda: storage.names("images"), ["a.jpg"]),
        (lambda: storage.names("images", "a."), ["a.jpg"]),
        (lambda: storage.remove(path), None),
        (lambda: storage.names("images"), []),
    ]
    for action, result in actions:
        caplog.clear()
        s3_server.refusals = 3
        assert action() == result
        assert s3_server.refusals == 0
        (line,) = caplog.messages
        assert line.startswith(f"s3://{s3}/data/images")
        assert line.endswith("trying again for 60 s")


def test_an_object_store_that_stays_away_is_a_storage_error(
    s3: str, s3_server: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(imgassets.storage, "_RETRY_S", 0.01)
    s3_server.refusals = math.inf
    storage = Storage(f"s3://{s3}/data", patience_s=0.1)
    message = f"cannot write s3://{s3}/data/a.jpg: .*unable to handle the request.*is kept"
    with pytest.raises(StorageError, match=message):
        storage.write("a.jpg", b"data")
    assert len(s3_server.requests) > 1


def test_a_request_that_fails_for_good_is_not_repeated(s3: str, s3_server: ObjectStore) -> None:
    for write in (Storage(f"s3://{s3}-none/data").write, Storage("s3://NO_BUCKET/data").write):
        s3_server.requests.clear()
        with pytest.raises(StorageError, match="cannot write"):
            write("a.jpg", b"data")
        assert len(s3_server.requests) <= 1


def test_other_file_systems_of_fsspec_are_object_stores_too() -> None:
    storage = Storage(f"memory://{uuid4().hex}/data")
    paths = {f"{RAW}/{number}.jpg": number for number in range(6)}
    for path, size in paths.items():
        storage.write(path, bytes(size))
    assert storage.read(f"{RAW}/3.jpg") == bytes(3)
    assert storage.sizes([*paths, f"{RAW}/gone.jpg"]) == paths
    assert storage.sizes([f"{RAW}/3.jpg", f"{RAW}/gone.jpg"]) == {f"{RAW}/3.jpg": 3}
    assert {path: info.size for path, info in storage.find("images").items()} == paths
    for name in ("zara.2026-01-02", "zara.2026-01-03", "zara-home.2026-01-02"):
        storage.write(f"manifests/raw_images/{name}.parquet", b"")
    found = [(each.retailer, each.date) for each in list_manifests(storage, "raw_images", "zara")]
    assert found == [("zara", "2026-01-02"), ("zara", "2026-01-03")]
    storage.remove_all([*paths, f"{RAW}/gone.jpg"])
    storage.remove("manifests/gone.parquet")
    storage.remove_folder("manifests")
    assert storage.find("images") == storage.find("manifests") == {}


def test_many_files_are_removed_with_one_request_and_others_stay(
    s3: str, s3_server: ObjectStore
) -> None:
    storage = Storage(f"s3://{s3}/data")
    paths = [f"images/raw/zara/00/{number}.jpg" for number in range(10)]
    for path in (*paths, "images/raw/zara/00/[0-9].jpg", "images/raw/zara/00/kept.jpg"):
        storage.write(path, b"data")
    s3_server.requests.clear()
    storage.remove_all([*paths[:9], "images/raw/zara/00/[0-9].jpg", "images/gone.jpg"])
    assert [*storage.find("images")] == [paths[9], "images/raw/zara/00/kept.jpg"]
    methods = Counter(request.method for request in s3_server.requests)
    assert methods["BULK DELETE"] == methods["DELETE"] == 1
    s3_server.requests.clear()
    storage.remove_folder("images/raw/zara")
    assert storage.find("images") == {}


def test_files_that_a_request_for_many_leaves_are_removed_or_reported(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(f"s3://{s3}/data")
    paths = [f"images/raw/zara/00/{number}.jpg" for number in range(6)]
    for path in paths:
        storage.write(path, b"data")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSYS, "not implemented")

    file_system, _ = storage._place("")
    monkeypatch.setattr(file_system, "rm", refuse)
    storage.remove_all(paths)
    assert storage.find("images") == {}
    for path in paths:
        storage.write(path, b"data")
    # It says that it has done so.
    monkeypatch.setattr(file_system, "rm", lambda *_, **__: None)
    monkeypatch.setattr(file_system, "rm_file", refuse)
    with pytest.raises(StorageError, match=r"cannot remove .*not implemented"):
        storage.remove_all(paths)


def test_an_unreachable_storage_is_a_storage_error(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    storage = Storage(f"s3://{s3}/data", patience_s=0)
    _assert_unusable(storage)
    _assert_fails(lambda: storage.sizes(["images/a.jpg"]), "read", storage.address("images/a.jpg"))


def test_a_data_root_below_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    _assert_unusable(Storage(f"{tmp_path}/file/data"))


def test_a_size_that_cannot_be_read_is_a_storage_error(disk: Storage) -> None:
    # Root may read every folder, but nobody a loop of links.
    path = "images/loop.jpg"
    disk.write("images/a.jpg", b"x")
    Path(disk.address(path)).symlink_to(disk.address(path))
    _assert_fails(lambda: disk.sizes([path]), "read", disk.address(path))


def _assert_unusable(storage: Storage) -> None:
    file, folder = storage.address("images/a.jpg"), storage.address("images")
    _assert_fails(lambda: storage.write("images/a.jpg", b"data"), "write", file)
    _assert_fails(lambda: storage.read("images/a.jpg"), "read", file)
    _assert_fails(lambda: storage.find("images"), "list", folder)
    _assert_fails(lambda: storage.names("images"), "list", folder)
    _assert_fails(lambda: storage.remove_folder("images"), "list", folder)
    _assert_fails(lambda: storage.remove("images/a.jpg"), "remove", file)


def _assert_fails(attempt: Callable[[], object], verb: str, address: str) -> None:
    with pytest.raises(StorageError) as error:
        attempt()
    text = str(error.value)
    assert text.startswith(f"cannot {verb} {address}: ")
    free = "free space or " if verb == "write" else ""
    assert text.endswith(
        f"; {free}repair the storage, then run the partition again; finished work is kept"
    )
    assert str(error.value.__cause__) in text


def test_nothing_but_whole_objects_appears_in_s3(s3: str) -> None:
    storage = Storage(f"s3://{s3}/data")
    storage.partition("2026-01-31", "zara").write_manifest("raw_images", TABLE)
    for number in range(3):
        storage.write(f"{RAW}/{number}.jpg", b"x" * 100_000)
    keys = {item["Key"] for item in boto3.client("s3").list_objects_v2(Bucket=s3)["Contents"]}
    images = {f"data/{RAW}/{number}.jpg" for number in range(3)}
    assert keys == {"data/manifests/raw_images/zara.2026-01-31.parquet", *images}


# Local disk only.


@pytest.fixture
def disk(tmp_path: Path) -> Storage:
    return Storage(f"{tmp_path}/data")


@pytest.mark.parametrize("path", [f"{RAW}/a.jpg", "manifests/raw_images/zara.2026-01-31.parquet"])
def test_a_file_that_is_being_written_is_only_in_the_folder_for_temporary_files(
    disk: Storage, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    really_write = os.write
    seen: list[set[str]] = []

    def write_some(handle: int, data: bytes) -> int:
        written = really_write(handle, data[:2])
        seen.append(_files(disk))
        return written

    monkeypatch.setattr(os, "write", write_some)
    disk.write(path, b"123456")
    assert len(seen) == 3
    assert len(set.union(*seen)) == 1
    assert all(file.startswith(f"{TEMPORARY}/") for files in seen for file in files)
    seen.clear()
    disk.write(path, b"newer")
    assert all(files - {path} == {f for f in files if f.startswith(TEMPORARY)} for files in seen)
    assert all(len(files) == 2 for files in seen)
    assert _files(disk) == {path}


def test_a_write_that_fails_half_way_keeps_the_old_file_and_leaves_nothing_else(
    disk: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.write("images/a.jpg", b"old")
    really_write = os.write

    def write_some(handle: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", fail)
        return really_write(handle, data[:2])

    def fail(_handle: int, _data: bytes) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", write_some)
    with pytest.raises(StorageError, match="Input/output error"):
        disk.write("images/a.jpg", b"new and longer")

    assert _files(disk) == {"images/a.jpg"}
    assert disk.read("images/a.jpg") == b"old"


def test_short_writes_of_the_operating_system_are_completed(
    disk: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: really_write(handle, data[:3]))
    disk.write("a.jpg", b"0123456789")
    assert disk.read("a.jpg") == b"0123456789"


def test_the_mode_of_a_file_follows_the_umask(disk: Storage) -> None:
    before = os.umask(0o002)
    try:
        for name in ("first.jpg", "second.jpg"):  # the first write creates the folder
            disk.write(f"images/{name}", b"data")
    finally:
        os.umask(before)
    for file in Path(disk.address("images")).iterdir():
        assert file.stat().st_mode & 0o777 == 0o664


def test_a_folder_that_another_process_creates_at_the_same_time_is_used(
    disk: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_once(source: str, target: str) -> None:
        monkeypatch.undo()
        disk.write("images/theirs.jpg", b"data")
        raise FileNotFoundError(2, "No such file or directory", source, None, target)

    monkeypatch.setattr(os, "replace", fail_once)
    disk.write("images/ours.jpg", b"data")
    assert disk.names("images") == ["ours.jpg", "theirs.jpg"]


def test_the_error_of_a_write_whose_temporary_file_was_removed_names_the_file(
    disk: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_write = os.write

    def remove_temporary_first(handle: int, data: bytes) -> int:
        monkeypatch.undo()
        assert len(disk.remove_old_temporaries(dt.timedelta(seconds=-1))) == 1
        return really_write(handle, data)

    monkeypatch.setattr(os, "write", remove_temporary_first)
    with pytest.raises(StorageError, match="No such file") as caught:
        disk.write("images/a.jpg", b"data")
    cause = caught.value.__cause__
    assert isinstance(cause, FileNotFoundError)
    assert cause.filename2 == disk.address("images/a.jpg")
    assert _files(disk) == set()


def test_no_file_descriptor_is_leaked(disk: Storage) -> None:
    disk.write("images/a.jpg", b"data")
    before = psutil.Process().num_fds()
    for _ in range(20):
        disk.write("images/a.jpg", b"data")
        disk.read("images/a.jpg")
        disk.sizes(["images/a.jpg"])
        disk.find("images")
    assert psutil.Process().num_fds() < before + 10


def test_two_threads_that_write_the_same_file_leave_the_last_version_whole(
    disk: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_write = os.write

    def write_beside(handle: int, data: bytes) -> int:
        """Write a part; before the remainder, another thread writes the whole file."""
        monkeypatch.setattr(os, "write", really_write)
        written = really_write(handle, data[:2])
        other = threading.Thread(target=disk.write, args=("images/a.jpg", b"theirs"))
        other.start()
        other.join()
        assert disk.read("images/a.jpg") == b"theirs"
        return written

    monkeypatch.setattr(os, "write", write_beside)
    disk.write("images/a.jpg", b"ours, and longer")
    assert disk.read("images/a.jpg") == b"ours, and longer"
    assert _files(disk) == {"images/a.jpg"}


FORKED = """
import os, sys
from imgassets.storage import Storage

root, ours, theirs = sys.argv[1:4]
storage = Storage(root)
if len(sys.argv) > 4:  # containers have the same process ids
    os.getpid = lambda: int(sys.argv[4])
begun, begin = os.pipe()
really_write = os.write
child = os.fork()
if not child:
    os.read(begun, 1)
    if len(sys.argv) > 4:
        code = f"import os; os.getpid = lambda: {sys.argv[4]}; import imgassets.storage as storage"
        code += f"; storage.Storage({root!r}).write({theirs!r}, b'theirs')"
        os.execv(sys.executable, [sys.executable, "-c", code])
    storage.write(theirs, b"theirs")
    os._exit(0)

def write_beside(handle, data):
    os.write = really_write
    written = os.write(handle, data[:2])
    os.write(begin, b"x")
    assert os.waitpid(child, 0)[1] == 0
    return written

os.write = write_beside
storage.write(ours, b"ours, and longer")
"""


def test_two_processes_that_write_the_same_file_leave_the_last_version_whole(
    disk: Storage,
) -> None:
    arguments = [disk.root, "images/a.jpg", "images/a.jpg"]
    subprocess.run([sys.executable, "-c", FORKED, *arguments], check=True, timeout=60)
    assert disk.read("images/a.jpg") == b"ours, and longer"
    assert _files(disk) == {"images/a.jpg"}


def test_writers_in_containers_with_equal_process_ids_do_not_mix_their_files(
    disk: Storage,
) -> None:
    arguments = [disk.root, "images/a.jpg", "images/b.jpg", "1"]
    subprocess.run([sys.executable, "-c", FORKED, *arguments], check=True, timeout=60)
    assert disk.read("images/a.jpg") == b"ours, and longer"
    assert disk.read("images/b.jpg") == b"theirs"
    assert _files(disk) == {"images/a.jpg", "images/b.jpg"}


def test_an_interrupted_write_leaves_no_temporary_file(
    disk: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.write("images/a.jpg", b"old")

    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        disk.write("images/a.jpg", b"new")
    monkeypatch.undo()
    assert _files(disk) == {"images/a.jpg"}


FULL_DISK = """
import resource, sys
from imgassets.errors import StorageError
from imgassets.storage import Storage
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
storage = Storage(sys.argv[1])
storage.write("images/small.jpg", bytes(100_000))
try:
    storage.write("images/large.jpg", bytes(100_001))
except StorageError as error:
    print(error)
"""


def test_a_full_disk_is_a_one_line_error_and_leaves_no_partial_file(disk: Storage) -> None:
    # RLIMIT_FSIZE fails a write like a full disk: after some of its bytes.
    output = subprocess.run(
        [sys.executable, "-c", FULL_DISK, disk.root],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert output == (
        f"cannot write {disk.root}/images/large.jpg: [Errno 27] File too large; free space or "
        "repair the storage, then run the partition again; finished work is kept\n"
    )
    assert _files(disk) == {"images/small.jpg"}
    assert disk.sizes(["images/small.jpg"]) == {"images/small.jpg": 100_000}


WRITER = """
import itertools, sys
from imgassets.storage import Storage
storage = Storage(sys.argv[1])
images = [bytes([number]) * (5_000_000 + number) for number in range(5)]
for number in itertools.count():
    folder = ("images/raw/zara/3f", "manifests/raw_images")[number % 2]
    storage.write(f"{folder}/{number % 3}.jpg", images[number % 5])
"""


def test_killed_writers_leave_whole_files_and_removable_temporaries(disk: Storage) -> None:
    random = Random(1)
    temporaries = rounds = 0
    # Repeat until kills have interrupted writes; otherwise the test proves nothing.
    while temporaries < 3:
        rounds += 1
        assert rounds < 50
        writer = subprocess.Popen([sys.executable, "-c", WRITER, disk.root])
        try:
            deadline = time.monotonic() + 60
            while not disk.sizes([f"{RAW}/0.jpg"]):
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(random.uniform(0, 0.05))
        finally:
            writer.kill()
            writer.wait()

        left = _files(disk)
        stored = {path for path in left if path.startswith(("images/", "manifests/"))}
        assert f"{RAW}/0.jpg" in stored
        assert all(Path(path).stem in "012" for path in stored)
        for path in stored:
            data = disk.read(path)
            assert data == data[:1] * (5_000_000 + data[0])
            disk.remove(path)
        assert all(path.startswith(f"{TEMPORARY}/") for path in left - stored)
        temporaries += len(left - stored)
        removed = disk.remove_old_temporaries(dt.timedelta(seconds=-1))
        assert set(removed) == left - stored
        assert _files(disk) == set()


def test_only_temporary_files_older_than_the_limit_are_removed(disk: Storage) -> None:
    now = time.time()
    ages_h = {f"{TEMPORARY}/old": 25, f"{TEMPORARY}/young": 23, f"{TEMPORARY}/new": 0}
    old_others = {
        "journal/raw_images/retailer=zara/date=2026-01-31/00000001-a.jsonl": 1000,
        f"{RAW}/a.jpg": 1000,
        "manifests/raw_images/zara.2026-01-31.parquet": 1000,
    }
    for path, age_h in {**ages_h, **old_others}.items():
        _write_externally(disk, path, b"x")
        os.utime(disk.address(path), (now - age_h * 3600,) * 2)
    assert disk.remove_old_temporaries() == [f"{TEMPORARY}/old"]
    assert _files(disk) == {f"{TEMPORARY}/young", f"{TEMPORARY}/new", *old_others}
    assert disk.remove_old_temporaries() == []
    assert disk.remove_old_temporaries(dt.timedelta(hours=22)) == [f"{TEMPORARY}/young"]
    assert _files(disk) == {f"{TEMPORARY}/new", *old_others}


@pytest.mark.parametrize("max_age", [dt.timedelta(0), dt.timedelta(days=1)])
def test_values_between_ops_are_kept_for_a_week_whatever_the_limit(
    disk: Storage, max_age: dt.timedelta
) -> None:
    """A run that goes on for days, or its retry, still reads them."""
    now = time.time()
    for name, age_h in (("old", 7 * 24 + 1), ("young", 7 * 24 - 1)):
        path = f"{OP_VALUES}/{name}/raw_images.download_images/result/shard_0000"
        disk.write(path, b"x")
        os.utime(disk.address(path), (now - age_h * 3600,) * 2)
    (removed,) = disk.remove_old_temporaries(max_age)
    assert removed.startswith(f"{OP_VALUES}/old/")
    assert [path.split("/")[3] for path in _files(disk)] == ["young"]


def test_a_listing_is_complete_while_other_threads_write_to_the_folder(disk: Storage) -> None:
    kept = {f"images/{number % 7}/kept-{number}.jpg" for number in range(200)}
    for path in kept:
        disk.write(path, b"x")
    stop = threading.Event()

    def write(number: int) -> None:
        while not stop.is_set():
            disk.write(f"images/busy-{number}/busy.jpg", b"x")
            disk.remove_folder(f"images/busy-{number}")

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(200):
            assert (
                kept
                <= disk.find("images").keys()
                <= kept | {f"images/busy-{number}/busy.jpg" for number in range(3)}
            )
            assert len(disk.sizes(kept)) == 200
    finally:
        stop.set()
        for writer in writers:
            writer.join()


REMOVER = """
import sys
from imgassets.storage import Storage
storage = Storage(sys.argv[1])
print("ready", flush=True)
while True:
    storage.remove_empty_folders("journal/raw_images/retailer=zara/date=2026-01-31")
"""


def test_a_folder_that_is_removed_while_others_write_into_it_loses_nothing(
    disk: Storage,
) -> None:
    folder = "journal/raw_images/retailer=zara/date=2026-01-31"

    def write(writer: int) -> list[str]:
        kept = []
        for number in range(600):
            path = f"{folder}/{writer}/{number}.jsonl"
            disk.write(path, b"x")
            assert disk.read(path) == b"x"
            if number < 500:
                disk.remove(path)
            else:
                kept.append(path)
        return kept

    command = [sys.executable, "-c", REMOVER, disk.root]
    removers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for remover in removers:
            assert remover.stdout is not None
            assert remover.stdout.readline() == b"ready\n"
        with ThreadPoolExecutor(2) as pool:
            kept = [path for paths in pool.map(write, range(2)) for path in paths]
        assert all(remover.poll() is None for remover in removers)
    finally:
        for remover in removers:
            remover.kill()
            remover.communicate()
    assert disk.find("journal").keys() == set(kept)
    assert len(kept) == 200


def test_a_folder_into_which_another_process_writes_meanwhile_stays(
    disk: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.write("journal/x/a.jsonl", b"x")
    remove = Storage.remove

    def write_beside(storage: Storage, path: str) -> None:
        remove(storage, path)
        storage.write("journal/x/theirs.jsonl", b"new")

    monkeypatch.setattr(Storage, "remove", write_beside)
    disk.remove_folder("journal/x")
    assert _sizes(disk, "journal") == {"journal/x/theirs.jsonl": 3}


@pytest.mark.parametrize(
    ("data_root", "address"),
    [
        ("s3://bucket/prefix/", "s3://bucket/prefix"),
        ("gs://bucket", "gs://bucket"),
        ("/data/", "/data"),
        ("/DATA_X/", "/DATA_X"),
        ("s3://bucket/prefix//", "s3://bucket/prefix"),
        ("file:///data", "/data"),
        ("file:///data/", "/data"),
        ("data", f"{project_root()}/data"),
        (".imgassets/data", f"{project_root()}/.imgassets/data"),
    ],
)
def test_the_data_root_is_a_folder_or_an_object_store(data_root: str, address: str) -> None:
    assert open_storage(Settings(data_root=data_root)) == Storage(address)
    assert storage_at(data_root) == Storage(address)
