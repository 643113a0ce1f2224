"""The three manifests: their columns, dtypes and outcomes.

A manifest is a table with one row a URL, and the product's contract: notebooks, DuckDB, Spark and
the asset checks read it. Here live what a row holds and how rows become a table. Where manifests
lie and how they are written is in `storage`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from operator import attrgetter
from typing import Self, TypeVar

import pyarrow as pa


class Outcome(StrEnum):
    """What became of a URL or of its picture. Every row has exactly one."""

    meaning: str

    def __new__(cls, word: str, meaning: str) -> Self:
        """Make a word that knows its meaning."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.meaning = meaning
        return member

    OK = "ok", "the picture was saved"

    INVALID_URL = "invalid_url", "not an http or https address"
    HTTP_ERROR = "http_error", "the server answered with an error status; see http_status"
    TIMEOUT = (
        "timeout",
        "the server, or a processing step, took longer than the settings allow",
    )
    CONNECTION_ERROR = "connection_error", "no connection, or it broke off; see error"
    TOO_MANY_REDIRECTS = "too_many_redirects", "more redirects than download.max_redirects"
    BLOCKED_ADDRESS = (
        "blocked_address",
        "a private, loopback or link-local address; see download.allow_private_addresses",
    )
    DISALLOWED = "disallowed", "robots.txt or X-Robots-Tag asks not to; see download.robots"
    HOST_DOWN = "host_down", "not asked: its host kept failing; see error"
    TOO_LARGE = "too_large", "more bytes than download.max_bytes"
    TOO_MANY_PIXELS = "too_many_pixels", "more than download.max_pixels or decode.max_pixels"
    TOO_SMALL = "too_small", "fewer bytes than download.min_bytes"
    EMPTY = "empty", "the server sent no bytes"
    NOT_AN_IMAGE = "not_an_image", "the bytes are no picture, whatever the name says"
    UNSUPPORTED_FORMAT = "unsupported_format", "an SVG, HEIC, ... that cannot be processed"
    CORRUPT = "corrupt", "a picture that is cut off or broken"
    NOT_FETCHED = "not_fetched", "the run ended before the turn of this URL; run it again"

    NO_RAW = "no_raw", "there is nothing to process: the download failed; see raw_images"
    RAW_MISSING = "raw_missing", "the downloaded file is gone from storage"
    TOO_CLOSE = "too_close", "cutting off the face would leave too little; see faces.too_close"
    CRASHED = "crashed", "the process that worked on this picture died of it"
    FAILED = "failed", "a processing step failed on this picture; see error"


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlRow:
    """One image URL of one product document."""

    key: str
    """Stable id of the picture in its partition, safe as a file name."""
    url: str
    """Address of the picture, as the document has it."""
    retailer: str
    """Slug of the retailer."""
    date: str
    """Day of the document in UTC, `YYYY-MM-DD`."""
    product_id: str
    """What names the product; see `source.fields.product_id`."""
    position: int
    """Place of the URL in the document's list, from 0."""
    document_id: str
    """`_id` of the document that lists the URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow(UrlRow):
    """What happened to one URL."""

    outcome: Outcome
    """What became of the URL: `ok`, or why there is no picture."""
    http_status: int | None = None
    """Status of the last answer; none where no answer came."""
    error: str | None = None
    """One sentence for a person; of an ok picture, why it could not be refreshed."""
    attempts: int = 0
    """Requests made, the first one included."""
    path: str | None = None
    """Where the served bytes lie, relative to the folder of the manifest."""
    bytes: int | None = None
    """Size of the served file."""
    sha256: str | None = None
    """Of the served bytes."""
    format: str | None = None
    """`jpeg`, `png`, ...: judged by the bytes."""
    width: int | None = None
    """Pixels, before any EXIF orientation."""
    height: int | None = None
    """Pixels, before any EXIF orientation."""
    etag: str | None = None
    """The server's name for this version of the picture."""
    last_modified: str | None = None
    """When the picture changed, as the server says it."""
    fetched_at: dt.datetime | None = None
    """When the answer was complete, in UTC."""
    elapsed_ms: int | None = None
    """From the first attempt to the last byte, waits between attempts included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessedRow:
    """What was done to one picture."""

    key: str
    """As in `raw_images`; each key has exactly one row."""
    url: str
    """Address of the picture, as the document has it."""
    product_id: str
    """What names the product; see `source.fields.product_id`."""
    raw_sha256: str | None = None
    """Of the served bytes that the picture was made from."""
    outcome: Outcome
    """What became of the picture: `ok`, or why none was made."""
    error: str | None = None
    """One sentence for a person."""
    path: str | None = None
    """Where the picture made lies, relative to the folder of the manifest."""
    bytes: int | None = None
    """Size of that file; none in manifests older than this column."""
    sha256: str | None = None
    """Of that file."""
    width: int | None = None
    """Pixels of the picture made."""
    height: int | None = None
    """Pixels of the picture made."""
    face_count: int | None = None
    """Faces found; none where the picture was not looked at."""
    face_box: list[int] | None = None
    """`[x, y, width, height]` of the face with the lowest chin, in pixels of the served picture
    as it is seen (its EXIF orientation applied)."""
    face_score: float | None = None
    """Of that face, 0 to 1."""
    face_boxes: list[list[int]] | None = None
    """Of all faces, the one of `face_box` first; as that one."""
    face_scores: list[float] | None = None
    """Of all faces, in the order of `face_boxes`."""
    face_landmarks: list[list[int]] | None = None
    """Of all faces: x and y of right eye, left eye, nose, right and left corner of the mouth."""
    face_action: str | None = None
    """What was done: `crop`, `blur`, `pixelate`, `fill`, `crop_and_blur`, or `none`; none where
    there is no face."""
    face_rule: str | None = None
    """What decided the row of a crop: `lowest_chin`; `lowest_that_fits`, where a cut below the
    lowest chin would leave too little; `too_close`, where every cut would."""
    face_cut: int | None = None
    """Row of the served picture above which all was cut off; none where nothing was."""
    face_removed: bool | None = None
    """Whether no detected face is left; none where none was found."""
    trim_box: list[int] | None = None
    """`[x, y, width, height]` kept by the trim, in pixels of the picture before the trim."""
    trim_threshold: float | None = None
    """At which the box was found: grey variance (method variance), or slope of an edge in levels a
    pixel (background); none where nothing was trimmed."""
    trim_ratio: float | None = None
    """Area kept / area before the trim, 0 to 1."""
    kept_box: list[int] | None = None
    """`[x, y, width, height]` of the served picture that the picture made shows."""
    settings_hash: str | None = None
    """Of all settings that the picture depends on."""


# Dictionaries, since pyarrow and pandas otherwise refuse to merge a column with the Hive-style
# folder of the same name.
_WORD = pa.dictionary(pa.int32(), pa.string())
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
    "Outcome": _WORD,
}
_EXCEPTIONS = {"retailer": _WORD, "date": _WORD, "bytes": pa.int64(), "elapsed_ms": pa.int64()}


def _schema(row: type[UrlRow] | type[ProcessedRow]) -> pa.Schema:
    return pa.schema(
        [
            pa.field(
                field.name,
                _EXCEPTIONS.get(field.name, _TYPES[str(field.type)]),
                nullable="None" in str(field.type),
            )
            for field in fields(row)
        ]
    )


URL_LIST = _schema(UrlRow)
RAW_IMAGES = _schema(RawRow)
PROCESSED_IMAGES = _schema(ProcessedRow)
SCHEMAS = {UrlRow: URL_LIST, RawRow: RAW_IMAGES, ProcessedRow: PROCESSED_IMAGES}


def meanings(kind: type[UrlRow] | type[ProcessedRow]) -> dict[str, str]:
    """What each column of a manifest holds: the text under its field, on one line."""
    from docstring_parser import parse_from_object

    found = {}
    for row in reversed(kind.__mro__[:-1]):
        for field in parse_from_object(row).params:
            found[field.arg_name] = " ".join(str(field.description).split())
    return found


OUTCOMES = {str(outcome): outcome for outcome in Outcome}
"""By the word that a manifest holds."""

Row = TypeVar("Row", UrlRow, RawRow, ProcessedRow)


def to_table(rows: Sequence[Row], kind: type[Row]) -> pa.Table:
    """Rows as a table with the columns and dtypes of their manifest."""
    schema = SCHEMAS[kind]
    columns = [
        pa.array(list(map(attrgetter(field.name), rows)), type=field.type) for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def from_table(table: pa.Table, kind: type[Row]) -> list[Row]:
    """The rows of a manifest; columns that a manifest does not have are left out."""
    names = [name for name in SCHEMAS[kind].names if name in table.column_names]
    rows = table.select(names).to_pylist()
    if "outcome" in names:
        for row in rows:
            row["outcome"] = OUTCOMES[row["outcome"]]
    return [kind(**row) for row in rows]


def count_outcomes(rows: Iterable[RawRow] | Iterable[ProcessedRow]) -> dict[str, int]:
    """How many rows ended how, the most frequent outcome first."""
    return dict(Counter(str(row.outcome) for row in rows).most_common())


def fingerprint(rows: Sequence[UrlRow] | Sequence[ProcessedRow], *columns: str) -> str:
    """A hash of some columns of all rows: equal exactly where the content is.

    Dagster compares it to tell whether what is downstream is still up to date.
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr([getattr(row, column) for column in columns]).encode())
    return digest.hexdigest()
