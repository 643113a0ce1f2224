"""The sentences and the Markdown of reports. Images are in `pictures`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from imgassets.markdown import escape_cell, escape_text
from imgassets.reports.day import Day, RetailerDay
from imgassets.wording import counted

MAX_SUMMARY = 1_000
"""Characters of the summary: the UI shows Markdown inline if it is shorter."""
MAX_PROBLEMS = 20
"""Rows of the table of problems, which has a link or two per row."""
MAX_ROWS = 20
"""Rows of the table of retailers."""

_BREAK = "\\\n"  # of a line, in Markdown
_SPACE = "\u00a0"  # at which no line ends

_MAX_NAMES = 10
_MAX_REASON = 120  # characters


@dataclass(frozen=True)
class Links:
    """Addresses of pages of the UI, relative to its server.

    Attributes:
        asset: Path of the key of `processed_images`, joined by `/`.
        path_prefix: `ui_path_prefix` in the settings.
    """

    asset: str
    path_prefix: str

    def run(self, run_id: str) -> str:
        """The page of a run."""
        return f"{self.path_prefix}/runs/{run_id}"

    def partition(self, date: str, retailer: str) -> str:
        """The page of a partition."""
        key = quote(f"{date}|{retailer}")
        return f"{self.path_prefix}/assets/{quote(self.asset)}?view=partitions&partition={key}"


def success_sentence(day: Day) -> str:
    """One sentence: every retailer succeeded, or which did not, and why."""
    found = day.unsuccessful
    if not day.retailers:
        return f"there are no runs or images of {day.date}"
    if not found:
        return f"every retailer with a run or images of {day.date} succeeded"
    reasons = [f"{each.retailer} ({'; '.join(each.problems)})" for each in found]
    total = counted(len(day.retailers), "retailer")
    return f"{len(found)} of {total} did not succeed on {day.date}: {_enumerate(reasons)}"


def missing_sentence(day: Day) -> str:
    """One sentence: no retailer is missing, or which are."""
    total = len(day.with_documents)
    if not total:
        return f"no retailer has documents of {day.date}"
    if not day.missing:
        return (
            f"no processed images are missing on {day.date}: "
            f"{counted(total, 'retailer')} with documents"
        )
    names = [each.retailer for each in day.missing]
    return (
        f"{len(names)} missing of {total}: no processed images of {day.date}, although there are "
        f"documents: {_enumerate(names)}"
    )


def headline(day: Day) -> str:
    """The totals of a day, in parts that are separated by `; `."""
    totals = day.totals
    rate = totals.get("success rate")
    checks, urls, images = (
        counted(int(totals[f"{noun}s"]), noun) for noun in ("failed check", "URL", "image")
    )
    return (
        f"{len(day.missing)} missing of {counted(len(day.with_documents), 'retailer')} with "
        f"documents; {len(day.unsuccessful)} with problems, {checks}; "
        f"{urls}{'' if rate is None else f', {rate:.1%} downloaded'} "
        f"({totals['new']:,} new, {totals['reused']:,} reused); {images}, "
        f"{totals['images with a face']:,} of them with a face"
    )


def summary(day: Day, links: Links) -> str:
    """The summary of a day as Markdown with links, shorter than `MAX_SUMMARY` characters."""
    # In short lines: the UI cuts those that are longer than the page is wide.
    text = f"**{day.date}**: {headline(day).replace('; ', _BREAK)}"
    problems = [
        f"{_link(each.retailer, _page(day, each, links))} {'; '.join(each.problems)}"
        for each in day.unsuccessful
    ]
    missing = [
        _link(each.retailer, links.partition(day.date, each.retailer)) for each in day.missing
    ]
    # Each of the two lists gets half of what is left.
    room = (MAX_SUMMARY - len(text)) // 2
    for title, entries in (("Problems", problems), ("Missing", missing)):
        text += _fill(title, entries, room)
    return text


def problem_table(day: Day, links: Links) -> str:
    """The retailers with problems, failed checks or without images, with links, as Markdown."""
    rows = [
        each for each in day.worst_first if each.problems or each.is_missing or each.failed_checks
    ]
    if not rows:
        return "none"
    lines = ["| partition | what | run |", "|---|---|---|"]
    for each in rows[:MAX_PROBLEMS]:
        partition = _link(each.retailer, links.partition(day.date, each.retailer))
        run = "" if each.run_id is None else _link(each.run_id[:8], links.run(each.run_id))
        lines.append(f"| {partition} | {escape_cell(_what(each), _MAX_REASON)} | {run} |")
    if len(rows) > MAX_PROBLEMS:
        lines.append(
            f"\nand {len(rows) - MAX_PROBLEMS} more: `imgassets report --since {day.date}`"
        )
    return "\n".join(lines)


def retailer_record(each: RetailerDay) -> dict[str, str | int]:
    """The numbers of a retailer, for a table that people read; narrow, to fit on a page."""
    rate = each.success_rate
    return {
        "retailer": each.retailer,
        "state": _state(each),
        "URLs": each.urls,
        "ok": "" if rate is None else f"{rate:.0%}",
        "new": each.new,
        "reused": each.reused,
        "failed": _failed(each),
        "checks": f"{len(each.failed_checks)}{_SPACE}failed" if each.failed_checks else "",
        "images": each.images,
        "faces": each.with_face,
        "MB": f"{each.bytes / 1e6:.1f}",
    }


def days_table(days: Iterable[tuple[str, RetailerDay]], links: Links) -> str:
    """The days of one retailer with links, newest first, as Markdown.

    Args:
        days: Date and numbers of each day.
        links: Addresses of pages.
    """
    lines = [
        "| day | URLs | ok | new | failed | images | what | run |",
        "|---|---:|---:|---:|---:|---:|---|---|",
    ]
    for date, each in sorted(days, reverse=True, key=lambda day: day[0]):
        rate = each.success_rate
        run = "" if each.run_id is None else _link(each.run_id[:8], links.run(each.run_id))
        cells = (
            # With hyphens at which no line ends.
            _link(date.replace("-", "\u2011"), links.partition(date, each.retailer)),
            f"{each.urls:,}",
            "" if rate is None else f"{rate:.0%}",
            f"{each.new:,}",
            f"{each.failed:,}",
            f"{each.images:,}",
            escape_cell(_what(each), _MAX_REASON),
            run,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _failed(each: RetailerDay) -> str:
    """How many URLs failed, and why, with a line end after a reason only."""
    if not each.failures:
        return "0"
    total = f"{each.failed}: " if len(each.failures) > 1 else ""
    return total + each.top_failures.replace(" ", _SPACE).replace(f",{_SPACE}", ", ")


def _state(each: RetailerDay) -> str:
    """The state of a retailer in a word or two."""
    if each.problems:
        return "problem"
    return "missing" if each.is_missing else "ok"


def _what(each: RetailerDay) -> str:
    """What is wrong with a retailer; empty if nothing is."""
    warned = [name for name, severity in sorted(each.failed_checks.items()) if severity != "error"]
    parts = [*each.problems]
    if each.is_missing:
        parts.append(f"missing: {counted(each.documents, 'document')}, no processed images")
    if warned:
        parts.append(f"warned: {', '.join(warned)}")
    if not parts and each.failures:
        parts.append(each.top_failures)
    return "; ".join(parts)


def _page(day: Day, each: RetailerDay, links: Links) -> str:
    if each.run_id is None:
        return links.partition(day.date, each.retailer)
    return links.run(each.run_id)


def _link(text: str, address: str) -> str:
    return f"[{escape_text(text)}]({address})"


def _enumerate(names: Sequence[str]) -> str:
    rest = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _fill(title: str, entries: Sequence[str], room: int) -> str:
    """As many entries of a list as fit into `room` characters; empty if there are none."""
    if not entries:
        return ""

    def build(number: int) -> str:
        rest = [f"and {len(entries) - number} more"] if number < len(entries) else []
        return f"\n\n{title}:{_BREAK}{_BREAK.join([*entries[:number], *rest])}"

    fitting = [number for number in range(len(entries) + 1) if len(build(number)) < room]
    return build(max(fitting)) if fitting else ""
