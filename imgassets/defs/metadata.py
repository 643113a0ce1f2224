"""What all assets show of themselves in the same way: failures, manifests and counts.

Here live conversions of plain results to Dagster metadata. What is worth showing of one asset is
in that asset's module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, SupportsFloat

import dagster as dg

if TYPE_CHECKING:
    from imgassets.manifests import ProcessedRow, UrlRow
    from imgassets.storage import Folder

MAX_TABLE_ROWS = 20
_BAR = 40  # characters of the longest bar


@contextmanager
def as_dagster_failure(*errors: type[Exception]) -> Iterator[None]:
    """Turn errors whose message is meant for the user into a failure that shows it.

    Such an error is not retried: it says that something must be changed first.
    """
    try:
        yield
    except errors as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def manifest_metadata(
    folder: Folder, rows: int, kind: type[UrlRow] | type[ProcessedRow]
) -> dict[str, dg.MetadataValue[Any]]:
    """The manifest's place, number of rows and columns, under Dagster's own names for them.

    Args:
        folder: of the manifest.
        rows: their number.
        kind: of row.
    """
    from imgassets.storage import MANIFEST

    return {
        "manifest": place(f"{folder.address}/{MANIFEST}"),
        "dagster/row_count": dg.MetadataValue.int(rows),
        "dagster/column_schema": dg.MetadataValue.table_schema(column_schema(kind)),
    }


def column_schema(kind: type[UrlRow] | type[ProcessedRow]) -> dg.TableSchema:
    """The columns of a manifest, for the page.

    It goes with each materialization: with the asset's definition, every run would pay for pyarrow
    before it begins.
    """
    from imgassets.manifests import SCHEMAS, meanings

    told = meanings(kind)
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                field.name,
                type=_type_name(str(field.type)),
                description=told[field.name],
                constraints=dg.TableColumnConstraints(nullable=field.nullable),
            )
            for field in SCHEMAS[kind]
        ]
    )


def place(address: str) -> dg.MetadataValue[Any]:
    """A file or folder: its path, which the page offers to copy, or the object store's address."""
    return dg.MetadataValue.url(address) if "://" in address else dg.MetadataValue.path(address)


def rounded(value: SupportsFloat) -> float:
    """A measured figure without the digits that nobody reads."""
    return round(float(value), 4)


def count_metadata(counts: Mapping[str, int], prefix: str) -> dict[str, dg.MetadataValue[Any]]:
    """One number a count, so that Dagster plots each over the partitions."""
    return {f"{prefix}/{name}": dg.MetadataValue.int(count) for name, count in counts.items()}


def bars(counts: Mapping[str, int]) -> dg.MetadataValue[Any]:
    """A bar plot of counts, as text: it costs no time to draw and no space in the event log."""
    longest = max(counts.values(), default=0)
    lines = ["| | | |", "|---|---:|---|"]
    lines += [
        f"| {name} | {count} | {'█' * max(1, round(_BAR * count / longest))} |"
        for name, count in counts.items()
        if count
    ]
    return dg.MetadataValue.md("\n".join(lines))


def table(rows: Sequence[Mapping[str, str | int | float | None]]) -> dg.MetadataValue[Any]:
    """The first rows of a table, as Markdown."""
    if not rows:
        return dg.MetadataValue.md("none")
    head = list(rows[0])
    lines = [_line(head), _line(["---"] * len(head))]
    lines += [_line([row[name] for name in head]) for row in rows[:MAX_TABLE_ROWS]]
    if len(rows) > MAX_TABLE_ROWS:
        lines.append(f"\nand {len(rows) - MAX_TABLE_ROWS} more: see the manifest")
    return dg.MetadataValue.md("\n".join(lines))


def picture(data: bytes, format_: Literal["jpeg", "png"]) -> dg.MetadataValue[Any]:
    """A picture that the page shows inline; it is stored in the event log, so keep it small."""
    import base64

    encoded = base64.b64encode(data).decode()
    return dg.MetadataValue.md(f"![](data:image/{format_};base64,{encoded})")


def logger_of(context: dg.AssetExecutionContext) -> Callable[[str], None]:
    """A function that plain libraries report their progress to."""
    return context.log.info


def _type_name(arrow: str) -> str:
    """What a reader of the manifest gets: dictionaries are a matter of storage."""
    return "string" if arrow.startswith("dictionary<") else arrow.replace("item: ", "")


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")[:200]
