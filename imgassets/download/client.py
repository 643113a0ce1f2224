"""What an HTTP engine is to the downloader: one request, one answer, within limits.

Here live the records that pass to and from an engine and the errors it may raise. The engines are
modules of their own. Redirects, retries, content codings and politeness are no engine's business:
`exchange` and `schedule` do them once for all engines.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import certifi

from imgassets.errors import FetchError
from imgassets.manifests import Outcome

IGNORED_BODY = 65_536
"""Bytes read of an answer whose body nobody wants, so that its connection can be used again."""


@dataclass(frozen=True, slots=True)
class Request:
    """A GET request."""

    url: str
    """ASCII only, http or https; see `urls.normalise`."""
    headers: Mapping[str, str]
    proxy: str | None = None
    """`http://user:password@host:port`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may cost."""

    connect_s: float
    read_s: float
    """Seconds without a byte."""
    total_s: float
    """Seconds from the start of the request to its last byte."""
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Response:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; a repeated header has one value a line."""
    body: bytes
    """As it came over the wire: content codings are not undone. Only of statuses 200 to 299."""


def blocked(address: str) -> FetchError:
    """The error of a connection that is not made; see `addresses`."""
    message = f"{address} is not on the open internet; see download.allow_private_addresses"
    return FetchError(Outcome.BLOCKED_ADDRESS, message, retryable=False)


def ca_bundle() -> str:
    """The file of certificates to trust: the environment's (company proxies), or Mozilla's."""
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if named := os.environ.get(variable):
            return named
    return certifi.where()


class Client(Protocol):
    """An engine; its methods are called by many threads at once."""

    def fetch(self, request: Request, limits: Limits) -> Response:
        """Send a request and read its answer; redirects are answers, not followed.

        Raises:
            FetchError: no answer, no whole answer, or a limit was passed.
            FetchAbortedError: `abort` was called.
        """

    def abort(self) -> None:
        """Break off all requests on their way, and refuse new ones."""

    def close(self) -> None:
        """Close the connections kept; no request may be on its way."""
