"""Decide which retailer a document belongs to: slugs, spellings and aliases, for all sources.

All names that give one slug are one retailer: names that differ only in case, spaces, accents or
punctuation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from bson import Code, Decimal128
from slugify import slugify

from imgassets.settings import SourceSettings
from imgassets.sources.images import well_formed
from imgassets.sources.listing import Anomaly, Unpartitioned


@dataclass(frozen=True)
class Retailer:
    """The retailer of a document.

    Attributes:
        slug: The slug, which is the partition.
        name: The name as in the document.
    """

    slug: str
    name: str


@dataclass(frozen=True)
class Retailers:
    """Finds the retailers of documents.

    Attributes:
        aliases: `source.retailer_aliases`, with the slugs of the names as keys.
        fixed: The retailer of all documents; None if they have their own.
    """

    aliases: Mapping[str, str]
    fixed: Retailer | None

    @classmethod
    def from_settings(cls, settings: SourceSettings) -> Retailers:
        """Read the aliases and the fixed retailer of a source."""
        aliases = {str(retailer_slug(n)): slug for n, slug in settings.retailer_aliases.items()}
        return cls(aliases, cls(aliases, None).named(settings.retailer))

    def named(self, value: object) -> Retailer | None:
        """The retailer with a name; None if the value is no name.

        Args:
            value: A single value: text, or a whole number, which many systems use as a name.
        """
        if isinstance(value, Decimal128):
            value = value.to_decimal()
        if isinstance(value, float | Decimal):
            # Not `math.isfinite` for both: it raises an error for a signalling NaN.
            finite = value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)
            value = int(value) if finite and value == int(value) else value
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        slug = retailer_slug(value)
        if slug is None:
            return None
        return Retailer(self.aliases.get(slug, slug), well_formed(str(value)))

    def resolve(self, value: object) -> Retailer | Unpartitioned:
        """The retailer of a document, or the reason why it has none.

        Args:
            value: What the document has as its retailer: a name, or a list whose names are those of
                one retailer. It is ignored if all documents have a fixed retailer.
        """
        if self.fixed is not None:
            return self.fixed
        entries = value if isinstance(value, list | tuple) else [value]
        found = {retailer.slug: retailer for entry in entries if (retailer := self.named(entry))}
        if len(found) > 1:
            return Unpartitioned(
                Anomaly.SEVERAL_RETAILERS,
                f"the retailer is {value!r}; write one name, or a document per retailer",
            )
        for retailer in found.values():
            return retailer
        detail = f"the retailer is {value!r}"
        if isinstance(value, Mapping):
            names = ", ".join(str(name) for name in value)
            detail += f"; name the field in it that is the name in source.fields.retailer: {names}"
        return Unpartitioned(Anomaly.NO_RETAILER, detail)


def retailer_slug(name: object) -> str | None:
    """The slug of a retailer's name (`[a-z0-9-]`); None if the name has no letter or digit."""
    # To Python, JavaScript of MongoDB is a text that has no hash.
    return _slug(name) if isinstance(name, str) and not isinstance(name, Code) else None


@lru_cache(maxsize=10_000)
def _slug(name: str) -> str | None:
    # 60 µs each, and a survey asks for the same names once per day.
    return slugify(name, max_length=64) or None
