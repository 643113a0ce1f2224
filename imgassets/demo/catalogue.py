"""The sample catalogue: which retailer lists which products with which pictures, and their files.

Here live the plan (every picture, whether it shows a face, how it is broken), the product
documents as scrapers write them, and the building of the files. How a picture is drawn is in
`drawing` and `figures`; how the files are served is in `server`. Everything follows from the plan
and from the paths, so two builds are the same to the byte.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from bson import ObjectId

from imgassets.demo import drawing, figures
from imgassets.demo.products import PRODUCTS, Colour

DATES = (dt.date(2026, 1, 2), dt.date(2026, 1, 3))
MARKER = ".complete"

_MODULES = ("catalogue", "drawing", "figures", "products")
_JPEG_QUALITY = 90
_HTML = b"<!doctype html><html><title>Access denied</title><body>Are you a robot?</body></html>\n"

Scene = Literal["person", "as taken", "neck down", "no head", "packshot"]
Encoding = Literal["jpeg", "grey jpeg", "png", "png with alpha", "webp"]


class Kind(StrEnum):
    """What a URL of the catalogue leads to."""

    PICTURE = "picture"
    MISSING = "missing"
    """404."""
    HTML = "html"
    """A page that says that it is a JPEG."""
    TRUNCATED = "truncated"
    """A JPEG that ends in the middle."""


@dataclass(frozen=True)
class Retailer:
    """A shop, and how it likes its pictures.

    Attributes:
        name: as scrapers write it.
        folder: of its pictures, in URLs.
        sizes: width and height in pixels.
        backdrops: what its products stand before.
    """

    name: str
    folder: str
    sizes: tuple[tuple[int, int], ...]
    backdrops: tuple[drawing.Backdrop, ...]


RETAILERS = (
    Retailer("Zara", "zara", ((1000, 1500),), ("white", "white", "grey", "gradient")),
    Retailer(
        "Nord & Sol", "nord-sol", ((1000, 1500), (1200, 900)), ("grey", "gradient", "spot", "white")
    ),
    Retailer(
        "Maison Verte", "maison-verte", ((1000, 1500), (800, 800)), ("wall", "white", "gradient")
    ),
    Retailer(
        "Atelier 21",
        "atelier21",
        ((1000, 1500), (1200, 900), (1000, 1500), (800, 800)),
        ("spot", "grey", "wall", "white"),
    ),
)


@dataclass(frozen=True)
class Entry:
    """One URL of the catalogue.

    Attributes:
        path: of the URL, with a slash in front and without a query.
        kind: what it leads to.
        has_face: whether the picture shows one.
        retailer: who lists it.
        date: the day on which it is listed.
        number: of the picture within its retailer; decides on what varies from one to the next.
        product: what is sold, one of `PRODUCTS`.
        scene: how it is shown.
        encoding: how it is stored, whatever the path's suffix says.
    """

    path: str
    kind: Kind
    has_face: bool
    retailer: Retailer
    date: dt.date
    number: int
    product: str
    scene: Scene
    encoding: Encoding


@dataclass(frozen=True)
class _Product:
    retailer: Retailer
    date: dt.date
    index: int
    name: str
    entries: tuple[Entry, ...]


# What the seven products of a retailer's day show: nine faces in 21 pictures.
_SCENES: tuple[tuple[Scene, Scene, Scene], ...] = (
    ("person", "neck down", "packshot"),
    ("person", "person", "packshot"),
    ("person", "no head", "packshot"),
    ("person", "packshot", "person"),
    ("person", "packshot", "neck down"),
    ("as taken", "person", "packshot"),
    ("packshot", "packshot", "packshot"),
)
_NAMES = ("front", "back", "detail")
# (retailer's folder, product, picture): what is not an ordinary JPEG.
_ENCODINGS: dict[tuple[str, int, int], tuple[Encoding, str]] = {
    ("zara", 3, 1): ("png", "jpg"),
    ("nord-sol", 4, 1): ("png with alpha", "png"),
    ("nord-sol", 6, 2): ("png with alpha", "png"),
    ("maison-verte", 1, 0): ("webp", "webp"),
    ("maison-verte", 6, 1): ("webp", "webp"),
    ("atelier21", 2, 0): ("grey jpeg", "jpg"),
    ("atelier21", 4, 1): ("grey jpeg", "jpg"),
}
# (day, product): what is broken, for each retailer.
_BROKEN = {(0, 0): Kind.MISSING, (0, 3): Kind.HTML, (1, 2): Kind.TRUNCATED}

_DYES: tuple[tuple[str, Colour], ...] = (
    ("burgundy", (60, 45, 150)),
    ("navy", (120, 75, 35)),
    ("stone", (150, 160, 168)),
    ("charcoal", (70, 66, 64)),
    ("olive", (60, 115, 105)),
    ("plum", (120, 70, 130)),
    ("camel", (85, 130, 180)),
    ("teal", (135, 120, 40)),
)
_WALLS: tuple[Colour, ...] = ((190, 205, 185), (175, 190, 220), (205, 195, 180), (190, 190, 205))
_PATTERNS: tuple[drawing.Pattern, ...] = ("plain", "plain", "stripes", "plain", "checks")


def expected() -> dict[str, Entry]:
    """What each URL path of the catalogue leads to."""
    return {entry.path: entry for product in _products() for entry in product.entries}


def documents(base_url: str) -> list[dict[str, Any]]:
    """The product documents as scrapers write them, odd ones among them.

    One document has no pictures, one lists a URL twice, one has an entry that is no string, one
    has no `scraped_at` (the time in its `_id` is on one of `DATES`), and for each retailer a
    picture is listed by two products.

    Args:
        base_url: of the server, for example `http://127.0.0.1:8765`.

    Returns:
        Documents with `_id` (ObjectId, always the same), `product_retailer`, `product_images`,
        `scraped_at` (aware, UTC) and `name`.
    """
    found = [
        _document(product, number, base_url.rstrip("/"))
        for number, product in enumerate(_products())
    ]
    by_place = {
        (d["product_retailer"], d["_id"].generation_time.date(), p.index): d
        for d, p in zip(found, _products(), strict=True)
    }
    first, second = DATES
    for retailer in RETAILERS:
        lists = by_place[retailer.name, first, 6]["product_images"]
        lists.append(by_place[retailer.name, first, 5]["product_images"][2])
    repeated = by_place["Nord & Sol", first, 1]["product_images"]
    repeated.append(repeated[0])
    by_place["Maison Verte", second, 2]["product_images"].insert(1, None)
    del by_place["Atelier 21", second, 0]["scraped_at"]
    found.append(
        {
            "_id": _object_id(dt.datetime.combine(first, dt.time(18), dt.UTC), len(found)),
            "product_retailer": "Zara",
            "product_images": [],
            "scraped_at": dt.datetime.combine(first, dt.time(18), dt.UTC),
            "name": "Gift card",
        }
    )
    return found


def build_catalogue(folder: Path, on_progress: Callable[[int, int], None] | None = None) -> None:
    """Write the catalogue's files, unless they are there already.

    Args:
        folder: where a URL's path becomes a file's path; made where it is missing.
        on_progress: called with files written and files in all, from the calling thread.
    """
    entries = [e for e in expected().values() if e.kind is not Kind.MISSING]
    marker = folder / MARKER
    version = _version()
    if (
        marker.is_file()
        and marker.read_text() == version
        and all(_file(folder, entry).is_file() for entry in entries)
    ):
        return
    marker.unlink(missing_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, (entry, data) in enumerate(
            zip(entries, pool.map(_content, entries), strict=True), start=1
        ):
            file = _file(folder, entry)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            if on_progress is not None:
                on_progress(done, len(entries))
    marker.write_text(version)


@cache
def _products() -> tuple[_Product, ...]:
    return tuple(
        _product(retailer, day, index)
        for retailer in RETAILERS
        for day in range(len(DATES))
        for index in range(len(_SCENES))
    )


def _product(retailer: Retailer, day: int, index: int) -> _Product:
    order = day * len(_SCENES) + index + 3 * RETAILERS.index(retailer)
    sold = list(PRODUCTS)[order % len(PRODUCTS)]
    colour, _ = _DYES[order % len(_DYES)]
    return _Product(
        retailer,
        DATES[day],
        index,
        f"{sold.capitalize()}, {colour}",
        tuple(_entries(retailer, day, index, sold)),
    )


def _entries(retailer: Retailer, day: int, index: int, sold: str) -> Iterator[Entry]:
    base = f"/{retailer.folder}/{DATES[day]:%Y/%m/%d}/{day * len(_SCENES) + index:04}"
    number = (day * len(_SCENES) + index) * len(_NAMES)
    for position, (name, scene) in enumerate(zip(_NAMES, _SCENES[index], strict=True)):
        encoding, suffix = _ENCODINGS.get((retailer.folder, index, position), ("jpeg", "jpg"))
        yield Entry(
            path=f"{base}/{name}.{suffix}",
            kind=Kind.PICTURE,
            has_face=scene in {"person", "as taken"},
            retailer=retailer,
            date=DATES[day],
            number=number + position,
            product=sold,
            scene=scene,
            encoding=encoding,
        )
    if broken := _BROKEN.get((day, index)):
        yield Entry(
            path=f"{base}/zoom.jpg",
            kind=broken,
            has_face=False,
            retailer=retailer,
            date=DATES[day],
            number=number,
            product=sold,
            scene="packshot",
            encoding="jpeg",
        )


def _document(product: _Product, number: int, base_url: str) -> dict[str, Any]:
    scraped = dt.datetime.combine(product.date, dt.time(6 + product.index, 30), dt.UTC)
    query = "?w=1000" if product.index % 3 == 1 else ""
    return {
        "_id": _object_id(scraped, number),
        "product_retailer": product.retailer.name,
        "product_images": [f"{base_url}{entry.path}{query}" for entry in product.entries],
        "scraped_at": scraped,
        "name": product.name,
    }


def _object_id(when: dt.datetime, number: int) -> ObjectId:
    return ObjectId(struct.pack(">I", int(when.timestamp())) + b"smple" + number.to_bytes(3, "big"))


def _file(folder: Path, entry: Entry) -> Path:
    return folder / entry.path.removeprefix("/")


@cache
def _version() -> str:
    """Changes with anything that the files are made of."""
    modules = [Path(__file__).with_name(f"{name}.py") for name in _MODULES]
    digest = hashlib.sha256()
    for source in [*modules, *sorted(figures.PHOTOS.iterdir())]:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _content(entry: Entry) -> bytes:
    """The bytes that are served; `entry` is not one that is missing."""
    if entry.kind is Kind.HTML:
        return _HTML
    rng = np.random.default_rng(zlib.crc32(entry.path.encode()))
    pixels, mask = _scene(entry, rng)
    data = _encoded(pixels, mask, entry.encoding)
    return data[: len(data) * 2 // 5] if entry.kind is Kind.TRUNCATED else data


def _scene(entry: Entry, rng: np.random.Generator) -> tuple[drawing.Pixels, drawing.Mask | None]:
    """The picture, and where the product is if it was drawn."""
    retailer, number = entry.retailer, entry.number
    # Numbers of the shots of a product follow each other: what varies by shot must not all have
    # the same period.
    width, height = retailer.sizes[(number // 2) % len(retailer.sizes)]
    person = figures.PEOPLE[
        (number + number // 4 + RETAILERS.index(retailer)) % len(figures.PEOPLE)
    ]
    _, dye = _DYES[(number // 3 + 3 * RETAILERS.index(retailer)) % len(_DYES)]
    if entry.encoding == "png with alpha":
        width, height = 800, 800

    if entry.scene == "as taken":
        return _maybe_mirrored(figures.as_taken(person, 1000, 1500), rng), None

    kind = retailer.backdrops[(number + number // 5) % len(retailer.backdrops)]
    picture = drawing.backdrop(kind, width, height, _WALLS[number % len(_WALLS)], rng)
    shadow = 0.0 if kind == "white" else float(rng.uniform(0.12, 0.25))
    if entry.scene == "packshot":
        return picture, drawing.draw_product(
            picture,
            entry.product,
            dye,
            _PATTERNS[number % len(_PATTERNS)],
            rng=rng,
            fill=float(rng.uniform(0.5, 0.78)),
        )
    if entry.scene == "person":
        share = rng.uniform(0.075, 0.2) if height > width else rng.uniform(0.15, 0.22)
        figures.set_before(picture, person, float(share), dye, shadow=shadow)
    elif entry.scene == "neck down":
        figures.set_from_neck_down(picture, person, dye, shadow=shadow)
    else:
        fill = float(rng.uniform(0.6, 0.85))
        figures.set_without_head(picture, fill, dye, shadow=shadow)
    return _maybe_mirrored(picture, rng), None


def _maybe_mirrored(picture: drawing.Pixels, rng: np.random.Generator) -> drawing.Pixels:
    return np.ascontiguousarray(picture[:, ::-1]) if rng.random() < 0.5 else picture


def _encoded(pixels: drawing.Pixels, mask: drawing.Mask | None, encoding: Encoding) -> bytes:
    options: list[int] = []
    if encoding == "webp":
        suffix, options = ".webp", [cv2.IMWRITE_WEBP_QUALITY, _JPEG_QUALITY]
    elif encoding in {"jpeg", "grey jpeg"}:
        suffix, options = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        if encoding == "grey jpeg":
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY).astype(np.uint8)
    else:
        suffix = ".png"
        if encoding == "png with alpha":
            if mask is None:
                raise ValueError("only a drawn product knows where it is transparent")
            # As exporters write it: black where nothing is seen.
            pixels = np.dstack([np.where(mask[..., None] > 0, pixels, 0), mask]).astype(np.uint8)
    written, data = cv2.imencode(suffix, pixels, options)
    if not written:
        raise ValueError(f"OpenCV cannot write {suffix}")
    return data.tobytes()
