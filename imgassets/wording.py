"""Numbers of things in messages."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 document`, `2,000 documents`.

    Args:
        number: How many there are.
        noun: The noun in the singular, whose plural ends with `s`.
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
