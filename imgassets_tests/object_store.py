"""An S3 API on 127.0.0.1 that counts its requests, and that can be slow or away.

It is moto's server behind a WSGI application that records each request before it passes it on.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PREFIX = "data"
# The first that begins a path is its kind.
_KINDS = (
    "images/raw",
    "images/processed",
    "journal/temporary",
    "journal",
    "manifests",
    "review",
    "removed",
)
_UNAVAILABLE = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>ServiceUnavailable</Code>'
    b"<Message>The service is unable to handle the request.</Message></Error>"
)


@dataclass(frozen=True)
class Request:
    """A request that the server got.

    Attributes:
        time: When, in seconds since 1970.
        method: GET, HEAD, PUT, DELETE, LIST, BULK DELETE or MULTIPART.
        path: The key, or the prefix of a listing, below `PREFIX`.
    """

    time: float
    method: str
    path: str

    @property
    def kind(self) -> str:
        """The folder that the path is in."""
        return next((kind for kind in _KINDS if self.path.startswith(kind)), "other")


@dataclass
class ObjectStore:
    """A running server.

    Attributes:
        address: Its URL.
        requests: All requests since `requests.clear()`; those answered with 503 are in it.
        delay_s: How long each request waits before it is executed.
        refusals: Number of the next requests that are answered with status 503; `math.inf` for all.
    """

    address: str = ""
    requests: list[Request] = field(default_factory=list)
    delay_s: float = 0.0
    refusals: float = 0

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of processes that use the server."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def create_bucket(self, name: str) -> str:
        """Create a bucket, and return the address of a data root in it."""
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.address,
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=name)
        self.requests.clear()
        return f"s3://{name}/{PREFIX}"

    def counts(self) -> Counter[tuple[str, str]]:
        """Number of requests by kind of path and method."""
        return Counter((request.kind, request.method) for request in self.requests)


@contextmanager
def running() -> Iterator[ObjectStore]:
    """Start a server, and stop it at the end."""
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    class QuietHandler(MotoRequestHandler):
        def log_request(self, *_: object) -> None:
            pass

    store = ObjectStore()
    application = _count(DomainDispatcherApplication(create_backend_app), store)
    server = make_server("127.0.0.1", 0, application, True, request_handler=QuietHandler)
    store.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _count(application: Callable[..., Any], store: ObjectStore) -> Callable[..., Iterable[bytes]]:
    lock = threading.Lock()

    def counted(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        store.requests.append(_request(environ))
        if store.delay_s:
            time.sleep(store.delay_s)
        with lock:
            refused, store.refusals = store.refusals > 0, max(0, store.refusals - 1)
        if refused:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            headers = [("Content-Type", "text/xml"), ("Content-Length", str(len(_UNAVAILABLE)))]
            start_response("503 Service Unavailable", headers)
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [_UNAVAILABLE]
        with lock:  # moto fails to list objects while others are deleted
            answer: Iterable[bytes] = application(environ, start_response)
        return answer

    return counted


def _request(environ: WSGIEnvironment) -> Request:
    method = environ["REQUEST_METHOD"]
    query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    path = unquote(environ["PATH_INFO"]).lstrip("/").partition("/")[2]
    if method == "GET" and "list-type" in query:
        method, (path, *_) = "LIST", query.get("prefix", [""])
    elif "delete" in query:
        method = "BULK DELETE"
    elif "uploads" in query or "uploadId" in query:
        method = "MULTIPART"
    return Request(time.time(), method, path.removeprefix(f"{PREFIX}/"))
