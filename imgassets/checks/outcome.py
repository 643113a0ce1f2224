"""The outcome of a check: a summary, metrics, and the images that it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MAX_FINDINGS = 100
"""Number of findings of a check that are kept; the UI shows fewer."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An image that a check reports.

    Attributes:
        key: Key of the image's row.
        detail: Why the image is reported.
        path: Path of the image file in the storage; None if there is no file to show.
        faces: Boxes (x, y, width, height, in pixels of the image) of faces that the check itself
            detected.
    """

    key: str
    detail: str
    path: str | None = None
    faces: Sequence[Sequence[int]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOutcome:
    """The outcome of one check of one partition.

    Attributes:
        summary: One sentence, shown when the check passes.
        violations: One sentence per bound that is violated.
        drift: One sentence per metric that differs too much from the retailer's recent partitions.
        metrics: Numbers by name, reported whether or not the check passes, so that the UI plots
            them over partitions.
        findings: The first images to look at, worst first; at most about `MAX_FINDINGS`, because a
            check may find a million.
        found: Number of all images to look at; None if `findings` has all of them.
        fatal: Whether a violation is so severe that the run must fail, whatever the severity in the
            settings.
    """

    summary: str
    violations: Sequence[str] = ()
    drift: Sequence[str] = ()
    metrics: Mapping[str, int | float] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    found: int | None = None
    fatal: bool = False

    @property
    def passed(self) -> bool:
        """Whether there is neither a violation nor drift."""
        return not self.violations and not self.drift

    @property
    def shows_images(self) -> bool:
        """Whether there are images to look at: the check failed, and a finding has a file."""
        return not self.passed and any(finding.path is not None for finding in self.findings)

    @property
    def description(self) -> str:
        """All violations and drift in one line; the summary if there are none."""
        return "; ".join([*self.violations, *self.drift]) or self.summary
