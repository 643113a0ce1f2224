"""Rewrite BMP files of the kinds that browsers show and Pillow does not know."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_FILE_HEADER, _INFO_HEADER, _V4_HEADER = 14, 40, 108  # bytes
_SHORT_OS2_HEADER = 16
_BITFIELDS, _ALPHA_BITFIELDS = 3, 6
_BGRA = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)


def in_usual_form(data: bytes) -> bytes:
    """Rewrite a bitmap with a short OS/2 header, too many colours or unusual colour masks.

    Args:
        data: The whole file.

    Returns:
        A file with a header of 40 bytes, or with 8 bits per channel; the file itself if it needs no
        change, is truncated or is no bitmap.
    """
    if len(data) < _FILE_HEADER + _SHORT_OS2_HEADER or not data.startswith(b"BM"):
        return data
    offset, header = struct.unpack_from("<II", data, 10)
    if header == _SHORT_OS2_HEADER:
        start = _FILE_HEADER + _SHORT_OS2_HEADER
        added = _INFO_HEADER - _SHORT_OS2_HEADER
        info = struct.pack("<I", _INFO_HEADER) + data[_FILE_HEADER + 4 : start] + bytes(added)
        return data[:10] + struct.pack("<I", offset + added) + info + data[start:]
    if header < _INFO_HEADER or len(data) < _FILE_HEADER + _INFO_HEADER + 16:
        return data
    width, height, _planes, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression not in (_BITFIELDS, _ALPHA_BITFIELDS) or bits not in (16, 32):
        return _with_usable_palette(data, bits)
    masks = struct.unpack_from("<4I", data, _FILE_HEADER + _INFO_HEADER)
    if header < 56 and compression == _BITFIELDS:
        masks = (*masks[:3], 0)  # the fourth is no mask, but already a pixel
    stored = _pixels(data, offset, width, abs(height), bits)
    if stored is None or not all(masks[:3]):
        return data
    channels = [_channel(stored, mask) for mask in (masks[2], masks[1], masks[0], masks[3])]
    new_masks = _BGRA if masks[3] else (*_BGRA[:3], 0)
    start = _FILE_HEADER + _V4_HEADER
    info = struct.pack("<IiiHHI", _V4_HEADER, width, height, 1, 32, _BITFIELDS).ljust(40, b"\0")
    info = (info + struct.pack("<4I", *new_masks)).ljust(_V4_HEADER, b"\0")
    return data[:10] + struct.pack("<I", start) + info + np.dstack(channels).tobytes()


def _with_usable_palette(data: bytes, bits: int) -> bytes:
    """Let the header name no more colours than the pixels can; browsers ignore the others."""
    (colours,) = struct.unpack_from("<I", data, 46)
    if bits > 8 or colours <= 2**bits:
        return data
    return data[:46] + struct.pack("<I", 2**bits) + data[50:]


def _pixels(
    data: bytes, offset: int, width: int, height: int, bits: int
) -> NDArray[np.uint32] | None:
    """The stored values, rows in the order of the file; None if some are missing."""
    if width < 1 or height < 1:
        return None
    per_row = -(-width * bits // 32) * 32 // bits  # rows are padded to four bytes
    missing = offset + per_row * height * bits // 8 - len(data)
    if missing > (per_row - width) * bits // 8:  # the padding of the last row may be missing
        return None
    whole = data + bytes(max(missing, 0))
    stored = np.frombuffer(whole, f"<u{bits // 8}", per_row * height, offset)
    return stored.reshape(height, per_row)[:, :width].astype(np.uint32)


def _channel(stored: NDArray[np.uint32], mask: int) -> NDArray[np.uint8]:
    if mask == 0:
        return np.zeros(stored.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    highest = mask >> shift
    values = (stored & np.uint32(mask)) >> np.uint32(shift)
    levels: NDArray[np.uint8] = np.rint(values * (255 / highest)).astype(np.uint8)
    return levels
