"""Decompress response bodies: some servers compress although the request asks for `identity`.

The size of the result is limited, because a few kilobytes of gzip can expand to gigabytes.
"""

from __future__ import annotations

import contextlib
import re
import zlib

from imgassets.errors import BodyTooLargeError, ContentEncodingError


def decompress(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Decompress a gzip or deflate body.

    Some servers declare `gzip` for an uncompressed image, so a body that is not compressed is
    returned unchanged. So is a body in any other encoding; its inspection then finds no image.

    Args:
        body: The body as sent over the network.
        encoding: The Content-Encoding header: names in the order in which they were applied,
            separated by commas or newlines.
        max_bytes: Maximum size of the result in bytes.

    Returns:
        The decompressed body.

    Raises:
        BodyTooLargeError: The result would be larger than `max_bytes`. At most `max_bytes` + 1
            bytes are ever held in memory.
        ContentEncodingError: The compressed data are truncated or damaged.
    """
    for name in reversed([part.strip().lower() for part in re.split(r"[,\n]", encoding)]):
        if name in ("gzip", "x-gzip") and body.startswith(b"\x1f\x8b"):
            body = _inflate(body, 16 + zlib.MAX_WBITS, max_bytes)
        # RFC 1950: the low half of the first byte is 8; the first two bytes are divisible by 31.
        elif name == "deflate" and body[:1] == b"\x78" and int.from_bytes(body[:2]) % 31 == 0:
            body = _inflate(body, zlib.MAX_WBITS, max_bytes)
    return body


def decompress_start(body: bytes, max_bytes: int) -> bytes:
    """Decompress the start of a gzip body as far as it goes.

    Args:
        body: The body, or its first bytes; returned unchanged if it is not gzip.
        max_bytes: Maximum size of the result in bytes.

    Returns:
        At most `max_bytes` decompressed bytes: those before a limit, an end or damage.
    """
    if not body.startswith(b"\x1f\x8b"):
        return body
    decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
    data = bytearray()
    # In small parts, because zlib returns nothing of the part in which it finds damage.
    with contextlib.suppress(zlib.error):
        for start in range(0, len(body), 256):
            if (left := max_bytes - len(data)) <= 0:
                break
            data += decompressor.decompress(body[start : start + 256], left)
    return bytes(data)


def _inflate(body: bytes, window_bits: int, max_bytes: int) -> bytes:
    decompressor = zlib.decompressobj(window_bits)
    try:
        data = decompressor.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise ContentEncodingError(f"the compressed body is damaged: {error}") from error
    if len(data) > max_bytes:
        raise BodyTooLargeError(
            f"more than {max_bytes} bytes after decompression (download.max_bytes)"
        )
    if not decompressor.eof:
        raise ContentEncodingError("the compressed body is truncated")
    return data
