"""Markdown that the Dagster UI and the documents show: cells of tables, inline images."""

from __future__ import annotations

import base64
import re
from typing import Literal
from urllib.parse import quote

_SPECIAL = re.compile(r"[\\`*_\[\]<>|~&]")

# Dagster stores inline images in its database. The sum is at most 50 kB per run, base64 included.
CONTACT_SHEET_BYTES = 20_000
HISTOGRAMS_BYTES = 3_000  # at any content, because their size and colours are fixed
GALLERY_BYTES = {"raw_images": 11_000, "processed_images": 16_000}
"""Bytes of the galleries of all failed checks of an asset together."""


def escape_cell(text: str, max_length: int | None = None) -> str:
    """Escape a text for a cell of a Markdown table.

    Args:
        text: The text; line breaks become spaces.
        max_length: Number of characters after which the result is cut; None to keep all.
    """
    return text.replace("|", "\\|").replace("\n", " ")[:max_length]


def escape_text(text: str) -> str:
    """Escape a text so that Markdown shows it as it is, also in a link or a cell of a table.

    Args:
        text: The text; line breaks become spaces.
    """
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.splitlines()))


def inline_image(data: bytes, format_: Literal["avif", "png", "webp"]) -> str:
    """Build an image whose data are part of the Markdown text.

    Args:
        data: The bytes of the image file.
        format_: The format of the image file. WebP takes half the bytes of JPEG at this size;
            AVIF a fifth less than WebP, but more for thumbnails.
    """
    return f"![](data:image/{format_};base64,{base64.b64encode(data).decode()})"


def inline_svg(svg: str) -> str:
    """Build an SVG image that is part of the Markdown text.

    Args:
        svg: The text of the image; with `'` around attributes, it takes the fewest bytes.
    """
    # Percent-encoded, not base64: letters, digits and these take one byte each.
    text = quote(svg, safe="/:;,=+'")
    return f"![](data:image/svg+xml,{text})"
