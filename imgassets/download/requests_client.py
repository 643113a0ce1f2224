"""HTTP client on `requests`: pure Python, for systems without pycurl.

A watchdog thread enforces the total time limit by shutting down connections: the timeouts of
`requests` limit only the seconds between two bytes.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from email.errors import MissingHeaderBodySeparatorDefect

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.connection import create_connection

from imgassets.download import addresses
from imgassets.download.client import (
    IGNORED_BODY_BYTES,
    Failure,
    Limits,
    Request,
    Response,
    blocked_address_error,
    build_response,
    ca_bundle,
    connect_error,
    connection_error,
    timeout_error,
    too_large_error,
)
from imgassets.download.name_lookup import NameLookup
from imgassets.errors import FetchAbortedError, FetchError
from imgassets.manifests import Outcome
from imgassets.urls import origin, target

_CHUNK_BYTES = 65_536
_WATCH_INTERVAL_S = 0.1
"""Seconds between two checks of the watchdog; a request may exceed its limit by this much."""


class RequestsClient:
    """A `Client` with one connection pool for all threads."""

    def __init__(self, *, connections: int, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._ca_bundle = ca_bundle()
        # No session: it would read netrc and the environment for every request, store cookies, and
        # prepare each redirect.
        self._adapter = _Adapter(pool_connections=connections, pool_maxsize=connections)
        self._watchdog = _Watchdog()
        self._names = NameLookup()

    def fetch(self, request: Request, limits: Limits) -> Response:
        """See `Client.fetch`."""
        # With a proxy, the connection goes to the proxy, which the user has configured.
        allow_private = self._allow_private or request.proxy is not None
        active = _ActiveRequest(request.url, limits, allow_private, self._names)
        with self._watchdog.watch(active):
            try:
                return self._fetch(request, limits)
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                if active.aborted:
                    raise FetchAbortedError from error
                if active.shut_down:
                    raise _total_timeout_error(limits) from error
                raise _as_fetch_error(error) from error

    def _fetch(self, request: Request, limits: Limits) -> Response:
        prepared = requests.PreparedRequest()
        # Only the host: requests and urllib3 would encode the path again; see `putrequest`.
        prepared.prepare(method="GET", url=origin(request.url), headers=dict(request.headers))
        timeout = (min(limits.connect_s, limits.total_s), min(limits.read_s, limits.total_s))
        proxies = {"http": request.proxy, "https": request.proxy} if request.proxy else None
        try:
            response = self._adapter.send(
                prepared, stream=True, timeout=timeout, verify=self._ca_bundle, proxies=proxies
            )
        except requests.ConnectionError as error:
            if not _is_stale(error):
                raise
            response = self._adapter.send(
                prepared, stream=True, timeout=timeout, verify=self._ca_bundle, proxies=proxies
            )
        is_needed = response.status_code < 300
        try:
            body = _read_body(response.raw, response.status_code, limits)
        except BaseException as error:
            response.raw.close()
            # The status says enough, whatever happens to the body of an error page or redirect.
            is_broken = isinstance(error, (urllib3.exceptions.HTTPError, OSError, FetchError))
            if is_needed or not is_broken:
                raise
            body = b""
        if _current.request.shut_down and (is_needed or _current.request.aborted):
            # Without a Content-Length, a shut-down connection looks like the end of the body.
            response.raw.close()
            if _current.request.aborted:
                raise FetchAbortedError
            raise _total_timeout_error(limits)
        response.raw.release_conn()
        return build_response(response.status_code, response.raw.headers.iteritems(), body)

    def abort(self) -> None:
        """See `Client.abort`."""
        self._names.abort()
        self._watchdog.abort()

    def close(self) -> None:
        """See `Client.close`."""
        self._watchdog.close()
        self._adapter.close()


def _read_body(raw: urllib3.BaseHTTPResponse, status: int, limits: Limits) -> bytes:
    success = 200 <= status < 300
    max_bytes = limits.max_bytes if success else IGNORED_BODY_BYTES
    content_length = raw.headers.get("content-length", "")
    refuse = success and not limits.truncate
    if refuse and content_length.isdecimal() and int(content_length) > max_bytes:
        raise too_large_error(limits, f"Content-Length is {content_length}")
    chunks = []
    size = 0
    while chunk := _read_chunk(raw):
        size += len(chunk)
        chunks.append(chunk)
        if size > max_bytes:
            if refuse:
                raise too_large_error(limits, "stopped reading")
            raw.close()
            break
    return b"".join(chunks)[:max_bytes] if success else b""


def _read_chunk(raw: urllib3.BaseHTTPResponse) -> bytes:
    try:
        return raw.read(_CHUNK_BYTES, decode_content=False)
    except ValueError as error:  # a negative length of a chunk
        raise connection_error(Failure.BROKEN, "its chunked encoding is broken") from error


def _total_timeout_error(limits: Limits) -> FetchError:
    return timeout_error(f"no complete response after {limits.total_s:g} s")


def _as_fetch_error(error: Exception) -> FetchError:
    if isinstance(error, requests.exceptions.InvalidURL):
        return FetchError(Outcome.INVALID_URL, str(error), retryable=False)
    cause = _root_cause(error)
    if isinstance(cause, (TimeoutError, urllib3.exceptions.TimeoutError)):
        return timeout_error("no data received in time")
    failure, detail = _describe(cause)
    if failure is Failure.BROKEN and isinstance(error, requests.exceptions.ProxyError):
        failure = Failure.PROXY
    return connection_error(failure, detail)


def _describe(cause: BaseException) -> tuple[Failure, str]:
    """Return what is wrong, and more about it."""
    failure, detail = Failure.BROKEN, str(cause)
    match cause:
        case ssl.SSLCertVerificationError():
            failure, detail = Failure.CERTIFICATE, cause.verify_message
        case ssl.SSLError(reason=str(reason)):  # such as WRONG_VERSION_NUMBER
            failure, detail = Failure.TLS, reason.replace("_", " ").lower()
        case http.client.RemoteDisconnected():
            failure, detail = Failure.NO_RESPONSE, ""
        case OSError(strerror=str(strerror)):
            detail = strerror
        case http.client.IncompleteRead(expected=None):
            failure, detail = Failure.CUT_OFF, "its chunked encoding is broken"
        case http.client.IncompleteRead(expected=missing):
            failure, detail = Failure.CUT_OFF, f"{missing} bytes are missing"
        case http.client.BadStatusLine() | http.client.UnknownProtocol():
            failure, detail = Failure.NOT_HTTP, f"it starts with {detail.strip()[:60]!r}"
        case urllib3.exceptions.InvalidHeader():
            failure = Failure.NOT_HTTP
        case http.client.HTTPException():
            failure = Failure.LARGE_HEADERS
    return failure, detail


def _root_cause(error: BaseException) -> BaseException:
    """Return the innermost error of a chain: the outer ones only repeat it, with Python objects."""
    inner = (getattr(error, "reason", None), *error.args)
    cause = next((value for value in inner if isinstance(value, BaseException)), None)
    return error if cause is None else _root_cause(cause)


def _is_stale(error: requests.ConnectionError) -> bool:
    """Return whether a server closed a kept-alive connection when the next request was sent."""
    closed = isinstance(_root_cause(error), (ConnectionError, ssl.SSLEOFError))
    request = _current.request
    return closed and request.reuses_connection and not request.shut_down


class _ActiveRequest:
    """A request in flight, as the watchdog sees it.

    Attributes:
        url: The normalised URL.
        deadline: Time (`time.monotonic`) after which the watchdog shuts the connection down.
        connect_s: Maximum seconds until the connection is established.
        allow_private: Whether the connection may go to a private address.
        names: Looks up host names.
        socket: The socket that the request uses; None before the connection is made.
        reuses_connection: Whether no connection had to be opened so far.
        shut_down: Whether the connection was shut down.
        aborted: Whether the client was aborted.
    """

    def __init__(self, url: str, limits: Limits, allow_private: bool, names: NameLookup) -> None:
        self.url = url
        self.deadline = time.monotonic() + limits.total_s
        self.connect_s = min(limits.connect_s, limits.total_s)
        self.allow_private = allow_private
        self.names = names
        self.socket: socket.socket | None = None
        self.reuses_connection = True
        self.shut_down = False
        self.aborted = False

    def shut_down_connection(self) -> None:
        self.shut_down = True
        if self.socket is not None:
            # Not through the SSL layer: another thread is using it.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


class _Current(threading.local):
    request: _ActiveRequest


_current = _Current()


class _Watchdog:
    """Shuts down the connections of requests that exceed their time limit."""

    def __init__(self) -> None:
        self._requests: set[_ActiveRequest] = set()
        self._lock = threading.Lock()
        self._aborted = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="download-watchdog", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def watch(self, request: _ActiveRequest) -> Iterator[None]:
        with self._lock:
            if self._aborted:
                raise FetchAbortedError
            self._requests.add(request)
        _current.request = request
        try:
            yield
        finally:
            with self._lock:
                self._requests.discard(request)

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            for request in self._requests:
                request.aborted = True
                request.shut_down_connection()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(_WATCH_INTERVAL_S):
            now = time.monotonic()
            with self._lock:
                for request in self._requests:
                    if request.deadline < now or request.aborted:
                        request.shut_down_connection()


class _FinalResponse(http.client.HTTPResponse):
    """A response as browsers read it: http.client skips only the interim responses with 100."""

    def begin(self) -> None:
        super().begin()
        while 102 <= self.status < 200:
            self.headers = None  # type: ignore[assignment]  # otherwise `begin` does nothing
            super().begin()
        if any(isinstance(d, MissingHeaderBodySeparatorDefect) for d in self.headers.defects):
            # http.client would lose all headers after this line.
            raise urllib3.exceptions.InvalidHeader("a header line is malformed")
        if not self.chunked:
            self._check_length()

    def _check_length(self) -> None:
        """Read Content-Length as strictly as curl; `5, 5` is 5 (RFC 9110, 8.6)."""
        values = self.headers.get_all("Content-Length")
        if values is None:
            return
        numbers = [number.strip() for number in ",".join(values).split(",")]
        if not all(number.isascii() and number.isdecimal() for number in numbers):
            raise urllib3.exceptions.InvalidHeader("Content-Length is not a number")
        # More digits than any file needs: Python refuses to read thousands of them.
        lengths = {int(number.lstrip("0")[:20] or 0) for number in numbers}
        if len(lengths) > 1:
            raise urllib3.exceptions.InvalidHeader("Content-Length has different values")
        length = lengths.pop()
        self.headers.replace_header("Content-Length", str(length))
        if self.length != 0:  # some statuses have no body
            self.length = length


class _Connection(HTTPConnection):
    """A connection to an allowed address, which reports its socket to the watchdog."""

    response_class = _FinalResponse

    def _new_conn(self) -> socket.socket:
        request = _current.request
        request.reuses_connection = False
        request.socket = self._connect(request)
        return request.socket

    def _connect(self, request: _ActiveRequest) -> socket.socket:
        """Look up the host once and connect to an address that passes the check.

        A second lookup could return another address (DNS rebinding).
        """
        deadline = time.monotonic() + request.connect_s
        host = self._dns_host.strip("[]")
        found = request.names.addresses(host, request.connect_s)
        allowed = [a for a in found if request.allow_private or addresses.is_public(a)]
        if not allowed:
            raise blocked_address_error(found[0])
        for position, address in enumerate(allowed):
            # Each address gets a share of the time: the first one may not answer at all.
            share_s = max(deadline - time.monotonic(), 0.001) / (len(allowed) - position)
            try:
                return create_connection(
                    (address, self.port), share_s, socket_options=self.socket_options
                )
            except TimeoutError:
                failure = timeout_error(f"no connection to {host}:{self.port} in time")
            except OSError as error:
                failure = connect_error(host, self.port, error.strerror or str(error))
        raise failure

    def putrequest(
        self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False
    ) -> None:
        """See `http.client`; sends the URL of the request as it is, whatever `url` is."""
        request = _current.request
        if self.sock is not None:
            request.socket = self.sock
        # A proxy needs the whole URL, unless it only tunnels.
        exact = target(request.url) if url.startswith("/") else request.url
        super().putrequest(method, exact, skip_host, skip_accept_encoding)


class _SecureConnection(_Connection, HTTPSConnection):
    """A `_Connection` over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Adapter(HTTPAdapter):
    """An adapter whose connection pools use `_Connection`."""

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: object
    ) -> None:
        super().init_poolmanager(connections, maxsize, block, **pool_kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: object) -> urllib3.ProxyManager:
        manager: urllib3.ProxyManager = super().proxy_manager_for(proxy, **proxy_kwargs)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        return manager
