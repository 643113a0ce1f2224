"""Draw a small contact sheet: a few raw images of a partition beside the processed ones.

This module selects the images to review. The sheet is stored inline in Dagster's event log, so it
is small (some tens of kilobytes). Drawing is in `drawing`; the full-size sheets are in `pages`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import ImageFont

from imgassets.manifests import Outcome, ProcessedRow, RawRow
from imgassets.review.drawing import TEXT_COLOUR, Layout, draw_sheet, load_pair
from imgassets.storage import Folder

# Most catalogue images have the aspect ratio 2:3.
_LAYOUT = Layout(cell=(130, 195), pairs=3, gap=4, caption=26, font_size=10, max_key_length=44)
_QUALITY = 66

_USUAL_TRIM_RATIO = (0.25, 0.97)


def contact_sheet(
    rows: Sequence[ProcessedRow],
    raw_rows: Sequence[RawRow],
    raw_folder: Folder,
    folder: Folder,
    *,
    limit: int = 12,
) -> bytes:
    """Draw raw images of a partition beside the processed ones.

    The raw image is marked with the face boxes (red), the cut line (orange) and the kept area
    (green). `select_rows` selects the images.

    Args:
        rows: The manifest of `processed_images`.
        raw_rows: The manifest of `raw_images`, which has the paths of the raw images.
        raw_folder: Folder that the paths of `raw_rows` are relative to.
        folder: Folder that the paths of `rows` are relative to.
        limit: Maximum number of rows on the sheet.

    Returns:
        A JPEG about 800 pixels wide.
    """
    paths = {raw.key: raw.path for raw in raw_rows}
    pairs = [
        load_pair(row, paths.get(row.key), raw_folder, folder, _LAYOUT)
        for row in select_rows(rows, limit)
    ]
    image, draw = draw_sheet(pairs, _LAYOUT)
    if not pairs:
        font = ImageFont.load_default(_LAYOUT.font_size)
        draw.text((_LAYOUT.gap, _LAYOUT.gap), "no processed images", TEXT_COLOUR, font)
    file = io.BytesIO()
    # Chroma subsampling would blur the thin coloured lines.
    image.save(file, "JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return file.getvalue()


def select_rows(rows: Sequence[ProcessedRow], limit: int) -> list[ProcessedRow]:
    """Select the rows to show on sheets.

    Args:
        rows: The manifest of `processed_images`.
        limit: Maximum number of rows to select.

    Returns:
        All rows that can be shown, by review priority, if there are at most `limit`. Otherwise two
        thirds of `limit` by review priority, then others spread evenly over the partition.
    """
    candidates = showable_rows(rows)
    by_priority = sorted(candidates, key=review_priority, reverse=True)
    if len(by_priority) <= limit:
        return by_priority
    first = by_priority[: -(-limit * 2 // 3)]
    first_keys = {row.key for row in first}
    others = [row for row in candidates if row.key not in first_keys]
    free = limit - len(first)
    return first + [others[len(others) * number // free] for number in range(free)]


def showable_rows(rows: Sequence[ProcessedRow]) -> list[ProcessedRow]:
    """The rows of images that were processed, or rejected because the face is too close."""
    return [row for row in rows if row.outcome in (Outcome.OK, Outcome.TOO_CLOSE)]


def review_priority(row: ProcessedRow) -> float:
    """How urgently an image needs a review: 0 for none, 2 for a close-up.

    A low face score and a trim ratio outside the usual range raise it.
    """
    too_close = 2.0 if row.outcome == Outcome.TOO_CLOSE else 0.0
    face = 0.0 if row.face_score is None else 1 - row.face_score
    trim = 0.0
    if row.trim_ratio is not None:
        low, high = _USUAL_TRIM_RATIO
        trim = max(0.0, (low - row.trim_ratio) / low, (row.trim_ratio - high) / (1 - high) / 2)
    return max(too_close, face, trim)
