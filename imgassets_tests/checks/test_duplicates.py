from __future__ import annotations

from imgassets.checks.duplicates import duplicate_pictures
from imgassets.manifests import Outcome
from imgassets_tests.arranged import Arranged
from imgassets_tests.rows import raw_row


def test_pictures_that_all_differ_pass(partition: Arranged) -> None:
    rows = [raw_row(number, sha256=f"{number:064}") for number in range(5)]
    # Failed rows have no bytes that could be the same.
    failed = [
        raw_row(number, outcome=Outcome.EMPTY, path=None, sha256=None) for number in range(5, 20)
    ]
    partition.raw([*rows, *failed])
    verdict = duplicate_pictures(partition.evidence(checks={"max_duplicates": 0}))
    assert verdict.passed
    assert verdict.figures == {
        "pictures": 5,
        "copies": 0,
        "share of copies": 0,
        "products with the most frequent picture": 1,
    }


def test_too_many_copies_fail_and_the_largest_groups_are_named_first(partition: Arranged) -> None:
    contents = ["a", "b", "b", "c", "c", "c", "d", "e", "f", "g"]
    partition.raw([raw_row(number, sha256=content) for number, content in enumerate(contents)])

    verdict = duplicate_pictures(partition.evidence())

    assert verdict.wrong == [
        "3 of 10 pictures (30.0%) are copies of another; at most 10.0% should be"
    ]
    assert [concern.key for concern in verdict.concerns] == ["picture-3", "picture-1"]
    assert verdict.concerns[0].what == (
        "3 rows of 3 products have this picture; also picture-4, picture-5"
    )
    assert duplicate_pictures(partition.evidence(checks={"max_duplicates": 0.3})).passed


def test_a_placeholder_in_many_products_fails_though_it_is_a_small_share(
    partition: Arranged,
) -> None:
    rows = [
        raw_row(number, sha256="no picture" if number < 11 else f"{number}")
        for number in range(500)
    ]
    partition.raw(rows)
    verdict = duplicate_pictures(partition.evidence())
    assert verdict.wrong == ["11 products have one and the same picture; a placeholder?"]
    assert verdict.concerns[0].what.endswith("picture-4, picture-5 and 5 more")
    assert duplicate_pictures(partition.evidence(checks={"max_products": 11})).passed


def test_a_picture_many_times_in_one_product_is_a_copy_but_no_placeholder(
    partition: Arranged,
) -> None:
    rows = [raw_row(number, product_id="one", sha256="same") for number in range(20)]
    partition.raw(rows)
    evidence = partition.evidence(checks={"max_duplicates": 1})
    verdict = duplicate_pictures(evidence)
    assert verdict.passed
    assert verdict.figures["copies"] == 19
