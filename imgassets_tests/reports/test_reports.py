"""Tests of the numbers of a day, and of the texts and images of reports."""

from __future__ import annotations

import base64
import datetime as dt
import io
import re
from dataclasses import replace
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from imgassets.manifests import Outcome
from imgassets.reports.day import (
    Day,
    RetailerDay,
    dates_before,
    day_path,
    load_days,
    newest_date,
    save_day,
)
from imgassets.reports.history import retailer_days
from imgassets.reports.measure import BROKEN, Measured, RetailerRun, measure_day
from imgassets.reports.pictures import (
    HEAT_MAP_BYTES,
    SHEET_BYTES,
    doubtful_sheet,
    heat_map,
    history_chart,
)
from imgassets.reports.text import (
    MAX_PROBLEMS,
    MAX_SUMMARY,
    Links,
    days_table,
    missing_sentence,
    problem_table,
    retailer_record,
    success_sentence,
    summary,
)
from imgassets.settings import Settings
from imgassets.storage import Storage, write_table
from imgassets_tests.data_root import write_data_root
from imgassets_tests.partition_fixture import PartitionFixture
from imgassets_tests.rows import PARTITION, processed_row, raw_row

DATE = "2026-01-02"
NOW = dt.datetime(2026, 1, 3, 7, tzinfo=dt.UTC)
LINKS = Links("eu/processed_images", "/prod")


def measured(storage: Storage, date: str = DATE, **arguments: Any) -> Measured:
    given = {"documents": {}, "retailers": [], "runs": {}, "options": Settings().for_retailer}
    return measure_day(storage, date, **{**given, **arguments})


def svg(markdown: str) -> str:
    found = re.search(r"data:image/svg\+xml,([^)]*)\)", markdown)
    assert found is not None
    text = unquote(found[1])
    ElementTree.fromstring(text)  # noqa: S314  (our own text; raises if it is not well-formed)
    return text


def decoded(text: str) -> Image.Image:
    """The first image in a Markdown or SVG text."""
    found = re.search(r"base64,([\w+/=]*)", text)
    assert found is not None
    return Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB")


def many(number: int) -> Day:
    """A day of retailers with long names of which a third failed and a fifth is missing."""
    entries = [
        RetailerDay(
            retailer=f"retailer-with-a-long-name-{n:03}",
            documents=90,
            is_complete=n % 5 > 0,
            urls=1000,
            downloaded=100 if n % 3 == 0 else 1000 - n,
            failures={"http_error": 900, "timeout": 3, "corrupt": 2, "empty": 1},
            min_success_rate=0.5,
            run_id=f"{n:032x}",
            run_status="FAILURE" if n % 3 == 0 else "SUCCESS",
            failed_checks={"download_success_rate": "error"} if n % 3 == 0 else {},
        )
        for n in range(number)
    ]
    return Day(DATE, entries, NOW)


def test_the_numbers_of_a_day_are_counted_from_manifests_and_runs(storage: Storage) -> None:
    write_data_root(storage)
    runs = {"hm": RetailerRun("run-1", "FAILURE", {"trim_ratios": "warn"})}
    documents = {"zara": 3, "asos": 7}
    day = measured(storage, documents=documents, retailers=["idle"], runs=runs).day

    assert [each.retailer for each in day.retailers] == ["asos", "hm", "zara"]
    asos, hm, zara = day.retailers
    assert (zara.urls, zara.downloaded, zara.new, zara.reused) == (4, 3, 3, 0)
    assert (zara.images, zara.with_face, zara.failures) == (3, 3, {"http_error": 1})
    assert zara.success_rate == 0.75
    assert zara.bytes > 0
    assert (hm.failures, hm.run_status) == ({"timeout": 1}, "FAILURE")
    assert asos.is_missing
    assert not asos.urls
    assert hm.problems == ["run failure", "success rate 50% (timeout 1)"]
    totals = day.totals
    assert (totals["URLs"], totals["images"], totals["retailers missing"]) == (6, 4, 1)

    (zara,) = measured(storage, "2026-01-03", retailers=["zara"]).day.retailers
    assert (zara.new, zara.reused, zara.failures) == (1, 1, {"failed": 1})


def test_a_broken_manifest_is_a_missing_one_and_the_others_are_counted(storage: Storage) -> None:
    write_data_root(storage)
    storage.write(storage.partition(DATE, "zara").manifest("processed_images"), b"broken")
    day = measured(storage, documents={"zara": 3, "hm": 1}).day
    assert [each.retailer for each in day.missing] == ["zara"]
    assert day.by_retailer["zara"].failures == {BROKEN: 1}
    assert day.by_retailer["hm"].images == 1
    other = pa.table({"key": ["a"], "outcome": ["ok"]})
    storage.partition(DATE, "zara").write_manifest("processed_images", other)
    (zara,) = measured(storage, documents={"zara": 3}).day.retailers
    assert zara.failures == {BROKEN: 1}


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({}, []),
        ({"run_status": "STARTED"}, []),
        ({"run_status": "CANCELED"}, ["run canceled"]),
        ({"failed_checks": {"trim_ratios": "warn"}}, []),
        ({"failed_checks": {"b": "error", "a": "error", "c": "warn"}}, ["failed: a, b"]),
        ({"downloaded": 89, "failures": {"timeout": 11}}, ["success rate 89% (timeout 11)"]),
        ({"urls": 0, "downloaded": 0}, []),
    ],
)
def test_a_retailer_has_a_problem_if_its_run_an_error_or_its_success_rate_says_so(
    changes: dict[str, Any], problems: list[str]
) -> None:
    good = RetailerDay(
        retailer="zara", urls=100, downloaded=100, min_success_rate=0.9, run_status="SUCCESS"
    )
    assert replace(good, **changes).problems == problems


def test_stored_numbers_are_read_as_they_were_and_broken_files_are_left_out(
    storage: Storage,
) -> None:
    day = many(3)
    save_day(storage, day)
    save_day(storage, replace(day, date="2026-01-03", retailers=[]))
    storage.write(day_path("2026-01-04"), b"broken")
    days = load_days(storage, ["2026-01-01", DATE, "2026-01-03", "2026-01-04"])
    assert days == {DATE: day, "2026-01-03": Day("2026-01-03", [], NOW)}
    storage.write(day_path("2026-01-03 (copy)"), b"by hand")
    storage.write(day_path("notes"), b"by hand")
    assert newest_date(storage) == "2026-01-04"


@pytest.mark.parametrize(
    ("columns", "made_at", "urls"),
    [
        ({"retailer": ["zara"], "urls": [3], "later": ["x"]}, NOW.isoformat(), 3),
        ({"retailer": ["zara"], "urls": pa.array([None], pa.int64())}, NOW.isoformat(), 0),
        ({"retailer": ["zara"], "urls": [3]}, "", None),
        ({"retailer": ["zara"], "urls": ["many"]}, NOW.isoformat(), None),
        ({"urls": [3]}, NOW.isoformat(), None),
        ({"retailer": ["zara"], "failures": ["x"]}, NOW.isoformat(), None),
    ],
)
def test_numbers_of_other_versions_are_read_and_what_is_none_is_left_out(
    storage: Storage, columns: dict[str, Any], made_at: str, urls: int | None
) -> None:
    table = pa.table(columns).replace_schema_metadata(
        {"imgassets.made_at": made_at} if made_at else {}
    )
    write_table(storage, day_path(DATE), table)
    found = [each.urls for day in load_days(storage, [DATE]).values() for each in day.retailers]
    assert found == ([] if urls is None else [urls])


def test_the_most_doubtful_images_are_of_several_retailers_and_of_this_day(
    storage: Storage,
) -> None:
    fixture = PartitionFixture(storage)
    doubtful = [
        processed_row(n, face_count=1, face_score=score)
        for n, score in enumerate([0.9, 0.5, 0.4, 0.3, 0.2, 0.1])
    ]
    reused = processed_row(9, face_score=0.0, reused_from="2026-01-30")
    broken = processed_row(10, face_score=0.0, outcome=Outcome.FAILED)
    fixture.raw([raw_row(n) for n in range(6)])
    fixture.processed([*doubtful, reused, broken])
    other = PartitionFixture(storage)
    other.files = storage.partition(PARTITION.date, "hm")
    other.raw([raw_row(0, retailer="hm")])
    other.processed([processed_row(0, retailer="hm", face_score=0.95)])

    rows = measured(storage, PARTITION.date, retailers=["zara", "hm"]).doubtful

    assert [(row.retailer, row.face_score) for row in rows] == [
        ("zara", 0.1),
        ("zara", 0.2),
        ("zara", 0.3),
        ("hm", 0.95),
        ("zara", 0.4),
        ("zara", 0.5),
        ("zara", 0.9),
    ]


@pytest.mark.parametrize(
    ("failures", "text"),
    [
        ({}, "0"),
        ({"corrupt": 1}, "corrupt\u00a01"),
        ({"timeout": 3, "corrupt": 2}, "5: timeout\u00a03, corrupt\u00a02"),
    ],
)
def test_the_table_says_how_many_urls_failed_and_why(failures: dict[str, int], text: str) -> None:
    assert retailer_record(RetailerDay(retailer="zara", failures=failures))["failed"] == text


@pytest.mark.parametrize("number", [0, 1, 300])
def test_texts_name_the_culprits_with_links_and_stay_short(number: int) -> None:
    day = many(number)
    text, table = summary(day, LINKS), problem_table(day, LINKS)
    assert len(text) < MAX_SUMMARY
    # The page of an asset shows about 60 characters of a line.
    assert max(len(re.sub(r"\]\([^)]*\)", "", line)) for line in text.splitlines()[:4]) < 62
    assert len(success_sentence(day)) < 2_000
    assert len(table) < 10_000
    if not number:
        assert success_sentence(day) == f"there are no runs or images of {DATE}"
        assert missing_sentence(day) == f"no retailer has documents of {DATE}"
        assert table == "none"
        return
    first = "retailer-with-a-long-name-000"
    link = f"/prod/assets/eu/processed_images?view=partitions&partition={DATE}%7C{first}"
    assert f"[{first}](/prod/runs/{0:032x})" in text
    assert f"[{first}]({link})" in table
    reason = "run failure; failed: download_success_rate; success rate 10% (http_error 900"
    assert f"{first} ({reason}" in success_sentence(day)
    assert first in missing_sentence(day)
    if number == 300:
        assert "100 of 300 retailers did not succeed" in success_sentence(day)
        assert "60 missing of 300" in missing_sentence(day)
        assert table.count("/runs/") == MAX_PROBLEMS


def test_a_retailer_with_an_odd_name_does_not_break_links_and_tables() -> None:
    """In Dagster, users can add any text as a partition."""
    each = RetailerDay(retailer="a|b](x)\n<b>", run_status="FAILURE", run_id="ab" * 16)
    day = Day(DATE, [each], NOW)
    key = f"{DATE}%7Ca%7Cb%5D%28x%29%0A%3Cb%3E"
    address = f"/prod/assets/eu/processed_images?view=partitions&partition={key}"
    (row,) = problem_table(day, LINKS).splitlines()[2:]
    assert row.startswith(rf"| [a\|b\](x) \<b\>]({address}) | run failure |")
    assert r"[a\|b\](x) \<b\>](/prod/runs/abab" in summary(day, LINKS)


@pytest.mark.parametrize(
    ("number", "columns", "named", "title"),
    [
        (0, 0, 0, "none"),
        (1, 1, 1, ""),
        (50, 1, 50, ""),
        (51, 2, 51, ""),
        (250, 2, 250, ""),
        (1_000, 6, None, r"1000 retailers, worst first, column by column: \d+ with names, then"),
    ],
)
def test_a_heat_map_shows_all_retailers_worst_first_and_fits_the_event_log(
    number: int, columns: int, named: int | None, title: str
) -> None:
    dates = dates_before(DATE, "day")
    day = many(number)
    text = heat_map(dict.fromkeys(dates, day), dates)
    assert len(text) <= HEAT_MAP_BYTES
    assert re.match(title or "!", text)
    if number:
        image = svg(text)
        names = [
            name for block in re.findall("<pre[^>]*>([^<]+)<", image) for name in block.split()
        ]
        assert names == [each.retailer for each in day.worst_first][: len(names)]
        assert len(names) > 50 if named is None else len(names) == named
        rows = [int(rows) for rows in re.findall(r"viewBox='0 \d+ 30 (-?\d+)'", image)]
        assert len(rows) == columns
        assert min(rows) > 0
        assert sum(rows) == decoded(image).height == number


def test_a_heat_map_of_too_many_retailers_says_how_many_it_leaves_out() -> None:
    rng = np.random.default_rng(0)
    dates = dates_before(DATE, "day")
    entries = [
        [RetailerDay(retailer=f"{n}", urls=100, downloaded=int(rate)) for n, rate in enumerate(row)]
        for row in rng.integers(0, 101, (len(dates), 1_000))
    ]
    days = {date: Day(date, row, NOW) for date, row in zip(dates, entries, strict=True)}
    text = heat_map(days, dates)
    assert len(text) <= HEAT_MAP_BYTES
    found = re.match(r"1000 retailers, .*: 0 with names, then (\d+) .*; (\d+) are left out\n", text)
    assert found is not None
    assert int(found[1]) == decoded(text).height == 1_000 - int(found[2]) > 500


def test_a_heat_map_has_a_colour_per_state() -> None:
    dates = dates_before(DATE, "day")
    entries = [
        RetailerDay(retailer="a", urls=10, downloaded=10),
        RetailerDay(retailer="b", urls=10, downloaded=1),
        RetailerDay(retailer="c", documents=1),
    ]
    image = svg(heat_map({DATE: Day(DATE, entries, NOW)}, dates))
    assert ">c\nb\na</pre>" in image
    cells = np.asarray(decoded(image))
    assert cells[:, 29].tolist() == [[60, 64, 72], [205, 52, 52], [38, 145, 84]]
    assert (cells[:, :29] == [232, 234, 238]).all()
    assert "fill='rgb(205, 52, 52)'/><text x='448' y='12'>from 0%<" in image


def test_the_sheet_of_doubtful_images_hides_faces_and_fits_the_event_log(storage: Storage) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (456, 304, 3), np.uint8))
    file = io.BytesIO()
    noise.save(file, "JPEG")
    rows = [
        processed_row(n, face_boxes=[[0, 0, 304, 456]], width=304, height=456) for n in range(12)
    ]
    for row in rows:
        assert row.raw_path is not None
        storage.write(row.raw_path, file.getvalue())
    shown, hidden = (
        doubtful_sheet(rows, storage, hide_faces=lambda _, hide=hide: hide)  # type: ignore[misc]
        for hide in (False, True)
    )
    assert len(shown) <= SHEET_BYTES
    assert len(hidden) <= SHEET_BYTES
    # A pixelated face has few different colours, noise has many.
    cells = [np.asarray(decoded(text))[20:100, 20:60].astype(float) for text in (shown, hidden)]
    details = [np.abs(np.diff(cell, axis=1)).mean() for cell in cells]
    assert details[1] < details[0] / 2


def test_damaged_and_removed_images_do_not_prevent_the_sheet(storage: Storage) -> None:
    row = processed_row(0)
    assert row.path is not None
    storage.write(row.path, b"not an image")
    text = doubtful_sheet([row], storage, hide_faces=lambda _: True)
    assert decoded(text).width > 100


def test_captions_name_the_retailer_also_if_the_key_is_no_xml(storage: Storage) -> None:
    image = svg(doubtful_sheet([processed_row(0, key="a<b>&\x00c")], storage, hide_faces=bool))
    assert ">zara: a&lt;b&gt;&amp;c\n" in image


def test_the_days_of_a_retailer_come_from_stored_numbers_and_from_manifests(
    storage: Storage,
) -> None:
    write_data_root(storage)
    dates = ["2026-01-01", DATE, "2026-01-03"]
    stored = RetailerDay(retailer="zara", urls=9, downloaded=9, run_id="ab" * 16)
    save_day(storage, Day(DATE, [stored], NOW))
    days = retailer_days(storage, "zara", dates, Settings().for_retailer("zara"))
    assert {date: each.urls for date, each in days.items()} == {DATE: 9, "2026-01-03": 2}
    table = days_table(days.items(), LINKS).splitlines()
    assert "2026-01-03%7Czara" in table[2]
    assert f"(/prod/runs/{'ab' * 16})" in table[3]
    chart = history_chart(days, dates)
    assert len(chart) < 6_000
    assert decoded(chart).width > 700
    assert retailer_days(storage, "hm", ["2026-01-01"], Settings().for_retailer("hm")) == {}
