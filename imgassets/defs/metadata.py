"""Converts results of the libraries to Dagster metadata and failures, the same way for all assets.

Which metadata an asset shows is in that asset's module.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat, TypeAlias

import dagster as dg

from imgassets.errors import StorageError
from imgassets.markdown import escape_cell
from imgassets.wording import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from imgassets.defs.partitions import Partition
    from imgassets.storage import Storage

Cell: TypeAlias = str | int | float | None
"""A value in a table."""

MAX_TABLE_ROWS = 20
_MAX_CELL = 200  # characters
# The UI shows shorter Markdown inline, and longer Markdown after a click on "Show Markdown".
_MAX_INLINE = 1000  # characters
_MAX_INLINE_CELL = 60  # characters
# A chart of all outcomes is then short enough to be shown inline.
_LONGEST_BAR = 22  # characters


@contextmanager
def as_dagster_failure(*errors: type[Exception]) -> Iterator[None]:
    """Turn errors whose message is written for the user into a `dagster.Failure` with that message.

    The run is not retried: the user has to change something first.

    Args:
        errors: the exception classes to convert.

    Raises:
        dagster.Failure: one of the errors was raised inside the `with` block.
    """
    try:
        yield
    except errors as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def read_manifest(
    storage: Storage, asset: str, partition: Partition, columns: Sequence[str] | None = None
) -> pa.Table:
    """Read the manifest of a partition, for an asset downstream.

    Args:
        storage: the storage that contains the partition.
        asset: the name of the asset.
        partition: the partition.
        columns: the columns to read; None for all.

    Raises:
        dagster.Failure: the partition was never materialized, or its manifest cannot be read.
    """
    try:
        with as_dagster_failure(StorageError):
            return storage.partition(*partition).read_manifest(asset, columns)
    except FileNotFoundError:
        raise dg.Failure(
            f"{asset} of {partition.key} was never materialized; materialize it first",
            allow_retries=False,
        ) from None


def output_of_version(version: str) -> dg.Output[None]:
    """The output of the op that materializes an asset of several ops.

    Args:
        version: the data version of the asset.
    """
    with warnings.catch_warnings():
        # In Dagster 1.13 an op of a graph has no other way to set a data version.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.Output(None, data_version=dg.DataVersion(version))


def manifest_metadata(address: str, rows: int) -> dict[str, dg.MetadataValue[Any]]:
    """Location and number of rows of a manifest.

    Args:
        address: the path or address of the manifest.
        rows: the number of rows in the manifest.

    Returns:
        Metadata by key: `manifest` and `dagster/row_count`.
    """
    return {
        "manifest": location_metadata(address),
        "dagster/row_count": dg.MetadataValue.int(rows),
    }


def column_metadata(asset: str) -> dict[str, dg.MetadataValue[Any]]:
    """The columns of a manifest with types and descriptions, for the asset's definition.

    A Markdown table, not Dagster's `dagster/column_schema`: for that, the asset's page shows all
    columns first, and images and failures two screens below them. The table is a file of the
    package, because the types of the columns are PyArrow's, and no run imports that while it loads
    the definitions. As metadata of each materialization, it would take 6.5 kB of the event log per
    run.

    Args:
        asset: the name of the asset.

    Returns:
        Metadata by key: `columns`.
    """
    return {"columns": dg.MetadataValue.md(columns_file(asset).read_text("utf-8"))}


def columns_file(asset: str) -> Path:
    """The path of the table of an asset's columns, which `imgassets.manifest_reference` writes."""
    return Path(__file__).with_name("columns") / f"{asset}.md"


def size_metadata(table: pa.Table) -> dict[str, int]:
    """Size of the image files of a partition in bytes, under the key that Dagster reserves.

    Args:
        table: The manifest; a file that several rows name counts once.
    """
    import pyarrow.compute as pc

    files = table.group_by("path", use_threads=False).aggregate([("bytes", "max")])
    sizes = files["bytes_max"].filter(pc.is_valid(files["path"]))
    return {"dagster/size_bytes": pc.sum(sizes).as_py() or 0}


def location_metadata(address: str) -> dg.MetadataValue[Any]:
    """The location of a file or folder: a path, which the UI can copy, or an object store's URL.

    Args:
        address: a local path or an fsspec address such as `s3://bucket/prefix`.
    """
    return dg.MetadataValue.url(address) if "://" in address else dg.MetadataValue.path(address)


def round_for_display(value: SupportsFloat) -> float:
    """Round a measured value to four decimals."""
    return round(float(value), 4)


def count_metadata(counts: Mapping[str, int], prefix: str) -> dict[str, dg.MetadataValue[Any]]:
    """One number per count, under `<prefix>/<name>`."""
    return {f"{prefix}/{name}": dg.MetadataValue.int(count) for name, count in counts.items()}


def bar_chart(counts: Mapping[str, int]) -> dg.MetadataValue[Any]:
    """A bar chart of counts as a Markdown table: far smaller in the event log than an image.

    Args:
        counts: count by name; names with a count of 0 are left out.
    """
    longest = max(counts.values(), default=0)
    lines = ["| | | |", "|---|---:|---|"]
    lines += [
        f"| {name} | {count} | {'█' * max(1, round(_LONGEST_BAR * count / longest))} |"
        for name, count in counts.items()
        if count
    ]
    return dg.MetadataValue.md("\n".join(lines))


def markdown_table(
    rows: Sequence[Mapping[str, Cell]], total: int | None = None
) -> dg.MetadataValue[Any]:
    """The first `MAX_TABLE_ROWS` rows of a table as Markdown; `none` if there are no rows.

    Args:
        rows: one mapping per row, all with the same keys; the keys are the column titles.
        total: the number of rows, if `rows` has the first ones only.
    """
    if not rows:
        return dg.MetadataValue.md("none")
    lines = _table_lines(rows[:MAX_TABLE_ROWS])
    if (more := (len(rows) if total is None else total) - MAX_TABLE_ROWS) > 0:
        lines.append(f"\nand {more} more: see the manifest")
    return dg.MetadataValue.md("\n".join(lines))


def tables(
    name: str, rows: Sequence[Mapping[str, Cell]], total: int | None = None
) -> dict[str, dg.MetadataValue[Any]]:
    """A table as `markdown_table` makes it; if it is too long for that, its start inline as well.

    Args:
        name: the key of the table; the inline one is at `<name> (first)`.
        rows: one mapping per row, as for `markdown_table`.
        total: as for `markdown_table`.
    """
    table = markdown_table(rows, total)
    if len(table.value) < _MAX_INLINE:
        return {name: table}
    inline, *others = _table_lines(rows[:MAX_TABLE_ROWS], _MAX_INLINE_CELL)
    for line in others:
        if len(inline) + 1 + len(line) >= _MAX_INLINE:
            break
        inline += f"\n{line}"
    return {f"{name} (first)": dg.MetadataValue.md(inline), name: table}


def summary(partition: Partition, outcomes: Mapping[str, int]) -> str:
    """The outcome of a partition on one line, for the log: `9 URLs, 7 ok, 2 failed (timeout 2)`.

    Args:
        partition: the partition.
        outcomes: number of rows by outcome, from `manifests.count_outcomes`.
    """
    good, removed = outcomes.get("ok", 0), outcomes.get("removed", 0)
    failed = {name: n for name, n in outcomes.items() if n and name not in {"ok", "removed"}}
    parts = [counted(sum(outcomes.values()), "URL"), f"{good} ok", f"{sum(failed.values())} failed"]
    if failed:
        parts[-1] += f" ({', '.join(f'{name} {number}' for name, number in failed.items())})"
    if removed:
        parts.append(f"{removed} taken down")
    return f"{partition.key}: {', '.join(parts)}"


def logger_of(context: dg.AssetExecutionContext) -> Callable[[str], None]:
    """The function that the libraries call with their log messages (level INFO)."""
    return context.log.info


def _table_lines(rows: Sequence[Mapping[str, Cell]], max_cell: int = _MAX_CELL) -> list[str]:
    columns = list(rows[0])
    lines: list[Sequence[Cell]] = [columns, ["---"] * len(columns)]
    lines += [[row[name] for name in columns] for row in rows]
    return [f"| {' | '.join(_cell(cell, max_cell) for cell in line)} |" for line in lines]


def _cell(value: object, max_length: int) -> str:
    if value is None:
        return ""
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return escape_cell(text, max_length)
