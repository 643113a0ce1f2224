"""The engine on libcurl, through pycurl: it moves bytes outside Python's lock.

Here lives what libcurl is told and how its errors read. One handle a thread, since a handle serves
one request at a time; its connections are kept alive with it.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
from collections.abc import Mapping

import pycurl  # type: ignore[import-untyped]

from imgassets.download import addresses
from imgassets.download.client import (
    AbortedError,
    FetchError,
    Limits,
    Request,
    Response,
    blocked,
    ca_bundle,
)
from imgassets.manifests import Outcome

_BUFFER = 131_072
"""Bytes read at a time: libcurl's default of 16 kB costs twice the system calls."""


class CurlClient:
    """One libcurl handle a thread."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._local = threading.local()
        self._lock = threading.Lock()
        self._handles: list[_Handle] = []
        self._aborted = False

    def fetch(self, request: Request, limits: Limits) -> Response:
        """See `Client.fetch`."""
        if self._aborted:
            raise AbortedError
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = _Handle(self._allow_private)
            with self._lock:
                self._handles.append(handle)
        try:
            return handle.fetch(request, limits)
        except FetchError as error:
            if self._aborted:
                raise AbortedError from error
            raise

    def abort(self) -> None:
        """See `Client.abort`."""
        self._aborted = True
        with self._lock:
            for handle in self._handles:
                handle.sockets.shut_down()

    def close(self) -> None:
        """See `Client.close`."""
        with self._lock:
            for handle in self._handles:
                # A thread that is stuck in a name lookup keeps its handle to itself.
                with contextlib.suppress(pycurl.error):
                    handle.curl.close()


class _Sockets:
    """The sockets that libcurl has open, so that another thread can cut them.

    libcurl asks a callback for every progress otherwise, which doubles the cost of a request.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[int] = set()
        self._cut = False

    def opened(self, handle: int, _purpose: int) -> int:
        with self._lock:
            self._open.add(handle)
            # libcurl asks again over a new connection where a kept one ends before an answer.
            return 1 if self._cut else 0

    def closed(self, handle: int) -> int:
        with self._lock:
            self._open.discard(handle)
            os.close(handle)
        return 0

    def shut_down(self) -> None:
        with self._lock:
            self._cut = True
            for handle in self._open:
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(handle)) as twin:
                    twin.shutdown(socket.SHUT_RDWR)


class _Lent(socket.socket):
    """A socket that pycurl duplicates and then forgets: this one is closed as it goes."""

    def __del__(self) -> None:
        self.close()


class _Handle:
    """libcurl as one thread uses it."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._proxy: str | None = None
        self._refused: str | None = None
        self.sockets = _Sockets()
        self._headers: Mapping[str, str] | None = None
        self._limits: Limits | None = None
        self._lines: list[bytes] = []
        self.curl = curl = pycurl.Curl()
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER)
        curl.setopt(pycurl.CAINFO, ca_bundle())
        curl.setopt(pycurl.NETRC, 0)
        # Proxies come from the settings alone, as in the other engine.
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.NOPROXY, "")
        if not allow_private:
            curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        curl.setopt(pycurl.HEADERFUNCTION, self._lines.append)
        curl.setopt(pycurl.SOCKOPTFUNCTION, self.sockets.opened)
        curl.setopt(pycurl.CLOSESOCKETFUNCTION, self.sockets.closed)

    def fetch(self, request: Request, limits: Limits) -> Response:
        curl = self.curl
        self._set_limits(limits)
        if request.headers is not self._headers:
            self._headers = request.headers
            lines = [f"{name}: {value}" for name, value in request.headers.items()]
            curl.setopt(pycurl.HTTPHEADER, lines)
        if request.proxy != self._proxy:
            self._proxy = request.proxy
            curl.setopt(pycurl.PROXY, request.proxy or "")
        self._refused = None
        chunks: list[bytes] = []
        self._lines.clear()
        curl.setopt(pycurl.URL, request.url)
        curl.setopt(pycurl.WRITEFUNCTION, chunks.append)
        try:
            curl.perform()
        except pycurl.error as error:
            code, message = error.args[0], str(error.args[1])
            status = curl.getinfo(pycurl.RESPONSE_CODE)
            if code == pycurl.E_FILESIZE_EXCEEDED and not 200 <= status < 300:
                return Response(status, _headers(self._lines), b"")
            if self._refused is not None and code == pycurl.E_COULDNT_CONNECT:
                raise blocked(self._refused) from error
            raise _as_fetch_error(code, message, limits) from error
        status = curl.getinfo(pycurl.RESPONSE_CODE)
        body = b"".join(chunks) if 200 <= status < 300 else b""
        return Response(status, _headers(self._lines), body)

    def _open_socket(
        self, _purpose: int, peer: tuple[int, int, int, tuple[str | bytes, int]]
    ) -> socket.socket | int:
        """Open a socket to the very address that was judged, or none."""
        family, kind, protocol, sockaddr = peer
        address = sockaddr[0] if isinstance(sockaddr[0], str) else sockaddr[0].decode()
        # With a proxy the connection is the proxy's, which the settings name.
        if self._proxy is None and not addresses.is_public(address):
            self._refused = address
            return int(pycurl.SOCKET_BAD)
        return _Lent(family, kind, protocol)

    def _set_limits(self, limits: Limits) -> None:
        if limits is self._limits:
            return
        self._limits = limits
        curl = self.curl
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, _milliseconds(limits.connect_s))
        curl.setopt(pycurl.TIMEOUT_MS, _milliseconds(limits.total_s))
        curl.setopt(pycurl.LOW_SPEED_LIMIT, 1)
        curl.setopt(pycurl.LOW_SPEED_TIME, math.ceil(limits.read_s))
        # Since libcurl 8.4 also of bodies without an announced size.
        curl.setopt(pycurl.MAXFILESIZE_LARGE, limits.max_bytes)


def _milliseconds(seconds: float) -> int:
    # To libcurl 0 means no limit.
    return max(round(seconds * 1000), 1)


def _headers(lines: list[bytes]) -> dict[str, str]:
    """The headers of the last answer: an interim one (100, 103) may stand before it."""
    headers: dict[str, str] = {}
    for line in lines:
        if line.startswith(b"HTTP/"):
            headers = {}
            continue
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}\n{value}" if name in headers else value
    return headers


def _as_fetch_error(code: int, message: str, limits: Limits) -> FetchError:
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return FetchError(Outcome.TIMEOUT, message, passing=True)
    if code == pycurl.E_FILESIZE_EXCEEDED:
        error = f"more than download.max_bytes ({limits.max_bytes}): {message}"
        return FetchError(Outcome.TOO_LARGE, error, passing=False)
    if code == pycurl.E_URL_MALFORMAT:
        return FetchError(Outcome.INVALID_URL, message, passing=False)
    passing = code != pycurl.E_PEER_FAILED_VERIFICATION
    return FetchError(Outcome.CONNECTION_ERROR, message, passing=passing)
