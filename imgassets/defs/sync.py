"""Registers the retailers of the source as partitions of the Dagster instance.

`imgassets sync` uses it. How the retailers of a source are found is in `sources`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

    from imgassets.sources.listing import Inventory


@dataclass(frozen=True)
class SyncResult:
    """The retailers before and after a sync.

    Attributes:
        new: slugs that this sync registered.
        known: slugs in the source that were registered before.
        absent: registered slugs without a document in the source; they stay registered, because
            their images are kept.
    """

    new: list[str]
    known: list[str]
    absent: list[str]


def register_retailers(
    inventory: Inventory, instance: dg.DagsterInstance, retailers: str
) -> SyncResult:
    """Register the retailers of a source as dynamic partitions; no partition is ever removed.

    Args:
        inventory: the retailers that the source contains.
        instance: the Dagster instance that stores the partitions.
        retailers: the name of the dynamic partitions in the instance.
    """
    before = set(instance.get_dynamic_partitions(retailers))
    found = set(inventory.names)
    new = sorted(found - before)
    if new:
        instance.add_dynamic_partitions(retailers, new)
    return SyncResult(new=new, known=sorted(found & before), absent=sorted(before - found))
