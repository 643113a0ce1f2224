"""Count the CPU cores that this process may use."""

from __future__ import annotations


def available_cores() -> int:
    """Number of cores that this process may use: its affinity, and the CPU quota of its container.

    Part of a core counts as a whole one.
    """
    from loky import cpu_count

    count: int = cpu_count()
    return count
