"""Build the sample catalogue: product documents of four retailers, and their image files.

This module has the plan (every image, whether it shows a face, how it is broken), the product
documents in the form in which scrapers write them, and the build of the files. Drawing is in
`drawing` and `people`; serving is in `server`. Everything is derived from the plan and the paths,
so two builds produce the same bytes.
"""

from __future__ import annotations

import datetime as dt
import hashlib
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

from imgassets.cores import available_cores
from imgassets.demo import drawing, people
from imgassets.demo.products import PRODUCTS, Colour

DATES = (dt.date(2026, 1, 2), dt.date(2026, 1, 3))
MARKER = ".complete"

_MODULES = ("catalogue", "drawing", "people", "products")
_JPEG_QUALITY = 90
_HTML = b"<!doctype html><html><title>Access denied</title><body>Are you a robot?</body></html>\n"

Scene = Literal[
    "person",
    "tilted head",
    "cut face",
    "as taken",
    "neck down",
    "no head",
    "packshot",
    "printed face",
]
Encoding = Literal["jpeg", "grey jpeg", "png", "png with alpha", "webp"]


class Kind(StrEnum):
    """What the server answers for a URL of the catalogue."""

    IMAGE = "image"
    MISSING = "missing"
    """Status 404."""
    HTML = "html"
    """An HTML page with the content type of a JPEG."""
    TRUNCATED = "truncated"
    """A JPEG that is cut off."""


@dataclass(frozen=True)
class Retailer:
    """A shop and the style of its images.

    Attributes:
        name: Name as scrapers write it.
        folder: Folder of its images in URL paths.
        sizes: Width and height of its images in pixels, used in turn.
        backdrops: Backgrounds of its images, used in turn.
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
        path: Path of the URL, with a leading slash and without the query.
        kind: What the server answers.
        has_face: Whether the image shows the face of a person, whole or cut by the image's upper
            edge. A face printed on a T-shirt (scene `printed face`) is part of the product, which
            is kept whole.
        retailer: Retailer that lists it.
        date: Date on which it is listed.
        number: Number of the image within its retailer; varies size, person, colour and backdrop.
        product: Name of the product, one of `PRODUCTS`.
        scene: What the image shows.
        encoding: Encoding of the file, which may differ from the path's suffix.
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


# Scenes of the seven products of a retailer's day. Each day has the hard kinds: a face of which the
# upper edge of the image leaves only mouth and chin, an inclined head, a face printed on a T-shirt.
# There is no profile, because none of the photographs shows one.
_SCENES: tuple[tuple[Scene, Scene, Scene], ...] = (
    ("person", "neck down", "packshot"),
    ("person", "cut face", "packshot"),
    ("person", "no head", "printed face"),
    ("person", "packshot", "person"),
    ("tilted head", "packshot", "neck down"),
    ("as taken", "person", "packshot"),
    ("packshot", "packshot", "packshot"),
)
_WITH_FACE: frozenset[Scene] = frozenset({"person", "tilted head", "cut face", "as taken"})
_NAMES = ("front", "back", "detail")
# (retailer's folder, product, image) -> encoding and suffix, if not an ordinary JPEG.
_ENCODINGS: dict[tuple[str, int, int], tuple[Encoding, str]] = {
    ("zara", 3, 1): ("png", "jpg"),
    ("nord-sol", 4, 1): ("png with alpha", "png"),
    ("nord-sol", 6, 2): ("png with alpha", "png"),
    ("maison-verte", 1, 0): ("webp", "webp"),
    ("maison-verte", 6, 1): ("webp", "webp"),
    ("atelier21", 2, 0): ("grey jpeg", "jpg"),
    ("atelier21", 4, 1): ("grey jpeg", "jpg"),
}
# (day, product) -> what is broken, the same for each retailer.
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
    """The entries of the catalogue by URL path."""
    return {entry.path: entry for product in _products() for entry in product.entries}


def documents(base_url: str) -> list[dict[str, Any]]:
    """Create the product documents in the form in which scrapers write them, with edge cases.

    One document has no images, one lists a URL twice, one has an entry that is not a string, one
    has no `scraped_at` (the time in its `_id` is on one of `DATES`), and one image of each retailer
    is listed by two products.

    Args:
        base_url: Address of the server, for example `http://127.0.0.1:8765`.

    Returns:
        Documents with `_id` (ObjectId, the same at each call), `product_retailer`,
        `product_images`, `scraped_at` (aware, UTC) and `name`.
    """
    result = [
        _document(product, number, base_url.rstrip("/"))
        for number, product in enumerate(_products())
    ]
    by_product = {
        (d["product_retailer"], d["_id"].generation_time.date(), p.index): d
        for d, p in zip(result, _products(), strict=True)
    }
    first, second = DATES
    for retailer in RETAILERS:
        lists = by_product[retailer.name, first, 6]["product_images"]
        lists.append(by_product[retailer.name, first, 5]["product_images"][2])
    repeated = by_product["Nord & Sol", first, 1]["product_images"]
    repeated.append(repeated[0])
    by_product["Maison Verte", second, 2]["product_images"].insert(1, None)
    del by_product["Atelier 21", second, 0]["scraped_at"]
    result.append(
        {
            "_id": _object_id(dt.datetime.combine(first, dt.time(18), dt.UTC), len(result)),
            "product_retailer": "Zara",
            "product_images": [],
            "scraped_at": dt.datetime.combine(first, dt.time(18), dt.UTC),
            "name": "Gift card",
        }
    )
    return result


def build_catalogue(folder: Path, on_progress: Callable[[int, int], None] | None = None) -> None:
    """Write the files of the catalogue, unless they exist and are up to date.

    Args:
        folder: Root folder of the files, whose paths are the URL paths; created if missing.
        on_progress: Called in the calling thread with the number of files written and the total.
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
    with ThreadPoolExecutor(available_cores()) as pool:
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
    if "printed face" in _SCENES[index]:
        sold = "t-shirt"
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
            kind=Kind.IMAGE,
            has_face=scene in _WITH_FACE,
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
    """A hash of the source code and the photographs that the files are made from."""
    modules = [Path(__file__).with_name(f"{name}.py") for name in _MODULES]
    digest = hashlib.sha256()
    for source in [*modules, *sorted(people.PHOTOS.iterdir())]:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _content(entry: Entry) -> bytes:
    """The bytes of a file; `entry.kind` is not `MISSING`."""
    if entry.kind is Kind.HTML:
        return _HTML
    rng = np.random.default_rng(zlib.crc32(entry.path.encode()))
    pixels, mask = _scene(entry, rng)
    data = _encoded(pixels, mask, entry.encoding)
    return data[: len(data) * 2 // 5] if entry.kind is Kind.TRUNCATED else data


def _scene(entry: Entry, rng: np.random.Generator) -> tuple[drawing.Pixels, drawing.Mask | None]:
    """Draw the image; the mask is that of the product if it was drawn, else None."""
    retailer, number = entry.retailer, entry.number
    # The images of a product have consecutive numbers, so size, person, colour and backdrop vary
    # with different periods: otherwise the same combinations would repeat.
    width, height = retailer.sizes[(number // 2) % len(retailer.sizes)]
    turn = number + number // 4 + RETAILERS.index(retailer)
    person = people.PEOPLE[turn % len(people.PEOPLE)]
    _, dye = _DYES[(number // 3 + 3 * RETAILERS.index(retailer)) % len(_DYES)]
    if entry.encoding == "png with alpha":
        width, height = 800, 800

    if entry.scene == "as taken":
        return _maybe_mirrored(people.as_taken(person, 1000, 1500), rng), None

    kind = retailer.backdrops[(number + number // 5) % len(retailer.backdrops)]
    image = drawing.backdrop(kind, width, height, _WALLS[number % len(_WALLS)], rng)
    shadow = 0.0 if kind == "white" else float(rng.uniform(0.12, 0.25))
    if entry.scene == "printed face":
        fill = float(rng.uniform(0.7, 0.9))
        print_ = people.portrait(person)
        drawing.draw_product(image, entry.product, dye, "plain", rng=rng, fill=fill, picture=print_)
        return image, None
    if entry.scene == "packshot":
        return image, drawing.draw_product(
            image,
            entry.product,
            dye,
            _PATTERNS[number % len(_PATTERNS)],
            rng=rng,
            fill=float(rng.uniform(0.5, 0.78)),
        )
    if entry.scene in {"person", "tilted head"}:
        tilt = float(rng.uniform(25, 30)) if entry.scene == "tilted head" else 0.0
        smallest = 0.1 if tilt else 0.075
        share = rng.uniform(smallest, 0.2) if height > width else rng.uniform(0.15, 0.22)
        people.place_person(image, person, float(share), dye, shadow=shadow, tilt=tilt)
    elif entry.scene == "cut face":
        person = people.STANDING[turn % len(people.STANDING)]
        # Between the eyes and the mouth, at about 0.4 and 0.8 of the face.
        row = person.face_top + round(float(rng.uniform(0.45, 0.52)) * person.face_height)
        people.place_below(image, person, row, dye, shadow=shadow)
    elif entry.scene == "neck down":
        people.place_below(image, person, person.chin, dye, shadow=shadow)
    else:
        fill = float(rng.uniform(0.6, 0.85))
        people.place_suit_without_head(image, fill, dye, shadow=shadow)
    return _maybe_mirrored(image, rng), None


def _maybe_mirrored(image: drawing.Pixels, rng: np.random.Generator) -> drawing.Pixels:
    return np.ascontiguousarray(image[:, ::-1]) if rng.random() < 0.5 else image


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
                raise ValueError("PNG with alpha needs a mask, which only drawn products have")
            # Transparent pixels are black, as most exporters write them.
            pixels = np.dstack([np.where(mask[..., None] > 0, pixels, 0), mask]).astype(np.uint8)
    written, data = cv2.imencode(suffix, pixels, options)
    if not written:
        raise ValueError(f"OpenCV cannot write {suffix}")
    return data.tobytes()
