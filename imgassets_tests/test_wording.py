"""Tests of numbers with their nouns."""

import pytest

from imgassets.wording import counted


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 images"), (1, "1 image"), (2, "2 images"), (12_345, "12,345 images")],
)
def test_a_noun_is_singular_after_one_only(number: int, text: str) -> None:
    assert counted(number, "image") == text
