"""HTTP client on libcurl, through pycurl: most of the work runs without Python's GIL.

This module sets libcurl's options and translates its errors. There is one handle per thread,
because a handle can send only one request at a time. The event loop that runs the transfers and
keeps connections alive is in `curl_loop`.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum, auto
from urllib.parse import urlsplit

import pycurl  # type: ignore[import-untyped]

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
    different_locations_error,
    timeout_error,
    too_large_error,
)
from imgassets.download.curl_loop import CurlLoop, CurlTransfer
from imgassets.download.name_lookup import NameLookup
from imgassets.errors import FetchError
from imgassets.manifests import Outcome
from imgassets.urls import target

_BUFFER_BYTES = 131_072
"""Receive buffer: libcurl's default of 16 kB needs twice as many system calls."""

# Error 8 is not about FTP only.
_FAILURES = {
    pycurl.E_UNSUPPORTED_PROTOCOL: Failure.NOT_HTTP,
    pycurl.E_FTP_WEIRD_SERVER_REPLY: Failure.NOT_HTTP,
    pycurl.E_SSL_CONNECT_ERROR: Failure.TLS,
    pycurl.E_PEER_FAILED_VERIFICATION: Failure.CERTIFICATE,
    pycurl.E_GOT_NOTHING: Failure.NO_RESPONSE,
    pycurl.E_PARTIAL_FILE: Failure.CUT_OFF,
    100: Failure.LARGE_HEADERS,  # CURLE_TOO_LARGE, which pycurl does not name
}


class CurlClient:
    """A `Client` with one libcurl handle per thread and one event loop for all of them."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._local = threading.local()
        self._lock = threading.Lock()
        self._handles: list[_Handle] = []
        self._loop = CurlLoop()
        self._names = NameLookup()

    def fetch(self, request: Request, limits: Limits) -> Response:
        """See `Client.fetch`."""
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = _Handle(self._allow_private, self._loop, self._names)
            with self._lock:
                self._handles.append(handle)
        return handle.fetch(request, limits)

    def abort(self) -> None:
        """See `Client.abort`."""
        self._names.abort()
        self._loop.stop()

    def close(self) -> None:
        """See `Client.close`."""
        self._loop.close()
        for handle in self._handles:
            handle.curl.close()


class _SelfClosingSocket(socket.socket):
    """A socket that closes without a ResourceWarning: pycurl duplicates it and drops it."""

    def __del__(self) -> None:
        self.close()


class _Lookup(Enum):
    """Whether a request needs the addresses of its host."""

    NOT_NEEDED = auto()
    NEEDED = auto()
    DONE = auto()


class _Handle:
    """The libcurl handle of one thread."""

    def __init__(self, allow_private: bool, loop: CurlLoop, names: NameLookup) -> None:
        self._loop = loop
        self._names = names
        self._proxy: str | None = None
        self._url = ""
        self._lookup = _Lookup.NOT_NEEDED
        self._blocked_address: str | None = None
        self._headers: Mapping[str, str] | None = None
        self._limits: Limits | None = None
        self._header_lines: list[bytes] = []
        self._chunks: list[bytes] = []
        self._size = 0
        self._max_size = 0
        self.curl = curl = pycurl.Curl()
        self._transfer = CurlTransfer(curl)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER_BYTES)
        curl.setopt(pycurl.CAINFO, ca_bundle())
        curl.setopt(pycurl.NETRC, 0)
        # `request_headers` chooses the proxy, as for the other client; libcurl must not.
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.NOPROXY, "")
        if not allow_private:
            curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        curl.setopt(pycurl.RESOLVER_START_FUNCTION, self._on_lookup)
        curl.setopt(pycurl.HEADERFUNCTION, self._header_lines.append)
        curl.setopt(pycurl.WRITEFUNCTION, self._write)

    def fetch(self, request: Request, limits: Limits) -> Response:
        curl = self.curl
        self._set_limits(limits)
        if request.headers is not self._headers:
            self._headers = request.headers
            # libcurl's notation of an empty header: `Name:` alone would remove it.
            headers = request.headers.items()
            lines = [f"{name}: {value}" if value else f"{name};" for name, value in headers]
            curl.setopt(pycurl.HTTPHEADER, lines)
        if request.proxy != self._proxy:
            self._proxy = request.proxy
            curl.setopt(pycurl.PROXY, request.proxy or "")
        self._blocked_address = None
        self._header_lines.clear()
        self._chunks.clear()
        self._size = 0
        self._url = request.url
        self._lookup = _Lookup.NOT_NEEDED
        curl.setopt(pycurl.URL, request.url)
        # libcurl would change the case of percent-encoded bytes. An HTTP proxy needs the whole URL.
        through_proxy = request.proxy is not None and request.url.startswith("http:")
        exact = request.url if through_proxy else target(request.url)
        curl.setopt(pycurl.REQUEST_TARGET, exact)
        self._loop.perform(self._transfer)
        if self._lookup is _Lookup.NEEDED:
            self._look_up(limits)
            self._loop.perform(self._transfer)
        status = curl.getinfo(pycurl.RESPONSE_CODE)
        success = 200 <= status < 300
        cut = self._size > self._max_size
        if self._transfer.error is not None and not cut:
            code, message = self._transfer.error
            # The status says enough, whatever happens to the body of an error page or redirect.
            is_body_lost = bool(self._header_lines) and not self._header_lines[-1].strip()
            is_ignored = is_body_lost or code == pycurl.E_FILESIZE_EXCEEDED
            if (status >= 300 and is_ignored) or (status >= 400 and _has_locations(code, message)):
                return build_response(status, _header_pairs(self._header_lines), b"")
            if self._blocked_address is not None and code == pycurl.E_COULDNT_CONNECT:
                raise blocked_address_error(self._blocked_address)
            raise self._as_fetch_error(code, message, limits)
        body = b"".join(self._chunks)[: limits.max_bytes] if success else b""
        self._chunks.clear()
        return build_response(status, _header_pairs(self._header_lines), body)

    def _on_lookup(self) -> int:
        """End the transfer when it needs the addresses of a name that libcurl does not know yet."""
        # After a lookup, this is the target of a SOCKS proxy: libcurl looks it up itself.
        if self._lookup is _Lookup.NOT_NEEDED and not addresses.is_ip_address(self._peer()[0]):
            self._lookup = _Lookup.NEEDED
            return 1
        return 0

    def _look_up(self, limits: Limits) -> None:
        """Give libcurl the addresses of the host, which it keeps for a minute."""
        host, port = self._peer()
        start = time.monotonic()
        found = self._names.addresses(host, min(limits.connect_s, limits.total_s))
        elapsed = time.monotonic() - start
        self._lookup = _Lookup.DONE
        self.curl.setopt(pycurl.RESOLVE, [f"+{host}:{port}:{','.join(found)}"])
        remaining = replace(
            limits, connect_s=limits.connect_s - elapsed, total_s=limits.total_s - elapsed
        )
        self._set_limits(remaining)

    def _peer(self) -> tuple[str, int]:
        """Return host and port that libcurl connects to."""
        parts = urlsplit(self._proxy or self._url)
        # libcurl's default port for proxies is 1080.
        default = 443 if parts.scheme == "https" else 1080 if self._proxy else 80
        return str(parts.hostname), parts.port or default

    def _write(self, chunk: bytes) -> int | None:
        """Keep a part of the body; end the transfer if the rest is not needed."""
        if not self._size:
            self._max_size = self._needed_bytes()
        self._chunks.append(chunk)
        self._size += len(chunk)
        return 0 if self._size > self._max_size else None

    def _needed_bytes(self) -> int:
        """Return how many bytes of the body to read, once the headers are known."""
        start = next(line for line in reversed(self._header_lines) if line.startswith(b"HTTP/"))
        if start.split()[1][:1] != b"2":
            return IGNORED_BODY_BYTES
        limits = self._limits
        # libcurl itself refuses larger bodies.
        return limits.max_bytes if limits is not None and limits.truncate else sys.maxsize

    def _open_socket(
        self, _purpose: int, peer: tuple[int, int, int, tuple[str | bytes, int]]
    ) -> socket.socket | int:
        """Open a socket for exactly the address that was checked, or refuse it."""
        family, kind, protocol, sockaddr = peer
        address = sockaddr[0] if isinstance(sockaddr[0], str) else sockaddr[0].decode()
        # With a proxy, this is the address of the proxy, which the user has configured.
        if self._proxy is None and not addresses.is_public(address):
            self._blocked_address = address
            return int(pycurl.SOCKET_BAD)
        return _SelfClosingSocket(family, kind, protocol)

    def _set_limits(self, limits: Limits) -> None:
        if limits is self._limits:
            return
        self._limits = limits
        curl = self.curl
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, _milliseconds(limits.connect_s))
        curl.setopt(pycurl.TIMEOUT_MS, _milliseconds(limits.total_s))
        self._transfer.read_s = limits.read_s
        # Since libcurl 8.4 this also limits bodies without a Content-Length.
        # 0 is no limit: `_write` cuts the body off.
        curl.setopt(pycurl.MAXFILESIZE_LARGE, 0 if limits.truncate else limits.max_bytes)

    def _as_fetch_error(self, code: int, message: str, limits: Limits) -> FetchError:
        if code == pycurl.E_OPERATION_TIMEDOUT:
            return timeout_error(message)
        if code == pycurl.E_FILESIZE_EXCEEDED:
            return too_large_error(limits, message)
        if _has_locations(code, message) and self.curl.getinfo(pycurl.RESPONSE_CODE) >= 300:
            return different_locations_error()
        if code == pycurl.E_URL_MALFORMAT:
            return FetchError(Outcome.INVALID_URL, message, retryable=False)
        return self._as_connection_error(code, message)

    def _as_connection_error(self, code: int, message: str) -> FetchError:
        if self.curl.getinfo(pycurl.HTTP_CONNECTCODE) >= 300:
            return connection_error(Failure.PROXY, message)
        if code == pycurl.E_COULDNT_CONNECT:
            error_number = self.curl.getinfo(pycurl.OS_ERRNO)
            return connect_error(
                *self._peer(), os.strerror(error_number) if error_number else message
            )
        # Without the prefix of OpenSSL: "error:0A00010B:SSL routines::wrong version number".
        detail = message.rpartition("SSL routines::")[2]
        return connection_error(_FAILURES.get(code, Failure.BROKEN), detail)


def _has_locations(code: int, message: str) -> bool:
    """Return whether libcurl refuses different Location headers, which some versions do."""
    return code == pycurl.E_FTP_WEIRD_SERVER_REPLY and message == "Multiple Location headers"


def _milliseconds(seconds: float) -> int:
    # libcurl reads 0 as "no limit".
    return max(round(seconds * 1000), 1)


def _header_pairs(lines: list[bytes]) -> list[tuple[str, str]]:
    """Return the headers of the final response; interim responses (100, 103) may precede it."""
    pairs: list[tuple[str, str]] = []
    for line in lines:
        if line.startswith(b"HTTP/"):
            pairs = []
            continue
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            pairs.append((name.strip(), value.strip()))
    return pairs
