"""The images of reports, small enough for Dagster's event log.

A report stores at most about 40 kB: `SHEET_BYTES` and `HEAT_MAP_BYTES`, and the texts.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from imgassets.errors import StorageError
from imgassets.manifests import ProcessedRow
from imgassets.markdown import inline_image
from imgassets.reports.day import Day, RetailerDay
from imgassets.review.drawing import TEXT_COLOUR, Layout, Pair, draw_sheet, load_pair
from imgassets.storage import Storage
from imgassets.thumbnails import encode_webp

_Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

SHEET_BYTES, HEAT_MAP_BYTES = 20_000, 9_000

_LAYOUT = Layout(cell=(76, 114), pairs=4, gap=4, caption=26, font_size=10, max_key_length=28)
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
_CELL = (18, 12)  # px
_NAME_WIDTH, _HEADER, _LEGEND = 150, 16, 18  # px
_FONT_SIZE = 10
_COLOURS = 16

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
    for quality, number in _SIZES:
        image, _ = draw_sheet(pairs[:number], _LAYOUT)
        text = inline_image(encode_webp(image, quality), "webp")
        if len(text) <= SHEET_BYTES:
            return text
    return "too large to be shown here"


def heat_map(days: Mapping[str, Day], dates: Sequence[str]) -> str:
    """Draw the success rates of all retailers on several days as an inline image.

    The retailers are in the order of `Day.worst_first` of the last day. If not all fit into
    `HEAT_MAP_BYTES`, the first ones are shown.

    Args:
        days: The numbers of the days that have any, by date.
        dates: The days to show, in ascending order.

    Returns:
        Markdown of at most `HEAT_MAP_BYTES`.
    """
    newest = [each.retailer for day in reversed([*days.values()]) for each in day.worst_first]
    names = list(dict.fromkeys(newest))
    shown = len(names)
    while True:
        text = inline_image(_draw_heat_map(days, dates, names[:shown]), "png")
        if len(text) <= HEAT_MAP_BYTES or shown <= 1:
            break
        shown = max(1, shown * HEAT_MAP_BYTES // len(text) * 19 // 20)
    if shown < len(names):
        text += f"\n\n{shown} of {len(names)} retailers, worst first"
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
    return inline_image(_png(image), "png")


def _pair(row: ProcessedRow, storage: Storage, hide_faces: bool) -> Pair:
    captioned = replace(row, key=f"{row.retailer}: {row.key}")
    try:
        return load_pair(captioned, storage, _LAYOUT, hide_faces=hide_faces)
    except StorageError:
        raise
    except Exception:  # noqa: BLE001  (decoders raise many types; the checks report damaged files)
        return Pair(captioned, None, None)


def _draw_heat_map(days: Mapping[str, Day], dates: Sequence[str], names: Sequence[str]) -> bytes:
    size = (_NAME_WIDTH + len(dates) * _CELL[0], _HEADER + len(names) * _CELL[1] + _LEGEND)
    image = Image.new("RGB", size, _BACKGROUND)
    draw, font = _drawing(image)
    for column, date in enumerate(dates):
        x = _NAME_WIDTH + column * _CELL[0]
        draw.text((x, 2), date[8:], TEXT_COLOUR, font)
        found = days[date].by_retailer if date in days else {}
        for row, name in enumerate(names):
            y = _HEADER + row * _CELL[1]
            box = (x, y, x + _CELL[0] - 2, y + _CELL[1] - 2)
            draw.rectangle(box, _colour(found.get(name)))
    for row, name in enumerate(names):
        draw.text((2, _HEADER + row * _CELL[1] - 1), name[:26], TEXT_COLOUR, font)
    _draw_legend(draw, font, size[1] - _LEGEND + 3)
    return _png(image)


def _drawing(image: Image.Image) -> tuple[ImageDraw.ImageDraw, _Font]:
    """The drawing context of an image, and the font."""
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1"  # without smooth edges: half the bytes
    return draw, ImageFont.load_default(_FONT_SIZE)


def _draw_legend(draw: ImageDraw.ImageDraw, font: _Font, y: int) -> None:
    rates = [(colour, f"from {bound:.0%}") for bound, colour in _RATES]
    x = 2
    for colour, text in (*rates, (_MISSING, "missing"), (_NOTHING, "no data")):
        draw.rectangle((x, y, x + 12, y + 10), colour)
        draw.text((x + 16, y - 1), text, TEXT_COLOUR, font)
        x += 28 + round(draw.textlength(text, font))


def _colour(each: RetailerDay | None) -> tuple[int, int, int]:
    if each is None:
        return _NOTHING
    if each.success_rate is None:
        return _MISSING if each.is_missing else _NOTHING
    return _rate_colour(each.success_rate)


def _rate_colour(rate: float) -> tuple[int, int, int]:
    return next(colour for bound, colour in _RATES if rate >= bound)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    few = image.quantize(_COLOURS, dither=Image.Dither.NONE)
    few.save(file, "PNG", optimize=True)
    return file.getvalue()
