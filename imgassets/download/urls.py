"""URLs as catalogues write them -> URLs as HTTP sends them.

Here lives the spelling of URLs. Whether an address may be asked is not decided here.
"""

from __future__ import annotations

import contextlib
from urllib.parse import urljoin, urlsplit, urlunsplit

import idna
from requests.utils import requote_uri

from imgassets.errors import InvalidUrlError

MAX_LENGTH = 16_000
"""Longer than any server takes (Apache 8,190, nginx 8,192 bytes a line)."""


def normalise(url: str) -> str:
    """The same address in ASCII: host in IDNA, path and query percent-encoded, no fragment.

    Raises:
        InvalidUrlError: the URL has another scheme, no host, a bad port, or is no URL at all.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise InvalidUrlError(f"no URL: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise InvalidUrlError("the address does not start with http:// or https://")
    if not parts.hostname:
        raise InvalidUrlError("the address names no host")
    if parts.username is not None or parts.password is not None:
        raise InvalidUrlError("the address carries a user name; credentials belong in the settings")
    host = _ascii_host(parts.hostname)
    netloc = host if port is None else f"{host}:{port}"
    try:
        quoted = requote_uri(urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, "")))
    except (ValueError, UnicodeError) as error:  # lone surrogates
        raise InvalidUrlError(f"no URL: {error}") from error
    if len(quoted) > MAX_LENGTH:
        raise InvalidUrlError(f"the address has {len(quoted)} characters; allowed: {MAX_LENGTH}")
    return quoted


def resolved(base: str, location: str) -> str:
    """The address that a redirect from `base` names.

    Raises:
        InvalidUrlError: it is no http or https address.
    """
    # Servers send raw UTF-8 bytes in Location, which engines read as latin-1.
    with contextlib.suppress(UnicodeError):
        location = location.encode("latin-1").decode()
    try:
        target = urljoin(base, location)
    except ValueError as error:
        raise InvalidUrlError(f"no URL: {error}") from error
    return normalise(target)


def origin(url: str) -> str:
    """Scheme, host and port of a normalised URL: `https://host:8443`."""
    end = url.find("/", url.index("://") + 3)
    return url[:end]


def _ascii_host(host: str) -> str:
    if ":" in host:
        return f"[{host}]"
    if host.isascii():
        if any(c in host for c in " <>\"'`{}|\\^%") or not host.isprintable():
            raise InvalidUrlError(f"the host name is not valid: {host!r}")
        return host.lower()
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise InvalidUrlError(f"the host name is not valid: {error}") from error
