"""The input of the checks: manifests and file listings of one partition, each read once.

Reading the retailer's earlier partitions is in `history`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgassets.checks.history import (
    Metrics,
    earlier_processed_metrics,
    earlier_raw_metrics,
    processed_metrics,
    raw_metrics,
)
from imgassets.errors import CheckError, StorageError
from imgassets.manifests import PROCESSED_IMAGES, RAW_IMAGES, ProcessedRow, from_table
from imgassets.settings import RetailerSettings
from imgassets.storage import PartitionFiles, processed_raw_sha256
from imgassets.tables import as_mask

RAW, PROCESSED = "raw_images", "processed_images"
# No check needs these columns, which are a third of the memory.
_UNUSED = {
    RAW: {
        *("http_status", "attempts", "format", "width", "height", "etag", "last_modified"),
        *("fetched_at", "elapsed_ms", "reused_from"),
    },
    PROCESSED: {
        *("raw_path", "error", "face_box", "face_scores", "face_landmarks", "face_action"),
        "trim_box",
    },
}


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
    def url_keys(self) -> pa.ChunkedArray:
        """The keys of all rows of `url_list`."""
        return self._table("url_list", ["key"])["key"]

    @cached_property
    def raw_table(self) -> pa.Table:
        """The manifest of `raw_images`, without columns that no check needs."""
        return self._table(RAW, [name for name in RAW_IMAGES.names if name not in _UNUSED[RAW]])

    @cached_property
    def processed_table(self) -> pa.Table:
        """The manifest of `processed_images`, without columns that no check needs."""
        columns = [name for name in PROCESSED_IMAGES.names if name not in _UNUSED[PROCESSED]]
        return self._table(PROCESSED, columns)

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

    def table(self, asset: str) -> pa.Table:
        """The manifest of `raw_images` or `processed_images`."""
        return self.raw_table if asset == RAW else self.processed_table

    def file_sizes(self, asset: str) -> pa.ChunkedArray:
        """Size in bytes of the image file of each row of an asset; null if there is none."""
        return self._raw_sizes if asset == RAW else self._processed_sizes

    def paths(self, asset: str, keys: Iterable[str]) -> dict[str, str | None]:
        """Path of the image file of some rows of an asset, by key."""
        table = self.table(asset)
        rows = table.filter(pc.is_in(table["key"], value_set=pa.array(keys, pa.string())))
        return dict(zip(rows["key"].to_pylist(), rows["path"].to_pylist(), strict=True))

    def known_faces(self, sha256: str) -> list[list[int]] | None:
        """Boxes of the detected faces in an image file, in pixels.

        Args:
            sha256: SHA-256 of the file.

        Returns:
            The boxes, if it is a raw or processed file whose faces were detected; None if not, or
            if the images were not processed.
        """
        try:
            table = self.processed_table
        except (CheckError, StorageError):
            return None
        is_file = pc.or_kleene(
            pc.equal(table["raw_sha256"], sha256), pc.equal(table["sha256"], sha256)
        )
        rows = from_table(
            table.filter(pc.and_kleene(is_file, pc.is_valid(table["face_count"]))), ProcessedRow
        )
        if not rows:
            return None
        boxes: list[list[int]] = []
        for row in rows:
            boxes += (row.face_boxes or []) if row.raw_sha256 == sha256 else []
            boxes += row.kept_face_boxes if row.sha256 == sha256 else []
        return boxes

    def missing_files(self, asset: str) -> NDArray[np.bool_]:
        """Whether each row of an asset names a file that does not exist.

        Raw files that `process.keep_raw: false` removed after processing are not missing.
        """
        table = self.table(asset)
        missing = as_mask(pc.and_(pc.is_valid(table["path"]), pc.is_null(self.file_sizes(asset))))
        if asset == RAW and not self.options.process.keep_raw and missing.any():
            sha256 = table["sha256"].filter(pa.array(missing))
            processed = processed_raw_sha256(self.storage, self.partition.retailer, sha256)
            missing &= ~as_mask(pc.is_in(table["sha256"], value_set=processed))
        return missing

    @cached_property
    def _raw_sizes(self) -> pa.ChunkedArray:
        return self.storage.column_sizes(self.raw_table["path"])

    @cached_property
    def _processed_sizes(self) -> pa.ChunkedArray:
        return self.storage.column_sizes(self.processed_table["path"])

    def _table(self, asset: str, columns: list[str]) -> pa.Table:
        try:
            return self.partition.read_manifest(asset, columns)
        except FileNotFoundError:
            name = f"{asset} of {self.partition.date}|{self.partition.retailer}"
            raise CheckError(f"{name} was never materialized; materialize it first") from None
