"""Decompress bodies within a size limit; keep bodies that are not compressed."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib

import pytest

from imgassets.download.content_encoding import decompress, decompress_start
from imgassets.errors import BodyTooLargeError, ContentEncodingError

DATA = b"the bytes of an image " * 50
GZIP, DEFLATE = gzip.compress(DATA), zlib.compress(DATA)
LIMIT = len(DATA) * 2


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (GZIP, "gzip"),
        (GZIP, " GZip "),
        (GZIP, "x-gzip"),
        (DEFLATE, "deflate"),
        *((zlib.compress(DATA, level), "deflate") for level in (1, 5, 9)),
        (zlib.compress(GZIP), "gzip, deflate"),
        (gzip.compress(DEFLATE), "deflate\nGZIP"),
        (gzip.compress(GZIP), "gzip,gzip"),
        # Not compressed, or an encoding that is not supported: unchanged.
        (DATA, "gzip"),
        (DATA, "deflate"),
        (DATA, "identity"),
        (DATA, ""),
        (b"", "gzip"),
    ],
)
def test_a_body_is_decompressed_as_its_content_encoding_says(body: bytes, encoding: str) -> None:
    assert decompress(body, encoding, LIMIT) == (DATA if body else b"")


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (GZIP, "deflate"),
        (DEFLATE, "gzip"),
        (GZIP, "br"),
        (GZIP, "identity"),
        (b"\0\x1f image", "deflate"),
    ],
)
def test_a_body_in_another_encoding_is_unchanged(body: bytes, encoding: str) -> None:
    assert decompress(body, encoding, LIMIT) == body


@pytest.mark.parametrize(("body", "encoding"), [(GZIP, "gzip"), (DEFLATE, "deflate")])
def test_a_decompressed_body_above_the_limit_is_an_error(body: bytes, encoding: str) -> None:
    assert decompress(body, encoding, len(DATA)) == DATA
    limit = len(DATA) - 1
    with pytest.raises(BodyTooLargeError, match=f"more than {limit} bytes after decompression"):
        decompress(body, encoding, limit)


def test_a_gzip_bomb_uses_little_memory() -> None:
    bomb = gzip.compress(bytes(20_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError):
            decompress(bomb, "gzip", 1000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(("body", "encoding"), [(GZIP, "gzip"), (DEFLATE, "deflate")])
def test_a_truncated_or_damaged_body_is_an_error(body: bytes, encoding: str) -> None:
    with pytest.raises(ContentEncodingError, match="the compressed body is truncated"):
        decompress(body[:-1], encoding, LIMIT)
    with pytest.raises(ContentEncodingError, match="the compressed body is damaged: "):
        decompress(body[:-1] + bytes([body[-1] ^ 1]), encoding, LIMIT)


@pytest.mark.parametrize("body", [GZIP, DATA])
def test_the_start_of_a_gzip_body_and_of_any_other_is_returned(body: bytes) -> None:
    assert decompress_start(body, LIMIT) == DATA


def test_the_start_ends_at_the_limit_the_end_or_damage() -> None:
    data = bytes(random.Random(1).choices(b"abcdefgh", k=20_000))
    body = gzip.compress(data)
    assert decompress_start(body, 5000) == data[:5000]
    for broken in (body[:4000], body[:4000] + b"\xff" * 2000):
        start = decompress_start(broken, 20_000)
        assert len(start) > 5000
        assert data.startswith(start[:5000])
    assert decompress_start(b"\x1f\x8bnot gzip", LIMIT) == b""


def test_the_start_of_a_bomb_takes_little_memory() -> None:
    body = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    try:
        assert decompress_start(body, 10_000) == bytes(10_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
