"""Check that a second face detection finds hardly any face in processed images.

The detection itself is in `imgassets.imaging.residual`; this module evaluates its result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from imgassets.checks.context import PROCESSED, CheckContext
from imgassets.checks.outcome import CheckOutcome, Finding
from imgassets.wording import counted


def residual_faces(
    context: CheckContext,
    checked: int,
    with_face: Mapping[str, Sequence[Sequence[int]]],
    unreadable: Sequence[str],
) -> CheckOutcome:
    """Check the share of images that still show a face, and that all could be read.

    Args:
        context: Partition with the manifest of `processed_images`.
        checked: Number of images in which faces were detected again.
        with_face: Boxes of the found faces, in pixels of the image, by the key of the image.
        unreadable: Keys of the images that could not be read.
    """
    share = len(with_face) / checked if checked else 0.0
    max_share = context.options.checks.max_residual_faces
    summary = (
        f"still a face in {len(with_face)} of {counted(checked, 'image')} checked again; "
        f"expected at most {max_share:.1%} (checks.max_residual_faces)"
    )
    violations = [summary] if share > max_share else []
    if unreadable:
        violations.append(
            f"{counted(len(unreadable), 'image')} cannot be read; "
            "delete these files and materialize processed_images again"
        )
    paths = context.paths(PROCESSED, [*with_face, *unreadable])
    return CheckOutcome(
        summary=summary,
        violations=violations,
        metrics={
            "images checked": checked,
            "with a face": len(with_face),
            "share": share,
            "not readable": len(unreadable),
        },
        findings=[
            *(
                Finding(key, "still shows a face", paths[key], faces)
                for key, faces in with_face.items()
            ),
            *(Finding(key, "cannot be read", paths[key]) for key in unreadable),
        ],
    )
