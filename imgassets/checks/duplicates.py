"""Pictures that are the same to the byte, under several URLs or products.

Shops serve one file where they have no picture, and show size charts with every product; neither
should be in a dataset many times. Pictures that only look alike are not found.
"""

from __future__ import annotations

from collections import defaultdict

from imgassets.checks.evidence import RAW, Evidence
from imgassets.checks.verdict import Concern, Verdict
from imgassets.manifests import Outcome, RawRow

_NAMED = 5


def duplicate_pictures(evidence: Evidence) -> Verdict:
    """Judge how many served pictures were there before, and in how many products one is."""
    bounds = evidence.options.checks
    groups: dict[str, list[RawRow]] = defaultdict(list)
    for row in evidence.raw_rows:
        if row.outcome is Outcome.OK and row.sha256 is not None:
            groups[row.sha256].append(row)
    pictures = sum(map(len, groups.values()))
    copies = pictures - len(groups)
    share = copies / pictures if pictures else 0.0
    repeated = sorted(
        (group for group in groups.values() if len(group) > 1),
        key=lambda group: (_products(group), len(group)),
        reverse=True,
    )
    most = _products(repeated[0]) if repeated else min(pictures, 1)
    wrong = []
    if share > bounds.max_duplicates:
        wrong.append(
            f"{copies} of {pictures} pictures ({share:.1%}) are copies of another; "
            f"at most {bounds.max_duplicates:.1%} should be"
        )
    if most > bounds.max_products:
        wrong.append(f"{most} products have one and the same picture; a placeholder?")
    folder = evidence.folder(RAW)
    return Verdict(
        fine=f"{copies} of {pictures} pictures are copies of another",
        wrong=wrong,
        figures={
            "pictures": pictures,
            "copies": copies,
            "share of copies": share,
            "products with the most frequent picture": most,
        },
        concerns=[Concern(group[0].key, _told(group), folder, group[0].path) for group in repeated],
    )


def _products(group: list[RawRow]) -> int:
    return len({row.product_id for row in group})


def _told(group: list[RawRow]) -> str:
    others = [row.key for row in group[1:]]
    named = ", ".join(others[:_NAMED])
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return f"{len(group)} rows of {_products(group)} products have this picture; also {named}{more}"
