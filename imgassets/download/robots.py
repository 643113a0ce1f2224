"""What a host says of machines that read it: robots.txt and X-Robots-Tag.

Here lives the reading of both. Who asks for robots.txt, and when, is in `exchange`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from protego import Protego

MAX_BYTES = 512_000
"""RFC 9309, 2.5: at least 500 kibibytes must be read."""
MAX_REDIRECTS = 5
"""RFC 9309, 2.3.1.2."""

# https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag: rules with a value,
# whose colon does not name a crawler.
_WITH_VALUE = frozenset(
    {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
)
_OPT_OUTS = frozenset({"noai", "noimageai"})


@dataclass(frozen=True)
class Rules:
    """The robots.txt of one host."""

    _parsed: Protego | None
    _agent: str

    def allow(self, url: str) -> bool:
        """Whether this URL may be asked for."""
        return self._parsed is None or bool(self._parsed.can_fetch(url, self._agent))

    @property
    def interval_s(self) -> float:
        """Seconds between two requests that the host asks for; 0 where it asks for none."""
        if self._parsed is None:
            return 0
        return float(self._parsed.crawl_delay(self._agent) or 0)


def rules(text: bytes, user_agent: str) -> Rules:
    """Read a robots.txt; one that is empty allows all."""
    if not text.strip():
        return Rules(None, "")
    return Rules(Protego.parse(text.decode("utf-8", "replace")), agent_of(user_agent))


def agent_of(user_agent: str) -> str:
    """The name that a host knows us by: `imgassets` of `imgassets/0.1 (me@example.org)`."""
    found = re.match(r"[\w-]+", user_agent)
    return found[0].lower() if found else user_agent.lower()


def opt_out(tag: str, user_agent: str) -> str | None:
    """The rule of an X-Robots-Tag header (one header a line) that forbids the use of a picture.

    `noai` and `noimageai` count, for all (`noai`) or for us (`imgassets: noai`).
    """
    for line in tag.splitlines():
        agent = None
        for part in line.lower().split(","):
            name, colon, value = part.partition(":")
            rule = part.strip()
            if colon and name.strip() not in _WITH_VALUE:
                agent, rule = name.strip(), value.strip()
            if rule in _OPT_OUTS and agent in (None, "*", agent_of(user_agent)):
                return rule
    return None
