"""Pictures with their names, as Markdown that Dagster's page shows inline.

It is stored in Dagster's event log with each failed check, so it is small: some tens of kilobytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image, ImageOps

from imgassets.checks.verdict import Concern

# 12 of 144 pixels are 60 to 80 kB.
MAX_PICTURES = 12
MAX_ROWS = 40
_SIDE = 144
_QUALITY = 60


def gallery(concerns: Sequence[Concern]) -> str:
    """A table: thumbnail, key, what is the matter.

    Only the first have a thumbnail, and only the first few dozen are listed; the last line says
    how many more there are. A file that is gone or broken is shown as words.
    """
    lines = ["| picture | key | |", "|---|---|---|"]
    shown = 0
    for concern in concerns[:MAX_ROWS]:
        cell = ""
        if concern.path is not None and shown < MAX_PICTURES:
            cell = _cell(concern)
            shown += 1
        lines.append(f"| {cell} | {_plain(concern.key)} | {_plain(concern.what)} |")
    if len(concerns) > MAX_ROWS:
        lines.append(f"\nand {len(concerns) - MAX_ROWS} more: see the manifest")
    return "\n".join(lines)


def thumbnail(data: bytes) -> bytes:
    """A small JPEG of a picture file, upright, on white where it is transparent.

    Raises:
        OSError, ValueError, and whatever else decoders raise: the file is broken.
    """
    with Image.open(io.BytesIO(data)) as image:
        # JPEGs are decoded at about this size, in a fraction of the time.
        image.draft("RGB", (2 * _SIDE, 2 * _SIDE))
        upright = ImageOps.exif_transpose(image)
        upright.thumbnail((_SIDE, _SIDE))
        if upright.has_transparency_data:
            rgba = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        file = io.BytesIO()
        upright.convert("RGB").save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()


def _cell(concern: Concern) -> str:
    if concern.folder is None or concern.path is None:
        return ""
    try:
        small = thumbnail(concern.folder.read(concern.path))
    except FileNotFoundError:
        return "gone"
    except Exception:  # noqa: BLE001  (decoders raise whatever the broken bytes lead to)
        return "cannot be shown"
    return f"![](data:image/jpeg;base64,{base64.b64encode(small).decode()})"


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:300]
