"""Before | after, a few pictures of a partition, the doubtful ones first.

Here lives choosing the pictures, and the small sheet: it is stored inline in Dagster's event log,
so it has some tens of kilobytes. How a pair is drawn is in `drawing`; the sheets of full size are
in `pages`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import ImageFont

from imgassets.manifests import Outcome, ProcessedRow, RawRow
from imgassets.review.drawing import INK, Layout, pair, sheet
from imgassets.storage import Folder

# Catalogue pictures are mostly 2:3.
_LAYOUT = Layout(cell=(130, 195), pairs=3, gap=4, caption=26, font_size=10, letters=44)
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
    pairs = [
        pair(row, paths.get(row.key), raw_folder, folder, _LAYOUT) for row in chosen(rows, limit)
    ]
    image, draw = sheet(pairs, _LAYOUT)
    if not pairs:
        font = ImageFont.load_default(_LAYOUT.font_size)
        draw.text((_LAYOUT.gap, _LAYOUT.gap), "no picture was made", INK, font)
    file = io.BytesIO()
    # Thin coloured lines need full colour resolution.
    image.save(file, "JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return file.getvalue()


def chosen(rows: Sequence[ProcessedRow], limit: int) -> list[ProcessedRow]:
    """The rows that a sheet shows: the most doubtful first, then some of the others."""
    candidates = shown(rows)
    by_doubt = sorted(candidates, key=doubt, reverse=True)
    if len(by_doubt) <= limit:
        return by_doubt
    first = by_doubt[: -(-limit * 2 // 3)]
    taken = {row.key for row in first}
    others = [row for row in candidates if row.key not in taken]
    places = limit - len(first)
    return first + [others[len(others) * place // places] for place in range(places)]


def shown(rows: Sequence[ProcessedRow]) -> list[ProcessedRow]:
    """The rows that there is something to show of: a picture was made, or could not be cropped."""
    return [row for row in rows if row.outcome in (Outcome.OK, Outcome.TOO_CLOSE)]


def doubt(row: ProcessedRow) -> float:
    """How much a picture deserves a look, from 0."""
    too_close = 2.0 if row.outcome == Outcome.TOO_CLOSE else 0.0
    face = 0.0 if row.face_score is None else 1 - row.face_score
    trim = 0.0
    if row.trim_ratio is not None:
        low, high = _GOOD_RATIO
        trim = max(0.0, (low - row.trim_ratio) / low, (row.trim_ratio - high) / (1 - high) / 2)
    return max(too_close, face, trim)
