"""Which URL is asked next: one queue a host, so that no host is asked more than it may be.

Here live the order of requests, the limits of each host and the waits before further attempts:
a thread never sleeps for one URL while another could be fetched. What a request does is in
`exchange`.
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
    attempts: int = 0
    hops: int = 0
    """Redirects of this attempt."""
    started: float | None = None
    """Clock (`time.monotonic`) at the first request."""
    before: RawRow | None = None
    """What an earlier run knows of this URL, where it is asked only for a change."""


@dataclass(slots=True, eq=False)
class _Host:
    queue: deque[Task] = field(default_factory=deque)
    active: int = 0
    listed: bool = False
    """Whether the host stands in the line of those that may be asked."""


class Schedule:
    """Hands tasks to threads; every task taken is given back with `finish` or `again`."""

    def __init__(self, tasks: Iterable[Task], *, per_host: int) -> None:
        self._changed = threading.Condition()
        self._per_host = per_host
        self._hosts: dict[str, _Host] = {}
        self._line: deque[_Host] = deque()
        self._later: list[tuple[float, int, Task]] = []
        self._ties = count()
        self._left = 0
        self._stopped = False
        for task in tasks:
            self._left += 1
            self._enqueue(task)

    def take(self) -> Task | None:
        """Wait for a task that may start now; none when all are finished, or after `stop`."""
        with self._changed:
            while True:
                if self._stopped or not self._left:
                    return None
                self._wake_due()
                if self._line:
                    return self._first_in_line()
                wait = self._later[0][0] - time.monotonic() if self._later else None
                self._changed.wait(wait)

    def finish(self, task: Task) -> None:
        """The task is done."""
        with self._changed:
            self._release(task)
            self._left -= 1
            if self._left:
                self._changed.notify()
            else:
                self._changed.notify_all()

    def again(self, task: Task, host: str, url: str, wait_s: float = 0) -> None:
        """The task needs a further request, of this URL, not before `wait_s` seconds."""
        with self._changed:
            self._release(task)
            task.host, task.url = host, url
            if wait_s:
                due = time.monotonic() + wait_s
                heapq.heappush(self._later, (due, next(self._ties), task))
            else:
                self._enqueue(task)
            self._changed.notify()

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _first_in_line(self) -> Task:
        host = self._line.popleft()
        host.listed = False
        task = host.queue.popleft()
        host.active += 1
        self._list(host)
        return task

    def _enqueue(self, task: Task) -> None:
        host = self._hosts.setdefault(task.host, _Host())
        host.queue.append(task)
        self._list(host)

    def _release(self, task: Task) -> None:
        host = self._hosts[task.host]
        host.active -= 1
        self._list(host)

    def _list(self, host: _Host) -> None:
        if host.queue and not host.listed and host.active < self._per_host:
            host.listed = True
            self._line.append(host)

    def _wake_due(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._enqueue(heapq.heappop(self._later)[2])
