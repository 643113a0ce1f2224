"""Builds partitions that are downloaded from a local server."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from imgassets.download import journal
from imgassets.download.partition import collect, download_shard, plan, shard_rows
from imgassets.download.report import ShardReport
from imgassets.manifests import Outcome, RawRow, UrlRow, from_table
from imgassets.settings import DownloadSettings
from imgassets.storage import Folder
from imgassets_tests.download.server import Server, running

# Short time limits and few retries, so that a failing request does not slow a test down.
QUICK = DownloadSettings(
    threads=8,
    connect_timeout_s=2,
    read_timeout_s=1,
    total_timeout_s=2,
    retries=2,
    backoff_s=0.01,
    max_bytes=200_000,
    allow_private_addresses=True,
    robots=False,
)


def url_row(key: str, url: str, position: int = 0) -> UrlRow:
    return UrlRow(
        key=key,
        url=url,
        retailer="zara",
        date="2026-01-02",
        product_id="p",
        position=position,
        document_id="d",
    )


def url_rows(*urls: str) -> list[UrlRow]:
    return [url_row(f"p-{n}", url, n) for n, url in enumerate(urls)]


def journal_rows(folder: Folder) -> dict[str, RawRow]:
    """Return the last row of each key in the journal."""
    return {row.key: row for row in from_table(journal.read(folder), RawRow)}


@dataclass
class Partition:
    """A partition's folder, and the steps of the three Dagster ops of `raw_images`."""

    folder: Folder
    settings: DownloadSettings = QUICK
    log: list[str] = field(default_factory=list)
    reports: list[ShardReport] = field(default_factory=list)

    def download(
        self,
        rows: Sequence[UrlRow],
        *,
        refresh: bool = False,
        retry: Collection[Outcome] | None = None,
    ) -> list[ShardReport]:
        """Plan and download all shards, but do not write the manifest."""
        shards = plan(rows, self.folder, self.settings.shard_size, refresh=refresh, retry=retry)
        self.reports = [
            download_shard(
                shard_rows(rows, shard),
                self.folder,
                self.settings,
                shard=shard.name,
                log=self.log.append,
                refresh=refresh,
                retry=retry,
            )
            for shard in shards
        ]
        return self.reports

    def run(self, *urls: str) -> list[RawRow]:
        """Download one row per URL and write the manifest; return its rows."""
        return self.run_rows(url_rows(*urls))

    def run_rows(self, rows: Sequence[UrlRow]) -> list[RawRow]:
        """Download the rows and write the manifest; return its rows."""
        self.download(rows)
        return collect(rows, self.folder)

    def with_settings(self, **values: object) -> Partition:
        """Change settings in place; return the partition itself."""
        self.settings = DownloadSettings.model_validate(self.settings.model_dump() | values)
        return self

    @property
    def files(self) -> dict[str, bytes]:
        """The bytes of all image files, by name."""
        images = self.folder / "images"
        return {name: images.read(name) for name in sorted(images.sizes())}

    def file(self, row: RawRow) -> bytes:
        """Return the bytes of the file that a row names."""
        return self.folder.read(str(row.path))


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture(params=["curl", "requests"])
def partition(tmp_path: Path, request: pytest.FixtureRequest) -> Partition:
    partition = Partition(Folder(str(tmp_path / "raw_images")))
    return partition.with_settings(client=request.param)
