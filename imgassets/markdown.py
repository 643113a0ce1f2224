"""Markdown that the Dagster UI and the documents show: cells of tables, inline images."""

from __future__ import annotations

import base64
from typing import Literal


def escape_cell(text: str, max_length: int | None = None) -> str:
    """Escape a text for a cell of a Markdown table.

    Args:
        text: The text; line breaks become spaces.
        max_length: Number of characters after which the result is cut; None to keep all.
    """
    return text.replace("|", "\\|").replace("\n", " ")[:max_length]


def inline_image(data: bytes, format_: Literal["jpeg", "png"]) -> str:
    """Build an image whose data are part of the Markdown text.

    Args:
        data: The bytes of the image file.
        format_: The format of the image file.
    """
    return f"![](data:image/{format_};base64,{base64.b64encode(data).decode()})"
