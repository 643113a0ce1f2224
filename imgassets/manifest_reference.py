"""Write the tables in `docs/data-contract.md`: columns of the manifests, outcomes.

`python -m imgassets.manifest_reference` writes them again. The columns and outcomes themselves are
in `manifests`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

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
_ROWS = {"url_list": UrlRow, "raw_images": RawRow, "processed_images": ProcessedRow}


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
    return "\n".join(_outcomes() if name == "outcomes" else _columns(_ROWS[name]))


def _outcomes() -> Iterator[str]:
    yield "| outcome | meaning |"
    yield "|---|---|"
    for outcome in Outcome:
        yield f"| `{outcome}` | {escape_cell(outcome.meaning)} |"


def _columns(row: type[UrlRow]) -> Iterator[str]:
    """The columns of a manifest, without those that all manifests have."""
    descriptions = column_descriptions(row)
    yield "| column | type | null | meaning |"
    yield "|---|---|---|---|"
    for field in SCHEMAS[row]:
        if row is UrlRow or field.name not in URL_FIELDS:
            null = "yes" if field.nullable else "no"
            meaning = escape_cell(descriptions[field.name])
            yield f"| `{field.name}` | `{field.type}` | {null} | {meaning} |"


if __name__ == "__main__":
    document().write_text(with_tables(document().read_text("utf-8")), "utf-8")
