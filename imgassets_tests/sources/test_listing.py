"""Tests of keys, slugs, days and the report of anomalies."""

from __future__ import annotations

import datetime as dt
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgassets.errors import SourceError
from imgassets.manifests import UrlRow
from imgassets.sources.listing import (
    Anomaly,
    SourceReport,
    build_listing,
    day_anomaly,
    document_rows,
    image_key,
    listing_without_retailer,
    spellings_note,
    today,
)
from imgassets_tests.rows import url_row

SAFE = re.compile(r"[a-z0-9][a-z0-9-]{0,70}")
URLS = st.text(max_size=4000) | st.sampled_from(
    ["../../etc/passwd", "http://a/b?c=d/e", "http://a/\x00", "http://a/" + "x" * 4000, "a\ud800"]
)


@given(st.text(), st.text(), st.integers(0, 999), URLS)
def test_every_key_is_safe_as_a_file_name(
    document: str, product: str, position: int, url: str
) -> None:
    key = image_key(document, product, position, url)
    assert SAFE.fullmatch(key)
    assert key == image_key(document, product, position, url)


@given(st.lists(st.tuples(URLS, st.text()), unique=True, min_size=2, max_size=5))
def test_two_images_never_share_a_key(images: list[tuple[str, str]]) -> None:
    keys = {image_key("document", product, 0, url) for url, product in images}
    assert len(keys) == len(images)


def test_urls_with_the_same_base_name_have_different_keys() -> None:
    first = image_key("d", "p", 0, "http://a/1/front.jpg")
    assert first != image_key("d", "p", 0, "http://a/2/front.jpg")


@pytest.mark.parametrize(
    ("document", "product", "position", "url", "key"),
    [
        ("d1", "SKU 7/Red", 3, "http://shop/a.jpg", "sku-7-red-003-d04251c821f650ee"),
        ("d1", "?!", 12, "http://shop/b.jpg", "product-012-4f20116fc65350b0"),
        ("d1", "p" * 60, 1000, "http://shop/\ud800", "p" * 40 + "-1000-35f62549f362a4d3"),
    ],
)
def test_keys_stay_the_same_across_versions_because_files_are_named_by_them(
    document: str, product: str, position: int, url: str, key: str
) -> None:
    assert image_key(document, product, position, url) == key


def test_document_product_position_and_url_each_change_the_key() -> None:
    images = [
        ("d", "p", 1, "http://a"),
        ("e", "p", 1, "http://a"),
        ("d", "P", 1, "http://a"),  # the readable part is the same
        ("d", "p", 2, "http://a"),
        ("d", "p", 1, "http://b"),
        ("dp", "", 1, "http://a"),
        ("", "dp", 1, "http://a"),
    ]
    assert len({image_key(*image)[-16:] for image in images}) == len(images)


def test_the_note_about_several_spellings_shows_the_first_five() -> None:
    assert spellings_note("zara", ["Zara", "ZARA "]) == (
        "retailer zara is written in 2 ways: 'Zara', 'ZARA '"
    )
    assert spellings_note("a", [*"abcdefg"]) == (
        "retailer a is written in 7 ways: 'a', 'b', 'c', 'd', 'e' and 2 more"
    )


def test_a_retailer_that_left_the_source_has_an_empty_listing_that_names_twenty_others() -> None:
    known = {f"shop-{number:02}" for number in reversed(range(30))}
    listing = listing_without_retailer("zara", known)
    assert (len(listing.rows), listing.documents, listing.report.counts) == (0, 0, {})
    listed = ", ".join(f"shop-{number:02}" for number in range(20))
    assert listing.note == (
        f"the source has no document of retailer 'zara'; retailers in the source: {listed}; if it "
        "has left the source, delete its partition in the UI; otherwise check its name in the "
        "source (for MongoDB also source.fields.retailer and source.query)"
    )


def test_a_source_without_any_retailer_is_an_error_about_its_settings() -> None:
    with pytest.raises(SourceError, match=r"has no document with a retailer.*source\.collection"):
        listing_without_retailer("zara", set())


def test_today_is_the_day_in_utc_whatever_the_local_time_zone(time_zone: str) -> None:
    del time_zone
    before = time.time() // 86_400
    assert (today() - dt.date(1970, 1, 1)).days in {before, time.time() // 86_400}


def test_days_before_the_start_date_and_after_today_have_no_partition() -> None:
    start, day = dt.date(2026, 1, 1), dt.timedelta(days=1)
    now = today()
    assert day_anomaly(start, start, "day") is None
    assert day_anomaly(start - day, start, "day") is Anomaly.BEFORE_START_DATE
    assert day_anomaly(now, start, "day") is None
    assert day_anomaly(now + 2 * day, start, "day") is Anomaly.IN_FUTURE


def test_tomorrow_has_no_partition_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgassets.sources.listing.today", lambda: dt.date(2026, 3, 1))
    assert day_anomaly(dt.date(2026, 3, 1), dt.date(2026, 1, 1), "day") is None
    assert day_anomaly(dt.date(2026, 3, 2), dt.date(2026, 1, 1), "day") is Anomaly.IN_FUTURE


def test_a_row_has_all_fields_of_its_image() -> None:
    (first, second) = document_rows(
        document_id="d1",
        product_id="p1",
        images=(" http://a ", "http://b"),
        date="2026-01-02",
        retailer="zara",
        report=SourceReport(),
    )
    assert first == UrlRow(
        key=image_key("d1", "p1", 0, "http://a"),
        url="http://a",
        retailer="zara",
        date="2026-01-02",
        product_id="p1",
        position=0,
        document_id="d1",
    )
    assert second.key == image_key("d1", "p1", 1, "http://b")


def test_two_documents_of_one_product_each_have_a_row_for_the_same_url() -> None:
    documents = [
        document_rows(
            document_id=document,
            product_id="p1",
            images=["http://a"],
            date="2026-01-02",
            retailer="zara",
            report=SourceReport(),
        )
        for document in ("d1", "d2")
    ]
    listing = build_listing(documents, SourceReport())
    assert listing.documents == 2
    assert [(row.document_id, row.product_id, row.url) for row in listing.rows] == [
        ("d1", "p1", "http://a"),
        ("d2", "p1", "http://a"),
    ]
    assert len({row.key for row in listing.rows}) == 2


def rows_of(images: object) -> tuple[list[tuple[int, str]], dict[str, int]]:
    report = SourceReport()
    rows = document_rows(
        document_id="d1",
        product_id="p1",
        images=images,
        date="2026-01-02",
        retailer="zara",
        report=report,
    )
    return [(row.position, row.url) for row in rows], {str(k): n for k, n in report.counts.items()}


@pytest.mark.parametrize("images", [None, [], {}, 3, [[]], "[]"])
def test_a_document_without_images_is_reported(images: object) -> None:
    assert rows_of(images) == ([], {"no_images": 1})


def test_invalid_entries_are_counted_and_the_other_urls_keep_their_positions() -> None:
    rows, counts = rows_of(["http://a", None, 3, "", "http://b"])
    assert rows == [(0, "http://a"), (4, "http://b")]
    assert counts == {"non_string_url": 3}


def test_a_url_listed_twice_becomes_one_row_and_is_counted() -> None:
    assert rows_of(["http://a", "http://b", "http://a "]) == (
        [(0, "http://a"), (1, "http://b")],
        {"duplicate_url": 1},
    )


def test_a_single_url_is_treated_as_a_list_of_one() -> None:
    assert rows_of("http://a") == ([(0, "http://a")], {})


def test_an_anomaly_of_a_list_is_reported_with_document_and_detail() -> None:
    report = SourceReport()
    for number, images in enumerate([{}, [" http://a", 7, "http://a"]]):
        document_rows(
            document_id=f"d{number}",
            product_id="p",
            images=images,
            date="2026-01-02",
            retailer="zara",
            report=report,
        )
    assert report.examples == [
        (Anomaly.NO_IMAGES, "d0", "the list of URLs is {}"),
        (Anomaly.NON_STRING_URL, "d1", "entry 1 is 7"),
        (Anomaly.DUPLICATE_URL, "d1", "http://a"),
    ]


def test_the_report_counts_all_anomalies_and_keeps_twenty_examples_of_each() -> None:
    report = SourceReport()
    for number in range(50):
        report.add(Anomaly.NO_IMAGES, str(number), "x" * 1000)
    assert report.counts[Anomaly.NO_IMAGES] == 50
    report.add(Anomaly.NO_DATE, "late", "x")
    kept = [(Anomaly.NO_IMAGES, str(number), "x" * 200) for number in range(20)]
    assert report.examples == [*kept, (Anomaly.NO_DATE, "late", "x")]


def test_a_document_that_is_read_twice_raises_an_error() -> None:
    rows = document_rows(
        document_id="d1",
        product_id="p1",
        images=["http://a"],
        date="2026-01-02",
        retailer="zara",
        report=SourceReport(),
    )
    with pytest.raises(SourceError) as caught:
        build_listing([rows, rows], SourceReport())
    assert str(caught.value) == (
        f"keys of images are not unique (1), for example '{rows[0].key}': "
        "the same document was read twice; check the source for repeated ids"
    )


def test_the_order_of_a_listing_does_not_depend_on_the_order_of_reading() -> None:
    rows = [
        url_row(0, document_id=document, position=position, key=key)
        for document, position, key in (
            ("d1", 2, "z"),
            ("d1", 10, "a"),
            ("d2", 0, "c"),
            ("d2", 0, "d"),
        )
    ]
    report = SourceReport()
    documents = [[rows[2]], [], [rows[1], rows[3]], [rows[0]], [], [], []]
    listing = build_listing(documents, report)
    assert list(listing.rows) == rows
    assert listing.documents == 7
    assert listing.report is report


def test_a_partition_of_documents_without_a_url_has_a_note_with_the_remedy() -> None:
    assert build_listing([[]] * 7, SourceReport()).note == (
        "there is no image URL in 7 documents of the partition; check source.fields.images "
        "(`imgassets doctor` shows the URLs that it finds)"
    )
    assert build_listing([], SourceReport()).note is None
    assert build_listing([[], [url_row(0)]], SourceReport()).note is None
