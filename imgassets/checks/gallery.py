"""Render findings as a Markdown table with thumbnails, which the Dagster UI shows inline.

The table is stored in Dagster's event log with each failed check, so the bytes of its thumbnails
are limited. A finding without a thumbnail shows the location of its file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from imgassets.checks.outcome import Finding
from imgassets.errors import UnreadableImageError
from imgassets.markdown import escape_cell, inline_image
from imgassets.storage import Storage
from imgassets.thumbnails import FaceBox, encode_webp, load_scaled, pixelate_faces

# A thumbnail of 112 pixels takes about 1 kB.
MAX_THUMBNAILS = 12
MAX_ROWS = 40
_MAX_CELL = 300  # characters
_SIDE = 112
_QUALITY = 50
_INLINE_IMAGE = "!["  # a location does not begin with it

FindFaces: TypeAlias = Callable[[bytes], Sequence[FaceBox] | None]
"""Returns the face boxes in an image file; None if they are unknown."""


def gallery(
    findings: Sequence[Finding],
    storage: Storage,
    max_bytes: int,
    find_faces: FindFaces | None,
    found: int | None = None,
) -> str:
    """Render a table with the columns image, key and detail.

    The first `MAX_THUMBNAILS` findings with a file have a thumbnail if it fits into `max_bytes`,
    and the first `MAX_ROWS` are listed; the last line says how many more there are. A missing or
    broken file is shown as text.

    Args:
        findings: The findings, worst first.
        storage: The storage of their files.
        max_bytes: Maximum number of bytes of all thumbnails, base64 included; 0 for no thumbnail.
        find_faces: Finds the faces to pixelate; an image whose faces are unknown is not shown. None
            shows all faces.
        found: The number of all findings, if `findings` has the first ones only.
    """
    lines = ["| image | key | |", "|---|---|---|"]
    tried = 0
    for finding in findings[:MAX_ROWS]:
        cell = ""
        if finding.path is not None:
            tried += 1
            cell = _cell(finding, storage, max_bytes if tried <= MAX_THUMBNAILS else 0, find_faces)
            max_bytes -= len(cell) if cell.startswith(_INLINE_IMAGE) else 0
        key, detail = (escape_cell(text, _MAX_CELL) for text in (finding.key, finding.detail))
        lines.append(f"| {cell} | {key} | {detail} |")
    if (more := (len(findings) if found is None else found) - MAX_ROWS) > 0:
        lines.append(f"\nand {more} more: see the manifest")
    return "\n".join(lines)


def thumbnail(data: bytes, faces: Sequence[FaceBox]) -> bytes:
    """Make a small WebP of an image file, upright, with transparent areas white.

    Args:
        data: The bytes of the image file.
        faces: Boxes of the faces to pixelate.

    Returns:
        A WebP that fits into 112 x 112 pixels.

    Raises:
        UnreadableImageError: The file is broken or of a kind that is not supported.
    """
    image, scale = load_scaled(data, (_SIDE, _SIDE))
    pixelate_faces(image, faces, scale)
    return encode_webp(image, _QUALITY)


def _cell(finding: Finding, storage: Storage, max_bytes: int, find_faces: FindFaces | None) -> str:
    """An inline image of at most `max_bytes`; otherwise the location of the file."""
    if finding.path is None:
        return ""
    location = escape_cell(storage.address(finding.path), _MAX_CELL)
    if max_bytes <= 0:
        return location
    try:
        data = storage.read(finding.path)
        faces = find_faces(data) if find_faces else []
        if faces is None:
            return f"not shown, because its faces are unknown: {location}"
        small = thumbnail(data, [*faces, *finding.faces] if find_faces else [])
    except FileNotFoundError:
        return f"missing: {location}"
    except UnreadableImageError:
        return f"cannot be shown: {location}"
    image = inline_image(small, "webp")
    return image if len(image) <= max_bytes else location
