"""As whom and by which way a retailer is asked: headers, credentials, proxy.

Here lives what the settings and the environment say of that. Secrets stand in the environment; a
setting names them as `${NAME}`.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from requests.utils import should_bypass_proxies

from imgassets.download.addresses import is_local_name
from imgassets.errors import SettingsError
from imgassets.settings import DownloadSettings

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SECRET = frozenset({"authorization", "cookie"})


@dataclass(frozen=True)
class RequestHeaders:
    """What requests carry, and which proxy takes them.

    Attributes:
        headers: of requests to the host that the catalogue names.
        public_headers: the same without credentials, for hosts that a redirect names.
    """

    headers: Mapping[str, str]
    public_headers: Mapping[str, str]
    _proxies: Mapping[str, str]
    _bypass: bool
    _known: dict[str, str | None] = field(default_factory=dict, compare=False)

    def proxy_of(self, origin: str) -> str | None:
        """The proxy that takes requests to an origin (`https://host`)."""
        if not self._proxies:
            return None
        if origin not in self._known:
            self._known[origin] = self._proxy_of(origin)
        return self._known[origin]

    def _proxy_of(self, origin: str) -> str | None:
        parts = urlsplit(origin)
        host = str(parts.hostname)
        # To a proxy, an address of the own machine or network would mean the proxy's.
        if self._bypass and (is_local_name(host) or should_bypass_proxies(origin, None)):
            return None
        return self._proxies.get(parts.scheme) or self._proxies.get("all")


def request_headers(settings: DownloadSettings) -> RequestHeaders:
    """Read the headers, credentials and the proxy of these settings.

    Raises:
        SettingsError: they name an environment variable that is not set, or a value is no header.
    """
    headers = {
        "User-Agent": _filled(settings.user_agent, "download.user_agent"),
        # AVIF and the like come only to those who ask; these are the formats of catalogues.
        "Accept": "image/jpeg,image/png,image/webp,image/*;q=0.8,*/*;q=0.5",
        "Accept-Encoding": "identity",
    }
    for name, value in settings.headers.items():
        headers[name] = _filled(value, f"download.headers.{name}")
    if settings.auth is not None:
        headers["Authorization"] = _authorization(_filled(settings.auth, "download.auth"))
    public = {name: value for name, value in headers.items() if name.lower() not in _SECRET}
    if settings.proxy is None:
        environment = {k: v for k, v in getproxies_environment().items() if v}
        return RequestHeaders(headers, public, environment, _bypass=True)
    proxy = _filled(settings.proxy, "download.proxy")
    return RequestHeaders(headers, public, {"http": proxy, "https": proxy}, _bypass=False)


def _authorization(auth: str) -> str:
    kind, _, value = auth.partition(" ")
    if kind == "basic":
        return f"Basic {base64.b64encode(value.encode()).decode()}"
    return f"Bearer {value}"


def _filled(text: str, option: str) -> str:
    def value(found: re.Match[str]) -> str:
        try:
            return os.environ[found[1]]
        except KeyError:
            raise SettingsError(
                f"{option} names the environment variable {found[1]}, which is not set"
            ) from None

    filled = _VARIABLE.sub(value, text)
    # RFC 9110, 5.5: what a header may hold; the value itself may be a secret.
    if not filled.isascii() or not filled.isprintable():
        raise SettingsError(f"{option} should hold printable ASCII characters only")
    return filled
