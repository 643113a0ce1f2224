"""Decompress response bodies: some servers compress although the request asks for `identity`.

The size of the result is limited, because a few kilobytes of gzip can expand to gigabytes.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Iterator

import pyarrow as pa

from imgassets.errors import BodyTooLargeError, ContentEncodingError

_PART_BYTES = 65_536
_GZIP_MAGIC = b"\x1f\x8b"
_MAGIC = {
    "gzip": _GZIP_MAGIC,
    "x-gzip": _GZIP_MAGIC,
    "deflate": b"\x78",
    "zstd": b"\x28\xb5\x2f\xfd",
}
# zlib's numbers for a stream with gzip's header, with zlib's header and without a header.
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_ARROW_CODECS = {"br": "brotli", "zstd": "zstd"}
# JPEG, PNG, GIF, WebP
_IMAGE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF")


def decompress(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Decompress a body that is encoded with gzip, deflate, br (Brotli) or zstd.

    Some servers declare an encoding for an uncompressed image, so a body of which nothing can be
    decompressed is returned unchanged. So is a body in any other encoding; its inspection then
    finds no image.

    Args:
        body: The body as sent over the network.
        encoding: The Content-Encoding header: names in the order in which they were applied,
            separated by commas or newlines.
        max_bytes: Maximum size of the result in bytes.

    Returns:
        The decompressed body; the same object if nothing was decompressed.

    Raises:
        BodyTooLargeError: The result would be larger than `max_bytes`, of which at most 64 kB more
            were decompressed.
        ContentEncodingError: The compressed data are truncated or damaged.
    """
    for name in reversed([part.strip().lower() for part in re.split(r"[,\n]", encoding)]):
        if body.startswith(_IMAGE_MAGIC):
            break
        body = _decode(body, name, max_bytes)
    return body


def decompress_start(body: bytes, max_bytes: int) -> bytes:
    """Decompress the start of a gzip body as far as it goes.

    Args:
        body: The body, or its first bytes; returned unchanged if it is not gzip.
        max_bytes: Maximum size of the result in bytes.

    Returns:
        At most `max_bytes` decompressed bytes: those before a limit, an end or damage.
    """
    if not body.startswith(_GZIP_MAGIC):
        return body
    data = bytearray()
    with contextlib.suppress(zlib.error, EOFError):
        # In small parts, because zlib returns nothing of the part in which it finds damage.
        for part in _inflate(body, _GZIP, part_bytes=256):
            data += part
            if len(data) >= max_bytes:
                break
    return bytes(data[:max_bytes])


def _decoders(body: bytes, name: str) -> list[Iterator[bytes]]:
    """Return the ways to decode a body, of which the first that fits counts."""
    if name in ("gzip", "x-gzip"):
        return [_inflate(body, _GZIP)]
    if name == "deflate":
        # The header is required, but some servers leave it out (RFC 9110, 8.4.1.2).
        return [_inflate(body, _ZLIB), _inflate(body, _RAW)]
    if (codec := _ARROW_CODECS.get(name)) is not None and pa.Codec.is_available(codec):
        return [_read_with_arrow(body, codec)]
    return []


def _decode(body: bytes, name: str, max_bytes: int) -> bytes:
    """Return the decoded body, or the body itself if it is not in this encoding."""
    failure: ContentEncodingError | None = None
    for parts in _decoders(body, name):
        data: list[bytes] = []
        size = 0
        try:
            for part in parts:
                data.append(part)
                size += len(part)
                if size > max_bytes:
                    raise BodyTooLargeError(
                        f"more than {max_bytes} bytes after decompression (download.max_bytes)"
                    )
            return b"".join(data)
        except (EOFError, zlib.error, OSError) as error:
            reason = "truncated" if isinstance(error, EOFError) else f"damaged: {error}"
            failure = ContentEncodingError(
                f"the compressed body is {reason} (Content-Encoding: {name})"
            )
            if size:
                raise failure from error
    if failure is not None and body.startswith(_MAGIC.get(name, ())):
        raise failure
    return body


def _inflate(body: bytes, window: int, part_bytes: int = _PART_BYTES) -> Iterator[bytes]:
    """Yield the decompressed bytes; a gzip body may have several members (RFC 1952, 2.2).

    Raises:
        zlib.error: The body is damaged, or in another format.
        EOFError: The body is truncated.
    """
    position = 0
    while True:
        decompressor = zlib.decompressobj(window)
        while not decompressor.eof:
            part = decompressor.unconsumed_tail
            if not part:
                part = body[position : position + part_bytes]
                position += len(part)
            data = decompressor.decompress(part, _PART_BYTES)
            if not part and not data:
                raise EOFError
            yield data
        position -= len(decompressor.unused_data)
        if window != _GZIP or not body.startswith(_GZIP_MAGIC, position):
            return


def _read_with_arrow(body: bytes, codec: str) -> Iterator[bytes]:
    stream = pa.CompressedInputStream(pa.BufferReader(body), codec)
    while part := stream.read(_PART_BYTES):
        yield part
