"""Check that files have the size and the checksum that their rows record.

The size of every file is compared, because no file is read for it. The checksum is compared
for a sample, because each file has to be read; the sample is the same at each check of a partition.
A sample of 100 finds, with 95 % probability, at least one wrong file if 3 % of the files are wrong.
A sample without a wrong file does not prove that there is none.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgassets.checks.context import PROCESSED, RAW, CheckContext
from imgassets.checks.outcome import MAX_FINDINGS, CheckOutcome, Finding
from imgassets.storage import Storage
from imgassets.tables import as_mask, filter_rows, take_rows
from imgassets.wording import counted

# Reading is I/O-bound (disk or object store), so more threads than cores.
_THREADS = 16
_BATCH = 5_000  # rows

_SIZE = "its file has {} bytes; its row says {}"
_CONTENT = "its file has the right size, but another checksum than its row"
_NO_CHECKSUM = "its row has no checksum to compare the file with"


def raw_files_match_rows(context: CheckContext) -> CheckOutcome:
    """Check the raw image files."""
    return _match(context, RAW)


def processed_files_match_rows(context: CheckContext) -> CheckOutcome:
    """Check the processed image files."""
    return _match(context, PROCESSED)


def _match(context: CheckContext, asset: str) -> CheckOutcome:
    sizes = context.file_sizes(asset)
    table = context.table(asset).select(["key", "path", "bytes", "sha256"])
    files = _one_row_per_file(table.append_column("size", sizes))
    is_right = as_mask(
        pc.and_kleene(pc.equal(files["size"], files["bytes"]), pc.is_valid(files["sha256"]))
    )
    wrong_size = files.num_rows - int(is_right.sum())
    findings = [
        Finding(
            row["key"],
            _NO_CHECKSUM if row["sha256"] is None else _SIZE.format(row["size"], row["bytes"]),
            row["path"],
        )
        for row in files.filter(pa.array(~is_right)).slice(0, MAX_FINDINGS).to_pylist()
    ]
    seed = f"{context.partition.date}|{context.partition.retailer}"
    sampled = sample(filter_rows(files, is_right), context.options.checks.files_sample, seed)
    wrong_content = 0
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="files") as pool:
        for start in range(0, sampled.num_rows, _BATCH):
            rows = sampled.slice(start, _BATCH).to_pylist()
            checksums = pool.map(lambda row: _checksum(context.storage, row["path"]), rows)
            for row, sha256 in zip(rows, checksums, strict=True):
                if sha256 not in (row["sha256"], None):
                    wrong_content += 1
                    if wrong_content <= MAX_FINDINGS:
                        findings.append(Finding(row["key"], _CONTENT, row["path"]))
    number = wrong_size + wrong_content
    return CheckOutcome(
        summary=f"{counted(files.num_rows, 'file')} with the size in the manifest; "
        f"{sampled.num_rows} read, with the checksum in the manifest",
        violations=[
            f"{number} of {counted(files.num_rows, 'file')} not as in the manifest "
            f"({sampled.num_rows} read); delete them and materialize the partition again"
        ]
        if number
        else [],
        metrics={
            "files": files.num_rows,
            "files read": sampled.num_rows,
            "files of another size": wrong_size,
            "files with other content": wrong_content,
        },
        findings=findings,
        found=number,
    )


def _one_row_per_file(rows: pa.Table) -> pa.Table:
    """The first row of each file that exists, because many rows can share one.

    Missing files are reported by `rows`.

    Args:
        rows: Columns of a manifest, and the size of each row's file, null if there is none.
    """
    rows = filter_rows(rows, as_mask(pc.is_valid(rows["size"])))
    if pc.count_distinct(rows["path"]).as_py() == rows.num_rows:
        return rows
    numbered = rows.append_column("number", pa.array(np.arange(rows.num_rows)))
    groups = numbered.group_by(["path", "bytes", "sha256"], use_threads=False)
    return take_rows(rows, np.sort(groups.aggregate([("number", "min")])["number_min"].to_numpy()))


def sample(rows: pa.Table, size: int | None, seed: str) -> pa.Table:
    """Select a pseudo-random sample of rows that depends on the seed alone.

    A row is selected by a hash of its key, so that adding or removing rows changes little.

    Args:
        rows: The rows to select from; needs the column `key`.
        size: Number of rows to select; None selects all.
        seed: The same seed selects the same rows.
    """
    if size is None or size >= rows.num_rows:
        return rows

    def ranks() -> Iterator[tuple[bytes, int]]:
        for start in range(0, rows.num_rows, _BATCH):
            for number, key in enumerate(rows["key"].slice(start, _BATCH).to_pylist(), start):
                yield hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=8).digest(), number

    chosen = [number for _, number in heapq.nsmallest(size, ranks())]
    return rows.take(pa.array(chosen, pa.int64()))


def _checksum(storage: Storage, path: str) -> str | None:
    try:
        return storage.sha256(path)
    except FileNotFoundError:
        # Another run removed the file after the listing.
        return None
