"""Contact sheets and plots as files beside a partition's manifest.

Here lives which files there are, how the pages of full size are laid out, and that files of an
earlier run go. How pictures are chosen is in `contact_sheet`, how pairs are drawn in `drawing`,
plots in `plots`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

from PIL import ImageFont

from imgassets.manifests import ProcessedRow, RawRow
from imgassets.review.contact_sheet import chosen, contact_sheet, shown
from imgassets.review.drawing import INK, Layout, Pair, pair, sheet
from imgassets.review.plots import histograms
from imgassets.storage import CONTACT_SHEET, Folder

REVIEW = "review"
"""The folder of the files of full size, beside the manifest."""
INDEX = "index.json"
"""In that folder: which pictures stand on which page."""
HISTOGRAMS = "histograms.png"
PICTURES_A_PAGE = 40

# A picture of 2:3 at the default size of 448 pixels stands there pixel by pixel. A page is
# 12 megapixels: what a browser shows at once.
_LAYOUT = Layout(cell=(300, 450), pairs=4, gap=6, caption=44, font_size=16, letters=66)
_HEAD, _HEAD_SIZE = 40, 20
_QUALITY = 80
_PLOT_SCALE = 3
_VERSION = 2  # to be raised by whoever changes what the files look like
_PAGE = re.compile(r"page_\d+\.jpg")


@dataclass(frozen=True)
class Page:
    """A sheet of full size.

    Attributes:
        name: of the file in the folder `review`.
        keys: of the pictures on it, in the order of reading.
    """

    name: str
    keys: list[str]


def write_review(
    rows: Sequence[ProcessedRow],
    raw_rows: Sequence[RawRow],
    raw_folder: Folder,
    folder: Folder,
    *,
    title: str,
    max_pages: int,
) -> list[Page]:
    """Write the small contact sheet, the pages of full size, and the plots of full size.

    A page shows before | after at a legible size, the doubtful pictures first. Where the partition
    has more pictures than the pages hold, two thirds of the places go to the most doubtful and the
    rest is spread over the others; every page says so. One page at a time is in memory (some
    40 MB). What an earlier run wrote and this one does not is removed. Where nothing has changed,
    the files stay as they are, and with them served pictures that are gone since.

    Args:
        rows: the manifest of `processed_images`.
        raw_rows: the manifest of `raw_images`.
        raw_folder: that the paths of `raw_rows` are relative to.
        folder: of the manifest of `processed_images`.
        title: stands on every page.
        max_pages: of `PICTURES_A_PAGE` pictures.

    Returns:
        The pages of full size, in order.

    Raises:
        StorageError: a file cannot be read or written.
    """
    review = folder / REVIEW
    state = _state(rows, title, max_pages)
    if (known := _known(review, state)) is not None:
        return known
    # The index is written last, so that a run that dies meanwhile draws all anew.
    review.remove(INDEX)
    pages: list[Page] = []
    if shown(rows):
        folder.write(CONTACT_SHEET, contact_sheet(rows, raw_rows, raw_folder, folder))
        review.write(HISTOGRAMS, histograms(rows, scale=_PLOT_SCALE))
        pages = _write_pages(rows, raw_rows, raw_folder, folder, title=title, max_pages=max_pages)
    else:
        folder.remove(CONTACT_SHEET)
        review.remove(HISTOGRAMS)
    names = {page.name for page in pages}
    for name in review.sizes():
        if _PAGE.fullmatch(name) and name not in names:
            review.remove(name)
    index = {"state": state, "pages": {page.name: page.keys for page in pages}}
    review.write(INDEX, json.dumps(index, indent=1).encode())
    return pages


def _write_pages(
    rows: Sequence[ProcessedRow],
    raw_rows: Sequence[RawRow],
    raw_folder: Folder,
    folder: Folder,
    *,
    title: str,
    max_pages: int,
) -> list[Page]:
    there = len(shown(rows))
    listed = chosen(rows, max_pages * PICTURES_A_PAGE)
    paths = {raw.key: raw.path for raw in raw_rows}
    starts = range(0, len(listed), PICTURES_A_PAGE)
    pages: list[Page] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, start in enumerate(starts, 1):
            part = listed[start : start + PICTURES_A_PAGE]
            pairs = list(
                pool.map(
                    lambda row: pair(row, paths.get(row.key), raw_folder, folder, _LAYOUT), part
                )
            )
            image, draw = sheet(pairs, _fitted(_LAYOUT, pairs), _HEAD)
            head = (
                f"{title}   page {number} of {len(starts)}: pictures {start + 1} to "
                f"{start + len(part)}, the most doubtful first; {_told(len(listed), there)}"
            )
            place = (_LAYOUT.gap, _HEAD // 4)
            draw.text(place, head, INK, ImageFont.load_default(_HEAD_SIZE))
            file = io.BytesIO()
            image.save(file, "JPEG", quality=_QUALITY, subsampling=0)
            name = f"page_{number:03}.jpg"
            (folder / REVIEW).write(name, file.getvalue())
            pages.append(Page(name, [row.key for row in part]))
    return pages


def _fitted(layout: Layout, pairs: Sequence[Pair]) -> Layout:
    """The layout with cells no higher than the pictures are."""
    width, most = layout.cell
    heights = [each.height for pair in pairs for each in (pair.before, pair.after) if each]
    return replace(layout, cell=(width, min(most, max(heights, default=most))))


def _told(listed: int, there: int) -> str:
    if listed == there:
        return f"all {there:,}"
    return (
        f"{listed:,} of {there:,} are shown, the last third of them evenly taken from the rest "
        "(review.max_pages)"
    )


def _state(rows: Sequence[ProcessedRow], title: str, max_pages: int) -> str:
    """A hash of all that the files are drawn from."""
    names = [field.name for field in fields(ProcessedRow)]
    digest = hashlib.sha256(repr((_VERSION, title, max_pages)).encode())
    for row in rows:
        digest.update(repr([getattr(row, name) for name in names]).encode("utf-8", "replace"))
    return digest.hexdigest()


def _known(review: Folder, state: str) -> list[Page] | None:
    """The pages of an earlier run, if it drew the same."""
    try:
        index = json.loads(review.read(INDEX))
    except (FileNotFoundError, ValueError):
        return None
    if index["state"] != state:
        return None
    return [Page(name, keys) for name, keys in index["pages"].items()]
