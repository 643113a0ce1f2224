"""Converts results of the libraries to Dagster metadata and failures, the same way for all assets.

Which metadata an asset shows is in that asset's module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, SupportsFloat

import dagster as dg

from imgassets.errors import StorageError
from imgassets.markdown import escape_cell

if TYPE_CHECKING:
    import pyarrow as pa

    from imgassets.defs.partitions import Partition
    from imgassets.manifests import UrlRow
    from imgassets.storage import Storage

MAX_TABLE_ROWS = 20
_MAX_CELL = 200  # characters
_LONGEST_BAR = 40  # characters


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


def read_manifest(storage: Storage, asset: str, partition: Partition) -> pa.Table:
    """Read the manifest of a partition, for an asset downstream.

    Args:
        storage: the storage that contains the partition.
        asset: the name of the asset.
        partition: the partition.

    Raises:
        dagster.Failure: the partition was never materialized, or its manifest cannot be read.
    """
    try:
        with as_dagster_failure(StorageError):
            return storage.partition(*partition).read_manifest(asset)
    except FileNotFoundError:
        raise dg.Failure(
            f"{asset} of {partition.key} was never materialized; materialize it first",
            allow_retries=False,
        ) from None


def manifest_metadata(
    address: str, rows: int, kind: type[UrlRow]
) -> dict[str, dg.MetadataValue[Any]]:
    """Location, number of rows and columns of a manifest, under the keys that Dagster reserves.

    Args:
        address: the path or address of the manifest.
        rows: the number of rows in the manifest.
        kind: the class of its rows.

    Returns:
        Metadata by key: `manifest`, `dagster/row_count` and `dagster/column_schema`.
    """
    return {
        "manifest": location_metadata(address),
        "dagster/row_count": dg.MetadataValue.int(rows),
        "dagster/column_schema": dg.MetadataValue.table_schema(column_schema(kind)),
    }


def column_schema(kind: type[UrlRow]) -> dg.TableSchema:
    """The columns of a manifest with types and descriptions, for the asset's page in the UI.

    It is metadata of each materialization, not of the asset's definition: there, every run would
    import pyarrow while it loads the definitions.

    Args:
        kind: the class of the manifest's rows.
    """
    from imgassets.manifests import SCHEMAS, column_descriptions

    descriptions = column_descriptions(kind)
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                field.name,
                type=_type_name(str(field.type)),
                description=descriptions[field.name],
                constraints=dg.TableColumnConstraints(nullable=field.nullable),
            )
            for field in SCHEMAS[kind]
        ]
    )


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
    """One number per count, under `<prefix>/<name>`: Dagster plots each over the partitions."""
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


def markdown_table(rows: Sequence[Mapping[str, str | int | float | None]]) -> dg.MetadataValue[Any]:
    """The first `MAX_TABLE_ROWS` rows of a table as Markdown; `none` if there are no rows.

    Args:
        rows: one mapping per row, all with the same keys; the keys are the column titles.
    """
    if not rows:
        return dg.MetadataValue.md("none")
    columns = list(rows[0])
    lines = [_line(columns), _line(["---"] * len(columns))]
    lines += [_line([row[name] for name in columns]) for row in rows[:MAX_TABLE_ROWS]]
    if len(rows) > MAX_TABLE_ROWS:
        lines.append(f"\nand {len(rows) - MAX_TABLE_ROWS} more: see the manifest")
    return dg.MetadataValue.md("\n".join(lines))


def logger_of(context: dg.AssetExecutionContext) -> Callable[[str], None]:
    """The function that the libraries call with their log messages (level INFO)."""
    return context.log.info


def _type_name(arrow: str) -> str:
    return arrow.replace("item: ", "")


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return escape_cell(text, _MAX_CELL)
