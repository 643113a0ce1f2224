"""Tests of the metadata that the assets share: tables, charts and summaries."""

from __future__ import annotations

import pytest

from imgassets.defs.metadata import MAX_TABLE_ROWS, bar_chart, size_metadata, summary, tables
from imgassets.manifests import Outcome, RawRow, to_table
from imgassets_tests.rows import PARTITION, raw_row

# The page shows shorter Markdown inline.
INLINE = 1000


def test_a_chart_of_all_outcomes_of_downloads_is_short_enough_to_be_shown_inline() -> None:
    outcomes = [*Outcome][: [*Outcome].index(Outcome.NO_RAW)]
    chart = bar_chart({str(outcome): 99_999 for outcome in outcomes}).value
    assert len(chart) < INLINE
    assert max(line.count("█") for line in chart.splitlines()) == 22
    assert len(chart.splitlines()) == 2 + len(outcomes)


@pytest.mark.parametrize(
    ("rows", "length", "cut"), [(3, 20, False), (6, 2000, True), (30, 20, True)]
)
def test_a_long_table_begins_with_a_short_one_that_is_shown_inline(
    rows: int, length: int, cut: bool
) -> None:
    urls = [f"http://shop/{number}{'x' * length}" for number in range(rows)]
    made = tables("failures", [{"outcome": "timeout", "status": None, "url": u} for u in urls])
    assert [*made] == (["failures (first)", "failures"] if cut else ["failures"])
    short, *_ = made.values()
    assert len(short.value) < INLINE
    lines = short.value.splitlines()
    assert lines[0] == "| outcome | status | url |"
    for line, url in zip(lines[2:], urls, strict=False):
        assert line.startswith(f"| timeout |  | {url[:50]}")
    assert 3 <= len(lines) - 2 <= rows
    full = made["failures"].value
    for url in urls[:MAX_TABLE_ROWS]:
        assert f"| timeout |  | {url[:200]} |" in full


def test_a_table_without_rows_is_none() -> None:
    assert {name: table.value for name, table in tables("failures", []).items()} == {
        "failures": "none"
    }


@pytest.mark.parametrize(
    ("outcomes", "text"),
    [
        ({}, "0 URLs, 0 ok, 0 failed"),
        ({"ok": 3}, "3 URLs, 3 ok, 0 failed"),
        (
            {"ok": 100, "http_error": 5, "timeout": 4},
            "109 URLs, 100 ok, 9 failed (http_error 5, timeout 4)",
        ),
        ({"timeout": 2, "removed": 1}, "3 URLs, 0 ok, 2 failed (timeout 2), 1 taken down"),
    ],
)
def test_a_summary_counts_the_urls_by_outcome(outcomes: dict[str, int], text: str) -> None:
    assert summary(PARTITION, outcomes) == f"2026-01-31|zara: {text}"


def test_the_size_of_a_partition_counts_a_shared_file_once_and_no_failed_row() -> None:
    row = raw_row(1, bytes=500)
    shared = raw_row(2, path=row.path, bytes=500)
    failed = raw_row(3, outcome=Outcome.TOO_SMALL, path=None, bytes=70)
    rows = [row, shared, raw_row(4, bytes=20), failed]
    table = to_table(rows, RawRow)
    assert size_metadata(table.slice(0, 0)) == {"dagster/size_bytes": 0}
    assert size_metadata(table) == {"dagster/size_bytes": 520}
