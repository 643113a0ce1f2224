from __future__ import annotations

import pytest

from imgassets.markdown import (
    CONTACT_SHEET_BYTES,
    GALLERY_BYTES,
    HISTOGRAMS_BYTES,
    escape_cell,
    escape_text,
    inline_image,
)


@pytest.mark.parametrize(
    ("text", "max_length", "cell"),
    [
        ("2026-01-02|zara\nGET", None, "2026-01-02\\|zara GET"),
        ("x" * 1000, None, "x" * 1000),
        ("x" * 1000, 300, "x" * 300),
    ],
)
def test_a_cell_of_a_table_has_no_line_break_and_no_separator(
    text: str, max_length: int | None, cell: str
) -> None:
    assert escape_cell(text, max_length) == cell


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("nord-sol", "nord-sol"),
        ("a|b", r"a\|b"),
        ("a\nb", "a b"),
        ("[x](http://y)", r"\[x\](http://y)"),
        ("<b>*x*_`&", r"\<b\>\*x\*\_\`\&"),
    ],
)
def test_a_text_has_no_markdown(text: str, escaped: str) -> None:
    assert escape_text(text) == escaped


def test_the_data_of_an_image_are_part_of_the_text() -> None:
    assert inline_image(b"\xff\xd8\xff", "webp") == "![](data:image/webp;base64,/9j/)"


def test_the_inline_images_of_a_run_have_at_most_44_kb() -> None:
    assert CONTACT_SHEET_BYTES + HISTOGRAMS_BYTES + sum(GALLERY_BYTES.values()) <= 50_000
