"""Tests which task the schedule hands out when, on a fake clock that only moves during waits.

The tests at the end, in which threads have to wake each other, use real threads and the real clock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from imgassets.download import schedule as schedule_module
from imgassets.download.schedule import HostFeedback, HostLimits, Schedule, Task
from imgassets.urls import origin
from imgassets_tests.download.conftest import url_row

A, B = "http://a.example", "http://b.example"
TWO_CONCURRENT = HostLimits(
    max_concurrent=2, interval_s=0, max_failures=0, cooldown_s=8, wait_for_robots=False
)
WAIT_FOR_ROBOTS = replace(TWO_CONCURRENT, wait_for_robots=True)
BREAKER = replace(TWO_CONCURRENT, max_concurrent=4, max_failures=3)
OK = HostFeedback()
DOWN = HostFeedback(failure="status 503")
WAKE_TIMEOUT_S = 20
"""Maximum seconds for a thread to wake up."""


class StuckError(Exception):
    """`take` waits without a timeout, so that only another thread could wake it."""


class Clock(threading.Condition):
    """A fake clock, and the condition whose waits move it forward."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is None:
            raise StuckError
        self.waits += 1
        assert self.waits < 1000, "the schedule waits in an endless loop"
        assert timeout >= 0, "the schedule waits for a time in the past"
        self.now += timeout
        return False


class Run:
    """A schedule on the fake clock."""

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

    def take_next(self, count: int) -> list[tuple[float, str]]:
        """Take tasks; return the seconds since the start and the URL of each."""
        taken = []
        for _ in range(count):
            url = self.take().url
            taken.append((self.seconds, url))
        return taken

    def times(self, count: int) -> list[float]:
        """Take tasks; return the seconds since the start of each."""
        return [seconds for seconds, _ in self.take_next(count)]

    @property
    def stuck(self) -> bool:
        """Whether no task can start before one is returned."""
        try:
            self.schedule.take()
        except StuckError:
            return True
        return False

    def finish(self, *tasks: Task, feedback: HostFeedback | None = OK) -> None:
        for task in tasks:
            self.schedule.finish(task, feedback)

    def run_one_by_one(self, feedback: HostFeedback, count: int) -> list[float]:
        """Take and finish tasks one by one; return the seconds since the start of each."""
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


def test_every_task_is_handed_out_once_without_a_wait_and_then_none(start: Start) -> None:
    run = start(TWO_CONCURRENT, *tasks(A, 50))
    found = []
    while (task := run.schedule.take()) is not None:
        found.append(task.url)
        run.finish(task)
    assert found == [f"{A}/{n}" for n in range(50)]
    assert run.seconds == 0
    assert run.schedule.take() is None


def test_a_schedule_without_tasks_hands_out_none(start: Start) -> None:
    assert start(TWO_CONCURRENT).schedule.take() is None


def test_nothing_is_handed_out_after_a_stop(start: Start) -> None:
    run = start(TWO_CONCURRENT, *tasks(A, 5))
    run.take()
    run.schedule.stop()
    assert run.schedule.take() is None


def test_hosts_take_turns(start: Start) -> None:
    run = start(replace(TWO_CONCURRENT, max_concurrent=9), *tasks(A, 4), *tasks(B, 2))
    assert [url for _, url in run.take_next(6)] == [
        f"{A}/0", f"{B}/0", f"{A}/1", f"{B}/1", f"{A}/2", f"{A}/3",
    ]  # fmt: skip


@pytest.mark.parametrize("feedback", [OK, DOWN, None])
def test_a_host_gets_at_most_max_concurrent_requests(
    start: Start, feedback: HostFeedback | None
) -> None:
    run = start(TWO_CONCURRENT, *tasks(A, 5))
    first, second = run.take(), run.take()
    assert run.stuck
    run.finish(first, feedback=feedback)
    run.take()
    assert run.stuck
    run.finish(second, feedback=feedback)
    run.take()
    assert run.stuck


def test_the_limit_of_one_host_does_not_hold_up_another(start: Start) -> None:
    run = start(TWO_CONCURRENT, *tasks(A, 3), *tasks(B, 3))
    assert sorted(url for _, url in run.take_next(4)) == [f"{A}/0", f"{A}/1", f"{B}/0", f"{B}/1"]
    assert run.stuck


def test_a_host_gets_one_request_at_a_time_until_its_robots_txt_is_known(
    start: Start,
) -> None:
    run = start(WAIT_FOR_ROBOTS, *tasks(A, 6))
    for feedback in (
        None,
        HostFeedback(robots_known=False),
        HostFeedback(robots_known=False, failure="status 503"),
    ):
        first = run.take()
        assert run.stuck
        run.finish(first, feedback=feedback)
    run.finish(run.take())
    run.take_next(2)
    assert run.stuck


def test_the_robots_txt_of_one_host_does_not_raise_the_limit_of_another(start: Start) -> None:
    run = start(WAIT_FOR_ROBOTS, *tasks(A, 3), *tasks(B, 3))
    run.finish(run.take())
    assert [url for _, url in run.take_next(3)] == [f"{B}/0", f"{A}/1", f"{A}/2"]
    assert run.stuck


def test_a_known_robots_txt_stays_known(start: Start) -> None:
    run = start(WAIT_FOR_ROBOTS, *tasks(A, 4))
    run.finish(run.take())
    run.finish(run.take(), feedback=HostFeedback(robots_known=False))
    # Both tasks start before either of them is finished.
    assert [url for _, url in run.take_next(2)] == [f"{A}/2", f"{A}/3"]


def test_a_redirect_raises_the_limit_of_the_host_that_sent_it(start: Start) -> None:
    run = start(WAIT_FOR_ROBOTS, *tasks(A, 3))
    run.schedule.reschedule(run.take(), B, f"{B}/0", 0, OK)
    assert [url for _, url in run.take_next(3)] == [f"{A}/1", f"{B}/0", f"{A}/2"]


def test_the_target_host_of_a_redirect_gets_one_request_at_a_time_too(start: Start) -> None:
    run = start(WAIT_FOR_ROBOTS, *tasks(A, 2))
    for n in range(2):
        run.schedule.reschedule(run.take(), B, f"{B}/{n}", 0, OK)
    first = run.take()
    assert (first.host, first.url) == (B, f"{B}/0")
    assert run.stuck
    run.finish(first)
    assert [url for _, url in run.take_next(1)] == [f"{B}/1"]


def test_without_wait_for_robots_a_host_gets_max_concurrent_requests_from_the_start(
    start: Start,
) -> None:
    run = start(replace(TWO_CONCURRENT, max_concurrent=7), *tasks(A, 8))
    assert run.times(7) == [0] * 7
    assert run.stuck


def test_a_redirect_moves_its_request_from_one_host_to_the_other(start: Start) -> None:
    run = start(replace(TWO_CONCURRENT, max_concurrent=1), *tasks(A, 2), *tasks(B, 2))
    first = run.take()
    run.take()
    run.schedule.reschedule(first, B, f"{B}/new", 0, OK)
    assert first.first_url == f"{A}/0"
    assert run.take().url == f"{A}/1"
    assert run.stuck


def test_other_tasks_run_while_a_retry_waits(start: Start) -> None:
    run = start(TWO_CONCURRENT, *tasks(A, 3))
    run.schedule.reschedule(run.take(), A, f"{A}/again", 4, OK)
    second = run.take()
    assert run.seconds == 0
    run.sleep(1)
    run.finish(second, run.take())
    assert run.take_next(1) == [(4, f"{A}/again")]


def test_retries_start_in_the_order_of_their_times(start: Start) -> None:
    run = start(replace(TWO_CONCURRENT, max_concurrent=4), *tasks(A, 4))
    for wait in (3, 1, 2, 1):
        task = run.take()
        run.schedule.reschedule(task, A, task.url, wait, OK)
    assert run.take_next(4) == [(1, f"{A}/1"), (1, f"{A}/3"), (2, f"{A}/2"), (3, f"{A}/0")]


def test_a_retry_that_is_due_at_a_busy_host_does_not_hold_up_a_retry_at_another_host(
    start: Start,
) -> None:
    run = start(replace(TWO_CONCURRENT, max_concurrent=1), *tasks(A, 2), *tasks(B, 1))
    for wait in (1, 2):
        task = run.take()
        run.schedule.reschedule(task, task.host, f"{task.host}/again", wait, OK)
    assert run.take().url == f"{A}/1"
    run.sleep(5)
    assert run.take_next(1) == [(5, f"{B}/again")]


def test_a_retry_that_is_due_goes_to_the_end_of_the_queue(start: Start) -> None:
    run = start(replace(TWO_CONCURRENT, max_concurrent=1), *tasks(A, 2))
    run.schedule.reschedule(run.take(), A, f"{A}/again", 0, OK)
    first = run.take()
    assert first.url == f"{A}/1"
    run.finish(first)
    assert run.take_next(1) == [(0, f"{A}/again")]


def test_the_schedule_ends_only_after_the_last_retry(start: Start) -> None:
    run = start(TWO_CONCURRENT, task(f"{A}/0"))
    for _ in range(3):
        run.schedule.reschedule(run.take(), A, f"{A}/0", 1, OK)
    run.finish(run.take())
    assert run.seconds == 3
    assert run.schedule.take() is None


def test_requests_to_a_host_keep_the_interval(start: Start) -> None:
    run = start(
        replace(TWO_CONCURRENT, interval_s=0.5, max_concurrent=9), *tasks(A, 4), *tasks(B, 2)
    )
    assert run.take_next(6) == [
        (0, f"{A}/0"), (0, f"{B}/0"), (0.5, f"{A}/1"), (0.5, f"{B}/1"), (1, f"{A}/2"),
        (1.5, f"{A}/3"),
    ]  # fmt: skip


def test_no_burst_of_requests_follows_idle_time(start: Start) -> None:
    run = start(replace(TWO_CONCURRENT, interval_s=0.5, max_concurrent=9), *tasks(A, 3))
    run.take_next(1)
    run.sleep(10)
    assert run.times(2) == [10, 10.5]


def test_retries_keep_the_interval_too(start: Start) -> None:
    run = start(replace(TWO_CONCURRENT, interval_s=2), *tasks(A, 2))
    run.schedule.reschedule(run.take(), A, f"{A}/again", 1, OK)
    assert run.take_next(2) == [(2, f"{A}/1"), (4, f"{A}/again")]


def test_a_crawl_delay_applies_to_later_requests_of_its_host_only(start: Start) -> None:
    run = start(replace(WAIT_FOR_ROBOTS, max_concurrent=9), *tasks(A, 4), *tasks(B, 3))
    slow, quick = run.take(), run.take()
    run.finish(slow, feedback=HostFeedback(interval_s=3))
    run.finish(quick)
    assert run.take_next(5) == [
        (0, f"{B}/1"), (0, f"{B}/2"), (3, f"{A}/1"), (6, f"{A}/2"), (9, f"{A}/3"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("configured", "crawl_delay", "expected"), [(2, 1, 2), (1, 2, 2), (1, 0, 1)]
)
def test_the_longer_of_crawl_delay_and_configured_interval_applies(
    start: Start, configured: float, crawl_delay: float, expected: float
) -> None:
    run = start(replace(TWO_CONCURRENT, interval_s=configured, max_concurrent=9), *tasks(A, 4))
    run.finish(run.take(), feedback=HostFeedback(interval_s=crawl_delay))
    run.finish(run.take(), feedback=OK)  # an answer without a delay does not reset it
    _, third, fourth = [0.0, *run.times(2)]
    assert fourth - third == expected


def test_a_crawl_delay_is_ignored_while_the_robots_txt_is_unknown(start: Start) -> None:
    run = start(TWO_CONCURRENT, *tasks(A, 4))
    run.finish(run.take(), feedback=HostFeedback(robots_known=False, interval_s=5))
    assert run.times(2) == [0, 0]


def test_a_host_that_asks_for_a_cooldown_gets_one_and_other_hosts_do_not(start: Start) -> None:
    run = start(TWO_CONCURRENT, *tasks(A, 3), *tasks(B, 2))
    run.finish(run.take(), feedback=HostFeedback(cooldown_s=7))
    assert run.take_next(4) == [(0, f"{B}/0"), (0, f"{B}/1"), (7, f"{A}/1"), (7, f"{A}/2")]


@pytest.mark.parametrize("failure", [None, "status 503"])
@pytest.mark.parametrize("cooldowns", [(7, 2), (2, 7)])
def test_a_later_and_shorter_cooldown_does_not_shorten_the_one_that_is_running(
    start: Start, cooldowns: tuple[float, float], failure: str | None
) -> None:
    run = start(TWO_CONCURRENT, *tasks(A, 3))
    first, second = run.take(), run.take()
    run.finish(first, feedback=HostFeedback(cooldown_s=cooldowns[0], failure=failure))
    run.sleep(1)
    run.finish(second, feedback=HostFeedback(cooldown_s=cooldowns[1], failure=failure))
    assert run.times(1) == [max(cooldowns[0], 1 + cooldowns[1])]


@pytest.mark.parametrize("cooldowns", [(7, 2), (2, 7)])
def test_the_longest_cooldown_applies_to_tasks_that_are_rescheduled_later(
    start: Start, cooldowns: tuple[float, float]
) -> None:
    run = start(TWO_CONCURRENT, *tasks(A, 2))
    first, second = run.take(), run.take()
    run.finish(first, feedback=HostFeedback(cooldown_s=cooldowns[0]))
    run.schedule.reschedule(second, A, f"{A}/again", 0, HostFeedback(cooldown_s=cooldowns[1]))
    assert run.take_next(1) == [(7, f"{A}/again")]


def test_a_cooldown_may_be_extended_while_the_host_waits(start: Start) -> None:
    run = start(TWO_CONCURRENT, *tasks(A, 4), *tasks(B, 1))
    first, second = run.take(), run.take()
    assert {first.host, second.host} == {A, B}
    third = run.take()
    run.finish(first, feedback=HostFeedback(cooldown_s=2))
    run.sleep(1)
    run.finish(third, feedback=HostFeedback(cooldown_s=5))
    assert run.take_next(2) == [(6, f"{A}/2"), (6, f"{A}/3")]


def test_a_cooldown_may_start_while_the_host_is_in_the_ready_queue(start: Start) -> None:
    run = start(TWO_CONCURRENT, *tasks(A, 4), *tasks(B, 1))
    first, other = run.take(), run.take()
    second = run.take()
    run.finish(first)  # the host is in the ready queue
    run.finish(second, feedback=HostFeedback(cooldown_s=3))
    run.finish(other)
    assert run.take_next(2) == [(3, f"{A}/2"), (3, f"{A}/3")]


# Circuit breaker: after `max_failures` consecutive failures a host gets a cooldown of 8 s.


def answer_once(run: Run) -> None:
    """Finish the first task with an answer, so that the full `max_failures` applies."""
    run.finish(run.take())


def test_max_failures_in_a_row_start_a_cooldown(start: Start) -> None:
    run = start(BREAKER, *tasks(A, 9))
    answer_once(run)
    assert run.run_one_by_one(DOWN, 3) == [0, 0, 0]
    assert run.times(1) == [8]


def test_the_cooldown_of_one_host_does_not_hold_up_another(start: Start) -> None:
    run = start(replace(BREAKER, max_failures=1), *tasks(A, 2), *tasks(B, 2))
    run.finish(run.take(), feedback=DOWN)
    assert run.take_next(3) == [(0, f"{B}/0"), (0, f"{B}/1"), (8, f"{A}/1")]


def test_a_failure_that_asks_for_a_pause_counts_too(start: Start) -> None:
    run = start(BREAKER, *tasks(A, 9))
    answer_once(run)
    assert run.run_one_by_one(HostFeedback(failure="status 500", cooldown_s=1), 4) == [0, 1, 2, 10]


REFUSED = HostFeedback(refusal="status 403", interval_s=2)


def test_a_host_that_refuses_max_refusals_requests_is_down(start: Start) -> None:
    limits = replace(TWO_CONCURRENT, interval_s=1, max_refusals=3)
    run = start(limits, *tasks(A, 20), *tasks(B, 2))
    for feedback in (REFUSED, REFUSED, HostFeedback(succeeded=True), REFUSED, OK, REFUSED):
        task = run.take()
        while task.host == B:
            run.finish(task, feedback=HostFeedback(succeeded=True))
            task = run.take()
        run.finish(task, feedback=feedback)
    assert run.schedule.down_hosts() == []
    run.finish(run.take(), feedback=REFUSED)
    (reason,) = run.schedule.down_hosts()
    assert reason.startswith(f"{A} refused 3 requests")
    # The others end at once, and a late success changes nothing.
    down_at = run.seconds
    for _ in range(13):
        task = run.take()
        assert task.host_down == reason
        run.finish(task, feedback=HostFeedback(succeeded=True))
    assert run.seconds == down_at
    assert run.schedule.take() is None


def test_a_host_that_is_down_is_not_paused(start: Start) -> None:
    run = start(replace(BREAKER, max_failures=1), *tasks(A, 9))
    run.run_one_by_one(HostFeedback(failure="status 500", cooldown_s=9), 4)
    down_at = run.seconds
    assert run.take().host_down is not None
    assert run.seconds == down_at


def test_fewer_failures_in_a_row_start_no_cooldown(start: Start) -> None:
    run = start(BREAKER, *tasks(A, 20))
    for _ in range(4):
        run.run_one_by_one(DOWN, 2)
        run.run_one_by_one(OK, 1)
    assert run.seconds == 0
    run.run_one_by_one(DOWN, 3)
    assert run.times(1) == [8]


def test_an_answer_of_another_host_does_not_reset_the_failures(start: Start) -> None:
    run = start(BREAKER, *tasks(A, 6), *tasks(B, 6))
    for _ in range(3):
        run.finish(run.take(), feedback=DOWN)
        run.finish(run.take(), feedback=OK)
    assert [url for _, url in run.take_next(3)] == [f"{B}/3", f"{B}/4", f"{B}/5"]
    assert run.times(1) == [8]


def test_a_task_returned_without_feedback_changes_nothing(start: Start) -> None:
    run = start(BREAKER, *tasks(A, 9))
    answer_once(run)
    run.run_one_by_one(DOWN, 2)
    run.finish(run.take(), feedback=None)
    run.run_one_by_one(DOWN, 1)
    assert run.times(1) == [8]


@pytest.mark.parametrize(("allowed", "failures"), [(30, 5), (6, 5), (5, 5), (2, 2)])
def test_a_host_that_never_answered_gets_a_cooldown_after_five_failures(
    start: Start, allowed: int, failures: int
) -> None:
    run = start(replace(BREAKER, max_failures=allowed), *tasks(A, 40))
    assert run.run_one_by_one(DOWN, failures) == [0] * failures
    assert run.times(1) == [8]


@pytest.mark.parametrize("answer", [OK, HostFeedback(robots_known=False)])
def test_a_host_that_answered_once_may_fail_max_failures_times(
    start: Start, answer: HostFeedback
) -> None:
    run = start(replace(BREAKER, max_failures=30), *tasks(A, 40))
    run.finish(run.take(), feedback=answer)
    run.run_one_by_one(DOWN, 30)
    assert run.seconds == 0
    assert run.times(1) == [8]


def test_with_max_failures_0_no_number_of_failures_starts_a_cooldown(start: Start) -> None:
    run = start(replace(BREAKER, max_failures=0), *tasks(A, 300))
    run.run_one_by_one(DOWN, 299)
    assert run.seconds == 0
    assert run.take().host_down is None


def test_failed_attempts_that_are_retried_count_as_failures(start: Start) -> None:
    run = start(BREAKER, *tasks(A, 2))
    answer_once(run)
    for _ in range(3):
        run.schedule.reschedule(run.take(), A, f"{A}/1", 0, DOWN)
    assert run.times(1) == [8]


@pytest.mark.parametrize("answer", [OK, HostFeedback(robots_known=False)])
def test_after_a_cooldown_one_request_probes_the_host(start: Start, answer: HostFeedback) -> None:
    run = start(BREAKER, *tasks(A, 20))
    run.finish(run.take(), feedback=answer)
    run.run_one_by_one(DOWN, 3)
    probe = run.take()
    assert run.seconds == 8
    assert run.stuck
    run.finish(probe, feedback=answer)
    assert run.times(4) == [8] * 4
    assert run.stuck


def test_after_a_cooldown_no_request_starts_while_an_older_one_is_in_flight(start: Start) -> None:
    run = start(replace(BREAKER, max_concurrent=2, max_failures=1), *tasks(A, 20))
    answer_once(run)
    first, second = run.take(), run.take()
    run.finish(first, feedback=DOWN)
    run.sleep(8)
    assert run.stuck
    run.finish(second, feedback=None)
    assert run.times(1) == [8]
    assert run.stuck


def test_a_lowered_limit_applies_to_a_host_in_the_ready_queue(start: Start) -> None:
    run = start(replace(BREAKER, max_concurrent=3, max_failures=1), *tasks(A, 20))
    answer_once(run)
    first, second, third = run.take(), run.take(), run.take()
    run.finish(first)  # the host is in the ready queue
    run.finish(second, feedback=DOWN)
    run.sleep(8)
    assert run.stuck
    run.finish(third, feedback=None)
    run.take()
    assert run.stuck


def test_a_failed_probe_starts_the_next_cooldown_at_once(start: Start) -> None:
    run = start(BREAKER, *tasks(A, 20))
    answer_once(run)
    run.run_one_by_one(DOWN, 3)
    assert run.run_one_by_one(DOWN, 2) == [8, 16]
    assert run.times(1) == [24]


def test_a_successful_probe_resets_failures_and_cooldowns(start: Start) -> None:
    run = start(BREAKER, *tasks(A, 40))
    answer_once(run)
    run.run_one_by_one(DOWN, 3)
    for cooldown in range(1, 6):
        assert run.run_one_by_one(OK, 1) == [8 * cooldown]
        # It takes three failures again, and earlier cooldowns do not count.
        assert run.run_one_by_one(DOWN, 3) == [8 * cooldown] * 3
    assert run.take().host_down is None


def test_a_host_that_fails_after_three_cooldowns_is_down(start: Start) -> None:
    limits = replace(BREAKER, interval_s=0.25)
    run = start(limits, *tasks(A, 9), *tasks(B, 1))
    run.run_one_by_one(OK, 2)
    assert run.run_one_by_one(DOWN, 3) == [0.25, 0.5, 0.75]
    assert run.run_one_by_one(DOWN, 2) == [8.75, 16.75]
    run.finish(run.take(), feedback=HostFeedback(failure="status 502"))
    last = [run.take(), run.take()]
    reason = f"{A} still failed after 3 cooldowns; last failure: status 502; "
    reason += "materialize the partition again when the host works, or lower download.per_host"
    assert [task.host_down for task in last] == [reason, reason]
    # Its tasks end without a cooldown, an interval or the limit of one at a time.
    assert run.seconds == 24.75
    assert run.stuck


def test_a_host_that_is_down_does_not_affect_another(start: Start) -> None:
    run = start(replace(BREAKER, max_failures=1), *tasks(A, 5), *tasks(B, 1))
    first, other = run.take(), run.take()
    run.finish(first, feedback=DOWN)
    run.run_one_by_one(DOWN, 3)
    assert str(run.take().host_down).startswith(f"{A} still failed")
    run.schedule.reschedule(other, B, f"{B}/again", 0, OK)
    assert run.take().host_down is None


def test_nothing_delays_the_tasks_of_a_host_that_is_down(start: Start) -> None:
    run = start(replace(BREAKER, max_failures=1), *tasks(A, 9))
    run.run_one_by_one(DOWN, 4)
    assert run.seconds == 24
    run.finish(run.take(), feedback=HostFeedback(cooldown_s=100))
    run.finish(run.take(), feedback=HostFeedback(interval_s=100))
    assert [run.take().host_down is None for _ in range(3)] == [False] * 3
    assert run.seconds == 24


def test_a_redirect_to_a_host_that_is_down_gets_the_reason(start: Start) -> None:
    run = start(replace(BREAKER, max_failures=1), *tasks(A, 5), *tasks(B, 1))
    first, other = run.take(), run.take()
    run.finish(first, feedback=DOWN)
    run.run_one_by_one(DOWN, 3)
    run.schedule.reschedule(other, A, f"{A}/b", 0, OK)
    found = {task.url: task.host_down for task in (run.take(), run.take())}
    assert str(found[f"{A}/b"]).startswith(f"{A} still failed after 3 cooldowns")


def test_tasks_that_wait_for_a_retry_end_as_soon_as_their_host_is_given_up(start: Start) -> None:
    limits = replace(TWO_CONCURRENT, max_concurrent=3, max_refusals=3)
    run = start(limits, *tasks(A, 3), *tasks(B, 1))
    taken = [run.take() for _ in range(4)]
    busy = HostFeedback(refusal="status 429", cooldown_s=100)
    for waiting in taken:
        feedback, wait_s = (busy, 100) if waiting.host == A else (OK, 50)
        run.schedule.reschedule(waiting, waiting.host, waiting.url, wait_s, feedback)
    ended = [run.take() for _ in range(3)]
    assert run.seconds == 0
    assert {(task.host, task.host_down is None) for task in ended} == {(A, False)}
    run.finish(*ended)
    # The others still wait.
    assert run.take_next(1) == [(50, f"{B}/0")]


def test_failures_of_requests_in_flight_when_a_cooldown_starts_do_not_count(start: Start) -> None:
    run = start(replace(BREAKER, max_concurrent=9), *tasks(A, 20))
    answer_once(run)
    in_flight = [run.take() for _ in range(9)]
    run.finish(*in_flight, feedback=DOWN)
    # One cooldown, not three and then down.
    probe = run.take()
    assert (run.seconds, probe.host_down) == (8, None)
    run.finish(probe)
    run.run_one_by_one(DOWN, 2)
    assert run.seconds == 8


@pytest.mark.parametrize("after_s", [3.75, 4.25, 8, 8.25])
def test_a_failure_of_a_request_sent_before_a_cooldown_never_counts(
    start: Start, after_s: float
) -> None:
    run = start(replace(BREAKER, max_failures=1), *tasks(A, 20))
    answer_once(run)
    first, second = run.take(), run.take()
    run.finish(first, feedback=DOWN)
    run.sleep(after_s)
    run.finish(second, feedback=DOWN)
    assert run.times(1) == [max(8, after_s)]


def test_the_circuit_breaker_works_for_a_host_with_a_long_interval(start: Start) -> None:
    # The next request is due 5 s after the last one, more than half of a cooldown.
    run = start(replace(BREAKER, interval_s=5), *tasks(A, 9))
    answer_once(run)
    run.run_one_by_one(DOWN, 3)
    start_of_cooldown = run.seconds
    assert run.times(1) == [start_of_cooldown + 8]


def test_a_successful_probe_ends_the_cooldowns_of_a_host_with_an_interval(start: Start) -> None:
    run = start(replace(BREAKER, interval_s=1), *tasks(A, 40))
    answer_once(run)
    for _ in range(5):
        run.run_one_by_one(DOWN, 3)
        run.run_one_by_one(OK, 1)
    assert run.take().host_down is None


def test_failures_during_a_long_cooldown_that_the_host_asked_for_do_not_count(start: Start) -> None:
    run = start(BREAKER, *tasks(A, 9))
    answer_once(run)
    in_flight = [run.take() for _ in range(4)]
    run.finish(in_flight[0], feedback=HostFeedback(cooldown_s=5))
    run.finish(*in_flight[1:], feedback=DOWN)
    assert run.times(1) == [5]


def test_an_answer_that_was_in_flight_does_not_end_a_cooldown(start: Start) -> None:
    run = start(replace(BREAKER, max_failures=1), *tasks(A, 20))
    answer_once(run)
    first, second = run.take(), run.take()
    run.finish(first, feedback=DOWN)
    run.finish(second, feedback=OK)
    # One request probes the host, and its failure starts the next cooldown.
    probe = run.take()
    assert run.seconds == 8
    assert run.stuck
    run.finish(probe, feedback=DOWN)
    assert run.times(1) == [16]


def test_an_answer_to_a_request_sent_before_a_cooldown_does_not_end_it(start: Start) -> None:
    run = start(replace(BREAKER, max_failures=1), *tasks(A, 20))
    answer_once(run)
    first, second = run.take(), run.take()
    run.finish(first, feedback=DOWN)
    run.sleep(8)
    run.finish(second, feedback=OK)
    run.take()
    assert run.stuck


def test_an_answer_in_a_cooldown_does_not_raise_the_limit_while_robots_txt_is_unknown(
    start: Start,
) -> None:
    run = start(replace(BREAKER, max_failures=1, wait_for_robots=True), *tasks(A, 20))
    run.run_one_by_one(DOWN, 1)
    run.finish(run.take(), feedback=HostFeedback(robots_known=False))
    run.take()
    assert run.stuck


# Threads: a waiting thread wakes up when a task may start or the schedule ends.


class Watched(threading.Condition):
    """Signals when a thread waits.

    The signal is sent with the lock held, so that no thread changes the schedule before the wait.
    """

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
    """Threads that each take one task."""

    def __init__(self, schedule: Schedule, condition: Watched, count: int) -> None:
        self._schedule = schedule
        self.urls: list[str | None] = []
        self._threads = [threading.Thread(target=self._take, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()
        for _ in range(count):
            assert condition.waiting.acquire(timeout=WAKE_TIMEOUT_S)

    def _take(self) -> None:
        task = self._schedule.take()
        self.urls.append(task.url if task else None)

    def results(self) -> list[str | None]:
        for thread in self._threads:
            thread.join(WAKE_TIMEOUT_S)
        return sorted(self.urls, key=str)


def start_real(limits: HostLimits, *tasks: Task) -> tuple[Schedule, Task]:
    """Return a schedule on the real clock, and its first task, taken already."""
    schedule = Schedule(tasks, limits)
    first = schedule.take()
    assert first is not None
    return schedule, first


def test_a_finished_task_wakes_a_thread(condition: Watched) -> None:
    schedule, first = start_real(replace(TWO_CONCURRENT, max_concurrent=1), *tasks(A, 3))
    takers = Takers(schedule, condition, 1)
    schedule.finish(first, OK)
    assert takers.results() == [f"{A}/1"]


def test_a_raised_limit_wakes_all_threads(condition: Watched) -> None:
    schedule, first = start_real(replace(WAIT_FOR_ROBOTS, max_concurrent=4), *tasks(A, 5))
    takers = Takers(schedule, condition, 4)
    schedule.finish(first, OK)
    assert takers.results() == [f"{A}/{n}" for n in range(1, 5)]


def test_a_redirect_wakes_a_thread(condition: Watched) -> None:
    schedule, first = start_real(TWO_CONCURRENT, *tasks(A, 1))
    takers = Takers(schedule, condition, 1)
    schedule.reschedule(first, B, f"{B}/0", 0, OK)
    assert takers.results() == [f"{B}/0"]


def test_a_retry_wakes_a_thread_when_it_is_due(condition: Watched) -> None:
    schedule, first = start_real(TWO_CONCURRENT, *tasks(A, 1))
    takers = Takers(schedule, condition, 1)
    schedule.reschedule(first, A, f"{A}/again", 0.01, OK)
    assert takers.results() == [f"{A}/again"]


@pytest.mark.parametrize("seconds", [1e12, float("inf")])
def test_a_thread_can_wait_for_centuries(condition: Watched, seconds: float) -> None:
    schedule, _ = start_real(replace(TWO_CONCURRENT, interval_s=seconds), *tasks(A, 2))
    takers = Takers(schedule, condition, 1)
    schedule.stop()
    assert takers.results() == [None]


def test_the_last_finished_task_ends_all_threads(condition: Watched) -> None:
    schedule, first = start_real(TWO_CONCURRENT, *tasks(A, 1))
    takers = Takers(schedule, condition, 3)
    schedule.finish(first, OK)
    assert takers.results() == [None] * 3


def test_a_stop_ends_all_threads(condition: Watched) -> None:
    schedule, _ = start_real(replace(TWO_CONCURRENT, max_concurrent=1), *tasks(A, 5))
    takers = Takers(schedule, condition, 3)
    schedule.stop()
    assert takers.results() == [None] * 3
