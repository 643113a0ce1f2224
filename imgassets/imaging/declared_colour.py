"""Colour spaces that a file declares by numbers instead of an ICC profile: PNG, AVIF and HEIC.

A declared space becomes an ICC profile, which LittleCMS converts in `colour`; only the tone mapping
of HDR pixels is done here, because a profile cannot express it.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from imgassets.imaging.png import GREY, GREY_ALPHA, Png

_PQ, _HLG = 16, 18
# CIE x and y of white, red, green and blue, by number (ITU-T H.273, table 2).
_D65, _C, _DCI = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
_SRGB_PRIMARIES = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_SMPTE_170M = (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)
_PRIMARIES = {
    1: _SRGB_PRIMARIES,
    2: _SRGB_PRIMARIES,  # unspecified
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: _SMPTE_170M,
    7: _SMPTE_170M,
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (*_DCI, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
# Exponents by the number of the transfer function (table 3). The curves of BT.709, BT.601 and
# BT.2020 (1, 6, 14, 15) describe cameras; images that declare them are shown like sRGB (13).
_EXPONENTS = {4: 2.2, 5: 2.8, 8: 1.0}
_SRGB_CURVES = (1, 2, 6, 13, 14, 15, _PQ, _HLG)
# A gamma this close to 1 / 2.2 means sRGB (libpng's PNG_GAMMA_THRESHOLD).
_GAMMA_TOLERANCE = 0.05
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array(
    ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
)
_SDR_WHITE, _HDR_PEAK = 203.0, 1000.0  # cd/m² (ITU-R BT.2408; mastering displays)
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class ColourSpace:
    """A colour space of three primaries and one curve.

    Attributes:
        primaries: CIE x and y of white, red, green and blue.
        exponent: Exponent from stored to linear values; None for the curve of sRGB.
        hdr: Number of the HDR transfer function in ITU-T H.273 (16 or 18); None for SDR. The pixels
            must go through `tone_mapped`, after which they have the curve of sRGB.
    """

    primaries: tuple[float, ...]
    exponent: float | None = None
    hdr: int | None = None


def from_cicp(primaries: int, transfer: int) -> ColourSpace | None:
    """The colour space with these numbers of ITU-T H.273; None if it has no such numbers."""
    if primaries not in _PRIMARIES or transfer not in (*_SRGB_CURVES, *_EXPONENTS):
        return None
    hdr = transfer if transfer in (_PQ, _HLG) else None
    return ColourSpace(_PRIMARIES[primaries], _EXPONENTS.get(transfer), hdr)


def of_png(file: Png) -> ColourSpace | bytes | None:
    """The colour space or ICC profile of a PNG file, by precedence (PNG specification, 4.3).

    Args:
        file: The chunks of the file.

    Returns:
        The colour space of cICP, the profile of iCCP, None (sRGB) if there is an sRGB chunk, or the
        colour space of gAMA and cHRM; None if there is no usable declaration.
    """
    chunks = file.ancillary
    cicp = chunks.get(b"cICP", b"")
    if len(cicp) == 4 and cicp[2] == 0:  # the pixels must be RGB, not YCbCr
        space = from_cicp(cicp[0], cicp[1])
        if space is not None:
            return space
    if (profile := file.profile) is not None:
        return profile
    if len(chunks.get(b"sRGB", b"")) == 1:
        return None
    return _from_gamma(
        chunks.get(b"gAMA", b""),
        # Grey has no primaries.
        b"" if file.colour_type in (GREY, GREY_ALPHA) else chunks.get(b"cHRM", b""),
    )


def _from_gamma(gamma_chunk: bytes, primaries_chunk: bytes) -> ColourSpace | None:
    exponent = None
    gamma = int.from_bytes(gamma_chunk) / 100_000 if len(gamma_chunk) == 4 else 0.0
    if gamma > 0 and abs(gamma * 2.2 - 1) > _GAMMA_TOLERANCE:
        exponent = 1 / gamma
    primaries = _SRGB_PRIMARIES
    if len(primaries_chunk) == 32:
        values = tuple(value / 100_000 for value in struct.unpack(">8I", primaries_chunk))
        if _is_usable(values):
            primaries = values
    if exponent is None and primaries is _SRGB_PRIMARIES:
        return None
    return ColourSpace(primaries, exponent)


def _is_usable(primaries: tuple[float, ...]) -> bool:
    """Whether the primaries span a triangle that contains the white point."""
    if not all(0 <= value <= 1 for value in primaries) or min(primaries[1::2]) <= 0:
        return False
    matrix = _xyz(primaries)
    if abs(np.linalg.det(matrix)) < 1e-4:
        return False
    return bool((np.linalg.solve(matrix, _white(primaries)) > 0).all())


def of_container(data: bytes) -> ColourSpace | None:
    """The colour space in the nclx box of an AVIF or HEIC file (ISO/IEC 14496-12, 12.1.5).

    Args:
        data: The whole file.

    Returns:
        The colour space; None if there is no such box or its numbers are unknown.
    """
    pos = 0
    while pos + 8 <= len(data):
        size = int.from_bytes(data[pos : pos + 4])
        end = pos + size if size >= 8 else len(data)
        if data[pos + 4 : pos + 8] in (b"meta", b"moov"):
            found = data.find(b"colrnclx", pos, end)
            if 0 <= found <= len(data) - 12:
                return from_cicp(*struct.unpack_from(">HH", data, found + 8))
        pos = end
    return None


def tone_mapped(image: PILImage.Image, transfer: int) -> PILImage.Image:
    """Map HDR pixels to the range of SDR, as Chromium does on an SDR display.

    Args:
        image: RGB image, encoded with an HDR transfer function.
        transfer: Number of that function in ITU-T H.273: 16 (PQ) or 18 (HLG).

    Returns:
        RGB image with the same primaries and the curve of sRGB.
    """
    linear = _linear(transfer)
    mapped = PILImage.new("RGB", image.size)
    for top in range(0, image.height, _ROWS_AT_ONCE):
        bottom = min(top + _ROWS_AT_ONCE, image.height)
        light = linear[np.asarray(image.crop((0, top, image.width, bottom)))]
        # Extended Reinhard by the largest channel, which keeps the hue (Chromium's color_transform,
        # ToneMapInRec2020Linear): the peak becomes 1.
        largest = light.max(axis=2, keepdims=True)
        light *= (1 + largest * (_SDR_WHITE / _HDR_PEAK) ** 2) / (1 + largest)
        curve = np.where(
            light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055
        )
        levels = np.rint(np.clip(curve, 0, 1) * 255).astype(np.uint8)
        mapped.paste(PILImage.fromarray(levels), (0, top))
    return mapped


@lru_cache
def _linear(transfer: int) -> NDArray[np.float32]:
    """Light by 8-bit level, in units of SDR white (ITU-R BT.2100, tables 4 and 5)."""
    level = np.arange(256) / 255
    if transfer == _PQ:
        root = level ** (1 / 78.84375)
        light = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
        nits = 10_000 * light ** (1 / 0.1593017578125)
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(level <= 0.5, level**2 / 3, (np.exp((level - c) / a) + b) / 12)
        nits = _HDR_PEAK * scene**1.2
    return (np.minimum(nits, _HDR_PEAK) / _SDR_WHITE).astype(np.float32)


@lru_cache
def icc_profile(space: ColourSpace) -> bytes:
    """Write a colour space as an ICC profile (ICC.1:2010), without its HDR transfer function."""
    matrix = _xyz(space.primaries)
    white = _white(space.primaries)
    matrix = matrix * np.linalg.solve(matrix, white)
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    matrix = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ matrix
    if space.exponent is None:
        curve = b"para\0\0\0\0\0\3\0\0" + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    else:
        curve = b"para\0\0\0\0\0\0\0\0" + _fixed(space.exponent)
    text = b"mluc\0\0\0\0\0\0\0\0\0\0\0\x0c"
    tags = {b"desc": text, b"cprt": text, b"wtpt": b"XYZ \0\0\0\0" + _fixed(*_D50)}
    for column, channel in enumerate((b"r", b"g", b"b")):
        tags[channel + b"XYZ"] = b"XYZ \0\0\0\0" + _fixed(*matrix[:, column])
        tags[channel + b"TRC"] = curve
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content
    head = struct.pack(">I4xI", start + len(body), 0x04200000) + b"mntrRGB XYZ "
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp"
    return (head.ljust(68, b"\0") + _fixed(*_D50)).ljust(128, b"\0") + table + body


def _xyz(primaries: tuple[float, ...]) -> NDArray[np.float64]:
    """XYZ of red, green and blue in columns, each with an arbitrary brightness."""
    x, y = np.array(primaries[2::2]), np.array(primaries[3::2])
    return np.array((x, y, 1 - x - y))


def _white(primaries: tuple[float, ...]) -> NDArray[np.float64]:
    x, y = primaries[:2]
    return np.array((x / y, 1.0, (1 - x - y) / y))


def _fixed(*values: float) -> bytes:
    """Numbers in ICC's s15Fixed16."""
    limit = 2**31 - 1
    numbers = (min(max(math.floor(value * 65536 + 0.5), -limit), limit) for value in values)
    return b"".join(struct.pack(">i", number) for number in numbers)
