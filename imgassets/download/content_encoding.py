"""Decompress response bodies: some servers compress although the request asks for `identity`.

The size of the result is limited, because a few kilobytes of gzip can expand to gigabytes.
"""

from __future__ import annotations

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
    for name in _names(encoding):
        if body.startswith(_IMAGE_MAGIC):
            break
        body = _decode(body, name, max_bytes)
    return body


def decompress_start(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Decompress the start of a text as far as it goes.

    Args:
        body: The body, or its first `max_bytes` bytes; gzip is recognised without a header, too.
        encoding: The Content-Encoding header; see `decompress`.
        max_bytes: Maximum size of the result in bytes.

    Returns:
        At most `max_bytes` decompressed bytes: those before a limit, an end or damage; the body
        itself if it is not compressed.
    """
    is_cut = len(body) >= max_bytes
    # Some servers compress twice and say so once, or not at all.
    for name in (*_names(encoding), "gzip", "gzip"):
        for parts in _decoders(body, name, part_bytes=256):
            data, is_whole = _read_start(parts, max_bytes)
            # Text can look like the start of compressed data, except with gzip's magic number.
            if is_whole or (is_cut and data) or body.startswith(_GZIP_MAGIC):
                body = data
                break
    return body


def _read_start(parts: Iterator[bytes], max_bytes: int) -> tuple[bytes, bool]:
    """Return the bytes before a limit, an end or damage, and whether there was no damage."""
    data = bytearray()
    try:
        # In small parts, because zlib returns nothing of the part in which it finds damage.
        for part in parts:
            data += part
            if len(data) >= max_bytes:
                break
    except (EOFError, zlib.error, OSError):
        return bytes(data), False
    return bytes(data[:max_bytes]), True


def _names(encoding: str) -> list[str]:
    """Return the names of a Content-Encoding header in lower case, the last applied one first."""
    return [part.strip().lower() for part in reversed(re.split(r"[,\n]", encoding))]


def _decoders(body: bytes, name: str, part_bytes: int = _PART_BYTES) -> list[Iterator[bytes]]:
    """Return the ways to decode a body, of which the first that fits counts."""
    if name in ("gzip", "x-gzip"):
        return [_inflate(body, _GZIP, part_bytes)]
    if name == "deflate":
        # The header is required, but some servers leave it out (RFC 9110, 8.4.1.2).
        return [_inflate(body, _ZLIB, part_bytes), _inflate(body, _RAW, part_bytes)]
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


def _inflate(body: bytes, window: int, part_bytes: int) -> Iterator[bytes]:
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
    # What is read together with damage, or a missing end, is lost: only a few bytes.
    part_bytes = 64
    while part := stream.read(part_bytes):
        yield part
        part_bytes = min(2 * part_bytes, _PART_BYTES)
