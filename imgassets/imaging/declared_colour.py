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
_BT2020 = (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
_PRIMARIES = {
    1: _SRGB_PRIMARIES,
    2: _SRGB_PRIMARIES,  # unspecified
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: _SMPTE_170M,
    7: _SMPTE_170M,
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: _BT2020,
    10: (1 / 3, 1 / 3, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0),  # XYZ
    11: (*_DCI, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_UNSPECIFIED = 2
# From a stored value v to light: (a v + b) ** g where v >= d, else c v. These are g, a, b, c and d,
# the parameters of function type 3 of ICC's parametricCurveType.
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def _power(exponent: float, factor: float = 1.0) -> tuple[float, ...]:
    return (exponent, factor ** (1 / exponent), 0.0, 0.0, 0.0)


# By the number of the transfer function (table 3).
_CURVES = {
    4: _power(2.2),
    5: _power(2.8),
    7: (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0912),
    8: _power(1.0),
    13: _SRGB_CURVE,
    17: _power(2.6, 52.37 / 48),
    _PQ: _SRGB_CURVE,  # after `tone_mapped`
    _HLG: _SRGB_CURVE,
}
# Of cameras (BT.709, BT.601, xvYCC and BT.2020). In PNG files, Chromium shows them as a television
# does (ITU-R BT.1886); in AVIF files, where encoders write them without thought, like sRGB.
_CAMERA_CURVES = (1, 6, 11, 14, 15)
_TELEVISION_CURVE = _power(2.4)
# A gamma this close to 1 / 2.2 means sRGB (libpng's PNG_GAMMA_THRESHOLD).
_GAMMA_TOLERANCE = 0.05
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array(
    ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
)
_SDR_WHITE, _HDR_PEAK = 203.0, 1000.0  # cd/m² (ITU-R BT.2408; mastering displays)
_BT2020_LUMINANCE = np.array((0.2627, 0.6780, 0.0593))
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class ColourSpace:
    """A colour space of three primaries and one curve.

    Attributes:
        primaries: CIE x and y of white, red, green and blue.
        curve: Parameters g, a, b, c and d of the curve from stored values to light.
        hdr: Number of the HDR transfer function in ITU-T H.273 (16 or 18); None for SDR. The pixels
            must go through `tone_mapped`, after which they have the curve of sRGB.
    """

    primaries: tuple[float, ...]
    curve: tuple[float, ...] = _SRGB_CURVE
    hdr: int | None = None


def of_png(file: Png) -> ColourSpace | bytes | None:
    """The colour space or ICC profile of a PNG file, by precedence (PNG specification, 4.3).

    What counts as a declaration is what Chromium 156 takes for one.

    Args:
        file: The chunks of the file.

    Returns:
        The colour space of cICP, the profile of iCCP, None (sRGB) if there is an sRGB chunk, or the
        colour space of gAMA and cHRM; None if there is no usable declaration.
    """
    chunks = file.ancillary
    if (space := _of_cicp_chunk(chunks.get(b"cICP", b""))) is not None:
        return space
    profile = file.profile
    if profile is not None and profile[36:40] == b"acsp":  # the signature of ICC profiles
        return profile
    if chunks.get(b"sRGB") in (b"\0", b"\1", b"\2", b"\3"):  # the rendering intents
        return None
    return _from_gamma(
        chunks.get(b"gAMA", b""),
        chunks.get(b"cHRM", b""),
        is_grey=file.colour_type in (GREY, GREY_ALPHA),
    )


def _of_cicp_chunk(content: bytes) -> ColourSpace | None:
    if len(content) != 4:
        return None
    primaries, transfer, *kind = content
    # RGB, not YCbCr, of the full range.
    if kind != [0, 1] or _UNSPECIFIED in (primaries, transfer):
        return None
    if transfer in _CAMERA_CURVES and primaries in _PRIMARIES:
        return ColourSpace(_PRIMARIES[primaries], _TELEVISION_CURVE)
    return from_cicp(primaries, transfer)


def from_cicp(primaries: int, transfer: int) -> ColourSpace | None:
    """The colour space with these numbers of ITU-T H.273; None if it has no such numbers.

    Unspecified ones (2) and the curves of cameras mean sRGB.
    """
    if primaries not in _PRIMARIES:
        return None
    if transfer in (_UNSPECIFIED, *_CAMERA_CURVES):
        return ColourSpace(_PRIMARIES[primaries])
    if transfer not in _CURVES:
        return None
    hdr = transfer if transfer in (_PQ, _HLG) else None
    return ColourSpace(_PRIMARIES[primaries], _CURVES[transfer], hdr)


def _from_gamma(gamma_chunk: bytes, primaries_chunk: bytes, *, is_grey: bool) -> ColourSpace | None:
    gamma = int.from_bytes(gamma_chunk) / 100_000 if len(gamma_chunk) == 4 else 0.0
    if gamma <= 0:
        return None
    if len(primaries_chunk) != 32:
        if abs(gamma * 2.2 - 1) <= _GAMMA_TOLERANCE:
            return None
        return ColourSpace(_SRGB_PRIMARIES, _power(1 / gamma))
    primaries = tuple(value / 100_000 for value in struct.unpack(">8I", primaries_chunk))
    if not _is_usable(primaries):
        return None
    # Grey has no primaries.
    return ColourSpace(_SRGB_PRIMARIES if is_grey else primaries, _power(1 / gamma))


def _is_usable(primaries: tuple[float, ...]) -> bool:
    """Whether the primaries span a triangle and the white point has a brightness."""
    if max(primaries) > 1 or primaries[1] <= 0:
        return False
    return bool(abs(np.linalg.det(_xyz(primaries))) > 1e-6)


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


def tone_mapped(image: PILImage.Image, space: ColourSpace) -> PILImage.Image:
    """Map HDR pixels to the range of SDR, as Chromium 156 does on an SDR display.

    That is the reference white tone mapping operator of SMPTE ST 2094-50 (annex C.3) for content of
    1,000 cd/m²: white for text and paper becomes half of SDR's white, the rest is for highlights.

    Args:
        image: RGB image, encoded with an HDR transfer function.
        space: Its colour space, of which `hdr` is that function.

    Returns:
        RGB image with the same primaries and the curve of sRGB.
    """
    light_of_level = _light(space.hdr)
    to_bt2020 = np.linalg.solve(_rgb_to_xyz(_BT2020), _rgb_to_xyz(space.primaries)).T
    inputs, outputs = _tone_curve()
    mapped = PILImage.new("RGB", image.size)
    for top in range(0, image.height, _ROWS_AT_ONCE):
        bottom = min(top + _ROWS_AT_ONCE, image.height)
        light = light_of_level[np.asarray(image.crop((0, top, image.width, bottom)))]
        wide = light @ to_bt2020
        gain = np.ones_like(light[:, :, :1])
        if space.hdr == _HLG:  # the system gamma of 1.2 (ITU-R BT.2100, table 5)
            gain *= np.maximum(wide @ _BT2020_LUMINANCE, 0)[:, :, None] ** 0.2
            gain *= _HDR_PEAK / _SDR_WHITE
        # By the largest channel, which keeps the hue.
        largest = np.maximum(wide.max(axis=2, keepdims=True) * gain, 1e-6)
        gain *= np.interp(largest, inputs, outputs) / largest
        light = np.clip(light * gain, 0, 1)
        curve = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
        mapped.paste(PILImage.fromarray(np.rint(curve * 255).astype(np.uint8)), (0, top))
    return mapped


@lru_cache
def _light(transfer: int | None) -> NDArray[np.float32]:
    """Light by 8-bit level (ITU-R BT.2100, tables 4 and 5).

    Of PQ, it is in units of SDR white; of HLG, it is that of the scene, of which the largest is 1.
    """
    level = np.arange(256) / 255
    if transfer == _PQ:
        root = level ** (1 / 78.84375)
        light = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
        return (10_000 / _SDR_WHITE * light ** (1 / 0.1593017578125)).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    light = np.where(level <= 0.5, level**2 / 3, (np.exp((level - c) / a) + b) / 12)
    return light.astype(np.float32)


@lru_cache
def _tone_curve() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Light before and after tone mapping, in units of SDR white; the last is for all above.

    Up to white it is halved; from there, a Bézier curve leads to the peak (formulas C.2 to C.5).
    """
    white, share, peak = 0.5, 0.65, _HDR_PEAK / _SDR_WHITE
    middle = 1 - share + share / white, (1 - share) * white + share
    position = np.linspace(0, 1, 200)
    weights = np.array(((1 - position) ** 2, 2 * position * (1 - position), position**2))
    inputs, outputs = np.array(((1, middle[0], peak), (white, middle[1], 1))) @ weights
    return np.append(0, inputs), np.append(0, outputs)


@lru_cache
def icc_profile(space: ColourSpace) -> bytes:
    """Write a colour space as an ICC profile (ICC.1:2010), without its HDR transfer function."""
    white = _white(space.primaries)
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    matrix = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD
    matrix = matrix @ _rgb_to_xyz(space.primaries)
    curve = b"para\0\0\0\0\0\3\0\0" + _fixed(*space.curve)
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


def _rgb_to_xyz(primaries: tuple[float, ...]) -> NDArray[np.float64]:
    """The matrix from linear RGB to XYZ, by which white has a brightness of 1."""
    matrix = _xyz(primaries)
    return matrix * np.linalg.solve(matrix, _white(primaries))


def _white(primaries: tuple[float, ...]) -> NDArray[np.float64]:
    x, y = primaries[:2]
    return np.array((x / y, 1.0, (1 - x - y) / y))


def _fixed(*values: float) -> bytes:
    """Numbers in ICC's s15Fixed16."""
    limit = 2**31 - 1
    numbers = (min(max(math.floor(value * 65536 + 0.5), -limit), limit) for value in values)
    return b"".join(struct.pack(">i", number) for number in numbers)
