"""The images of reports, small enough for Dagster's event log.

A report stores at most about 45 kB: `SHEET_BYTES` and `HEAT_MAP_BYTES`, and the texts.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from imgassets.manifests import ProcessedRow
from imgassets.markdown import inline_image, inline_svg
from imgassets.reports.day import Day, RetailerDay
from imgassets.review.drawing import TEXT_COLOUR, Pair, caption, draw_sheet, load_pair
from imgassets.review.layout import Layout
from imgassets.storage import Storage
from imgassets.thumbnails import encode_webp

_Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

SHEET_BYTES, HEAT_MAP_BYTES = 17_000, 12_000

_LAYOUT = Layout(cell=(76, 114), pairs=4, gap=4, caption=26, font_size=None, max_key_length=40)
# WebP quality and number of images, best first.
_SIZES = ((60, 12), (40, 12), (50, 9), (40, 9), (30, 9), (20, 9), (10, 9), (0, 9), (0, 6))

_BACKGROUND = (255, 255, 255)
_NOTHING, _MISSING = (232, 234, 238), (60, 64, 72)
# Lower bound of the success rate by colour.
_RATES = (
    (0.99, (38, 145, 84)),
    (0.9, (136, 196, 110)),
    (0.5, (245, 196, 66)),
    (0.2, (236, 131, 50)),
    (0.0, (205, 52, 52)),
)
# Of the heat map, in px. The page shows images that are up to 760 px wide in their own size.
_MAP_WIDTH, _MAP_TOP, _NAME_WIDTH, _GAP = 760, 40, 156, 14
_LINE = 12  # as in `_STYLE`
_MAX_NAME = 32  # characters
# Up to so many retailers are in one column; more are in two.
_ONE_COLUMN = 50
_SMALL_COLUMNS, _SMALL_CELL = 4, (6, 4)
_STYLE = (
    "svg{background:white}"  # the page can be dark
    "text{font:10px sans-serif}"
    "pre{margin:0;font:10px/12px sans-serif;overflow:hidden;text-overflow:ellipsis}"
)

_FONT_SIZE = 10
_CHART = (760, 180)  # px
_CHART_LEFT, _CHART_TOP, _CHART_BOTTOM = 44, 20, 18  # px
_NEW, _REUSED = (70, 120, 190), (176, 200, 230)


def doubtful_sheet(
    rows: Sequence[ProcessedRow], storage: Storage, *, hide_faces: Callable[[str], bool]
) -> str:
    """Draw images of several retailers as an inline image; the captions name the retailers.

    Args:
        rows: Rows of `processed_images`, most doubtful first.
        storage: The storage of the images.
        hide_faces: Returns whether detected faces of a retailer are pixelated.

    Returns:
        Markdown of at most `SHEET_BYTES`.

    Raises:
        StorageError: An image cannot be read.
    """
    pairs = [_pair(row, storage, hide_faces(row.retailer)) for row in rows]
    # As text of an SVG: drawn captions take 40 % of the bytes, and are not readable in low quality.
    captions = [
        _lines(caption(pair.row, _LAYOUT.max_key_length).split("\n"), x, y + _LAYOUT.cell[1], 156)
        for pair, (x, y) in zip(pairs, map(_LAYOUT.corner, range(len(pairs))), strict=True)
    ]
    for quality, number in _SIZES:
        image, _ = draw_sheet(pairs[:number], _LAYOUT)
        photos = f"<image href='{_address(encode_webp(image, quality))}'/>"
        text = _svg(image.size, photos, *captions[:number])
        if len(text) <= SHEET_BYTES:
            return text
    return "too large to be shown here"


def heat_map(days: Mapping[str, Day], dates: Sequence[str]) -> str:
    """Draw the success rates of all retailers on several days as an inline image.

    The retailers are in the order of `Day.worst_first` of the last day. If not all names fit into
    `HEAT_MAP_BYTES`, the last retailers are small rows without a name.

    The image is an SVG: its names are text, which takes a fifth of the bytes of drawn text, and its
    cells are pixels of a small image, which the browser enlarges.

    Args:
        days: The numbers of the days that have any, by date.
        dates: The days to show, in ascending order.

    Returns:
        Markdown of at most `HEAT_MAP_BYTES`.
    """
    newest = [each.retailer for day in reversed([*days.values()]) for each in day.worst_first]
    names = list(dict.fromkeys(newest))
    if not names:
        return "none"
    cells = _cells(days, dates, names)
    named = shown = len(names)
    while len(text := _heat_map(cells, dates, names[:named], shown)) > HEAT_MAP_BYTES:
        if named:
            excess = len(text) - HEAT_MAP_BYTES
            named = max(0, named - 1 - excess // (_MAX_NAME + 3))
        else:
            shown = shown * 9 // 10
    return text


def history_chart(days: Mapping[str, RetailerDay], dates: Sequence[str]) -> str:
    """Draw the success rate and the number of images of one retailer as an inline image.

    Args:
        days: The numbers of the days that have any, by date.
        dates: The days to show, in ascending order.

    Returns:
        Markdown of a few kilobytes.
    """
    image = Image.new("RGB", _CHART, _BACKGROUND)
    draw, font = _drawing(image)
    base = _CHART[1] - _CHART_BOTTOM
    height = base - _CHART_TOP
    width = (_CHART[0] - 2 * _CHART_LEFT) / len(dates)
    most = max((each.downloaded for each in days.values()), default=0) or 1
    points = []
    for number, date in enumerate(dates):
        left = _CHART_LEFT + number * width
        if number % 5 == len(dates) % 5:
            draw.text((left, base + 4), date[5:], TEXT_COLOUR, font)
        each = days.get(date)
        if each is None:
            continue
        middle = base - height * each.new / most
        top = middle - height * each.reused / most
        draw.rectangle((left + 2, middle, left + width - 2, base), _NEW)
        draw.rectangle((left + 2, top, left + width - 2, middle), _REUSED)
        if each.success_rate is not None:
            points.append((left + width / 2, base - height * each.success_rate))
            colour = _rate_colour(each.success_rate)
            x, y = points[-1]
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), colour, TEXT_COLOUR)
    draw.line(points, TEXT_COLOUR, 1)
    draw.line((_CHART_LEFT, base, _CHART[0] - _CHART_LEFT, base), TEXT_COLOUR, 1)
    draw.text((2, _CHART_TOP - 5), f"{most:,}", TEXT_COLOUR, font)
    draw.text((_CHART[0] - _CHART_LEFT + 4, _CHART_TOP - 5), "100 %", TEXT_COLOUR, font)
    title = "bars: images, new (dark) and reused (light); line: success rate"
    draw.text((_CHART_LEFT, 3), title, TEXT_COLOUR, font)
    return inline_image(_webp(image), "webp")


def _pair(row: ProcessedRow, storage: Storage, hide_faces: bool) -> Pair:
    captioned = replace(row, key=f"{row.retailer}: {row.key}")
    return load_pair(captioned, storage, _LAYOUT, hide_faces=hide_faces)


def _cells(days: Mapping[str, Day], dates: Sequence[str], names: Sequence[str]) -> Image.Image:
    """One pixel per retailer (rows) and day (columns)."""
    image = Image.new("RGB", (len(dates), len(names)), _NOTHING)
    for x, date in enumerate(dates):
        found = days[date].by_retailer if date in days else {}
        for y, name in enumerate(names):
            image.putpixel((x, y), _colour(found.get(name)))
    return image


def _heat_map(cells: Image.Image, dates: Sequence[str], names: Sequence[str], shown: int) -> str:
    """The first rows with names and the others without, as Markdown.

    Args:
        cells: One pixel per retailer and day.
        dates: The days.
        names: The names of the first retailers.
        shown: Number of retailers to show.
    """
    columns = 1 if len(names) <= _ONE_COLUMN else 2
    column_width = (_MAP_WIDTH + _GAP) // columns
    width = (column_width - _GAP - _NAME_WIDTH) // len(dates)
    per_column = -(-len(names) // columns)
    parts = [_legend()]
    for number in range(columns):
        first = number * per_column
        x = number * column_width
        own = names[first : first + per_column]
        parts += [
            _lines([name[:_MAX_NAME] for name in own], x, _MAP_TOP, _NAME_WIDTH - 4),
            _window(x + _NAME_WIDTH, _MAP_TOP, (width, _LINE), (len(dates), first, len(own))),
            *(
                f"<text x='{x + _NAME_WIDTH + day * width}' y='{_MAP_TOP - 4}' "
                f"text-anchor='end'>{dates[day - 1][5:]}</text>"
                for day in range(len(dates), 0, -5)
            ),
        ]
    lines = f"y='{_MAP_TOP}' width='{_MAP_WIDTH}' height='{per_column * _LINE}'"
    parts.append(f"<rect {lines} fill='url(#g)'/>")
    top = _MAP_TOP + per_column * _LINE + _GAP
    small_rows = -(-(shown - len(names)) // _SMALL_COLUMNS)
    for number, first in enumerate(range(len(names), shown, max(1, small_rows))):
        rows = min(small_rows, shown - first)
        x = number * (_MAP_WIDTH // _SMALL_COLUMNS)
        parts.append(_window(x, top, _SMALL_CELL, (len(dates), first, rows)))
    height = top + small_rows * _SMALL_CELL[1]
    data = _address(_webp(cells.crop((0, 0, len(dates), shown))))
    definitions = (
        f"<defs><pattern id='g' y='{_MAP_TOP}' width='9' height='{_LINE}' "
        "patternUnits='userSpaceOnUse'><path d='M0 0h9' stroke='white'/></pattern>"
        f"<image id='i' href='{data}' style='image-rendering:pixelated'/></defs>"
    )
    svg = _svg((_MAP_WIDTH, height), definitions, *parts)
    return _heat_map_title(len(names), shown, cells.height) + svg


def _heat_map_title(named: int, shown: int, total: int) -> str:
    """What the image leaves out; empty if that is nothing."""
    if named == total:
        return ""
    left_out = "" if shown == total else f"; {total - shown} are left out"
    return (
        f"{total} retailers, worst first, column by column: {named} with names, then "
        f"{shown - named} in small rows{left_out}\n\n"
    )


def _svg(size: tuple[int, int], *parts: str) -> str:
    """An SVG image as Markdown."""
    width, height = size
    return inline_svg(
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}'>"
        f"<style>{_STYLE}</style>{''.join(parts)}</svg>"
    )


def _address(webp: bytes) -> str:
    """The address of an image in an SVG."""
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"


def _lines(lines: Sequence[str], x: int, y: int, width: int) -> str:
    """Lines of text in an SVG, cut at `width` px; the upper left corner is at `x`, `y`."""
    # XML allows no control characters.
    text = "\n".join("".join(filter(str.isprintable, escape(line))) for line in lines)
    return (
        f"<foreignObject x='{x}' y='{y}' width='{width}' height='{len(lines) * _LINE}'>"
        f"<pre xmlns='http://www.w3.org/1999/xhtml'>{text}</pre></foreignObject>"
    )


def _window(x: int, y: int, cell: tuple[int, int], part: tuple[int, int, int]) -> str:
    """An enlarged part of the image of cells.

    Args:
        x: Left edge in px.
        y: Upper edge in px.
        cell: Width and height of a cell in px.
        part: Number of columns, first row, number of rows.
    """
    columns, first, rows = part
    return (
        f"<svg x='{x}' y='{y}' width='{columns * cell[0]}' height='{rows * cell[1]}' "
        f"viewBox='0 {first} {columns} {rows}' preserveAspectRatio='none'><use href='#i'/></svg>"
    )


def _legend() -> str:
    rates = [(colour, f"from {bound:.0%}") for bound, colour in _RATES]
    entries = (*rates, (_MISSING, "missing"), (_NOTHING, "no data"))
    width = _MAP_WIDTH // len(entries)
    return "".join(
        f"<path d='M{number * width} 2h12v12h-12z' fill='rgb{colour}'/>"
        f"<text x='{number * width + 16}' y='12'>{text}</text>"
        for number, (colour, text) in enumerate(entries)
    )


def _drawing(image: Image.Image) -> tuple[ImageDraw.ImageDraw, _Font]:
    """The drawing context of an image, and the font."""
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1"  # without smooth edges: half the bytes
    return draw, ImageFont.load_default(_FONT_SIZE)


def _colour(each: RetailerDay | None) -> tuple[int, int, int]:
    if each is None:
        return _NOTHING
    if each.success_rate is None:
        return _MISSING if each.is_missing else _NOTHING
    return _rate_colour(each.success_rate)


def _rate_colour(rate: float) -> tuple[int, int, int]:
    return next(colour for bound, colour in _RATES if rate >= bound)


def _webp(image: Image.Image) -> bytes:
    """Encode an image of few colours without loss, in two thirds of the bytes of a PNG."""
    file = io.BytesIO()
    image.save(file, "WEBP", lossless=True)
    return file.getvalue()
