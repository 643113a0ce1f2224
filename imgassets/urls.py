"""Normalise URLs: from the spelling in a catalogue to the bytes that an HTTP request needs.

A URL is requested as the command line tool curl requests it. What curl refuses (spaces, tabs,
backslashes before the path, `//host/path`) is read as browsers read it. The HTTP clients send the
target of a normalised URL unchanged. Whether an address may be requested is decided in `addresses`
and `robots`.
"""

from __future__ import annotations

import contextlib
import html
import re
import socket
import string
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

import idna

from imgassets.errors import InvalidUrlError

MAX_LENGTH = 16_000
"""Maximum characters of a URL: above the line limits of Apache (8190) and nginx (8192 bytes)."""


_DEFAULT_PORTS = {"http": 80, "https": 443}
# Control characters, spaces, soft hyphens, zero-width and direction marks: they come with text that
# is copied from web pages and spreadsheets.
_INVISIBLE = "".join(
    chr(code)
    for first, last in (
        *((0, 0x20), (0x7F, 0xA0), (0xAD, 0xAD), (0x1680, 0x1680), (0x2000, 0x200F)),
        *((0x2028, 0x202F), (0x205F, 0x206F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
    )
    for code in range(first, last + 1)
)
_LINE_BREAKS = str.maketrans("", "", "\t\r\n")
# With their semicolon only: in `?a=1&copy=2`, `copy` is the name of a parameter. The first group
# skips what was escaped several times.
_HTML_ENTITY = re.compile(
    r"&(?:(?:amp|#0*38|#[xX]0*26);)*((?:amp|lt|gt|quot|apos|#\d{1,7}|#[xX][\da-fA-F]{1,6});)"
)
_SCHEME = re.compile(r"[a-z][a-z\d+.-]*:", re.IGNORECASE)
_PARTS = re.compile(
    r"(?P<scheme>https?):(?P<slashes>[\\/]*)(?P<authority>[^\\/?#]*)(?P<path>[^?#]*)"
    r"(?P<query>\?[^#]*)?(?:\#.*)?",
    re.IGNORECASE | re.DOTALL,
)
_IPV4_NUMBERS = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+)){0,3}")


def normalise(url: str) -> str:
    """Return a URL in ASCII, of which the part after the host is what a request must send.

    Scheme and host are in lower case, the host is in IDNA, and the port is left out if it is the
    default of the scheme. The path has no dot segments; path and query are percent-encoded where
    they must be, and otherwise unchanged. There is no fragment.

    Args:
        url: The URL as a catalogue spells it: with white space or invisible characters around it,
            HTML entities (`&amp;`), or without the scheme in `//host/path`, which is https then.

    Raises:
        InvalidUrlError: The URL is not http or https, has no host or a bad port, contains
            credentials, is too long, or is malformed.
    """
    text = _clean(url)
    parts = _PARTS.fullmatch(f"https:{text}" if text.startswith("//") else text)
    if parts is None:
        raise InvalidUrlError("the URL does not start with http:// or https://")
    scheme = parts["scheme"].lower()
    path = parts["path"]
    if "\\" in parts["slashes"] or path.startswith("\\"):
        path = path.replace("\\", "/")
    try:
        rest = _without_dot_segments(path or "/") + (parts["query"] or "")
        # Printable ASCII is sent as it is: encoding it again would change the URL.
        if not rest.isascii() or not rest.isprintable() or " " in rest:
            rest = quote(rest, safe=string.punctuation)
    except UnicodeEncodeError as error:  # lone surrogates
        raise InvalidUrlError("the URL contains half of a character (a lone surrogate)") from error
    quoted = f"{scheme}://{_netloc(scheme, parts['authority'])}{rest}"
    if len(quoted) > MAX_LENGTH:
        raise InvalidUrlError(f"the URL has {len(quoted)} characters; the maximum is {MAX_LENGTH}")
    return quoted


def resolve(base: str, location: str) -> str:
    """Return the normalised target of a redirect.

    Args:
        base: The normalised URL that redirects.
        location: The Location header, absolute or relative.

    Raises:
        InvalidUrlError: The target is not a valid http or https URL.
    """
    # Some servers send raw UTF-8 bytes in Location; HTTP clients decode them as latin-1.
    with contextlib.suppress(UnicodeError):
        location = location.encode("latin-1").decode()
    location = _clean(location)
    # Not `urljoin`: it drops empty segments (`a//b`) and an empty query.
    path = base.partition("?")[0]
    if _SCHEME.match(location):
        url = location
    elif re.match(r"[/\\]{2}", location):
        url = base.partition("//")[0] + location
    elif location.startswith(("/", "\\")):
        url = origin(base) + location
    elif location.startswith("?"):
        url = path + location
    elif location == "" or location.startswith("#"):
        url = base
    else:
        url = path[: path.rindex("/") + 1] + location
    return normalise(url)


def origin(url: str) -> str:
    """Return scheme, host and port of a normalised URL, as in `https://host:8443`."""
    return url[: _path_start(url)]


def target(url: str) -> str:
    """Return path and query of a normalised URL, as in `/a.jpg?w=1`."""
    return url[_path_start(url) :]


def _path_start(url: str) -> int:
    return url.index("/", url.index("://") + 3)


def _clean(url: str) -> str:
    """Return the URL without HTML entities, characters around it that are not seen, line breaks."""
    text = _HTML_ENTITY.sub(lambda match: html.unescape(f"&{match[1]}"), url)
    return text.strip(_INVISIBLE).translate(_LINE_BREAKS)


def _without_dot_segments(path: str) -> str:
    """Return an absolute path without `.` and `..`, which may be percent-encoded (WHATWG URL)."""
    if "/." not in path and "/%2" not in path:
        return path
    kept: list[str] = []
    plain = ""
    for segment in path.split("/")[1:]:
        plain = segment.replace("%2e", ".").replace("%2E", ".")
        if plain == "..":
            del kept[-1:]
        elif plain != ".":
            kept.append(segment)
    if plain in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


@lru_cache(maxsize=1024)  # a catalogue has many URLs of few hosts
def _netloc(scheme: str, authority: str) -> str:
    try:
        parts = urlsplit(f"//{authority}")
        port = parts.port
    except ValueError as error:
        raise InvalidUrlError("the host or the port of the URL is not valid") from error
    if not parts.hostname:
        raise InvalidUrlError("the URL has no host")
    if parts.username is not None or parts.password is not None:
        raise InvalidUrlError("the URL contains credentials; set them in download.auth instead")
    host = _ascii_host(parts.hostname)
    return host if port in (None, _DEFAULT_PORTS[scheme]) else f"{host}:{port}"


def _ascii_host(host: str) -> str:
    """Return a host as in a Host header; IP addresses in their shortest form, as in curl."""
    if ":" in host:
        with contextlib.suppress(OSError):
            address = socket.inet_pton(socket.AF_INET6, host)
            return f"[{socket.inet_ntop(socket.AF_INET6, address)}]"
    host = unquote(host)
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise InvalidUrlError(f"the host name is not valid: {error}") from error
    if any(c in host for c in " <>\"'`{}|\\^%:/?#@[]") or not host.isprintable():
        raise InvalidUrlError(f"the host name is not valid: {host!r}")
    if _IPV4_NUMBERS.fullmatch(host):  # 2130706433, 0x7f.1
        with contextlib.suppress(OSError):
            return socket.inet_ntoa(socket.inet_aton(host))
    return host.lower()
