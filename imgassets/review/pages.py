"""Write contact sheets and plots of a partition as files.

This module lays out the full-size pages and removes the files of earlier runs. Selecting images is
in `contact_sheet`, drawing pairs in `drawing`, histograms in `plots`. These are imported when
something has changed, so that other runs do not import OpenCV and Pillow.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import orjson
import pyarrow as pa

from imgassets.cores import available_cores
from imgassets.manifests import ProcessedRow, from_table
from imgassets.markdown import CONTACT_SHEET_BYTES, inline_image
from imgassets.review.layout import Layout
from imgassets.settings import ReviewSettings
from imgassets.storage import PartitionFiles
from imgassets.tables import as_mask
from imgassets.wording import counted

if TYPE_CHECKING:
    from imgassets.review.drawing import Pair

CONTACT_SHEET = "contact_sheet.jpg"
HISTOGRAMS = "histograms.png"
INDEX = "index.json"
"""File that lists the image keys of each page, and has the images that the Dagster UI shows."""
IMAGES_PER_PAGE = 40

# A 2:3 image of the default size, 448 pixels high, is shown without scaling. A full page has
# 12 megapixels, which browsers still display at once.
_LAYOUT = Layout(cell=(300, 450), pairs=4, gap=6, caption=44, font_size=16, max_key_length=66)
_HEADER_HEIGHT, _HEADER_FONT_SIZE = 40, 20  # px
_QUALITY = 80
_PLOT_SCALE = 3
_MAX_THREADS = 4  # each has a page in memory
_VERSION = 7  # increment it when the look of the files changes, so that they are drawn again
_BATCH = 5_000  # rows
_PAGE = re.compile(r"page_\d+\.jpg")


@dataclass(frozen=True)
class Page:
    """A full-size contact sheet.

    Attributes:
        name: Name of the file in the partition's review folder.
        keys: Keys of the images on it, in reading order.
    """

    name: str
    keys: list[str]


def write_review(table: pa.Table, partition: PartitionFiles, options: ReviewSettings) -> list[Page]:
    """Write the small contact sheet, the full-size pages and the full-size histograms.

    A page shows raw images beside the processed ones at a legible size, by review priority. Images
    that another partition processed are on its pages; the small contact sheet shows all. If there
    are more images than the pages hold, they show a selection (`select_rows`) and say so. Up
    to four pages at a time are in memory (about 80 MB each). Files of an earlier run that are no
    longer needed are removed. If nothing has changed, no file is written again, so that pages keep
    showing raw images that were removed since.

    Args:
        table: The manifest of `processed_images`.
        partition: The partition; its date and retailer are the title of every page.
        options: Maximum number of pages, with `IMAGES_PER_PAGE` images each, and whether detected
            faces are hidden.

    Returns:
        The full-size pages, in order.

    Raises:
        StorageError: A file cannot be read or written.
    """
    storage, review = partition.storage, partition.review
    title = f"{partition.date}|{partition.retailer}"
    content_hash = _content_hash(table, title, options)
    if (unchanged := _read_unchanged_pages(partition, content_hash)) is not None:
        return unchanged
    from imgassets.review.contact_sheet import contact_sheet, inline_contact_sheet, showable_rows
    from imgassets.review.plots import histograms

    # The index is written last: after a crash in between, the next run draws everything again.
    storage.remove(f"{review}/{INDEX}")
    pages: list[Page] = []
    inline: dict[str, str] = {}
    if len(showable_rows(table)):
        sheet = contact_sheet(table, storage, hide_faces=options.hide_faces)
        storage.write(f"{review}/{CONTACT_SHEET}", sheet)
        storage.write(f"{review}/{HISTOGRAMS}", histograms(table, scale=_PLOT_SCALE))
        inline = {
            "contact sheet": inline_contact_sheet(sheet, CONTACT_SHEET_BYTES),
            "histograms": inline_image(histograms(table), "png"),
        }
        pages = _write_pages(table, partition, title, options)
    else:
        storage.remove(f"{review}/{CONTACT_SHEET}")
        storage.remove(f"{review}/{HISTOGRAMS}")
    names = {page.name for page in pages}
    for name in storage.names(review):
        if _PAGE.fullmatch(name) and name not in names:
            storage.remove(f"{review}/{name}")
    index = {
        "state": content_hash,
        "pages": {page.name: page.keys for page in pages},
        "inline": inline,
    }
    storage.write(f"{review}/{INDEX}", json.dumps(index, indent=1).encode())
    return pages


def read_inline_images(partition: PartitionFiles) -> dict[str, str]:
    """Read the small images of a partition that the Dagster UI shows, as Markdown.

    Args:
        partition: The partition, after `write_review`.

    Returns:
        `contact sheet` and `histograms`; empty if there is no image to show.

    Raises:
        StorageError: The file cannot be read.
    """
    index = json.loads(partition.storage.read(f"{partition.review}/{INDEX}"))
    return dict(index["inline"])


def _write_pages(
    table: pa.Table, partition: PartitionFiles, title: str, options: ReviewSettings
) -> list[Page]:
    from PIL import ImageFont

    from imgassets.review.contact_sheet import select_rows, showable_rows
    from imgassets.review.drawing import TEXT_COLOUR, draw_sheet, load_pair

    is_new = as_mask(table["reused_from"].is_null())
    candidates = showable_rows(table)
    candidates = candidates[is_new[candidates]]
    total = len(candidates)
    selected = select_rows(table, candidates, options.max_pages * IMAGES_PER_PAGE)
    starts = range(0, len(selected), IMAGES_PER_PAGE)

    def write_page(start: int) -> Page:
        page_rows = selected[start : start + IMAGES_PER_PAGE]
        number = start // IMAGES_PER_PAGE + 1
        pairs = [
            load_pair(row, partition.storage, _LAYOUT, hide_faces=options.hide_faces)
            for row in page_rows
        ]
        image, draw = draw_sheet(pairs, _reduce_cell_height(_LAYOUT, pairs), _HEADER_HEIGHT)
        header = (
            f"{title}   page {number} of {len(starts)}: images {start + 1} to "
            f"{start + len(page_rows)} by review priority; {_selection_text(len(selected), total)}"
        )
        corner = (_LAYOUT.gap, _HEADER_HEIGHT // 4)
        draw.text(corner, header, TEXT_COLOUR, ImageFont.load_default(_HEADER_FONT_SIZE))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=_QUALITY, subsampling=0)
        name = f"page_{number:03}.jpg"
        partition.storage.write(f"{partition.review}/{name}", file.getvalue())
        return Page(name, [row.key for row in page_rows])

    with ThreadPoolExecutor(min(_MAX_THREADS, available_cores())) as pool:
        return list(pool.map(write_page, starts))


def _reduce_cell_height(layout: Layout, pairs: Sequence[Pair]) -> Layout:
    """Reduce the cells of a layout to the height of the tallest image."""
    width, most = layout.cell
    heights = [each.height for pair in pairs for each in (pair.before, pair.after) if each]
    return replace(layout, cell=(width, min(most, max(heights, default=most))))


def _selection_text(selected: int, total: int) -> str:
    if selected == total:
        return f"{counted(total, 'image')}, all of the partition"
    return (
        f"{selected:,} of {counted(total, 'image')}, the last third spread evenly over the "
        "partition (review.max_pages)"
    )


def _content_hash(table: pa.Table, title: str, options: ReviewSettings) -> str:
    """A hash of everything that the files are drawn from."""
    drawn_with = (_VERSION, title, options.max_pages, options.hide_faces)
    digest = hashlib.sha256(repr(drawn_with).encode())
    # Not `Rows`, which keeps the rows that it has made.
    for start in range(0, table.num_rows, _BATCH):
        for row in from_table(table.slice(start, _BATCH), ProcessedRow):
            digest.update(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY))
    return digest.hexdigest()


def _read_unchanged_pages(partition: PartitionFiles, content_hash: str) -> list[Page] | None:
    """The pages of an earlier run with the same content; None if there was none."""
    try:
        index = json.loads(partition.storage.read(f"{partition.review}/{INDEX}"))
    except (FileNotFoundError, ValueError):
        return None
    if index["state"] != content_hash:
        return None
    return [Page(name, keys) for name, keys in index["pages"].items()]
