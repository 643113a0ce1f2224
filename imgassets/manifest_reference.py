"""Write the tables of columns and outcomes in `docs/data-contract.md` and for the Dagster UI.

`python -m imgassets.manifest_reference` writes them again. The columns and outcomes themselves are
in `manifests`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from imgassets.defs.metadata import columns_file
from imgassets.folders import project_root
from imgassets.manifests import (
    SCHEMAS,
    URL_FIELDS,
    Outcome,
    ProcessedRow,
    RawRow,
    UrlRow,
    column_descriptions,
)
from imgassets.markdown import escape_cell

_TABLE = re.compile(r"(<!-- Generated: (\w+) -->\n).*?(<!-- End -->)", re.DOTALL)
ROWS = {"url_list": UrlRow, "raw_images": RawRow, "processed_images": ProcessedRow}
"""The class of the rows by manifest."""


def document() -> Path:
    """The path of the document."""
    return project_root() / "docs" / "data-contract.md"


def with_tables(text: str) -> str:
    """The text of the document, with the current tables between its markers.

    Args:
        text: The text of the document.
    """
    return _TABLE.sub(lambda match: f"{match[1]}{_table(match[2])}\n{match[3]}", text)


def _table(name: str) -> str:
    return "\n".join(_outcomes() if name == "outcomes" else _columns(ROWS[name], inherited=False))


def _outcomes() -> Iterator[str]:
    yield "| outcome | meaning |"
    yield "|---|---|"
    for outcome in Outcome:
        yield f"| `{outcome}` | {escape_cell(outcome.meaning)} |"


def columns(row: type[UrlRow]) -> str:
    """All columns of a manifest, as the Dagster UI shows them."""
    return "\n".join([*_columns(row, inherited=True), ""])


def _columns(row: type[UrlRow], *, inherited: bool) -> Iterator[str]:
    """The columns of a manifest, with or without those that all manifests have."""
    descriptions = column_descriptions(row)
    yield "| column | type | null | meaning |"
    yield "|---|---|---|---|"
    for field in SCHEMAS[row]:
        if inherited or row is UrlRow or field.name not in URL_FIELDS:
            null = "yes" if field.nullable else "no"
            meaning = escape_cell(descriptions[field.name])
            yield f"| `{field.name}` | `{field.type}` | {null} | {meaning} |"


if __name__ == "__main__":
    document().write_text(with_tables(document().read_text("utf-8")), "utf-8")
    for asset, row_class in ROWS.items():
        columns_file(asset).write_text(columns(row_class), "utf-8")
