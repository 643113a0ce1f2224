"""A loopback HTTP server of a folder's files, as a shop's image host is one.

Here lives serving: keep-alive, the content type that the suffix promises (also where the file is
something else), ETag and Last-Modified. What the files are is in `catalogue`.
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import hashlib
import socket
import sys
import threading
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

_HOST = "127.0.0.1"
_CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
_Request = socket.socket | tuple[bytes, socket.socket]

PORT = 8765
"""The demo's. Any port would do, but it stands in the URLs of the documents, so it stays."""

SERVER_NAME = "imgassets-demo"
"""What the server calls itself in its answers, so that a second demo knows the first one's."""


class ServerError(Exception):
    """The server cannot start; the message says why and what to do."""


class CatalogueServer:
    """Serves a folder on 127.0.0.1 while its context is open.

    Attributes:
        requests: answers by URL path (without the query), of GET and HEAD, 404 included.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        """Choose what to serve, and where.

        Args:
            folder: its files are served by their path; names with a dot in front are not.
            port: 0 takes a free one.
        """
        self.requests: Counter[str] = Counter()
        self._folder = folder.resolve()
        self._wanted_port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port served on.

        Raises:
            ServerError: the context is not open.
        """
        if self._server is None:
            raise ServerError("the sample catalogue is not being served")
        return self._server.server_port

    @property
    def url(self) -> str:
        """The address of the server, without a slash at the end.

        Raises:
            ServerError: the context is not open.
        """
        return f"http://{_HOST}:{self.port}"

    def __enter__(self) -> Self:
        """Start to serve.

        Raises:
            ServerError: the port is taken.
        """
        try:
            self._server = _Server(self._wanted_port, self._folder, self.requests)
        except OSError as error:
            if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise
            raise ServerError(
                f"cannot serve the sample catalogue on {_HOST}:{self._wanted_port}: "
                f"{error.strerror}; stop what uses the port, or choose another"
            ) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, and end the connections that clients keep open."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server.close_connections()
        self._server = self._thread = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A client that opens all its connections at once is not made to wait for a retransmission.
    request_queue_size = 256

    def __init__(self, port: int, folder: Path, requests: Counter[str]) -> None:
        self.folder = folder
        self.requests = requests
        self.lock = threading.Lock()
        self._open: set[_Request] = set()
        super().__init__((_HOST, port), _Handler)

    def process_request(self, request: _Request, client_address: object) -> None:
        with self.lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: _Request) -> None:
        with self.lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        with self.lock:
            for connection in self._open:
                # Wakes the thread that reads from it, which then closes it. The client may have
                # closed it first.
                if isinstance(connection, socket.socket):
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: _Request, client_address: object) -> None:
        # A client that hangs up is no news.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = SERVER_NAME
    # Headers and body are written apart; Nagle would hold the second back for 40 ms.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.server.lock:
            self.server.requests[path] += 1
        file = (self.server.folder / path.removeprefix("/")).resolve()
        inside = file.is_relative_to(self.server.folder) and not file.name.startswith(".")
        if not inside or not file.is_file():
            self._answer(HTTPStatus.NOT_FOUND, b"not found\n", {"Content-Type": "text/plain"})
            return
        data = file.read_bytes()
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        headers = {
            "Content-Type": _CONTENT_TYPES.get(file.suffix, "application/octet-stream"),
            "ETag": tag,
            "Last-Modified": email.utils.formatdate(file.stat().st_mtime, usegmt=True),
        }
        if self.headers.get("If-None-Match") == tag:
            self._answer(HTTPStatus.NOT_MODIFIED, b"", headers)
        else:
            self._answer(HTTPStatus.OK, data, headers)

    do_HEAD = do_GET  # noqa: N815 - the name is http.server's

    def _answer(self, status: HTTPStatus, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, _format: str, *_args: object) -> None:
        """Say nothing: a demo's terminal shows progress."""
