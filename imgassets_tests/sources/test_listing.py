"""Keys, slugs and the report of odd documents."""

from __future__ import annotations

import datetime as dt
import re
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgassets.errors import SourceError
from imgassets.manifests import UrlRow
from imgassets.sources.listing import (
    Anomaly,
    SourceReport,
    conflict,
    day_anomaly,
    document_rows,
    finished,
    picture_key,
    retailer_slug,
    today,
    unknown_retailer,
)
from imgassets_tests.rows import url_row

SAFE = re.compile(r"[a-z0-9][a-z0-9-]{0,70}")
URLS = st.text(max_size=4000) | st.sampled_from(
    ["../../etc/passwd", "http://a/b?c=d/e", "http://a/\x00", "http://a/" + "x" * 4000, "a\ud800"]
)


@given(st.text(), st.text(), st.integers(0, 999), URLS)
def test_any_key_is_safe_as_a_file_name(document: str, product: str, place: int, url: str) -> None:
    key = picture_key(document, product, place, url)
    assert SAFE.fullmatch(key)
    assert key == picture_key(document, product, place, url)


@given(st.lists(st.tuples(URLS, st.text()), unique=True, min_size=2, max_size=5))
def test_two_pictures_never_share_a_key(pictures: list[tuple[str, str]]) -> None:
    keys = {picture_key("document", product, 0, url) for url, product in pictures}
    assert len(keys) == len(pictures)


def test_two_urls_that_end_in_one_base_name_have_two_keys() -> None:
    first = picture_key("d", "p", 0, "http://a/1/front.jpg")
    assert first != picture_key("d", "p", 0, "http://a/2/front.jpg")


@pytest.mark.parametrize(
    ("document", "product", "position", "url", "key"),
    [
        ("d1", "SKU 7/Red", 3, "http://shop/a.jpg", "sku-7-red-003-d04251c821f650ee"),
        ("d1", "?!", 12, "http://shop/b.jpg", "product-012-4f20116fc65350b0"),
        ("d1", "p" * 60, 1000, "http://shop/\ud800", "p" * 40 + "-1000-35f62549f362a4d3"),
    ],
)
def test_a_key_never_changes_since_files_are_kept_under_it(
    document: str, product: str, position: int, url: str, key: str
) -> None:
    assert picture_key(document, product, position, url) == key


def test_each_part_of_a_picture_s_identity_changes_its_key() -> None:
    pictures = [
        ("d", "p", 1, "http://a"),
        ("e", "p", 1, "http://a"),
        ("d", "P", 1, "http://a"),  # the readable part is the same
        ("d", "p", 2, "http://a"),
        ("d", "p", 1, "http://b"),
        ("dp", "", 1, "http://a"),
        ("", "dp", 1, "http://a"),
    ]
    assert len({picture_key(*picture)[-16:] for picture in pictures}) == len(pictures)


@given(st.text())
def test_a_slug_is_a_safe_partition_key_or_nothing(name: str) -> None:
    slug = retailer_slug(name)
    assert slug is None or set(slug) <= set(string.ascii_lowercase + string.digits + "-")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Zara", "zara"),
        ("Nord & Sol", "nord-sol"),
        ("H&M | Women/Men, 20%", "h-m-women-men-20"),
        ("Ünïcødé", "unicode"),
        ("a" * 100, "a" * 64),
        ("!!!", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_slugs_of_names(name: object, slug: str | None) -> None:
    assert retailer_slug(name) == slug


def test_two_names_on_one_slug_are_named_in_order_with_what_to_do() -> None:
    assert conflict("zara", ["Zara", "ZARA ", "Zára"]) == (
        "retailers 'ZARA ' and 'Zara' and 'Zára' both become the partition 'zara'; give them one "
        "name in the documents, or leave one out with source.query"
    )


def test_an_unknown_retailer_is_answered_with_at_most_twenty_that_exist() -> None:
    known = {f"shop-{number:02}": "" for number in reversed(range(30))}
    listed = ", ".join(f"shop-{number:02}" for number in range(20))
    assert str(unknown_retailer("zara", known)) == (
        f"the source has no document of retailer 'zara'; it has: {listed}"
    )
    assert str(unknown_retailer("zara", {})).endswith("'zara'; it has: none at all")


def test_today_is_the_day_in_utc_wherever_the_machine_is(time_zone: str) -> None:
    del time_zone
    before = time.time() // 86_400
    assert (today() - dt.date(1970, 1, 1)).days in {before, time.time() // 86_400}


def test_the_first_day_and_today_have_partitions_and_their_neighbours_none() -> None:
    start, day = dt.date(2026, 1, 1), dt.timedelta(days=1)
    now = today()
    assert day_anomaly(start, start) is None
    assert day_anomaly(start - day, start) is Anomaly.BEFORE_START_DATE
    assert day_anomaly(now, start) is None
    assert day_anomaly(now + 2 * day, start) is Anomaly.IN_FUTURE


def test_tomorrow_has_no_partition_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgassets.sources.listing.today", lambda: dt.date(2026, 3, 1))
    assert day_anomaly(dt.date(2026, 3, 1), dt.date(2026, 1, 1)) is None
    assert day_anomaly(dt.date(2026, 3, 2), dt.date(2026, 1, 1)) is Anomaly.IN_FUTURE


def test_a_row_says_all_that_is_known_of_its_picture() -> None:
    (first, second) = document_rows(
        document_id="d1",
        product_id="p1",
        images=(" http://a ", "http://b"),
        date="2026-01-02",
        retailer="zara",
        report=SourceReport(),
    )
    assert first == UrlRow(
        key=picture_key("d1", "p1", 0, "http://a"),
        url="http://a",
        retailer="zara",
        date="2026-01-02",
        product_id="p1",
        position=0,
        document_id="d1",
    )
    assert second.key == picture_key("d1", "p1", 1, "http://b")


def test_two_documents_of_one_product_have_rows_of_their_own_for_the_same_url() -> None:
    rows = [
        row
        for document in ("d1", "d2")
        for row in document_rows(
            document_id=document,
            product_id="p1",
            images=["http://a"],
            date="2026-01-02",
            retailer="zara",
            report=SourceReport(),
        )
    ]
    listing = finished(rows, 2, SourceReport())
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


@pytest.mark.parametrize("images", [None, [], {}, 3, {"url": "http://a"}])
def test_a_document_without_images_is_counted(images: object) -> None:
    assert rows_of(images) == ([], {"no_images": 1})


def test_what_is_no_text_is_counted_and_the_others_keep_their_positions() -> None:
    rows, counts = rows_of(["http://a", None, 3, "", "http://b"])
    assert rows == [(0, "http://a"), (4, "http://b")]
    assert counts == {"non_string_url": 3}


def test_a_url_listed_twice_is_one_row_and_counted() -> None:
    assert rows_of(["http://a", "http://b", "http://a "]) == (
        [(0, "http://a"), (1, "http://b")],
        {"duplicate_url": 1},
    )


def test_a_single_url_counts_as_a_list_of_one() -> None:
    assert rows_of("http://a") == ([(0, "http://a")], {})


def test_an_odd_list_is_reported_with_its_document_and_what_it_holds() -> None:
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


def test_the_account_counts_all_and_keeps_twenty_examples_of_each_oddity() -> None:
    report = SourceReport()
    for number in range(50):
        report.add(Anomaly.NO_IMAGES, str(number), "x" * 1000)
    assert report.counts[Anomaly.NO_IMAGES] == 50
    report.add(Anomaly.NO_DATE, "late", "x")
    kept = [(Anomaly.NO_IMAGES, str(number), "x" * 200) for number in range(20)]
    assert report.examples == [*kept, (Anomaly.NO_DATE, "late", "x")]


def test_a_document_that_is_read_twice_is_an_error_and_overwrites_nothing() -> None:
    rows = document_rows(
        document_id="d1",
        product_id="p1",
        images=["http://a"],
        date="2026-01-02",
        retailer="zara",
        report=SourceReport(),
    )
    with pytest.raises(SourceError) as caught:
        finished(rows * 2, 2, SourceReport())
    assert str(caught.value) == (
        f"1 keys stand for two pictures each, for example '{rows[0].key}': "
        "the same document was read twice; check the source for repeated ids"
    )


def test_a_listing_is_in_the_same_order_however_the_source_was_read() -> None:
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
    listing = finished([rows[2], rows[1], rows[3], rows[0]], 7, report)
    assert listing.rows == rows
    assert listing.documents == 7
    assert listing.report is report
