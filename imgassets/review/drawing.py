"""Draw pairs of raw and processed images, with boxes and captions, on contact sheets.

Selecting images is in `contact_sheet`; writing files is in `contact_sheet` and `pages`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from imgassets.errors import UnreadableImageError
from imgassets.manifests import Outcome, ProcessedRow
from imgassets.review.layout import Layout
from imgassets.storage import Storage
from imgassets.thumbnails import Scale, load_scaled, pixelate_faces
from imgassets.wording import counted

BACKGROUND, TEXT_COLOUR = (236, 238, 241), (30, 34, 40)
_FACE_COLOUR, _CUT_COLOUR, _KEPT_COLOUR = (230, 40, 40), (255, 140, 0), (0, 150, 70)


@dataclass(frozen=True)
class Pair:
    """A raw and a processed image, each scaled into a cell; None if it cannot be read."""

    row: ProcessedRow
    before: Image.Image | None
    after: Image.Image | None


def load_pair(row: ProcessedRow, storage: Storage, layout: Layout, *, hide_faces: bool) -> Pair:
    """Read both images of a row, hide the detected faces, and draw the boxes on the raw one.

    Args:
        row: Row of `processed_images`.
        storage: Storage of both images.
        layout: Layout with the cell size.
        hide_faces: Whether detected faces are pixelated.
    """
    before = None if row.raw_path is None else _load(storage, row.raw_path, layout.cell)
    after = None if row.path is None else _load(storage, row.path, layout.cell)
    if hide_faces:
        for loaded, boxes in ((before, row.face_boxes or []), (after, row.kept_face_boxes)):
            if loaded is not None:
                pixelate_faces(loaded[0], boxes, loaded[1])
    return Pair(
        row,
        None if before is None else _with_boxes(*before, row),
        None if after is None else after[0],
    )


def draw_sheet(
    pairs: Sequence[Pair], layout: Layout, header_height: int = 0
) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Draw pairs on a grid.

    Args:
        pairs: The pairs, in reading order.
        layout: The grid.
        header_height: Height of the empty area above the pairs, in pixels.

    Returns:
        The sheet and its drawing context.
    """
    across, down = layout.pitch
    lines = max(1, -(-len(pairs) // layout.pairs))
    image = Image.new("RGB", (layout.pairs * across, header_height + lines * down), BACKGROUND)
    draw = ImageDraw.Draw(image)
    font = None if layout.font_size is None else ImageFont.load_default(layout.font_size)
    for number, pair in enumerate(pairs):
        x, y = layout.corner(number)
        y += header_height
        _paste(image, pair.before, (x, y), layout)
        _paste(image, pair.after, (x + layout.cell[0] + layout.gap, y), layout)
        if font is not None:
            text = caption(pair.row, layout.max_key_length)
            draw.multiline_text((x, y + layout.cell[1] + 1), text, TEXT_COLOUR, font, spacing=1)
    return image, draw


def caption(row: ProcessedRow, max_key_length: int) -> str:
    """The two lines below a pair: the key, and what was found and done.

    Args:
        row: Row of `processed_images`.
        max_key_length: Number of characters after which the key is cut.
    """
    parts = [] if row.outcome == Outcome.OK else [str(row.outcome)]
    if row.face_count:
        noun = "printed face" if row.face_rule == "printed" else "face"
        parts.append(f"{counted(row.face_count, noun)} {row.face_score:.2f}")
    elif row.face_count == 0:
        parts.append("no face")
    if row.trim_ratio is not None:
        parts.append(f"trim {row.trim_ratio:.2f}")
    return f"{row.key[:max_key_length]}\n{', '.join(parts)}"


def _load(storage: Storage, path: str, cell: tuple[int, int]) -> tuple[Image.Image, Scale] | None:
    try:
        return load_scaled(storage.read(path), cell)
    except (FileNotFoundError, UnreadableImageError):
        return None


def _with_boxes(image: Image.Image, scale: Scale, row: ProcessedRow) -> Image.Image:
    draw = ImageDraw.Draw(image)
    if row.kept_box is not None:
        _rectangle(draw, row.kept_box, scale, _KEPT_COLOUR)
    for box in row.face_boxes or []:
        _rectangle(draw, box, scale, _FACE_COLOUR)
    if row.face_cut is not None:
        y = row.face_cut * scale[1]
        draw.line([(0, y), (image.width, y)], _CUT_COLOUR, 2)
    return image


def _rectangle(
    draw: ImageDraw.ImageDraw,
    box: Sequence[int],
    scale: Scale,
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


def _paste(
    sheet: Image.Image, image: Image.Image | None, corner: tuple[int, int], layout: Layout
) -> None:
    width, height = layout.cell
    if image is None:
        frame = [corner[0], corner[1], corner[0] + width - 1, corner[1] + height - 1]
        ImageDraw.Draw(sheet).rectangle(frame, outline=TEXT_COLOUR)
        return
    left = corner[0] + (width - image.width) // 2
    sheet.paste(image, (left, corner[1] + (height - image.height) // 2))
