"""The engine on `requests`: pure Python, for whoever cannot install pycurl.

Here lives what makes `requests` keep all limits: a watchdog that cuts connections whose time is up,
since the timeouts of `requests` only count the seconds between two bytes.
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
from imgassets.download.client import IGNORED_BODY, Limits, Request, Response, blocked, ca_bundle
from imgassets.errors import FetchAbortedError, FetchError
from imgassets.manifests import Outcome

_CHUNK = 65_536
_WATCH_S = 0.1
"""How often the watchdog looks; a request may take this much longer than its limit."""


class RequestsClient:
    """One pool of connections for all threads."""

    def __init__(self, *, connections: int, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._ca_bundle = ca_bundle()
        # The adapter without its session, which would look at netrc and the environment for every
        # request, keep cookies, and prepare each redirect.
        self._adapter = _Adapter(pool_connections=connections, pool_maxsize=connections)
        self._watchdog = _Watchdog()

    def fetch(self, request: Request, limits: Limits) -> Response:
        """See `Client.fetch`."""
        # With a proxy the connection is the proxy's, which the settings name.
        unguarded = self._allow_private or request.proxy is not None
        flight = _Flight(time.monotonic() + limits.total_s, unguarded)
        with self._watchdog.watching(flight):
            try:
                return self._fetch(request, limits)
            except FetchError:
                raise
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                if flight.aborted:
                    raise FetchAbortedError from error
                if flight.cut:
                    raise _too_long(limits) from error
                raise _as_fetch_error(error) from error

    def _fetch(self, request: Request, limits: Limits) -> Response:
        prepared = requests.PreparedRequest()
        prepared.prepare(method="GET", url=request.url, headers=dict(request.headers))
        timeout = (min(limits.connect_s, limits.total_s), min(limits.read_s, limits.total_s))
        proxies = {"http": request.proxy, "https": request.proxy} if request.proxy else None
        answer = self._adapter.send(
            prepared, stream=True, timeout=timeout, verify=self._ca_bundle, proxies=proxies
        )
        try:
            body = _body(answer.raw, answer.status_code, limits)
        except BaseException:
            answer.raw.close()
            raise
        if _current.flight.cut:
            # A connection that is shut down looks like the end of a body without a length.
            answer.raw.close()
            if _current.flight.aborted:
                raise FetchAbortedError
            raise _too_long(limits)
        answer.raw.release_conn()
        headers: dict[str, str] = {}
        for name, value in answer.raw.headers.iteritems():
            key = name.lower()
            headers[key] = f"{headers[key]}\n{value}" if key in headers else value
        return Response(answer.status_code, headers, body)

    def abort(self) -> None:
        """See `Client.abort`."""
        self._watchdog.abort()

    def close(self) -> None:
        """See `Client.close`."""
        self._watchdog.close()
        self._adapter.close()


def _body(raw: urllib3.BaseHTTPResponse, status: int, limits: Limits) -> bytes:
    wanted = 200 <= status < 300
    allowed = limits.max_bytes if wanted else IGNORED_BODY
    announced = raw.headers.get("content-length", "")
    if wanted and announced.isdecimal() and int(announced) > allowed:
        raise _too_large(announced, limits)
    chunks = []
    size = 0
    while chunk := raw.read(_CHUNK, decode_content=False):
        size += len(chunk)
        if size > allowed:
            if wanted:
                raise _too_large("more", limits)
            raw.close()
            break
        chunks.append(chunk)
    return b"".join(chunks) if wanted else b""


def _too_large(size: str, limits: Limits) -> FetchError:
    message = f"{size} bytes; allowed: {limits.max_bytes}"
    return FetchError(Outcome.TOO_LARGE, message, retryable=False)


def _too_long(limits: Limits) -> FetchError:
    message = f"not done after {limits.total_s:g} s"
    return FetchError(Outcome.TIMEOUT, message, retryable=True)


def _as_fetch_error(error: Exception) -> FetchError:
    text = _innermost(error)
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return FetchError(Outcome.TIMEOUT, text, retryable=True)
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader)):
        return FetchError(Outcome.INVALID_URL, text, retryable=False)
    retryable = "CERTIFICATE_VERIFY_FAILED" not in str(error)
    return FetchError(Outcome.CONNECTION_ERROR, text, retryable=retryable)


def _innermost(error: BaseException) -> str:
    """The plainest sentence in a chain of wrapped errors."""
    while True:
        inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        if not isinstance(inner, BaseException):
            return str(error) or type(error).__name__
        error = inner


class _Flight:
    """A request on its way, as the watchdog sees it."""

    def __init__(self, deadline: float, unguarded: bool) -> None:
        self.deadline = deadline
        self.unguarded = unguarded
        self.socket: socket.socket | None = None
        self.cut = False
        self.aborted = False

    def shut_down(self) -> None:
        self.cut = True
        if self.socket is not None:
            # Past the SSL layer, which another thread is using.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


class _Current(threading.local):
    flight: _Flight


_current = _Current()


class _Watchdog:
    """Cuts the connections of requests whose time is up."""

    def __init__(self) -> None:
        self._flights: set[_Flight] = set()
        self._lock = threading.Lock()
        self._aborted = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="download-watchdog", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def watching(self, flight: _Flight) -> Iterator[None]:
        with self._lock:
            if self._aborted:
                raise FetchAbortedError
            self._flights.add(flight)
        _current.flight = flight
        try:
            yield
        finally:
            with self._lock:
                self._flights.discard(flight)

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            for flight in self._flights:
                flight.aborted = True
                flight.shut_down()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(_WATCH_S):
            now = time.monotonic()
            with self._lock:
                for flight in self._flights:
                    if flight.deadline < now or flight.aborted:
                        flight.shut_down()


class _Connection(HTTPConnection):
    """Connects to allowed addresses, and tells the watchdog which socket a request uses."""

    def _new_conn(self) -> socket.socket:
        new = super()._new_conn() if _current.flight.unguarded else self._guarded()
        _current.flight.socket = new
        return new

    def _guarded(self) -> socket.socket:
        """Connect to the very address that was judged: a second DNS answer may be another."""
        name = self._dns_host
        try:
            found = socket.getaddrinfo(name.strip("[]"), self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            message = f"the name {name} cannot be looked up: {error}"
            raise FetchError(Outcome.CONNECTION_ERROR, message, retryable=True) from error
        refused = [str(sockaddr[0]) for *_, sockaddr in found]
        allowed = [address for address in refused if addresses.is_public(address)]
        if not allowed:
            raise blocked(refused[0])
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
            _current.flight.socket = self.sock
        super().putrequest(method, url, skip_host, skip_accept_encoding)


class _SecureConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Adapter(HTTPAdapter):
    """Connections of the kind above."""

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: object
    ) -> None:
        super().init_poolmanager(connections, maxsize, block, **pool_kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: object) -> urllib3.ProxyManager:
        manager: urllib3.ProxyManager = super().proxy_manager_for(proxy, **proxy_kwargs)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        return manager
