"""Parse robots.txt files and X-Robots-Tag headers.

Fetching robots.txt, and enforcing its rules, is in `exchange`.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from protego import Protego

MAX_BYTES = 512_000
"""Bytes of a robots.txt to parse; what comes after is ignored. RFC 9309, 2.5: at least 500 KiB."""
MAX_REDIRECTS = 5
"""Redirects to follow for a robots.txt (RFC 9309, 2.3.1.2)."""

# Rules with a value: the part before their colon is not a crawler's name.
# https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag
_RULES_WITH_VALUE = frozenset(
    {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
)
# UTF-16 without a byte-order mark has a NUL beside each ASCII character.
_ENCODINGS = (
    (re.compile(re.escape(codecs.BOM_UTF16_LE) + rb"|[^\0]\0"), "utf-16-le"),
    (re.compile(re.escape(codecs.BOM_UTF16_BE) + rb"|\0[^\0]"), "utf-16-be"),
)
_OPT_OUT_RULES = frozenset({"noai", "noimageai"})


@dataclass(frozen=True)
class Rules:
    """The rules of one host's robots.txt for one user agent."""

    _parsed: Protego | None
    _agent: str

    def allow(self, url: str) -> bool:
        """Return whether the URL may be requested."""
        return self._parsed is None or bool(self._parsed.can_fetch(url, self._agent))

    @property
    def interval_s(self) -> float:
        """Crawl-delay: the seconds between two requests; 0 if there is none."""
        if self._parsed is None:
            return 0
        return float(self._parsed.crawl_delay(self._agent) or 0)


def parse_robots_txt(text: bytes, user_agent: str) -> Rules:
    """Parse a robots.txt file.

    Args:
        text: The content of the file in UTF-8 or UTF-16, or its first `MAX_BYTES` bytes, of which
            the line that was cut is ignored; an empty file allows everything.
        user_agent: The User-Agent header of our requests.
    """
    content = _decode(text)
    if len(text) >= MAX_BYTES:
        # The rest of a rule could be missing: `/private/` must not become `/`.
        content = content[: max(content.rfind("\n"), content.rfind("\r")) + 1]
    if not content.strip():
        return Rules(None, "")
    return Rules(Protego.parse(content), product_token(user_agent))


def _decode(text: bytes) -> str:
    """Return the text of a file in UTF-8 or UTF-16, without its byte-order mark."""
    encoding = next((name for start, name in _ENCODINGS if start.match(text)), "utf-8")
    return text.decode(encoding, "replace").removeprefix("\ufeff")


def product_token(user_agent: str) -> str:
    """Return the name that rules use for a crawler (RFC 9309, 2.2.1), in lower case.

    Args:
        user_agent: A User-Agent header; for `imgassets/0.2 (me@example.org)` the result is
            `imgassets`.
    """
    token = re.match(r"[\w-]+", user_agent)
    return token[0].lower() if token else user_agent.lower()


def find_opt_out(tag: str, user_agent: str) -> str | None:
    """Find the rule of an X-Robots-Tag header that forbids AI training on the image.

    Args:
        tag: The header's value; repeated headers are separated by newlines.
        user_agent: The User-Agent header of our requests.

    Returns:
        `noai` or `noimageai` if the rule applies to all crawlers (`noai`) or to this one
        (`imgassets: noai`); otherwise None.
    """
    for line in tag.splitlines():
        agent = None
        for part in line.lower().split(","):
            name, colon, value = part.partition(":")
            rule = part.strip()
            if colon and name.strip() not in _RULES_WITH_VALUE:
                agent, rule = name.strip(), value.strip()
            if rule in _OPT_OUT_RULES and agent in (None, "*", product_token(user_agent)):
                return rule
    return None
