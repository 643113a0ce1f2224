"""Which URL is asked next: one queue a host, so that no host is asked more than it may be.

Here live the order of requests, the limits, rests and the giving up of each host, and the waits
before further attempts: a thread never sleeps for one URL while another could be fetched. What a
request does is in `exchange`.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

from imgassets.manifests import RawRow, UrlRow

_FAILURES_OF_A_STRANGER = 5
"""A host that has never answered rests sooner: it is asked one URL at a time."""
_RESTS = 3
"""A host that fails again after so many rests is given up for the run."""


@dataclass(slots=True, eq=False)
class Task:
    """One URL on its way, for all rows that name it."""

    rows: tuple[UrlRow, ...]
    url: str
    """Where the next request goes: normalised, after the redirects so far."""
    host: str
    """Origin of that URL."""
    first_url: str
    first_host: str
    """The same of the catalogue's URL, where every attempt starts."""
    before: tuple[RawRow, ...] = ()
    """What is known of each row, where the picture is there and only asked for a change."""
    attempts: int = 0
    hops: int = 0
    """Redirects of this attempt."""
    started: float | None = None
    """Clock (`time.monotonic`) at the first request."""
    last_failure: list[RawRow] | None = None
    """What the rows are where there is no further attempt."""
    given_up: str | None = None
    """Why the host is not asked any more; none where it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFeedback:
    """What a request showed of its host.

    Attributes:
        failure: why the host is taken to be in trouble; none where it answered.
        rest_s: seconds that it asked to be left alone.
        opened: whether its robots.txt is known now.
        interval_s: seconds that its robots.txt asks for between two requests.
    """

    failure: str | None = None
    rest_s: float = 0
    opened: bool = True
    interval_s: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLimits:
    """How a host may be asked; see `settings.DownloadSettings`."""

    at_once: int
    interval_s: float
    failures: int
    rest_s: float
    gated: bool
    """Whether a host is asked one URL at a time until its robots.txt is known."""


@dataclass(slots=True, eq=False)
class _Host:
    name: str
    limit: int
    interval_s: float
    queue: deque[Task] = field(default_factory=deque)
    active: int = 0
    listed: bool = False
    """Whether the host stands in the line of those that may be asked."""
    not_before: float = 0
    waiting: bool = False
    """Whether the host is to be woken at `not_before`."""
    answered: bool = False
    opened: bool = False
    failures: int = 0
    """One after the other."""
    rests: int = 0
    given_up: str | None = None


class Schedule:
    """Hands tasks to threads; every task taken is given back with `finish` or `again`."""

    def __init__(self, tasks: Iterable[Task], limits: HostLimits) -> None:
        self._changed = threading.Condition()
        self._limits = limits
        self._hosts: dict[str, _Host] = {}
        self._line: deque[_Host] = deque()
        self._later: list[tuple[float, int, Task | _Host]] = []
        self._ties = count()
        self._left = 0
        self._stopped = False
        for task in tasks:
            self._left += 1
            self._enqueue(task)

    def take(self) -> Task | None:
        """Wait for a task that may start now; none when all are finished, or after `stop`.

        The host of a task with `given_up` is not to be asked.
        """
        with self._changed:
            while True:
                if self._stopped or not self._left:
                    return None
                self._wake_due()
                if (task := self._first_in_line()) is not None:
                    return task
                wait = self._later[0][0] - time.monotonic() if self._later else None
                self._changed.wait(wait)

    def finish(self, task: Task, signs: HostFeedback | None = None) -> None:
        """The task is done."""
        with self._changed:
            self._release(task, signs)
            self._left -= 1
            if self._left:
                self._changed.notify()
            else:
                self._changed.notify_all()

    def again(self, task: Task, host: str, url: str, wait_s: float, signs: HostFeedback) -> None:
        """The task needs a further request, of this URL, not before `wait_s` seconds."""
        with self._changed:
            self._release(task, signs)
            task.host, task.url = host, url
            if wait_s:
                self._wake_at(time.monotonic() + wait_s, task)
            else:
                self._enqueue(task)
            self._changed.notify()

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _first_in_line(self) -> Task | None:
        while self._line:
            host = self._line.popleft()
            host.listed = False
            # It may have come to rest, or to a lower limit, while it stood in the line.
            if host.active < host.limit and host.not_before <= time.monotonic():
                return self._handed_out(host)
            self._list(host)
        return None

    def _handed_out(self, host: _Host) -> Task:
        task = host.queue.popleft()
        task.given_up = host.given_up
        host.active += 1
        if host.interval_s:
            host.not_before = max(host.not_before, time.monotonic()) + host.interval_s
        self._list(host)
        if self._line:
            self._changed.notify()
        return task

    def _enqueue(self, task: Task) -> None:
        host = self._hosts.get(task.host)
        if host is None:
            first = 1 if self._limits.gated else self._limits.at_once
            host = self._hosts[task.host] = _Host(task.host, first, self._limits.interval_s)
        host.queue.append(task)
        self._list(host)

    def _release(self, task: Task, signs: HostFeedback | None) -> None:
        host = self._hosts[task.host]
        host.active -= 1
        if signs is not None and host.given_up is None:
            self._apply_feedback(host, signs)
        self._list(host)

    def _apply_feedback(self, host: _Host, signs: HostFeedback) -> None:
        now = time.monotonic()
        if signs.rest_s:
            host.not_before = max(host.not_before, now + signs.rest_s)
        if signs.failure is not None:
            self._count_failure(host, signs.failure, now)
            return
        host.answered = True
        host.failures = 0
        # Answers that were on their way do not end a rest, the probe after it does.
        if host.rests and now >= host.not_before:
            host.rests = 0
        if signs.opened:
            host.opened = True
            host.interval_s = max(host.interval_s, signs.interval_s)
        if (host.opened or not self._limits.gated) and not host.rests:
            host.limit = self._limits.at_once

    def _count_failure(self, host: _Host, failure: str, now: float) -> None:
        limits = self._limits
        if not limits.failures or host.not_before - now > limits.rest_s / 2:
            return  # it rests already, and this was on its way
        host.failures += 1
        enough = limits.failures if host.answered else min(limits.failures, _FAILURES_OF_A_STRANGER)
        if host.failures < enough and not host.rests:
            return
        if host.rests == _RESTS:
            host.given_up = f"{host.name} kept failing after {_RESTS} rests; at last: {failure}"
            host.limit = limits.at_once
            host.not_before = host.interval_s = 0
            return
        host.rests += 1
        host.failures = 0
        host.limit = 1
        host.not_before = max(host.not_before, now + limits.rest_s)

    def _list(self, host: _Host) -> None:
        """Put a host in the line if it may be asked now, or have it woken when it may."""
        if not host.queue or host.listed or host.active >= host.limit:
            return
        if host.not_before > time.monotonic():
            if not host.waiting:
                host.waiting = True
                self._wake_at(host.not_before, host)
        else:
            host.listed = True
            self._line.append(host)

    def _wake_at(self, due: float, sleeper: Task | _Host) -> None:
        heapq.heappush(self._later, (due, next(self._ties), sleeper))

    def _wake_due(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            sleeper = heapq.heappop(self._later)[2]
            if isinstance(sleeper, Task):
                self._enqueue(sleeper)
            else:
                sleeper.waiting = False
                self._list(sleeper)
