"""Tests of CSV files and Python functions as sources."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from imgassets.errors import SourceError
from imgassets.settings import Settings, SourceSettings
from imgassets.sources.factory import open_source
from imgassets.sources.files import file_records
from imgassets.sources.listing import Anomaly, Listing, Source, today
from imgassets.sources.table import TableSource, function_records

START = dt.date(2026, 1, 1)


def csv_source(path: Path, text: str) -> TableSource:
    path.write_text(text, encoding="utf-8")
    return file_source(str(path))


def file_source(path: str, kind: str = "csv", **options: Any) -> TableSource:
    settings = SourceSettings.model_validate({"kind": kind, "path": path, **options})
    return TableSource(file_records(settings), settings, START)


def urls(listing: Listing) -> list[str]:
    return sorted(row.url for row in listing.rows)


def test_a_csv_can_have_all_columns_in_any_order(tmp_path: Path) -> None:
    source = csv_source(
        tmp_path / "all.csv",
        "\ufeffdate, url,product_id,Retailer \n"
        "2026-01-02,http://a/1,p1,Zara\n"
        "2026-01-02T10:00:00Z,http://a/2,p1,Zara\n"
        "\n"
        "2026-01-03,http://a/3,p1,Zara\n"
        '2026-01-02,"http://a/4?x=1,2",p2,"Nord & Sol"\n',
    )
    listing = source.listing("2026-01-02", "zara")
    assert [(row.url, row.product_id, row.position) for row in listing.rows] == [
        ("http://a/1", "p1", 0),
        ("http://a/2", "p1", 1),
    ]
    assert urls(source.listing("2026-01-02", "nord-sol")) == ["http://a/4?x=1,2"]
    assert source.inventory().documents == {
        ("zara", "2026-01-02"): 1,
        ("zara", "2026-01-03"): 1,
        ("nord-sol", "2026-01-02"): 1,
    }


def test_without_a_retailer_column_the_file_name_is_the_retailer(tmp_path: Path) -> None:
    source = csv_source(tmp_path / "My shop.csv", "url\nhttp://a/1\nhttp://a/2\nhttp://a/1\n")
    listing = source.listing("2026-01-01", "my-shop")
    assert urls(listing) == ["http://a/1", "http://a/2"]
    assert {str(k): n for k, n in listing.report.counts.items()} == {"duplicate_url": 1}


def test_without_a_header_the_save_path_gives_the_retailer(tmp_path: Path) -> None:
    source = csv_source(
        tmp_path / "list.csv",
        "http://a/1.jpg,images/Zara/1.jpg\nhttp://a/2.jpg,images/mango/2.jpg\nhttp://a/3,3.jpg\n"
        "http://a/4.jpg\n",
    )
    assert source.inventory().names == {"zara": "Zara", "mango": "mango", "list": "list"}
    assert urls(source.listing("2026-01-01", "zara")) == ["http://a/1.jpg"]
    assert urls(source.listing("2026-01-01", "list")) == ["http://a/3", "http://a/4.jpg"]


def test_each_url_without_a_product_id_is_a_separate_product(tmp_path: Path) -> None:
    source = csv_source(tmp_path / "c.csv", "\nurl,product_id\nhttp://a/1,\nhttp://a/2,\n")
    rows = source.listing("2026-01-01", "c").rows
    assert len({row.product_id for row in rows}) == 2
    assert {row.position for row in rows} == {0}
    assert source.inventory().documents == {("c", "2026-01-01"): 2}


def test_keys_do_not_depend_on_the_order_of_products(tmp_path: Path) -> None:
    lines = ["http://a/1,Zara,2026-01-02,p1", "http://a/2,Zara,2026-01-02,p2"]
    head = "url,retailer,date,product_id\n"
    one = csv_source(tmp_path / "1.csv", head + "\n".join(lines))
    two = csv_source(tmp_path / "2.csv", head + "\n".join(reversed(lines)))
    of_one, of_two = (list(source.listing("2026-01-02", "zara").rows) for source in (one, two))
    assert of_one == of_two


def test_anomalies_of_records_are_counted_with_examples(tmp_path: Path) -> None:
    source = csv_source(
        tmp_path / "anomalies.csv",
        "url,retailer,date\n"
        "http://a/1,Zara,2026-01-02\n"
        "http://a/2,,2026-01-02\n"
        "http://a/3,Zara,\n"
        "http://a/4,Zara,soon\n"
        "http://a/5,Zara,2020-01-01\n"
        "http://a/6,Zara,9999-01-01\n"
        ",Zara,2026-01-02\n",
    )
    listing = source.listing("2026-01-02", "zara")
    assert urls(listing) == ["http://a/1"]
    assert {str(k): n for k, n in listing.report.counts.items()} == {
        "no_retailer": 1,
        "no_date": 1,
        "invalid_date": 1,
        "before_start_date": 1,
        "in_future": 1,
        "non_string_url": 1,
    }
    undated = [
        (Anomaly.NO_RETAILER, "record 2", "the retailer is ''"),
        (Anomaly.NO_DATE, "record 3", "the date is empty"),
        (
            Anomaly.INVALID_DATE,
            "record 4",
            "the date is 'soon'; write dates as ISO 8601, for example 2026-01-31T10:00:00Z, or set "
            "source.date_format",
        ),
        (Anomaly.BEFORE_START_DATE, "record 5", "the date is '2020-01-01'"),
        (Anomaly.IN_FUTURE, "record 6", "the date is '9999-01-01'"),
    ]
    assert source.inventory().report.examples == undated
    assert listing.report.examples[:-1] == undated


def test_values_of_none_or_a_wrong_type_are_counted_as_anomalies() -> None:
    source = TableSource(
        lambda: [
            {"url": "http://a/1", "retailer": "Zara", "date": None},
            {"url": "http://a/2", "retailer": None, "date": "2026-01-02"},
            {"url": "http://a/3", "retailer": "Zara", "date": 20260132},
            {"url": None, "retailer": "Zara", "date": "2026-01-02"},
        ],
        SourceSettings(),
        START,
    )
    listing = source.listing("2026-01-02", "zara")
    assert len(listing.rows) == 0
    assert listing.report.counts == {
        Anomaly.NO_DATE: 1,
        Anomaly.NO_RETAILER: 1,
        Anomaly.INVALID_DATE: 1,
        Anomaly.NO_IMAGES: 1,
    }


def test_line_breaks_in_a_quoted_cell_are_kept(tmp_path: Path) -> None:
    source = csv_source(tmp_path / "c.csv", 'url,product_id\r\nhttp://a/1,"a\r\nb"\r\n')
    assert [row.product_id for row in source.listing("2026-01-01", "c").rows] == ["a\r\nb"]


def test_a_relative_path_is_relative_to_the_project_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgassets.sources.files.project_root", lambda: tmp_path)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "zara.csv").write_text("url\nhttp://a/1\n")
    assert file_source("lists/zara.csv").inventory().names == {"zara": "zara"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,price\nx,1\n", "starts with 'name,price'; it must start with a header"),
        ("http://a/1\n", "it must start with a header that has the column url "),
        (None, "cannot be read as CSV: No such file or directory; correct the path, or"),
    ],
)
def test_an_invalid_csv_raises_an_error_with_its_name(
    tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "broken.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SourceError, match=message) as caught:
        file_source(str(path)).inventory()
    assert "broken.csv" in str(caught.value)


def test_names_with_one_slug_or_alias_are_one_retailer() -> None:
    names = ("ZARA", "Zara", "zára ", "Zara", "Mango", 42, ["Mango"], "Zara ES", ["Zara", "Mango"])
    records = [{"url": f"http://a/{number}", "retailer": name} for number, name in enumerate(names)]
    settings = SourceSettings(retailer_aliases={"zara es": "zara"})
    source = TableSource(lambda: records, settings, START)
    assert urls(source.listing("2026-01-01", "zara")) == [f"http://a/{n}" for n in (0, 1, 2, 3, 7)]
    inventory = source.inventory()
    assert inventory.names == {"zara": "Zara", "mango": "Mango", "42": "42"}
    assert inventory.spellings == {"zara": ["Zara", "ZARA", "Zara ES", "zára "]}
    assert inventory.documents == {
        ("zara", "2026-01-01"): 5,
        ("mango", "2026-01-01"): 2,
        ("42", "2026-01-01"): 1,
    }
    assert inventory.report.counts == {Anomaly.SEVERAL_RETAILERS: 1}


@pytest.mark.parametrize(
    ("kind", "text", "options"),
    [
        ("csv", "url,retailer\n/1,Mango\n/2,\n", {}),
        ("csv", "url\n/1\n/2\n", {"fields": {"retailer": "brand"}}),
        ("jsonl", '{"url": "/1", "retailer": "Mango"}\n{"url": "/2"}', {}),
        ("jsonl", '{"url": "/1"}\n{"url": "/2"}', {"fields": {"retailer": "brand"}}),
    ],
)
def test_a_fixed_retailer_is_that_of_all_records(
    tmp_path: Path, kind: str, text: str, options: dict[str, Any]
) -> None:
    path = tmp_path / "export-7"
    path.write_text(text)
    base = {"zara": "http://a", "export-7": "http://b", "mango": "http://c"}
    source = file_source(str(path), kind, retailer="Zara", base_url=base, **options)
    assert source.inventory().names == {"zara": "Zara"}
    assert urls(source.listing("2026-01-01", "zara")) == ["http://a/1", "http://a/2"]
    assert source.sample().urls == ["http://a/1", "http://a/2"]


def test_retailers_with_aliases_and_dates_in_a_format_are_read_from_lines_of_json(
    tmp_path: Path,
) -> None:
    path = tmp_path / "items.jl"
    path.write_text(
        '{"url": "/1", "retailer": "Zara ES", "date": "03/01/2026"}\n'
        '{"url": "/2", "retailer": ["ZARA"], "date": {"$date": "2026-01-03T10:00:00Z"}, '
        '"_id": {"$oid": "6957b3400000000000000000"}}\n'
        '{"url": "/3", "retailer": "zara", "date": "1/3"}\n'
    )
    source = file_source(
        str(path),
        "jsonl",
        retailer_aliases={"zara-es": "zara"},
        date_format="%d/%m/%Y",
        base_url={"zara": "http://a"},
    )
    inventory = source.inventory()
    assert inventory.documents == {("zara", "2026-01-03"): 2}
    assert inventory.report.counts == {Anomaly.INVALID_DATE: 1}
    listing = source.listing("2026-01-03", "zara")
    assert sorted(urls(listing)) == ["http://a/1", "http://a/2"]
    assert "6957b3400000000000000000" in {row.product_id for row in listing.rows}


def test_a_retailer_that_left_the_file_has_an_empty_listing_with_a_note(tmp_path: Path) -> None:
    source = csv_source(tmp_path / "c.csv", "url,retailer\nhttp://a/1,Zara\n")
    listing = source.listing("2026-01-01", "mango")
    assert (len(listing.rows), listing.documents) == (0, 0)
    assert "no document of retailer 'mango'; retailers in the source: zara" in str(listing.note)


def test_records_without_a_date_get_the_start_date_and_earlier_ones_have_no_partition(
    tmp_path: Path,
) -> None:
    (tmp_path / "shop.csv").write_text("url\nhttp://a/1\n")
    (tmp_path / "dated.csv").write_text("url,date\nhttp://a/1,2025-06-30\nhttp://a/2,2025-06-29\n")

    def open_csv(name: str) -> Source:
        source = {"kind": "csv", "path": str(tmp_path / name)}
        settings = Settings.model_validate({"start_date": "2025-06-30", "source": source})
        return open_source(settings, lambda: pytest.fail("the address of MongoDB was requested"))

    assert open_csv("shop.csv").inventory().documents == {("shop", "2025-06-30"): 1}
    dated = open_csv("dated.csv").inventory()
    assert dated.documents == {("dated", "2025-06-30"): 1}
    assert dated.report.counts == {Anomaly.BEFORE_START_DATE: 1}


def test_days_are_in_utc_whatever_the_local_time_zone(tmp_path: Path, time_zone: str) -> None:
    del time_zone
    source = csv_source(
        tmp_path / "shop.csv",
        "url,date\n"
        "http://a/1,2026-01-02\n"
        "http://a/2,2026-01-02T00:00:00\n"
        "http://a/3,2026-01-02T23:59:59\n"
        "http://a/4,2026-01-01T20:00:00-08:00\n"
        "http://a/5,2026-01-03T01:00:00+02:00\n"
        "http://a/6,2026-01-02T00:00:00Z\n"
        "http://a/7,2026-01-01T23:59:59Z\n"
        "http://a/8, 2026-01-03T00:00:00Z \n",
    )
    numbers = {
        day: [url[-1] for url in urls(source.listing(day, "shop"))]
        for day in ("2026-01-01", "2026-01-02", "2026-01-03")
    }
    assert numbers == {
        "2026-01-01": ["7"],
        "2026-01-02": ["1", "2", "3", "4", "5", "6"],
        "2026-01-03": ["8"],
    }


def test_records_of_today_have_a_partition_and_those_of_tomorrow_do_not(
    tmp_path: Path, time_zone: str
) -> None:
    del time_zone
    day = today()
    source = csv_source(
        tmp_path / "shop.csv",
        f"url,date\nhttp://a/1,{day}T23:59:59Z\nhttp://a/2,{day + dt.timedelta(days=1)}\n",
    )
    inventory = source.inventory()
    assert inventory.documents == {("shop", day.isoformat()): 1}
    assert inventory.report.counts == {Anomaly.IN_FUTURE: 1}


CALLS: list[tuple[str | None, str | None]] = []


def python_rows(retailer: str | None, date: str | None) -> Iterator[dict[str, Any]]:
    CALLS.append((retailer, date))
    yield {"url": "http://a/1", "retailer": "Zara", "date": dt.date(2026, 1, 2), "product_id": 9}
    noon = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
    yield {"url": "http://a/2", "retailer": "Zara", "date": noon, "product_id": 9}


def no_rows(date: str | None) -> Iterator[dict[str, Any]]:
    del date
    yield from ()


def wrong_rows() -> list[str]:
    return ["http://a/1"]


def test_a_python_function_is_a_source_and_gets_the_requested_partition() -> None:
    settings = Settings.model_validate(
        {"source": {"kind": "python", "function": f"{__name__}.python_rows"}}
    )
    source = open_source(settings, lambda: pytest.fail("the address of MongoDB was requested"))
    CALLS.clear()
    rows = source.listing("2026-01-02", "zara").rows
    assert [(row.url, row.product_id) for row in rows] == [("http://a/1", "9"), ("http://a/2", "9")]
    assert source.inventory().documents == {("zara", "2026-01-02"): 1}
    assert CALLS == [("zara", "2026-01-02"), (None, None)]


def test_a_function_that_gets_the_partition_may_return_no_records() -> None:
    source = TableSource(function_records(f"{__name__}.no_rows"), SourceSettings(), START)
    assert len(source.listing("2026-01-02", "zara").rows) == 0


def test_a_function_that_yields_something_else_than_mappings_raises_an_error() -> None:
    source = TableSource(function_records(f"{__name__}.wrong_rows"), SourceSettings(), START)
    with pytest.raises(SourceError, match="the source yields 'http://a/1'; it must yield mapp"):
        source.inventory()


def rows_of_pandas() -> list[dict[str, Any]]:
    day = pd.Timestamp("2026-01-02 10:00")
    return [
        {"url": np.array(["http://a/1", "http://a/2"]), "retailer": np.int64(5), "date": day},
        {"url": "http://a/3", "retailer": "5", "date": day.to_datetime64(), "product_id": pd.NA},
        {"url": "http://a/4", "retailer": "5", "date": pd.NaT},
        {"url": pd.NA, "retailer": "5", "date": np.int64(1_767_355_200)},
    ]


def test_records_can_have_values_of_numpy_and_pandas() -> None:
    settings = SourceSettings.model_validate({"fields": {"images": ["url", "more"]}})
    source = TableSource(function_records(f"{__name__}.rows_of_pandas"), settings, START)
    listing = source.listing("2026-01-02", "5")
    assert urls(listing) == ["http://a/1", "http://a/2", "http://a/3"]
    assert listing.report.counts == {Anomaly.NO_DATE: 1, Anomaly.NO_IMAGES: 1}
    assert source.inventory().documents == {("5", "2026-01-02"): 3}
    assert source.sample().documents == 4


def test_an_object_that_is_not_a_function_raises_an_error() -> None:
    with pytest.raises(
        SourceError,
        match=r"^source\.function: imgassets\.settings\.STEPS is a tuple, not a function; ",
    ):
        function_records("imgassets.settings.STEPS")


@pytest.mark.parametrize("dotted", ["no_such_package.rows", "imgassets.settings.no_such_function"])
def test_a_function_that_does_not_exist_raises_an_error(dotted: str) -> None:
    with pytest.raises(SourceError, match=rf"source\.function: {dotted} cannot be imported"):
        function_records(dotted)


def test_a_sample_has_the_urls_of_the_first_records(tmp_path: Path) -> None:
    lines = "".join(f"http://a/{number},Zara\n" for number in range(150))
    sample = csv_source(tmp_path / "a.csv", "url,retailer\n" + lines).sample()
    assert (sample.documents, sample.hints) == (100, {})
    assert sample.urls == [f"http://a/{number}" for number in range(100)]

    (tmp_path / "a.jl").write_text('{"product_images": ["1.jpg"], "product_retailer": "Z"}\n7\n')
    sample = file_source(str(tmp_path / "a.jl"), "jsonl", base_url={"z": "https://z"}).sample()
    assert (sample.documents, sample.urls, sample.hints) == (1, ["https://z/1.jpg"], {})


def test_a_sample_names_the_fields_of_records_without_urls() -> None:
    sample = TableSource(
        lambda: [{"link": "http://a/1", "retailer": "Zara"}], SourceSettings(), START
    ).sample()
    assert (sample.documents, sample.urls) == (1, [])
    assert sample.hints == {"images: url": "fields of the document: link, retailer"}


def test_the_records_of_a_function_can_have_the_names_that_the_settings_say() -> None:
    names = {"images": ["pics.url", "more"], "retailer": "shop.name", "date": "seen"}
    settings = SourceSettings.model_validate({"fields": {**names, "product_id": "sku"}})
    record = {"pics": [{"url": "http://a/1"}], "more": "http://a/2", "shop": {"name": "Zara"}}
    dated = {**record, "seen": dt.date(2026, 1, 2), "sku": 7, "date": "2026-01-05"}
    source = TableSource(lambda: [dated, {**dated, "more": None}], settings, START)
    rows = source.listing("2026-01-02", "zara").rows
    assert [(row.url, row.product_id) for row in rows] == [("http://a/1", "7"), ("http://a/2", "7")]
