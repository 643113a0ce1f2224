"""Build ICC profiles for tests, because the test machines have none installed."""

from __future__ import annotations

import struct
from collections.abc import Callable

# D50-adapted primaries of the public profiles with these names.
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71187, 0.0), (0.03134, 0.00009, 0.82491))
D50 = (0.9642, 1.0, 0.8249)


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(_fixed(value) for value in values)


def _text(text: bytes) -> bytes:
    return b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + b"\0" + b"\0" * 79


def _gamma(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def _profile(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        padded = data + b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", start + len(body), len(data))
        body += padded
    head = struct.pack(
        ">I4sI4s4s4s", start + len(body), b"lcms", 0x02400000, kind, space, connection
    )
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    head += b"".join(_fixed(value) for value in D50)
    return head.ljust(128, b"\0") + table + body


def rgb_profile(primaries: tuple[tuple[float, ...], ...], gamma: float) -> bytes:
    """An RGB matrix profile with three primaries in XYZ and one gamma."""
    tags = {b"desc": _text(b"test"), b"cprt": b"text\0\0\0\0none\0", b"wtpt": _xyz(D50)}
    for channel, values in zip(b"rgb", primaries, strict=True):
        tags[bytes([channel]) + b"XYZ"] = _xyz(values)
        tags[bytes([channel]) + b"TRC"] = _gamma(gamma)
    return _profile(b"RGB ", b"XYZ ", b"mntr", tags)


def grey_profile(gamma: float) -> bytes:
    """A grey profile with one gamma."""
    tags = {b"desc": _text(b"test"), b"cprt": b"text\0\0\0\0none\0", b"wtpt": _xyz(D50)}
    return _profile(b"GRAY", b"XYZ ", b"mntr", tags | {b"kTRC": _gamma(gamma)})


def cmyk_profile(lab: Callable[[int, int, int, int], tuple[float, float, float]]) -> bytes:
    """A CMYK profile with 2^4 grid points; `lab` returns the L*a*b* for inks of 0 or 1."""
    grid = b""
    for corner in range(16):
        light, a, b = lab(corner >> 3 & 1, corner >> 2 & 1, corner >> 1 & 1, corner & 1)
        grid += bytes([round(light * 255 / 100), round(a) + 128, round(b) + 128])
    identity = b"".join(_fixed(float(i == j)) for i in range(3) for j in range(3))
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + grid + ramp * 3
    tags = {b"desc": _text(b"test"), b"cprt": b"text\0\0\0\0none\0", b"wtpt": _xyz(D50)}
    return _profile(b"CMYK", b"Lab ", b"prtr", tags | {b"A2B0": lut})
