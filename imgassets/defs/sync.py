"""Retailers of the source become partitions of the Dagster instance.

Here lives what `imgassets sync` does and the sensor shares; how a source is surveyed is in
`sources`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

    from imgassets.sources.listing import Survey


@dataclass(frozen=True)
class Synced:
    """What a sync found and did.

    Attributes:
        new: slugs that were registered now.
        known: slugs that were registered before.
        absent: slugs that are registered, but have no document in the source; they stay, since
            their pictures do.
    """

    new: list[str]
    known: list[str]
    absent: list[str]


def register_retailers(survey: Survey, instance: dg.DagsterInstance, retailers: str) -> Synced:
    """Register the retailers of a survey as partitions; never remove one.

    Args:
        survey: of the source.
        instance: keeps the partitions.
        retailers: name of the dynamic partitions in the instance.
    """
    before = set(instance.get_dynamic_partitions(retailers))
    found = set(survey.names)
    new = sorted(found - before)
    if new:
        instance.add_dynamic_partitions(retailers, new)
    return Synced(new=new, known=sorted(found & before), absent=sorted(before - found))
