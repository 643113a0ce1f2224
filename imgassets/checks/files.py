"""Check that files have the size and the checksum that their rows record.

The size of every file is compared, because no file is read for it. The checksum is compared
for a sample, because each file has to be read; the sample is the same at each check of a partition.
A sample of 100 finds, with 95 % probability, at least one wrong file if 3 % of the files are wrong.
A sample without a wrong file does not prove that there is none.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from imgassets.checks.context import PROCESSED, RAW, CheckContext
from imgassets.checks.outcome import CheckOutcome, Finding
from imgassets.manifests import ProcessedRow, RawRow
from imgassets.storage import Storage
from imgassets.wording import counted

# Reading is I/O-bound (disk or object store), so more threads than cores.
_THREADS = 16

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
    # One row per file, because many rows can share one. Missing files are reported by `rows`.
    files: dict[tuple[str | None, int | None, str | None], RawRow | ProcessedRow] = {}
    for row in context.rows(asset):
        if row.path in sizes:
            files.setdefault((row.path, row.bytes, row.sha256), row)
    findings: list[Finding] = []
    same_size: list[RawRow | ProcessedRow] = []
    for row in files.values():
        size = sizes[str(row.path)]
        if row.sha256 is None:
            findings.append(Finding(row.key, _NO_CHECKSUM, row.path))
        elif size != row.bytes:
            findings.append(Finding(row.key, _SIZE.format(size, row.bytes), row.path))
        else:
            same_size.append(row)
    wrong_size = len(findings)
    seed = f"{context.partition.date}|{context.partition.retailer}"
    sampled = sample(same_size, context.options.checks.files_sample, seed)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="files") as pool:
        checksums = list(pool.map(lambda row: _checksum(context.storage, str(row.path)), sampled))
    findings += [
        Finding(row.key, _CONTENT, row.path)
        for row, sha256 in zip(sampled, checksums, strict=True)
        if sha256 not in (row.sha256, None)
    ]
    return CheckOutcome(
        summary=f"{counted(len(files), 'file')} with the size in the manifest; "
        f"{len(sampled)} read, with the checksum in the manifest",
        violations=[
            f"{len(findings)} of {counted(len(files), 'file')} not as in the manifest "
            f"({len(sampled)} read); delete them and materialize the partition again"
        ]
        if findings
        else [],
        metrics={
            "files": len(files),
            "files read": len(sampled),
            "files of another size": wrong_size,
            "files with other content": len(findings) - wrong_size,
        },
        findings=findings,
    )


def sample(
    rows: Sequence[RawRow | ProcessedRow], size: int | None, seed: str
) -> list[RawRow | ProcessedRow]:
    """Select a pseudo-random sample of rows that depends on the seed alone.

    A row is selected by a hash of its key, so that adding or removing rows changes little.

    Args:
        rows: The rows to select from.
        size: Number of rows to select; None selects all.
        seed: The same seed selects the same rows.
    """
    if size is None or size >= len(rows):
        return list(rows)

    def rank(row: RawRow | ProcessedRow) -> bytes:
        return hashlib.blake2b(f"{seed}\0{row.key}".encode(), digest_size=8).digest()

    return heapq.nsmallest(size, rows, key=rank)


def _checksum(storage: Storage, path: str) -> str | None:
    try:
        return storage.sha256(path)
    except FileNotFoundError:
        # Another run removed the file after the listing.
        return None
