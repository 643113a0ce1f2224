"""Build request headers, credentials and proxy from the settings and the environment.

Secrets stay in environment variables; settings refer to them as `${NAME}`.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from imgassets.download.addresses import is_local_name
from imgassets.errors import SettingsError
from imgassets.settings import DownloadSettings

_VARIABLE = re.compile(r"\$\{(\w+)\}")
# RFC 9110, 5.6.2: a token.
_HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_SECRET_HEADERS = frozenset({"authorization", "cookie"})


@dataclass(frozen=True)
class RequestHeaders:
    """Request headers and the choice of proxy.

    Attributes:
        headers: Headers for requests to the origin of the catalogue's URL; the case of a name does
            not matter.
        public_headers: The same without credentials, for other origins that a redirect leads to.
    """

    headers: Mapping[str, str]
    public_headers: Mapping[str, str]
    _proxies: Mapping[str, str]
    _bypass: bool
    """Whether local addresses and `no_proxy` hosts are requested directly."""
    _proxy_by_origin: dict[str, str | None] = field(default_factory=dict, compare=False)

    def proxy_for(self, origin: str) -> str | None:
        """Return the URL of the proxy for an origin (`https://host`); None to connect directly."""
        if not self._proxies:
            return None
        if origin not in self._proxy_by_origin:
            self._proxy_by_origin[origin] = self._choose_proxy(origin)
        return self._proxy_by_origin[origin]

    def _choose_proxy(self, origin: str) -> str | None:
        from requests.utils import should_bypass_proxies

        parts = urlsplit(origin)
        host = str(parts.hostname)
        # A proxy would resolve a local address to its own machine or network.
        if self._bypass and (is_local_name(host) or should_bypass_proxies(origin, None)):
            return None
        return self._proxies.get(parts.scheme) or self._proxies.get("all")


def request_headers(settings: DownloadSettings) -> RequestHeaders:
    """Build the request headers, credentials and proxy for these settings.

    Raises:
        SettingsError: A setting refers to an environment variable that is not set, or a value is
            not allowed in a header.
    """
    # A run that requests nothing does not import it: 0.08 CPU s.
    from requests.structures import CaseInsensitiveDict

    headers: MutableMapping[str, str] = CaseInsensitiveDict(
        {
            "User-Agent": expand_variables(settings.user_agent, "download.user_agent"),
            # Servers send AVIF only to clients that list it; catalogues use these formats.
            "Accept": "image/jpeg,image/png,image/webp,image/*;q=0.8,*/*;q=0.5",
            "Accept-Encoding": "identity",
        }
    )
    for name, value in settings.headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise SettingsError(
                f"download.headers: {name!r} is not the name of a header; use letters, digits and "
                "hyphens"
            )
        headers[name] = expand_variables(value, f"download.headers.{name}").strip()
    if settings.auth is not None:
        headers["Authorization"] = _authorization(expand_variables(settings.auth, "download.auth"))
    public = CaseInsensitiveDict(
        {name: value for name, value in headers.items() if name.lower() not in _SECRET_HEADERS}
    )
    if settings.proxy is None:
        environment = {k: v for k, v in getproxies_environment().items() if v}
        return RequestHeaders(headers, public, environment, _bypass=True)
    proxy = expand_variables(settings.proxy, "download.proxy")
    return RequestHeaders(headers, public, {"http": proxy, "https": proxy}, _bypass=False)


def _authorization(auth: str) -> str:
    scheme, _, value = auth.partition(" ")
    if scheme == "basic":
        return f"Basic {base64.b64encode(value.encode()).decode()}"
    return f"Bearer {value}"


def expand_variables(text: str, option: str) -> str:
    """Replace each `${NAME}` by the environment variable.

    Args:
        text: Value of the option.
        option: Name of the option, for the error message.

    Raises:
        SettingsError: A variable is not set, or the result is not printable ASCII.
    """

    def value(variable: re.Match[str]) -> str:
        try:
            return os.environ[variable[1]]
        except KeyError:
            raise SettingsError(
                f"{option} names the environment variable {variable[1]}, which is not set; set it "
                "or change the option"
            ) from None

    expanded = _VARIABLE.sub(value, text)
    # RFC 9110, 5.5. The message does not show the value: it may be a secret.
    if not expanded.isascii() or not expanded.isprintable():
        raise SettingsError(f"{option} must contain only printable ASCII characters")
    return expanded
