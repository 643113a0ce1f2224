"""The layout of manifests and images in storage, and atomic reads and writes.

Storage is a local folder or an object store that fsspec supports (`s3://bucket/prefix`, `gs://...`).
Partitions have a Hive-style layout. The columns of a manifest are in `manifests`.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from imgassets.errors import StorageError
from imgassets.folders import project_root
from imgassets.settings import Settings

if TYPE_CHECKING:
    from upath import UPath

MANIFEST = "manifest.parquet"
IMAGES = "images"
CONTACT_SHEET = "contact_sheet.jpg"
_REMOVED = "_removed.parquet"
_TEMPORARY = ".tmp"


@dataclass(frozen=True)
class Folder:
    """A folder on a disk or in an object store; files in it are addressed by name.

    Attributes:
        address: A local path or an fsspec address, without a trailing slash.
    """

    address: str

    def __truediv__(self, name: str) -> Folder:
        """The subfolder `name`."""
        return Folder(f"{self.address}/{name}")

    @property
    def path(self) -> UPath:
        """This folder as a `UPath`, for operations that this class does not have."""
        from upath import UPath

        # Other processes change the folder, so cached listings would be stale.
        return UPath(self.address, use_listings_cache=False)

    @property
    def is_local(self) -> bool:
        """Whether this is a folder in the local file system."""
        return "://" not in self.address

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically; an existing file is replaced.

        Readers, and the next run after a `kill -9`, see either the old file or the new one.

        Args:
            name: The name of the file.
            data: Its content.

        Raises:
            StorageError: The storage is full, not reachable or not writable.
        """
        try:
            if self.is_local:
                _write_local(self.address, name, data)
            else:
                # A single PUT is atomic: object stores show an object when it is complete.
                path = self.path / name
                path.fs.pipe_file(path.path, data)
        except Exception as error:
            raise StorageError(
                f"cannot write {self.address}/{name}: {error}; "
                "free space or repair the storage, then run the partition again; "
                "finished work is kept"
            ) from error

    def read(self, name: str) -> bytes:
        """Read a file.

        Args:
            name: The name of the file.

        Raises:
            FileNotFoundError: The file does not exist.
            StorageError: The storage is not reachable or not readable.
        """
        try:
            if self.is_local:
                return Path(self.address, name).read_bytes()
            path = self.path / name
            data: bytes = path.fs.cat_file(path.path)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise StorageError(
                f"cannot read {self.address}/{name}: {error}; repair the storage, "
                "then run the partition again; finished work is kept"
            ) from error
        return data

    def sha256(self, name: str) -> str:
        """The SHA-256 of a file's content, in hexadecimal.

        Args:
            name: The name of the file.

        Raises:
            FileNotFoundError: The file does not exist.
            StorageError: The storage is not reachable or not readable.
        """
        return hashlib.sha256(self.read(name)).hexdigest()

    def sizes(self) -> dict[str, int]:
        """Size in bytes of every file, by name; empty if the folder does not exist.

        Raises:
            StorageError: The storage is not reachable or not readable.
        """
        try:
            if self.is_local:
                return _local_sizes(self.address)
            path = self.path
            found = path.fs.ls(path.path, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise StorageError(
                f"cannot list {self.address}: {error}; repair the storage, "
                "then run the partition again"
            ) from error
        return {f["name"].rpartition("/")[2]: f["size"] for f in found if f["type"] == "file"}

    def remove(self, name: str) -> None:
        """Remove a file, if it exists.

        Args:
            name: The name of the file.

        Raises:
            StorageError: The storage is not reachable or not writable.
        """
        try:
            if self.is_local:
                Path(self.address, name).unlink()
            else:
                path = self.path / name
                path.fs.rm_file(path.path)
        except FileNotFoundError:
            pass
        except Exception as error:
            raise StorageError(
                f"cannot remove {self.address}/{name}: {error}; repair the storage, "
                "then run the partition again"
            ) from error

    def remove_temporaries(self) -> None:
        """Remove temporary files of killed writers; no writer may be active."""
        for name in self.sizes():
            if name.startswith(".") and name.endswith(_TEMPORARY):
                self.remove(name)


def image_name(path: str) -> str:
    """The name of an image file in the folder `images`, from the `path` of its row."""
    return path.removeprefix(f"{IMAGES}/")


@dataclass(frozen=True)
class Storage:
    """The data root, with one folder per asset and one per partition of an asset.

    Attributes:
        root: The folder at `data_root` of the settings.
    """

    root: Folder

    def partition(self, asset: str, date: str, retailer: str) -> Folder:
        """The folder of one asset's partition: `<root>/<asset>/date=.../retailer=...`."""
        return self.root / asset / f"date={date}" / f"retailer={retailer}"


def open_storage(settings: Settings) -> Storage:
    """The storage at `data_root` of the settings; nothing is read or written."""
    root = settings.data_root.removeprefix("file://").rstrip("/")
    return Storage(Folder(root if "://" in root else str(project_root() / root)))


def write_table(folder: Folder, table: pa.Table, name: str = MANIFEST) -> None:
    """Write a table as Parquet (zstd), atomically.

    Args:
        folder: The folder to write to.
        table: The table.
        name: The name of the file.

    Raises:
        StorageError: The storage is full, not reachable or not writable.
    """
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    folder.write(name, buffer.getvalue().to_pybytes())


def read_table(
    folder: Folder, name: str = MANIFEST, columns: Sequence[str] | None = None
) -> pa.Table:
    """Read a Parquet table.

    Args:
        folder: The folder to read from.
        name: The name of the file.
        columns: The columns to read; `None` for all.

    Raises:
        FileNotFoundError: The file does not exist.
        StorageError: The file is not valid Parquet, or the storage is not reachable or not
            readable.
    """
    data = folder.read(name)
    try:
        return pq.read_table(pa.BufferReader(data), columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(
            f"{folder.address}/{name} is broken: {error}; materialize its partition again"
        ) from error


def _local_sizes(folder: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            # Concurrent writers rename and remove their temporary files during the scan.
            with suppress(FileNotFoundError):
                if entry.is_file():
                    sizes[entry.name] = entry.stat().st_size
    return sizes


def mark_removed(folder: Folder, names: Iterable[str]) -> None:
    """Record that image files of a partition are removed on purpose (`process.keep_raw: false`).

    Call it before removing them: readers of the manifest then neither report the files as missing
    nor download them again.

    Args:
        folder: The folder of the partition.
        names: The names of the files.

    Raises:
        StorageError: The storage cannot be read or written.
    """
    known = read_removed(folder)
    if new := set(names) - known:
        write_table(folder, pa.table({"name": sorted(known | new)}), _REMOVED)


def read_removed(folder: Folder) -> set[str]:
    """Names of the files that `mark_removed` recorded.

    Args:
        folder: The folder of the partition.

    Raises:
        StorageError: The storage cannot be read.
    """
    try:
        return set(read_table(folder, _REMOVED).column("name").to_pylist())
    except FileNotFoundError:
        return set()


def _write_local(folder: str, name: str, data: bytes) -> None:
    temporary = f"{folder}/.{name}.{os.getpid()}-{threading.get_ident()}{_TEMPORARY}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        handle = os.open(temporary, flags, 0o666)
    except FileNotFoundError:
        Path(folder).mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, flags, 0o666)
    try:
        try:
            _write_all(handle, data)
        finally:
            os.close(handle)
        os.replace(temporary, f"{folder}/{name}")  # noqa: PTH105  (creating a Path takes as long as the call)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _write_all(handle: int, data: bytes) -> None:
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[os.write(handle, remaining) :]
