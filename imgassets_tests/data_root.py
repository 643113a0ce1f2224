"""Writes a small data root for tests of what reads one: manifests and the images that they name."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import PIL.Image

from imgassets.manifests import URL_FIELDS, Outcome, ProcessedRow, RawRow, UrlRow, to_table
from imgassets.storage import PartitionFiles, Storage, processed_path, raw_path

SETTINGS_HASH = "5c1e02d4"

# Colour of each image, or why there is none, by retailer, day and key. "a" and "b" share an image,
# also with the next day; "green" is downloaded, but not processed.
PARTITIONS: dict[tuple[str, str], dict[str, str | Outcome]] = {
    ("zara", "2026-01-02"): {"a": "red", "b": "red", "c": Outcome.HTTP_ERROR, "d": "blue"},
    ("zara", "2026-01-03"): {"a": "red", "e": "green"},
    ("hm", "2026-01-02"): {"a": "red", "f": Outcome.TIMEOUT},
    ("hm", "2026-01-03"): {},
}


def write_data_root(
    storage: Storage,
    partitions: Mapping[tuple[str, str], Mapping[str, str | Outcome]] = PARTITIONS,
) -> None:
    """Write the manifests of all three assets, and the images."""
    for (retailer, date), images in partitions.items():
        files = storage.partition(date, retailer)
        raw = [
            _download(files, number, key, image)
            for number, (key, image) in enumerate(images.items())
        ]
        made = [_process(storage, row, images[row.key]) for row in raw]
        urls = [UrlRow(**_url_values(row)) for row in raw]
        files.write_manifest("url_list", to_table(urls, UrlRow, SETTINGS_HASH))
        files.write_manifest("raw_images", to_table(raw, RawRow, SETTINGS_HASH))
        files.write_manifest("processed_images", to_table(made, ProcessedRow, SETTINGS_HASH))


def _download(files: PartitionFiles, number: int, key: str, image: str | Outcome) -> RawRow:
    row = RawRow(
        key=key,
        url=f"https://images.example/{key}.jpg",
        retailer=files.retailer,
        date=files.date,
        product_id=f"product-{number}",
        position=0,
        document_id=f"document-{number}",
        outcome=image if isinstance(image, Outcome) else Outcome.OK,
        attempts=1,
    )
    if row.outcome is not Outcome.OK:
        return replace(row, error="the server did not send the image")
    data = _jpeg(image, 24)
    sha256 = hashlib.sha256(data).hexdigest()
    path = raw_path(files.retailer, sha256, "jpg")
    files.storage.write(path, data)
    return replace(
        row,
        http_status=200,
        path=path,
        bytes=len(data),
        sha256=sha256,
        format="jpeg",
        width=24,
        height=24,
        fetched_at=dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, dt.UTC),
        reused_from="2026-01-02" if files.date > "2026-01-02" and key == "a" else None,
    )


def _process(storage: Storage, raw: RawRow, image: str | Outcome) -> ProcessedRow:
    row = ProcessedRow(
        **_url_values(raw),
        raw_path=raw.path,
        raw_sha256=raw.sha256,
        outcome=Outcome.OK,
        settings_hash=SETTINGS_HASH,
    )
    if raw.sha256 is None:
        return replace(row, outcome=Outcome.NO_RAW)
    if image == "green":
        return replace(row, outcome=Outcome.FAILED, error="a step failed")
    data = _jpeg(image, 16)
    path = processed_path(raw.retailer, raw.sha256, SETTINGS_HASH, "jpg")
    storage.write(path, data)
    return replace(
        row,
        path=path,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        width=16,
        height=16,
        face_count=1,
        face_box=[1, 2, 3, 4],
        face_score=0.9,
        face_boxes=[[1, 2, 3, 4]],
        face_scores=[0.9],
        face_removed=True,
        trim_ratio=0.8,
        reused_from=raw.reused_from,
    )


def _url_values(row: UrlRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in URL_FIELDS}


def _jpeg(colour: str, side: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (side, side), colour).save(file, "jpeg")
    return file.getvalue()
