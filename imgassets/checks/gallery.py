"""Render findings as a Markdown table with thumbnails, which the Dagster UI shows inline.

The table is stored in Dagster's event log with each failed check, so it is kept below about 100 kB.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageOps

from imgassets.checks.outcome import Finding
from imgassets.markdown import escape_cell, inline_image

# 12 thumbnails of 144 pixels take 60 to 80 kB.
MAX_THUMBNAILS = 12
MAX_ROWS = 40
_MAX_CELL = 300  # characters
_SIDE = 144
_QUALITY = 60


def gallery(findings: Sequence[Finding]) -> str:
    """Render a table with the columns thumbnail, key and detail.

    The first `MAX_THUMBNAILS` findings with a file have a thumbnail, and the first `MAX_ROWS` are
    listed; the last line says how many more there are. A missing or broken file is shown as text.
    """
    lines = ["| image | key | |", "|---|---|---|"]
    shown = 0
    for finding in findings[:MAX_ROWS]:
        cell = ""
        if finding.path is not None and shown < MAX_THUMBNAILS:
            cell = _cell(finding)
            shown += 1
        key, detail = (escape_cell(text, _MAX_CELL) for text in (finding.key, finding.detail))
        lines.append(f"| {cell} | {key} | {detail} |")
    if len(findings) > MAX_ROWS:
        lines.append(f"\nand {len(findings) - MAX_ROWS} more: see the manifest")
    return "\n".join(lines)


def thumbnail(data: bytes) -> bytes:
    """Make a small JPEG of an image file, upright, with transparent areas white.

    Args:
        data: The bytes of the image file.

    Returns:
        A JPEG that fits into 144 x 144 pixels.

    Raises:
        Exception: The file is broken. Decoders raise `OSError`, `ValueError` and others.
    """
    with Image.open(io.BytesIO(data)) as image:
        # Decodes a JPEG at about this size, in a fraction of the time.
        image.draft("RGB", (2 * _SIDE, 2 * _SIDE))
        upright = ImageOps.exif_transpose(image)
        upright.thumbnail((_SIDE, _SIDE))
        if upright.has_transparency_data:
            rgba = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        file = io.BytesIO()
        upright.convert("RGB").save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()


def _cell(finding: Finding) -> str:
    if finding.folder is None or finding.path is None:
        return ""
    try:
        small = thumbnail(finding.folder.read(finding.path))
    except FileNotFoundError:
        return "missing"
    except Exception:  # noqa: BLE001  (decoders raise many types on broken bytes)
        return "cannot be shown"
    return inline_image(small, "jpeg")
