"""Work on large Arrow tables in little memory.

The manifest of a partition of 1,000,000 rows takes half a gigabyte, and usually all of its rows are
selected, in their order: then these selections copy nothing.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def take_rows(table: pa.Table, numbers: NDArray[np.int64]) -> pa.Table:
    """The rows at these indices, in this order; -1 gives a row of nulls."""
    if np.array_equal(numbers, np.arange(table.num_rows)):
        return table
    return table.take(pa.array(numbers, mask=numbers < 0))


def filter_rows(table: pa.Table, is_wanted: NDArray[np.bool_]) -> pa.Table:
    """The rows for which the value is true."""
    return table if is_wanted.all() else table.filter(pa.array(is_wanted))


def set_column(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The table with other values in a column, whose place and dtype stay."""
    number = table.schema.get_field_index(name)
    return table.set_column(number, table.schema.field(number), values)


def index_in(values: pa.ChunkedArray, among: pa.ChunkedArray) -> NDArray[np.int64]:
    """The index at which each value is first found among others; -1 if it is null or not found."""
    found = pc.index_in(values, value_set=among.combine_chunks(), skip_nulls=True)
    numbers: NDArray[np.int64] = found.fill_null(-1).cast(pa.int64()).to_numpy()
    return numbers


def as_mask(values: pa.ChunkedArray | pa.BooleanArray) -> NDArray[np.bool_]:
    """Booleans of Arrow as those of NumPy; null is false."""
    filled = values.fill_null(False)
    chunks = filled.chunks if isinstance(filled, pa.ChunkedArray) else [filled]
    empty = np.zeros(0, np.bool_)
    return np.concatenate([empty, *(c.to_numpy(zero_copy_only=False) for c in chunks)])


def release_memory() -> None:
    """Give the memory of tables that no longer exist back to the system.

    PyArrow's allocator (mimalloc) keeps most of it, beside what is allocated next. Call it between
    steps whose tables are large.
    """
    pa.default_memory_pool().release_unused()
