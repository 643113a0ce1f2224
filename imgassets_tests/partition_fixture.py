"""Writes the manifests and the image files of a partition for a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from imgassets.checks.context import CheckContext
from imgassets.configuration import with_overrides
from imgassets.defs.partitions import Partition
from imgassets.manifests import ProcessedRow, RawRow, UrlRow, to_table
from imgassets.settings import Settings
from imgassets.storage import Storage
from imgassets_tests.rows import PARTITION, processed_file, raw_file


class PartitionFixture:
    """A partition whose manifests and image files are written by a test."""

    def __init__(self, storage: Storage, partition: Partition = PARTITION) -> None:
        self.storage, self.partition = storage, partition
        self.files = storage.partition(*partition)

    def urls(self, rows: Sequence[UrlRow]) -> None:
        self.files.write_manifest("url_list", to_table(rows, UrlRow))

    def raw(self, rows: Sequence[RawRow], files: Mapping[str, bytes] | None = None) -> None:
        """Write the manifest and the files of its rows: `files[key]`, by default `raw_file`."""
        self.files.write_manifest("raw_images", to_table(rows, RawRow))
        for row in rows:
            if row.path is not None:
                self.storage.write(row.path, (files or {}).get(row.key, raw_file(row.key)))

    def processed(
        self, rows: Sequence[ProcessedRow], files: Mapping[str, bytes] | None = None
    ) -> None:
        """Write the manifest and the files of its rows: see `raw`, `processed_file`."""
        self.files.write_manifest("processed_images", to_table(rows, ProcessedRow))
        for row in rows:
            if row.path is not None:
                self.storage.write(row.path, (files or {}).get(row.key, processed_file(row.key)))

    def check_context(self, **overrides: Any) -> CheckContext:
        """Return the input of the checks.

        Args:
            overrides: Settings that differ from the defaults, by section.
        """
        settings = with_overrides(Settings(), overrides)
        return CheckContext(self.files, settings.for_retailer(self.partition.retailer))
