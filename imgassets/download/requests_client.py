"""HTTP client on `requests`: pure Python, for systems without pycurl.

A watchdog thread enforces the total time limit by shutting down connections: the timeouts of
`requests` limit only the seconds between two bytes.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from imgassets.download import addresses
from imgassets.download.client import (
    IGNORED_BODY_BYTES,
    Limits,
    Request,
    Response,
    blocked_address_error,
    build_response,
    ca_bundle,
    timeout_error,
    too_large_error,
)
from imgassets.errors import FetchAbortedError, FetchError
from imgassets.manifests import Outcome

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

    def fetch(self, request: Request, limits: Limits) -> Response:
        """See `Client.fetch`."""
        # With a proxy, the connection goes to the proxy, which the user has configured.
        allow_private = self._allow_private or request.proxy is not None
        active = _ActiveRequest(time.monotonic() + limits.total_s, allow_private)
        with self._watchdog.watch(active):
            try:
                return self._fetch(request, limits)
            except FetchError:
                raise
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                if active.aborted:
                    raise FetchAbortedError from error
                if active.shut_down:
                    raise _total_timeout_error(limits) from error
                raise _as_fetch_error(error) from error

    def _fetch(self, request: Request, limits: Limits) -> Response:
        prepared = requests.PreparedRequest()
        prepared.prepare(method="GET", url=request.url, headers=dict(request.headers))
        timeout = (min(limits.connect_s, limits.total_s), min(limits.read_s, limits.total_s))
        proxies = {"http": request.proxy, "https": request.proxy} if request.proxy else None
        response = self._adapter.send(
            prepared, stream=True, timeout=timeout, verify=self._ca_bundle, proxies=proxies
        )
        try:
            body = _read_body(response.raw, response.status_code, limits)
        except BaseException:
            response.raw.close()
            raise
        if _current.request.shut_down:
            # Without a Content-Length, a shut-down connection looks like the end of the body.
            response.raw.close()
            if _current.request.aborted:
                raise FetchAbortedError
            raise _total_timeout_error(limits)
        response.raw.release_conn()
        return build_response(response.status_code, response.raw.headers.iteritems(), body)

    def abort(self) -> None:
        """See `Client.abort`."""
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
    while chunk := raw.read(_CHUNK_BYTES, decode_content=False):
        size += len(chunk)
        chunks.append(chunk)
        if size > max_bytes:
            if refuse:
                raise too_large_error(limits, "stopped reading")
            raw.close()
            break
    return b"".join(chunks)[:max_bytes] if success else b""


def _total_timeout_error(limits: Limits) -> FetchError:
    return timeout_error(f"no complete response after {limits.total_s:g} s")


def _as_fetch_error(error: Exception) -> FetchError:
    text = _innermost_message(error)
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return timeout_error(text)
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader)):
        return FetchError(Outcome.INVALID_URL, text, retryable=False)
    retryable = "CERTIFICATE_VERIFY_FAILED" not in str(error)
    return FetchError(Outcome.CONNECTION_ERROR, text, retryable=retryable)


def _innermost_message(error: BaseException) -> str:
    """Return the message of the innermost error of a chain: the outer ones only repeat it."""
    while True:
        inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        if not isinstance(inner, BaseException):
            return str(error) or type(error).__name__
        error = inner


class _ActiveRequest:
    """A request in flight, as the watchdog sees it.

    Attributes:
        deadline: Time (`time.monotonic`) after which the watchdog shuts the connection down.
        allow_private: Whether the connection may go to a private address.
        socket: The socket that the request uses; None before the connection is made.
        shut_down: Whether the connection was shut down.
        aborted: Whether the client was aborted.
    """

    def __init__(self, deadline: float, allow_private: bool) -> None:
        self.deadline = deadline
        self.allow_private = allow_private
        self.socket: socket.socket | None = None
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


class _Connection(HTTPConnection):
    """A connection to an allowed address, which reports its socket to the watchdog."""

    def _new_conn(self) -> socket.socket:
        allow_private = _current.request.allow_private
        new = super()._new_conn() if allow_private else self._connect_to_public_address()
        _current.request.socket = new
        return new

    def _connect_to_public_address(self) -> socket.socket:
        """Resolve the host once and connect to an address that passed the check.

        A second lookup could return another address (DNS rebinding).
        """
        name = self._dns_host
        try:
            infos = socket.getaddrinfo(name.strip("[]"), self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            message = f"the host name {name} cannot be resolved: {error}"
            raise FetchError(Outcome.CONNECTION_ERROR, message, retryable=True) from error
        resolved = [str(sockaddr[0]) for *_, sockaddr in infos]
        allowed = [address for address in resolved if addresses.is_public(address)]
        if not allowed:
            raise blocked_address_error(resolved[0])
        try:
            for address in allowed[:-1]:
                self._dns_host = address
                with contextlib.suppress(urllib3.exceptions.HTTPError):
                    return super()._new_conn()
            self._dns_host = allowed[-1]
            return super()._new_conn()
        finally:
            self._dns_host = name

    def putrequest(
        self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False
    ) -> None:
        if self.sock is not None:
            _current.request.socket = self.sock
        super().putrequest(method, url, skip_host, skip_accept_encoding)


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
