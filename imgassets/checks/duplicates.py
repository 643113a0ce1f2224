"""Find images whose bytes are identical, under several URLs or products.

Shops serve one file where they have no image of a product, and show size charts with every product;
a dataset should not contain either many times. Images that only look similar are not found.
"""

from __future__ import annotations

from collections import defaultdict

from imgassets.checks.context import CheckContext
from imgassets.checks.outcome import CheckOutcome, Finding
from imgassets.manifests import Outcome, RawRow
from imgassets.wording import counted

_MAX_KEYS = 5


def duplicate_images(context: CheckContext) -> CheckOutcome:
    """Check the share of copies, and the number of products that share one image."""
    bounds = context.options.checks
    groups: dict[str, list[RawRow]] = defaultdict(list)
    # In a week or month, a URL of a product that is listed again on another day is no copy.
    rows = {(row.product_id, row.url): row for row in reversed(context.raw_rows)}
    for row in reversed(rows.values()):
        if row.outcome is Outcome.OK and row.sha256 is not None:
            groups[row.sha256].append(row)
    images = sum(map(len, groups.values()))
    copies = images - len(groups)
    share = copies / images if images else 0.0
    repeated = sorted(
        (group for group in groups.values() if len(group) > 1),
        key=lambda group: (_product_count(group), len(group)),
        reverse=True,
    )
    most_products = _product_count(repeated[0]) if repeated else min(images, 1)
    violations = []
    if share > bounds.max_duplicates:
        violations.append(
            f"copies of another image: {copies} of {counted(images, 'image')} ({share:.1%}); "
            f"expected at most {bounds.max_duplicates:.1%} (checks.max_duplicates)"
        )
    if most_products > bounds.max_products:
        violations.append(
            f"{most_products} products share one image; expected at most {bounds.max_products} "
            "(checks.max_products); if it is a placeholder or a size chart, exclude its URL in the "
            "source"
        )
    return CheckOutcome(
        summary=f"copies of another image: {copies} of {counted(images, 'image')}",
        violations=violations,
        metrics={
            "images": images,
            "copies": copies,
            "share of copies": share,
            "products with the most frequent image": most_products,
        },
        findings=[Finding(group[0].key, _group_detail(group), group[0].path) for group in repeated],
    )


def _product_count(group: list[RawRow]) -> int:
    return len({row.product_id for row in group})


def _group_detail(group: list[RawRow]) -> str:
    others = [row.key for row in group[1:]]
    keys = ", ".join(others[:_MAX_KEYS])
    more = f" and {len(others) - _MAX_KEYS} more" if len(others) > _MAX_KEYS else ""
    return (
        f"{counted(len(group), 'row')} of {counted(_product_count(group), 'product')} have this "
        f"image; also {keys}{more}"
    )
