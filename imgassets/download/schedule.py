"""Decide which URL is requested next, with one queue per host and limits per host.

Request order, rate limits, cooldowns, retry delays and the decision that a host is down belong
here: a thread never sleeps for one URL while another URL could be fetched. What a request does is
in `exchange`; the threads are in `pool`.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from imgassets.manifests import RawRow, UrlRow

if TYPE_CHECKING:
    from imgassets.download.shared_limits import SharedLimits

_MAX_FAILURES_UNKNOWN_HOST = 5
"""Consecutive failures that start a cooldown of a host that has never answered: fewer than for
other hosts, because it gets one request at a time."""
_MAX_COOLDOWNS = 3
"""A host that fails again after this many cooldowns is down for the rest of the run."""

_MAX_SLEEP_S = 86_400
"""Maximum seconds of one sleep: Python refuses those of more than `threading.TIMEOUT_MAX`."""


@dataclass(slots=True, eq=False)
class Task:
    """One URL to download, for all rows that list it.

    Attributes:
        rows: The rows of the URL.
        url: Normalised URL of the next request, after the redirects so far.
        host: Origin of `url`.
        first_url: Normalised URL of the catalogue, where every attempt starts.
        first_host: Origin of `first_url`.
        previous_rows: The rows of the last download, one per row, if a refresh only asks whether
            the image has changed; otherwise empty.
        attempts: Number of attempts so far.
        redirects: Number of redirects in the current attempt.
        may_be_cut: Whether an attempt ended with a damaged image of which the length is unknown.
        started: `time.monotonic()` at the first request; None before it.
        taken_at: `time.monotonic()` at which a thread last took the task, to send a request.
        last_failure: The rows of the last failed attempt, used if there is no further attempt.
        host_down: Why the host must not be requested any more; None if it may be requested.
    """

    rows: tuple[UrlRow, ...]
    url: str
    host: str
    first_url: str
    first_host: str
    previous_rows: tuple[RawRow, ...] = ()
    attempts: int = 0
    redirects: int = 0
    may_be_cut: bool = False
    started: float | None = None
    taken_at: float = 0
    last_failure: list[RawRow] | None = None
    host_down: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFeedback:
    """What a request revealed about its host.

    Attributes:
        failure: Error that suggests that the host is down or overloaded; None if it responded.
        cooldown_s: Seconds that the host asked to wait (Retry-After).
        refusal: Error that says that the host refuses us (401, 403, 429, 430); None if it does not.
        succeeded: Whether an image was delivered, or has not changed.
        robots_known: Whether the robots.txt and the tdmrep.json of the host have been read.
        interval_s: Minimum seconds between two requests, from robots.txt.
    """

    failure: str | None = None
    cooldown_s: float = 0
    refusal: str | None = None
    succeeded: bool = False
    robots_known: bool = True
    interval_s: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLimits:
    """Limits for every host; see `settings.DownloadSettings`.

    Attributes:
        max_concurrent: Maximum number of concurrent requests.
        interval_s: Minimum seconds between two requests.
        max_failures: Consecutive failures after which the host gets a cooldown; 0 for never.
        cooldown_s: Seconds without requests in a cooldown.
        wait_for_robots: Whether a host gets one request at a time until its robots.txt and its
            tdmrep.json are known.
        max_refusals: Refused requests without a success after which a host is down; 0 for never.
    """

    max_concurrent: int
    interval_s: float
    max_failures: int
    cooldown_s: float
    wait_for_robots: bool
    max_refusals: int = 0


@dataclass(slots=True, eq=False)
class _Host:
    """The queue and the state of one host.

    Attributes:
        name: Origin of the host.
        limit: Maximum number of concurrent requests at present.
        interval_s: Minimum seconds between two requests.
        queue: Tasks that may start as soon as the limits allow.
        active: Number of tasks that threads are working on.
        ready: Whether the host is in the schedule's ready queue.
        not_before: `time.monotonic()` before which no request may start.
        timer_set: Whether a timer for `not_before` is set.
        answered: Whether the host has ever answered.
        robots_known: Whether its robots.txt and its tdmrep.json have been read.
        failures: Number of consecutive failures.
        refusals: Number of refused requests since the last success.
        cooldowns: Number of cooldowns since the host last recovered.
        cooldown_end: `time.monotonic()` at the end of the last cooldown or Retry-After wait.
        down: Why the host is down for the rest of the run; None if it is not.
    """

    name: str
    limit: int
    interval_s: float
    queue: deque[Task] = field(default_factory=deque)
    active: int = 0
    ready: bool = False
    not_before: float = 0
    timer_set: bool = False
    answered: bool = False
    robots_known: bool = False
    failures: int = 0
    refusals: int = 0
    cooldowns: int = 0
    cooldown_end: float = 0
    down: str | None = None


class Schedule:
    """Hands tasks to threads; each task taken is returned with `finish` or `reschedule`."""

    def __init__(
        self, tasks: Iterable[Task], limits: HostLimits, shared: SharedLimits | None = None
    ) -> None:
        """Create a schedule.

        Args:
            tasks: The tasks, in the order in which they are handed out.
            limits: Limits of this schedule for every host.
            shared: Limits over all processes; None for none.
        """
        self._changed = threading.Condition()
        self._limits = limits
        self._shared = shared
        self._hosts: dict[str, _Host] = {}
        self._ready: deque[_Host] = deque()
        self._timers: list[tuple[float, int, Task | _Host]] = []
        self._tie_breaker = count()
        self._unfinished = 0
        self._stopped = False
        for task in tasks:
            self._unfinished += 1
            self._enqueue(task)

    def take(self) -> Task | None:
        """Wait for the next task that may start now.

        Returns:
            The task; None when all tasks are finished, or after `stop`. The host of a task with
            `host_down` must not be requested.

        Raises:
            SharedLimitsError: See `SharedLimits.acquire`.
        """
        while (task := self._take_local()) is not None:
            if self._shared is None or task.host_down is not None:
                break
            # Without the lock, because it is a request over the network.
            wait_s = self._shared.acquire(task.host, self._hosts[task.host].interval_s)
            if not wait_s:
                break
            self._put_back(task, wait_s)
        return task

    def _take_local(self) -> Task | None:
        """Wait for the next task that may start by the limits of this schedule."""
        with self._changed:
            while True:
                if self._stopped or not self._unfinished:
                    return None
                self._run_due_timers()
                if (task := self._next_task()) is not None:
                    return task
                wait_s = None
                if self._timers:
                    wait_s = min(self._timers[0][0] - time.monotonic(), _MAX_SLEEP_S)
                self._changed.wait(wait_s)

    def finish(self, task: Task, feedback: HostFeedback | None = None) -> None:
        """Return a task that is done."""
        self._release_shared(task)
        with self._changed:
            self._release(task, feedback)
            self._unfinished -= 1
            if self._unfinished:
                self._changed.notify()
            else:
                self._changed.notify_all()

    def reschedule(
        self, task: Task, host: str, url: str, wait_s: float, feedback: HostFeedback
    ) -> None:
        """Return a task that needs another request.

        Args:
            task: The task.
            host: Origin of the next request.
            url: Normalised URL of the next request.
            wait_s: Minimum seconds before the next request.
            feedback: What the last request revealed about its host.
        """
        self._release_shared(task)
        with self._changed:
            self._release(task, feedback)
            task.host, task.url = host, url
            target = self._hosts.get(host)
            if wait_s and (target is None or target.down is None):
                self._set_timer(time.monotonic() + wait_s, task)
            else:
                self._enqueue(task)
            self._changed.notify()

    def down_hosts(self) -> list[str]:
        """Return for each host that is down a sentence that says why."""
        with self._changed:
            return [host.down for host in self._hosts.values() if host.down is not None]

    def stop(self) -> None:
        """Hand out no more tasks."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _next_task(self) -> Task | None:
        while self._ready:
            host = self._ready.popleft()
            host.ready = False
            # A cooldown or a lower limit may have started while the host was in the ready queue.
            if host.active < host.limit and host.not_before <= time.monotonic():
                return self._start_task(host)
            self._update_ready(host)
        return None

    def _start_task(self, host: _Host) -> Task:
        task = host.queue.popleft()
        task.host_down = host.down
        task.taken_at = time.monotonic()
        host.active += 1
        if host.interval_s:
            host.not_before = max(host.not_before, task.taken_at) + host.interval_s
        self._update_ready(host)
        if self._ready:
            self._changed.notify()
        return task

    def _put_back(self, task: Task, wait_s: float) -> None:
        """Return a task that may not start yet by the limits over all processes."""
        with self._changed:
            host = self._hosts[task.host]
            host.active -= 1
            host.queue.appendleft(task)
            if host.down is None:
                # Not the interval since this start, which did not take place.
                host.not_before = max(host.cooldown_end, time.monotonic() + wait_s)
            self._update_ready(host)
            self._changed.notify()

    def _release_shared(self, task: Task) -> None:
        if self._shared is not None and task.host_down is None:
            self._shared.release(task.host)

    def _enqueue(self, task: Task) -> None:
        host = self._hosts.get(task.host)
        if host is None:
            limit = 1 if self._limits.wait_for_robots else self._limits.max_concurrent
            host = self._hosts[task.host] = _Host(task.host, limit, self._limits.interval_s)
        host.queue.append(task)
        self._update_ready(host)

    def _release(self, task: Task, feedback: HostFeedback | None) -> None:
        host = self._hosts[task.host]
        host.active -= 1
        if feedback is not None and host.down is None:
            self._apply_feedback(host, feedback, task.taken_at)
        self._update_ready(host)

    def _apply_feedback(self, host: _Host, feedback: HostFeedback, sent_at: float) -> None:
        now = time.monotonic()
        self._count_refusal(host, feedback)
        if host.down is not None:
            return
        # No request is sent during a cooldown, so this one was sent before it began or after it.
        if feedback.failure is not None and sent_at >= host.cooldown_end:
            self._count_failure(host, feedback.failure, now)
        if feedback.cooldown_s and host.down is None:
            self._pause(host, now + feedback.cooldown_s)
        if feedback.failure is not None:
            return
        sent_after_cooldown = sent_at >= host.cooldown_end
        host.answered = True
        host.failures = 0
        # Only a request sent after the cooldown ends it, not one that was in flight when it began.
        if sent_after_cooldown:
            host.cooldowns = 0
        if feedback.robots_known:
            host.robots_known = True
            if feedback.interval_s > host.interval_s:
                host.interval_s = feedback.interval_s
                host.not_before = max(host.not_before, sent_at + host.interval_s)
        if (host.robots_known or not self._limits.wait_for_robots) and not host.cooldowns:
            host.limit = self._limits.max_concurrent

    def _count_refusal(self, host: _Host, feedback: HostFeedback) -> None:
        # Object stores answer 403 for a missing file, so one success shows that we are welcome.
        if feedback.succeeded:
            host.refusals = 0
        if feedback.refusal is None:
            return
        host.refusals += 1
        if host.refusals == self._limits.max_refusals:
            self._give_up(
                host,
                f"{host.name} refused {host.refusals} requests without a success in between "
                f"(download.max_refusals), so its other URLs are not requested in this run; "
                f"last answer: {feedback.refusal}",
            )

    def _give_up(self, host: _Host, reason: str) -> None:
        host.down = reason
        # Its tasks end without a request, so they need no limits.
        host.limit = self._limits.max_concurrent
        host.not_before = host.interval_s = 0
        timers, self._timers = self._timers, []
        for timer in timers:
            if isinstance(timer[2], Task) and timer[2].host == host.name:
                self._enqueue(timer[2])
            else:
                self._timers.append(timer)
        heapq.heapify(self._timers)

    def _count_failure(self, host: _Host, failure: str, now: float) -> None:
        limits = self._limits
        if not limits.max_failures:
            return
        host.failures += 1
        threshold = limits.max_failures
        if not host.answered:
            threshold = min(threshold, _MAX_FAILURES_UNKNOWN_HOST)
        if host.failures < threshold and not host.cooldowns:
            return
        if host.cooldowns == _MAX_COOLDOWNS:
            self._give_up(
                host,
                f"{host.name} still failed after {_MAX_COOLDOWNS} cooldowns; "
                f"last failure: {failure}; materialize the partition again when the host works, "
                "or lower download.per_host",
            )
            return
        host.cooldowns += 1
        host.failures = 0
        host.limit = 1
        self._pause(host, now + limits.cooldown_s)

    def _pause(self, host: _Host, end: float) -> None:
        """Send no request to a host before `end` (`time.monotonic()`)."""
        host.not_before = max(host.not_before, end)
        host.cooldown_end = max(host.cooldown_end, end)

    def _update_ready(self, host: _Host) -> None:
        """Add a host to the ready queue if a request may start now, or set a timer for it."""
        if not host.queue or host.ready or host.active >= host.limit:
            return
        if host.not_before > time.monotonic():
            if not host.timer_set:
                host.timer_set = True
                self._set_timer(host.not_before, host)
        else:
            host.ready = True
            self._ready.append(host)

    def _set_timer(self, due: float, target: Task | _Host) -> None:
        heapq.heappush(self._timers, (due, next(self._tie_breaker), target))

    def _run_due_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            target = heapq.heappop(self._timers)[2]
            if isinstance(target, Task):
                self._enqueue(target)
            else:
                target.timer_set = False
                self._update_ready(target)
