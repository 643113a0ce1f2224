"""Keys, slugs and the account of odd documents."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgassets.sources.listing import (
    MAX_EXAMPLES,
    Account,
    Oddity,
    SourceError,
    document_rows,
    finished,
    picture_key,
    retailer_slug,
)

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
        ("!!!", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_slugs_of_names(name: object, slug: str | None) -> None:
    assert retailer_slug(name) == slug


def rows_of(images: object) -> tuple[list[tuple[int, str]], dict[str, int]]:
    account = Account()
    rows = document_rows(
        document_id="d1",
        product_id="p1",
        images=images,
        date="2026-01-02",
        retailer="zara",
        account=account,
    )
    return [(row.position, row.url) for row in rows], {str(k): n for k, n in account.counts.items()}


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


def test_the_account_counts_all_and_keeps_few_examples() -> None:
    account = Account()
    for number in range(MAX_EXAMPLES + 30):
        account.report(Oddity.NO_IMAGES, str(number), "x" * 1000)
    assert account.counts[Oddity.NO_IMAGES] == MAX_EXAMPLES + 30
    assert len(account.examples) == MAX_EXAMPLES
    assert max(len(detail) for _, _, detail in account.examples) == 200


def test_a_document_that_is_read_twice_is_an_error_and_overwrites_nothing() -> None:
    rows = document_rows(
        document_id="d1",
        product_id="p1",
        images=["http://a"],
        date="2026-01-02",
        retailer="zara",
        account=Account(),
    )
    with pytest.raises(
        SourceError, match="1 keys stand for two pictures each, for example 'p1-000"
    ):
        finished(rows * 2, 2, Account())
