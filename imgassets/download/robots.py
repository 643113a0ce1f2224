"""Parse robots.txt files.

Fetching them, and enforcing their rules, is in `exchange`; other opt-outs are in `opt_outs`.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from protego import Protego

from imgassets.download import opt_outs

MAX_BYTES = 512_000
"""Bytes of a robots.txt to parse; what comes after is ignored. RFC 9309, 2.5: at least 500 KiB."""
MAX_REDIRECTS = 5
"""Redirects to follow for a robots.txt (RFC 9309, 2.3.1.2)."""

# UTF-16 without a byte-order mark has a NUL beside each ASCII character.
_ENCODINGS = (
    (re.compile(re.escape(codecs.BOM_UTF16_LE) + rb"|[^\0]\0"), "utf-16-le"),
    (re.compile(re.escape(codecs.BOM_UTF16_BE) + rb"|\0[^\0]"), "utf-16-be"),
)
_USER_AGENT = re.compile(r"\s*user[- ]?agent\b", re.IGNORECASE)


@dataclass(frozen=True)
class Rules:
    """The rules of one host's robots.txt for one user agent."""

    _parsed: Protego | None
    _agent: str
    _usage: Protego | None = None

    def allow(self, url: str) -> bool:
        """Return whether the URL may be requested."""
        return self._parsed is None or bool(self._parsed.can_fetch(url, self._agent))

    def forbid_training(self, url: str) -> bool:
        """Return whether the Content-Usage rules say that the URL is not for AI training."""
        return self._usage is not None and not self._usage.can_fetch(url, self._agent)

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
    usage = _usage_rules(content) if "content-usage" in content.lower() else None
    return Rules(Protego.parse(content), product_token(user_agent), usage)


def _usage_rules(content: str) -> Protego:
    """Return rules that disallow what Content-Usage forbids.

    draft-ietf-aipref-attach-05, 3: a rule is `Content-Usage: [path] preferences`. Groups and paths
    work as those of Allow and Disallow, so Protego can apply these.
    """
    lines = []
    for line in content.splitlines():
        name, _, value = line.partition("#")[0].partition(":")
        value = value.strip()
        if _USER_AGENT.match(name):
            lines.append(line)
        elif name.strip().lower() == "content-usage":
            path = value.split()[0] if value.startswith("/") else ""
            if opt_outs.forbidden_use(value.removeprefix(path).strip()) is None:
                lines.append(f"Allow: {path}")
            else:
                # Of rules with the same path, the most restrictive counts; Protego prefers the
                # longer pattern, and of equal ones Allow.
                lines.append(f"Disallow: {path}" + "*" * (not path.endswith("$")))
        elif name.strip().lower() not in ("", "host", "sitemap"):
            lines.append("Crawl-delay: 0")  # no such rule, but a rule ends the list of agents
    return Protego.parse("\n".join(lines))


def _decode(text: bytes) -> str:
    """Return the text of a file in UTF-8 or UTF-16, without byte-order marks and NULs.

    Files that were joined from several have marks anywhere; files in UTF-32 have NULs in UTF-16.
    """
    encoding = next((name for start, name in _ENCODINGS if start.match(text)), "utf-8")
    return text.decode(encoding, "replace").replace("\ufeff", "").replace("\0", "")


def product_token(user_agent: str) -> str:
    """Return the name that rules use for a crawler (RFC 9309, 2.2.1), in lower case.

    Args:
        user_agent: A User-Agent header; for `imgassets/0.2 (me@example.org)` the result is
            `imgassets`.
    """
    token = re.match(r"[\w-]+", user_agent)
    return token[0].lower() if token else user_agent.lower()
