"""Writes the manifests and the image files of a partition for a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from imgassets.checks.context import CheckContext
from imgassets.configuration import with_overrides
from imgassets.defs.partitions import Partition
from imgassets.manifests import ProcessedRow, RawRow, UrlRow, to_table
from imgassets.settings import Settings
from imgassets.storage import IMAGES, Folder, Storage, image_name, write_table
from imgassets_tests.rows import FILE, PARTITION


class PartitionFixture:
    """A partition whose manifests and image files are written by a test."""

    def __init__(self, storage: Storage, partition: Partition = PARTITION) -> None:
        self.storage, self.partition = storage, partition

    def folder(self, asset: str) -> Folder:
        return self.storage.partition(asset, *self.partition)

    def urls(self, rows: Sequence[UrlRow]) -> None:
        write_table(self.folder("url_list"), to_table(rows, UrlRow))

    def raw(self, rows: Sequence[RawRow], files: Mapping[str, bytes] | None = None) -> None:
        """Write the manifest and a file per row: `files[key]`, by default `FILE`."""
        write_table(self.folder("raw_images"), to_table(rows, RawRow))
        self._save("raw_images", rows, files or {})

    def processed(
        self, rows: Sequence[ProcessedRow], files: Mapping[str, bytes] | None = None
    ) -> None:
        write_table(self.folder("processed_images"), to_table(rows, ProcessedRow))
        self._save("processed_images", rows, files or {})

    def write(self, asset: str, name: str, data: bytes) -> None:
        """Write an image file with any content, also one that does not match its row."""
        (self.folder(asset) / IMAGES).write(name, data)

    def check_context(self, **overrides: Any) -> CheckContext:
        """Return the input of the checks.

        Args:
            overrides: Settings that differ from the defaults, by section.
        """
        settings = with_overrides(Settings(), overrides)
        return CheckContext(
            self.storage, *self.partition, settings.for_retailer(self.partition.retailer)
        )

    def _save(
        self,
        asset: str,
        rows: Sequence[RawRow] | Sequence[ProcessedRow],
        files: Mapping[str, bytes],
    ) -> None:
        for row in rows:
            if row.path is not None:
                self.write(asset, image_name(row.path), files.get(row.key, FILE))
