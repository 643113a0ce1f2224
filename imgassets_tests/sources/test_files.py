"""Tests of CSV, JSON Lines and Parquet files as sources."""

from __future__ import annotations

import datetime as dt
import gzip
import io
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgassets.errors import SourceError
from imgassets.settings import SourceSettings
from imgassets.sources.files import file_records
from imgassets.sources.listing import Anomaly
from imgassets.sources.table import TableSource

START = dt.date(2026, 1, 1)


def file_source(path: Path, kind: str, **options: Any) -> TableSource:
    settings = SourceSettings.model_validate({"kind": kind, "path": str(path), **options})
    return TableSource(file_records(settings), settings, START)


class Case(NamedTuple):
    """The bytes of a file, settings of `source`, and the expected rows and anomalies.

    `rows` has the URL, and the retailer, date or product id where it is not the usual one.
    """

    content: bytes
    rows: Sequence[tuple[str, ...]]
    settings: Mapping[str, Any] = MappingProxyType({})
    anomalies: Mapping[str, str] = MappingProxyType({})


def feed(
    text: str, rows: Sequence[tuple[str, ...]], *, encoding: str = "utf-8", **more: Any
) -> Case:
    return Case(text.encode(encoding), rows, **more)


def fields(**names: str | list[str]) -> dict[str, Any]:
    return {"fields": names}


USUAL = ("zara", "2026-01-01", "p1")
ROW = [("http://a/1", *USUAL)]
TWO = [*ROW, ("http://a/2", *USUAL)]
MERCHANT = fields(
    images=["image_link", "additional_image_link"], retailer="brand", date="seen", product_id="id"
)
PARQUET = pa.table(
    {
        "url": ["http://page/1", "http://page/2", "http://page/3"],
        "retailer": ["Zara", "Zara", None],
        "date": [dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 1, 23), None],
        "product_id": ["p1", "p1", "p2"],
        "pictures": [["http://a/1"], ["http://a/2"], []],
        "media": [{"url": "http://a/1", "n": 1}, {"url": "http://a/2", "n": 2}, None],
        "galleries": [[{"src": "http://a/1"}], [{"src": "http://a/2"}], None],
        "og.image": ["http://a/1", "http://a/2", None],
    },
    schema=pa.schema(
        {
            "url": pa.string(),
            "retailer": pa.dictionary(pa.int8(), pa.string()),
            "date": pa.timestamp("ns"),
            "product_id": pa.large_string(),
            "pictures": pa.list_(pa.string()),
            "media": pa.struct({"url": pa.string(), "n": pa.int8()}),
            "galleries": pa.list_(pa.struct({"src": pa.string()})),
            "og.image": pa.string(),
        }
    ),
)
NO_RETAILER = {"no_retailer": "record 3: the retailer is None"}


def table(**columns: pa.Array) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def parquet(**more: Any) -> Case:
    buffer = io.BytesIO()
    pq.write_table(PARQUET, buffer, row_group_size=2)
    return Case(buffer.getvalue(), anomalies=NO_RETAILER, **more)


CASES = {
    # CSV
    "semicolon.csv": feed("url;retailer;product_id\nhttp://a/1;Zara;p1\n", ROW),
    "tab.csv": feed("url\tretailer\tproduct_id\nhttp://a/1\tZara\tp1\n", ROW),
    "bar.csv": feed("url|retailer|product_id\nhttp://a/1|Zara|p1\n", ROW),
    "two-columns.csv": feed("http://a/1;x/Zara/1.jpg\n", [("http://a/1", "zara")]),
    "caret.csv": feed(
        "url^retailer^product_id\nhttp://a/1^Zara^p1\n", ROW, settings={"delimiter": "^"}
    ),
    "commas in a cell.csv": feed(
        'title;url;retailer;product_id\n"a, b, c";http://a/1,http://a/2;Zara;p1\n', TWO
    ),
    "zara.csv.gz": Case(gzip.compress(b"url,product_id\nhttp://a/1,p1\n", mtime=0), ROW),
    "zipped": Case(gzip.compress(b"url,retailer,product_id\nhttp://a/1,Zara,p1\n", mtime=0), ROW),
    "latin-1.csv": feed(
        "url,retailer,product_id\nhttp://a/\xe9,Zara,p1\n",
        [("http://a/\xe9", *USUAL)],
        encoding="latin-1",
        settings={"encoding": "latin-1"},
    ),
    "cp1252.csv": feed(
        "url,retailer,product_id\nhttp://a/1,Zara,p1\nhttp://a/\u20ac,Zara,p1\n",
        [*ROW, ("http://a/\u20ac", *USUAL)],
        encoding="cp1252",
        anomalies={"not_utf_8": "line 3: 'utf-8' codec can't decode byte 0x80"},
    ),
    "utf-16.csv": feed("url,retailer,product_id\nhttp://a/1,Zara,p1\n", ROW, encoding="utf-16"),
    "utf-8-sig.csv": feed(
        "\ufeffurl,retailer,product_id\nhttp://a/1,Zara,p1\n", ROW, settings={"encoding": "utf-8"}
    ),
    "mac.csv": feed("url,retailer,product_id\rhttp://a/1,Zara,p1\rhttp://a/2,Zara,p1\r", TWO),
    "merchant.csv": feed(
        "id,Image_Link,additional_image_link,Brand,seen,url\n"
        'p1,http://a/1,"http://a/2,http://a/3",Zara,2026-01-01,http://page\n'
        "p1,http://a/4,,Zara,2026-01-01,http://page\n",
        [(f"http://a/{number}", *USUAL) for number in (1, 2, 3, 4)],
        settings=MERCHANT,
    ),
    "json in a cell.csv": feed(
        'images,retailer,product_id\n"[""http://a/1"", ""http://a/2""]",Zara,p1\n',
        TWO,
        settings=fields(images="images"),
    ),
    "path in a cell.csv": feed(
        'images,retailer,product_id\n"[{""url"": ""http://a/1""}]",Zara,p1\n',
        ROW,
        settings=fields(images="images.url"),
    ),
    "dots.csv": feed(
        "og.image,retailer,product_id\nhttp://a/1,Zara,p1\n",
        ROW,
        settings=fields(images="og.image"),
    ),
    "catalogue.csv": feed(
        "product_images,product_retailer,scraped_at,_id\nhttp://a/1,Zara,2026-01-01,p1\n", ROW
    ),
    "short rows.csv": feed(
        "url,retailer,product_id\nhttp://a/1,Zara,p1,,\nhttp://a/2\n",
        ROW,
        anomalies={"no_retailer": "record 2: the retailer is ''"},
    ),
    "short date.csv": feed(
        "url,retailer,product_id,date\nhttp://a/1,Zara,p1,2026-01-01\nhttp://a/2,Zara,p1\n",
        ROW,
        anomalies={"no_date": "record 2: the date is empty"},
    ),
    "delimiter in a cell.csv": feed(
        "url,retailer,product_id\nhttp://a/w_1,h_2/1,Zara,p1\nhttp://a/1,Zara,p1\n",
        ROW,
        anomalies={"invalid_record": "line 2: 4 cells, but 3 columns: is a delimiter in a cell"},
    ),
    "excel.csv": feed(
        'sep=;\r\nURL;Retailer;Price;Product_ID;;\r\nhttp://a/1;Zara;19,99;p1;;\r\n"x;',
        ROW,
        anomalies={"invalid_record": "line 4: a quote is not closed"},
        encoding="utf-16",
    ),
    "columns of one name.csv": feed(
        "Image Src,image src,Image Src,retailer,retailer,product_id\n"
        "http://a/1,,http://a/2,,Zara,p1\n",
        TWO,
        settings=fields(images="Image Src"),
    ),
    "long cell.csv": feed(
        "url,retailer,product_id\nhttp://a/1,Zara,p1\n" + "x" * 10**6 + "x\nhttp://a/2,Zara,p1\n",
        TWO,
        anomalies={"invalid_record": "line 3: field larger than field limit (1000000)"},
    ),
    "page in a cell.csv": feed(
        "url,retailer,product_id,html\nhttp://a/1,Zara,p1," + "x" * 200_000 + "\n", ROW
    ),
    "spaces before quotes.csv": feed(
        'url, retailer, product_id, date\n"http://a/1", "Zara", "p1", "2026-01-01"\n', ROW
    ),
    "open quote.csv": feed(
        'url,retailer,product_id\nhttp://a/1,Zara,p1\n"http://a/2,Zara,p1\nhttp://a/3,Zara,p1\n',
        ROW,
        anomalies={"invalid_record": "line 3: a quote is not closed, so the rest of the file is"},
    ),
    "inches.csv": feed(
        "title\turl\tretailer\tproduct_id\nx\thttp://a/1\tZara\tp1\n"
        '"Q" jeans\thttp://a/2\tZara\tp1\n"R\thttp://a/3\tZara\tp2\n'
        'y\thttp://a/4\tZara\tp3\n"S\thttp://a/5\tZara\tp4\n',
        TWO,
        anomalies={"invalid_record": "lines 4 to 6: a cell starts with \", which joins"},
    ),
    "quoted end.csv": feed('url,retailer,product_id\n"http://a/1","Zara","p1"', ROW),
    "base.csv": feed(
        "url,retailer,product_id\n1,Zara,p1\n", ROW, settings={"base_url": {"zara": "http://a"}}
    ),
    # JSON Lines
    "feed.jl": feed(
        '{"image_urls": ["http://a/1", "http://a/2"], "shop": {"name": "Zara"}, "sku": "p1"}\n\n',
        TWO,
        settings=fields(images="image_urls", retailer="shop.name", product_id="sku"),
    ),
    "zara.jsonl": feed(
        '{"url": "http://a/1", "product_id": "p1"}\n{"url": ["http://a/2"], "product_id": "p1"}',
        TWO,
    ),
    "zara.jsonl.gz": Case(
        gzip.compress(b'{"url": "http://a/1", "product_id": "p1"}\n', mtime=0), ROW
    ),
    "zara.json": feed(
        '\n[\n{"url": "http://a/1", "product_id": "p1"},\n'
        '{"url": "http://a/2", "product_id": "p1"},\n7]\n',
        TWO,
        anomalies={"invalid_record": "record 3: not a JSON object: '7'"},
    ),
    "broken.jsonl": feed(
        '{"url": "http://a/1", "product_id": "p1", "retailer": "Zara"}\n{"url": "http://a/\n'
        '{"url": "http://a/2", "product_id": "p1", "retailer": "Zara"}\n',
        TWO,
        anomalies={"invalid_record": "line 2: not JSON: Invalid control character"},
    ),
    "not objects.jsonl": feed(
        '{"url": "http://a/1", "product_id": "p1", "retailer": "Zara"}\n"text"\n',
        ROW,
        anomalies={"invalid_record": "line 2: not a JSON object: 'text'"},
    ),
    "deep.jsonl": feed(
        '{"url": "http://a/1", "product_id": "p1", "retailer": "Zara"}\n' + "[" * 100_000,
        ROW,
        anomalies={"invalid_record": "line 2: not JSON: "},
    ),
    "latin.jsonl": feed(
        '{"url": "http://a/\xe9", "product_id": "p1", "retailer": "Zara", "price": NaN}\n',
        [("http://a/\xe9", *USUAL)],
        encoding="latin-1",
        anomalies={"not_utf_8": "line 1: 'utf-8' codec can't decode"},
    ),
    "lists of one.jsonl": feed(
        '{"url": ["http://a/1"], "product_id": ["p1"], "retailer": ["Zara"], "date": '
        '["2026-01-01T10:00:00"]}\n',
        ROW,
    ),
    "commas.jsonl": feed(
        '{"url": "http://a/1", "product_id": "p1", "retailer": "Zara"},\n'
        '{"url": "http://a/2", "product_id": "p1", "retailer": "Zara"}\n',
        TWO,
    ),
    "missing date.jsonl": feed(
        '{"url": "http://a/1", "product_id": "p1", "retailer": "Zara", "seen": "2026-01-01"}\n'
        '{"url": "http://a/2", "product_id": "p1", "retailer": "Zara"}\n',
        ROW,
        settings=fields(date="seen"),
        anomalies={"no_date": "record 2: the date is empty"},
    ),
    "numbers of pandas.jsonl": feed(
        '{"url": "http://a/1", "product_id": 7.0, "retailer": "Zara", "date": "2026-01-01"}\n'
        '{"url": "http://a/3", "product_id": 7.0, "retailer": "Zara", "date": NaN}\n',
        [("http://a/1", "zara", "2026-01-01", "7")],
        anomalies={"no_date": "record 2: the date is empty"},
    ),
    "no product ids.jsonl": feed(
        '{"url": "http://a/1", "product_id": NaN, "retailer": "Zara", "date": "2026-01-01"}\n',
        [("http://a/1", "zara", "2026-01-01", "93e96c2c25a6")],
    ),
    "half characters.jsonl": feed(
        '{"url": ["http://a/1", "http://a/\\ud83d"], "retailer": "Zara\\ud83d"}\n'
        '{"url": "http://a/2", "product_id": "\\ud83d", "retailer": "Zara"}\n',
        [
            ("http://a/1", "zara", "2026-01-01", "6e47c336cf19"),
            ("http://a/\ufffd", "zara", "2026-01-01", "6e47c336cf19"),
            ("http://a/2", "zara", "2026-01-01", "\ufffd"),
        ],
    ),
    "no images.jsonl": feed(
        '{"url": null, "product_id": "p1", "retailer": "Zara"}\n',
        [],
        anomalies={"no_images": "p1: the list of URLs is None"},
    ),
    # Parquet
    "lists.parquet": parquet(rows=TWO, settings=fields(images="pictures")),
    "structs.parquet": parquet(rows=TWO, settings=fields(images="media.url")),
    "lists of structs.parquet": parquet(rows=TWO, settings=fields(images="galleries.src")),
    "several.parquet": parquet(rows=TWO, settings=fields(images=["galleries", "og.image"]),),
    "map.parquet": Case(
        table(
            url=pa.array([[("front", "http://a/1"), ("back", "http://a/2")]],
                         pa.map_(pa.string(), pa.string())),
            retailer=pa.array([Decimal(7)]),
            date=pa.array([Decimal(1767225600)]),
        ),
        [("http://a/1", "7", "2026-01-01"), ("http://a/2", "7", "2026-01-01")],
    ),
    "bytes.parquet": Case(
        table(
            url=pa.array([[b"http://a/1"]]),
            retailer=pa.array([b"Zara"]),
            date=pa.array([b"2026-01-01"]),
            product_id=pa.array([b"\xff"]),
        ),
        [("http://a/1", "zara", "2026-01-01", "b'\\xff'")],
    ),
    "case.parquet": Case(
        table(URL=pa.array(["http://a/1"]), Brand=pa.array(["Zara"]), brand=pa.array(["Mango"])),
        [("http://a/1", "mango")],
        settings=fields(retailer="brand"),
    ),
    "dots.parquet": parquet(rows=TWO, settings=fields(images="og.image")),
}  # fmt: skip


def kind_of(name: str) -> str:
    return "parquet" if "parquet" in name else "jsonl" if ".j" in name else "csv"


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_read_as_the_settings_say(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    (tmp_path / name).write_bytes(case.content)
    source = file_source(tmp_path / name, kind_of(name), **case.settings)
    inventory = source.inventory()
    listings = [source.listing(day, retailer) for retailer, day in inventory.documents]
    rows = sorted((row for listing in listings for row in listing.rows), key=lambda r: r.retailer)
    found = [(row.url, row.retailer, row.date, row.product_id) for row in rows]
    assert [row[: len(want)] for row, want in zip(found, case.rows, strict=True)] == case.rows
    examples = {example[0]: example for example in inventory.report.examples}
    for listing in listings:
        examples |= {example[0]: example for example in listing.report.examples}
    if "several" in name:  # both columns have the same URLs
        del examples[Anomaly.DUPLICATE_URL]
    assert set(examples) == set(case.anomalies)
    for anomaly, who, detail in examples.values():
        assert f"{who}: {detail}".startswith(case.anomalies[anomaly])


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        ("a.csv", b"url\nhttp://a/\xe9\n", {"encoding": "utf-8"}, "set source.encoding to the enc"),
        ("*.csv", None, {}, "is no file; name one file, or read several in a function"),
        ("", None, {}, "is no file; name one file, or read several in a function"),
        ("a.csv", b"link\nhttp://a/1\n", fields(images="image"), "the column image .source.fields"),
        ("a.csv", b"url,shop\nx,y\n", fields(date="day"), "no column 'day'; its columns: url"),
        ("a.csv", b'url,"a\nhttp://a/1\n', {}, "the header of .* is broken: a quote is not closed"),
        ("a.csv.gz", gzip.compress(b"url\nhttp://a/1\n", mtime=0)[:-9], {}, "as CSV: Compr"),
        ("a.json", b'[{"url": "http://a/1"},\n{"url', {}, "read as JSON Lines: .* line 2"),
        (
            "a.parquet",
            table(url=pa.array(["u"]), date=pa.array([2**62], pa.timestamp("us"))),
            {},
            "date value out of range",
        ),
        ("a.csv", "url\n".encode("utf-16-le"), {}, "is no text; unpack .*set source.encoding, for"),
        ("a.csv", b"PK\3\4\x14\0url", {}, "is no text; unpack it .only gzip is read., save a work"),
        ("a.csv", b"BZh91AY&SY\n", {}, "is no text; unpack it .only gzip is read"),
        ("a.jsonl", b'{\n  "url": "http://a/1"\n}\n', {}, "several lines .line 1.; write one JSON"),
        (
            "a.parquet",
            table(url=pa.array(["u"]), date=pa.array([1], pa.timestamp("us", "Mars/X"))),
            {},
            "as Parquet: 'Mars/X'",
        ),
        ("a.parquet", b"PAR1 no", {}, "cannot be read as Parquet: "),
        ("a.parquet", parquet(rows=[]).content, fields(images="x"), "no column x; .* url, retai"),
        ("a.parquet", parquet(rows=[]).content, fields(date="day"), "has no column 'day'; its"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_one_sentence_with_its_name_and_the_setting(
    tmp_path: Path, name: str, content: bytes | None, settings: dict[str, Any], message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message) as caught:
        file_source(tmp_path / name, kind_of(name), **settings).inventory()
    assert name in str(caught.value)
    assert str(caught.value).startswith("source.")
