"""Tests of the settings reference: complete, up to date, with the limits of every option."""

from __future__ import annotations

import pytest

from imgassets.folders import project_root
from imgassets.settings_reference import as_markdown
from imgassets_tests.test_settings import DEFAULTS

ROWS = {
    line.split("`")[1]: [cell.strip() for cell in line.split(" | ")][1:]
    for line in as_markdown().splitlines()
    if line.startswith("| `")
}
"""Type, default and meaning of each option in the tables, by its dotted path."""


def test_the_reference_in_docs_is_up_to_date() -> None:
    text = (project_root() / "docs" / "settings.md").read_text("utf-8")
    assert text == as_markdown(), (
        "run `python -m imgassets.settings_reference > docs/settings.md` and commit the file"
    )


def test_every_option_is_in_the_reference_exactly_once() -> None:
    assert set(ROWS) == set(DEFAULTS)
    assert as_markdown().count("\n| `") == len(DEFAULTS)


def test_every_row_has_a_type_a_default_and_a_meaning() -> None:
    for option, cells in ROWS.items():
        assert len(cells) == 3, option
        assert all(cell.strip("`| ") for cell in cells), option
        assert "None" not in cells, option


@pytest.mark.parametrize(
    ("option", "type_", "default"),
    [
        ("data_root", "text, not empty", "`.imgassets/data`"),
        ("start_date", "date, `YYYY-MM-DD`", "`2026-01-01`"),
        ("source.kind", "`mongodb`, `csv`, `jsonl`, `parquet`, `python`", "`mongodb`"),
        ("source.path", "text or `null`", "`null`"),
        ("source.query", "mapping", "`{}`"),
        ("source.fields.images", "text or list of: text", "`product_images`"),
        ("source.function", r"text that matches `^\w+(\.\w+)+$` or `null`", "`null`"),
        ("download.threads", "integer from 1 to 512", "`32`"),
        ("download.read_timeout_s", "number > 0", "`20`"),
        ("download.rate_per_host", "number > 0 or `null`", "`null`"),
        ("download.min_bytes", "integer ≥ 0", "`128`"),
        ("download.robots", "`true`, `false`", "`true`"),
        ("decode.background", "list of 3: integer from 0 to 255", "`[255, 255, 255]`"),
        ("faces.min_score", "number from 0 to 1", "`0.75`"),
        ("resize.size", "list of 2: integer from 1 to 16384 or `null`", "`null`"),
        ("checks.face_share", "`{min: number, max: number}`", "`{min: 0.0, max: 1.0}`"),
        ("checks.severity.drift", "`warn`, `error`", "`warn`"),
    ],
)
def test_a_row_shows_the_type_the_limits_and_the_default_of_an_option(
    option: str, type_: str, default: str
) -> None:
    assert ROWS[option][:2] == [type_, default]


def test_a_section_says_whether_a_retailer_can_override_it() -> None:
    text = as_markdown()
    assert "How images are downloaded. Can be overridden per retailer.\n" in text
    assert "The source of the product documents.\n" in text
