"""The columns, dtypes and outcomes of the three manifests, and conversion of rows to tables.

A manifest is a table with one row per URL. It is the project's data contract: notebooks, DuckDB,
Spark and the asset checks read it (`docs/data-contract.md`). Locations and writing of manifests are
in `storage`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from itertools import islice, repeat
from operator import attrgetter
from typing import Any, Self, TypeVar

import pyarrow as pa

SCHEMA_VERSION = 2
"""Version of the columns and of the layout; increased by every change that readers must know."""
REMOVED_URL = "removed:"
"""Begins the `url` of a row that was taken down; the SHA-256 of the URL follows."""
_EPOCH, _MILLISECOND = dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.timedelta(milliseconds=1)
_BATCH = 5_000  # rows
_MAX_ROUNDING = 2.0  # px; a larger difference between width and height is padding


class Outcome(StrEnum):
    """The result of a download or of image processing; every row has exactly one.

    Attributes:
        meaning: The description for users.
    """

    meaning: str

    def __new__(cls, word: str, meaning: str) -> Self:
        """Create a member whose value is the word, with its meaning as an attribute."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.meaning = meaning
        return member

    OK = "ok", "the image was saved"

    INVALID_URL = "invalid_url", "not an http or https URL"
    HTTP_ERROR = "http_error", "the server answered with an error status; see http_status"
    TIMEOUT = (
        "timeout",
        "the server or a processing step exceeded a time limit of the settings",
    )
    CONNECTION_ERROR = "connection_error", "the connection failed or was interrupted; see error"
    TOO_MANY_REDIRECTS = "too_many_redirects", "more redirects than download.max_redirects"
    BLOCKED_ADDRESS = (
        "blocked_address",
        "a private, loopback or link-local address; see download.allow_private_addresses",
    )
    DISALLOWED = (
        "disallowed",
        "forbidden by robots.txt or an opt-out; see download.robots, download.opt_outs",
    )
    HOST_DOWN = "host_down", "not requested: the host kept failing or refusing; see error"
    TOO_LARGE = "too_large", "more bytes than download.max_bytes"
    TOO_MANY_PIXELS = "too_many_pixels", "more than download.max_pixels or decode.max_pixels"
    TOO_SMALL = (
        "too_small",
        "fewer bytes than download.min_bytes, or pixels than download.min_pixels",
    )
    EMPTY = "empty", "the server sent no bytes"
    NOT_AN_IMAGE = "not_an_image", "the bytes are not an image"
    UNSUPPORTED_FORMAT = (
        "unsupported_format",
        "a format that cannot be processed, such as SVG or HEIC",
    )
    CORRUPT = "corrupt", "the image is truncated or damaged"
    NOT_FETCHED = "not_fetched", "the run ended before the image was stored; run it again"
    REMOVED = "removed", "taken down with imgassets forget; never requested again"

    NO_RAW = "no_raw", "nothing to process: the download failed; see raw_images"
    RAW_MISSING = "raw_missing", "the downloaded file is missing in storage, or damaged"
    TOO_CLOSE = "too_close", "a crop below the face would leave too little; see faces.too_close"
    CRASHED = "crashed", "the worker process crashed on this image"
    FAILED = "failed", "a processing step failed on this image; see error"


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlRow:
    """One image URL of one product document."""

    key: str
    """Stable id of the image in its partition, safe as a file name."""
    url: str
    """URL of the image, as in the document; `removed:` and its SHA-256 if it was taken down."""
    retailer: str
    """Slug of the retailer."""
    date: str
    """Day of the document in UTC."""
    product_id: str
    """Id of the product; see `source.fields.product_id`."""
    position: int
    """Index of the URL in the document's list, starting at 0."""
    document_id: str
    """`_id` of the document that lists the URL."""


FORMAT_EXTENSIONS = {
    "jpeg": "jpg",
    "png": "png",
    "webp": "webp",
    "gif": "gif",
    "bmp": "bmp",
    "tiff": "tif",
    "avif": "avif",
    "heic": "heic",
    "jxl": "jxl",
}
"""File name extension by image format."""

URL_FIELDS = tuple(field.name for field in fields(UrlRow))


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow(UrlRow):
    """The result of downloading one URL."""

    outcome: Outcome
    """Result of the download: `ok`, or the reason why there is no image."""
    http_status: int | None = None
    """HTTP status of the last response; null if there was no response."""
    error: str | None = None
    """Error message; for an `ok` image, the reason why it could not be refreshed."""
    attempts: int = 0
    """Number of requests, including the first one."""
    path: str | None = None
    """Path of the served file, relative to the data root; `process.keep_raw: false` removes the
    file once its image is processed."""
    bytes: int | None = None
    """Size of the served file in bytes."""
    sha256: str | None = None
    """SHA-256 of the served bytes, in hex."""
    format: str | None = None
    """Image format, detected from the bytes: `jpeg`, `png`, ..."""
    width: int | None = None
    """Width in pixels, before any EXIF orientation is applied."""
    height: int | None = None
    """Height in pixels, before any EXIF orientation is applied."""
    etag: str | None = None
    """ETag header of the response: the server's id of this version of the image."""
    last_modified: str | None = None
    """Last-Modified header of the response."""
    fetched_at: dt.datetime | None = None
    """Time at which the last response was complete, in UTC: of the download, or of the last
    request that confirmed that the image has not changed."""
    elapsed_ms: int | None = None
    """Milliseconds from the first attempt to the last byte, including waits between attempts; null
    if this partition sent no request."""
    reused_from: str | None = None
    """Date of the partition that downloaded the file; null if it is this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessedRow(UrlRow):
    """The result of processing one image."""

    raw_path: str | None = None
    """`path` of the row in `raw_images`; null if there is no served file."""
    raw_sha256: str | None = None
    """SHA-256 of the served bytes from which the image was made, in hex."""
    outcome: Outcome
    """Result of the processing: `ok`, or the reason why there is no processed image."""
    error: str | None = None
    """Error message."""
    path: str | None = None
    """Path of the processed image, relative to the data root."""
    bytes: int | None = None
    """Size of the processed file in bytes."""
    sha256: str | None = None
    """SHA-256 of the processed file, in hex."""
    width: int | None = None
    """Width of the processed image in pixels."""
    height: int | None = None
    """Height of the processed image in pixels."""
    face_count: int | None = None
    """Number of detected faces, printed ones included; null if face detection did not run on the
    image."""
    face_box: list[int] | None = None
    """`[x, y, width, height]` of the face with the lowest chin, in pixels of the served image with
    its EXIF orientation applied."""
    face_score: float | None = None
    """Detection score of that face, 0 to 1."""
    face_boxes: list[list[int]] | None = None
    """Boxes of all faces, in the form of `face_box`, which is the first."""
    face_scores: list[float] | None = None
    """Detection scores of all faces, in the order of `face_boxes`."""
    face_landmarks: list[list[int]] | None = None
    """Landmarks of all faces, in the order of `face_boxes`: x and y of right eye, left eye, nose,
    right and left corner of the mouth."""
    face_action: str | None = None
    """Action applied to the faces: `crop`, `blur`, `pixelate`, `fill`, `crop_and_blur`, or `none`;
    null if no face was detected."""
    face_rule: str | None = None
    """Rule that chose the cut of a crop: `lowest_chin`; `other_person` if a cut below the lowest
    chin would take too much of somebody else; `lowest_that_fits` if it would leave too little;
    `too_close` if every cut would. `printed` if all faces are printed on a product: they stay."""
    face_cut: int | None = None
    """Row of the served image above which everything was cut off; null if there was no cut."""
    face_removed: bool | None = None
    """Whether the faces of all people were removed; null if no person's face was detected."""
    trim_box: list[int] | None = None
    """`[x, y, width, height]` that the trim kept, in pixels of the image before the trim."""
    trim_threshold: float | None = None
    """Threshold at which the box was found: grey variance (method `variance`), or slope of an edge
    in grey levels per pixel (`background`); null if nothing was trimmed, or only bars at the
    border."""
    trim_ratio: float | None = None
    """Area that the trim kept / area before the trim, 0 to 1."""
    kept_box: list[int] | None = None
    """`[x, y, width, height]` of the region that the processed image shows, in pixels of the served
    image."""
    settings_hash: str | None = None
    """Hash of all settings that the processed image depends on."""
    reused_from: str | None = None
    """Date of the partition that processed the image; null if it is this one."""

    @property
    def kept_face_boxes(self) -> list[list[int]]:
        """Boxes of the detected faces that the processed image shows, in its pixels.

        Those below a cut are included: they are printed on a product, or covered. The boxes are
        computed from `kept_box`. If the image has padding or was enlarged, that is not possible,
        and the box is the whole image.
        """
        boxes = self.face_boxes
        if self.face_removed is True:
            cut = self.face_cut
            boxes = [] if cut is None else [box for box in boxes or [] if box[1] >= cut]
        if self.face_removed is None and self.face_rule != "printed":
            boxes = []
        if boxes == [] or self.width is None or self.height is None:
            return []
        whole = [[0, 0, self.width, self.height]]
        if self.kept_box is None or boxes is None:
            return whole
        left, top, kept_width, kept_height = self.kept_box
        if self.width > kept_width or self.height > kept_height:
            return whole
        scale_x, scale_y = self.width / kept_width, self.height / kept_height
        if abs(kept_width * scale_y - self.width) > _MAX_ROUNDING:
            return whole
        return [
            [
                math.floor((x - left) * scale_x),
                math.floor((y - top) * scale_y),
                math.ceil(width * scale_x) + 1,
                math.ceil(height * scale_y) + 1,
            ]
            for x, y, width, height in boxes
        ]


_TYPES: dict[str, pa.DataType] = {
    "str": pa.string(),
    "str | None": pa.string(),
    "int": pa.int32(),
    "int | None": pa.int32(),
    "float | None": pa.float64(),
    "bool | None": pa.bool_(),
    "list[int] | None": pa.list_(pa.int32()),
    "list[float] | None": pa.list_(pa.float64()),
    "list[list[int]] | None": pa.list_(pa.list_(pa.int32())),
    "dt.datetime | None": pa.timestamp("ms", tz="UTC"),
    "Outcome": pa.string(),
}
# Types of the columns that differ from `_TYPES`.
_COLUMN_TYPES = {
    "date": pa.date32(),
    "reused_from": pa.date32(),
    "bytes": pa.int64(),
    "elapsed_ms": pa.int64(),
}


def _schema(row: type[UrlRow]) -> pa.Schema:
    return pa.schema(
        [
            pa.field(
                field.name,
                _COLUMN_TYPES.get(field.name, _TYPES[str(field.type)]),
                nullable="None" in str(field.type),
            )
            for field in fields(row)
        ]
    )


URL_LIST = _schema(UrlRow)
RAW_IMAGES = _schema(RawRow)
PROCESSED_IMAGES = _schema(ProcessedRow)
SCHEMAS = {UrlRow: URL_LIST, RawRow: RAW_IMAGES, ProcessedRow: PROCESSED_IMAGES}


def column_descriptions(row_class: type[UrlRow]) -> dict[str, str]:
    """Description of each column of a manifest: the docstring of its field, on one line.

    Args:
        row_class: The class of the manifest's rows.
    """
    from docstring_parser import parse_from_object

    found = {}
    for row in reversed(row_class.__mro__[:-1]):
        for field in parse_from_object(row).params:
            found[field.arg_name] = " ".join(str(field.description).split())
    return found


OUTCOMES = {str(outcome): outcome for outcome in Outcome}
"""Outcomes by the word that a manifest contains."""

Row = TypeVar("Row", UrlRow, RawRow, ProcessedRow)


def to_table(
    rows: Iterable[Row],
    row_class: type[Row],
    settings_hash: str = "",
    documents: int | None = None,
) -> pa.Table:
    """Convert rows to a table with the columns, dtypes and metadata of their manifest.

    Args:
        rows: See `to_tables`.
        row_class: The class of the rows.
        settings_hash: Hash of the settings that the rows depend on, for the metadata.
        documents: Number of documents that were listed, for the metadata of `url_list`.
    """
    tables = list(to_tables(rows, row_class)) or [SCHEMAS[row_class].empty_table()]
    schema = _schema_with_metadata(row_class, settings_hash, documents)
    return pa.concat_tables(tables).cast(schema)


def to_tables(rows: Iterable[Row], row_class: type[Row]) -> Iterator[pa.Table]:
    """Convert rows to tables of up to 5,000 rows, without the metadata of their manifest.

    Args:
        rows: The rows; may be empty. Rows that are made while they are read are not kept.
        row_class: The class of the rows.
    """
    schema, left = SCHEMAS[row_class], iter(rows)
    while batch := list(islice(left, _BATCH)):
        columns = [_array(list(map(attrgetter(field.name), batch)), field.type) for field in schema]
        yield pa.Table.from_arrays(columns, schema=schema)


def as_manifest(
    table: pa.Table,
    row_class: type[UrlRow],
    settings_hash: str = "",
    documents: int | None = None,
) -> pa.Table:
    """Give a table the order of columns and the metadata of its manifest; no value is copied.

    Args:
        table: The columns of the manifest with their dtypes, in any order.
        row_class: The class of the rows.
        settings_hash: See `to_table`.
        documents: See `to_table`.

    Raises:
        KeyError: A column is missing.
        ValueError: A column has another dtype, or nulls where the manifest has none.
    """
    schema = _schema_with_metadata(row_class, settings_hash, documents)
    return table.select(schema.names).cast(schema)


def _schema_with_metadata(
    row_class: type[UrlRow], settings_hash: str, documents: int | None
) -> pa.Schema:
    from importlib.metadata import version

    return SCHEMAS[row_class].with_metadata(
        {
            "imgassets.schema_version": str(SCHEMA_VERSION),
            "imgassets.version": version("imgassets"),
            "imgassets.settings_hash": settings_hash,
            **({} if documents is None else {"imgassets.documents": str(documents)}),
        }
    )


def settings_hash_of(table: pa.Table) -> str | None:
    """The hash of the settings that the rows of a manifest depend on; None if it has none."""
    return _metadata_of(table, b"imgassets.settings_hash") or None


def documents_of(table: pa.Table) -> int | None:
    """The number of documents that `url_list` was made of; None if its manifest does not say."""
    number = _metadata_of(table, b"imgassets.documents")
    return int(number) if number else None


def _metadata_of(table: pa.Table, name: bytes) -> str:
    return str((table.schema.metadata or {}).get(name, b"").decode())


def _array(values: list[object], type_: pa.DataType) -> pa.Array:
    if pa.types.is_date(type_):  # rows have days as text
        return pa.array(values, pa.string()).cast(type_)
    return pa.array(values, type_)


def from_table(table: pa.Table, row_class: type[Row]) -> list[Row]:
    """Convert a manifest to rows; columns that the manifest lacks get their default.

    Args:
        table: The manifest.
        row_class: The class of the rows.
    """
    columns = {
        name: column_values(table, name)
        for name in SCHEMAS[row_class].names
        if name in table.column_names
    }
    return build_rows(row_class, table.num_rows, columns)


def build_rows(
    row_class: type[Row], count: int, columns: Mapping[str, Iterable[object]]
) -> list[Row]:
    """Make rows from the values of their columns, in a third of the time of one call per row.

    Args:
        row_class: The class of the rows.
        count: Number of rows.
        columns: Values by column, `count` of each; columns that are left out get their default.

    Raises:
        KeyError: A column without a default is left out.
    """
    rows = [object.__new__(row_class) for _ in range(count)]
    for field in fields(row_class):
        is_given = field.default is MISSING or field.name in columns
        values = columns[field.name] if is_given else repeat(field.default)
        # A frozen dataclass sets its fields like this, too.
        deque(map(object.__setattr__, rows, repeat(field.name), values), maxlen=0)
    return rows


def column_values(table: pa.Table, name: str) -> list[Any]:
    """The values of a manifest's column as its rows have them.

    Args:
        table: Columns of a manifest.
        name: Name of the column.

    Raises:
        KeyError: The manifest lacks the column.
    """
    column = table[name]
    if name == "outcome":
        return [OUTCOMES[word] for word in column.to_pylist()]
    if pa.types.is_date(column.type):
        return list(column.cast(pa.string()).to_pylist())
    if pa.types.is_timestamp(column.type):  # PyArrow takes five times as long, to add the zone
        milliseconds = column.cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64()).to_pylist()
        return [None if ms is None else _EPOCH + ms * _MILLISECOND for ms in milliseconds]
    return list(column.to_pylist())


def count_outcomes(table: pa.Table) -> dict[str, int]:
    """Number of rows of a manifest by outcome, the most frequent outcome first.

    Args:
        table: A manifest of `raw_images` or `processed_images`.
    """
    counts = table["outcome"].value_counts()
    words, numbers = counts.field("values").to_pylist(), counts.field("counts").to_pylist()
    return dict(sorted(zip(words, numbers, strict=True), key=lambda each: -each[1]))


def fingerprint(table: pa.Table, *columns: str) -> str:
    """SHA-256 over columns of all rows, in hex: equal content gives an equal hash.

    Dagster compares it to decide whether downstream assets are up to date.

    Args:
        table: A manifest, in the order of its rows.
        columns: Names of the columns to include.
    """
    digest = hashlib.sha256()
    for start in range(0, table.num_rows, _BATCH):
        batch = table.slice(start, _BATCH)
        values = (map(repr, column_values(batch, name)) for name in columns)
        digest.update("".join(f"[{', '.join(row)}]" for row in zip(*values, strict=True)).encode())
    return digest.hexdigest()
