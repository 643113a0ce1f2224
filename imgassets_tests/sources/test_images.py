"""Tests of paths in documents, and of the spellings of URLs in one text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgassets.sources.images import (
    fields_near,
    image_entries,
    path_heads,
    split_urls,
    value_at_path,
    values_at_paths,
)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a", {"b": 1, "list": [{"x": 1}, {"x": 0}, 7, {"y": 2}, {"x": [3]}]}),
        ("a.b", 1),
        ("a.c", None),
        ("a.b.c", None),
        ("a.list.x", [1, [3]]),
        ("a.list.0.x", 1),
        ("a.list.9.x", None),
        ("d.e", 5),
        ("d.e.f", None),
        ("g.h.i", 6),
        ("text.t", None),
        ("url.t", None),
        ("none", None),
        ("none.x", None),
        ("absent.x", None),
        ("rows.cells.v", [[1, 2], [3]]),
    ],
)
def test_the_value_at_a_dotted_path_is_found_as_in_mongodb(path: str, value: object) -> None:
    document = {
        "a": {"b": 1, "list": [{"x": 1}, {"x": 0}, 7, {"y": 2}, {"x": [3]}]},
        "text": "t",
        "url": "https://shop/a.jpg",
        "d.e": 5,
        "d": {"e": 0},
        "g": {"h.i": 6},
        "none": None,
        "rows": [{"cells": [{"v": 1}, {"v": 2}]}, {"cells": [{"v": 3}]}],
    }
    assert value_at_path(document, path) == value


@pytest.mark.parametrize(
    ("path", "place", "names"),
    [
        ("pictures", "", ["_id", "media", "name"]),
        ("media.url", "media", ["src", "alt"]),
        ("media.0.url", "media.0", ["src"]),
        ("media.src.url", "media", ["src", "alt"]),
        ("name.url", "", ["_id", "media", "name"]),
    ],
)
def test_the_fields_near_a_path_are_those_of_the_object_that_it_reaches(
    path: str, place: str, names: list[str]
) -> None:
    document = {"_id": 1, "media": [{"src": "x"}, {"alt": "y", "src": None}], "name": "jeans"}
    assert fields_near(document, path) == (place, names)


def test_a_path_can_start_with_any_part_of_it_as_the_name_of_a_field() -> None:
    assert path_heads("images.0.src") == ["images.0.src", "images.0", "images"]


def test_an_empty_value_of_one_of_several_paths_is_no_entry() -> None:
    document = {"a": "", "b": ["x"], "c": None}
    assert values_at_paths(document, ["a", "b", "c", "d"]) == [["x"]]
    assert values_at_paths(document, ["a"]) == ""
    assert values_at_paths(document, ["a", "c"]) is None


texts = st.text() | st.text("[]{}()'\",;|: \nhtps/.1wx&#", max_size=60)
values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts | st.just("url"), inner),
)


@settings(max_examples=50)
@given(values, st.none() | st.sampled_from([",", ";", " "]), st.none() | st.just("https://shop"))
def test_any_value_gives_a_flat_list(
    value: object, separator: str | None, base_url: str | None
) -> None:
    for entry in image_entries(value, separator, base_url):
        assert not isinstance(entry, list | tuple)
        assert not isinstance(entry, str) or entry == entry.strip()


@settings(max_examples=50)
@given(st.from_regex(r"https://shop/[\w,;|/.=&%-]{1,30}", fullmatch=True))
def test_a_single_url_stays_as_it_is(url: str) -> None:
    url = url.rstrip(",;|")
    assert image_entries([url, f"{url},"], None, None) == [url, url]
    assert image_entries(f"{url}\n{url}", None, None) == [url, url]


@settings(max_examples=50)
@given(values)
def test_a_list_as_json_in_a_text_is_read_like_the_list(value: object) -> None:
    text = json.dumps([value, ["https://shop/a.jpg"]])
    assert repr(image_entries(text, None, None)) == repr(
        image_entries(json.loads(text), None, None)
    )


LONG = ["[" * 100_000, "{" * 100_000 + "}" * 100_000, "(" * 5_000 + ")" * 5_000, " ,;|" * 100_000]
LONG += ["https://a/" + "," * 300_000 + "x", "//" * 200_000, "\n" * 300_000, "' " * 50_000 + "'"]
LONG += [" 1" * 200_000, "[" * 900 + "]" * 900, "&#" * 200_000, "1x, " * 100_000, '"[' * 30_000]
LONG += [".jpg ," * 100_000, "a" * 400_000 + "=https://a", "https://a/" + "\\n<br" * 100_000]
LONG += [
    "https://a/ " + "a.jpg ! " * 50_000,
    "a=https://b,c " * 30_000,
    "\\" * 400_000,
    "a." * 200_000,
]
LONG += ['{"a":' * 900 + "1" + "}" * 900]


@pytest.mark.parametrize("number", range(len(LONG)))
def test_a_long_or_deep_text_is_read(number: int) -> None:
    # In quadratic time, each would exceed the time limit of a test.
    text = LONG[number]
    entries = image_entries(["x " + text, text, {"a": text}, {"url": text}], None, "https://shop")
    assert repr(entries)
    assert values_at_paths({"a": text}, ["a.b.c"]) in (None, [], text)


def test_lists_that_are_too_deep_are_no_urls() -> None:
    deep: object = "https://shop/a.jpg"
    for _ in range(900):
        deep = [deep]
    assert image_entries(deep, None, None) == [...]
    assert values_at_paths({"a": deep}, ["a.b"]) is None


def test_of_a_srcset_with_equal_sizes_the_first_image_is_taken() -> None:
    assert split_urls("a 2x, b 2x,", None) == ["a"]
    assert split_urls(" , a 100w 50h,b", None) == ["a"]


# Parts that the rules for texts look for, after the start of a URL.
PARTS = ["a", "/", "http://", "https://b.jpg", "?u=", "&amp;", "&quot;", "%3A%2F%2F", ":", "=", '"']
PARTS += ["'", "(", ")", "[", "]", "{", "}", "<img src=", "<br>", "\\/", "\\n", ",", ";", "|", " "]
PARTS += ["\n", ".jpg", " 2x", "data:", "null", "n/a", "é", "\ufeff", "\ud83d", "\x1f", "\x85", "!"]


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.sampled_from(PARTS), max_size=8).map("".join), st.sampled_from(["http", "https"])
)
def test_a_plain_url_is_read_as_every_other_text(rest: str, scheme: str) -> None:
    url = f"{scheme}://x{rest}"
    # With a space before it, it is no plain URL.
    assert image_entries(url, None, None) == image_entries(f" {url}", None, None)
