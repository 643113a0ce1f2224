"""Prints the table "The plan" of docs/scaling.md: arithmetic from the figures below.

    python -m benchmarks.scaling

Change a figure here and in the document's tables when it was measured again, and paste the output.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

# Measured, or derived from measurements: docs/scaling.md says how.
CPU_MS = 20  # per image, all assets, with the client of the object store
RUN_CPU_S = 4.0  # per run, whatever its size, with daemon and code server
RUN_MB = 250  # memory of a run
RUN_EVENTS = 71  # rows of Dagster's event log per run
RUN_KB = 151  # on the disk of Postgres, with indexes
RUN_CONNECTIONS = 2
PUTS, GETS = 2, 1  # requests to the object store per image
RAW_KB, PROCESSED_KB = 200, 50

# Assumed.
DAYS = 30.4  # of a month
WINDOW_H = 6  # hours of the day in which all retailers are downloaded
USE = 0.6  # of the cores, within these hours
RATE = 2.0  # images per second from one retailer (download.rate_per_host)
IMAGES_PER_DOCUMENT = 5
CORES, MEMORY_GB = 8, 32  # of a machine, of which 24 GB are for runs
PUT_USD, GET_USD = 5.0, 0.4  # per million
GB_USD = 0.023  # per month
ADVISED_PARTITIONS = 100_000


@dataclass(frozen=True)
class Plan:
    """A size of operation.

    Attributes:
        images: New images per month.
        retailers: Number of retailers, each with one run per day.
    """

    images: float
    retailers: int

    @property
    def runs(self) -> float:
        """Runs per month."""
        return self.retailers * DAYS

    @property
    def rate(self) -> float:
        """Images per second within the window."""
        return self.images / (DAYS * WINDOW_H * 3600)

    @property
    def cpu_h(self) -> float:
        """CPU hours per month."""
        return (self.images * CPU_MS / 1000 + self.runs * RUN_CPU_S) / 3600

    @property
    def cores(self) -> float:
        """Cores that are needed within the window."""
        return self.cpu_h / (DAYS * WINDOW_H) / USE

    @property
    def runs_at_once(self) -> int:
        """Runs in progress within the window, which wait for their retailers most of the time."""
        return math.ceil(self.rate / RATE)

    @property
    def memory_gb(self) -> float:
        """Memory of the runs in progress."""
        return self.runs_at_once * RUN_MB / 1000

    @property
    def machines(self) -> int:
        """Machines for the runs."""
        return math.ceil(max(self.cores / CORES, self.memory_gb / (MEMORY_GB * 0.75)))

    @property
    def tb(self) -> float:
        """Terabytes of new images per month, as served and processed."""
        return self.images * (RAW_KB + PROCESSED_KB) / 1e9

    def partitions(self, days: float) -> str:
        """Return the number of partitions per year and how long the advised number lasts."""
        number = self.retailers * 365 / days
        return f"{number:,.0f}; {_duration(ADVISED_PARTITIONS / number)}"


PLANS = (Plan(1e6, 100), Plan(1e8, 1000), Plan(1e9, 3000))
ROWS: dict[str, Callable[[Plan], str]] = {
    "retailers, one run a day each": lambda plan: f"{plan.retailers:,}",
    "images of a run": lambda plan: f"{plan.images / plan.runs:,.0f}",
    "images per second, in 6 hours of each day": lambda plan: _figures(plan.rate),
    "download of a retailer, at 2 images per second": lambda plan: (
        f"{plan.images / plan.runs / RATE / 60:.0f} min"
    ),
    "runs at once, in these 6 hours": lambda plan: f"{plan.runs_at_once:,}",
    "their memory": lambda plan: f"{_figures(plan.memory_gb)} GB",
    "network, in": lambda plan: f"{_figures(plan.rate * RAW_KB * 8 / 1000)} Mbit/s",
    "CPU hours per month": lambda plan: f"{_figures(plan.cpu_h)}",
    "cores, in these 6 hours": lambda plan: _figures(plan.cores),
    "machines of 8 cores and 32 GB for runs": lambda plan: f"{plan.machines}",
    "runs per month": lambda plan: f"{_figures(plan.runs)}",
    "runs to launch per minute": lambda plan: _figures(plan.runs / DAYS / WINDOW_H / 60),
    "event log, rows per month": lambda plan: f"{plan.runs * RUN_EVENTS / 1e6:.1f} million",
    "event log, per month": lambda plan: f"{_figures(plan.runs * RUN_KB / 1e6)} GB",
    "connections to Postgres of runs": lambda plan: f"{plan.runs_at_once * RUN_CONNECTIONS:,}",
    "partitions per year, until 100,000: days": lambda plan: plan.partitions(1),
    "weeks": lambda plan: plan.partitions(7),
    "months": lambda plan: plan.partitions(365 / 12),
    "documents of MongoDB read per second": lambda plan: _figures(
        2 * plan.rate / IMAGES_PER_DOCUMENT
    ),
    "requests to the object store per second": lambda plan: _figures((PUTS + GETS) * plan.rate),
    "requests, per month": lambda plan: _usd(plan.images / 1e6 * (PUTS * PUT_USD + GETS * GET_USD)),
    "new images per month": lambda plan: f"{_figures(plan.tb)} TB",
    "storing a month's images, per month": lambda plan: _usd(plan.tb * 1000 * GB_USD),
    "the same with `keep_raw: false`": lambda plan: _usd(plan.images * PROCESSED_KB / 1e6 * GB_USD),
}


def table() -> str:
    """Return the table as Markdown."""
    header = " | ".join(f"10^{math.log10(plan.images):.0f}" for plan in PLANS)
    lines = [f"| images a month | {header} |", "|" + "---|" * (len(PLANS) + 1)]
    for name, value in ROWS.items():
        lines.append(f"| {name} | {' | '.join(value(plan) for plan in PLANS)} |")
    return "\n".join(lines)


def _figures(number: float) -> str:
    """Return a number with two significant figures, or whole from 10 on."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _usd(number: float) -> str:
    return f"{_figures(number)} USD"


def _duration(years: float) -> str:
    return f"{years * 365:.0f} days" if years < 1 else f"{years:.1f} years"


if __name__ == "__main__":
    print(table())
