"""Make the storage fail at a chosen point; what is left there is what `kill -9` would leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from imgassets.errors import StorageError
from imgassets.storage import Folder


@contextmanager
def failing_writes(should_fail: Callable[[str], bool]) -> Iterator[None]:
    """Fail to write any file for whose address `should_fail` is true; expect a `StorageError`."""
    write = Folder.write

    def write_or_fail(folder: Folder, name: str, data: bytes) -> None:
        _fail_if(should_fail(f"{folder.address}/{name}"))
        write(folder, name, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "write", write_or_fail)
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
    remove, sizes = Folder.remove, Folder.sizes
    failures = iter([False] * after)

    def remove_or_fail(folder: Folder, name: str) -> None:
        _fail_if(next(failures, True))
        remove(folder, name)

    def sorted_sizes(folder: Folder) -> dict[str, int]:
        return dict(sorted(sizes(folder).items(), reverse=newest_first))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "remove", remove_or_fail)
        patch.setattr(Folder, "sizes", sorted_sizes)
        with pytest.raises(StorageError, match="the disk is gone"):
            yield


def is_manifest(address: str) -> bool:
    """Return whether the file is a manifest."""
    return address.endswith("/manifest.parquet")


def is_table(address: str) -> bool:
    """Return whether the file is a manifest or a part of a journal, and not an image."""
    return address.endswith(".parquet")


def _fail_if(condition: bool) -> None:
    if condition:
        raise StorageError("the disk is gone")
