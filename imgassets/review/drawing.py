"""One picture as served, beside what was made of it: what contact sheets are put together from.

Here lives drawing a pair with its boxes and its caption. Which pictures are shown, and where the
sheets go, is in `contact_sheet` and `pages`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

from imgassets.manifests import Outcome, ProcessedRow
from imgassets.storage import Folder

PAPER, INK = (236, 238, 241), (30, 34, 40)
_FACE, _CHIN, _KEPT = (230, 40, 40), (255, 140, 0), (0, 150, 70)
_ORIENTATION = 0x0112  # the tag in EXIF
_TURNED = range(5, 9)  # orientations that swap width and height


@dataclass(frozen=True)
class Layout:
    """How pairs stand on a sheet; lengths in pixels.

    Attributes:
        cell: width and height that a picture may take.
        pairs: in a row.
        gap: between pictures.
        caption: height of the text below a pair.
        font_size: of that text.
        letters: of a key that fit beside each other.
    """

    cell: tuple[int, int]
    pairs: int
    gap: int
    caption: int
    font_size: int
    letters: int

    @property
    def pitch(self) -> tuple[int, int]:
        """From one pair to the next, across and down."""
        return 2 * self.cell[0] + 3 * self.gap, self.cell[1] + self.caption + 2 * self.gap


@dataclass(frozen=True)
class Pair:
    """A picture as served and as made, each fitted into a cell; none where it is gone."""

    row: ProcessedRow
    before: Image.Image | None
    after: Image.Image | None


def pair(
    row: ProcessedRow, path: str | None, raw_folder: Folder, folder: Folder, layout: Layout
) -> Pair:
    """Read both pictures of a row.

    Args:
        row: what was done.
        path: of the served picture in `raw_folder`, if there is one.
        raw_folder: where served pictures lie.
        folder: where pictures made lie.
        layout: says how large they get.
    """
    before = None if path is None else _opened(raw_folder, path, layout.cell)
    after = None if row.path is None else _opened(folder, row.path, layout.cell)
    return Pair(
        row,
        None if before is None else _with_boxes(*before, row),
        None if after is None else after[0],
    )


def sheet(
    pairs: Sequence[Pair], layout: Layout, head: int = 0
) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Lay pairs out in rows.

    Args:
        pairs: in the order of reading.
        layout: where they stand.
        head: pixels that are left free above them.
    """
    across, down = layout.pitch
    lines = max(1, -(-len(pairs) // layout.pairs))
    image = Image.new("RGB", (layout.pairs * across, head + lines * down), PAPER)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(layout.font_size)
    for number, shown in enumerate(pairs):
        x = number % layout.pairs * across + layout.gap
        y = head + number // layout.pairs * down + layout.gap
        _paste(image, shown.before, (x, y), layout)
        _paste(image, shown.after, (x + layout.cell[0] + layout.gap, y), layout)
        text = _caption(shown.row, layout.letters)
        draw.multiline_text((x, y + layout.cell[1] + 1), text, INK, font, spacing=1)
    return image, draw


def _opened(
    folder: Folder, path: str, cell: tuple[int, int]
) -> tuple[Image.Image, tuple[float, float]] | None:
    """A picture that fits into a cell, and how much smaller it is than the file's, each way."""
    try:
        file = Image.open(io.BytesIO(folder.read(path)))
    except FileNotFoundError:
        return None
    width, height = file.size
    if file.getexif().get(_ORIENTATION) in _TURNED:
        width, height = height, width
    # A JPEG is decoded at a half or a quarter, where that still fills the cell.
    file.draft("RGB", (max(cell), max(cell)))
    picture = ImageOps.exif_transpose(file).convert("RGB")
    picture.thumbnail(cell, Image.Resampling.BOX, reducing_gap=None)
    return picture, (picture.width / width, picture.height / height)


def _with_boxes(picture: Image.Image, scale: tuple[float, float], row: ProcessedRow) -> Image.Image:
    draw = ImageDraw.Draw(picture)
    if row.kept_box is not None:
        _rectangle(draw, row.kept_box, scale, _KEPT)
    for box in row.face_boxes or []:
        _rectangle(draw, box, scale, _FACE)
    if row.face_cut is not None:
        y = row.face_cut * scale[1]
        draw.line([(0, y), (picture.width, y)], _CHIN, 2)
    return picture


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


def _paste(
    image: Image.Image, picture: Image.Image | None, place: tuple[int, int], layout: Layout
) -> None:
    width, height = layout.cell
    if picture is None:
        frame = [place[0], place[1], place[0] + width - 1, place[1] + height - 1]
        ImageDraw.Draw(image).rectangle(frame, outline=INK)
        return
    left = place[0] + (width - picture.width) // 2
    image.paste(picture, (left, place[1] + (height - picture.height) // 2))


def _caption(row: ProcessedRow, letters: int) -> str:
    parts = [] if row.outcome == Outcome.OK else [str(row.outcome)]
    if row.face_count:
        parts.append(f"{row.face_count} face{'s' * (row.face_count > 1)} {row.face_score:.2f}")
    elif row.face_count == 0:
        parts.append("no face")
    if row.trim_ratio is not None:
        parts.append(f"trim {row.trim_ratio:.2f}")
    return f"{row.key[:letters]}\n{', '.join(parts)}"
