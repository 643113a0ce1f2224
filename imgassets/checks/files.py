"""Do files hold what their rows say: so many bytes, with that checksum?

The size of every file is compared, since one listing tells all of them; the checksum that of a
sample, since each has to be read. The sample is the same each time that a partition is looked at.
A hundred files find, with 95 %, that three in a hundred are not what they were; 0 of 100 wrong does
not say that none is.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from imgassets.checks.evidence import PROCESSED, RAW, Evidence, name_of
from imgassets.checks.verdict import Concern, Verdict
from imgassets.manifests import ProcessedRow, RawRow
from imgassets.storage import Folder

# Reading waits for the disk or the object store, so more threads than cores.
_THREADS = 16

_SIZE = "its file has {} bytes, and {} by its row"
_CONTENT = "its file has as many bytes as its row says, but others"
_NO_CHECKSUM = "its row has no checksum that its file could be compared with"


def raw_files_match_rows(evidence: Evidence) -> Verdict:
    """Judge the served files."""
    return _match(evidence, RAW)


def processed_files_match_rows(evidence: Evidence) -> Verdict:
    """Judge the pictures made. Sizes are compared where their manifest has them."""
    return _match(evidence, PROCESSED)


def _match(evidence: Evidence, asset: str) -> Verdict:
    folder, sizes = evidence.folder(asset), evidence.sizes(asset)
    # A file that is gone is the matter of `rows`.
    there = [
        row for row in evidence.rows(asset) if row.path is not None and name_of(row.path) in sizes
    ]
    concerns: list[Concern] = []
    same_size: list[RawRow | ProcessedRow] = []
    for row in there:
        size = sizes[name_of(str(row.path))]
        if row.sha256 is None:
            concerns.append(Concern(row.key, _NO_CHECKSUM, folder, row.path))
        elif row.bytes is not None and size != row.bytes:
            concerns.append(Concern(row.key, _SIZE.format(size, row.bytes), folder, row.path))
        else:
            same_size.append(row)
    wrong_size = len(concerns)
    seed = f"{evidence.date}|{evidence.retailer}"
    looked_at = sample(same_size, evidence.options.checks.files_sample, seed)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="files") as pool:
        found = list(pool.map(lambda row: _sha256(folder, str(row.path)), looked_at))
    concerns += [
        Concern(row.key, _CONTENT, folder, row.path)
        for row, sha256 in zip(looked_at, found, strict=True)
        if sha256 not in (row.sha256, None)
    ]
    return Verdict(
        fine=f"{len(there)} files are as large as their rows say; "
        f"{len(looked_at)} of them were read, and have their checksums",
        wrong=[
            f"{len(concerns)} of {len(there)} files are not what their rows say "
            f"({len(looked_at)} were read); remove them, and materialize the partition again"
        ]
        if concerns
        else [],
        figures={
            "files": len(there),
            "files read": len(looked_at),
            "files of another size": wrong_size,
            "files with other content": len(concerns) - wrong_size,
        },
        concerns=concerns,
    )


def sample(
    rows: Sequence[RawRow | ProcessedRow], size: int | None, seed: str
) -> list[RawRow | ProcessedRow]:
    """Some of the rows, by chance, but the same for the same seed; all of them if none.

    A row is chosen by a hash of its key, so that rows that come or go change little.
    """
    if size is None or size >= len(rows):
        return list(rows)

    def draw(row: RawRow | ProcessedRow) -> bytes:
        return hashlib.blake2b(f"{seed}\0{row.key}".encode(), digest_size=8).digest()

    return heapq.nsmallest(size, rows, key=draw)


def _sha256(folder: Folder, path: str) -> str | None:
    try:
        return hashlib.sha256(folder.read(path)).hexdigest()
    except FileNotFoundError:
        # Removed since the listing, by another run.
        return None
