from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from imgassets.download.content_encoding import decompressed
from imgassets.errors import BodyTooLargeError, ContentEncodingError

DATA = b"a picture, as it were " * 50
GZIP, DEFLATE = gzip.compress(DATA), zlib.compress(DATA)
MANY = len(DATA) * 2


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
        # What is not compressed, or in a way that nobody asked for, is left as it is.
        (DATA, "gzip"),
        (DATA, "deflate"),
        (DATA, "identity"),
        (DATA, ""),
        (b"", "gzip"),
    ],
)
def test_a_body_is_decompressed_as_its_encodings_say(body: bytes, encoding: str) -> None:
    assert decompressed(body, encoding, MANY) == (DATA if body else b"")


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (GZIP, "deflate"),
        (DEFLATE, "gzip"),
        (GZIP, "br"),
        (GZIP, "identity"),
        (b"\0\x1f picture", "deflate"),
    ],
)
def test_a_body_of_another_encoding_is_left_as_it_is(body: bytes, encoding: str) -> None:
    assert decompressed(body, encoding, MANY) == body


@pytest.mark.parametrize(("body", "encoding"), [(GZIP, "gzip"), (DEFLATE, "deflate")])
def test_no_more_comes_out_than_allowed(body: bytes, encoding: str) -> None:
    assert decompressed(body, encoding, len(DATA)) == DATA
    most = len(DATA) - 1
    with pytest.raises(BodyTooLargeError, match=f"more than {most} bytes after decompression"):
        decompressed(body, encoding, most)


def test_no_more_is_held_in_memory_than_allowed() -> None:
    bomb = gzip.compress(bytes(20_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError):
            decompressed(bomb, "gzip", 1000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(("body", "encoding"), [(GZIP, "gzip"), (DEFLATE, "deflate")])
def test_a_body_that_is_cut_off_or_damaged_is_broken(body: bytes, encoding: str) -> None:
    with pytest.raises(ContentEncodingError, match="the compressed body is cut off"):
        decompressed(body[:-1], encoding, MANY)
    with pytest.raises(ContentEncodingError, match="the compressed body is broken: "):
        decompressed(body[:-1] + bytes([body[-1] ^ 1]), encoding, MANY)
