"""Define the interface of HTTP clients: one GET request, one response, within limits.

The implementations are `curl_client` and `requests_client`. Redirects, retries, content encodings
and politeness do not belong in a client: `exchange` and `schedule` handle them once for all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import certifi

from imgassets.errors import FetchError
from imgassets.manifests import Outcome

IGNORED_BODY_BYTES = 65_536
"""Maximum bytes to read of a body that is not needed, so that the connection can be reused."""


@dataclass(frozen=True, slots=True)
class Request:
    """A GET request.

    Attributes:
        url: The http or https URL, ASCII only; see `urls.normalise`.
        headers: The request headers.
        proxy: The URL of the proxy, `http://user:password@host:port`; None for a direct connection.
    """

    url: str
    headers: Mapping[str, str]
    proxy: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Time and size limits of one request.

    Attributes:
        connect_s: Maximum seconds until the connection is established.
        read_s: Maximum seconds without a received byte.
        total_s: Maximum seconds from the start of the request to the last byte of the response.
        max_bytes: Maximum bytes of the body, as sent over the network.
        truncate: Whether a longer body is cut off after `max_bytes`, instead of being refused.
    """

    connect_s: float
    read_s: float
    total_s: float
    max_bytes: int
    truncate: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response.

    Attributes:
        status: The HTTP status code.
        headers: The response headers by lower-case name; the values of a repeated header are
            separated by newlines.
        body: The body as sent over the network, not decompressed; empty unless the status is
            200 to 299.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Failure(StrEnum):
    """Why there is no complete response: the start of an error message."""

    PROXY = "the proxy refuses the connection"
    TLS = "the TLS connection failed"
    CERTIFICATE = "the server's certificate is not valid"
    NO_RESPONSE = "the server closed the connection without a response"
    BROKEN = "the response cannot be read"
    CUT_OFF = "the connection closed before the end of the body"
    NOT_HTTP = "the response is not valid HTTP"
    LARGE_HEADERS = "the response has too many or too long headers"


def connection_error(failure: Failure, detail: str = "") -> FetchError:
    """Return the error for a request without a complete response.

    Args:
        failure: What is wrong.
        detail: More about it, in the client's words; may be empty.
    """
    message = f"{failure}: {detail}" if detail else str(failure)
    retryable = failure is not Failure.CERTIFICATE
    return FetchError(Outcome.CONNECTION_ERROR, message, retryable=retryable)


def connect_error(host: str, port: int, reason: str) -> FetchError:
    """Return the error for a connection that cannot be opened.

    Args:
        host: Host of the server or proxy.
        port: Its port.
        reason: Why, in the words of the operating system.
    """
    message = f"cannot connect to {host}:{port}: {reason}"
    return FetchError(Outcome.CONNECTION_ERROR, message, retryable=True)


def blocked_address_error(address: str) -> FetchError:
    """Return the error for an address that must not be requested.

    Args:
        address: The IP address, or the host name as it is written in the URL.
    """
    message = f"{address} is not a public address; see download.allow_private_addresses"
    return FetchError(Outcome.BLOCKED_ADDRESS, message, retryable=False)


def too_large_error(limits: Limits, detail: str) -> FetchError:
    """Return the error for a body that exceeds the size limit.

    Args:
        limits: The limits of the request.
        detail: How the excess was noticed.
    """
    message = f"the body has more than {limits.max_bytes} bytes (download.max_bytes): {detail}"
    return FetchError(Outcome.TOO_LARGE, message, retryable=False)


def timeout_error(detail: str) -> FetchError:
    """Return the error for a request that exceeded a time limit.

    Args:
        detail: Which limit was exceeded, in the client's words.
    """
    message = (
        f"{detail}; see download.connect_timeout_s, download.read_timeout_s and "
        "download.total_timeout_s"
    )
    return FetchError(Outcome.TIMEOUT, message, retryable=True)


def different_locations_error() -> FetchError:
    """Return the error for a redirect to several URLs."""
    message = "after a redirect: the server sent different Location headers"
    return FetchError(Outcome.INVALID_URL, message, retryable=False)


def build_response(status: int, header_pairs: Iterable[tuple[str, str]], body: bytes) -> Response:
    """Build a response.

    Args:
        status: The HTTP status code.
        header_pairs: Names in any case, and values, in the order in which they were received.
        body: See `Response.body`.

    Raises:
        FetchError: It is a redirect with different Location headers. Identical ones count as one,
            as in browsers.
    """
    headers = _join_headers(header_pairs)
    if 300 <= status < 400 and "location" in headers:
        # Browsers and curl ignore empty ones.
        locations = set(filter(None, headers.pop("location").split("\n")))
        if len(locations) > 1:
            raise different_locations_error()
        if locations:
            headers["location"] = locations.pop()
    return Response(status, headers, body)


def _join_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, text in pairs:
        key, value = name.lower(), text.strip()
        headers[key] = f"{headers[key]}\n{value}" if key in headers else value
    return headers


def ca_bundle() -> str:
    """Return the path of the CA certificates: from the environment, or Mozilla's (certifi).

    Company proxies need the environment variables: they sign with their own CA.
    """
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if path := os.environ.get(variable):
            return path
    return certifi.where()


class Client(Protocol):
    """An HTTP client. Its methods are thread-safe."""

    def fetch(self, request: Request, limits: Limits) -> Response:
        """Send a request and read the response. Redirects are returned, not followed.

        Raises:
            FetchError: There is no complete response, or a limit was exceeded.
            FetchAbortedError: `abort` was called.
        """

    def abort(self) -> None:
        """Cancel all requests in flight and refuse new ones."""

    def close(self) -> None:
        """Close all connections. No request may be in flight."""
