"""Builds partitions that are downloaded from a local server."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from imgassets.download.partition import Shard, collect, download_shard, plan
from imgassets.download.report import ShardReport
from imgassets.journal import Journal
from imgassets.manifests import Outcome, RawRow, UrlRow, from_table, to_table
from imgassets.settings import OPT_OUTS, DownloadSettings, RetailerSettings
from imgassets.storage import PartitionFiles, Storage
from imgassets_tests.download.server import Server, running

# All but the one that costs a request per host.
HEADER_OPT_OUTS = tuple(name for name in OPT_OUTS if name != "tdm-reservation")
# Few retries, so that a failing request does not slow a test down. The time limits are long, so
# that no request fails on a busy machine; where a server does not answer, a test sets SHORT_TIMES.
QUICK = DownloadSettings(
    threads=8,
    connect_timeout_s=30,
    read_timeout_s=30,
    total_timeout_s=60,
    retries=2,
    backoff_s=0.01,
    max_bytes=200_000,
    allow_private_addresses=True,
    robots=False,
    opt_outs=HEADER_OPT_OUTS,
)
SHORT_TIMES = {"connect_timeout_s": 2, "read_timeout_s": 1, "total_timeout_s": 2}


DAY = "2026-01-02"


def url_row(key: str, url: str, position: int = 0, date: str = DAY) -> UrlRow:
    return UrlRow(
        key=key,
        url=url,
        retailer="zara",
        date=date,
        product_id="p",
        position=position,
        document_id="d",
    )


def url_rows(*urls: str, date: str = DAY) -> list[UrlRow]:
    return [url_row(f"p-{n}", url, n, date) for n, url in enumerate(urls)]


def journal_rows(files: PartitionFiles) -> dict[str, RawRow]:
    """Return the last row of each key in the journal."""
    return {values["key"]: RawRow(**values) for values in Journal(files, "raw_images").rows()}


def path_of(data: bytes) -> str:
    """Return the path at which an image of the retailer is stored."""
    sha256 = hashlib.sha256(data).hexdigest()
    extension = "png" if data.startswith(b"\x89PNG") else "jpg"
    return f"images/raw/zara/{sha256[:2]}/{sha256}.{extension}"


def stored(*images: bytes) -> dict[str, bytes]:
    """Return the files of images, by path."""
    return {path_of(data): data for data in images}


@dataclass
class Partition:
    """A partition, and the steps of the three Dagster ops of `raw_images`."""

    storage: Storage
    date: str = DAY
    keep_raw: bool = True
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
        shards = self.plan(rows, refresh=refresh, retry=retry)
        self.reports = [self.download_shard(shard) for shard in shards]
        return self.reports

    def plan(
        self,
        rows: Sequence[UrlRow],
        *,
        refresh: bool = False,
        retry: Collection[Outcome] | None = None,
    ) -> list[Shard]:
        """Return the shards that have URLs to request."""
        return plan(
            to_table(rows, UrlRow),
            self.partition_files,
            self.retailer_settings,
            log=self.log.append,
            refresh=refresh,
            retry=retry,
        )

    def download_shard(self, shard: Shard) -> ShardReport:
        """Request the URLs of a shard."""
        return download_shard(shard, self.partition_files, self.settings, log=self.log.append)

    def collect(self, rows: Sequence[UrlRow]) -> list[RawRow]:
        """Write the manifest; return its rows."""
        urls = to_table(rows, UrlRow)
        return from_table(collect(urls, self.partition_files, self.retailer_settings), RawRow)

    def run(self, *urls: str, refresh: bool = False) -> list[RawRow]:
        """Download one row per URL and write the manifest; return its rows."""
        return self.run_rows(url_rows(*urls, date=self.date), refresh=refresh)

    def run_rows(self, rows: Sequence[UrlRow], *, refresh: bool = False) -> list[RawRow]:
        """Download the rows and write the manifest; return its rows."""
        self.download(rows, refresh=refresh)
        return self.collect(rows)

    def on(self, date: str) -> Partition:
        """Return the partition of another day, with the same storage and settings."""
        return replace(self, date=date, log=[], reports=[])

    @property
    def partition_files(self) -> PartitionFiles:
        """The files of the partition."""
        return self.storage.partition(self.date, "zara")

    @property
    def retailer_settings(self) -> RetailerSettings:
        """The settings of the retailer."""
        process = {"keep_raw": self.keep_raw}
        return RetailerSettings(download=self.settings, process=process)

    @property
    def manifest(self) -> list[RawRow]:
        """The rows of the manifest."""
        return from_table(self.partition_files.read_manifest("raw_images"), RawRow)

    @property
    def journal(self) -> list[str]:
        """The names of the files in the folder of the journal."""
        return self.storage.names(self.partition_files.journal("raw_images"))

    def with_settings(self, **values: object) -> Partition:
        """Change settings in place; return the partition itself."""
        self.settings = DownloadSettings.model_validate(self.settings.model_dump() | values)
        return self

    @property
    def files(self) -> dict[str, bytes]:
        """The bytes of all image files, by path."""
        return {path: self.storage.read(path) for path in self.storage.find("images")}

    def file(self, row: RawRow) -> bytes:
        """Return the bytes of the file that a row names."""
        return self.storage.read(str(row.path))


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture(params=["curl", "requests"])
def partition(tmp_path: Path, request: pytest.FixtureRequest) -> Partition:
    partition = Partition(Storage(str(tmp_path / "data")))
    return partition.with_settings(client=request.param)
