"""Generate small image files for tests."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image as PILImage


def image_bytes(format_: str = "JPEG", width: int = 60, height: int = 90, seed: int = 0) -> bytes:
    """Return an encoded image of random noise, `width` x `height` pixels."""
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PILImage.fromarray(noise).save(buffer, format=format_)
    return buffer.getvalue()


def png_of(width: int, height: int) -> bytes:
    """Return a small PNG file with one colour and any dimensions in pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    chunks = [_chunk(b"IHDR", header), _chunk(b"IDAT", pixels), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
