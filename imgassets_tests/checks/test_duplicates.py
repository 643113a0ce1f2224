from __future__ import annotations

from imgassets.checks.duplicates import duplicate_images
from imgassets.manifests import Outcome
from imgassets_tests.partition_fixture import PartitionFixture
from imgassets_tests.rows import raw_row


def test_images_that_all_differ_pass(partition: PartitionFixture) -> None:
    rows = [raw_row(number, sha256=f"{number:064}") for number in range(5)]
    # Failed rows have no bytes to compare.
    failed = [
        raw_row(number, outcome=Outcome.EMPTY, path=None, sha256=None) for number in range(5, 20)
    ]
    partition.raw([*rows, *failed])
    result = duplicate_images(partition.check_context(checks={"max_duplicates": 0}))
    assert result.passed
    assert result.metrics == {
        "images": 5,
        "copies": 0,
        "share of copies": 0,
        "products with the most frequent image": 1,
    }


def test_too_many_copies_fail_and_the_largest_groups_are_listed_first(
    partition: PartitionFixture,
) -> None:
    contents = ["a", "b", "b", "c", "c", "c", "d", "e", "f", "g"]
    partition.raw([raw_row(number, sha256=content) for number, content in enumerate(contents)])

    result = duplicate_images(partition.check_context())

    assert result.violations == [
        "copies of another image: 3 of 10 images (30.0%); "
        "expected at most 10.0% (checks.max_duplicates)"
    ]
    assert [finding.key for finding in result.findings] == ["image-3", "image-1"]
    assert result.findings[0].detail == (
        "3 rows of 3 products have this image; also image-4, image-5"
    )
    assert duplicate_images(partition.check_context(checks={"max_duplicates": 0.3})).passed


def test_a_url_that_a_product_lists_on_several_days_of_a_week_is_one_image(
    partition: PartitionFixture,
) -> None:
    days = [f"2026-01-{day:02}" for day in range(5, 12)]
    listed = [
        raw_row(number, date=day, product_id="coat", url="http://shop/a")
        for number, day in enumerate(days)
    ]
    partition.raw([*listed, raw_row(8, product_id="hat", sha256=listed[0].sha256)])
    result = duplicate_images(partition.check_context(checks={"max_duplicates": 0.5}))
    assert result.passed
    assert (result.metrics["images"], result.metrics["copies"]) == (2, 1)


def test_a_placeholder_in_many_products_fails_even_if_its_share_is_small(
    partition: PartitionFixture,
) -> None:
    rows = [
        raw_row(number, sha256="placeholder" if number < 11 else f"{number}")
        for number in range(500)
    ]
    partition.raw(rows)
    result = duplicate_images(partition.check_context())
    assert result.violations == [
        "11 products share one image; expected at most 10 (checks.max_products); "
        "if it is a placeholder or a size chart, exclude its URL in the source"
    ]
    assert result.findings[0].detail.endswith("image-4, image-5 and 5 more")
    assert duplicate_images(partition.check_context(checks={"max_products": 11})).passed


def test_an_image_repeated_within_one_product_is_a_copy_but_not_a_placeholder(
    partition: PartitionFixture,
) -> None:
    rows = [raw_row(number, product_id="one", sha256="same") for number in range(20)]
    partition.raw(rows)
    context = partition.check_context(checks={"max_duplicates": 1})
    result = duplicate_images(context)
    assert result.passed
    assert result.metrics["copies"] == 19
