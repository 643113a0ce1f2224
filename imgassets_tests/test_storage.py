"""Tests of storage: atomic reads and writes on a local disk and in an object store."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import boto3
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from imgassets.errors import StorageError
from imgassets.folders import project_root
from imgassets.settings import Settings
from imgassets.storage import (
    IMAGES,
    MANIFEST,
    Folder,
    Storage,
    mark_removed,
    open_storage,
    read_removed,
    read_table,
    write_table,
)

TABLE = pa.table({"key": ["a", "b"], "width": pa.array([1, None], pa.int32())})


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """A folder that does not exist yet: on the local disk and in S3."""
    if request.param == "local":
        return Folder(f"{tmp_path}/data")
    return Folder(f"s3://{request.getfixturevalue('s3')}/data")


def _write_externally(folder: Folder, name: str, data: bytes) -> None:
    """Write a file as another machine does, bypassing the caches of this process."""
    if folder.is_local:
        path = Path(folder.address, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    else:
        bucket, prefix = folder.address.removeprefix("s3://").split("/", 1)
        boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=data)


@pytest.mark.parametrize("data", [b"", b"four", bytes(range(256)) * 80_000])
def test_a_written_file_is_read_back(folder: Folder, data: bytes) -> None:
    folder.write("a.jpg", data)
    assert folder.read("a.jpg") == data
    assert folder.sizes() == {"a.jpg": len(data)}


def test_a_file_can_be_replaced_by_a_shorter_one(folder: Folder) -> None:
    folder.write("a.jpg", b"long ago")
    folder.write("a.jpg", b"now")
    assert folder.read("a.jpg") == b"now"
    assert folder.sizes() == {"a.jpg": 3}


def test_nested_folders_are_created_on_demand_and_not_listed_as_files(folder: Folder) -> None:
    partition = Storage(folder).partition("raw_images", "2026-01-31", "zara")
    (partition / IMAGES).write("a.jpg", b"four")
    partition.write(MANIFEST, b"manifest")

    place = folder / "raw_images" / "date=2026-01-31" / "retailer=zara"
    assert place.sizes() == {MANIFEST: 8}
    assert (place / IMAGES).sizes() == {"a.jpg": 4}
    assert folder.sizes() == {}


def test_a_folder_that_does_not_exist_is_empty(folder: Folder) -> None:
    assert (folder / "never" / "written").sizes() == {}
    (folder / "never" / "written").remove_temporaries()


def test_reading_a_missing_file_raises_file_not_found_error(folder: Folder) -> None:
    with pytest.raises(FileNotFoundError):
        folder.read("a.jpg")
    folder.write("b.jpg", b"")
    with pytest.raises(FileNotFoundError):
        folder.read("a.jpg")
    with pytest.raises(FileNotFoundError):
        read_table(folder)


def test_removing_a_file_twice_succeeds_and_keeps_other_files(folder: Folder) -> None:
    folder.write("a.jpg", b"a")
    folder.write("b.jpg", b"b")
    folder.remove("a.jpg")
    folder.remove("a.jpg")
    folder.remove("never-there.jpg")
    assert folder.sizes() == {"b.jpg": 1}
    with pytest.raises(FileNotFoundError):
        folder.read("a.jpg")


def test_changes_by_other_processes_are_visible_at_once(folder: Folder) -> None:
    folder.write("a.jpg", b"ours")
    assert folder.sizes() == {"a.jpg": 4}
    _write_externally(folder, "a.jpg", b"theirs")
    assert folder.read("a.jpg") == b"theirs"
    _write_externally(folder, "b.jpg", b"new")
    assert folder.read("b.jpg") == b"new"
    assert folder.sizes() == {"a.jpg": 6, "b.jpg": 3}
    folder.remove("b.jpg")
    _write_externally(folder, "b.jpg", b"again")
    folder.remove("b.jpg")
    assert folder.sizes() == {"a.jpg": 6}


def test_a_listing_that_s3_splits_into_pages_is_complete(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    folder = Folder(f"s3://{s3}/data")
    for number in range(23):
        folder.write(f"{number}.jpg", b"x")
    listed = boto3.client("s3").list_objects_v2(Bucket=s3)
    assert (len(listed["Contents"]), listed["IsTruncated"]) == (10, True)
    assert len(folder.sizes()) == 23


def test_threads_can_write_concurrently(folder: Folder) -> None:
    def write(number: int) -> None:
        for part in range(5):
            folder.write(f"{number}-{part}", bytes([number]) * 1_000)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    names = [f"{number}-{part}" for number in range(8) for part in range(5)]
    assert folder.sizes() == dict.fromkeys(names, 1_000)
    assert folder.read("7-4") == bytes([7]) * 1_000


def test_a_manifest_is_a_zstd_compressed_file_next_to_the_images_folder(folder: Folder) -> None:
    partition = Storage(folder).partition("raw_images", "2026-01-31", "zara")
    write_table(partition, TABLE)
    (partition / IMAGES).write("a.jpg", b"four")
    place = f"{folder.address}/raw_images/date=2026-01-31/retailer=zara"
    data = Folder(place).read("manifest.parquet")
    metadata = pq.read_metadata(pa.BufferReader(data))
    compressions = {metadata.row_group(0).column(n).compression for n in range(2)}
    assert compressions == {"ZSTD"}
    assert Folder(f"{place}/images").read("a.jpg") == b"four"


def test_an_empty_table_and_a_selection_of_columns_can_be_read(folder: Folder) -> None:
    write_table(folder, TABLE.slice(0, 0), "empty.parquet")
    assert read_table(folder, "empty.parquet").equals(TABLE.slice(0, 0))
    write_table(folder, TABLE)
    assert read_table(folder, columns=["width"]).equals(TABLE.select(["width"]))
    assert read_table(folder, MANIFEST, ["width", "key"]).column_names == ["width", "key"]


def test_marks_of_removed_files_accumulate(
    folder: Folder,
) -> None:
    assert read_removed(folder) == set()
    mark_removed(folder, [])
    assert folder.sizes() == {}
    mark_removed(folder, ["a.jpg", "b.jpg"])
    assert read_removed(folder) == {"a.jpg", "b.jpg"}
    mark_removed(folder, iter(["c.jpg"]))
    assert read_removed(folder) == {"a.jpg", "b.jpg", "c.jpg"}
    assert read_removed(folder / IMAGES) == set()
    # The file with the marks is neither a manifest nor an image.
    with pytest.raises(FileNotFoundError):
        read_table(folder)


def test_marking_files_that_are_already_marked_writes_nothing(disk: Folder) -> None:
    mark_removed(disk, ["a.jpg", "b.jpg"])
    (marks,) = Path(disk.address).iterdir()
    written = marks.stat().st_mtime_ns, marks.stat().st_ino
    mark_removed(disk, ["b.jpg"])
    mark_removed(disk, ["b.jpg", "a.jpg"])
    mark_removed(disk, [])
    assert (marks.stat().st_mtime_ns, marks.stat().st_ino) == written


def test_a_broken_file_of_marks_is_a_storage_error(folder: Folder) -> None:
    mark_removed(folder, ["a.jpg"])
    (name,) = folder.sizes()
    folder.write(name, b"no parquet")
    with pytest.raises(StorageError, match="is broken"):
        read_removed(folder)
    with pytest.raises(StorageError, match="is broken"):
        mark_removed(folder, ["b.jpg"])
    assert folder.read(name) == b"no parquet"


def test_is_local_tells_a_disk_from_an_object_store(folder: Folder) -> None:
    assert folder.is_local is not folder.address.startswith("s3://")
    assert (folder / IMAGES).is_local is folder.is_local


def test_the_path_of_a_folder_lists_files_of_other_processes(s3: str) -> None:
    folder = Folder(f"s3://{s3}/data")
    folder.write("a.jpg", b"four")
    assert [path.name for path in folder.path.iterdir()] == ["a.jpg"]
    _write_externally(folder, "b.jpg", b"new")
    assert sorted(path.name for path in folder.path.iterdir()) == ["a.jpg", "b.jpg"]


def test_a_table_is_read_back_unchanged(folder: Folder) -> None:
    write_table(folder, TABLE)
    write_table(folder, TABLE.slice(1), "part.parquet")
    assert read_table(folder).equals(TABLE)
    assert read_table(folder, "part.parquet").equals(TABLE.slice(1))
    assert set(folder.sizes()) == {MANIFEST, "part.parquet"}


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no parquet at all", b"PAR1" * 50])
def test_the_error_of_a_broken_table_names_its_path_and_the_remedy(
    folder: Folder, data: bytes
) -> None:
    folder.write(MANIFEST, data)
    with pytest.raises(StorageError, match="; materialize its partition again") as e:
        read_table(folder)
    assert str(e.value).startswith(f"{folder.address}/{MANIFEST} is broken: ")


@given(st.data())
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_table_is_a_storage_error_or_harmless(
    tmp_path: Path, data: st.DataObject
) -> None:
    folder = Folder(str(tmp_path))
    write_table(folder, TABLE)
    whole = folder.read(MANIFEST)
    offset = data.draw(st.integers(0, len(whole) - 1))
    damage = data.draw(st.binary(max_size=8))
    folder.write(MANIFEST, whole[:offset] + damage + whole[offset + data.draw(st.integers(1, 8)) :])
    with suppress(StorageError):
        assert isinstance(read_table(folder), pa.Table)


def test_writing_to_a_missing_bucket_is_a_storage_error(s3: str) -> None:
    folder = Folder(f"s3://{s3}-none/data")
    with pytest.raises(StorageError, match=f"cannot write s3://{s3}-none/data/a.jpg: "):
        folder.write("a.jpg", b"")


def test_an_unreachable_storage_is_a_storage_error(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    _assert_unusable(Folder(f"s3://{s3}/data"))


def test_a_folder_below_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    _assert_unusable(Folder(f"{tmp_path}/file/data"))


def _assert_unusable(folder: Folder) -> None:
    attempts: dict[str, Callable[[], object]] = {
        "write": lambda: folder.write("a.jpg", b"data"),
        "read": lambda: folder.read("a.jpg"),
        "list": folder.sizes,
        "remove": lambda: folder.remove("a.jpg"),
    }
    file = f"{folder.address}/a.jpg"
    remedy = "; repair the storage, then run the partition again"
    kept = "; finished work is kept"
    expected = {
        "write": (file, f"; free space or{remedy.removeprefix(';')}{kept}"),
        "read": (file, remedy + kept),
        "list": (folder.address, remedy),
        "remove": (file, remedy),
    }
    for word, attempt in attempts.items():
        with pytest.raises(StorageError) as error:
            attempt()
        address, end = expected[word]
        assert str(error.value).startswith(f"cannot {word} {address}: ")
        assert str(error.value).endswith(end)
        assert str(error.value.__cause__) in str(error.value)


# Local disk only.


@pytest.fixture
def disk(tmp_path: Path) -> Folder:
    return Folder(f"{tmp_path}/data")


def test_a_write_that_fails_half_way_keeps_the_old_file_and_leaves_nothing_else(
    disk: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.write("a.jpg", b"old")
    really_write = os.write

    def write_some(handle: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", fail)
        return really_write(handle, data[:2])

    def fail(_handle: int, _data: bytes) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", write_some)
    with pytest.raises(StorageError, match="Input/output error"):
        disk.write("a.jpg", b"new and longer")

    assert os.listdir(disk.address) == ["a.jpg"]  # noqa: PTH208  (names, not paths)
    assert disk.read("a.jpg") == b"old"


def test_short_writes_of_the_operating_system_are_completed(
    disk: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: really_write(handle, data[:3]))
    disk.write("a.jpg", b"0123456789")
    assert disk.read("a.jpg") == b"0123456789"


def test_the_mode_of_a_file_follows_the_umask(disk: Folder) -> None:
    before = os.umask(0o002)
    try:
        for name in ("first.jpg", "second.jpg"):  # the first write creates the folder
            disk.write(name, b"data")
    finally:
        os.umask(before)
    for file in Path(disk.address).iterdir():
        assert file.stat().st_mode & 0o777 == 0o664


def test_a_folder_that_another_process_creates_at_the_same_time_is_used(
    disk: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_once(path: str, *_: int) -> int:
        monkeypatch.undo()
        (disk / "sub").write("theirs.jpg", b"data")
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(os, "open", fail_once)
    (disk / "sub").write("ours.jpg", b"data")
    assert set((disk / "sub").sizes()) == {"ours.jpg", "theirs.jpg"}


def test_the_error_of_a_write_whose_temporary_file_was_removed_names_the_file(
    disk: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_write = os.write

    def remove_temporary_first(handle: int, data: bytes) -> int:
        monkeypatch.undo()
        disk.remove_temporaries()
        return really_write(handle, data)

    monkeypatch.setattr(os, "write", remove_temporary_first)
    with pytest.raises(StorageError, match="No such file") as caught:
        disk.write("a.jpg", b"data")
    cause = caught.value.__cause__
    assert isinstance(cause, FileNotFoundError)
    assert cause.filename2 == f"{disk.address}/a.jpg"
    assert disk.sizes() == {}


def test_no_file_descriptor_is_leaked(disk: Folder) -> None:
    disk.write("a.jpg", b"data")
    before = psutil.Process().num_fds()
    for _ in range(20):
        disk.write("a.jpg", b"data")
        disk.read("a.jpg")
        disk.sizes()
    assert psutil.Process().num_fds() < before + 10


def test_two_threads_that_write_the_same_file_leave_the_last_version_whole(
    disk: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_write = os.write

    def write_beside(handle: int, data: bytes) -> int:
        """Write a part; before the remainder, another thread writes the whole file."""
        monkeypatch.setattr(os, "write", really_write)
        written = really_write(handle, data[:2])
        other = threading.Thread(target=disk.write, args=("a.jpg", b"theirs"))
        other.start()
        other.join()
        assert disk.read("a.jpg") == b"theirs"
        return written

    monkeypatch.setattr(os, "write", write_beside)
    disk.write("a.jpg", b"ours, and longer")
    assert disk.read("a.jpg") == b"ours, and longer"
    assert disk.sizes() == {"a.jpg": 16}


FORKED = """
import os, sys
from imgassets.storage import Folder

folder = Folder(sys.argv[1])
begun, begin = os.pipe()
really_write = os.write
child = os.fork()
if not child:
    os.read(begun, 1)
    folder.write("a.jpg", b"theirs")
    os._exit(0)

def write_beside(handle, data):
    os.write = really_write
    written = os.write(handle, data[:2])
    os.write(begin, b"x")
    assert os.waitpid(child, 0)[1] == 0
    return written

os.write = write_beside
folder.write("a.jpg", b"ours, and longer")
"""


def test_two_processes_that_write_the_same_file_leave_the_last_version_whole(disk: Folder) -> None:
    subprocess.run([sys.executable, "-c", FORKED, disk.address], check=True, timeout=60)
    assert disk.read("a.jpg") == b"ours, and longer"
    assert disk.sizes() == {"a.jpg": 16}


def test_a_temporary_file_left_by_a_killed_process_with_the_same_pid_is_overwritten(
    disk: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_write = os.write
    temporaries: list[Path] = []

    def record_temporaries(handle: int, data: bytes) -> int:
        temporaries.extend(Path(disk.address).glob(".*"))
        return really_write(handle, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", record_temporaries)
        disk.write("a.jpg", b"data")
    (left,) = temporaries
    left.write_bytes(b"longer than what is written next")
    disk.write("a.jpg", b"new")
    assert disk.read("a.jpg") == b"new"
    assert disk.sizes() == {"a.jpg": 3}


def test_an_interrupted_write_leaves_no_temporary_file(
    disk: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.write("a.jpg", b"old")

    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        disk.write("a.jpg", b"new")
    monkeypatch.undo()
    assert disk.sizes() == {"a.jpg": 3}


FULL_DISK = """
import resource, sys
from imgassets.errors import StorageError
from imgassets.storage import Folder
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
folder = Folder(sys.argv[1])
folder.write("small.jpg", bytes(100_000))
try:
    folder.write("large.jpg", bytes(100_001))
except StorageError as error:
    print(error)
"""


def test_a_full_disk_is_a_one_line_error_and_leaves_no_partial_file(disk: Folder) -> None:
    # RLIMIT_FSIZE fails a write like a full disk: after some of its bytes.
    output = subprocess.run(
        [sys.executable, "-c", FULL_DISK, disk.address],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert output == (
        f"cannot write {disk.address}/large.jpg: [Errno 27] File too large; free space or repair "
        "the storage, then run the partition again; finished work is kept\n"
    )
    assert disk.sizes() == {"small.jpg": 100_000}


WRITER = """
import itertools, sys
from imgassets.storage import Folder
folder = Folder(sys.argv[1])
images = [bytes([number]) * (5_000_000 + number) for number in range(5)]
for number in itertools.count():
    folder.write(f"{number % 3}.jpg", images[number % 5])
"""


def test_killed_writers_leave_whole_files_and_removable_temporaries(
    disk: Folder,
) -> None:
    random = Random(1)
    temporaries = rounds = 0
    # Repeat until kills have interrupted writes; otherwise the test proves nothing.
    while temporaries < 3:
        rounds += 1
        assert rounds < 50
        writer = subprocess.Popen([sys.executable, "-c", WRITER, disk.address])
        try:
            deadline = time.monotonic() + 60
            while "0.jpg" not in disk.sizes():
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(random.uniform(0, 0.05))
        finally:
            writer.kill()
            writer.wait()

        temporaries += sum(name.startswith(".") for name in disk.sizes())
        disk.remove_temporaries()
        assert "0.jpg" in disk.sizes()
        for name in disk.sizes():
            data = disk.read(name)
            assert data == data[:1] * (5_000_000 + data[0])
            disk.remove(name)


def test_remove_temporaries_keeps_all_other_files(disk: Folder) -> None:
    for name in (".a.jpg.123-456.tmp", "a.jpg", ".hidden", "a.tmp"):
        _write_externally(disk, name, b"")
    _write_externally(disk / "below", ".b.jpg.1-1.tmp", b"")
    disk.remove_temporaries()
    assert set(disk.sizes()) == {"a.jpg", ".hidden", "a.tmp"}
    assert set((disk / "below").sizes()) == {".b.jpg.1-1.tmp"}


def test_a_listing_is_complete_while_other_threads_write_to_the_folder(disk: Folder) -> None:
    for number in range(200):
        disk.write(f"kept-{number}.jpg", b"x")
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            disk.write("busy.jpg", b"x")

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(200):
            assert sum(name.startswith("kept-") for name in disk.sizes()) == 200
    finally:
        stop.set()
        for writer in writers:
            writer.join()


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
    assert open_storage(Settings(data_root=data_root)).root == Folder(address)
