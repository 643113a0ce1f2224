"""Tests of the records of take-downs, and of what they cover."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from imgassets.errors import StorageError
from imgassets.manifests import RawRow, Row, UrlRow, from_table, to_table
from imgassets.storage import Storage, read_table
from imgassets.takedown import (
    TakedownRecord,
    Takedowns,
    is_redacted,
    read_records,
    read_takedowns,
    redacted_url,
    url_sha256,
    write_record,
)
from imgassets_tests.removal_fixture import Listed, raw_rows, url_rows
from imgassets_tests.takedowns import takedown_record

COAT = "https://shop.example/coat.jpg?a=1&b=%C3%BC"
SHOE = "https://shop.example/shoe.jpg"


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty data root on the disk and in S3."""
    if request.param == "local":
        return Storage(f"{tmp_path}/data")
    return Storage(f"s3://{request.getfixturevalue('s3')}/data")


def row(url: str, product_id: str = "p1", retailer: str = "zara") -> UrlRow:
    partition = Storage("unused").partition("2026-01-02", retailer)
    return url_rows([Listed(product_id, url)], partition)[0]


def redact(takedowns: Takedowns, row: Row) -> Row:
    """The row as it is after `redact` of a table of three such rows."""
    table = takedowns.redact(row.retailer, to_table([row] * 3, type(row)))
    assert table.schema == to_table([row], type(row)).schema
    first, *others = from_table(table, type(row))
    assert others == [first, first]
    return first


def test_a_written_record_is_read_back(root: Storage) -> None:
    full = takedown_record(
        retailer="zara",
        product_id="p1",
        everywhere=True,
        url_sha256=["a" * 64, "b" * 64],
        image_sha256=["c" * 64],
        shared_sha256=["d" * 64],
        rows=1,
        files=2,
        bytes=3_000_000_000,
        paths=["images/raw/zara/cc/x.jpg"],
        complete=False,
    )
    write_record(root, "removed/b.parquet", full)
    write_record(root, "removed/a.parquet", takedown_record(retailer="mango", whole_retailer=True))
    write_record(root, "removed/b.parquet", replace(full, complete=True))
    assert list(read_records(root).items()) == [
        ("removed/a.parquet", takedown_record(retailer="mango", whole_retailer=True)),
        ("removed/b.parquet", replace(full, complete=True)),
    ]
    assert read_table(root, "removed/a.parquet").num_rows == 1


def test_a_data_root_without_take_downs_has_no_records(root: Storage) -> None:
    assert read_records(root) == {}
    assert redact(read_takedowns(root), row(COAT)) == row(COAT)


def test_other_files_beside_records_are_ignored(storage: Storage) -> None:
    storage.write("removed/notes.txt", b"of the legal department")
    assert read_records(storage) == {}


def test_a_broken_record_is_an_error_because_it_may_cover_anything(storage: Storage) -> None:
    storage.write("removed/a.parquet", b"not Parquet")
    with pytest.raises(StorageError, match=r"removed/a.parquet is broken"):
        read_takedowns(storage)


@pytest.mark.parametrize(
    "spelling",
    [
        COAT,
        "HTTPS://SHOP.example/coat.jpg?a=1&b=ü",
        "https://shop.example/coat.jpg?a=1&b=%C3%BC#top",
        f" {COAT} ",
        "//shop.example/x/../%63oat.jpg?a=1&amp;b=ü",
    ],
)
def test_a_url_is_covered_in_every_spelling(spelling: str) -> None:
    takedowns = Takedowns([takedown_record(url_sha256=[url_sha256(COAT)])])
    assert redact(takedowns, row(spelling)).url == f"removed:{url_sha256(COAT)}"


def test_a_url_that_is_not_valid_can_be_taken_down() -> None:
    bad = "not a \ud800 URL"  # which no manifest can contain
    assert Takedowns([takedown_record(url_sha256=[url_sha256(bad)])]).covers("zara", "p1", bad)
    bad = "not a URL"
    takedowns = Takedowns([takedown_record(url_sha256=[url_sha256(bad)])])
    assert is_redacted(redact(takedowns, row(bad)).url)
    assert redact(takedowns, row(SHOE)).url == SHOE


def test_a_redacted_url_has_the_hash_of_its_url_and_stays_as_it_is() -> None:
    once = redacted_url(COAT)
    assert once == "removed:" + url_sha256(COAT)
    assert redacted_url(once) == once
    takedowns = Takedowns([takedown_record(url_sha256=[url_sha256(COAT)])])
    assert redact(takedowns, row(once)).url == once
    assert takedowns.covers("zara", "p1", once)


def test_redaction_keeps_the_other_columns_and_the_class_of_the_row() -> None:
    partition = Storage("unused").partition("2026-01-02", "zara")
    (raw,) = raw_rows([Listed("p1", COAT, b"x")], partition)
    found = redact(Takedowns([takedown_record(product_id="p1")]), raw)
    assert isinstance(found, RawRow)
    assert found == replace(raw, url=redacted_url(COAT))


SCOPES = [
    (takedown_record(url_sha256=[url_sha256(COAT)]), {("zara", "p1", COAT), ("mango", "p2", COAT)}),
    (takedown_record(retailer="zara", url_sha256=[url_sha256(COAT)]), {("zara", "p1", COAT)}),
    (
        takedown_record(retailer="zara", everywhere=True, url_sha256=[url_sha256(COAT)]),
        {("zara", "p1", COAT), ("mango", "p2", COAT)},
    ),
    (takedown_record(product_id="p2"), {("zara", "p2", SHOE), ("mango", "p2", COAT)}),
    (takedown_record(retailer="zara", product_id="p2"), {("zara", "p2", SHOE)}),
    (takedown_record(retailer="zara", product_id="p2", everywhere=True), {("zara", "p2", SHOE)}),
    (
        takedown_record(retailer="zara", whole_retailer=True),
        {("zara", "p1", COAT), ("zara", "p2", SHOE)},
    ),
    (takedown_record(retailer="zara", image_sha256=["a" * 64]), set()),
    (takedown_record(retailer="zara"), set()),
]


@pytest.mark.parametrize(("taken_down", "expected"), SCOPES)
def test_a_record_covers_its_urls_products_and_retailers_only(
    taken_down: TakedownRecord, expected: set[tuple[str, str, str]]
) -> None:
    takedowns = Takedowns([taken_down])
    rows = [
        ("zara", "p1", COAT),
        ("zara", "p2", SHOE),
        ("mango", "p2", COAT),
        ("mango", "p1", SHOE),
    ]
    assert {each for each in rows if takedowns.covers(*each)} == expected
    redacted = {
        (retailer, product_id, url)
        for retailer, product_id, url in rows
        if is_redacted(redact(takedowns, row(url, product_id, retailer)).url)
    }
    assert redacted == expected
    for retailer in ("zara", "mango"):
        of_retailer = [each for each in rows if each[0] == retailer]
        table = pa.table(
            {
                "url": [url for _, _, url in of_retailer],
                "product_id": [product_id for _, product_id, _ in of_retailer],
            }
        )
        assert takedowns.covered(retailer, table).to_pylist() == [
            each in expected for each in of_retailer
        ]
        assert len(takedowns.covered(retailer, table.slice(0, 0))) == 0


def test_images_of_all_records_must_not_be_stored() -> None:
    takedowns = Takedowns(
        [
            takedown_record(image_sha256=["a" * 64]),
            takedown_record(retailer="zara", image_sha256=["b" * 64]),
        ]
    )
    assert takedowns.image_sha256 == {"a" * 64, "b" * 64}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"redirects to {COAT}", "redirects to {}"),
        (f"{COAT}: HTTP 500", "{}: HTTP 500"),
        (f"({COAT}), twice: '{COAT}'.", "({}), twice: '{}'."),
        (f"{COAT}/larger", f"{COAT}/larger"),
        (f"{SHOE} is not {COAT}.", f"{SHOE} is not {{}}."),
        ("https://shop.example/coat.jpg", "https://shop.example/coat.jpg"),
        ("no URL: https://", "no URL: https://"),
        ("", ""),
    ],
)
def test_urls_in_texts_are_replaced_whatever_punctuation_follows(text: str, expected: str) -> None:
    takedowns = Takedowns([takedown_record(url_sha256=[url_sha256(COAT)])])
    assert takedowns.redact_text("zara", text) == expected.replace("{}", redacted_url(COAT))


def test_a_text_of_another_retailer_keeps_its_url() -> None:
    takedowns = Takedowns([takedown_record(retailer="zara", url_sha256=[url_sha256(COAT)])])
    assert takedowns.redact_text("mango", COAT) == COAT
    assert takedowns.redact_text("zara", COAT) == redacted_url(COAT)


@pytest.mark.parametrize(
    ("existing", "new", "expected"),
    [
        ({"url_sha256": ["a"]}, {"url_sha256": ["a"]}, True),
        ({"url_sha256": ["a"]}, {"url_sha256": ["a"], "retailer": "zara"}, True),
        ({"url_sha256": ["a"], "retailer": "zara"}, {"url_sha256": ["a"]}, False),
        ({"url_sha256": ["a"]}, {"url_sha256": ["a", "b"]}, False),
        ({"product_id": "p"}, {"product_id": "p", "retailer": "zara"}, True),
        ({"product_id": "p", "retailer": "zara"}, {"product_id": "p"}, False),
        ({"image_sha256": ["a"]}, {"image_sha256": ["a"]}, True),
        ({"image_sha256": ["a"]}, {"image_sha256": ["b"]}, False),
        (
            {"retailer": "zara", "whole_retailer": True},
            {"retailer": "zara", "whole_retailer": True},
            True,
        ),
        (
            {"retailer": "zara", "whole_retailer": True},
            {"retailer": "zara", "product_id": "p"},
            True,
        ),
        ({"retailer": "zara", "whole_retailer": True}, {"product_id": "p"}, False),
        (
            {"retailer": "zara", "product_id": "p"},
            {"retailer": "zara", "whole_retailer": True},
            False,
        ),
        ({}, {}, True),
    ],
)
def test_a_record_is_included_if_it_takes_nothing_new_down(
    existing: dict[str, Any], new: dict[str, Any], expected: bool
) -> None:
    assert Takedowns([takedown_record(**existing)]).includes(takedown_record(**new)) is expected
