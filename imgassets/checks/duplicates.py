"""Find images whose bytes are identical, under several URLs or products.

Shops serve one file where they have no image of a product, and show size charts with every product;
a dataset should not contain either many times. Images that only look similar are not found.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgassets.checks.context import CheckContext
from imgassets.checks.outcome import MAX_FINDINGS, CheckOutcome, Finding
from imgassets.manifests import Outcome
from imgassets.tables import as_mask, filter_rows, take_rows
from imgassets.wording import counted

_MAX_KEYS = 5


def duplicate_images(context: CheckContext) -> CheckOutcome:
    """Check the share of copies, and the number of products that share one image."""
    bounds = context.options.checks
    images = _distinct_images(context.raw_table)
    codes = _codes(images["sha256"])
    rows_of_image = np.bincount(codes)
    copies = images.num_rows - rows_of_image.size
    share = copies / images.num_rows if images.num_rows else 0.0
    repeated, products = _repeated_images(codes, rows_of_image, images["product_id"])
    most_products = int(products[0]) if products.size else min(images.num_rows, 1)
    violations = []
    if share > bounds.max_duplicates:
        violations.append(
            f"copies of another image: {copies} of {counted(images.num_rows, 'image')} "
            f"({share:.1%}); "
            f"expected at most {bounds.max_duplicates:.1%} (checks.max_duplicates)"
        )
    if most_products > bounds.max_products:
        violations.append(
            f"{most_products} products share one image; expected at most {bounds.max_products} "
            "(checks.max_products); if it is a placeholder or a size chart, exclude its URL in the "
            "source"
        )
    return CheckOutcome(
        summary=f"copies of another image: {copies} of {counted(images.num_rows, 'image')}",
        violations=violations,
        metrics={
            "images": images.num_rows,
            "copies": copies,
            "share of copies": share,
            "products with the most frequent image": most_products,
        },
        findings=[
            _finding(images.filter(pa.array(codes == image)), int(number))
            for image, number in zip(repeated[:MAX_FINDINGS], products, strict=False)
        ],
        found=len(repeated),
    )


def _distinct_images(table: pa.Table) -> pa.Table:
    """The `ok` rows; of those with the same product and URL, the first, in place of the last.

    In a week or month, a URL of a product that is listed again on another day is no copy.
    """
    urls, products = _codes(table["url"]), _codes(table["product_id"])
    pairs = urls.astype(np.int64) * (products.max(initial=0) + 1) + products
    _, first = np.unique(pairs, return_index=True)
    _, from_last = np.unique(pairs[::-1], return_index=True)
    columns = ["key", "product_id", "path", "outcome", "sha256"]
    rows = take_rows(table.select(columns), first[np.argsort(-from_last)])
    is_image = pc.and_(pc.equal(rows["outcome"], str(Outcome.OK)), pc.is_valid(rows["sha256"]))
    return filter_rows(rows, as_mask(is_image))


def _repeated_images(
    codes: NDArray[np.int32], rows_of_image: NDArray[np.int64], product_ids: pa.ChunkedArray
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The images of several rows, those of most products and most rows first.

    Args:
        codes: The number of the image of each row.
        rows_of_image: Number of rows by number of the image.
        product_ids: The product of each row.

    Returns:
        The numbers of the images, and of how many products each is.
    """
    repeated = np.flatnonzero(rows_of_image > 1)
    if not repeated.size:
        return repeated, repeated
    is_repeated = rows_of_image[codes] > 1
    products = _codes(product_ids.filter(pa.array(is_repeated)))
    pairs = np.unique(np.stack([codes[is_repeated], products]), axis=1)
    counts = np.bincount(pairs[0], minlength=rows_of_image.size)[repeated]
    order = np.lexsort((-rows_of_image[repeated], -counts))
    return repeated[order], counts[order]


def _codes(values: pa.ChunkedArray) -> NDArray[np.int32]:
    """Numbers that are equal for equal values, in the order of their first appearance."""
    codes: NDArray[np.int32] = values.combine_chunks().dictionary_encode().indices.to_numpy()
    return codes


def _finding(rows: pa.Table, products: int) -> Finding:
    """What is to be said about an image.

    Args:
        rows: Its rows.
        products: The number of its products.
    """
    first, *others = rows["key"].slice(0, 1 + _MAX_KEYS).to_pylist()
    left = rows.num_rows - 1 - len(others)
    more = f" and {left} more" if left else ""
    detail = (
        f"{counted(rows.num_rows, 'row')} of {counted(products, 'product')} have this image; "
        f"also {', '.join(others)}{more}"
    )
    return Finding(first, detail, rows["path"][0].as_py())
