"""The engine on libcurl, through pycurl: it moves bytes outside Python's lock.

Here lives what libcurl is told and how its errors read. One handle a thread, since a handle serves
one request at a time; the thread that drives them all, and keeps their connections alive, is in
`curl_loop`.
"""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Mapping

import pycurl  # type: ignore[import-untyped]

from imgassets.download import addresses
from imgassets.download.client import Limits, Request, Response, blocked, ca_bundle
from imgassets.download.curl_loop import Loop, Transfer
from imgassets.errors import FetchError
from imgassets.manifests import Outcome

_BUFFER = 131_072
"""Bytes read at a time: libcurl's default of 16 kB costs twice the system calls."""


class CurlClient:
    """One libcurl handle a thread, all driven by one loop."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._local = threading.local()
        self._lock = threading.Lock()
        self._handles: list[_Handle] = []
        self._loop = Loop()

    def fetch(self, request: Request, limits: Limits) -> Response:
        """See `Client.fetch`."""
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = _Handle(self._allow_private, self._loop)
            with self._lock:
                self._handles.append(handle)
        return handle.fetch(request, limits)

    def abort(self) -> None:
        """See `Client.abort`."""
        self._loop.stop()

    def close(self) -> None:
        """See `Client.close`."""
        # Where libcurl is stuck in a name lookup, its memory goes with the process.
        if self._loop.close():
            for handle in self._handles:
                handle.curl.close()


class _Lent(socket.socket):
    """A socket that pycurl duplicates and then forgets: this one is closed as it goes."""

    def __del__(self) -> None:
        self.close()


class _Handle:
    """libcurl as one thread uses it."""

    def __init__(self, allow_private: bool, loop: Loop) -> None:
        self._loop = loop
        self._proxy: str | None = None
        self._refused: str | None = None
        self._headers: Mapping[str, str] | None = None
        self._limits: Limits | None = None
        self._lines: list[bytes] = []
        self._chunks: list[bytes] = []
        self.curl = curl = pycurl.Curl()
        self._transfer = Transfer(curl)
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
        curl.setopt(pycurl.WRITEFUNCTION, self._chunks.append)

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
        self._lines.clear()
        self._chunks.clear()
        curl.setopt(pycurl.URL, request.url)
        self._loop.perform(self._transfer)
        status = curl.getinfo(pycurl.RESPONSE_CODE)
        good = 200 <= status < 300
        if self._transfer.error is not None:
            code, message = self._transfer.error
            if code == pycurl.E_FILESIZE_EXCEEDED and not good:
                return Response(status, _headers(self._lines), b"")
            if self._refused is not None and code == pycurl.E_COULDNT_CONNECT:
                raise blocked(self._refused)
            raise _as_fetch_error(code, message, limits)
        body = b"".join(self._chunks) if good else b""
        self._chunks.clear()
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
        return FetchError(Outcome.TIMEOUT, message, retryable=True)
    if code == pycurl.E_FILESIZE_EXCEEDED:
        error = f"more than download.max_bytes ({limits.max_bytes}): {message}"
        return FetchError(Outcome.TOO_LARGE, error, retryable=False)
    if code == pycurl.E_URL_MALFORMAT:
        return FetchError(Outcome.INVALID_URL, message, retryable=False)
    retryable = code != pycurl.E_PEER_FAILED_VERIFICATION
    return FetchError(Outcome.CONNECTION_ERROR, message, retryable=retryable)
