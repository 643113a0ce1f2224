"""The input of the checks: manifests and file listings of one partition, each read once.

Reading the retailer's earlier partitions is in `history`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

import pyarrow as pa

from imgassets.checks.history import (
    Metrics,
    earlier_processed_metrics,
    earlier_raw_metrics,
    processed_metrics,
    raw_metrics,
)
from imgassets.errors import CheckError, StorageError
from imgassets.manifests import ProcessedRow, RawRow, from_table
from imgassets.settings import RetailerSettings
from imgassets.storage import IMAGES, Folder, Storage, read_removed, read_table

RAW, PROCESSED = "raw_images", "processed_images"


class CheckContext:
    """One partition; each manifest and listing is read on first access and cached.

    Every property and method that reads raises `CheckError` if the asset was never materialized,
    and `StorageError` if the storage cannot be read.

    Attributes:
        storage: Storage that holds all partitions.
        date: Date of the partition, `YYYY-MM-DD`.
        retailer: Slug of the retailer.
        options: Settings, with those of the retailer applied.
    """

    def __init__(
        self, storage: Storage, date: str, retailer: str, options: RetailerSettings
    ) -> None:
        self.storage, self.date, self.retailer = storage, date, retailer
        self.options = options

    def folder(self, asset: str) -> Folder:
        """The folder with the manifest and the images of an asset."""
        return self.storage.partition(asset, self.date, self.retailer)

    @cached_property
    def url_keys(self) -> list[str]:
        """The keys of all rows of `url_list`."""
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
    def raw_metrics(self) -> Metrics:
        """The metrics of `raw_images` that are compared with earlier partitions."""
        return raw_metrics(self._raw_table)

    @cached_property
    def processed_metrics(self) -> Metrics:
        """The metrics of `processed_images` that are compared with earlier partitions."""
        return processed_metrics(self._processed_table)

    @cached_property
    def earlier_raw(self) -> list[Metrics]:
        """The metrics of the retailer's earlier partitions of `raw_images`."""
        options = self.options.checks.drift
        return earlier_raw_metrics(self.storage, self.date, self.retailer, options)

    @cached_property
    def earlier_processed(self) -> list[Metrics]:
        """The metrics of the retailer's earlier partitions of `processed_images`."""
        options = self.options.checks.drift
        today = self._processed_table
        return earlier_processed_metrics(self.storage, self.date, self.retailer, options, today)

    def rows(self, asset: str) -> Sequence[RawRow] | Sequence[ProcessedRow]:
        """The rows of `raw_images` or `processed_images`."""
        return self.raw_rows if asset == RAW else self.processed_rows

    def file_sizes(self, asset: str) -> dict[str, int]:
        """Size in bytes of each image file of an asset, by file name."""
        return self._raw_sizes if asset == RAW else self._processed_sizes

    @cached_property
    def faces_by_sha256(self) -> dict[str, list[list[int]]]:
        """Boxes of the detected faces in image files, in pixels, by the file's SHA-256.

        Raw and processed files whose faces were detected; none if the images were not processed.
        """
        try:
            rows = self.processed_rows
        except (CheckError, StorageError):
            return {}
        found: dict[str, list[list[int]]] = defaultdict(list)
        for row in rows:
            if row.face_count is not None:
                for sha256, boxes in (
                    (row.raw_sha256, row.face_boxes or []),
                    (row.sha256, row.kept_face_boxes),
                ):
                    if sha256 is not None:
                        found[sha256] += boxes
        return dict(found)

    @cached_property
    def removed_files(self) -> set[str]:
        """Names of raw image files that were deleted on purpose, because of the settings."""
        return read_removed(self.folder(RAW))

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
            raise CheckError(
                f"{asset} of {self.date}|{self.retailer} was never materialized; "
                "materialize it first"
            ) from None
