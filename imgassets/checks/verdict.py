"""What a check says: a sentence, numbers, and the pictures that it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imgassets.storage import Folder


@dataclass(frozen=True, slots=True)
class Concern:
    """A picture that a check names.

    Attributes:
        key: of its row.
        what: is the matter with it.
        folder: that `path` is relative to.
        path: of the file that shows it; none where there is no such file.
    """

    key: str
    what: str
    folder: Folder | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a check says.

    Attributes:
        fine: a sentence for a person, where nothing is wrong.
        wrong: one sentence for each bound that is not kept.
        drift: one for each figure that differs too much from the retailer's recent partitions.
        figures: numbers that a person plots over partitions, also where nothing is wrong.
        concerns: the pictures that are wrong, the worst first.
    """

    fine: str
    wrong: Sequence[str] = ()
    drift: Sequence[str] = ()
    figures: Mapping[str, int | float] = field(default_factory=dict)
    concerns: Sequence[Concern] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.wrong and not self.drift

    @property
    def told(self) -> str:
        """All of it in one line."""
        return "; ".join([*self.wrong, *self.drift]) or self.fine


class CannotJudgeError(Exception):
    """Something is missing that a check needs; the message says what, and what to do."""
