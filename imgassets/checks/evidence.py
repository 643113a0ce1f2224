"""What checks look at: manifests and lists of files of one partition, each read once.

Here lives what is kept of what was read. How the retailer's earlier partitions are read is in
`history`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import pyarrow as pa

from imgassets.checks.history import (
    Figures,
    earlier_processed,
    earlier_raw,
    processed_figures,
    raw_figures,
)
from imgassets.checks.verdict import CannotJudgeError
from imgassets.manifests import ProcessedRow, RawRow, from_table
from imgassets.settings import RetailerSettings
from imgassets.storage import IMAGES, Folder, Storage, read_table, removed

RAW, PROCESSED = "raw_images", "processed_images"


class Evidence:
    """One partition, read when it is first asked for.

    Whatever reads raises `CannotJudgeError` where the asset was never materialized, and
    `StorageError` where the storage cannot be read.

    Attributes:
        storage: where all partitions lie.
        date: of the partition, `YYYY-MM-DD`.
        retailer: its slug.
        options: of the retailer.
    """

    def __init__(
        self, storage: Storage, date: str, retailer: str, options: RetailerSettings
    ) -> None:
        self.storage, self.date, self.retailer = storage, date, retailer
        self.options = options

    def folder(self, asset: str) -> Folder:
        """Where the manifest of that asset lies, and its pictures."""
        return self.storage.partition(asset, self.date, self.retailer)

    @cached_property
    def wanted(self) -> list[str]:
        """The keys of all URLs."""
        keys: list[str] = self._table("url_list").column("key").to_pylist()
        return keys

    @cached_property
    def raw_rows(self) -> list[RawRow]:
        """The rows of `raw_images`."""
        return from_table(self._raw_table, RawRow)

    @cached_property
    def processed_rows(self) -> list[ProcessedRow]:
        """The rows of `processed_images`."""
        return from_table(self._processed_table, ProcessedRow)

    @cached_property
    def raw_figures(self) -> Figures:
        """The figures of `raw_images` that can drift."""
        return raw_figures(self._raw_table)

    @cached_property
    def processed_figures(self) -> Figures:
        """The figures of `processed_images` that can drift."""
        return processed_figures(self._processed_table)

    @cached_property
    def earlier_raw(self) -> list[Figures]:
        """The same of the retailer's earlier partitions of `raw_images`."""
        options = self.options.checks.drift
        return earlier_raw(self.storage, self.date, self.retailer, options)

    @cached_property
    def earlier_processed(self) -> list[Figures]:
        """The same of `processed_images`."""
        options = self.options.checks.drift
        today = self._processed_table
        return earlier_processed(self.storage, self.date, self.retailer, options, today)

    def rows(self, asset: str) -> Sequence[RawRow] | Sequence[ProcessedRow]:
        """The rows of that asset."""
        return self.raw_rows if asset == RAW else self.processed_rows

    def sizes(self, asset: str) -> dict[str, int]:
        """Name and size in bytes of each picture of that asset."""
        return self._raw_sizes if asset == RAW else self._processed_sizes

    @cached_property
    def gone(self) -> set[str]:
        """Names of served files that the settings want removed."""
        return removed(self.folder(RAW))

    @cached_property
    def _raw_table(self) -> pa.Table:
        return self._table(RAW)

    @cached_property
    def _processed_table(self) -> pa.Table:
        return self._table(PROCESSED)

    @cached_property
    def _raw_sizes(self) -> dict[str, int]:
        return (self.folder(RAW) / IMAGES).sizes()

    @cached_property
    def _processed_sizes(self) -> dict[str, int]:
        return (self.folder(PROCESSED) / IMAGES).sizes()

    def _table(self, asset: str) -> pa.Table:
        try:
            return read_table(self.folder(asset))
        except FileNotFoundError:
            raise CannotJudgeError(
                f"{asset} of {self.date}|{self.retailer} was never materialized; "
                "materialize it first"
            ) from None


def name_of(path: str) -> str:
    """The name of a picture's file, from the path that its row has."""
    return path.removeprefix(f"{IMAGES}/")
