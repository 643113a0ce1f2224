"""Make the storage fail at a chosen point; what is left there is what `kill -9` would leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from imgassets.errors import StorageError
from imgassets.storage import FileInfo, Storage


@contextmanager
def failing_writes(should_fail: Callable[[str], bool]) -> Iterator[None]:
    """Fail to write any file for whose path `should_fail` is true; expect a `StorageError`."""
    write = Storage.write

    def write_or_fail(storage: Storage, path: str, data: bytes) -> None:
        _fail_if(should_fail(path))
        write(storage, path, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Storage, "write", write_or_fail)
        with pytest.raises(StorageError, match="the disk is gone"):
            yield


@contextmanager
def failing_removals(after: int, *, newest_first: bool) -> Iterator[None]:
    """Fail to remove files after the first few removals; expect a `StorageError`.

    Args:
        after: Number of files that are still removed.
        newest_first: Whether folders list their files in descending order of name instead of
            ascending.
    """
    remove, find = Storage.remove, Storage.find
    failures = iter([False] * after)

    def remove_or_fail(storage: Storage, path: str) -> None:
        _fail_if(next(failures, True))
        remove(storage, path)

    def sorted_files(storage: Storage, folder: str) -> dict[str, FileInfo]:
        return dict(sorted(find(storage, folder).items(), reverse=newest_first))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Storage, "remove", remove_or_fail)
        patch.setattr(Storage, "find", sorted_files)
        with pytest.raises(StorageError, match="the disk is gone"):
            yield


def is_manifest(path: str) -> bool:
    """Return whether the file is a manifest."""
    return path.startswith("manifests/")


def _fail_if(condition: bool) -> None:
    if condition:
        raise StorageError("the disk is gone")
