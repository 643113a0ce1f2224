"""HTTP server on 127.0.0.1 for tests, which can misbehave like real servers.

Each path has a function that receives the request's handler and sends the response; `answer`
returns one that sends a normal response.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        server = self.server
        path = self.path.partition("?")[0]
        with server.lock:
            server.hits[path] += 1
            server.requests[path].append(self.headers)
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            respond = server.answers.get(path, server.otherwise)
        try:
            respond(self)
        except OSError:  # the client has gone
            self.close_connection = True
        finally:
            with server.lock:
                server.at_once -= 1

    def do_CONNECT(self) -> None:
        self.reply(b"", self.server.proxy_status)

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def head(self, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def reply(
        self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self.head(status, {"Content-Length": str(len(body))} | dict(headers or {}))
        self.wfile.write(body)

    def reset(self) -> None:
        """Reset the connection (TCP RST)."""
        self.close_connection = True
        linger = (1).to_bytes(4, "little") + bytes(4)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (name in the base class)
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.lock = threading.Lock()
        self.answers: dict[str, Answer] = {}
        self.otherwise: Answer = answer(b"no such page", status=404)
        self.hits: Counter[str] = Counter()
        self.requests: defaultdict[str, list[Message]] = defaultdict(list)
        self.proxy_status = 501
        self.connections = 0
        self.at_once = 0
        self.most_at_once = 0
        self.closing = threading.Event()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_address[1]}{path}"

    def add(self, path: str, response: Answer | bytes) -> str:
        """Set the response of a path, and return its URL."""
        self.answers[path] = answer(response) if isinstance(response, bytes) else response
        return self.url(path)

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextlib.contextmanager
def running() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def answer(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return lambda handler: handler.reply(body, status, headers)


def in_turn(*answers: Answer) -> Answer:
    """Send one response per request, in order; all further requests get the last one."""
    remaining = list(answers)
    lock = threading.Lock()

    def respond(handler: Handler) -> None:
        with lock:
            current = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        current(handler)

    return respond


def redirect(location: str, status: int = 302) -> Answer:
    return answer(b"", status, {"Location": location})


def hang(handler: Handler) -> None:
    """Send nothing until the server closes."""
    handler.server.closing.wait(60)
    handler.close_connection = True


def slow(seconds: float, then: Answer) -> Answer:
    """Wait before the response."""

    def respond(handler: Handler) -> None:
        handler.server.closing.wait(seconds)
        then(handler)

    return respond


def drip(body: bytes, every_s: float = 0.05) -> Answer:
    """Send the body one byte at a time, with a pause of `every_s` seconds after each."""

    def respond(handler: Handler) -> None:
        handler.head(200, {"Content-Length": str(len(body))})
        for byte in body:
            if handler.server.closing.wait(every_s):
                break
            handler.wfile.write(bytes([byte]))

    return respond


def slow_headers(handler: Handler) -> None:
    """Send a header line that never ends."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not handler.server.closing.wait(0.05):
        handler.wfile.write(b"x")
    handler.close_connection = True


def reset_halfway(body: bytes) -> Answer:
    """Reset the connection after half of the body."""

    def respond(handler: Handler) -> None:
        handler.head(200, {"Content-Length": str(len(body))})
        handler.wfile.write(body[: len(body) // 2])
        handler.reset()

    return respond


def reset(handler: Handler) -> None:
    """Reset the connection before any header."""
    handler.reset()


def wrong_content_length(body: bytes, length: int) -> Answer:
    """Send a Content-Length that is not the length of the body."""

    def respond(handler: Handler) -> None:
        handler.head(200, {"Content-Length": str(length)})
        handler.wfile.write(body)
        handler.close_connection = True

    return respond


def endless(handler: Handler) -> None:
    """Send an endless body without a Content-Length."""
    handler.head(200, {"Connection": "close"})
    while not handler.server.closing.is_set():
        handler.wfile.write(b"\xff\xd8\xff\xe0" + bytes(65_536))
    handler.close_connection = True


def body_until_close(body: bytes) -> Answer:
    """Send a body without a Content-Length: it ends when the connection closes."""

    def respond(handler: Handler) -> None:
        handler.head(200, {"Connection": "close"})
        handler.wfile.write(body)
        handler.close_connection = True

    return respond


def chunked(body: bytes) -> Answer:
    """Send the body in chunks of 1000 bytes."""

    def respond(handler: Handler) -> None:
        handler.head(200, {"Transfer-Encoding": "chunked"})
        for start in range(0, len(body), 1000):
            part = body[start : start + 1000]
            handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    return respond


def with_etag(body: bytes, etag: str) -> Answer:
    """Answer 304 to a request with this ETag, otherwise with the body."""

    def found(handler: Handler) -> None:
        if handler.headers["If-None-Match"] == etag:
            handler.head(304, {"ETag": etag})
        else:
            handler.reply(body, headers={"ETag": etag})

    return found


def with_date(body: bytes, date: str) -> Answer:
    """Answer 304 to a request with this Last-Modified, otherwise with the body."""

    def found(handler: Handler) -> None:
        if handler.headers["If-Modified-Since"] == date:
            handler.head(304)
        else:
            handler.reply(body, headers={"Last-Modified": date})

    return found
