"""Content codings: bodies that a server compressed although it was asked not to.

Here lives the way back from a coded body to the bytes of the file, within a size limit: a few
kilobytes of gzip can stand for gigabytes.
"""

from __future__ import annotations

import re
import zlib

from imgassets.errors import BodyTooLargeError, ContentEncodingError


def decompressed(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Undo gzip or deflate.

    A body that is not compressed at all, whatever its header says, comes back as it is: servers
    that say `gzip` of a plain picture exist. So does a body in another encoding, which nobody asked
    for; its inspection then says that it is no picture.

    Raises:
        BodyTooLargeError: more than `max_bytes` would come out; at most that much is ever held.
        ContentEncodingError: the compressed data are cut off or damaged.
    """
    for name in reversed([part.strip().lower() for part in re.split(r"[,\n]", encoding)]):
        if name in ("gzip", "x-gzip") and body.startswith(b"\x1f\x8b"):
            body = _inflate(body, 16 + zlib.MAX_WBITS, max_bytes)
        # RFC 1950: the low half of the first byte is 8, the first two bytes divide by 31.
        elif name == "deflate" and body[:1] == b"\x78" and int.from_bytes(body[:2]) % 31 == 0:
            body = _inflate(body, zlib.MAX_WBITS, max_bytes)
    return body


def _inflate(body: bytes, window: int, max_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(window)
    try:
        data = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise ContentEncodingError(f"the compressed body is broken: {error}") from error
    if len(data) > max_bytes:
        raise BodyTooLargeError(f"more than {max_bytes} bytes after decompression")
    if not unpacker.eof:
        raise ContentEncodingError("the compressed body is cut off")
    return data
