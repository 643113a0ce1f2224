"""Check that every URL has exactly one row, and that the file named by the row exists.

File contents are checked in `files`.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from imgassets.checks.context import PROCESSED, RAW, CheckContext
from imgassets.checks.outcome import MAX_FINDINGS, CheckOutcome, Finding
from imgassets.manifests import Outcome
from imgassets.wording import counted


def every_url_has_a_raw_row(context: CheckContext) -> CheckOutcome:
    """Check the rows of `raw_images`."""
    return _check_rows(context, RAW)


def every_url_has_a_processed_row(context: CheckContext) -> CheckOutcome:
    """Check the rows of `processed_images`."""
    return _check_rows(context, PROCESSED)


def _check_rows(context: CheckContext, asset: str) -> CheckOutcome:
    keys, table = context.url_keys, context.table(asset)
    found = table["key"]
    counts = found.value_counts()
    distinct = counts.field("values")
    is_ok = pc.equal(table["outcome"], str(Outcome.OK))
    problems = {
        "has no row": keys.filter(pc.invert(pc.is_in(keys, value_set=distinct))),
        "has several rows": distinct.filter(pc.greater(counts.field("counts"), 1)),
        "has a row, but is not in url_list": distinct.filter(
            pc.invert(pc.is_in(distinct, value_set=pc.unique(keys)))
        ),
        "its row names a file that does not exist": found.filter(
            pa.array(context.missing_files(asset))
        ),
        "its outcome is ok, but its row names no file": found.filter(
            pc.and_(is_ok, pc.is_null(table["path"]))
        ),
    }
    number = sum(map(len, problems.values()))
    first = [(key, detail) for detail, each in problems.items() for key in _first_sorted(each)]
    paths = context.paths(asset, [key for key, _ in first]) if first else {}
    return CheckOutcome(
        summary=f"{counted(len(keys), 'URL')} accounted for",
        violations=[
            f"{counted(number, 'problem')} in the rows of {counted(len(keys), 'URL')}; "
            f"materialize {asset} of the partition again"
        ]
        if number
        else [],
        metrics={"urls": len(keys), "rows": table.num_rows, "problems": number},
        findings=[Finding(key, detail, paths.get(key)) for key, detail in first],
        found=number,
    )


def _first_sorted(keys: pa.Array | pa.ChunkedArray) -> list[str]:
    order = pc.sort_indices(keys)[:MAX_FINDINGS]
    first: list[str] = keys.take(order).to_pylist()
    return first
