"""Find opt-outs: a site says that its images are not for AI training, though it delivers them.

They are in response headers, in `/.well-known/tdmrep.json` and in the Content-Usage rules of
robots.txt. Fetching the files, and enforcing what they say, is in `exchange`; the other rules of
robots.txt are in `robots`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

import http_sf
from protego import Protego

TDM_FILE = "/.well-known/tdmrep.json"
"""Path of the file of the TDM Reservation Protocol."""

# Rules with a value: the part before their colon is not a crawler's name.
# https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag
_RULES_WITH_VALUE = frozenset(
    {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
)
# The same page: `none` is `noindex, nofollow`.
_MEANING = {"none": "noindex"}

_TRAINING_LABELS = ("train-ai", "train-genai", "ai", "genai")
_GENERAL_LABELS = ("bots", "all", "tdm")


@dataclass(frozen=True)
class TdmFile:
    """The rules of one host's tdmrep.json."""

    # Location, its pattern, and whether the rights are reserved.
    _rules: tuple[tuple[str, Protego, bool], ...] = ()

    def reserved_by(self, url: str) -> str | None:
        """Return the location whose rule reserves the rights for the URL; None if none does."""
        for location, pattern, is_reserved in self._rules:
            if not pattern.can_fetch(url, "*"):
                return location if is_reserved else None
        return None


def parse_tdm_file(text: bytes) -> TdmFile:
    """Parse a tdmrep.json file.

    TDM Reservation Protocol, W3C Community Group Final Report of 10 May 2024, section "TDM File on
    the Origin Server": locations are patterns as in robots.txt, and the first one that matches
    counts.

    Args:
        text: The content of the file, or its start: a rule that was cut is ignored. What is not a
            JSON array, and what is not a rule with a location and the reservation 0 or 1, reserves
            nothing.
    """
    content = _read_json(text)
    if content is None:
        content = _read_json(text[: text.rfind(b"}") + 1] + b"]")
    rules = []
    for rule in content if isinstance(content, list) else ():
        location = rule.get("location") if isinstance(rule, dict) else None
        # Line breaks would be further rules.
        if not isinstance(location, str) or not location.isprintable():
            continue
        # Some files have strings.
        reservation = str(rule.get("tdm-reservation"))
        if reservation in ("0", "1"):
            pattern = location.replace("#", "%23")  # otherwise the start of a comment
            parsed = Protego.parse(f"User-agent: *\nDisallow: {pattern}")
            rules.append((location, parsed, reservation == "1"))
    return TdmFile(tuple(rules))


def _read_json(text: bytes) -> object:
    """Return the content of a JSON file; None if it is not valid."""
    try:
        return cast("object", json.loads(text))
    except (ValueError, RecursionError):
        return None


def find_in_headers(
    headers: Mapping[str, str], crawler: str, obeyed: Collection[str]
) -> str | None:
    """Find an opt-out in the headers of a response.

    Args:
        headers: The headers by lower-case name; the values of a repeated header are separated by
            newlines.
        crawler: The name of this crawler in lower case; see `robots.product_token`.
        obeyed: The opt-outs to look for; see `settings.OptOut`.

    Returns:
        What the first opt-out says, for the row's error; None if there is none.
    """
    if (tag := headers.get("x-robots-tag")) and (rule := _find_rule(tag, crawler, obeyed)):
        return f"the X-Robots-Tag header says {rule} (download.opt_outs: {_meaning(rule)})"
    if "tdm-reservation" in obeyed:
        values = re.split(r"[,\n]", headers.get("tdm-reservation", ""))
        if "1" in map(str.strip, values):
            return "the tdm-reservation header says 1 (download.opt_outs: tdm-reservation)"
    if "content-usage" in obeyed and (usage := headers.get("content-usage")):
        # RFC 9651, 4.2: the lines of a repeated field are joined by commas.
        label = forbidden_use(usage.replace("\n", ", "))
        if label is not None:
            return f"the Content-Usage header says {label}=n (download.opt_outs: content-usage)"
    return None


def forbidden_use(preferences: str) -> str | None:
    """Find the AI usage preference that forbids to make a training data set.

    The labels and the syntax, a dictionary of RFC 9651, are those of draft-ietf-aipref-vocab-08: AI
    training is `train-ai`. Sites also send the labels of its earlier versions: `ai` (-00, -01) is
    the same; `genai` and `train-genai` (to -04) are the training of generative models, for which
    the images may be used. `tdm`, `all` and `bots` (to -04) are any automated processing, which
    includes training unless that is allowed by itself. `search`, `ai-use` and the like are about
    other uses.

    Args:
        preferences: The value of a Content-Usage header or rule, for example `train-ai=n`. One that
            cannot be parsed says nothing.

    Returns:
        The label of the preference; None if none forbids it.
    """
    try:
        parsed = http_sf.parse(preferences.encode(), tltype="dictionary")
    except http_sf.StructuredFieldError:
        return None
    members = cast("dict[str, tuple[object, object]]", parsed)
    # A string, "n", is no preference; a token is a string of its own class.
    stated = {label: value for label, (value, _) in members.items() if type(value) is http_sf.Token}
    for label in _TRAINING_LABELS:
        if stated.get(label) == "n":
            return label
    if any(stated.get(label) == "y" for label in _TRAINING_LABELS):
        return None
    return next((label for label in _GENERAL_LABELS if stated.get(label) == "n"), None)


def _find_rule(tag: str, crawler: str, obeyed: Collection[str]) -> str | None:
    """Return the rule of an X-Robots-Tag header that is obeyed and applies to this crawler.

    `noai` applies to all crawlers, `imgassets: noai` to the one with this name.
    """
    for line in tag.splitlines():
        agent = None
        for part in line.lower().split(","):
            name, colon, value = part.partition(":")
            rule = part.strip()
            # A date may contain a comma: `unavailable_after: Tue, 25 Jun 2030 15:00:00 GMT`.
            if colon and name.strip() not in _RULES_WITH_VALUE and len(name.split()) == 1:
                agent, rule = name.strip(), value.strip()
            if _meaning(rule) in obeyed and agent in (None, "*", crawler):
                return rule
    return None


def _meaning(rule: str) -> str:
    return _MEANING.get(rule, rule)
