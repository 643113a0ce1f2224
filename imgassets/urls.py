"""Normalise URLs: from the spelling in a catalogue to the one that HTTP requests need.

Whether an address may be requested is decided in `addresses` and `robots`.
"""

from __future__ import annotations

import contextlib
from urllib.parse import urljoin, urlsplit, urlunsplit

import idna
from requests.utils import requote_uri

from imgassets.errors import InvalidUrlError

MAX_LENGTH = 16_000
"""Maximum characters of a URL: above the line limits of Apache (8190) and nginx (8192 bytes)."""


_DEFAULT_PORTS = {"http": 80, "https": 443}


def normalise(url: str) -> str:
    """Return a URL in ASCII: host in IDNA, path and query percent-encoded, no fragment.

    The port is left out if it is the default of the scheme.

    Raises:
        InvalidUrlError: The URL is not http or https, has no host or a bad port, contains
            credentials, is too long, or is malformed.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise InvalidUrlError(f"malformed URL: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise InvalidUrlError("the URL does not start with http:// or https://")
    if not parts.hostname:
        raise InvalidUrlError("the URL has no host")
    if parts.username is not None or parts.password is not None:
        raise InvalidUrlError("the URL contains credentials; set them in download.auth instead")
    host = _ascii_host(parts.hostname)
    netloc = host if port in (None, _DEFAULT_PORTS[parts.scheme]) else f"{host}:{port}"
    try:
        quoted = requote_uri(urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, "")))
    except (ValueError, UnicodeError) as error:  # lone surrogates
        raise InvalidUrlError(f"malformed URL: {error}") from error
    if len(quoted) > MAX_LENGTH:
        raise InvalidUrlError(f"the URL has {len(quoted)} characters; the maximum is {MAX_LENGTH}")
    return quoted


def resolve(base: str, location: str) -> str:
    """Return the normalised target of a redirect.

    Args:
        base: The URL that redirects.
        location: The Location header, absolute or relative.

    Raises:
        InvalidUrlError: The target is not a valid http or https URL.
    """
    # Some servers send raw UTF-8 bytes in Location; HTTP clients decode them as latin-1.
    with contextlib.suppress(UnicodeError):
        location = location.encode("latin-1").decode()
    try:
        target = urljoin(base, location)
    except ValueError as error:
        raise InvalidUrlError(f"malformed URL: {error}") from error
    return normalise(target)


def origin(url: str) -> str:
    """Return scheme, host and port of a normalised URL, as in `https://host:8443`."""
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
