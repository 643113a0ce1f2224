"""Find opt-outs in headers and in tdmrep.json."""

from __future__ import annotations

import json

import pytest

from imgassets.download import opt_outs
from imgassets.settings import OPT_OUTS, OptOut

HOST = "http://h.example"


@pytest.mark.parametrize(
    ("tag", "rule"),
    [
        ("noai", "noai"),
        ("noimageai", "noimageai"),
        ("NoAI", "noai"),
        (" noindex ,NOIMAGEAI ", "noimageai"),
        ("noindex, noai, noimageai", "noai"),
        ("*: noai", "noai"),
        ("imgassets: noai", "noai"),
        (" ImgAssets : noimageai", "noimageai"),
        ("imgassets: noindex, noai", "noai"),
        ("otherbot: noai, imgassets: noimageai", "noimageai"),
        ("otherbot: noai\nnoimageai", "noimageai"),
        ("noindex\nimgassets: noai", "noai"),
        ("unavailable_after: 25 Jun 2030 15:00:00 PST, noai", "noai"),
        ("unavailable_after: Tue, 25 Jun 2030 15:00:00 GMT, noai", "noai"),
        ("imgassets: unavailable_after: Tuesday, 25-Jun-30 15:00:00 GMT, noai", "noai"),
        ("max-snippet: 5, noai", "noai"),
        ("max-image-preview: large, noai", "noai"),
        ("max-video-preview: -1, noai", "noai"),
        ("imgassets: nofollow, max-snippet: 5, noai", "noai"),
        ("Max-Snippet : 5, noai", "noai"),
    ],
)
def test_a_tag_that_opts_out_for_all_or_for_us_forbids_the_image(tag: str, rule: str) -> None:
    said = opt_outs.find_in_headers({"x-robots-tag": tag}, "imgassets", ["noai", "noimageai"])
    assert said == f"the X-Robots-Tag header says {rule} (download.opt_outs: {rule})"


@pytest.mark.parametrize(
    "tag",
    [
        "",
        "all",
        "noindex",
        "none",
        "noaix",
        "no ai",
        "max-snippet: 5",
        "max-snippet: noai",
        "otherbot: noai",
        "otherbot: nofollow, noai",
        "imgassets: nofollow, otherbot: noai",
        "otherbot: max-snippet: 5, noai",
        "imgassets-eu: noai",
        "img: noai",
        "imgassets: noai-ever",
        "otherbot: noai\nimgassets: noindex",
        "noai: noindex",
    ],
)
def test_a_tag_for_other_crawlers_or_with_other_rules_forbids_nothing(tag: str) -> None:
    obeyed = ["noai", "noimageai", "tdm-reservation", "content-usage"]
    assert opt_outs.find_in_headers({"x-robots-tag": tag}, "imgassets", obeyed) is None


@pytest.mark.parametrize(
    ("header", "value", "opt_out", "said"),
    [
        ("x-robots-tag", "noml", "noml", "X-Robots-Tag header says noml"),
        ("x-robots-tag", "nofollow, NoIndex", "noindex", "X-Robots-Tag header says noindex"),
        ("x-robots-tag", "none", "noindex", "X-Robots-Tag header says none"),
        ("x-robots-tag", "otherbot: noml\nimgassets: none", "noindex",
         "X-Robots-Tag header says none"),
        ("x-robots-tag", "noimageindex", "noimageindex", "X-Robots-Tag header says noimageindex"),
        ("tdm-reservation", "1", "tdm-reservation", "tdm-reservation header says 1"),
        ("tdm-reservation", "0\n 1 ", "tdm-reservation", "tdm-reservation header says 1"),
        ("tdm-reservation", "1, 1", "tdm-reservation", "tdm-reservation header says 1"),
        ("content-usage", "train-ai=n", "content-usage", "Content-Usage header says train-ai=n"),
        ("content-usage", "search=y\ntrain-ai=n;x=1", "content-usage",
         "Content-Usage header says train-ai=n"),
    ],
)  # fmt: skip
def test_an_opt_out_in_a_header_is_obeyed_unless_its_switch_is_off(
    header: str, value: str, opt_out: OptOut, said: str
) -> None:
    headers = {"content-type": "image/jpeg", header: value}
    found = opt_outs.find_in_headers(headers, "imgassets", OPT_OUTS)
    assert found == f"the {said} (download.opt_outs: {opt_out})"
    others = [other for other in OPT_OUTS if other != opt_out]
    assert opt_outs.find_in_headers(headers, "imgassets", others) is None


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-robots-tag", "all"),
        ("x-robots-tag", "nofollow, noarchive, index"),
        ("x-robots-tag", "otherbot: none"),
        ("x-robots-tag", "unavailable_after: 25 Jun 2020 15:00:00 PST"),
        ("tdm-reservation", "0"),
        ("tdm-reservation", "2"),
        ("tdm-reservation", "true"),
        ("tdm-reservation", "11"),
        ("tdm-reservation", ""),
        ("tdm-policy", "http://h.example/policy.json"),
        ("content-usage", "train-ai=y"),
        ("content-usage", ""),
        # RFC 9651, 4.2.2: of a repeated key, the last value counts.
        ("content-usage", "train-ai=n\ntrain-ai=y"),
        # A field that cannot be parsed is ignored as a whole.
        ("content-usage", "train-ai=n\n???"),
    ],
)
def test_other_headers_opt_out_of_nothing(header: str, value: str) -> None:
    assert opt_outs.find_in_headers({header: value}, "imgassets", OPT_OUTS) is None


@pytest.mark.parametrize(
    ("preferences", "label"),
    [
        ("train-ai=n", "train-ai"),
        ("search=y, train-ai=n;exceptions=cc-cr", "train-ai"),
        ("train-genai=n, train-ai=y", "train-genai"),
        ("genai=n", "genai"),
        ("ai=n", "ai"),
        ("bots=n", "bots"),
        ("all=n, search=y", "all"),
        ("tdm=n", "tdm"),
        ("bots=y, train-ai=n", "train-ai"),
        # More specific than the preference about all processing.
        ("bots=n, train-ai=y", None),
        ("search=n", None),
        ("ai-use=n, ai-output=n, inference=n", None),
        ("train-ai=y", None),
        ("train-ai", None),
        ('train-ai="n"', None),
        ("train-ai=(n)", None),
        ("train-ai=no", None),
        ("Train-AI=n", None),
        ("train-ai=n,", None),
        ("train-ai: n", None),
        ("tr\u00e4in-ai=n", None),
        ("", None),
    ],
)
def test_these_preferences_forbid_a_training_data_set(preferences: str, label: str | None) -> None:
    assert opt_outs.forbidden_use(preferences) == label


TDM = [
    {"location": "/a/b/free/*.jpg$", "tdm-reservation": 0},
    {"location": "/a/", "tdm-reservation": 1, "tdm-policy": "http://h.example/p"},
    {"location": "/text/", "tdm-reservation": "1"},
    {"location": "/a", "tdm-reservation": 0},
    {"location": "*.png", "tdm-reservation": 1},
    {"location": "/50%25%20off", "tdm-reservation": 1},
    {"location": "/one#two", "tdm-reservation": 1},
    {"location": "/lines\nDisallow: /", "tdm-reservation": 1},
    {"location": "/true/", "tdm-reservation": True},
    {"location": "/two/", "tdm-reservation": 2},
    {"location": "/none/"},
    {"location": "", "tdm-reservation": 1},
    {"location": 7, "tdm-reservation": 1},
    {"tdm-reservation": 1},
    ["/list/", 1],
]


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/a/x.jpg", "/a/"),
        ("/a/b/free/x.jpg", None),
        ("/a/b/free/x.jpg?v=1", "/a/"),
        ("/ab/x.png", None),
        ("/text/x.jpg", "/text/"),
        ("/b/x.png?v=1", "*.png"),
        ("/A/x.jpg", None),
        ("/50%25%20off/x.jpg", "/50%25%20off"),
        ("/one%23two", "/one#two"),
        ("/one", None),
        *((f"/{name}/x.jpg", None) for name in ("lines", "true", "two", "none", "list")),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_first_rule_of_tdmrep_json_that_matches_counts(
    path: str, location: str | None, encoding: str
) -> None:
    file = opt_outs.parse_tdm_file(json.dumps(TDM).encode(encoding))
    assert file.reserved_by(f"{HOST}{path}") == location


def test_of_a_tdmrep_json_that_was_cut_the_complete_rules_count() -> None:
    rules = [{"location": f"/{name}/", "tdm-reservation": 1} for name in "abc"]
    file = opt_outs.parse_tdm_file(json.dumps(rules).encode()[:-5])
    found = [file.reserved_by(f"{HOST}/{name}/x.jpg") for name in "abc"]
    assert found == ["/a/", "/b/", None]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<!doctype html><title>Shop</title>",
        b'[{"location": "/", "tdm-reservation": 1',
        b'{"location": "/", "tdm-reservation": 1}',
        b'"/"',
        b"\xff\xfe\xff",
        b"[" * 100_000,
        b'[{"location": "/", "tdm-reservation": ' + b"1" * 10_000 + b"}]",
    ],
)
def test_a_file_that_is_not_a_list_of_rules_reserves_nothing(text: bytes) -> None:
    assert opt_outs.parse_tdm_file(text).reserved_by(f"{HOST}/a.jpg") is None
