"""Decompress bodies within a size limit; keep bodies that are not compressed."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pyarrow as pa
import pytest

from imgassets.download.content_encoding import decompress, decompress_start
from imgassets.errors import BodyTooLargeError, ContentEncodingError

DATA = b"the bytes of an image " * 50
GZIP, DEFLATE = gzip.compress(DATA, mtime=0), zlib.compress(DATA)
RAW = zlib.compress(DATA, wbits=-15)
BR, ZSTD = (pa.compress(DATA, codec=name, asbytes=True) for name in ("brotli", "zstd"))
LIMIT = len(DATA) * 2
COMPRESSED = [(GZIP, "gzip"), (DEFLATE, "deflate"), (RAW, "deflate"), (BR, "br"), (ZSTD, "zstd")]


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (GZIP, "gzip"),
        (GZIP, " GZip "),
        (GZIP, "x-gzip"),
        (DEFLATE, "deflate"),
        *((zlib.compress(DATA, level), "deflate") for level in (1, 5, 9)),
        (zlib.compress(GZIP), "gzip, deflate"),
        (gzip.compress(DEFLATE, mtime=0), "deflate\nGZIP"),
        (gzip.compress(GZIP, mtime=0), "gzip,gzip"),
        (
            gzip.compress(DATA[:9], mtime=0)
            + gzip.compress(b"", mtime=0)
            + gzip.compress(DATA[9:], mtime=0),
            "gzip",
        ),
        (GZIP + bytes(9), "gzip"),
        (GZIP + b"garbage", "gzip"),
        (RAW, "deflate"),
        (zlib.compress(DATA, wbits=9), "deflate"),
        (BR, "br"),
        (BR, "BR"),
        (ZSTD, "zstd"),
        (ZSTD + pa.compress(b"", codec="zstd", asbytes=True), "zstd"),
        (pa.compress(RAW, codec="brotli", asbytes=True), "deflate, br"),
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
        (DATA, "br"),
        (DATA, "zstd"),
        (DATA, "utf-8"),
        (GZIP, "compress"),
        *(
            (magic + DATA, name)
            for magic in (b"\xff\xd8\xff", b"\x89PNG", b"GIF89a", b"RIFF", b"BM")
            for name in ("gzip", "deflate", "br", "zstd", "compress", "aws-chunked")
        ),
    ],
)
def test_a_body_in_another_encoding_is_unchanged(body: bytes, encoding: str) -> None:
    assert decompress(body, encoding, LIMIT) == body


@pytest.mark.parametrize(("body", "encoding"), COMPRESSED)
def test_a_decompressed_body_above_the_limit_is_an_error(body: bytes, encoding: str) -> None:
    assert decompress(body, encoding, len(DATA)) == DATA
    limit = len(DATA) - 1
    with pytest.raises(BodyTooLargeError, match=f"more than {limit} bytes after decompression"):
        decompress(body, encoding, limit)


@pytest.mark.parametrize(
    ("codec", "encoding"), [("gzip", "gzip"), ("brotli", "br"), ("zstd", "zstd")]
)
def test_a_bomb_uses_little_memory(codec: str, encoding: str) -> None:
    bomb = pa.compress(bytes(20_000_000), codec=codec, asbytes=True)
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError):
            decompress(bomb, encoding, 1000)
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


@pytest.mark.parametrize(
    ("compress", "encoding"),
    [
        (gzip.compress, "gzip"),
        (lambda data: gzip.compress(data, mtime=0) * 2, "gzip"),
        (zlib.compress, "deflate"),
        (lambda data: zlib.compress(data, wbits=-15), "deflate"),
        (lambda data: pa.compress(data, codec="brotli", asbytes=True), "br"),
        (lambda data: pa.compress(data, codec="zstd", asbytes=True), "zstd"),
    ],
)
def test_the_error_for_a_body_that_was_cut_names_the_encoding(
    compress: Callable[[bytes], bytes], encoding: str
) -> None:
    data = random.Random(1).randbytes(400_000)
    body = compress(data)
    with pytest.raises(
        ContentEncodingError, match=rf"^the compressed body is .+ \(Content-Encoding: {encoding}\)$"
    ):
        decompress(body[: len(body) * 3 // 4], encoding, 10**6)


@pytest.mark.parametrize(
    "body", [GZIP, gzip.compress(DATA[:9], mtime=0) + gzip.compress(DATA[9:], mtime=0), DATA]
)
def test_the_start_of_a_gzip_body_and_of_any_other_is_returned(body: bytes) -> None:
    assert decompress_start(body, "", LIMIT) == DATA


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(GZIP, mtime=0), "gzip, gzip"),
        (gzip.compress(GZIP, mtime=0), "gzip"),
        (zlib.compress(DATA), "deflate"),
        (zlib.compress(DATA, wbits=-15), "Deflate"),
        (pa.compress(DATA, codec="brotli", asbytes=True), "br"),
        (pa.compress(DATA, codec="zstd", asbytes=True), "identity\nzstd"),
        (DATA, "br"),
        (DATA, "deflate"),
        (DATA, "zstd, compress"),
    ],
)
def test_the_start_is_decompressed_as_its_header_says_if_it_is_compressed(
    body: bytes, encoding: str
) -> None:
    assert decompress_start(body, encoding, LIMIT) == DATA


def test_a_short_brotli_body_that_was_cut_is_corrupt() -> None:
    body = pa.compress(random.Random(1).randbytes(2000), codec="brotli", asbytes=True)
    with pytest.raises(ContentEncodingError, match=r"^the compressed body is damaged: Truncated"):
        decompress(body[:-30], "br", 10**6)


def test_the_start_ends_at_the_limit_the_end_or_damage() -> None:
    data = bytes(random.Random(1).choices(b"abcdefgh", k=20_000))
    body = gzip.compress(data, mtime=0)
    assert decompress_start(body, "", 5000) == data[:5000]
    for broken in (body[:4000], body[:4000] + b"\xff" * 2000):
        start = decompress_start(broken, "", 20_000)
        assert len(start) > 5000
        assert data.startswith(start[:5000])
    assert decompress_start(b"\x1f\x8bnot gzip", "", LIMIT) == b""


def test_the_start_of_a_bomb_takes_little_memory() -> None:
    body = gzip.compress(bytes(50_000_000), mtime=0)
    tracemalloc.start()
    try:
        assert decompress_start(body, "", 10_000) == bytes(10_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
