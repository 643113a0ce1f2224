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
from imgassets.storage import PartitionFiles, processed_raw_sha256

RAW, PROCESSED = "raw_images", "processed_images"


class CheckContext:
    """One partition; each manifest and listing is read on first access and cached.

    Every property and method that reads raises `CheckError` if the asset was never materialized,
    and `StorageError` if the storage cannot be read.

    Attributes:
        partition: The files of the partition.
        storage: The storage that holds all partitions.
        options: Settings, with those of the retailer applied.
    """

    def __init__(self, partition: PartitionFiles, options: RetailerSettings) -> None:
        self.partition, self.storage = partition, partition.storage
        self.options = options

    @cached_property
    def url_keys(self) -> list[str]:
        """The keys of all rows of `url_list`."""
        keys: list[str] = self._table("url_list").column("key").to_pylist()
        return keys

    @cached_property
    def raw_table(self) -> pa.Table:
        """The manifest of `raw_images`."""
        return self._table(RAW)

    @cached_property
    def processed_table(self) -> pa.Table:
        """The manifest of `processed_images`."""
        return self._table(PROCESSED)

    @cached_property
    def raw_rows(self) -> list[RawRow]:
        """The rows of `raw_images`."""
        return from_table(self.raw_table, RawRow)

    @cached_property
    def processed_rows(self) -> list[ProcessedRow]:
        """The rows of `processed_images`."""
        return from_table(self.processed_table, ProcessedRow)

    @cached_property
    def raw_metrics(self) -> Metrics:
        """The metrics of `raw_images` that are compared with earlier partitions."""
        return raw_metrics(self.raw_table)

    @cached_property
    def processed_metrics(self) -> Metrics:
        """The metrics of `processed_images` that are compared with earlier partitions."""
        return processed_metrics(self.processed_table)

    @cached_property
    def earlier_raw(self) -> list[Metrics]:
        """The metrics of the retailer's earlier partitions of `raw_images`."""
        options = self.options.checks.drift
        return earlier_raw_metrics(self.partition, options)

    @cached_property
    def earlier_processed(self) -> list[Metrics]:
        """The metrics of the retailer's earlier partitions of `processed_images`."""
        options = self.options.checks.drift
        today = self.processed_table
        return earlier_processed_metrics(self.partition, options, today)

    def rows(self, asset: str) -> Sequence[RawRow] | Sequence[ProcessedRow]:
        """The rows of `raw_images` or `processed_images`."""
        return self.raw_rows if asset == RAW else self.processed_rows

    def file_sizes(self, asset: str) -> dict[str, int]:
        """Size in bytes of each image file that a row of an asset names, by path."""
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

    def missing_files(self, asset: str) -> set[str]:
        """Paths of the files that rows of an asset name and that do not exist.

        Raw files that `process.keep_raw: false` removed after processing are not missing.
        """
        sizes = self.file_sizes(asset)
        missing = [
            row for row in self.rows(asset) if row.path is not None and row.path not in sizes
        ]
        processed: set[str] = set()
        if asset == RAW and not self.options.process.keep_raw:
            wanted = {row.sha256 for row in missing if row.sha256 is not None}
            processed = processed_raw_sha256(self.storage, self.partition.retailer, wanted)
        return {str(row.path) for row in missing if row.sha256 not in processed}

    @cached_property
    def _raw_sizes(self) -> dict[str, int]:
        return self._sizes(self.raw_rows)

    @cached_property
    def _processed_sizes(self) -> dict[str, int]:
        return self._sizes(self.processed_rows)

    def _sizes(self, rows: Sequence[RawRow] | Sequence[ProcessedRow]) -> dict[str, int]:
        return self.storage.sizes(row.path for row in rows if row.path is not None)

    def _table(self, asset: str) -> pa.Table:
        try:
            return self.partition.read_manifest(asset)
        except FileNotFoundError:
            name = f"{asset} of {self.partition.date}|{self.partition.retailer}"
            raise CheckError(f"{name} was never materialized; materialize it first") from None
