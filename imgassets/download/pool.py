"""The threads: they take tasks from the schedule and hand back rows.

Here lives the life of the threads: start, the first fatal error, a prompt stop. What a thread does
with a task is in `exchange`.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable
from queue import Empty, SimpleQueue

from imgassets.download.client import Client
from imgassets.download.exchange import Exchange, Step, failed_rows
from imgassets.download.schedule import Schedule, Task
from imgassets.download.urls import origin
from imgassets.errors import FetchAbortedError, StorageError
from imgassets.manifests import Outcome, RawRow

_STOP_S = 1.0
"""Seconds that threads get to end after a stop; all but one stuck in a system call do."""


class Pool:
    """Threads that work on a schedule, as a context manager that stops them at its end."""

    def __init__(
        self,
        schedule: Schedule,
        exchange: Exchange,
        client: Client,
        *,
        threads: int,
        log: Callable[[str], None],
    ) -> None:
        self._schedule = schedule
        self._exchange = exchange
        self._client = client
        self._log = log
        self._results: SimpleQueue[list[RawRow]] = SimpleQueue()
        self._fatal: Exception | None = None
        self._lock = threading.Lock()
        self._working = threads
        self._over = threading.Event()
        if not threads:
            self._over.set()
        # Daemons, so that a thread stuck in a name lookup cannot hold back the end of a run.
        self._threads = [
            threading.Thread(target=self._work, name=f"download-{n}", daemon=True)
            for n in range(threads)
        ]

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._client.close()

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Hand out no more tasks, break off what is on its way, and wait for the threads."""
        self._schedule.stop()
        if any(thread.is_alive() for thread in self._threads):
            self._client.abort()
        deadline = time.monotonic() + _STOP_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(deadline - time.monotonic(), 0))

    def wait(self, seconds: float) -> list[RawRow] | None:
        """Rows that came in so many seconds; none when there will be no more.

        Raises:
            StorageError: a thread could not write; the others have been stopped.
            Exception: a thread met a bug that is not one of an image, or its log failed; likewise.
        """
        # Not for each row: a wake-up of this thread costs the others Python's lock.
        self._over.wait(seconds)
        over = self._over.is_set()
        # Rows that came before the error are handed out first: their pictures are saved.
        rows = self.rest()
        if rows:
            return rows
        if self._fatal is not None:
            raise self._fatal
        return None if over else []

    def rest(self) -> list[RawRow]:
        """Rows that came and were not taken yet."""
        rows: list[RawRow] = []
        with contextlib.suppress(Empty):
            while True:
                rows += self._results.get_nowait()
        return rows

    def _work(self) -> None:
        try:
            while (task := self._schedule.take()) is not None:
                self._run(task)
        except FetchAbortedError:
            pass
        except Exception as error:  # noqa: BLE001  (else the other threads would wait for ever)
            self._fatal = self._fatal or error
            self._schedule.stop()
            self._over.set()
        finally:
            with self._lock:
                self._working -= 1
                if not self._working:
                    self._over.set()

    def _run(self, task: Task) -> None:
        try:
            step = self._exchange.step(task)
        except (FetchAbortedError, StorageError):
            raise
        except Exception as error:  # noqa: BLE001  (a bug met in one picture stops no other)
            self._log(f"a bug, met at {task.url}; please report it:\n{traceback.format_exc()}")
            message = f"a bug: {type(error).__name__}: {error}"
            step = Step(failed_rows(task, Outcome.FAILED, message))
        if step.rows is None:
            self._schedule.again(task, origin(step.url), step.url, step.wait_s, step.feedback)
        else:
            self._results.put(step.rows)
            self._schedule.finish(task, step.feedback)
