"""Serve a folder over HTTP on loopback, like the image host of a shop.

The server supports keep-alive, ETag and Last-Modified, and derives the content type from the
suffix, even if the file has another format. Making the files is in `catalogue`.
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

import requests

from imgassets.errors import CatalogueServerError

_HOST = "127.0.0.1"
_CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
_Request = socket.socket | tuple[bytes, socket.socket]

PORT = 8765
"""Default port of the demo; fixed, because it is part of the URLs in the documents."""


def is_served(folder: Path, port: int) -> bool:
    """Whether a server of the folder, which may be another process's, listens on a port.

    Args:
        folder: Folder with the files of a catalogue.
        port: TCP port on 127.0.0.1.
    """
    try:
        answer = requests.head(f"http://{_HOST}:{port}", timeout=2)
    except requests.RequestException:
        return False
    return answer.headers.get("Server") == _server_name(folder)


def _server_name(folder: Path) -> str:
    """Return the `Server` header by which processes of one demo recognise its server."""
    digest = hashlib.sha256(str(folder.resolve()).encode("utf-8", "surrogateescape"))
    return f"imgassets-demo-{digest.hexdigest()[:16]}"


class CatalogueServer:
    """Serves a folder on 127.0.0.1, as a context manager.

    Attributes:
        requests: Number of GET and HEAD requests by URL path (without the query), including those
            answered with 404.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        """Create a server that is not started yet.

        Args:
            folder: Folder to serve; files whose names start with a dot are not served.
            port: Port to listen on; 0 selects a free one.
        """
        self.requests: Counter[str] = Counter()
        self._folder = folder.resolve()
        self._wanted_port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that the server listens on.

        Raises:
            CatalogueServerError: The server is not running.
        """
        if self._server is None:
            raise CatalogueServerError(
                "the catalogue server is not running; enter its context first"
            )
        return self._server.server_port

    @property
    def url(self) -> str:
        """The address of the server, without a trailing slash.

        Raises:
            CatalogueServerError: The server is not running.
        """
        return f"http://{_HOST}:{self.port}"

    def __enter__(self) -> Self:
        """Start the server.

        Raises:
            CatalogueServerError: The port is in use or not permitted.
        """
        try:
            self._server = _Server(self._wanted_port, self._folder, self.requests)
        except OSError as error:
            if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise
            raise CatalogueServerError(
                f"cannot serve the sample catalogue on {_HOST}:{self._wanted_port}: "
                f"{error.strerror}; stop the process that uses the port, or choose another port"
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
        """Stop the server, and close the connections that clients keep open."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server.close_connections()
        self._server = self._thread = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # With a short queue, clients that open many connections at once wait for a SYN retransmission.
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
                # Wakes up the thread that reads from the connection, which then closes it. Fails if
                # the client has closed it first.
                if isinstance(connection, socket.socket):
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: _Request, client_address: object) -> None:
        # A client may close its connection at any time.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    # Headers and body are separate writes; Nagle's algorithm would delay the second by 40 ms.
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

    do_HEAD = do_GET  # noqa: N815 - name required by http.server

    def _answer(self, status: HTTPStatus, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        """Return the `Server` header."""
        return _server_name(self.server.folder)

    def log_message(self, _format: str, *_args: object) -> None:
        """Suppress the access log: the terminal of the demo shows progress."""
