"""Draw a small contact sheet: a few raw images of a partition beside the processed ones.

This module selects the images to review, and reduces the sheet for Dagster's event log. Drawing is
in `drawing`; the full-size sheets are in `pages`.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image, ImageFont

from imgassets.manifests import Outcome, ProcessedRow, from_table
from imgassets.markdown import inline_image
from imgassets.review.drawing import TEXT_COLOUR, draw_sheet, load_pair
from imgassets.review.layout import Layout
from imgassets.storage import Storage
from imgassets.tables import as_mask
from imgassets.thumbnails import encode_avif

# Most catalogue images have the aspect ratio 2:3.
_LAYOUT = Layout(cell=(104, 156), pairs=3, gap=4, caption=26, font_size=10, max_key_length=36)
_QUALITY = 66
# Of the part that is shown inline: lines of the sheet and AVIF quality, best first. Photographs fit
# at the first three, noise at the last two.
_INLINE_SIZES = ((2, 50), (2, 38), (2, 30), (1, 30), (1, 10))

_USUAL_TRIM_RATIO = (0.25, 0.97)

SHOWABLE = (Outcome.OK, Outcome.TOO_CLOSE)
"""Outcomes of images that sheets show."""
_BATCH = 5_000  # rows


def contact_sheet(
    table: pa.Table,
    storage: Storage,
    *,
    hide_faces: bool,
    limit: int = 12,
) -> bytes:
    """Draw raw images of a partition beside the processed ones.

    The raw image is marked with the face boxes (red), the cut line (orange) and the kept area
    (green). `select_rows` selects the images.

    Args:
        table: The manifest of `processed_images`.
        storage: The storage of the images.
        hide_faces: Whether detected faces are pixelated.
        limit: Maximum number of rows on the sheet.

    Returns:
        A JPEG about 660 pixels wide.
    """
    selected = select_rows(table, showable_rows(table), limit)
    pairs = [load_pair(row, storage, _LAYOUT, hide_faces=hide_faces) for row in selected]
    image, draw = draw_sheet(pairs, _LAYOUT)
    if not pairs:
        font = ImageFont.load_default(_LAYOUT.font_size)
        draw.text((_LAYOUT.gap, _LAYOUT.gap), "no processed images", TEXT_COLOUR, font)
    file = io.BytesIO()
    # Chroma subsampling would blur the thin coloured lines.
    image.save(file, "JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return file.getvalue()


def inline_contact_sheet(sheet: bytes, max_bytes: int) -> str:
    """Reduce a contact sheet to its first lines, as an inline image for the event log.

    Args:
        sheet: The file that `contact_sheet` returned.
        max_bytes: Maximum length of the result.

    Returns:
        The inline image, in the best quality that fits; a text if none does.
    """
    with Image.open(io.BytesIO(sheet)) as image:
        for lines, quality in _INLINE_SIZES:
            height = min(image.height, lines * _LAYOUT.pitch[1])
            part = image.crop((0, 0, image.width, height))
            text = inline_image(encode_avif(part, quality), "avif")
            if len(text) <= max_bytes:
                return text
    return "too large to be shown here"


def select_rows(table: pa.Table, candidates: NDArray[np.int64], limit: int) -> list[ProcessedRow]:
    """Select the rows to show on sheets.

    Args:
        table: The manifest of `processed_images`.
        candidates: Indices of the rows that can be shown, from `showable_rows`.
        limit: Maximum number of rows to select.

    Returns:
        All candidates, by review priority, if there are at most `limit`. Otherwise two thirds of
        `limit` by review priority, then others spread evenly over the partition.
    """
    by_priority = candidates[np.argsort(-review_priorities(table)[candidates], kind="stable")]
    selected = by_priority[:limit]
    if len(by_priority) > limit:
        first = by_priority[: -(-limit * 2 // 3)]
        others = np.setdiff1d(candidates, first, assume_unique=True)
        free = limit - len(first)
        spread = [others[len(others) * number // free] for number in range(free)]
        selected = np.append(first, np.array(spread, np.int64))
    return from_table(table.take(selected), ProcessedRow)


def showable_rows(table: pa.Table) -> NDArray[np.int64]:
    """Indices of the images that were processed, or rejected because the face is too close.

    Args:
        table: The manifest of `processed_images`, or its column `outcome`.
    """
    outcomes = pa.array(map(str, SHOWABLE), pa.string())
    return np.flatnonzero(as_mask(pc.is_in(table["outcome"], value_set=outcomes)))


def review_priorities(table: pa.Table) -> NDArray[np.float64]:
    """How urgently each image of a manifest of `processed_images` needs a review."""
    found = np.empty(table.num_rows)
    columns = table.select(["outcome", "face_rule", "face_score", "trim_ratio"])
    for start in range(0, table.num_rows, _BATCH):
        batch = columns.slice(start, _BATCH)
        values = (column.to_pylist() for column in batch.columns)
        found[start : start + _BATCH] = [*map(priority_of, *values)]
    return found


def review_priority(row: ProcessedRow) -> float:
    """How urgently an image needs a review; see `priority_of`."""
    return priority_of(row.outcome, row.face_rule, row.face_score, row.trim_ratio)


def priority_of(
    outcome: str, face_rule: str | None, face_score: float | None, trim_ratio: float | None
) -> float:
    """How urgently an image needs a review: 0 for none, 2 for a close-up, 1.5 for a printed face.

    A low face score and a trim ratio outside the usual range raise it. The arguments are columns of
    `processed_images`.
    """
    too_close = 2.0 if outcome == Outcome.TOO_CLOSE else 0.0
    printed = 1.5 if face_rule == "printed" else 0.0
    face = 0.0 if face_score is None else 1 - face_score
    trim = 0.0
    if trim_ratio is not None:
        low, high = _USUAL_TRIM_RATIO
        trim = max(0.0, (low - trim_ratio) / low, (trim_ratio - high) / (1 - high) / 2)
    return max(too_close, printed, face, trim)
