"""What servers do wrong, and the exact outcome of each case."""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib

import pyarrow as pa
import pytest

from imgassets.manifests import Outcome, RawRow
from imgassets_tests.download.conftest import SHORT_TIMES, Partition, path_of, stored
from imgassets_tests.download.images import image_bytes, png_of
from imgassets_tests.download.server import (
    Answer,
    Handler,
    Server,
    answer,
    body_until_close,
    chunked,
    drip,
    endless,
    hang,
    in_turn,
    redirect,
    reset,
    reset_halfway,
    slow_headers,
    wrong_content_length,
)

JPEG = image_bytes()


def download_one(partition: Partition, server: Server, response: Answer | bytes) -> RawRow:
    (row,) = partition.run(server.add("/a.jpg", response))
    return row


def assert_failed(partition: Partition, row: RawRow, outcome: Outcome, attempts: int = 1) -> None:
    assert (row.outcome, row.attempts) == (outcome, attempts), row.error
    assert row.error
    assert (row.path, row.sha256, row.bytes, row.format) == (None,) * 4
    assert partition.files == {}


def test_an_image_is_saved_unchanged(partition: Partition, server: Server) -> None:
    row = download_one(
        partition, server, answer(JPEG, headers={"ETag": '"1"', "Last-Modified": "then"})
    )
    assert partition.files == stored(JPEG)
    assert row.outcome is Outcome.OK
    assert row.path == path_of(JPEG)
    assert row.sha256 == hashlib.sha256(JPEG).hexdigest()
    assert (row.bytes, row.format, row.width, row.height) == (len(JPEG), "jpeg", 60, 90)
    assert (row.http_status, row.attempts, row.error) == (200, 1, None)
    assert (row.etag, row.last_modified) == ('"1"', "then")
    assert row.fetched_at is not None
    assert row.elapsed_ms is not None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_a_client_error_is_not_retried(partition: Partition, server: Server, status: int) -> None:
    row = download_one(partition, server, answer(JPEG, status))
    assert_failed(partition, row, Outcome.HTTP_ERROR)
    assert row.http_status == status


@pytest.mark.parametrize("status", [408, 425, 429, 430, 500, 502, 503, 504, 520])
def test_a_retryable_status_is_retried(partition: Partition, server: Server, status: int) -> None:
    row = download_one(partition, server, in_turn(answer(b"", status), answer(JPEG)))
    assert (row.outcome, row.attempts, row.http_status) == (Outcome.OK, 2, 200)


def test_a_permanent_503_is_an_http_error_after_all_attempts(
    partition: Partition, server: Server
) -> None:
    row = download_one(partition, server, answer(b"busy", 503))
    assert_failed(partition, row, Outcome.HTTP_ERROR, attempts=3)
    assert row.http_status == 503
    assert server.hits["/a.jpg"] == 3


def test_a_redirect_is_followed(partition: Partition, server: Server) -> None:
    server.add("/b.jpg", JPEG)
    row = download_one(partition, server, redirect("/b.jpg", 301))
    assert (row.outcome, row.attempts) == (Outcome.OK, 1)
    assert partition.files == stored(JPEG)


def test_a_redirect_to_another_host_is_followed(partition: Partition, server: Server) -> None:
    server.add("/b.jpg", JPEG)
    row = download_one(partition, server, redirect(server.url("/b.jpg", host="localhost")))
    assert row.outcome is Outcome.OK


def test_the_error_of_an_html_page_says_to_which_url_a_redirect_led(
    partition: Partition, server: Server
) -> None:
    page = server.add("/sorry", b"<!doctype html><html>")
    row = download_one(partition, server, redirect("/sorry"))
    assert_failed(partition, row, Outcome.NOT_AN_IMAGE)
    assert row.error == f"an HTML page, after a redirect to {page}"


def test_a_redirect_loop_ends(partition: Partition, server: Server) -> None:
    row = download_one(partition, server, redirect("/a.jpg"))
    assert_failed(partition, row, Outcome.TOO_MANY_REDIRECTS)
    assert server.hits["/a.jpg"] == 6


def test_ten_redirects_are_too_many(partition: Partition, server: Server) -> None:
    for n in range(10):
        server.add(f"/{n}", redirect(f"/{n + 1}"))
    server.add("/10", JPEG)
    (row,) = partition.run(server.url("/0"))
    assert_failed(partition, row, Outcome.TOO_MANY_REDIRECTS)
    (row,) = partition.with_settings(max_redirects=10).run(server.url("/0"))
    assert row.outcome is Outcome.OK


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://x/y.jpg", "http://["])
def test_a_redirect_to_something_other_than_http_is_an_invalid_url(
    partition: Partition, server: Server, location: str
) -> None:
    assert_failed(
        partition, download_one(partition, server, redirect(location)), Outcome.INVALID_URL
    )


def test_a_redirect_without_a_location_is_an_http_error(
    partition: Partition, server: Server
) -> None:
    row = download_one(partition, server, answer(b"", 302))
    assert_failed(partition, row, Outcome.HTTP_ERROR)


def test_a_response_without_headers_is_a_timeout(partition: Partition, server: Server) -> None:
    partition.with_settings(retries=1, **SHORT_TIMES)
    row = download_one(partition, server, hang)
    assert_failed(partition, row, Outcome.TIMEOUT, attempts=2)
    assert "download.read_timeout_s" in str(row.error)


def test_requests_that_hang_at_once_each_end_at_the_read_timeout(
    partition: Partition, server: Server
) -> None:
    urls = [server.add(f"/{number}.jpg", hang) for number in range(4)]
    patient = partition.with_settings(
        connect_timeout_s=30, read_timeout_s=0.3, total_timeout_s=60, retries=0
    )
    rows = patient.run(*urls)
    assert {row.outcome for row in rows} == {Outcome.TIMEOUT}
    assert max(row.elapsed_ms or 0 for row in rows) < 30_000


def test_a_slow_body_ends_at_the_total_timeout(partition: Partition, server: Server) -> None:
    partition.with_settings(retries=0, **SHORT_TIMES)
    row = download_one(partition, server, drip(JPEG))
    assert_failed(partition, row, Outcome.TIMEOUT)
    assert "download.total_timeout_s" in str(row.error)


def test_slow_headers_end_at_the_total_timeout(partition: Partition, server: Server) -> None:
    partition.with_settings(retries=0, **SHORT_TIMES)
    assert_failed(partition, download_one(partition, server, slow_headers), Outcome.TIMEOUT)


def test_a_connection_that_breaks_halfway_is_retried(partition: Partition, server: Server) -> None:
    row = download_one(partition, server, in_turn(reset_halfway(JPEG), answer(JPEG)))
    assert (row.outcome, row.attempts) == (Outcome.OK, 2)
    assert partition.files == stored(JPEG)


def test_a_connection_that_always_breaks_halfway_is_a_connection_error(
    partition: Partition, server: Server
) -> None:
    row = download_one(partition, server, reset_halfway(JPEG))
    assert_failed(partition, row, Outcome.CONNECTION_ERROR, attempts=3)


def test_a_connection_reset_is_a_connection_error(partition: Partition, server: Server) -> None:
    row = download_one(partition, server, reset)
    assert_failed(partition, row, Outcome.CONNECTION_ERROR, attempts=3)


def test_a_refused_connection_is_a_connection_error(partition: Partition) -> None:
    (row,) = partition.run("http://127.0.0.1:9/a.jpg")
    assert_failed(partition, row, Outcome.CONNECTION_ERROR, attempts=3)


def test_a_host_name_that_does_not_exist_is_a_connection_error(partition: Partition) -> None:
    partition.with_settings(retries=0)
    (row,) = partition.run("http://no-such-host.invalid/a.jpg")
    assert_failed(partition, row, Outcome.CONNECTION_ERROR)


def test_a_body_shorter_than_its_content_length_is_a_connection_error(
    partition: Partition, server: Server
) -> None:
    row = download_one(partition, server, wrong_content_length(JPEG, len(JPEG) + 10))
    assert_failed(partition, row, Outcome.CONNECTION_ERROR, attempts=3)


def test_a_body_longer_than_its_content_length_is_a_corrupt_image(
    partition: Partition, server: Server
) -> None:
    row = download_one(partition, server, wrong_content_length(JPEG, len(JPEG) - 10))
    assert_failed(partition, row, Outcome.CORRUPT)


def test_bytes_past_the_content_length_do_not_affect_the_next_response(
    partition: Partition, server: Server
) -> None:
    def send_too_much(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + extra)

    extra = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"
    urls = [server.add(f"/{n}.jpg", send_too_much if n % 2 else answer(JPEG)) for n in range(10)]
    rows = partition.with_settings(threads=1).run(*urls)
    assert [r.outcome for r in rows[1::2]] == [Outcome.EMPTY] * 5
    assert [r.outcome for r in rows[0::2]] == [Outcome.OK] * 5
    assert set(partition.files.values()) <= {JPEG}


def test_a_gzipped_image_is_saved_decompressed(partition: Partition, server: Server) -> None:
    row = download_one(
        partition,
        server,
        answer(gzip.compress(JPEG, mtime=0), headers={"Content-Encoding": "gzip"}),
    )
    assert (row.outcome, row.bytes) == (Outcome.OK, len(JPEG))
    assert partition.files == stored(JPEG)


def test_an_uncompressed_image_declared_as_gzip_is_saved(
    partition: Partition, server: Server
) -> None:
    row = download_one(partition, server, answer(JPEG, headers={"Content-Encoding": "gzip"}))
    assert row.outcome is Outcome.OK
    assert partition.files == stored(JPEG)


def test_an_image_in_any_content_encoding_is_saved_decompressed(
    partition: Partition, server: Server
) -> None:
    bodies = [
        ("gzip", gzip.compress(JPEG[:1000], mtime=0) + gzip.compress(JPEG[1000:], mtime=0)),
        ("deflate", zlib.compress(JPEG)),
        ("deflate", zlib.compress(JPEG, wbits=-15)),
        ("br", pa.compress(JPEG, codec="brotli", asbytes=True)),
        ("zstd", pa.compress(JPEG, codec="zstd", asbytes=True)),
    ]
    rows = partition.run(
        *(
            server.add(f"/{n}.jpg", answer(body, headers={"Content-Encoding": encoding}))
            for n, (encoding, body) in enumerate(bodies)
        ),
        server.add("/lzw.jpg", answer(b"\x1f\x9d...", headers={"Content-Encoding": "compress"})),
    )
    assert [str(row.outcome) for row in rows] == ["ok"] * len(bodies) + ["not_an_image"]
    assert str(rows[-1].error).endswith(" (Content-Encoding: compress)")
    assert partition.files == stored(JPEG)


def test_a_gzip_bomb_is_too_large(partition: Partition, server: Server) -> None:
    bomb = gzip.compress(bytes(100_000_000), mtime=0)
    assert len(bomb) < partition.settings.max_bytes
    row = download_one(partition, server, answer(bomb, headers={"Content-Encoding": "gzip"}))
    assert_failed(partition, row, Outcome.TOO_LARGE)


def test_a_truncated_gzip_body_is_corrupt(partition: Partition, server: Server) -> None:
    truncated = gzip.compress(JPEG, mtime=0)[:-20]
    row = download_one(partition, server, answer(truncated, headers={"Content-Encoding": "gzip"}))
    assert_failed(partition, row, Outcome.CORRUPT)


def test_html_declared_as_jpeg_is_not_an_image(partition: Partition, server: Server) -> None:
    page = b"<!doctype html><html><body>Sorry!</body></html>"
    row = download_one(partition, server, answer(page, headers={"Content-Type": "image/jpeg"}))
    assert_failed(partition, row, Outcome.NOT_AN_IMAGE)
    assert row.http_status == 200


def test_a_png_named_jpg_is_saved_as_png(partition: Partition, server: Server) -> None:
    png = image_bytes("PNG")
    row = download_one(partition, server, answer(png, headers={"Content-Type": "image/jpeg"}))
    assert (row.outcome, row.format, row.path) == (Outcome.OK, "png", path_of(png))
    assert partition.files == stored(png)


def test_truncated_jpeg_is_recorded_as_corrupt_and_not_saved(
    partition: Partition, server: Server
) -> None:
    assert_failed(partition, download_one(partition, server, JPEG[:-100]), Outcome.CORRUPT)


def test_an_svg_is_an_unsupported_format(partition: Partition, server: Server) -> None:
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"></svg>'
    row = download_one(partition, server, answer(svg, headers={"Content-Type": "image/svg+xml"}))
    assert_failed(partition, row, Outcome.UNSUPPORTED_FORMAT)


def test_an_image_of_40000_by_40000_pixels_has_too_many_pixels(
    partition: Partition, server: Server
) -> None:
    row = download_one(partition.with_settings(max_bytes=1_000_000), server, png_of(40_000, 40_000))
    assert_failed(partition, row, Outcome.TOO_MANY_PIXELS)


def test_an_empty_body_is_empty(partition: Partition, server: Server) -> None:
    assert_failed(partition, download_one(partition, server, b""), Outcome.EMPTY)


def test_a_204_response_is_empty(partition: Partition, server: Server) -> None:
    row = download_one(partition, server, lambda handler: handler.head(204))
    assert_failed(partition, row, Outcome.EMPTY)


def test_an_endless_body_is_too_large(partition: Partition, server: Server) -> None:
    row = download_one(partition, server, endless)
    assert_failed(partition, row, Outcome.TOO_LARGE)
    assert "(download.max_bytes)" in str(row.error)


def test_an_endless_error_page_is_an_http_error(partition: Partition, server: Server) -> None:
    def send_endless_error(handler: Handler) -> None:
        handler.head(404, {"Connection": "close"})
        while True:
            handler.wfile.write(bytes(65_536))

    row = download_one(partition, server, send_endless_error)
    assert_failed(partition, row, Outcome.HTTP_ERROR)
    assert row.http_status == 404


@pytest.mark.parametrize("status", [302, 404, 503])
@pytest.mark.parametrize("length", [None, 10**8])
def test_of_the_body_of_an_error_page_only_the_start_is_read(
    partition: Partition, server: Server, status: int, length: int | None
) -> None:
    sent = [0]

    def send_large_error(handler: Handler) -> None:
        headers = {"Connection": "close"} if length is None else {"Content-Length": str(length)}
        handler.head(status, headers)
        while sent[0] < 10**8:
            handler.wfile.write(bytes(65_536))
            sent[0] += 65_536

    partition.with_settings(max_bytes=10**9, retries=0, total_timeout_s=60)
    row = download_one(partition, server, send_large_error)
    assert (row.outcome, row.http_status) == (Outcome.HTTP_ERROR, status)
    # Most of it is in the buffers of the two sockets.
    assert sent[0] < 3 * 10**7


def test_an_error_page_whose_body_fails_has_the_outcome_of_its_status(
    partition: Partition, server: Server
) -> None:
    def send_part(handler: Handler) -> None:
        status, end = handler.path[1:].split("/")
        handler.head(int(status), {"Content-Length": "999", "Location": "/b.jpg"})
        handler.wfile.write(b"x")
        if end == "reset":
            handler.reset()
        while end == "drip" and not handler.server.closing.wait(0.1):
            handler.wfile.write(b"x")
        if end == "hang":
            hang(handler)
        handler.close_connection = True

    server.add("/b.jpg", JPEG)
    cases = [(s, end) for s in (302, 404, 503) for end in ("hang", "reset", "close", "drip")]
    urls = [server.add(f"/{status}/{end}", send_part) for status, end in cases]
    patient = partition.with_settings(
        read_timeout_s=0.5, total_timeout_s=1, retries=0, threads=12, breaker_failures=0
    )
    for (status, end), row in zip(cases, patient.run(*urls), strict=True):
        expected = (Outcome.OK, 200) if status == 302 else (Outcome.HTTP_ERROR, status)
        assert (row.outcome, row.http_status, row.attempts) == (*expected, 1), (end, row.error)


def test_a_content_length_above_the_limit_is_too_large(
    partition: Partition, server: Server
) -> None:
    row = download_one(partition, server, wrong_content_length(b"\xff\xd8\xff", 200_001))
    assert_failed(partition, row, Outcome.TOO_LARGE)
    assert "more than 200000 bytes (download.max_bytes)" in str(row.error)


@pytest.mark.parametrize("response", [chunked(JPEG), body_until_close(JPEG)])
def test_a_body_without_a_length_is_saved(
    partition: Partition, server: Server, response: Answer
) -> None:
    assert download_one(partition, server, response).outcome is Outcome.OK
    assert partition.files == stored(JPEG)


def test_an_image_without_a_length_that_ends_early_is_requested_once_more(
    partition: Partition, server: Server
) -> None:
    cut = JPEG[:-100]
    rows = partition.run(
        server.add("/0.jpg", in_turn(body_until_close(cut), body_until_close(JPEG))),
        server.add("/1.jpg", body_until_close(cut)),
        server.add("/2.jpg", chunked(cut)),
        server.add("/3.jpg", cut),
    )
    assert [(str(row.outcome), row.attempts) for row in rows] == [
        ("ok", 2), ("corrupt", 2), ("corrupt", 1), ("corrupt", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line", [b"garbage\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"\0\0\0\0\r\n\r\n"]
)
def test_a_response_that_is_not_http_is_a_connection_error(
    partition: Partition, server: Server, line: bytes
) -> None:
    def send_line(handler: Handler) -> None:
        handler.wfile.write(line)
        handler.close_connection = True

    row = download_one(partition, server, send_line)
    assert_failed(partition, row, Outcome.CONNECTION_ERROR, attempts=3)


@pytest.mark.parametrize(
    "url",
    ["", "zara.jpg", "www.h/x.jpg", "ftp://h/x", "file:///etc/passwd", "http://", "http:///",
     "http://h:99999/x", "http://[::1/x", "javascript:alert(1)", "http://u:p@h/x", "http://a b/"],
)  # fmt: skip
def test_what_is_not_an_http_url_is_an_invalid_url(partition: Partition, url: str) -> None:
    (row,) = partition.run(url)
    assert_failed(partition, row, Outcome.INVALID_URL, attempts=0)


def test_a_url_with_spaces_and_unicode_is_fetched(partition: Partition, server: Server) -> None:
    server.add("/kl%C3%A4der%20r%C3%B6d.jpg", JPEG)
    (row,) = partition.run(server.url("/kläder röd.jpg?b=1 2#top"))
    assert row.outcome is Outcome.OK


def locations(*values: str) -> Answer:
    """Redirect with several Location headers."""

    def respond(handler: Handler) -> None:
        handler.send_response(302)
        for value in values:
            handler.send_header("Location", value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return respond


def test_identical_location_headers_are_one_redirect(partition: Partition, server: Server) -> None:
    server.add("/b.jpg", JPEG)
    row = download_one(partition, server, locations("/b.jpg", "/b.jpg", "/b.jpg"))
    assert (row.outcome, row.http_status) == (Outcome.OK, 200)


def test_different_location_headers_are_refused(partition: Partition, server: Server) -> None:
    row = download_one(partition, server, locations("/b.jpg", "/c.jpg", "/b.jpg"))
    assert (row.outcome, row.http_status, row.attempts) == (Outcome.INVALID_URL, None, 1)
    assert row.error == "after a redirect: the server sent different Location headers"
    assert server.hits.total() == 1


def test_empty_location_headers_and_spaces_around_one_are_ignored(
    partition: Partition, server: Server
) -> None:
    server.add("/b.jpg", JPEG)
    many, none = partition.run(
        server.add("/many", locations("", "/b.jpg", " /b.jpg\t ")),
        server.add("/none", locations("", "")),
    )
    assert (many.outcome, many.error) == (Outcome.OK, None)
    assert (none.outcome, none.http_status) == (Outcome.HTTP_ERROR, 302)


def test_location_headers_of_an_error_are_no_redirect(partition: Partition, server: Server) -> None:
    row = download_one(
        partition, server, raw(b"HTTP/1.1 404 No\r\nLocation: /a\r\nLocation: /b\r\n\r\n")
    )
    assert (row.outcome, row.http_status) == (Outcome.HTTP_ERROR, 404)


def test_identical_location_headers_of_robots_txt_are_one_redirect(
    partition: Partition, server: Server
) -> None:
    server.add("/robots.txt", locations("/rules.txt", "/rules.txt"))
    server.add("/rules.txt", b"User-agent: *\nDisallow: /\n")
    row = download_one(partition.with_settings(robots=True), server, answer(JPEG))
    assert row.outcome is Outcome.DISALLOWED


def raw(data: bytes) -> Answer:
    """Send bytes as they are, then close the connection."""

    def respond(handler: Handler) -> None:
        handler.wfile.write(data)
        handler.close_connection = True

    return respond


def ok(headers: str = "", body: bytes = JPEG) -> bytes:
    """Return a response with further header lines, as bytes."""
    return f"HTTP/1.1 200 OK\r\n{headers}\r\n".encode() + body


@pytest.mark.parametrize("reset_it", [False, True])
def test_a_kept_alive_connection_that_has_ended_is_replaced_without_an_attempt(
    partition: Partition, server: Server, reset_it: bool
) -> None:
    def serve_one_request(handler: Handler) -> None:
        if handler.connection not in used:
            used.append(handler.connection)
            handler.reply(JPEG)
        elif reset_it:
            handler.reset()
        else:
            handler.close_connection = True

    used: list[object] = []
    urls = [server.add(f"/{n}.jpg", serve_one_request) for n in range(5)]
    rows = partition.with_settings(threads=1, retries=0).run(*urls)
    assert [(row.outcome, row.attempts) for row in rows] == [(Outcome.OK, 1)] * 5
    assert server.hits == {f"/{n}.jpg": 2 if n else 1 for n in range(5)}


@pytest.mark.parametrize("broken", [reset, raw(b"")])
def test_a_new_connection_that_ends_is_not_replaced(
    partition: Partition, server: Server, broken: Answer
) -> None:
    partition.with_settings(threads=1, retries=0)
    urls = [server.add("/new.jpg", broken), server.add("/ok.jpg", JPEG)]
    rows = partition.run(*urls, server.add("/reused.jpg", broken))
    assert [str(row.outcome) for row in rows] == ["connection_error", "ok", "connection_error"]
    # The second request for the last URL has a new connection.
    assert server.hits == {"/new.jpg": 1, "/ok.jpg": 1, "/reused.jpg": 2}


@pytest.mark.parametrize("statuses", [[100], [102], [103], [103, 103, 100, 102]])
def test_interim_responses_are_skipped(
    partition: Partition, server: Server, statuses: list[int]
) -> None:
    interim = b"".join(b"HTTP/1.1 %d Wait\r\nLink: </a>\r\nETag: no\r\n\r\n" % s for s in statuses)

    def respond(handler: Handler) -> None:
        handler.wfile.write(interim)
        handler.reply(JPEG, 200 if handler.path == "/a.jpg" else 404)

    urls = [server.add("/a.jpg", respond), server.add("/b.jpg", respond)]
    found, missing = partition.with_settings(threads=1, retries=0).run(*urls)
    assert (found.outcome, found.http_status, found.etag) == (Outcome.OK, 200, None)
    assert (missing.outcome, missing.http_status) == (Outcome.HTTP_ERROR, 404)
    assert server.connections == 1


def test_an_interim_response_alone_is_no_response(partition: Partition, server: Server) -> None:
    row = download_one(partition, server, raw(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"))
    assert_failed(partition, row, Outcome.CONNECTION_ERROR, attempts=3)
    assert str(row.error).startswith("the server closed the connection without a response")


LENGTH = len(JPEG)


@pytest.mark.parametrize(
    "headers",
    [
        f"Content-Length: {LENGTH}\r\nContent-Length: {LENGTH + 1}\r\n",
        f"Content-Length: {LENGTH + 1}\r\nContent-Length: {LENGTH}\r\n",
        f"Content-Length: {LENGTH}, {LENGTH - 1}\r\n",
        *(
            f"Content-Length: {length}\r\n"
            for length in (
                f"+{LENGTH}",
                "-5",
                hex(LENGTH),
                f"{LENGTH}.0",
                f"{LENGTH:_}",
                "",
                "\xb2",
            )
        ),
    ],
)
def test_contradictory_and_malformed_lengths_are_a_connection_error(
    partition: Partition, server: Server, headers: str
) -> None:
    row = download_one(partition, server, raw(ok(headers)))
    assert_failed(partition, row, Outcome.CONNECTION_ERROR, attempts=3)
    assert re.match("the response is not valid HTTP: .*Content-Length", str(row.error))


@pytest.mark.parametrize(
    "headers", [f"Content-Length: {LENGTH}\r\n" * 2, f"Content-Length: {LENGTH}, {LENGTH}\r\n"]
)
def test_identical_lengths_count_as_one(partition: Partition, server: Server, headers: str) -> None:
    # The rest belongs to no response.
    row = download_one(partition, server, raw(ok(headers, JPEG + b"rest")))
    assert (row.outcome, row.attempts) == (Outcome.OK, 1)
    assert partition.files == stored(JPEG)


def test_a_length_may_have_any_number_of_digits(partition: Partition, server: Server) -> None:
    small, large = partition.run(
        server.add("/0.jpg", raw(ok(f"Content-Length: {'0' * 5000}{LENGTH}\r\n", JPEG + b"rest"))),
        server.add("/1.jpg", raw(ok(f"Content-Length: {'9' * 5000}\r\n"))),
    )
    assert (small.outcome, small.error) == (Outcome.OK, None)
    assert large.outcome is Outcome.TOO_LARGE


def test_an_error_without_a_response_is_a_sentence(partition: Partition, server: Server) -> None:
    not_http, broken = "the response is not valid HTTP", "the response cannot be read"
    cut_off = "the connection closed before the end of the body"
    large = "the response has too many or too long headers"
    chunked = "Transfer-Encoding: chunked\r\n"
    cases: dict[str, tuple[Answer, str]] = {
        "/closed": (raw(b""), "the server closed the connection without a response"),
        "/reset": (reset, f"{broken}: .*Connection reset by peer"),
        "/garbage": (raw(b"garbage\r\n\r\n"), not_http),
        "/status": (raw(b"HTTP/1.1 abc OK\r\n\r\n"), not_http),
        "/version": (raw(b"HTTP/9.9 200 OK\r\n\r\n"), not_http),
        "/long-line": (raw(b"HTTP/1.1 200 " + b"x" * 400_000), large),
        "/many-headers": (raw(ok("A: b\r\n" * 6_000)), large),
        "/long-header": (raw(ok(f"A: {'b' * 400_000}\r\n")), large),
        "/cut-headers": (reset_in_headers, f"{broken}: .*Connection reset by peer"),
        "/cut": (raw(ok("Content-Length: 9999\r\n")), f"{cut_off}: .*bytes"),
        "/cut-chunk": (raw(ok(chunked, b"5\r\nab")), cut_off),
        "/no-last-chunk": (raw(ok(chunked, b"2\r\nab\r\n")), cut_off),
        "/bad-chunk": (raw(ok(chunked, b"zz\r\nab\r\n0\r\n\r\n")), f"{cut_off}|{broken}"),
        "/negative-chunk": (raw(ok(chunked, b"-5\r\nab\r\n0\r\n\r\n")), broken),
        "/no-colon": (raw(ok("Broken\r\nX-Robots-Tag: noai\r\n")), not_http),
        "/hang": (hang, "(no data received|Operation (too slow|timed)).*download.read_timeout_s"),
    }  # fmt: skip
    urls = [server.add(path, response) for path, (response, _) in cases.items()]
    sentences = [sentence for _, sentence in cases.values()]
    urls.append("http://127.0.0.1:9/")
    sentences.append("cannot connect to 127.0.0.1:9: Connection refused$")
    partition.with_settings(retries=0, breaker_failures=0, read_timeout_s=5)
    rows = partition.run(*urls)
    for row, sentence in zip(rows, sentences, strict=True):
        assert row.outcome in (Outcome.CONNECTION_ERROR, Outcome.TIMEOUT), row.url
        assert re.match(sentence, str(row.error)), (row.url, row.error)
        assert not PYTHON.search(str(row.error)), row.error


PYTHON = re.compile(r"Error\(|Errno|object at|host=|_Connection|_Pool|\('|\\r")
"""Traces of Python objects in a message."""


def reset_in_headers(handler: Handler) -> None:
    """Reset the connection in the middle of the headers."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-")
    handler.reset()


@pytest.mark.parametrize("status", [403, 407, 502])
def test_a_proxy_that_refuses_to_connect_is_named(
    partition: Partition, server: Server, status: int
) -> None:
    server.proxy_status = status
    partition.with_settings(proxy=server.url(""), retries=0)
    (row,) = partition.run("https://shop.example/a.jpg")
    assert_failed(partition, row, Outcome.CONNECTION_ERROR)
    assert re.match(f"the proxy refuses the connection: .*{status}", str(row.error)), row.error
    assert not PYTHON.search(str(row.error))


def test_a_proxy_that_cannot_be_reached_is_named(partition: Partition) -> None:
    partition.with_settings(proxy="http://127.0.0.1:9", retries=0)
    rows = partition.run("https://shop.example/a.jpg", "http://shop.example/a.jpg")
    message = "cannot connect to 127.0.0.1:9: Connection refused"
    assert [row.error for row in rows] == [message] * 2
