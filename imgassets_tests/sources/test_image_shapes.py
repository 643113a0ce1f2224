"""The shapes in which documents hold image URLs, through a real MongoDB and through JSON Lines."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from pymongo import MongoClient

from imgassets.settings import SourceSettings
from imgassets.sources.files import file_records
from imgassets.sources.listing import Listing
from imgassets.sources.mongodb import MongoSource
from imgassets.sources.table import TableSource

START = dt.date(2026, 1, 1)
A, B, C = "https://shop/a.jpg", "https://shop/b.jpg", "https://shop/c.jpg"
CLOUD = "https://res.cloudinary.com/x/w_500,h_300/a.jpg"
CLOUD_2 = "https://res.cloudinary.com/x/w_500,h_300/b.jpg"
SHOP = "https://www.zara.com/de/"


class Shape(NamedTuple):
    """A document, settings of `source`, and the expected URLs with positions and anomalies."""

    document: dict[str, Any]
    urls: list[str]
    settings: Mapping[str, Any] = MappingProxyType({})
    anomalies: Mapping[str, int] = MappingProxyType({})
    positions: list[int] | None = None


def images(value: object, urls: list[str], **more: Any) -> Shape:
    return Shape({"product_images": value}, urls, **more)


def at(path: str | list[str], document: dict[str, Any], urls: list[str], **more: Any) -> Shape:
    return Shape(document, urls, {"fields": {"images": path}}, **more)


def page(*nodes: dict[str, Any]) -> dict[str, Any]:
    return {"@context": "https://schema.org", "@graph": list(nodes)}


PRODUCT = {"@type": "Product", "url": "https://shop/page", "image": [A, B]}
OTHER_NODE = {"@type": "BreadcrumbList", "url": "https://shop/list", "name": "Jeans"}

SHAPES = {
    # lists and objects
    "list": images([A, B], [A, B]),
    "one-text": images(A, [A]),
    "lists-of-lists": images([[A], [[B, [C]]]], [A, B, C]),
    "list-of-objects": images([{"src": A, "alt": "front"}, {"src": B, "alt": None}], [A, B]),
    "one-object": images({"url": A, "width": 500}, [A]),
    "object-of-urls": images({"front": A, "back": B}, [A, B]),
    "object-of-lists": images({"red": [A, B], "blue": [C]}, [A, B, C]),
    "object-of-objects": images({"red": {"front": {"url": A}}, "blue": {"front": B}}, [A, B]),
    "object-with-other-fields": images({"image_1": A, "image_2": B, "alt": "x", "n": 2}, [A, B]),
    "object-with-image-and-page": images([{"url": "https://shop/page", "image": A}], [A]),
    "lazy-loaded-beside-a-file": images({"src": "/blank.gif", "data-lazy-src": A}, [A]),
    "html-lazy-loaded": images(f'<img src="/blank.gif" data-original="{A}">', [A]),
    "image-link-and-page": images([{"imageLink": A, "link": "https://shop/page"}], [A]),
    "image-that-is-no-url": images([{"image": 5, "src": A}, {"image": {"alt": "x"}, "url": B}],
                                   [A, B]),
    "xml": images({"img": [{"@url": A, "#text": "front"}, {"@href": B}]}, [A, B]),
    "microdata": images({"type": "http://schema.org/ImageObject", "properties": {"url": A}}, [A]),
    "urls-as-names": images({A: [500, 500], B: [300, 300]}, [A, B]),
    "lazy-loaded": images({"src": "data:image/gif;base64,R0l", "data-src": A}, [A]),
    "content-url": images({"@id": "https://x", "url": "https://p", "contentUrl": A}, [A]),
    "texts-and-objects": images([A, {"url": B}, [C]], [A, B, C]),
    "object-without-url": images([{"alt": "front"}, A], [A], anomalies={"non_string_url": 1}),
    "empty-list": images([], [], anomalies={"no_images": 1}),
    "empty-lists": images([[], [[]], {}], [], anomalies={"no_images": 1}),
    "number": images(3, [], anomalies={"no_images": 1}),
    "missing": Shape({}, [], anomalies={"no_images": 1}),
    # paths
    "nested-lists-on-the-path": at(
        "variants.images.src",
        {"variants": [{"images": [{"src": A}, {"src": B}]}, {}, {"images": {"src": C}}]},
        [A, B, C],
    ),
    "lists-at-the-end": at("items.image", {"items": [{"image": [A]}, {"image": B}]}, [A, B]),
    "texts-and-objects-on-the-path": at("media.url", {"media": [A, {"url": B}, "red"]}, [A, B]),
    "empty-objects-on-the-path": at(
        "media.url",
        {"media": [{"url": None}, {}, {"url": A}]},
        [A],
        positions=[0],
    ),
    "index": at("images.0.src", {"images": [{"src": A}, {"src": B}]}, [A]),
    "index-at-the-end": at("images.1", {"images": [A, B]}, [B]),
    "index-out-of-range": at("images.5", {"images": [A]}, [], anomalies={"no_images": 1}),
    "index-as-a-name": at("images.0", {"images": {"0": A, "1": B}}, [A]),
    "name-with-dots": at("image.link", {"image.link": A}, [A]),
    "name-with-dots-inside": at("media.image.url", {"media": {"image.url": [A]}}, [A]),
    "name-with-dots-outside": at("og.image.url", {"og.image": {"url": A}}, [A]),
    "several-paths": at(
        ["image_link", "additional_image_link"],
        {"image_link": A, "additional_image_link": [B, C]},
        [A, B, C],
    ),
    "several-paths-one-missing": at(["image_link", "more.url"], {"more": [{"url": B}]}, [B]),
    "several-paths-one-image": at(
        ["main", "all"], {"main": A, "all": [A, B]}, [A, B], anomalies={"duplicate_url": 1}
    ),
    "several-paths-all-missing": at(["x", "y"], {}, [], anomalies={"no_images": 1}),
    "list-of-one-path": at(["pics"], {"pics": [A]}, [A]),
    "path-into-a-text": at("media.url", {"media": "x"}, [], anomalies={"no_images": 1}),
    "path-into-a-url": at("media.url", {"media": A}, [A]),
    "path-into-json": at("media.large", {"media": json.dumps([{"thumb": B, "large": A}])}, [A]),
    # JSON-LD
    "graph": at("jsonld.image", {"jsonld": page(OTHER_NODE, PRODUCT)}, [A, B]),
    "graph-in-the-path": at("jsonld.@graph.image", {"jsonld": page(OTHER_NODE, PRODUCT)}, [A, B]),
    "graph-in-a-text": at("ld.image", {"ld": json.dumps(page(OTHER_NODE, PRODUCT))}, [A, B]),
    "graph-at-the-end": at("jsonld", {"jsonld": page(OTHER_NODE, PRODUCT)}, [A, B]),
    "graph-as-text": at("jsonld", {"jsonld": json.dumps(page(OTHER_NODE, PRODUCT))}, [A, B]),
    "document-is-a-graph": at("image", page(OTHER_NODE, PRODUCT), [A, B]),
    "image-objects": at(
        "ld.image", {"ld": [{"image": {"@type": "ImageObject", "contentUrl": A, "url": "p"}}]}, [A]
    ),
    # lists in a text
    "json": images(json.dumps([A, B]), [A, B]),
    "json-of-objects": images(json.dumps([{"src": A}, {"src": B}]), [A, B]),
    "json-object": images(json.dumps({"front": A, "back": [B]}), [A, B]),
    "json-twice": images(json.dumps(json.dumps([A, B])), [A, B]),
    "json-text": images(json.dumps(A), [A]),
    "json-with-entities": images("[&quot;https://shop/a.jpg&quot;]", [A]),
    "json-in-a-list": images([json.dumps([A]), B], [A, B]),
    "json-empty": images("[]", [], anomalies={"no_images": 1}),
    "python-repr": images(repr([A, B]), [A, B]),
    "python-tuple": images(repr((A, None)), [A], anomalies={"non_string_url": 1}),
    "python-dictionary": images(repr({"front": A, "alt": None}), [A]),
    "numpy-list": images(f"['{A}' '{B}']", [A, B]),
    "brackets-without-quotes": images(f"[{A}, {B}]", [A, B]),
    "postgres-array": images(f"{{{A},{B}}}", [A, B]),
    "commas": images(f"{A},{B}, {C}", [A, B, C]),
    "spaces": images(f" {A} {B}\t{C} ", [A, B, C]),
    "lines": images(f"{A}\r\n{B}\n\n{C}\n", [A, B, C]),
    "leading-separator": images(f", {A}, {B}", [A, B]),
    "bars": images(f"{A}|{B} | {C}|", [A, B, C]),
    "semicolons": images(f"{A};{B}; //cdn.shop/c.jpg", [A, B, "//cdn.shop/c.jpg"]),
    "commas-inside": images(f"{CLOUD},{CLOUD_2}", [CLOUD, CLOUD_2]),
    "one-url-with-commas": images(CLOUD, [CLOUD]),
    "one-url-with-spaces": images("https://s/red shirt, a.jpg", ["https://s/red shirt, a.jpg"]),
    "one-url-with-a-bar": images(f"{A}?imageMogr2/thumbnail/400x|imageslim",
                                 [f"{A}?imageMogr2/thumbnail/400x|imageslim"]),
    "one-url-with-two-slashes": images("https://s/a;//b.jpg", ["https://s/a;//b.jpg"]),
    "one-url-inside-another": images(
        "https://proxy/w_1,h_2/https://shop/a.jpg", ["https://proxy/w_1,h_2/https://shop/a.jpg"]
    ),
    "list-in-a-list": images([f"{A},{B}", C], [A, B, C], positions=[0, 1, 2]),
    "separator": images("/a.jpg, /b.jpg,", [f"{SHOP[:-4]}/a.jpg", f"{SHOP[:-4]}/b.jpg"], settings={
        "separator": ",", "base_url": SHOP,
    }),
    "separator-and-entities": images(
        "https://s/a?x=1&amp;y=2;https://s/b", ["https://s/a?x=1&y=2", "https://s/b"],
        settings={"separator": ";"},
    ),
    "separator-of-several-characters": images(f"{A} ## {B}", [A, B], settings={"separator": "##"}),
    # srcset
    "srcset-densities": images(f"{A} 1x, {B} 2x, {C} 1.5x", [B]),
    "srcset-widths": images(f"{A} 480w,{B} 1200w, {C} 800w", [B]),
    "srcset-without-descriptor": images(f"{A}, {B} 2x", [B]),
    "srcset-commas-inside": images(f"{CLOUD} 300w, {CLOUD_2} 600w", [CLOUD_2]),
    "srcset-one": images(f"{A} 1x", [A]),
    "srcset-relative": images("a.jpg 1x, b.jpg 2x", [f"{SHOP}b.jpg"], settings={"base_url": SHOP}),
    "srcset-in-a-list": images([f"{A} 1x, {B} 2x", C], [B, C]),
    "srcset-split-at-its-commas": images([f"{A} 1x", f" {B} 2x,", f"{C} 1.5x"], [B]),
    "srcsets-of-one-image": images([f"{A} 1x", f"{B} 1x"], [A, B]),
    "srcset-upper-case": images(f"{A} 1X, {B} 2X", [B]),
    # texts that are neither URLs nor JSON
    "escaped-slashes": images(A.replace("/", r"\/") + "," + B.replace("/", r"\u002F"), [A, B]),
    "python-repr-with-an-object": images(f"[{{'url': '{A}', 'id': ObjectId('65')}}]", [A]),
    "array-repr": images(f"array(['{A}', '{B}'], dtype=object)", [A, B]),
    "list-cut-off": images(f"['{A}', '{B}', 'htt", [A, B]),
    "json-with-a-trailing-comma": images(f'["{A}", null, ]', [A]),
    "json-in-lines": images(f'{{"src": "{A}"}}\n{{"src": "{B}"}}', [A, B]),
    "json-after-a-byte-order-mark": images("\ufeff" + json.dumps([A]), [A]),
    "html": images(f'<a href="https://shop/page"><img alt="" src="{A}?a=1&amp;b=2"/></a>',
                   [f"{A}?a=1&b=2"]),
    "html-with-a-srcset": images(f'<img class="x" srcset="{A} 1x, {B} 2x" src="{C}">', [C]),
    "html-relative": images('<img src="/a.jpg">', ["https://www.zara.com/a.jpg"],
                            settings={"base_url": SHOP}),
    "css": images(f"background-image: url({A})", [A]),
    "markdown": images(f"![front]({A})", [A]),
    "labelled": images(f"Image: {A}", [A]),
    "labels-and-commas": images(f"front:{CLOUD},side view: {B}", [CLOUD, B]),
    "object-of-java": images(f"[{{src={A}, alt=red shirt}}, {{src={B}, alt=}}]", [A, B]),
    "labels-between-urls": images(f"Image URL: {A}|Image Alt: red|Image URL: {B}|", [A, B]),
    "yaml-list": images(f"- src: {A}\n  alt: red\n- src: {B}", [A, B]),
    "remarks": images(f"{A} ! alt : x/y ! title : a.jpg | {B} ! alt : ", [A, B]),
    "words-between-urls": images(f"{A} and {B}", [A, B]),
    "name-with-a-dot-and-spaces": images("https://s/a.jpg copy.jpg", ["https://s/a.jpg copy.jpg"]),
    "separator-at-the-end": images([f"{A},", f"{B}; ", f"{C}|"], [A, B, C]),
    "breaks-of-html": images(f"{A}<br>{B}<br />\n{C}<br>", [A, B, C]),
    "escaped-line-breaks": images(rf"{A}\n{B}\r\n{C}", [A, B, C]),
    "twice-escaped": images(A.replace("/", r"\\/") + r"?a\u003d1\u0026b=2", [f"{A}?a=1&b=2"]),
    "encoded-url": images("https%3A%2F%2Fshop%2Fa%2520b.jpg", ["https://shop/a%20b.jpg"],
                          settings={"base_url": SHOP}),
    "list-of-scala": images(f"WrappedArray({A}, {B})", [A, B]),
    "files-and-commas": images("/a.jpg, /b.jpg?v=1,c.png", [f"{SHOP[:-4]}/a.jpg",
                               f"{SHOP[:-4]}/b.jpg?v=1", f"{SHOP}c.png"],
                               settings={"base_url": SHOP}),
    "file-with-a-comma": images("/red, blue.jpg", [f"{SHOP[:-4]}/red, blue.jpg"],
                                settings={"base_url": SHOP}),
    "css-in-html": images(f'<div style="background-image:url(&quot;{A}&quot;)">', [A]),
    "dash-and-anchor": images(["\u2014", "#front"], [], anomalies={"placeholder_url": 2},
                              settings={"base_url": SHOP}),
    "typographic-quotes": images(f"\u201e{A}\u201c, \u00ab{B}\u00bb", [A, B]),
    "svg-inline": images("<svg viewBox='0 0 1 1'><path d='M0'/></svg>", [],
                         anomalies={"placeholder_url": 1}, settings={"base_url": SHOP}),
    "wide-commas": images(f"{A}，{B}、{C}", [A, B, C]),  # noqa: RUF001
    "null-after-a-url": images(f"{A}, N/A", [A], anomalies={"placeholder_url": 1}),
    "null-between-urls": images(f"{A}|null|{B}", [A, B], anomalies={"placeholder_url": 1}),
    "words": images(["No image", "coming soon", A], [A], anomalies={"placeholder_url": 2},
                    settings={"base_url": SHOP}),
    "one-word-with-a-base": images("p12345", [f"{SHOP}p12345"], settings={"base_url": SHOP}),
    "placeholders-of-tools": images(
        ["#N/A", "<NA>", "NaT", r"\N", "(null)", "n.a.", "false", "0", "None,None"], [],
        anomalies={"placeholder_url": 10}, settings={"base_url": SHOP},
    ),
    "object-with-a-title": images({"original": A, "title": "front.jpg"}, [A]),
    "object-of-file-names": images({"front": "front.jpg"}, [f"{SHOP}front.jpg"],
                                   settings={"base_url": SHOP}),
    "json-ld-list": images({"@list": [A, {"@value": B}]}, [A, B]),
    "graph-with-references": at(
        "ld.image",
        {"ld": page({"@type": "Organization", "image": {"@id": "#logo"}},
                    {"@type": ["Product"], "image": [{"@id": "#a"}, B]},
                    {"@type": "ImageObject", "@id": "#a", "url": A})},
        [A, B],
    ),
    # single URLs
    "invisible-characters": images(["\u200b" + A, f"{B}\ufeff"], [A, B]),
    "no-scheme-and-no-slashes": images(
        ["www.shop.de/a.jpg", "images.shop.com:8443/a/b", "folder.old/a.jpg"],
        ["https://www.shop.de/a.jpg", "https://images.shop.com:8443/a/b",
         f"{SHOP}folder.old/a.jpg"],
        settings={"base_url": SHOP},
    ),
    "half-characters-in-json": images('["https://shop/\\ud83d.jpg"]', ["https://shop/\ufffd.jpg"]),
    "no-scheme": images(["//cdn.shop/a.jpg"], ["//cdn.shop/a.jpg"]),
    "no-scheme-with-a-base": images(
        ["//cdn.shop/a.jpg"], ["http://cdn.shop/a.jpg"], settings={"base_url": "http://shop"}
    ),
    "entity": images([f"{A}?x=1&amp;y=2"], [f"{A}?x=1&amp;y=2"]),
    "relative": images(["/a.jpg", A], ["/a.jpg", A], anomalies={"relative_url": 1}),
    "relative-with-a-base": images(
        ["/a.jpg", "b.jpg", A],
        ["https://www.zara.com/a.jpg", f"{SHOP}b.jpg", A],
        settings={"base_url": SHOP},
    ),
    "relative-with-a-base-of-the-retailer": images(
        "/a.jpg",
        ["https://mine/a.jpg"],
        settings={
            "base_url": {
                "relative-with-a-base-of-the-retailer": "https://mine", "zara": "https://other"
            }
        },
    ),
    "relative-with-a-base-of-another": images(
        "/a.jpg", ["/a.jpg"], settings={"base_url": {"zara": SHOP}}, anomalies={"relative_url": 1}
    ),
    "malformed-with-a-base": images(["//[a/b.jpg"], ["//[a/b.jpg"], settings={"base_url": SHOP}),
    "placeholders": images(
        ["N/A", A, "null", "-", "None", "data:image/png;base64,AAAA", "blob:https://a/1", B,
         "about:blank", "#"],
        [A, B],
        anomalies={"placeholder_url": 8},
        positions=[1, 7],
        settings={"base_url": SHOP},
    ),
    "placeholder-alone": images("N/A", [], anomalies={"placeholder_url": 1}),
    "data-and-separator": images(
        "data:image/png;base64,AAAA", [], anomalies={"placeholder_url": 1},
        settings={"separator": ","},
    ),
    "empty-entries": images(
        ["", None, " ", A, 7, True], [A], anomalies={"non_string_url": 5}, positions=[3]
    ),
    "empty-text": images("", [], anomalies={"non_string_url": 1}),
    "twice": images([A, B, f" {A} "], [A, B], anomalies={"duplicate_url": 1}),
}  # fmt: skip


def stored(name: str) -> dict[str, Any]:
    """The document of a shape; its name is the retailer, so that each is a partition."""
    return {"_id": name, "product_retailer": name, **SHAPES[name].document}


@pytest.fixture(scope="module")
def database(mongodb_uri: str) -> Iterator[str]:
    name = "test_image_shapes"
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        noon = dt.datetime(2026, 1, 2, 12)
        client[name]["products"].insert_many([{**stored(s), "scraped_at": noon} for s in SHAPES])
        yield name
        client.drop_database(name)


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("feed") / "items.jl"
    lines = (json.dumps({**stored(name), "scraped_at": "2026-01-02"}) for name in SHAPES)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def check(listing: Listing, shape: Shape) -> None:
    assert [row.url for row in listing.rows] == shape.urls
    assert {str(kind): count for kind, count in listing.report.counts.items()} == shape.anomalies
    if shape.positions is not None:
        assert [row.position for row in listing.rows] == shape.positions


@pytest.mark.parametrize("name", SHAPES)
def test_urls_are_found_in_documents_of_mongodb(mongodb_uri: str, database: str, name: str) -> None:
    shape = SHAPES[name]
    settings = SourceSettings.model_validate({"database": database, **shape.settings})
    check(MongoSource(mongodb_uri, settings, START).listing("2026-01-02", name), shape)


@pytest.mark.parametrize("name", SHAPES)
def test_urls_are_found_in_lines_of_json(feed: Path, name: str) -> None:
    shape = SHAPES[name]
    options = {"kind": "jsonl", "path": str(feed), **shape.settings}
    settings = SourceSettings.model_validate(options)
    source = TableSource(file_records(settings), settings, START)
    check(source.listing("2026-01-02", name), shape)
