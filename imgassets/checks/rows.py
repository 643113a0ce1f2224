"""Is every URL accounted for: one row, and the file that the row names?

What is in the files is judged in `files`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from imgassets.checks.evidence import PROCESSED, RAW, Evidence, name_of
from imgassets.checks.verdict import Concern, Verdict
from imgassets.manifests import Outcome


def every_url_has_a_raw_row(evidence: Evidence) -> Verdict:
    """Judge the rows of `raw_images`."""
    return _accounted_for(evidence, RAW)


def every_url_has_a_processed_row(evidence: Evidence) -> Verdict:
    """Judge the rows of `processed_images`."""
    return _accounted_for(evidence, PROCESSED)


def _accounted_for(evidence: Evidence, asset: str) -> Verdict:
    wanted, rows, sizes = evidence.wanted, evidence.rows(asset), evidence.sizes(asset)
    gone = evidence.gone if asset == RAW else set()
    found = Counter(row.key for row in rows)
    concerns = [
        *_concerns("has no row", (key for key in wanted if key not in found)),
        *_concerns("has several rows", (key for key, count in found.items() if count > 1)),
        *_concerns("has a row, but is not in url_list", found.keys() - set(wanted)),
        *_concerns(
            "is named by its row, but its file is gone",
            (
                row.key
                for row in rows
                if row.path is not None
                and (name := name_of(row.path)) not in sizes
                and name not in gone
            ),
        ),
        *_concerns(
            "is ok, but its row names no file",
            (row.key for row in rows if row.outcome is Outcome.OK and row.path is None),
        ),
    ]
    paths = {row.key: row.path for row in rows}
    folder = evidence.folder(asset)
    return Verdict(
        fine=f"all {len(wanted)} URLs are accounted for",
        wrong=[f"{len(concerns)} problems with the rows of {len(wanted)} URLs"] if concerns else [],
        figures={"urls": len(wanted), "rows": len(rows), "problems": len(concerns)},
        concerns=[Concern(c.key, c.what, folder, paths.get(c.key)) for c in concerns],
    )


def _concerns(what: str, keys: Iterable[str]) -> list[Concern]:
    return [Concern(key, what) for key in sorted(keys)]
