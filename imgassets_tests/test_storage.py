"""Storage: files are whole or not there, on a disk and on an object store alike."""

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
    read_table,
    removed,
    write_table,
)

TABLE = pa.table({"key": ["a", "b"], "width": pa.array([1, None], pa.int32())})


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """A folder that does not exist yet, of each kind."""
    if request.param == "local":
        return Folder(f"{tmp_path}/data")
    return Folder(f"s3://{request.getfixturevalue('s3')}/data")


def _write_from_elsewhere(folder: Folder, name: str, data: bytes) -> None:
    """Write as another machine would: without a word to this process."""
    if folder.is_local:
        path = Path(folder.address, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    else:
        bucket, prefix = folder.address.removeprefix("s3://").split("/", 1)
        boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=data)


@pytest.mark.parametrize("data", [b"", b"four", bytes(range(256)) * 80_000])
def test_what_was_written_is_read(folder: Folder, data: bytes) -> None:
    folder.write("a.jpg", data)
    assert folder.read("a.jpg") == data
    assert folder.sizes() == {"a.jpg": len(data)}


def test_a_file_is_replaced_also_by_a_shorter_one(folder: Folder) -> None:
    folder.write("a.jpg", b"long ago")
    folder.write("a.jpg", b"now")
    assert folder.read("a.jpg") == b"now"
    assert folder.sizes() == {"a.jpg": 3}


def test_nested_folders_are_made_on_demand_and_are_no_files(folder: Folder) -> None:
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


def test_a_file_that_does_not_exist_is_not_found(folder: Folder) -> None:
    with pytest.raises(FileNotFoundError):
        folder.read("a.jpg")
    folder.write("b.jpg", b"")
    with pytest.raises(FileNotFoundError):
        folder.read("a.jpg")
    with pytest.raises(FileNotFoundError):
        read_table(folder)


def test_a_removed_file_is_gone_and_its_neighbour_stays(folder: Folder) -> None:
    folder.write("a.jpg", b"a")
    folder.write("b.jpg", b"b")
    folder.remove("a.jpg")
    folder.remove("a.jpg")
    folder.remove("never-there.jpg")
    assert folder.sizes() == {"b.jpg": 1}
    with pytest.raises(FileNotFoundError):
        folder.read("a.jpg")


def test_files_of_other_processes_are_seen_as_they_are_now(folder: Folder) -> None:
    folder.write("a.jpg", b"ours")
    assert folder.sizes() == {"a.jpg": 4}
    _write_from_elsewhere(folder, "a.jpg", b"theirs")
    assert folder.read("a.jpg") == b"theirs"
    _write_from_elsewhere(folder, "b.jpg", b"new")
    assert folder.read("b.jpg") == b"new"
    assert folder.sizes() == {"a.jpg": 6, "b.jpg": 3}
    folder.remove("b.jpg")
    _write_from_elsewhere(folder, "b.jpg", b"again")
    folder.remove("b.jpg")
    assert folder.sizes() == {"a.jpg": 6}


def test_more_files_than_one_answer_of_s3_holds_are_all_listed(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    folder = Folder(f"s3://{s3}/data")
    for number in range(23):
        folder.write(f"{number}.jpg", b"x")
    listed = boto3.client("s3").list_objects_v2(Bucket=s3)
    assert (len(listed["Contents"]), listed["IsTruncated"]) == (10, True)
    assert len(folder.sizes()) == 23


def test_threads_write_side_by_side(folder: Folder) -> None:
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


def test_a_manifest_is_a_compressed_file_of_its_name_beside_the_images(folder: Folder) -> None:
    partition = Storage(folder).partition("raw_images", "2026-01-31", "zara")
    write_table(partition, TABLE)
    (partition / IMAGES).write("a.jpg", b"four")
    place = f"{folder.address}/raw_images/date=2026-01-31/retailer=zara"
    data = Folder(place).read("manifest.parquet")
    metadata = pq.read_metadata(pa.BufferReader(data))
    compressions = {metadata.row_group(0).column(n).compression for n in range(2)}
    assert compressions == {"ZSTD"}
    assert Folder(f"{place}/images").read("a.jpg") == b"four"


def test_a_table_without_rows_or_of_some_columns_is_read(folder: Folder) -> None:
    write_table(folder, TABLE.slice(0, 0), "empty.parquet")
    assert read_table(folder, "empty.parquet").equals(TABLE.slice(0, 0))
    write_table(folder, TABLE)
    assert read_table(folder, columns=["width"]).equals(TABLE.select(["width"]))
    assert read_table(folder, MANIFEST, ["width", "key"]).column_names == ["width", "key"]


def test_files_that_were_removed_on_purpose_are_remembered_by_every_later_run(
    folder: Folder,
) -> None:
    assert removed(folder) == set()
    mark_removed(folder, [])
    assert folder.sizes() == {}
    mark_removed(folder, ["a.jpg", "b.jpg"])
    assert removed(folder) == {"a.jpg", "b.jpg"}
    mark_removed(folder, iter(["c.jpg"]))
    assert removed(folder) == {"a.jpg", "b.jpg", "c.jpg"}
    assert removed(folder / IMAGES) == set()
    # A note is no manifest, and no image.
    with pytest.raises(FileNotFoundError):
        read_table(folder)


def test_nothing_is_written_where_all_files_are_known_to_be_removed(disk: Folder) -> None:
    mark_removed(disk, ["a.jpg", "b.jpg"])
    (note,) = Path(disk.address).iterdir()
    written = note.stat().st_mtime_ns, note.stat().st_ino
    mark_removed(disk, ["b.jpg"])
    mark_removed(disk, ["b.jpg", "a.jpg"])
    mark_removed(disk, [])
    assert (note.stat().st_mtime_ns, note.stat().st_ino) == written


def test_a_broken_note_of_removed_files_is_told(folder: Folder) -> None:
    mark_removed(folder, ["a.jpg"])
    (name,) = folder.sizes()
    folder.write(name, b"no parquet")
    with pytest.raises(StorageError, match="is broken"):
        removed(folder)
    with pytest.raises(StorageError, match="is broken"):
        mark_removed(folder, ["b.jpg"])
    assert folder.read(name) == b"no parquet"


def test_a_folder_knows_whether_it_is_on_this_machine(folder: Folder) -> None:
    assert folder.is_local is not folder.address.startswith("s3://")
    assert (folder / IMAGES).is_local is folder.is_local


def test_the_path_of_a_folder_sees_what_others_wrote(s3: str) -> None:
    folder = Folder(f"s3://{s3}/data")
    folder.write("a.jpg", b"four")
    assert [path.name for path in folder.path.iterdir()] == ["a.jpg"]
    _write_from_elsewhere(folder, "b.jpg", b"new")
    assert sorted(path.name for path in folder.path.iterdir()) == ["a.jpg", "b.jpg"]


def test_a_table_is_read_as_it_was_written(folder: Folder) -> None:
    write_table(folder, TABLE)
    write_table(folder, TABLE.slice(1), "part.parquet")
    assert read_table(folder).equals(TABLE)
    assert read_table(folder, "part.parquet").equals(TABLE.slice(1))
    assert set(folder.sizes()) == {MANIFEST, "part.parquet"}


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no parquet at all", b"PAR1" * 50])
def test_a_broken_table_is_told_with_its_path_and_what_to_do(folder: Folder, data: bytes) -> None:
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
    place = data.draw(st.integers(0, len(whole) - 1))
    damage = data.draw(st.binary(max_size=8))
    folder.write(MANIFEST, whole[:place] + damage + whole[place + data.draw(st.integers(1, 8)) :])
    with suppress(StorageError):
        assert isinstance(read_table(folder), pa.Table)


def test_a_bucket_that_does_not_exist_is_told_when_writing(s3: str) -> None:
    folder = Folder(f"s3://{s3}-none/data")
    with pytest.raises(StorageError, match=f"cannot write s3://{s3}-none/data/a.jpg: "):
        folder.write("a.jpg", b"")


def test_a_storage_that_does_not_answer_is_told(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    _assert_unusable(Folder(f"s3://{s3}/data"))


def test_a_folder_below_a_file_cannot_be_used(tmp_path: Path) -> None:
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
    again = "; repair the storage, then run the partition again"
    kept = ": what was done is kept"
    told = {
        "write": (file, f"; free space or{again.removeprefix(';')}{kept}"),
        "read": (file, again + kept),
        "list": (folder.address, again),
        "remove": (file, again),
    }
    for word, attempt in attempts.items():
        with pytest.raises(StorageError) as error:
            attempt()
        address, end = told[word]
        assert str(error.value).startswith(f"cannot {word} {address}: ")
        assert str(error.value).endswith(end)
        assert str(error.value.__cause__) in str(error.value)


# On a disk only.


@pytest.fixture
def disk(tmp_path: Path) -> Folder:
    return Folder(f"{tmp_path}/data")


def test_a_writer_that_fails_half_way_leaves_the_old_file_and_nothing_else(
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


def test_writes_that_the_system_cuts_in_pieces_arrive_whole(
    disk: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: really_write(handle, data[:3]))
    disk.write("a.jpg", b"0123456789")
    assert disk.read("a.jpg") == b"0123456789"


def test_a_file_is_open_to_others_as_far_as_the_umask_lets_it(disk: Folder) -> None:
    before = os.umask(0o002)
    try:
        for name in ("first.jpg", "second.jpg"):  # the first one makes the folder
            disk.write(name, b"data")
    finally:
        os.umask(before)
    for file in Path(disk.address).iterdir():
        assert file.stat().st_mode & 0o777 == 0o664


def test_a_folder_that_another_process_makes_at_the_same_moment_is_used(
    disk: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_before_it_is_made(path: str, *_: int) -> int:
        monkeypatch.undo()
        (disk / "sub").write("theirs.jpg", b"data")
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(os, "open", open_before_it_is_made)
    (disk / "sub").write("ours.jpg", b"data")
    assert set((disk / "sub").sizes()) == {"ours.jpg", "theirs.jpg"}


def test_a_writer_whose_temporary_file_was_swept_away_tells_which_file_it_could_not_write(
    disk: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_write = os.write

    def swept(handle: int, data: bytes) -> int:
        monkeypatch.undo()
        disk.remove_temporaries()
        return really_write(handle, data)

    monkeypatch.setattr(os, "write", swept)
    with pytest.raises(StorageError, match="No such file") as told:
        disk.write("a.jpg", b"data")
    cause = told.value.__cause__
    assert isinstance(cause, FileNotFoundError)
    assert cause.filename2 == f"{disk.address}/a.jpg"
    assert disk.sizes() == {}


def test_no_file_stays_open(disk: Folder) -> None:
    disk.write("a.jpg", b"data")
    before = psutil.Process().num_fds()
    for _ in range(20):
        disk.write("a.jpg", b"data")
        disk.read("a.jpg")
        disk.sizes()
    assert psutil.Process().num_fds() < before + 10


def test_two_threads_that_write_one_file_leave_the_last_one_whole(
    disk: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_write = os.write

    def write_beside(handle: int, data: bytes) -> int:
        """Write a part; before the rest, another thread writes the whole file."""
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


def test_two_processes_that_write_one_file_leave_the_last_one_whole(disk: Folder) -> None:
    subprocess.run([sys.executable, "-c", FORKED, disk.address], check=True, timeout=60)
    assert disk.read("a.jpg") == b"ours, and longer"
    assert disk.sizes() == {"a.jpg": 16}


def test_what_a_killed_process_of_the_same_number_left_is_no_part_of_a_file(
    disk: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_write = os.write
    temporaries: list[Path] = []

    def watched(handle: int, data: bytes) -> int:
        temporaries.extend(Path(disk.address).glob(".*"))
        return really_write(handle, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", watched)
        disk.write("a.jpg", b"data")
    (left,) = temporaries
    left.write_bytes(b"longer than what is written next")
    disk.write("a.jpg", b"new")
    assert disk.read("a.jpg") == b"new"
    assert disk.sizes() == {"a.jpg": 3}


def test_a_write_that_is_interrupted_leaves_nothing(
    disk: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.write("a.jpg", b"old")

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
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


def test_a_full_disk_is_told_in_one_line_and_leaves_no_piece_of_a_file(disk: Folder) -> None:
    # A limit on the size of files ends a write as a full disk does: after some of its bytes.
    told = subprocess.run(
        [sys.executable, "-c", FULL_DISK, disk.address],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert told == (
        f"cannot write {disk.address}/large.jpg: [Errno 27] File too large; free space or repair "
        "the storage, then run the partition again: what was done is kept\n"
    )
    assert disk.sizes() == {"small.jpg": 100_000}


WRITER = """
import itertools, sys
from imgassets.storage import Folder
folder = Folder(sys.argv[1])
pictures = [bytes([number]) * (5_000_000 + number) for number in range(5)]
for number in itertools.count():
    folder.write(f"{number % 3}.jpg", pictures[number % 5])
"""


def test_killed_writers_leave_whole_files_and_temporaries_that_are_swept_away(
    disk: Folder,
) -> None:
    random = Random(1)
    temporaries = rounds = 0
    # Until kills have hit writes half way: else the test would show nothing.
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


def test_sweeping_removes_temporaries_only(disk: Folder) -> None:
    for name in (".a.jpg.123-456.tmp", "a.jpg", ".hidden", "a.tmp"):
        _write_from_elsewhere(disk, name, b"")
    _write_from_elsewhere(disk / "below", ".b.jpg.1-1.tmp", b"")
    disk.remove_temporaries()
    assert set(disk.sizes()) == {"a.jpg", ".hidden", "a.tmp"}
    assert set((disk / "below").sizes()) == {".b.jpg.1-1.tmp"}


def test_a_listing_is_complete_while_others_write_to_the_folder(disk: Folder) -> None:
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
def test_the_data_root_names_a_folder_or_an_object_store(data_root: str, address: str) -> None:
    assert open_storage(Settings(data_root=data_root)).root == Folder(address)
