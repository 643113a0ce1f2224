"""Before | after, a few pictures of a partition, the doubtful ones first.

Here lives choosing the pictures and drawing them. The sheet is stored inline in Dagster's event
log, so it is small: some tens of kilobytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

from imgassets.manifests import Outcome, ProcessedRow, RawRow
from imgassets.storage import Folder

_PAIRS_A_ROW = 3
_CELL = (130, 195)  # catalogue pictures are mostly 2:3
_GAP = 4
_CAPTION = 26
_SIZE = (_PAIRS_A_ROW * (2 * _CELL[0] + 3 * _GAP), _CELL[1] + _CAPTION + 2 * _GAP)
_PAPER, _INK = (236, 238, 241), (30, 34, 40)
_FACE, _CHIN, _KEPT = (230, 40, 40), (255, 140, 0), (0, 150, 70)
_QUALITY = 66

_GOOD_RATIO = (0.25, 0.97)


def contact_sheet(
    rows: Sequence[ProcessedRow],
    raw_rows: Sequence[RawRow],
    raw_folder: Folder,
    folder: Folder,
    *,
    limit: int = 12,
) -> bytes:
    """Draw pictures of a partition as served, beside what was made of them.

    On the served picture stand the face boxes (red), the line of the cut (orange), and the part
    that was kept (green). Two thirds of the places go to the most doubtful pictures (close-ups,
    low face scores, extreme trims), the rest to others, evenly spread over the partition.

    Args:
        rows: the manifest of `processed_images`.
        raw_rows: the manifest of `raw_images`; says where the served pictures lie.
        raw_folder: that the paths of `raw_rows` are relative to.
        folder: that the paths of `rows` are relative to.
        limit: pictures on the sheet.

    Returns:
        A JPEG of about 800 pixels width.
    """
    paths = {raw.key: raw.path for raw in raw_rows}
    shown = chosen(rows, limit)
    lines = -(-len(shown) // _PAIRS_A_ROW)
    sheet = Image.new("RGB", (_SIZE[0], max(1, lines) * _SIZE[1]), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(10)
    if not shown:
        draw.text((_GAP, _GAP), "no picture was made", _INK, font)
    for number, row in enumerate(shown):
        x = number % _PAIRS_A_ROW * (2 * _CELL[0] + 3 * _GAP) + _GAP
        y = number // _PAIRS_A_ROW * _SIZE[1] + _GAP
        _paste(sheet, _before(row, raw_folder, paths.get(row.key)), (x, y))
        _paste(sheet, _after(row, folder), (x + _CELL[0] + _GAP, y))
        draw.multiline_text((x, y + _CELL[1] + 1), _caption(row), _INK, font, spacing=1)
    file = io.BytesIO()
    # Thin coloured lines need full colour resolution.
    sheet.save(file, "JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return file.getvalue()


def chosen(rows: Sequence[ProcessedRow], limit: int) -> list[ProcessedRow]:
    """The rows that the sheet shows: the most doubtful first, then some of the others."""
    candidates = [row for row in rows if row.outcome in (Outcome.OK, Outcome.TOO_CLOSE)]
    by_doubt = sorted(candidates, key=doubt, reverse=True)
    if len(by_doubt) <= limit:
        return by_doubt
    first = by_doubt[: -(-limit * 2 // 3)]
    taken = {row.key for row in first}
    others = [row for row in candidates if row.key not in taken]
    places = limit - len(first)
    return first + [others[len(others) * place // places] for place in range(places)]


def doubt(row: ProcessedRow) -> float:
    """How much a picture deserves a look, from 0."""
    too_close = 2.0 if row.outcome == Outcome.TOO_CLOSE else 0.0
    face = 0.0 if row.face_score is None else 1 - row.face_score
    trim = 0.0
    if row.trim_ratio is not None:
        low, high = _GOOD_RATIO
        trim = max(0.0, (low - row.trim_ratio) / low, (row.trim_ratio - high) / (1 - high) / 2)
    return max(too_close, face, trim)


def _before(row: ProcessedRow, raw_folder: Folder, path: str | None) -> Image.Image | None:
    if path is None:
        return None
    picture = _opened(raw_folder, path)
    if picture is None:
        return None
    width, height = picture.size
    picture.thumbnail(_CELL)
    across, down = picture.width / width, picture.height / height
    draw = ImageDraw.Draw(picture)
    if row.kept_box is not None:
        _rectangle(draw, row.kept_box, (across, down), _KEPT)
    for box in row.face_boxes or []:
        _rectangle(draw, box, (across, down), _FACE)
    if row.face_cut is not None:
        draw.line([(0, row.face_cut * down), (picture.width, row.face_cut * down)], _CHIN, 2)
    return picture


def _after(row: ProcessedRow, folder: Folder) -> Image.Image | None:
    picture = None if row.path is None else _opened(folder, row.path)
    if picture is not None:
        picture.thumbnail(_CELL)
    return picture


def _opened(folder: Folder, path: str) -> Image.Image | None:
    try:
        picture = Image.open(io.BytesIO(folder.read(path)))
    except FileNotFoundError:
        return None
    return ImageOps.exif_transpose(picture).convert("RGB")


def _rectangle(
    draw: ImageDraw.ImageDraw,
    box: Sequence[int],
    scale: tuple[float, float],
    colour: tuple[int, int, int],
) -> None:
    x, y, width, height = box
    draw.rectangle(
        [
            x * scale[0],
            y * scale[1],
            (x + width) * scale[0] - 1,
            (y + height) * scale[1] - 1,
        ],
        outline=colour,
        width=2,
    )


def _paste(sheet: Image.Image, picture: Image.Image | None, place: tuple[int, int]) -> None:
    if picture is None:
        ImageDraw.Draw(sheet).rectangle(
            [place[0], place[1], place[0] + _CELL[0] - 1, place[1] + _CELL[1] - 1], outline=_INK
        )
        return
    left = place[0] + (_CELL[0] - picture.width) // 2
    sheet.paste(picture, (left, place[1] + (_CELL[1] - picture.height) // 2))


def _caption(row: ProcessedRow) -> str:
    parts = [] if row.outcome == Outcome.OK else [str(row.outcome)]
    if row.face_count:
        parts.append(f"{row.face_count} face{'s' * (row.face_count > 1)} {row.face_score:.2f}")
    elif row.face_count == 0:
        parts.append("no face")
    if row.trim_ratio is not None:
        parts.append(f"trim {row.trim_ratio:.2f}")
    return f"{row.key[:44]}\n{', '.join(parts)}"
