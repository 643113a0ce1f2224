"""Which task is handed out when, on a clock that only waiting moves.

Where threads have to wake each other, they are real and wait on the real clock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from imgassets.download import schedule as schedule_module
from imgassets.download.schedule import HostFeedback, HostLimits, Schedule, Task
from imgassets.download.urls import origin
from imgassets_tests.download.conftest import url_row

A, B = "http://a.example", "http://b.example"
TWO_AT_ONCE = HostLimits(
    max_concurrent=2, interval_s=0, max_failures=0, cooldown_s=8, wait_for_robots=False
)
GATED = replace(TWO_AT_ONCE, wait_for_robots=True)
BREAKER = replace(TWO_AT_ONCE, max_concurrent=4, max_failures=3)
OK = HostFeedback()
DOWN = HostFeedback(failure="status 503")
PATIENCE_S = 20
"""Seconds that a thread gets which should wake up at once."""


class StuckError(Exception):
    """`take` waits for what only another thread can do."""


class Clock(threading.Condition):
    """A clock, and the condition whose waits move it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is None:
            raise StuckError
        self.waits += 1
        assert self.waits < 1000, "it waits again and again"
        assert timeout >= 0, "it waits until a time that is over"
        self.now += timeout
        return False


class Run:
    """A schedule on that clock."""

    def __init__(self, clock: Clock, limits: HostLimits, *tasks: Task) -> None:
        self._clock = clock
        self._start = clock.now
        self.schedule = Schedule(tasks, limits)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock.now - self._start

    def sleep(self, seconds: float) -> None:
        self._clock.now += seconds

    def take(self) -> Task:
        task = self.schedule.take()
        assert task is not None
        return task

    def taken(self, count: int) -> list[tuple[float, str]]:
        """The next tasks: seconds since the start, and URL of each."""
        found = []
        for _ in range(count):
            url = self.take().url
            found.append((self.seconds, url))
        return found

    def times(self, count: int) -> list[float]:
        """When the next tasks may start, in seconds since the start."""
        return [seconds for seconds, _ in self.taken(count)]

    @property
    def stuck(self) -> bool:
        """Whether there is no next task before one is given back."""
        try:
            self.schedule.take()
        except StuckError:
            return True
        return False

    def finish(self, *tasks: Task, feedback: HostFeedback | None = OK) -> None:
        for task in tasks:
            self.schedule.finish(task, feedback)

    def one_by_one(self, feedback: HostFeedback, count: int) -> list[float]:
        """Take and finish tasks; the seconds since the start at which each was taken."""
        times = []
        for _ in range(count):
            task = self.take()
            times.append(self.seconds)
            self.finish(task, feedback=feedback)
        return times


Start = Callable[..., Run]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    clock = Clock()
    monkeypatch.setattr(schedule_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(schedule_module, "threading", SimpleNamespace(Condition=lambda: clock))
    return lambda limits, *tasks: Run(clock, limits, *tasks)


def task(url: str) -> Task:
    return Task((url_row(url, url),), url, origin(url), first_url=url, first_host=origin(url))


def tasks(host: str, count: int) -> list[Task]:
    return [task(f"{host}/{n}") for n in range(count)]


def test_all_tasks_are_handed_out_once_and_without_a_wait_then_none(start: Start) -> None:
    run = start(TWO_AT_ONCE, *tasks(A, 50))
    found = []
    while (task := run.schedule.take()) is not None:
        found.append(task.url)
        run.finish(task)
    assert found == [f"{A}/{n}" for n in range(50)]
    assert run.seconds == 0
    assert run.schedule.take() is None


def test_a_schedule_without_tasks_hands_out_none(start: Start) -> None:
    assert start(TWO_AT_ONCE).schedule.take() is None


def test_nothing_is_handed_out_after_a_stop(start: Start) -> None:
    run = start(TWO_AT_ONCE, *tasks(A, 5))
    run.take()
    run.schedule.stop()
    assert run.schedule.take() is None


def test_hosts_take_turns(start: Start) -> None:
    run = start(replace(TWO_AT_ONCE, max_concurrent=9), *tasks(A, 4), *tasks(B, 2))
    assert [url for _, url in run.taken(6)] == [
        f"{A}/0", f"{B}/0", f"{A}/1", f"{B}/1", f"{A}/2", f"{A}/3",
    ]  # fmt: skip


@pytest.mark.parametrize("feedback", [OK, DOWN, None])
def test_a_host_has_no_more_requests_at_once_than_allowed(
    start: Start, feedback: HostFeedback | None
) -> None:
    run = start(TWO_AT_ONCE, *tasks(A, 5))
    first, second = run.take(), run.take()
    assert run.stuck
    run.finish(first, feedback=feedback)
    run.take()
    assert run.stuck
    run.finish(second, feedback=feedback)
    run.take()
    assert run.stuck


def test_the_limit_of_one_host_does_not_hold_up_another(start: Start) -> None:
    run = start(TWO_AT_ONCE, *tasks(A, 3), *tasks(B, 3))
    assert sorted(url for _, url in run.taken(4)) == [f"{A}/0", f"{A}/1", f"{B}/0", f"{B}/1"]
    assert run.stuck


def test_an_unknown_host_is_asked_one_url_at_a_time_until_its_robots_txt_is_known(
    start: Start,
) -> None:
    run = start(GATED, *tasks(A, 6))
    for feedback in (
        None,
        HostFeedback(robots_known=False),
        HostFeedback(robots_known=False, failure="status 503"),
    ):
        first = run.take()
        assert run.stuck
        run.finish(first, feedback=feedback)
    run.finish(run.take())
    run.taken(2)
    assert run.stuck


def test_a_known_host_does_not_open_another(start: Start) -> None:
    run = start(GATED, *tasks(A, 3), *tasks(B, 3))
    run.finish(run.take())
    assert [url for _, url in run.taken(3)] == [f"{B}/0", f"{A}/1", f"{A}/2"]
    assert run.stuck


def test_a_host_that_is_known_stays_known(start: Start) -> None:
    run = start(GATED, *tasks(A, 4))
    run.finish(run.take())
    run.finish(run.take(), feedback=HostFeedback(robots_known=False))
    # Both at once, without one of them being finished first.
    assert [url for _, url in run.taken(2)] == [f"{A}/2", f"{A}/3"]


def test_a_redirect_opens_the_host_that_sent_it(start: Start) -> None:
    run = start(GATED, *tasks(A, 3))
    run.schedule.reschedule(run.take(), B, f"{B}/0", 0, OK)
    assert [url for _, url in run.taken(3)] == [f"{A}/1", f"{B}/0", f"{A}/2"]


def test_the_host_of_a_redirect_is_asked_one_url_at_a_time_too(start: Start) -> None:
    run = start(GATED, *tasks(A, 2))
    for n in range(2):
        run.schedule.reschedule(run.take(), B, f"{B}/{n}", 0, OK)
    first = run.take()
    assert (first.host, first.url) == (B, f"{B}/0")
    assert run.stuck
    run.finish(first)
    assert [url for _, url in run.taken(1)] == [f"{B}/1"]


def test_a_host_without_a_gate_is_asked_at_once_from_the_start(start: Start) -> None:
    run = start(replace(TWO_AT_ONCE, max_concurrent=7), *tasks(A, 8))
    assert run.times(7) == [0] * 7
    assert run.stuck


def test_a_redirect_frees_the_place_at_its_host_and_takes_one_at_the_next(start: Start) -> None:
    run = start(replace(TWO_AT_ONCE, max_concurrent=1), *tasks(A, 2), *tasks(B, 2))
    first = run.take()
    run.take()
    run.schedule.reschedule(first, B, f"{B}/new", 0, OK)
    assert first.first_url == f"{A}/0"
    assert run.take().url == f"{A}/1"
    assert run.stuck


def test_another_attempt_waits_while_other_tasks_go_on(start: Start) -> None:
    run = start(TWO_AT_ONCE, *tasks(A, 3))
    run.schedule.reschedule(run.take(), A, f"{A}/again", 4, OK)
    second = run.take()
    assert run.seconds == 0
    run.sleep(1)
    run.finish(second, run.take())
    assert run.taken(1) == [(4, f"{A}/again")]


def test_attempts_come_in_the_order_of_their_times(start: Start) -> None:
    run = start(replace(TWO_AT_ONCE, max_concurrent=4), *tasks(A, 4))
    for wait in (3, 1, 2, 1):
        task = run.take()
        run.schedule.reschedule(task, A, task.url, wait, OK)
    assert run.taken(4) == [(1, f"{A}/1"), (1, f"{A}/3"), (2, f"{A}/2"), (3, f"{A}/0")]


def test_an_attempt_that_is_due_at_a_busy_host_does_not_hold_up_one_at_another(
    start: Start,
) -> None:
    run = start(replace(TWO_AT_ONCE, max_concurrent=1), *tasks(A, 2), *tasks(B, 1))
    for wait in (1, 2):
        task = run.take()
        run.schedule.reschedule(task, task.host, f"{task.host}/again", wait, OK)
    assert run.take().url == f"{A}/1"
    run.sleep(5)
    assert run.taken(1) == [(5, f"{B}/again")]


def test_an_attempt_that_is_due_comes_after_tasks_that_wait_in_the_queue(start: Start) -> None:
    run = start(replace(TWO_AT_ONCE, max_concurrent=1), *tasks(A, 2))
    run.schedule.reschedule(run.take(), A, f"{A}/again", 0, OK)
    first = run.take()
    assert first.url == f"{A}/1"
    run.finish(first)
    assert run.taken(1) == [(0, f"{A}/again")]


def test_the_end_comes_only_after_the_last_attempt(start: Start) -> None:
    run = start(TWO_AT_ONCE, task(f"{A}/0"))
    for _ in range(3):
        run.schedule.reschedule(run.take(), A, f"{A}/0", 1, OK)
    run.finish(run.take())
    assert run.seconds == 3
    assert run.schedule.take() is None


def test_requests_to_a_host_keep_their_distance(start: Start) -> None:
    run = start(replace(TWO_AT_ONCE, interval_s=0.5, max_concurrent=9), *tasks(A, 4), *tasks(B, 2))
    assert run.taken(6) == [
        (0, f"{A}/0"), (0, f"{B}/0"), (0.5, f"{A}/1"), (0.5, f"{B}/1"), (1, f"{A}/2"),
        (1.5, f"{A}/3"),
    ]  # fmt: skip


def test_idle_time_is_not_made_up_for_by_a_burst(start: Start) -> None:
    run = start(replace(TWO_AT_ONCE, interval_s=0.5, max_concurrent=9), *tasks(A, 3))
    run.taken(1)
    run.sleep(10)
    assert run.times(2) == [10, 10.5]


def test_attempts_keep_the_distance_too(start: Start) -> None:
    run = start(replace(TWO_AT_ONCE, interval_s=2), *tasks(A, 2))
    run.schedule.reschedule(run.take(), A, f"{A}/again", 1, OK)
    assert run.taken(2) == [(2, f"{A}/1"), (4, f"{A}/again")]


def test_a_crawl_delay_is_kept_from_then_on_by_its_host_alone(start: Start) -> None:
    run = start(replace(GATED, max_concurrent=9), *tasks(A, 4), *tasks(B, 3))
    slow, quick = run.take(), run.take()
    run.finish(slow, feedback=HostFeedback(interval_s=3))
    run.finish(quick)
    assert run.taken(5) == [
        (0, f"{A}/1"), (0, f"{B}/1"), (0, f"{B}/2"), (3, f"{A}/2"), (6, f"{A}/3"),
    ]  # fmt: skip


@pytest.mark.parametrize(("configured", "asked", "kept"), [(2, 1, 2), (1, 2, 2), (1, 0, 1)])
def test_the_longer_of_crawl_delay_and_the_settings_interval_is_kept(
    start: Start, configured: float, asked: float, kept: float
) -> None:
    run = start(replace(TWO_AT_ONCE, interval_s=configured, max_concurrent=9), *tasks(A, 4))
    run.finish(run.take(), feedback=HostFeedback(interval_s=asked))
    run.finish(run.take(), feedback=OK)  # an answer without a delay does not end it
    _, third, fourth = [0.0, *run.times(2)]
    assert fourth - third == kept


def test_a_delay_counts_only_where_the_robots_txt_is_known(start: Start) -> None:
    run = start(TWO_AT_ONCE, *tasks(A, 4))
    run.finish(run.take(), feedback=HostFeedback(robots_known=False, interval_s=5))
    assert run.times(2) == [0, 0]


def test_a_host_that_asks_for_a_rest_is_left_alone_and_no_other(start: Start) -> None:
    run = start(TWO_AT_ONCE, *tasks(A, 3), *tasks(B, 2))
    run.finish(run.take(), feedback=HostFeedback(cooldown_s=7))
    assert run.taken(4) == [(0, f"{B}/0"), (0, f"{B}/1"), (7, f"{A}/1"), (7, f"{A}/2")]


@pytest.mark.parametrize("failure", [None, "status 503"])
@pytest.mark.parametrize("rests", [(7, 2), (2, 7)])
def test_the_longest_rest_counts_and_the_last_does_not_shorten_it(
    start: Start, rests: tuple[float, float], failure: str | None
) -> None:
    run = start(TWO_AT_ONCE, *tasks(A, 3))
    first, second = run.take(), run.take()
    run.finish(first, feedback=HostFeedback(cooldown_s=rests[0], failure=failure))
    run.sleep(1)
    run.finish(second, feedback=HostFeedback(cooldown_s=rests[1], failure=failure))
    assert run.times(1) == [max(rests[0], 1 + rests[1])]


@pytest.mark.parametrize("rests", [(7, 2), (2, 7)])
def test_the_longest_rest_counts_for_tasks_that_come_later(
    start: Start, rests: tuple[float, float]
) -> None:
    run = start(TWO_AT_ONCE, *tasks(A, 2))
    first, second = run.take(), run.take()
    run.finish(first, feedback=HostFeedback(cooldown_s=rests[0]))
    run.schedule.reschedule(second, A, f"{A}/again", 0, HostFeedback(cooldown_s=rests[1]))
    assert run.taken(1) == [(7, f"{A}/again")]


def test_a_rest_that_grows_while_a_host_waits_is_kept_whole(start: Start) -> None:
    run = start(TWO_AT_ONCE, *tasks(A, 4), *tasks(B, 1))
    first, second = run.take(), run.take()
    assert {first.host, second.host} == {A, B}
    third = run.take()
    run.finish(first, feedback=HostFeedback(cooldown_s=2))
    run.sleep(1)
    run.finish(third, feedback=HostFeedback(cooldown_s=5))
    assert run.taken(2) == [(6, f"{A}/2"), (6, f"{A}/3")]


def test_a_host_may_come_to_rest_while_it_stands_in_the_line(start: Start) -> None:
    run = start(TWO_AT_ONCE, *tasks(A, 4), *tasks(B, 1))
    first, other = run.take(), run.take()
    second = run.take()
    run.finish(first)  # the host is in the line
    run.finish(second, feedback=HostFeedback(cooldown_s=3))
    run.finish(other)
    assert run.taken(2) == [(3, f"{A}/2"), (3, f"{A}/3")]


# Breaker: a host that fails so often in a row rests 8 s.


def known(run: Run) -> None:
    """A first answer of the host: it is no stranger any more."""
    run.finish(run.take())


def test_a_host_that_fails_so_often_in_a_row_rests(start: Start) -> None:
    run = start(BREAKER, *tasks(A, 9))
    known(run)
    assert run.one_by_one(DOWN, 3) == [0, 0, 0]
    assert run.times(1) == [8]


def test_a_host_that_rests_for_its_failures_does_not_hold_up_another(start: Start) -> None:
    run = start(replace(BREAKER, max_failures=1), *tasks(A, 2), *tasks(B, 2))
    run.finish(run.take(), feedback=DOWN)
    assert run.taken(3) == [(0, f"{B}/0"), (0, f"{B}/1"), (8, f"{A}/1")]


def test_fewer_failures_in_a_row_give_no_rest(start: Start) -> None:
    run = start(BREAKER, *tasks(A, 20))
    for _ in range(4):
        run.one_by_one(DOWN, 2)
        run.one_by_one(OK, 1)
    assert run.seconds == 0
    run.one_by_one(DOWN, 3)
    assert run.times(1) == [8]


def test_an_answer_of_another_host_ends_no_row_of_failures(start: Start) -> None:
    run = start(BREAKER, *tasks(A, 6), *tasks(B, 6))
    for _ in range(3):
        run.finish(run.take(), feedback=DOWN)
        run.finish(run.take(), feedback=OK)
    assert [url for _, url in run.taken(3)] == [f"{B}/3", f"{B}/4", f"{B}/5"]
    assert run.times(1) == [8]


def test_a_task_given_back_without_signs_counts_for_nothing(start: Start) -> None:
    run = start(BREAKER, *tasks(A, 9))
    known(run)
    run.one_by_one(DOWN, 2)
    run.finish(run.take(), feedback=None)
    run.one_by_one(DOWN, 1)
    assert run.times(1) == [8]


@pytest.mark.parametrize(("allowed", "failures"), [(30, 5), (6, 5), (5, 5), (2, 2)])
def test_a_host_that_never_answered_rests_after_five_failures(
    start: Start, allowed: int, failures: int
) -> None:
    run = start(replace(BREAKER, max_failures=allowed), *tasks(A, 40))
    assert run.one_by_one(DOWN, failures) == [0] * failures
    assert run.times(1) == [8]


@pytest.mark.parametrize("answer", [OK, HostFeedback(robots_known=False)])
def test_a_host_that_answered_once_is_given_more_time(start: Start, answer: HostFeedback) -> None:
    run = start(replace(BREAKER, max_failures=30), *tasks(A, 40))
    run.finish(run.take(), feedback=answer)
    run.one_by_one(DOWN, 30)
    assert run.seconds == 0
    assert run.times(1) == [8]


def test_no_number_of_failures_gives_a_rest_where_that_is_switched_off(start: Start) -> None:
    run = start(replace(BREAKER, max_failures=0), *tasks(A, 300))
    run.one_by_one(DOWN, 299)
    assert run.seconds == 0
    assert run.take().host_down is None


def test_attempts_that_fail_count_as_well(start: Start) -> None:
    run = start(BREAKER, *tasks(A, 2))
    known(run)
    for _ in range(3):
        run.schedule.reschedule(run.take(), A, f"{A}/1", 0, DOWN)
    assert run.times(1) == [8]


@pytest.mark.parametrize("answer", [OK, HostFeedback(robots_known=False)])
def test_after_a_rest_one_request_tries_the_host(start: Start, answer: HostFeedback) -> None:
    run = start(BREAKER, *tasks(A, 20))
    run.finish(run.take(), feedback=answer)
    run.one_by_one(DOWN, 3)
    probe = run.take()
    assert run.seconds == 8
    assert run.stuck
    run.finish(probe, feedback=answer)
    assert run.times(4) == [8] * 4
    assert run.stuck


def test_after_a_rest_no_request_goes_while_an_older_one_is_under_way(start: Start) -> None:
    run = start(replace(BREAKER, max_concurrent=2, max_failures=1), *tasks(A, 20))
    known(run)
    first, second = run.take(), run.take()
    run.finish(first, feedback=DOWN)
    run.sleep(8)
    assert run.stuck
    run.finish(second, feedback=None)
    assert run.times(1) == [8]
    assert run.stuck


def test_a_host_in_the_line_keeps_to_a_limit_that_was_lowered_since(start: Start) -> None:
    run = start(replace(BREAKER, max_concurrent=3, max_failures=1), *tasks(A, 20))
    known(run)
    first, second, third = run.take(), run.take(), run.take()
    run.finish(first)  # the host is in the line
    run.finish(second, feedback=DOWN)
    run.sleep(8)
    assert run.stuck
    run.finish(third, feedback=None)
    run.take()
    assert run.stuck


def test_a_probe_that_fails_gives_the_next_rest_at_once(start: Start) -> None:
    run = start(BREAKER, *tasks(A, 20))
    known(run)
    run.one_by_one(DOWN, 3)
    assert run.one_by_one(DOWN, 2) == [8, 16]
    assert run.times(1) == [24]


def test_a_probe_that_succeeds_ends_the_trouble(start: Start) -> None:
    run = start(BREAKER, *tasks(A, 40))
    known(run)
    run.one_by_one(DOWN, 3)
    for rest in range(1, 6):
        assert run.one_by_one(OK, 1) == [8 * rest]
        # Again it takes three failures, and no number of rests adds up.
        assert run.one_by_one(DOWN, 3) == [8 * rest] * 3
    assert run.take().host_down is None


def test_a_host_that_fails_after_three_rests_is_given_up(start: Start) -> None:
    limits = replace(BREAKER, interval_s=0.25)
    run = start(limits, *tasks(A, 9), *tasks(B, 1))
    run.one_by_one(OK, 2)
    assert run.one_by_one(DOWN, 3) == [0.25, 0.5, 0.75]
    assert run.one_by_one(DOWN, 2) == [8.75, 16.75]
    run.finish(run.take(), feedback=HostFeedback(failure="status 502"))
    last = [run.take(), run.take()]
    reason = f"{A} still failed after 3 cooldowns; last failure: status 502"
    assert [task.host_down for task in last] == [reason, reason]
    # Its tasks are ended without a wait, a distance or the limit of one at a time.
    assert run.seconds == 24.75
    assert run.stuck


def test_a_host_given_up_takes_no_other_with_it(start: Start) -> None:
    run = start(replace(BREAKER, max_failures=1), *tasks(A, 5), *tasks(B, 1))
    first, other = run.take(), run.take()
    run.finish(first, feedback=DOWN)
    run.one_by_one(DOWN, 3)
    assert str(run.take().host_down).startswith(f"{A} still failed")
    run.schedule.reschedule(other, B, f"{B}/again", 0, OK)
    assert run.take().host_down is None


def test_nothing_delays_the_tasks_of_a_host_that_was_given_up(start: Start) -> None:
    run = start(replace(BREAKER, max_failures=1), *tasks(A, 9))
    run.one_by_one(DOWN, 4)
    assert run.seconds == 24
    run.finish(run.take(), feedback=HostFeedback(cooldown_s=100))
    run.finish(run.take(), feedback=HostFeedback(interval_s=100))
    assert [run.take().host_down is None for _ in range(3)] == [False] * 3
    assert run.seconds == 24


def test_a_redirect_to_a_host_given_up_learns_why(start: Start) -> None:
    run = start(replace(BREAKER, max_failures=1), *tasks(A, 5), *tasks(B, 1))
    first, other = run.take(), run.take()
    run.finish(first, feedback=DOWN)
    run.one_by_one(DOWN, 3)
    run.schedule.reschedule(other, A, f"{A}/b", 0, OK)
    found = {task.url: task.host_down for task in (run.take(), run.take())}
    assert str(found[f"{A}/b"]).startswith(f"{A} still failed after 3 cooldowns")


def test_failures_that_were_under_way_when_a_rest_began_do_not_count(start: Start) -> None:
    run = start(replace(BREAKER, max_concurrent=9), *tasks(A, 20))
    known(run)
    under_way = [run.take() for _ in range(9)]
    run.finish(*under_way, feedback=DOWN)
    # One rest, not three and the end.
    probe = run.take()
    assert (run.seconds, probe.host_down) == (8, None)
    run.finish(probe)
    run.one_by_one(DOWN, 2)
    assert run.seconds == 8


@pytest.mark.parametrize(("after_s", "counts"), [(3.75, False), (4, True), (4.25, True)])
def test_a_failure_counts_from_the_middle_of_a_rest_on(
    start: Start, after_s: float, counts: bool
) -> None:
    run = start(replace(BREAKER, max_failures=1), *tasks(A, 20))
    known(run)
    first, second = run.take(), run.take()
    run.finish(first, feedback=DOWN)
    run.sleep(after_s)
    run.finish(second, feedback=DOWN)
    assert run.times(1) == [8 + (after_s if counts else 0)]


def test_failures_while_the_host_has_asked_for_a_long_rest_do_not_count(start: Start) -> None:
    run = start(BREAKER, *tasks(A, 9))
    known(run)
    under_way = [run.take() for _ in range(4)]
    run.finish(under_way[0], feedback=HostFeedback(cooldown_s=5))
    run.finish(*under_way[1:], feedback=DOWN)
    assert run.times(1) == [5]


def test_an_answer_that_was_under_way_does_not_end_a_rest(start: Start) -> None:
    run = start(replace(BREAKER, max_failures=1), *tasks(A, 20))
    known(run)
    first, second = run.take(), run.take()
    run.finish(first, feedback=DOWN)
    run.finish(second, feedback=OK)
    # One request tries the host, and its failure gives the next rest.
    probe = run.take()
    assert run.seconds == 8
    assert run.stuck
    run.finish(probe, feedback=DOWN)
    assert run.times(1) == [16]


def test_an_answer_at_the_end_of_the_rest_ends_the_trouble(start: Start) -> None:
    run = start(replace(BREAKER, max_failures=1), *tasks(A, 20))
    known(run)
    first, second = run.take(), run.take()
    run.finish(first, feedback=DOWN)
    run.sleep(8)
    run.finish(second, feedback=OK)
    assert run.times(4) == [8] * 4


def test_a_stranger_that_answers_in_a_rest_stays_behind_its_gate(start: Start) -> None:
    run = start(replace(BREAKER, max_failures=1, wait_for_robots=True), *tasks(A, 20))
    run.one_by_one(DOWN, 1)
    run.finish(run.take(), feedback=HostFeedback(robots_known=False))
    run.take()
    assert run.stuck


# Threads: a thread that waits is woken when there is something for it.


class Watched(threading.Condition):
    """Says when threads wait: none can change the schedule between this and their sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        self.waiting.release()
        return super().wait(timeout)


@pytest.fixture
def condition(monkeypatch: pytest.MonkeyPatch) -> Watched:
    condition = Watched()
    monkeypatch.setattr(schedule_module, "threading", SimpleNamespace(Condition=lambda: condition))
    return condition


class Takers:
    """Threads that each wait for one task."""

    def __init__(self, schedule: Schedule, condition: Watched, count: int) -> None:
        self._schedule = schedule
        self.found: list[str | None] = []
        self._threads = [threading.Thread(target=self._take, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()
        for _ in range(count):
            assert condition.waiting.acquire(timeout=PATIENCE_S)

    def _take(self) -> None:
        task = self._schedule.take()
        self.found.append(task.url if task else None)

    def results(self) -> list[str | None]:
        for thread in self._threads:
            thread.join(PATIENCE_S)
        return sorted(self.found, key=str)


def real(limits: HostLimits, *tasks: Task) -> tuple[Schedule, Task]:
    """A schedule on the real clock, and the first task of it."""
    schedule = Schedule(tasks, limits)
    first = schedule.take()
    assert first is not None
    return schedule, first


def test_a_thread_is_woken_by_a_place_that_is_free(condition: Watched) -> None:
    schedule, first = real(replace(TWO_AT_ONCE, max_concurrent=1), *tasks(A, 3))
    takers = Takers(schedule, condition, 1)
    schedule.finish(first, OK)
    assert takers.results() == [f"{A}/1"]


def test_all_threads_are_woken_when_a_host_opens(condition: Watched) -> None:
    schedule, first = real(replace(GATED, max_concurrent=4), *tasks(A, 5))
    takers = Takers(schedule, condition, 4)
    schedule.finish(first, OK)
    assert takers.results() == [f"{A}/{n}" for n in range(1, 5)]


def test_a_thread_is_woken_by_a_redirect(condition: Watched) -> None:
    schedule, first = real(TWO_AT_ONCE, *tasks(A, 1))
    takers = Takers(schedule, condition, 1)
    schedule.reschedule(first, B, f"{B}/0", 0, OK)
    assert takers.results() == [f"{B}/0"]


def test_a_thread_is_woken_for_an_attempt_that_comes_later(condition: Watched) -> None:
    schedule, first = real(TWO_AT_ONCE, *tasks(A, 1))
    takers = Takers(schedule, condition, 1)
    schedule.reschedule(first, A, f"{A}/again", 0.01, OK)
    assert takers.results() == [f"{A}/again"]


def test_the_last_task_ends_all_threads(condition: Watched) -> None:
    schedule, first = real(TWO_AT_ONCE, *tasks(A, 1))
    takers = Takers(schedule, condition, 3)
    schedule.finish(first, OK)
    assert takers.results() == [None] * 3


def test_a_stop_ends_all_threads(condition: Watched) -> None:
    schedule, _ = real(replace(TWO_AT_ONCE, max_concurrent=1), *tasks(A, 5))
    takers = Takers(schedule, condition, 3)
    schedule.stop()
    assert takers.results() == [None] * 3
