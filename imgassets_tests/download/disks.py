"""Disks that fail at a chosen moment: what a run leaves there is what `kill -9` leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from imgassets.errors import StorageError
from imgassets.storage import Folder


@contextmanager
def failing_writes(fails: Callable[[str], bool]) -> Iterator[None]:
    """No file whose address `fails` accepts is written any more; the run ends with an error."""
    write = Folder.write

    def written(folder: Folder, name: str, data: bytes) -> None:
        _fail_if(fails(f"{folder.address}/{name}"))
        write(folder, name, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "write", written)
        with pytest.raises(StorageError, match="the disk is gone"):
            yield


@contextmanager
def failing_removals(after: int, *, newest_first: bool) -> Iterator[None]:
    """A run ends with an error after it has removed so many files.

    Args:
        after: number of files that are still removed.
        newest_first: whether folders list their files in this order; else the other way round.
    """
    remove, sizes = Folder.remove, Folder.sizes
    left = iter([False] * after)

    def removed(folder: Folder, name: str) -> None:
        _fail_if(next(left, True))
        remove(folder, name)

    def listed(folder: Folder) -> dict[str, int]:
        return dict(sorted(sizes(folder).items(), reverse=newest_first))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "remove", removed)
        patch.setattr(Folder, "sizes", listed)
        with pytest.raises(StorageError, match="the disk is gone"):
            yield


def is_manifest(address: str) -> bool:
    return address.endswith("/manifest.parquet")


def is_table(address: str) -> bool:
    """Whether it is a manifest or a part of a journal: what names files, and no image."""
    return address.endswith(".parquet")


def _fail_if(failed: bool) -> None:
    if failed:
        raise StorageError("the disk is gone")
