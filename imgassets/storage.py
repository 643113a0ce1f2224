"""The data root: the layout of its files, and atomic reads and writes.

The data root is a local folder or a prefix of an object store that fsspec supports
(`s3://bucket/prefix`, `gs://...`). Paths, in this module and in manifests, are relative to it, so
that a copied or moved tree stays valid:

    manifests/<asset>/<retailer>.<date>.parquet                one row per URL; nothing but Parquet
    images/raw/<retailer>/<2 digits>/<sha256>.<ext>            as served, named by its SHA-256
    images/processed/<retailer>/<2 digits>/<sha256>-<settings hash>.<ext>
                                                               SHA-256 of the served bytes
    review/retailer=<retailer>/date=<date>/                    contact sheets, plots
    journal/<asset>/retailer=<retailer>/date=<date>/           only while a run works, or was killed
    journal/temporary/values/<run>/                            what its ops passed on, for a week
    removed/                                                   records of take-downs
    reports/<date>.parquet                                     a row of numbers per retailer

The columns of a manifest are in `manifests`, the journal in `journal`, take-downs in `takedown`.
"""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import io
import itertools
import logging
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imgassets.errors import BrokenFileError, StorageError
from imgassets.folders import resolve_data_root
from imgassets.settings import Settings
from imgassets.tables import release_memory

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_log = logging.getLogger(__name__)
MANIFESTS, JOURNALS, REVIEW, REMOVED = "manifests", "journal", "review", "removed"
RAW_FILES, PROCESSED_FILES = "images/raw", "images/processed"
_TEMPORARY = f"{JOURNALS}/temporary"
_TEMPORARY_MAX_AGE = dt.timedelta(days=1)  # no write takes that long: its process was killed
OP_VALUES = f"{_TEMPORARY}/values"
# No run takes that long. A run that is retried reads the values of the first attempt.
_OP_VALUES_MAX_AGE = dt.timedelta(days=7)
_MANIFEST = re.compile(r"([a-z0-9-]+)\.(\d{4}-\d\d-\d\d)\.parquet")
# In an object store, the size of a file comes from a listing or from a request of its own (HEAD).
# A listing has 1,000 files per request. At AWS it costs as much as 12.5 requests for one file, and
# with s3fs it takes as much CPU as 40 of them (65 ms). So a listing of up to 40 files per file that
# is looked for is cheaper than a request for each.
_LISTED_PER_REQUEST = 1_000
_LISTED_PER_FILE = 40
_DIGIT_FOLDERS = 256  # folders of two hexadecimal digits, into which hashes spread files evenly
_FEW_FILES = 4  # not worth a listing
_SIZES_BATCH = 20_000
_THREADS = 32
_RETRY_S = 2.0
# Errors that the same request will have again, beside those with a class of their own.
_LASTING_ERRORS = (
    FileNotFoundError,
    PermissionError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
)
_LASTING_ERRNOS = {
    getattr(errno, name)
    for name in ("EINVAL", "EPERM", "ENOSYS", "ENAMETOOLONG", "EMSGSIZE", "EREMCHG")
    if hasattr(errno, name)
}
# When s3fs reads a whole file, it asks for its size first, in order to read parts of large files at
# once. With a concurrency of 1 it does not.
_OPTIONS = {"s3": {"max_concurrency": 1}, "s3a": {"max_concurrency": 1}}
_FOLDER_ATTEMPTS = 100
_BATCH = 50_000  # rows
# In the names of temporary files, with the process id: processes that were forked have the same
# random text, and containers that share a data root the same process ids. A random name per file
# would cost a system call, for which a thread has to wait for the GIL again.
_PROCESS_TREE = uuid4().hex
_write_number = itertools.count()

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file in the storage.

    Attributes:
        size: Its size in bytes.
        modified: When it was last written.
    """

    size: int
    modified: dt.datetime


@dataclass(frozen=True)
class Storage:
    """The data root on a disk or in an object store; files in it are addressed by relative paths.

    A request to an object store that is away, or too busy, is repeated for `patience_s`, with a
    line in Python's log (`imgassets.storage`).

    Attributes:
        root: A local path or an fsspec address, without a trailing slash.
        patience_s: For how long a request is repeated, in seconds since it first failed. The
            library of the object store may repeat it too before it counts as failed; s3fs does so
            for 7 s on average.
    """

    root: str
    patience_s: float = 60.0

    @property
    def is_local(self) -> bool:
        """Whether the data root is a folder in the local file system."""
        return "://" not in self.root

    def address(self, path: str) -> str:
        """The absolute path or fsspec address of a file or folder."""
        return f"{self.root}/{path}"

    def partition(self, date: str, retailer: str) -> PartitionFiles:
        """The files of one partition."""
        return PartitionFiles(self, date, retailer)

    def write(self, path: str, data: bytes) -> None:
        """Write a file atomically; an existing file is replaced.

        Readers, and the next run after a `kill -9`, see either the old file or the new one.

        Args:
            path: The path of the file.
            data: Its content.

        Raises:
            StorageError: The storage is full, not reachable or not writable.
        """
        try:
            if self.is_local:
                self._write_local(path, data)
            else:
                # A single PUT is atomic: object stores show an object when it is complete.
                self._request(path, lambda fs, place: fs.pipe_file(place, data))
        except Exception as error:
            raise _storage_error("write", self.address(path), error) from error

    def read(self, path: str) -> bytes:
        """Read a file.

        Args:
            path: The path of the file.

        Raises:
            FileNotFoundError: The file does not exist.
            StorageError: The storage is not reachable or not readable.
        """
        try:
            if self.is_local:
                return Path(self.root, path).read_bytes()
            data: bytes = self._request(path, lambda fs, place: fs.cat_file(place))
        except FileNotFoundError:
            raise
        except Exception as error:
            raise _storage_error("read", self.address(path), error) from error
        return data

    def open(self, path: str) -> pa.NativeFile:
        """Open a file for reading any part of it; an object store is asked for the whole file.

        Args:
            path: The path of the file.

        Raises:
            FileNotFoundError: The file does not exist.
            StorageError: The storage is not reachable or not readable.
        """
        if not self.is_local:
            return pa.BufferReader(self.read(path))
        try:
            return pa.OSFile(self.address(path))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _storage_error("read", self.address(path), error) from error

    def lines(self, path: str) -> Iterator[bytes]:
        """The lines of a file, with their line breaks; on a disk, they are read one at a time.

        Args:
            path: The path of the file.

        Raises:
            FileNotFoundError: The file does not exist.
            StorageError: The storage is not reachable or not readable.
        """
        if not self.is_local:
            yield from io.BytesIO(self.read(path))
            return
        try:
            with Path(self.root, path).open("rb") as file:
                yield from file
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _storage_error("read", self.address(path), error) from error

    def sha256(self, path: str) -> str:
        """The SHA-256 of a file's content, in hexadecimal.

        Args:
            path: The path of the file.

        Raises:
            FileNotFoundError: The file does not exist.
            StorageError: The storage is not reachable or not readable.
        """
        return hashlib.sha256(self.read(path)).hexdigest()

    def sizes(self, paths: Iterable[str]) -> dict[str, int]:
        """Sizes in bytes of those of the given files that exist, by path.

        In an object store, this lists their folders rather than asking for each file. So ask for
        all files of a folder at once; in parts, in the order of their paths.

        Args:
            paths: Paths of files.

        Raises:
            StorageError: The storage is not reachable or not readable.
        """
        wanted = dict.fromkeys(paths)
        if self.is_local:
            local = ((path, self._local_size(path)) for path in wanted)
            return {path: size for path, size in local if size is not None}
        if len(wanted) <= _FEW_FILES:
            return self._sizes_of_files(wanted)
        siblings: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for path in wanted:
            folder = path.rpartition("/")[0]
            siblings[folder.rpartition("/")[0]][folder].add(path)
        found: dict[str, int] = {}
        for parent, folders in siblings.items():
            found |= self._sizes_in(parent, folders)
        return found

    def column_sizes(self, paths: pa.ChunkedArray) -> pa.ChunkedArray:
        """Sizes in bytes of files, one per path; null where the path is null or there is no file.

        Args:
            paths: Paths of files, as in a column of a manifest.

        Raises:
            StorageError: The storage is not reachable or not readable.
        """
        # An object store may list a whole folder for them.
        batch = _SIZES_BATCH if self.is_local else max(1, len(paths))
        found = []
        for start in range(0, len(paths), batch):
            values = paths.slice(start, batch).to_pylist()
            sizes = self.sizes(path for path in values if path is not None)
            found.append(pa.array(map(sizes.get, values), pa.int64()))
        return pa.chunked_array(found, pa.int64())

    def find(self, folder: str) -> dict[str, FileInfo]:
        """All files in a folder and its subfolders, by path; empty if it does not exist.

        Args:
            folder: The path of the folder.

        Raises:
            StorageError: The storage is not reachable or not readable.
        """
        try:
            if self.is_local:
                return dict(self._find_local(folder))
            found: dict[str, dict[str, Any]] = self._request(
                folder, lambda fs, place: fs.find(place, detail=True)
            )
            start = len(self._place("")[1].rstrip("/")) + 1
            return {
                name[start:]: _object_info(info)
                for name, info in found.items()
                if not name.endswith("/")  # some tools mark a folder by an object
            }
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise _storage_error("list", self.address(folder), error) from error

    def names(self, folder: str, prefix: str = "") -> list[str]:
        """Names of the files and folders in a folder, sorted; empty if it does not exist.

        Args:
            folder: The path of the folder.
            prefix: For names that begin with it only. An object store then lists no others; the
                folder must not have subfolders.

        Raises:
            StorageError: The storage is not reachable or not readable.
        """
        try:
            if self.is_local:
                found = os.listdir(self.address(folder))  # noqa: PTH208  (half the time)
                return sorted(name for name in found if name.startswith(prefix))
            listed, start = self._request(
                folder,
                lambda fs, place: (
                    fs.find(place, prefix=prefix) if prefix else fs.ls(place, detail=False),
                    len(place) + 1,
                ),
            )
        except FileNotFoundError:
            return []
        except Exception as error:
            raise _storage_error("list", self.address(folder), error) from error
        names = (name.rstrip("/")[start:] for name in listed)
        # Some tools mark a folder by an object, and some file systems ignore the prefix.
        return sorted(name for name in names if name and name.startswith(prefix))

    def remove(self, path: str) -> None:
        """Remove a file, if it exists.

        Args:
            path: The path of the file.

        Raises:
            StorageError: The storage is not reachable or not writable.
        """
        try:
            if self.is_local:
                Path(self.root, path).unlink()
            else:
                self._request(path, lambda fs, place: fs.rm_file(place))
        except FileNotFoundError:
            pass
        except Exception as error:
            raise _storage_error("remove", self.address(path), error) from error

    def remove_all(self, paths: Iterable[str]) -> None:
        """Remove files, if they exist; in an object store many with one request.

        Args:
            paths: Paths of files.

        Raises:
            StorageError: The storage is not reachable or not writable; some files may be removed.
        """
        left: Collection[str] = list(dict.fromkeys(paths))
        if self.is_local:
            for path in left:
                self.remove(path)
            return
        if self._remove_at_once(left):
            left = self.sizes(left)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="remove") as pool:
            list(pool.map(self.remove, left))

    def remove_folder(self, folder: str) -> None:
        """Remove the files of a folder in the order of their names, then the folder.

        In an object store they are removed with one request, in any order.

        Raises:
            StorageError: The storage is not reachable or not writable.
        """
        left = sorted(self.find(folder))
        if self._remove_at_once(left):
            left = sorted(self.find(folder))
        for path in left:
            self.remove(path)
        self.remove_empty_folders(folder)

    def remove_empty_folders(self, folder: str) -> None:
        """Remove a local folder and its subfolders as far as they are empty, then its parents.

        Object stores have no folders. A folder into which another process writes stays, and a
        writer whose folder is removed under it creates it again.
        """
        if not self.is_local:
            return
        for place, _, _ in os.walk(self.address(folder), topdown=False):
            with suppress(OSError):
                os.rmdir(place)  # noqa: PTH106
        parent = folder.rpartition("/")[0]
        with suppress(OSError):
            while parent:
                os.rmdir(self.address(parent))  # noqa: PTH106
                parent = parent.rpartition("/")[0]

    def old_temporaries(self, max_age: dt.timedelta = _TEMPORARY_MAX_AGE) -> dict[str, FileInfo]:
        """The temporary files of writers that were killed, and old values between ops, by path.

        Args:
            max_age: Younger files are left out, because their writers may be active. Values between
                ops are left out for a week, whatever it is, because runs and retries read them.

        Raises:
            StorageError: The storage is not reachable or not readable.
        """
        now = dt.datetime.now(dt.UTC)

        def is_old(path: str, info: FileInfo) -> bool:
            is_value = path.startswith(f"{OP_VALUES}/")
            return info.modified < now - (max(max_age, _OP_VALUES_MAX_AGE) if is_value else max_age)

        found = self.find(_TEMPORARY)
        return {path: info for path, info in found.items() if is_old(path, info)}

    def remove_old_temporaries(self, max_age: dt.timedelta = _TEMPORARY_MAX_AGE) -> list[str]:
        """Remove the files that `old_temporaries` returns.

        Args:
            max_age: See `old_temporaries`.

        Returns:
            The paths of the removed files.
        """
        removed = list(self.old_temporaries(max_age))
        self.remove_all(removed)
        return removed

    def _request(self, path: str, send: Callable[[AbstractFileSystem, str], T]) -> T:
        """Send a request to the object store; again and again while the store is away.

        Args:
            path: The path of a file or folder.
            send: Called with the file system and the name of the file or folder in it.

        Raises:
            Exception: What `send` raised last.
        """
        give_up_at: float | None = None
        while True:
            try:
                return send(*self._place(path))
            except Exception as error:
                now, is_first = time.monotonic(), give_up_at is None
                give_up_at = give_up_at or now + self.patience_s
                if now >= give_up_at or not _may_pass(error):
                    raise
                if is_first:
                    text = "%s: %s; trying again for %g s"
                    _log.warning(text, self.address(path), error, self.patience_s)
            time.sleep(_RETRY_S)

    def _place(self, path: str) -> tuple[AbstractFileSystem, str]:
        """The file system of the object store, and the name of a file or folder in it."""
        from fsspec.core import url_to_fs

        # Other processes change the files, so cached listings would be stale. fsspec keeps the file
        # system with its connections for the next call.
        options = _OPTIONS.get(self.root.partition("://")[0], {})
        file_system, root = url_to_fs(self.root, use_listings_cache=False, **options)
        return file_system, f"{root.rstrip('/')}/{path}" if path else root

    def _remove_at_once(self, paths: Collection[str]) -> bool:
        """Try to remove files of an object store with few requests; return whether it was tried.

        File systems differ in what they do about a file that they cannot remove, and s3fs does not
        report it: remove those that are left one by one.
        """
        # fsspec would take these characters for patterns.
        plain = [path for path in paths if not set(path) & set("*?[")]
        if self.is_local or len(plain) <= _FEW_FILES:
            return False
        root = self._place("")[1].rstrip("/")
        with suppress(Exception):
            self._request("", lambda fs, _: fs.rm([f"{root}/{path}" for path in plain]))
        return True

    def _sizes_in(self, parent: str, folders: Mapping[str, set[str]]) -> dict[str, int]:
        """Sizes of those of the given files that exist, with as few requests as possible.

        Args:
            parent: The path of a folder with up to 256 subfolders.
            folders: Paths of files, by their subfolder.
        """

        def sizes(files: Mapping[str, FileInfo], wanted: set[str]) -> dict[str, int]:
            return {path: files[path].size for path in wanted & files.keys()}

        first, *others = folders
        sample = self.find(first)
        each = len(sample) + 1  # an estimate for the other subfolders
        if _DIGIT_FOLDERS * each / _LISTED_PER_REQUEST < len(others) / 8:
            # Few requests, though one after the other.
            return sizes(self.find(parent), set().union(*folders.values()))
        found = sizes(sample, folders[first])
        left = sum(len(folders[folder]) for folder in others)
        if len(others) * each > _LISTED_PER_FILE * left:
            return found | self._sizes_of_files(set().union(*(folders[name] for name in others)))
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="list") as pool:
            # A retailer can have millions of files: of each listing, only what is wanted is kept.
            for part in pool.map(lambda name: sizes(self.find(name), folders[name]), others):
                found |= part
        return found

    def _sizes_of_files(self, paths: Collection[str]) -> dict[str, int]:
        """Sizes of those of the given files that exist, with a request for each."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="sizes") as pool:
            sizes = pool.map(self._object_size, paths)
            return {path: size for path, size in zip(paths, sizes, strict=True) if size is not None}

    def _local_size(self, path: str) -> int | None:
        try:
            return os.stat(self.address(path)).st_size  # noqa: PTH116  (half the time of a Path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _storage_error("read", self.address(path), error) from error

    def _object_size(self, path: str) -> int | None:
        try:
            return int(self._request(path, lambda fs, place: fs.info(place))["size"])
        except FileNotFoundError:
            return None
        except Exception as error:
            raise _storage_error("read", self.address(path), error) from error

    def _find_local(self, folder: str) -> Iterator[tuple[str, FileInfo]]:
        with os.scandir(self.address(folder)) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}"
                # Concurrent writers rename and remove files during the scan.
                with suppress(FileNotFoundError):
                    if entry.is_dir():
                        yield from self._find_local(path)
                    else:
                        status = entry.stat()
                        modified = dt.datetime.fromtimestamp(status.st_mtime, dt.UTC)
                        yield path, FileInfo(status.st_size, modified)

    def _write_local(self, path: str, data: bytes) -> None:
        # Not beside the file: engines that open a folder of manifests or images would read it.
        name = f"{_PROCESS_TREE}-{os.getpid()}-{next(_write_number)}"
        temporary = self.address(f"{_TEMPORARY}/{name}")
        handle = open_local(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            try:
                write_all(handle, data)
            finally:
                os.close(handle)
            target = self.address(path)
            # os.replace: creating a Path takes as long as the call.
            _in_folder(target, lambda: os.replace(temporary, target))  # noqa: PTH105
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def open_local(path: str, flags: int) -> int:
    """Open a local file and return its descriptor; its folder is created if necessary."""
    return _in_folder(path, lambda: os.open(path, flags, 0o666))


def write_all(handle: int, data: bytes) -> None:
    """Write all bytes to a file descriptor; the system may write fewer per call."""
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[os.write(handle, remaining) :]


def open_storage(settings: Settings) -> Storage:
    """The storage at `data_root` of the settings; nothing is read or written."""
    return storage_at(settings.data_root)


def storage_at(data_root: str) -> Storage:
    """The storage at a data root; nothing is read or written.

    Args:
        data_root: A folder, relative to the project folder or absolute, or an fsspec address.
    """
    return Storage(resolve_data_root(data_root))


@dataclass(frozen=True)
class PartitionFiles:
    """The manifests, the review files and the journals of one partition.

    Attributes:
        storage: The storage.
        date: The day of the partition, `YYYY-MM-DD`.
        retailer: Slug of the retailer.
    """

    storage: Storage
    date: str
    retailer: str

    def manifest(self, asset: str) -> str:
        """The path of the manifest of an asset.

        One flat folder per asset, because that is what every engine opens without options: with
        `retailer=.../date=...` folders, pandas and pyarrow refuse to merge the text columns of the
        files with the dictionary columns that they infer from the folders.
        """
        return f"{MANIFESTS}/{asset}/{self.retailer}.{self.date}.parquet"

    def journal(self, asset: str) -> str:
        """The path of the folder of an asset's journal."""
        return f"{JOURNALS}/{asset}/retailer={self.retailer}/date={self.date}"

    @property
    def review(self) -> str:
        """The path of the folder of contact sheets and plots."""
        return f"{REVIEW}/retailer={self.retailer}/date={self.date}"

    def read_manifest(self, asset: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the manifest of an asset.

        Args:
            asset: The name of the asset.
            columns: The columns to read, without those that the manifest lacks; `None` for all.

        Raises:
            FileNotFoundError: There is no manifest.
            StorageError: The manifest is broken, or the storage is not reachable or not readable.
        """
        return read_table(self.storage, self.manifest(asset), columns)

    def open_manifest(self, asset: str) -> TableFile:
        """Read the manifest of an asset, in parts if it is large.

        Args:
            asset: The name of the asset.

        Raises:
            FileNotFoundError: There is no manifest.
            StorageError: The manifest is broken, or the storage is not reachable or not readable.
        """
        return TableFile(self.storage, self.manifest(asset))

    def write_manifest(self, asset: str, table: pa.Table) -> None:
        """Write the manifest of an asset, atomically.

        Args:
            asset: The name of the asset.
            table: The rows, as `manifests.to_table` returns them.

        Raises:
            StorageError: The storage is full, not reachable or not writable.
        """
        write_table(self.storage, self.manifest(asset), table)


def raw_path(retailer: str, sha256: str, extension: str) -> str:
    """The path of a served file.

    Args:
        retailer: Slug of the retailer.
        sha256: SHA-256 of the file, in hexadecimal.
        extension: Extension of the file name, without the dot.
    """
    return f"{RAW_FILES}/{retailer}/{sha256[:2]}/{sha256}.{extension}"


def processed_path(retailer: str, raw_sha256: str, settings_hash: str, extension: str) -> str:
    """The path of a processed image.

    Args:
        retailer: Slug of the retailer.
        raw_sha256: SHA-256 of the served file, in hexadecimal.
        settings_hash: Hash of all settings that the image depends on.
        extension: Extension of the file name, without the dot.
    """
    name = f"{raw_sha256}-{settings_hash}.{extension}"
    return f"{PROCESSED_FILES}/{retailer}/{raw_sha256[:2]}/{name}"


def list_manifests(
    storage: Storage, asset: str, retailer: str | None = None
) -> list[PartitionFiles]:
    """The partitions that have a manifest of an asset, by retailer and date.

    Args:
        storage: The storage.
        asset: The name of the asset.
        retailer: Slug of a retailer, for its partitions only.

    Raises:
        StorageError: The storage is not reachable or not readable.
    """
    prefix = f"{retailer}." if retailer else ""
    matches = map(_MANIFEST.fullmatch, storage.names(f"{MANIFESTS}/{asset}", prefix))
    found = (PartitionFiles(storage, match[2], match[1]) for match in matches if match)
    return sorted(
        (partition for partition in found if retailer in (None, partition.retailer)),
        key=lambda partition: (partition.retailer, partition.date),
    )


def retailers_with_images(storage: Storage) -> list[str]:
    """Slugs of the retailers that have image files, sorted.

    Raises:
        StorageError: The storage is not reachable or not readable.
    """
    return sorted({*storage.names(RAW_FILES), *storage.names(PROCESSED_FILES)})


def processed_raw_sha256(
    storage: Storage, retailer: str, wanted: pa.Array | pa.ChunkedArray
) -> pa.Array:
    """SHA-256 of those of the given served files of which a processed image is stored.

    Args:
        storage: The storage.
        retailer: Slug of the retailer.
        wanted: SHA-256 of served files, in hexadecimal; null is none.

    Raises:
        StorageError: The storage is not reachable or not readable.
    """
    folders = pc.unique(pc.utf8_slice_codeunits(wanted.drop_null(), 0, 2)).to_pylist()
    stored = [pa.array([], pa.string())]
    for folder in sorted(folders):
        names = storage.names(f"{PROCESSED_FILES}/{retailer}/{folder}")
        stored.append(pa.array({name.partition("-")[0] for name in names}, pa.string()))
    processed = pa.concat_arrays(stored)
    return processed.filter(pc.is_in(processed, value_set=pc.unique(wanted)))


def write_table(storage: Storage, path: str, table: pa.Table) -> None:
    """Write a table as Parquet (zstd), atomically.

    Args:
        storage: The storage to write to.
        path: The path of the file.
        table: The table.

    Raises:
        StorageError: The storage is full, not reachable or not writable.
    """
    write_parts(storage, path, table.schema, [table])


def write_parts(storage: Storage, path: str, schema: pa.Schema, parts: Iterable[pa.Table]) -> None:
    """Write the parts of a table as one file, as `write_table` does; one part is in memory.

    Args:
        storage: See `write_table`.
        path: See `write_table`.
        schema: The schema of all parts, with the metadata of the table.
        parts: The parts.

    Raises:
        StorageError: See `write_table`.
    """
    # Not PyArrow's buffer: it doubles to grow, and its bytes are a copy.
    file = io.BytesIO()
    with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
        for part in parts:
            # `datasets` cannot read a row group without rows.
            if part.num_rows:
                writer.write_table(part)
    storage.write(path, file.getvalue())


class TableFile:
    """A Parquet file of which columns or parts are read at different times."""

    def __init__(self, storage: Storage, path: str) -> None:
        """Read the file, but none of its columns.

        Args:
            storage: The storage to read from.
            path: The path of the file.

        Raises:
            FileNotFoundError: The file does not exist.
            BrokenFileError: The file is not valid Parquet.
            StorageError: The storage is not reachable or not readable.
        """
        data = storage.open(path)
        self._address = storage.address(path)
        with self._explain_errors():
            # `pre_buffer` would read in a further thread, and keep what it reads.
            self._file = pq.ParquetFile(data, pre_buffer=False, page_checksum_verification=True)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read columns.

        Args:
            columns: The columns to read, without those that the file lacks; `None` for all.

        Raises:
            BrokenFileError: The file is not valid Parquet.
            StorageError: The storage is not readable.
        """
        release_memory()
        with self._explain_errors():
            # PyArrow would start a thread per core of the machine, whatever the quota of the
            # container: with 64, reading 20,000 rows took 52 instead of 6 CPU ms.
            return self._file.read(columns=columns, use_threads=False)

    def parts(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Read columns in parts of 50,000 rows.

        Args:
            columns: See `read`.

        Raises:
            BrokenFileError: The file is not valid Parquet.
            StorageError: The storage is not readable.
        """
        with self._explain_errors():
            for batch in self._file.iter_batches(_BATCH, columns=columns, use_threads=False):
                yield pa.Table.from_batches([batch])

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        # PyArrow decodes the names of columns without handling errors.
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the system
                raise _storage_error("read", self._address, error) from error
            raise BrokenFileError(
                f"{self._address} is broken: {error}; "
                "delete it, then materialize its partition again"
            ) from error


def read_table(storage: Storage, path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet table.

    Args:
        storage: The storage to read from.
        path: The path of the file.
        columns: The columns to read; `None` for all.

    Raises:
        FileNotFoundError: The file does not exist.
        BrokenFileError: The file is not valid Parquet.
        StorageError: The storage is not reachable or not readable.
    """
    return TableFile(storage, path).read(columns)


def _in_folder(path: str, action: Callable[[], T]) -> T:
    """Create a file with `action`; if its folder does not exist, create that first.

    Another process may remove the empty folder before the file is created, hence several attempts.
    """
    for _ in range(_FOLDER_ATTEMPTS):
        try:
            return action()
        except FileNotFoundError:
            # `mkdir` fails too if one of the folders is removed while it works.
            with suppress(FileNotFoundError, FileExistsError):
                Path(path).parent.mkdir(parents=True, exist_ok=True)
    return action()


def _may_pass(error: Exception) -> bool:
    """Whether a request to an object store may succeed later: the store is away or too busy."""
    if isinstance(error, OSError):
        return not isinstance(error, _LASTING_ERRORS) and error.errno not in _LASTING_ERRNOS
    try:
        # Not OSErrors. gcsfs and adlfs repeat requests for half a minute and more themselves.
        from botocore.exceptions import ConnectionError as S3ConnectionError
        from botocore.exceptions import HTTPClientError
    except ImportError:
        return False
    return isinstance(error, S3ConnectionError | HTTPClientError)


def _object_info(info: Mapping[str, Any]) -> FileInfo:
    # The names that s3fs, gcsfs and adlfs use.
    modified = info.get("LastModified") or info.get("updated") or info.get("last_modified")
    if isinstance(modified, str):
        modified = dt.datetime.fromisoformat(modified)
    return FileInfo(int(info["size"]), modified or dt.datetime.now(dt.UTC))


def _storage_error(verb: str, address: str, error: Exception) -> StorageError:
    remedy = "free space or repair the storage" if verb == "write" else "repair the storage"
    return StorageError(
        f"cannot {verb} {address}: {error}; {remedy}, then run the partition again; "
        "finished work is kept"
    )
