"""Tests of manifests: conversion between rows and tables, and reading by other programs."""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib.metadata
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgassets.manifests import (
    OUTCOMES,
    PROCESSED_IMAGES,
    RAW_IMAGES,
    SCHEMA_VERSION,
    SCHEMAS,
    URL_LIST,
    Outcome,
    ProcessedRow,
    RawRow,
    UrlRow,
    as_manifest,
    column_descriptions,
    column_values,
    count_outcomes,
    fingerprint,
    from_table,
    to_table,
    to_tables,
)
from imgassets.storage import Storage
from imgassets_tests.rows import processed_row, raw_row, url_row

Row = TypeVar("Row", UrlRow, RawRow, ProcessedRow)

# UTF-8 cannot encode lone surrogates, so neither documents nor manifests contain them.
_text = st.text(st.characters(exclude_categories=["Cs"]))
_int32 = st.integers(-(2**31), 2**31 - 1)
_float = st.floats(allow_nan=False)
_BY_TYPE: dict[str, st.SearchStrategy[object]] = {
    "str": _text,
    "int": _int32,
    "float": _float,
    "bool": st.booleans(),
    "list[int]": st.lists(_int32),
    "list[float]": st.lists(_float),
    "list[list[int]]": st.lists(st.lists(_int32)),
    "dt.datetime": st.datetimes(
        dt.datetime(1970, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC)
    ).map(lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000)),
    "Outcome": st.sampled_from(Outcome),
}
_int64 = st.integers(0, 2**63 - 1)
_day = st.dates().map(dt.date.isoformat)
_BY_COLUMN: dict[str, st.SearchStrategy[object]] = {
    "bytes": _int64,
    "elapsed_ms": _int64,
    "date": _day,
    "reused_from": _day,
}


def _rows(kind: type[Row]) -> st.SearchStrategy[list[Row]]:
    columns: dict[str, st.SearchStrategy[object]] = {}
    for field in fields(kind):
        name = str(field.type).removesuffix(" | None")
        values = _BY_COLUMN.get(field.name, _BY_TYPE[name])
        columns[field.name] = st.none() | values if name != str(field.type) else values
    return st.lists(st.builds(kind, **columns), max_size=5)


@given(_rows(UrlRow))
def test_url_rows_survive_conversion_to_a_table_and_back(rows: list[UrlRow]) -> None:
    assert from_table(to_table(rows, UrlRow), UrlRow) == rows


@given(_rows(RawRow))
def test_raw_rows_survive_conversion_to_a_table_and_back(rows: list[RawRow]) -> None:
    assert from_table(to_table(rows, RawRow), RawRow) == rows


@given(_rows(ProcessedRow))
def test_processed_rows_survive_conversion_to_a_table_and_back(rows: list[ProcessedRow]) -> None:
    assert from_table(to_table(rows, ProcessedRow), ProcessedRow) == rows


def test_rows_read_from_a_file_equal_the_written_rows_and_have_outcome_members(
    tmp_path: Path,
) -> None:
    fetched_at = dt.datetime(2026, 1, 31, 23, 59, 59, 999_000, tzinfo=dt.UTC)
    rows = [
        raw_row(0, fetched_at=fetched_at, bytes=5_000_000_000, elapsed_ms=3_000_000_000),
        raw_row(1, outcome=Outcome.TIMEOUT, path=None, bytes=None, error="too slow: 日本 | é\n"),
        raw_row(2, reused_from="2025-12-31"),
    ]
    partition = Storage(str(tmp_path)).partition("2026-01-31", "zara")
    partition.write_manifest("raw_images", to_table(rows, RawRow))

    read = from_table(partition.read_manifest("raw_images"), RawRow)

    assert read == rows
    assert read[1].outcome is Outcome.TIMEOUT
    assert read[0].fetched_at is not None
    assert read[0].fetched_at.utcoffset() == dt.timedelta(0)


@pytest.mark.parametrize("kind", [UrlRow, RawRow, ProcessedRow])
def test_a_manifest_records_its_versions_and_the_hash_of_its_settings(
    tmp_path: Path, kind: type[UrlRow]
) -> None:
    partition = Storage(str(tmp_path)).partition("2026-01-31", "zara")
    partition.write_manifest("some", to_table([], kind, "0123456789abcdef"))
    metadata = pyarrow.parquet.read_schema(f"{tmp_path}/{partition.manifest('some')}").metadata
    own = {key: value for key, value in metadata.items() if key.startswith(b"imgassets.")}
    assert own == {
        b"imgassets.schema_version": str(SCHEMA_VERSION).encode(),
        b"imgassets.version": importlib.metadata.version("imgassets").encode(),
        b"imgassets.settings_hash": b"0123456789abcdef",
    }
    assert SCHEMA_VERSION == 2
    assert to_table([], kind).schema.metadata[b"imgassets.settings_hash"] == b""


@pytest.mark.parametrize("kind", [UrlRow, RawRow, ProcessedRow])
def test_a_manifest_without_rows_has_no_row_group_and_is_read_back(
    tmp_path: Path, kind: type[UrlRow]
) -> None:
    partition = Storage(str(tmp_path)).partition("2026-01-31", "zara")
    partition.write_manifest("some", to_table([], kind))
    path = f"{tmp_path}/{partition.manifest('some')}"
    assert pyarrow.parquet.read_metadata(path).num_row_groups == 0
    table = partition.read_manifest("some")
    assert table.schema.equals(SCHEMAS[kind])
    assert from_table(table, kind) == []
    assert pd.read_parquet(path).columns.tolist() == SCHEMAS[kind].names


def test_days_are_dates_in_tables_and_text_in_rows() -> None:
    rows = [raw_row(0), raw_row(1, date="2024-02-29", reused_from="1999-12-31")]
    table = to_table(rows, RawRow)
    assert table.select(["date", "reused_from"]).to_pylist() == [
        {"date": dt.date(2026, 1, 31), "reused_from": None},
        {"date": dt.date(2024, 2, 29), "reused_from": dt.date(1999, 12, 31)},
    ]
    assert from_table(table, RawRow) == rows
    assert column_values(table, "reused_from") == [None, "1999-12-31"]
    assert column_values(table.slice(1), "date") == ["2024-02-29"]
    assert column_values(table.slice(0, 0), "date") == []
    assert all(outcome is Outcome.OK for outcome in column_values(table, "outcome"))


def test_a_time_is_read_in_utc_and_to_the_millisecond_and_may_be_missing() -> None:
    times = [dt.datetime(1969, 12, 31, 23, 59, 59, 999000, dt.UTC), None]
    table = to_table([raw_row(0, fetched_at=times[0]), raw_row(1, fetched_at=None)], RawRow)
    assert column_values(table, "fetched_at") == times


@pytest.mark.parametrize("day", ["2026-02-30", "yesterday", "2026-1-31x"])
def test_a_day_that_does_not_exist_cannot_be_written(day: str) -> None:
    with pytest.raises(pa.ArrowInvalid, match=day):
        to_table([raw_row(reused_from=day)], RawRow)


def test_a_time_is_truncated_to_milliseconds() -> None:
    fetched_at = dt.datetime(2026, 1, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC)
    (row,) = from_table(to_table([raw_row(fetched_at=fetched_at)], RawRow), RawRow)
    assert row.fetched_at == fetched_at.replace(microsecond=999_000)


@pytest.mark.parametrize("kind", [UrlRow, RawRow, ProcessedRow])
def test_a_table_without_rows_has_all_columns_of_its_manifest(kind: type[UrlRow]) -> None:
    table = to_table([], kind)
    assert table.schema == SCHEMAS[kind]
    assert from_table(table, kind) == []


def test_unknown_columns_are_ignored() -> None:
    table = to_table([url_row()], UrlRow).append_column("note", pa.array(["added by a user"]))
    assert from_table(table, UrlRow) == [url_row()]


def test_a_url_that_was_not_requested_has_zero_attempts_and_no_other_values() -> None:
    row = raw_row(outcome=Outcome.HOST_DOWN, path=None, bytes=None, sha256=None)
    nothing = {field.name: getattr(row, field.name) for field in fields(RawRow)[8:]}
    assert nothing.pop("attempts") == 0
    assert {*nothing.values()} == {None}


def test_a_raw_manifest_can_be_read_as_url_rows() -> None:
    assert from_table(to_table([raw_row(3)], RawRow), UrlRow) == [url_row(3)]


def test_a_column_that_an_older_manifest_lacks_is_read_as_none() -> None:
    table = to_table([processed_row(kept_box=[0, 0, 1, 1])], ProcessedRow)
    assert from_table(table.drop_columns(["kept_box"]), ProcessedRow) == [processed_row()]


def test_a_manifest_without_a_required_column_cannot_be_read() -> None:
    table = to_table([processed_row()], ProcessedRow)
    with pytest.raises(KeyError, match="document_id"):
        from_table(table.drop_columns(["document_id"]), ProcessedRow)


BOX = pa.list_(pa.int32())
REQUIRED, OPTIONAL = False, True
URL_COLUMNS = {
    "key": (pa.string(), REQUIRED),
    "url": (pa.string(), REQUIRED),
    "retailer": (pa.string(), REQUIRED),
    "date": (pa.date32(), REQUIRED),
    "product_id": (pa.string(), REQUIRED),
    "position": (pa.int32(), REQUIRED),
    "document_id": (pa.string(), REQUIRED),
}
RAW_COLUMNS = URL_COLUMNS | {
    "outcome": (pa.string(), REQUIRED),
    "http_status": (pa.int32(), OPTIONAL),
    "error": (pa.string(), OPTIONAL),
    "attempts": (pa.int32(), REQUIRED),
    "path": (pa.string(), OPTIONAL),
    "bytes": (pa.int64(), OPTIONAL),
    "sha256": (pa.string(), OPTIONAL),
    "format": (pa.string(), OPTIONAL),
    "width": (pa.int32(), OPTIONAL),
    "height": (pa.int32(), OPTIONAL),
    "etag": (pa.string(), OPTIONAL),
    "last_modified": (pa.string(), OPTIONAL),
    "fetched_at": (pa.timestamp("ms", tz="UTC"), OPTIONAL),
    "elapsed_ms": (pa.int64(), OPTIONAL),
    "reused_from": (pa.date32(), OPTIONAL),
}
PROCESSED_COLUMNS = URL_COLUMNS | {
    "raw_path": (pa.string(), OPTIONAL),
    "raw_sha256": (pa.string(), OPTIONAL),
    "outcome": (pa.string(), REQUIRED),
    "error": (pa.string(), OPTIONAL),
    "path": (pa.string(), OPTIONAL),
    "bytes": (pa.int64(), OPTIONAL),
    "sha256": (pa.string(), OPTIONAL),
    "width": (pa.int32(), OPTIONAL),
    "height": (pa.int32(), OPTIONAL),
    "face_count": (pa.int32(), OPTIONAL),
    "face_box": (BOX, OPTIONAL),
    "face_score": (pa.float64(), OPTIONAL),
    "face_boxes": (pa.list_(BOX), OPTIONAL),
    "face_scores": (pa.list_(pa.float64()), OPTIONAL),
    "face_landmarks": (pa.list_(BOX), OPTIONAL),
    "face_action": (pa.string(), OPTIONAL),
    "face_rule": (pa.string(), OPTIONAL),
    "face_cut": (pa.int32(), OPTIONAL),
    "face_removed": (pa.bool_(), OPTIONAL),
    "trim_box": (BOX, OPTIONAL),
    "trim_threshold": (pa.float64(), OPTIONAL),
    "trim_ratio": (pa.float64(), OPTIONAL),
    "kept_box": (BOX, OPTIONAL),
    "settings_hash": (pa.string(), OPTIONAL),
    "reused_from": (pa.date32(), OPTIONAL),
}


@pytest.mark.parametrize(
    ("schema", "contract"),
    [(URL_LIST, URL_COLUMNS), (RAW_IMAGES, RAW_COLUMNS), (PROCESSED_IMAGES, PROCESSED_COLUMNS)],
    ids=["url_list", "raw_images", "processed_images"],
)
def test_schemas_match_the_documented_columns(
    schema: pa.Schema, contract: dict[str, tuple[pa.DataType, bool]]
) -> None:
    found = {field.name: (field.type, field.nullable) for field in schema}
    assert found == contract
    assert [*found] == [*contract]


WORDS = (
    "ok invalid_url http_error timeout connection_error too_many_redirects blocked_address "
    "disallowed host_down too_large too_many_pixels too_small empty not_an_image "
    "unsupported_format corrupt not_fetched removed no_raw raw_missing too_close crashed failed"
)


def test_outcomes_match_the_documented_words() -> None:
    assert " ".join(Outcome) == WORDS
    assert [str(outcome) for outcome in Outcome] == [outcome.name.lower() for outcome in Outcome]
    assert {word: Outcome[word.upper()] for word in WORDS.split()} == OUTCOMES


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Outcome.HTTP_ERROR, "http_status"),
        (Outcome.TOO_MANY_REDIRECTS, "download.max_redirects"),
        (Outcome.BLOCKED_ADDRESS, "download.allow_private_addresses"),
        (Outcome.DISALLOWED, "download.robots"),
        (Outcome.TOO_LARGE, "more bytes than download.max_bytes"),
        (Outcome.TOO_SMALL, "fewer bytes than download.min_bytes"),
        (Outcome.TOO_SMALL, "download.min_pixels"),
        (Outcome.TOO_MANY_PIXELS, "download.max_pixels or decode.max_pixels"),
        (Outcome.TOO_CLOSE, "faces.too_close"),
        (Outcome.NOT_FETCHED, "run it again"),
        (Outcome.REMOVED, "imgassets forget"),
        (Outcome.NO_RAW, "the download failed"),
        (Outcome.RAW_MISSING, "the downloaded file is missing"),
        (Outcome.OK, "saved"),
    ],
)
def test_the_meaning_of_an_outcome_names_its_cause_column_or_option(
    outcome: Outcome, text: str
) -> None:
    assert text in outcome.meaning


def test_every_outcome_is_an_identifier_with_its_own_meaning() -> None:
    for outcome in Outcome:
        assert outcome.isidentifier()
        assert outcome.islower()
        assert len(outcome.meaning) > 10
    assert len({outcome.meaning for outcome in Outcome}) == len(Outcome)


def test_rows_that_are_made_while_they_are_read_become_tables() -> None:
    rows = [raw_row(number, attempts=number) for number in range(10_001)]
    assert [table.num_rows for table in to_tables(iter(rows), RawRow)] == [5_000, 5_000, 1]
    assert from_table(to_table(iter(rows), RawRow), RawRow) == rows
    assert list(to_tables(iter([]), RawRow)) == []


def test_outcomes_are_counted_with_the_most_frequent_first() -> None:
    outcomes = [Outcome.EMPTY, Outcome.OK, Outcome.TIMEOUT, Outcome.TIMEOUT]
    table = to_table([raw_row(outcome=outcome) for outcome in outcomes], RawRow)
    found = [("timeout", 2), ("empty", 1), ("ok", 1)]
    assert list(count_outcomes(table).items()) == found
    assert all(type(word) is str for word in count_outcomes(table))
    made = to_table([processed_row(outcome=Outcome.CRASHED)], ProcessedRow)
    assert count_outcomes(made) == {"crashed": 1}
    assert count_outcomes(to_table([], RawRow)) == {}


def hash_of(rows: list[RawRow], *columns: str) -> str:
    return fingerprint(to_table(rows, RawRow), *columns)


def test_a_fingerprint_depends_only_on_the_given_columns() -> None:
    rows = [raw_row(0), raw_row(1)]
    again = [raw_row(0, attempts=2, error="slow"), raw_row(1, http_status=200)]
    columns = ("key", "outcome", "sha256")
    assert hash_of(rows, *columns) == hash_of(again, *columns)
    assert hash_of(rows, "attempts") != hash_of(again, "attempts")
    assert hash_of(rows[:1], "key") == fingerprint(to_table([url_row(0)], UrlRow), "key")


@pytest.mark.parametrize(
    "others",
    [
        [],
        [raw_row(0)],
        [raw_row(1), raw_row(0)],
        [raw_row(0), raw_row(1), raw_row(1)],
        [raw_row(0), raw_row(1, key="image-2")],
        [raw_row(0), raw_row(1, outcome=Outcome.CORRUPT)],
        [raw_row(0), raw_row(1, sha256="0" * 64)],
        [raw_row(0), raw_row(1, sha256=None)],
        [raw_row(0), raw_row(1, sha256="None")],
        [raw_row(0, sha256=raw_row(1).key), raw_row(1)],
    ],
)
def test_different_content_has_a_different_fingerprint(others: list[RawRow]) -> None:
    columns = ("key", "outcome", "sha256")
    known = hash_of([raw_row(0), raw_row(1)], *columns)
    assert hash_of(others, *columns) != known


def test_texts_that_concatenate_to_the_same_text_have_different_fingerprints() -> None:
    joined = [
        [raw_row(key="ab", url="c")],
        [raw_row(key="a", url="bc")],
        [raw_row(key="a', 'b", url="c")],
        [raw_row(key="ab", url="None")],
        [raw_row(key="ab", url="c", sha256=None)] * 2,
    ]
    assert len({hash_of(rows, "key", "url") for rows in joined}) == len(joined)
    without, with_text = [raw_row(sha256=None)], [raw_row(sha256="None")]
    assert hash_of(without, "sha256") != hash_of(with_text, "sha256")


def test_a_fingerprint_is_stable() -> None:
    # Dagster compares it with the one of earlier runs: a change would mark all assets as outdated.
    table = to_table([url_row(key="picture-0")], UrlRow)
    assert fingerprint(table, "key", "url") == (
        "b35adee256316958f5a22217ca9a1ce44b991efb5d4567358d21bef60b391e34"
    )
    assert fingerprint(to_table([], UrlRow), "key") == hashlib.sha256().hexdigest()
    rows = [raw_row(n, sha256=None if n % 3 else f"'{n}\n\"é") for n in range(7_000)]
    expected = hashlib.sha256()
    for row in rows:
        expected.update(repr([row.key, row.outcome, row.sha256]).encode())
    assert hash_of(rows, "key", "outcome", "sha256") == expected.hexdigest()


def test_a_table_becomes_a_manifest_without_its_rows() -> None:
    manifest = to_table([raw_row(0), raw_row(1)], RawRow, "0123", 7)
    mixed = manifest.select(RAW_IMAGES.names[::-1]).replace_schema_metadata()
    again = as_manifest(mixed, RawRow, "0123", 7)
    assert again.equals(manifest, check_metadata=True)
    number = mixed.column_names.index("url")
    with pytest.raises(ValueError, match="url"):
        as_manifest(mixed.set_column(number, "url", pa.array([None, "a"])), RawRow)


@pytest.fixture
def manifests(tmp_path: Path) -> str:
    """The folder of the manifests of partitions; one retailer's name is a number, one is empty."""
    storage = Storage(str(tmp_path))
    for date, retailer in ALL:
        rows = [raw_row(0, date=date, retailer=retailer)]
        made = [processed_row(0, date=date, retailer=retailer)]
        partition = storage.partition(date, retailer)
        partition.write_manifest("raw_images", to_table(rows, RawRow))
        partition.write_manifest("processed_images", to_table(made, ProcessedRow))
    empty = storage.partition("2026-01-29", "zara")
    empty.write_manifest("raw_images", to_table([], RawRow))
    empty.write_manifest("processed_images", to_table([], ProcessedRow))
    return f"{tmp_path}/manifests"


ALL = [("2026-01-30", "zara"), ("2026-01-31", "7"), ("2026-01-31", "zara")]
ALL_DAYS = [(dt.date.fromisoformat(date), retailer) for date, retailer in ALL]


@pytest.mark.parametrize("retailer", ["zara", "7"])
def test_pandas_reads_one_manifest_by_its_path(manifests: str, retailer: str) -> None:
    frame = pd.read_parquet(f"{manifests}/raw_images/{retailer}.2026-01-31.parquet")
    assert list(frame.columns) == RAW_IMAGES.names
    assert frame[["date", "retailer", "outcome"]].to_numpy().tolist() == [
        [dt.date(2026, 1, 31), retailer, "ok"]
    ]


@pytest.mark.parametrize("asset", ["raw_images", "processed_images"])
def test_pandas_reads_all_partitions_at_once(manifests: str, asset: str) -> None:
    frame = pd.read_parquet(f"{manifests}/{asset}")
    assert sorted(zip(frame["date"], frame["retailer"], strict=True)) == ALL_DAYS


def test_pandas_reads_only_the_partitions_that_a_filter_selects(manifests: str) -> None:
    path = f"{manifests}/raw_images"
    zara = pd.read_parquet(path, filters=[("retailer", "==", "zara")])
    assert sorted(zara["date"]) == [dt.date(2026, 1, 30), dt.date(2026, 1, 31)]
    last = pd.read_parquet(path, filters=[("date", ">=", dt.date(2026, 1, 31))])
    assert sorted(last["retailer"]) == ["7", "zara"]


@pytest.mark.parametrize("asset", ["raw_images", "processed_images"])
def test_pyarrow_reads_all_partitions_as_one_dataset(manifests: str, asset: str) -> None:
    data = pyarrow.dataset.dataset(f"{manifests}/{asset}")
    columns = data.to_table().select(["date", "retailer"]).to_pydict()
    assert sorted(zip(*columns.values(), strict=True)) == ALL_DAYS
    assert data.count_rows(filter=pyarrow.dataset.field("retailer") == "zara") == 2


@pytest.mark.parametrize("kind", [UrlRow, RawRow, ProcessedRow])
def test_every_column_has_a_one_line_description(kind: type[UrlRow]) -> None:
    descriptions = column_descriptions(kind)
    assert [*descriptions] == SCHEMAS[kind].names
    for text in descriptions.values():
        assert text[0].isupper() or text[0] == "`"
        assert text.endswith(".")
        assert "\n" not in text
    assert descriptions["key"].startswith("Stable id")


@pytest.mark.parametrize(
    ("kind", "column", "text"),
    [
        (UrlRow, "date", "Day of the document"),
        (RawRow, "date", "Day of the document"),
        (ProcessedRow, "date", "Day of the document"),
        (RawRow, "path", "relative to the data root"),
        (RawRow, "reused_from", "downloaded the file; null if it is this one"),
        (ProcessedRow, "path", "relative to the data root"),
        (ProcessedRow, "reused_from", "processed the image; null if it is this one"),
        (RawRow, "outcome", "Result of the download"),
        (ProcessedRow, "outcome", "Result of the processing"),
        (ProcessedRow, "url", "URL of the image"),
        (ProcessedRow, "face_box", "lowest chin, in pixels of the served image with its EXIF"),
    ],
)
def test_the_description_of_a_column_is_that_of_its_own_manifest(
    kind: type[UrlRow], column: str, text: str
) -> None:
    assert text in column_descriptions(kind)[column]


@pytest.mark.parametrize(
    ("columns", "boxes"),
    [
        # Trimmed by 100 px at the left and 50 px at the top, and scaled to one half.
        ({}, [[50, 75, 41, 61]]),
        (
            {"face_boxes": [[300, 200, 80, 120], [50, 0, 60, 60]]},
            [[100, 75, 41, 61], [-25, -25, 31, 31]],
        ),
        ({"face_removed": True}, []),
        ({"face_removed": None, "face_boxes": None}, []),
        # A face that is printed on a product, alone and below the cut for a person's face.
        ({"face_removed": None, "face_rule": "printed"}, [[50, 75, 41, 61]]),
        (
            {
                "face_removed": True,
                "face_cut": 150,
                "face_boxes": [[200, 200, 80, 120], [200, 20, 80, 120]],
            },
            [[50, 75, 41, 61]],
        ),
        ({"path": None, "width": None, "height": None}, []),
        # Padded to a square, padded all around, enlarged: the whole image.
        ({"width": 300}, [[0, 0, 300, 300]]),
        ({"width": 600, "height": 900}, [[0, 0, 600, 900]]),
        ({"kept_box": None}, [[0, 0, 200, 300]]),
    ],
)
def test_the_faces_that_a_processed_image_shows_are_in_its_own_pixels(
    columns: dict[str, Any], boxes: list[list[int]]
) -> None:
    kept: dict[str, Any] = {
        "face_boxes": [[200, 200, 80, 120]],
        "face_removed": False,
        "kept_box": [100, 50, 400, 600],
        "width": 200,
        "height": 300,
    }
    assert processed_row(0, **kept | columns).kept_face_boxes == boxes
