"""Builds data roots for tests: image files, manifests, review files and journals."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow.parquet as pq

from imgassets.journal import Journal
from imgassets.manifests import Outcome, ProcessedRow, RawRow, UrlRow, to_table
from imgassets.storage import PartitionFiles, Storage, processed_path, raw_path
from imgassets.takedown import url_sha256

SETTINGS_HASH = "0123456789abcdef"


@dataclass(frozen=True)
class Listed:
    """One URL of a product; without `image` its download failed with `error`."""

    product_id: str
    url: str
    image: bytes | None = None
    error: str | None = None


def processed_bytes(image: bytes) -> bytes:
    return b"processed " + image


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def url_rows(listed: Sequence[Listed], partition: PartitionFiles) -> list[UrlRow]:
    return [
        UrlRow(
            key=f"{each.product_id}-{number}",
            url=each.url,
            retailer=partition.retailer,
            date=partition.date,
            product_id=each.product_id,
            position=number,
            document_id=f"document-{number}",
        )
        for number, each in enumerate(listed)
    ]


def raw_rows(listed: Sequence[Listed], partition: PartitionFiles) -> list[RawRow]:
    rows = []
    for each, url_row in zip(listed, url_rows(listed, partition), strict=True):
        row = RawRow(
            **{name: getattr(url_row, name) for name in UrlRow.__slots__},
            outcome=Outcome.HTTP_ERROR,
            attempts=3,
            error=each.error,
        )
        if each.image is not None:
            sha256 = sha256_of(each.image)
            row = replace(
                row,
                outcome=Outcome.OK,
                path=raw_path(partition.retailer, sha256, "jpg"),
                bytes=len(each.image),
                sha256=sha256,
                format="jpeg",
                etag='"etag"',
            )
        rows.append(row)
    return rows


def processed_rows(listed: Sequence[Listed], partition: PartitionFiles) -> list[ProcessedRow]:
    rows = []
    for each, raw in zip(listed, raw_rows(listed, partition), strict=True):
        row = ProcessedRow(
            **{name: getattr(raw, name) for name in UrlRow.__slots__},
            outcome=Outcome.NO_RAW,
            error=each.error and f"raw_images: {each.error}",
            settings_hash=SETTINGS_HASH,
        )
        if each.image is not None:
            row = replace(
                row,
                outcome=Outcome.OK,
                raw_path=raw.path,
                raw_sha256=raw.sha256,
                path=processed_path(partition.retailer, str(raw.sha256), SETTINGS_HASH, "jpg"),
                sha256=sha256_of(processed_bytes(each.image)),
                face_boxes=[[1, 2, 3, 4]],
                face_scores=[0.9],
            )
        rows.append(row)
    return rows


def write_files(listed: Sequence[Listed], partition: PartitionFiles) -> None:
    """Write the image files of rows."""
    rows = zip(listed, raw_rows(listed, partition), processed_rows(listed, partition), strict=True)
    for each, raw, processed in rows:
        if each.image is not None:
            partition.storage.write(str(raw.path), each.image)
            partition.storage.write(str(processed.path), processed_bytes(each.image))


def write_partition(partition: PartitionFiles, listed: Sequence[Listed]) -> None:
    """Write everything that a finished partition has."""
    write_files(listed, partition)
    hash_ = SETTINGS_HASH
    tables = {
        "url_list": to_table(url_rows(listed, partition), UrlRow, hash_),
        "raw_images": to_table(raw_rows(listed, partition), RawRow, hash_),
        "processed_images": to_table(processed_rows(listed, partition), ProcessedRow, hash_),
    }
    for asset, table in tables.items():
        partition.write_manifest(asset, table)
    shown = b"".join(each.image for each in listed if each.image is not None)
    for name in ("contact_sheet.jpg", "page_001.jpg", "index.json"):
        partition.storage.write(f"{partition.review}/{name}", b"sheet of " + shown)


def write_journals(partition: PartitionFiles, listed: Sequence[Listed], name: str = "a") -> None:
    """Write what a killed run leaves: image files and journals, but no manifests."""
    write_files(listed, partition)
    with Journal(partition, "raw_images").writer(name) as writer:
        writer.add(raw_rows(listed, partition))
    with Journal(partition, "processed_images").writer(name) as processed_writer:
        processed_writer.add(processed_rows(listed, partition))


def contents(storage: Storage) -> Iterator[tuple[str, bytes]]:
    """The files below the data root; of Parquet files also all values and metadata as text."""
    folders = ("manifests", "images", "review", "journal", "removed")
    for path in (path for folder in folders for path in storage.find(folder)):
        data = storage.read(path)
        if path.endswith(".parquet"):
            table = pq.read_table(io.BytesIO(data))
            data += repr((table.to_pylist(), table.schema.metadata)).encode()
        yield path, data


def snapshot(storage: Storage) -> dict[str, bytes]:
    return dict(contents(storage))


def files_with(storage: Storage, *texts: str | bytes) -> list[str]:
    """Paths of the files that contain a text or bytes, or are named by the SHA-256 of the bytes."""
    needles = [text.encode() if isinstance(text, str) else text for text in texts]
    names = [sha256_of(text) for text in texts if isinstance(text, bytes)]
    return [
        path
        for path, data in contents(storage)
        if any(needle in data for needle in needles) or any(name in path for name in names)
    ]


def redacted(url: str) -> str:
    return f"removed:{url_sha256(url)}"
