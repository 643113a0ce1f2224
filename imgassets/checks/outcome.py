"""The outcome of a check: a summary, metrics, and the images that it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imgassets.storage import Folder


@dataclass(frozen=True, slots=True)
class Finding:
    """An image that a check reports.

    Attributes:
        key: Key of the image's row.
        detail: Why the image is reported.
        folder: Folder that `path` is relative to.
        path: Path of the image file; None if there is no file to show.
    """

    key: str
    detail: str
    folder: Folder | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOutcome:
    """The outcome of one check of one partition.

    Attributes:
        summary: One sentence, shown when the check passes.
        violations: One sentence per bound that is violated.
        drift: One sentence per metric that differs too much from the retailer's recent partitions.
        metrics: Numbers by name, reported whether or not the check passes, so that the UI plots
            them over partitions.
        findings: The images to look at, worst first.
    """

    summary: str
    violations: Sequence[str] = ()
    drift: Sequence[str] = ()
    metrics: Mapping[str, int | float] = field(default_factory=dict)
    findings: Sequence[Finding] = ()

    @property
    def passed(self) -> bool:
        """Whether there is neither a violation nor drift."""
        return not self.violations and not self.drift

    @property
    def description(self) -> str:
        """All violations and drift in one line; the summary if there are none."""
        return "; ".join([*self.violations, *self.drift]) or self.summary
