"""An S3 API on 127.0.0.1 that can be made to answer 503, as a busy object store does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

_Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Handler(MotoRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Print nothing."""


class ObjectStore:
    """A server that keeps its objects in memory.

    Attributes:
        refuses: Whether it answers every request with 503.
        refused: Number of requests that were answered so.
    """

    def __init__(self) -> None:
        self.refuses, self.refused = False, 0
        self._store: _Application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=_Handler
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._thread.join()

    def _answer(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if not self.refuses:
            return self._store(environ, start_response)
        self.refused += 1
        # Without the XML of S3, as a proxy before it answers.
        start_response("503 Service Unavailable", [("Content-Length", "0")])
        return []
