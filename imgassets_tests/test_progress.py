"""Tests the counts and the lines of `Progress`, on a fake clock."""

import datetime as dt

import pytest

from imgassets.manifests import Outcome, RawRow
from imgassets.progress import Progress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _rows(*outcomes: Outcome) -> list[RawRow]:
    return [
        RawRow(
            key=f"p-{n}",
            url=f"http://shop/{n}.jpg",
            retailer="zara",
            date=dt.date(2026, 1, 2).isoformat(),
            product_id="1",
            position=n,
            document_id="1",
            outcome=outcome,
        )
        for n, outcome in enumerate(outcomes)
    ]


def test_a_line_has_rows_done_and_failed_speed_and_time_left(clock: Clock) -> None:
    lines: list[str] = []
    progress = Progress("shard_0000", 1000, lines.append, already_done=100, clock=clock)
    progress.add(_rows(*[Outcome.OK] * 38, Outcome.TIMEOUT, Outcome.HTTP_ERROR), 30_000_000)
    clock.now += 4
    progress.log()
    assert lines == [
        "shard_0000: 140 of 1000 done, 2 failed; 10 images/s, 7.5 MB/s, 1 min 26 s left"
    ]


def test_a_line_ends_with_the_note_of_the_moment(clock: Clock) -> None:
    lines: list[str] = []
    notes = iter(["", "slow: shop"])
    progress = Progress(
        "shard", 1, lines.append, already_done=0, note=lambda: next(notes), clock=clock
    )
    progress.log()
    progress.log()
    assert lines[1] == f"{lines[0]}; slow: shop"


@pytest.mark.parametrize(
    ("total", "left"), [(31, "3 s"), (641, "1 min 4 s"), (40_000, "1 h 6 min"), (1, "0 s")]
)
def test_the_time_left_is_in_hours_minutes_and_seconds(clock: Clock, total: int, left: str) -> None:
    lines: list[str] = []
    progress = Progress("shard_0000", total, lines.append, already_done=0, clock=clock)
    progress.add(_rows(Outcome.OK), 0)
    clock.now += 0.1
    progress.log()
    assert lines[0].endswith(f", {left} left")


def test_before_the_first_row_the_time_left_is_unknown(clock: Clock) -> None:
    lines: list[str] = []
    Progress("shard_0000", 3, lines.append, already_done=2, clock=clock).log()
    assert lines == ["shard_0000: 2 of 3 done, 0 failed; 0 images/s, 0.0 MB/s, unknown time left"]


def test_a_line_is_logged_at_most_every_five_seconds(clock: Clock) -> None:
    lines: list[str] = []
    progress = Progress("shard_0000", 9, lines.append, already_done=0, clock=clock)
    logged = []
    for seconds in (4.5, 0.5, 4.5, 0.5):
        clock.now += seconds
        progress.log_if_due()
        logged.append(len(lines))
    assert logged == [0, 1, 1, 2]


def test_a_long_run_logs_less_often(clock: Clock) -> None:
    times: list[float] = []
    start = clock.now
    log = lambda _: times.append(clock.now - start)  # noqa: E731
    progress = Progress("shard_0000", 9, log, already_done=0, clock=clock)
    for _ in range(7200):
        clock.now += 1
        progress.log_if_due()
    assert times[:12] == [5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 61]
    assert sum(time <= 3600 for time in times) <= 55
    assert [later - time for time, later in zip(times[-6:], times[-5:], strict=False)] == [300] * 5
