"""Formats that Pillow decodes with an optional package only: HEIC and JPEG XL; telling AVIF apart.

HEIC and AVIF share a container whose list of brands says which of them a file is.
"""

from __future__ import annotations

import importlib
from functools import cache

HEIC, JPEG_XL = "heic", "jxl"
"""Formats that need a package, and the names of the extras of imgassets that install them."""

_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_JPEG_XL_SIGNATURES = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_JPEG_XL_RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_PACKAGES = {HEIC: "pillow_heif", JPEG_XL: "pillow_jxl"}
_NAMES = {HEIC: "HEIC", JPEG_XL: "JPEG XL"}
PILLOW_NAMES = {HEIC: "HEIF", JPEG_XL: "JXL"}
"""The names of these formats in Pillow."""


def is_avif(data: bytes) -> bool:
    """Whether a file begins as an AVIF file, whichever of its brands is the major one."""
    return bool(_brands(data) & _AVIF_BRANDS)


def identify(data: bytes) -> str | None:
    """`HEIC` or `JPEG_XL` if a file begins as such; None for all other files."""
    if data.startswith(_JPEG_XL_SIGNATURES):
        return JPEG_XL
    brands = _brands(data)
    return HEIC if brands & _HEIC_BRANDS and not brands & _AVIF_BRANDS else None


def jpeg_xl_size(data: bytes) -> tuple[int, int]:
    """Read width and height of a JPEG XL file, in pixels (ISO/IEC 18181-1, D.2).

    Args:
        data: The whole file, a codestream or a container.

    Returns:
        Width and height before any orientation; 0 and 0 if there is no codestream.
    """
    start = data.find(b"\xff\x0a")
    if start < 0:
        return 0, 0
    bits = int.from_bytes(data[start + 2 : start + 14], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & (1 << count) - 1
        bits >>= count
        return value

    small = take(1)

    def side() -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = _JPEG_XL_RATIOS[take(3)]
    return (side() if ratio is None else height * ratio[0] // ratio[1]), height


def _brands(data: bytes) -> set[bytes]:
    """The major and the compatible brands (ISO/IEC 14496-12, 4.3)."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4]), 512)  # bytes; usual files list less than ten brands
    # The minor version lies between them; no brand looks like it.
    return {data[8:12], *(data[pos : pos + 4] for pos in range(16, end, 4))}


@cache
def is_installed(format_: str) -> bool:
    """Make Pillow decode `HEIC` or `JPEG_XL`; False if the package is not installed."""
    try:
        package = importlib.import_module(_PACKAGES[format_])
    except ImportError:
        return False
    if format_ == HEIC:
        package.register_heif_opener()
    return True


def missing(format_: str) -> str:
    """The sentence that says which extra decodes the format."""
    return f"{_NAMES[format_]} files need the extra imgassets[{format_}]"
