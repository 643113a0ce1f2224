from __future__ import annotations

import pytest

from imgassets.checks.residual_faces import residual_faces
from imgassets_tests.partition_fixture import PartitionFixture
from imgassets_tests.rows import processed_row


@pytest.mark.parametrize(("max_share", "passed"), [(0.25, True), (0.24, False)])
def test_too_many_images_that_still_show_a_face_fail(
    partition: PartitionFixture, max_share: float, passed: bool
) -> None:
    partition.processed([processed_row(number) for number in range(4)])
    context = partition.check_context(checks={"max_residual_faces": max_share})

    result = residual_faces(context, 4, {"image-2": [[1, 2, 3, 4]]}, [])

    assert result.passed is passed
    assert result.description == (
        "still a face in 1 of 4 images checked again; "
        f"expected at most {max_share:.1%} (checks.max_residual_faces)"
    )
    assert result.metrics == {
        "images checked": 4,
        "with a face": 1,
        "share": 0.25,
        "not readable": 0,
    }
    (finding,) = result.findings
    assert (finding.key, finding.detail) == ("image-2", "still shows a face")
    assert finding.faces == [[1, 2, 3, 4]]
    assert finding.path == processed_row(2).path


def test_an_image_that_cannot_be_read_fails_with_the_remedy(partition: PartitionFixture) -> None:
    partition.processed([processed_row(0), processed_row(1)])
    result = residual_faces(partition.check_context(), 1, {}, ["image-1"])
    assert result.violations == [
        "1 image cannot be read; delete these files and materialize processed_images again"
    ]
    assert [finding.detail for finding in result.findings] == ["cannot be read"]


def test_a_partition_without_an_image_to_check_passes(partition: PartitionFixture) -> None:
    partition.processed([])
    result = residual_faces(partition.check_context(), 0, {}, [])
    assert result.passed
    assert result.metrics["share"] == 0
