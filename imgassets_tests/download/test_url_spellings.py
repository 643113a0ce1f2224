"""The bytes that both clients send for a URL, in all spellings: those that curl sends for it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pycurl  # type: ignore[import-untyped]
import pytest

from imgassets.download.client import Client, Limits, Request
from imgassets.download.curl_client import CurlClient
from imgassets.download.requests_client import RequestsClient
from imgassets.urls import normalise

LIMITS = Limits(connect_s=10, read_s=10, total_s=10, max_bytes=1000)
HERE = "http://127.0.0.1:{port}"

# What curl accepts, by the target that it sends.
CURL = {
    f"{HERE}/a.jpg": "/a.jpg",
    f"{HERE}": "/",
    f"{HERE}?w=9": "/?w=9",
    f"{HERE}#top": "/",
    f"{HERE}/50%off%20shirt.jpg": "/50%off%20shirt.jpg",
    f"{HERE}/a%zz.jpg?b=%zz&c=%": "/a%zz.jpg?b=%zz&c=%",
    f"{HERE}/100%": "/100%",
    f"{HERE}/%2Fa%2Fb": "/%2Fa%2Fb",
    f"{HERE}/%41%7E%2D": "/%41%7E%2D",
    f"{HERE}/a%00b%0D%0Ac": "/a%00b%0D%0Ac",
    f"{HERE}/%2520": "/%2520",
    f"{HERE}/a+b.jpg?q=a+b": "/a+b.jpg?q=a+b",
    f"{HERE}/a/../b.jpg": "/b.jpg",
    f"{HERE}/a/./b.jpg": "/a/b.jpg",
    f"{HERE}/../../b.jpg": "/b.jpg",
    f"{HERE}/a/b/..": "/a/",
    f"{HERE}/a/.": "/a/",
    f"{HERE}/a/.//b": "/a//b",
    f"{HERE}/a//../b": "/a/b",
    f"{HERE}/%2e%2E/a/%2e/b": "/a/b",
    f"{HERE}/a/.%2e/b": "/b",
    f"{HERE}/.../.a/b..": "/.../.a/b..",
    f"{HERE}//a//b": "//a//b",
    f"{HERE}/x?u=http://o/../p#f?g": "/x?u=http://o/../p",
    f"{HERE}/x?q=%c3%a4": "/x?q=%c3%a4",
    f"{HERE}/x?": "/x?",
    f"{HERE}/x?#": "/x?",
    f"{HERE}/x??a?b": "/x??a?b",
    f"{HERE}/x;v=1;w?a;b": "/x;v=1;w?a;b",
    f"{HERE}/[a]?b=[1]": "/[a]?b=[1]",
    f"{HERE}/a|b^c`d?e|f^g`h": "/a|b^c`d?e|f^g`h",
    f"{HERE}/{{{{a}}}}?b={{{{c}}}}": "/{a}?b={c}",
    f"{HERE}/\"a\"'b'<c>?\"a\"'b'<c>": "/\"a\"'b'<c>?\"a\"'b'<c>",
    f"{HERE}/a\\b?c\\d": "/a\\b?c\\d",
    f"{HERE}/!$&'()*+,;=:@-._~": "/!$&'()*+,;=:@-._~",
    f"{HERE}/x?a=1&copy=2&lt=3&amp": "/x?a=1&copy=2&lt=3&amp",
    f"{HERE}/x?a&copy;b&euro;": "/x?a&copy;b&euro;",
    f"{HERE}/user:word@example": "/user:word@example",
    "http:/127.0.0.1:{port}/a": "/a",
    "http:///127.0.0.1:{port}/a": "/a",
    "HTTP://127.0.0.1:{port}/A?B": "/A?B",
    "http://127.0.0.1:0{port}/a": "/a",
    "http://2130706433:{port}/a": "/a",
    "http://0x7F.1:{port}/a": "/a",
    "http://%31%32%37.0.0.1:{port}/%61": "/%61",
    "http://127.0.0%2e1:{port}/a": "/a",
}

# What curl refuses or sends in several ways, by the target that browsers send.
BROWSERS = {
    f"{HERE}/a b.jpg?c d": "/a%20b.jpg?c%20d",
    f"{HERE}/kläder.jpg?färg=röd": "/kl%C3%A4der.jpg?f%C3%A4rg=r%C3%B6d",
    f"{HERE}/%c3%a4/%2f": "/%c3%a4/%2f",
    f"{HERE}/a%20b c%zz.jpg": "/a%20b%20c%zz.jpg",
    f"{HERE}/\U0001f457.jpg": "/%F0%9F%91%97.jpg",
    f"{HERE}/a\u200bb\u00a0c": "/a%E2%80%8Bb%C2%A0c",
    f"{HERE}/a\x01b\x7f?\x00c": "/a%01b%7F?%00c",
    f" \t\r\n{HERE}/a\n ": "/a",
    f"{HERE}/a\n\t  b\r\n.jpg": "/a%20%20b.jpg",
    "ht\ntp://127.0.0.1\t:{port}/a": "/a",
    "http:\\\\127.0.0.1:{port}\\a\\b?c\\d": "/a/b?c\\d",
    "http:\\/127.0.0.1:{port}/a\\b": "/a/b",
    "http://127.0.0.1:{port}\\a\\..\\b": "/b",
    "http:////127.0.0.1:{port}/a": "/a",
    "http:127.0.0.1:{port}/a": "/a",
    "http://\uff11\uff12\uff17.0.0.1:{port}/a": "/a",
}

# What was copied from HTML or a spreadsheet, by the target that was meant.
COPIED = {
    f"\ufeff{HERE}/a": "/a",
    f"\u200b\u00a0{HERE}/a\u200d\u2060\u3000\u200e\u00ad": "/a",
    f"{HERE}/x?a=1&amp;b=2&amp;c": "/x?a=1&b=2&c",
    f"{HERE}/x?a=1&#38;b=2&#038;c&#x26;d": "/x?a=1&b=2&c&d",
    f"{HERE}/x?a=1&amp;amp;b&amp;#38;c": "/x?a=1&b&c",
    f"{HERE}/a&quot;b&#39;c&#x27;&lt;&gt;&apos;": "/a\"b'c'<>'",
    "http:&#x2F;&#x2F;127.0.0.1:{port}&#x2F;kl&#228;der": "/kl%C3%A4der",
    f"{HERE}/x?a=1&ampb=2&quotc": "/x?a=1&ampb=2&quotc",
}


class RawServer:
    """Answers every request with an empty 200; keeps request line and Host header as sent."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.requests: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while True:
            connection, _ = self.socket.accept()
            with connection, connection.makefile("rb") as lines:
                head = list(iter(lambda: lines.readline().rstrip(b"\r\n").decode("latin-1"), ""))
                if not head:
                    return
                (host,) = (line for line in head if line.lower().startswith("host:"))
                self.requests.put((head[0], host.partition(": ")[2]))
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )

    def stop(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)):
            pass
        self.thread.join()
        self.socket.close()


@pytest.fixture(scope="module")
def raw_server() -> Iterator[RawServer]:
    server = RawServer()
    server.thread.start()
    yield server
    server.stop()


@pytest.fixture(scope="module", params=["curl", "requests"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    client: Client
    if request.param == "curl":
        client = CurlClient(allow_private=True)
    else:
        client = RequestsClient(connections=1, allow_private=True)
    yield client
    client.close()


@pytest.mark.parametrize(("spelling", "target"), (CURL | BROWSERS | COPIED).items())
def test_both_clients_send_these_bytes(
    raw_server: RawServer, client: Client, spelling: str, target: str
) -> None:
    url = normalise(spelling.format(port=raw_server.port))
    client.fetch(Request(url, {}), LIMITS)
    sent = raw_server.requests.get(timeout=10)
    assert sent == (f"GET {target} HTTP/1.1", f"127.0.0.1:{raw_server.port}")


@pytest.mark.parametrize(("spelling", "target"), CURL.items())
def test_libcurl_sends_the_same_bytes_for_the_url_as_it_is(
    raw_server: RawServer, spelling: str, target: str
) -> None:
    curl = pycurl.Curl()
    curl.setopt(pycurl.URL, spelling.format(port=raw_server.port))
    curl.perform()
    curl.close()
    sent = raw_server.requests.get(timeout=10)
    assert sent == (f"GET {target} HTTP/1.1", f"127.0.0.1:{raw_server.port}")


@pytest.mark.parametrize("spelling", ["/50%off%20[a]|b?%zz", "/%c3%a4"])
def test_a_proxy_gets_the_whole_url_in_the_same_spelling(
    raw_server: RawServer, client: Client, spelling: str
) -> None:
    url = normalise(f"http://shop.example{spelling}")
    client.fetch(Request(url, {}, f"http://127.0.0.1:{raw_server.port}"), LIMITS)
    sent = raw_server.requests.get(timeout=10)
    assert sent == (f"GET http://shop.example{spelling} HTTP/1.1", "shop.example")
