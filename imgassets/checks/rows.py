"""Check that every URL has exactly one row, and that the file named by the row exists.

File contents are checked in `files`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from imgassets.checks.context import PROCESSED, RAW, CheckContext
from imgassets.checks.outcome import CheckOutcome, Finding
from imgassets.manifests import Outcome
from imgassets.wording import counted


def every_url_has_a_raw_row(context: CheckContext) -> CheckOutcome:
    """Check the rows of `raw_images`."""
    return _check_rows(context, RAW)


def every_url_has_a_processed_row(context: CheckContext) -> CheckOutcome:
    """Check the rows of `processed_images`."""
    return _check_rows(context, PROCESSED)


def _check_rows(context: CheckContext, asset: str) -> CheckOutcome:
    keys, rows = context.url_keys, context.rows(asset)
    missing = context.missing_files(asset)
    found = Counter(row.key for row in rows)
    findings = [
        *_findings("has no row", (key for key in keys if key not in found)),
        *_findings("has several rows", (key for key, count in found.items() if count > 1)),
        *_findings("has a row, but is not in url_list", found.keys() - set(keys)),
        *_findings(
            "its row names a file that does not exist",
            (row.key for row in rows if row.path in missing),
        ),
        *_findings(
            "its outcome is ok, but its row names no file",
            (row.key for row in rows if row.outcome is Outcome.OK and row.path is None),
        ),
    ]
    paths = {row.key: row.path for row in rows}
    return CheckOutcome(
        summary=f"{counted(len(keys), 'URL')} accounted for",
        violations=[
            f"{counted(len(findings), 'problem')} in the rows of {counted(len(keys), 'URL')}; "
            f"materialize {asset} of the partition again"
        ]
        if findings
        else [],
        metrics={"urls": len(keys), "rows": len(rows), "problems": len(findings)},
        findings=[Finding(f.key, f.detail, paths.get(f.key)) for f in findings],
    )


def _findings(detail: str, keys: Iterable[str]) -> list[Finding]:
    return [Finding(key, detail) for key in sorted(keys)]
