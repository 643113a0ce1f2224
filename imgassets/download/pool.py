"""Run the download threads, which take tasks from the schedule and return rows.

Starting and stopping the threads and reporting their first fatal error belong here. What a thread
does with a task is in `exchange`.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable
from queue import Empty, SimpleQueue

from imgassets.download.client import Client
from imgassets.download.exchange import Exchange, NextAction, failed_rows
from imgassets.download.schedule import Schedule, Task
from imgassets.errors import FetchAbortedError, StorageError
from imgassets.manifests import Outcome, RawRow
from imgassets.urls import origin

_STOP_TIMEOUT_S = 1.0
"""Seconds to wait for the threads after a stop; only one blocked in a system call needs more."""


class Pool:
    """Threads that work on a schedule; a context manager that stops them on exit."""

    def __init__(
        self,
        schedule: Schedule,
        exchange: Exchange,
        client: Client,
        record: Callable[[list[RawRow]], None],
        *,
        threads: int,
        log: Callable[[str], None],
    ) -> None:
        """Create the threads.

        Args:
            schedule: Hands out the tasks.
            exchange: Requests a URL and stores its image.
            client: The client of the exchange, to abort requests.
            record: Records finished rows; called by the threads as soon as the image is stored.
            threads: Number of threads.
            log: Receives messages; called by the threads.
        """
        self._schedule = schedule
        self._exchange = exchange
        self._client = client
        self._record = record
        self._log = log
        self._results: SimpleQueue[list[RawRow]] = SimpleQueue()
        self._fatal: Exception | None = None
        self._lock = threading.Lock()
        self._running = threads
        self._finished = threading.Event()
        if not threads:
            self._finished.set()
        # Daemon threads, because a thread blocked in a system call must not keep the process alive.
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
        """Hand out no more tasks, abort the requests in flight and wait for the threads."""
        self._schedule.stop()
        if any(thread.is_alive() for thread in self._threads):
            self._client.abort()
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(deadline - time.monotonic(), 0))

    def wait(self, seconds: float) -> list[RawRow] | None:
        """Wait for results, at most the given number of seconds.

        Returns:
            The rows that are finished; None when there are no more.

        Raises:
            StorageError: A thread could not write; the other threads have been stopped.
            Exception: A thread failed on a bug outside of a single image, or its log failed; the
                other threads have been stopped.
        """
        # Poll instead of waking up per row: each wake-up takes the GIL from the download threads.
        self._finished.wait(seconds)
        finished = self._finished.is_set()
        # Rows finished before the error are returned first, because their images are saved.
        rows = self.drain()
        if rows:
            return rows
        if self._fatal is not None:
            raise self._fatal
        return None if finished else []

    def drain(self) -> list[RawRow]:
        """Return the finished rows that `wait` has not returned yet."""
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
        except Exception as error:  # noqa: BLE001  (otherwise the other threads wait forever)
            self._fatal = self._fatal or error
            self._schedule.stop()
            self._finished.set()
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    self._finished.set()

    def _run(self, task: Task) -> None:
        try:
            action = self._exchange.send_next(task)
        except FetchAbortedError:
            raise
        except StorageError as error:
            # A refresh keeps its image and its row.
            if not task.previous_rows:
                message = f"the image could not be stored: {error}"
                with contextlib.suppress(StorageError):
                    self._record(failed_rows(task, Outcome.NOT_FETCHED, message))
            raise
        except Exception as error:  # noqa: BLE001  (a bug on one image must not stop the others)
            self._log(
                f"unexpected error at {task.url}; this is a bug, please report it:\n"
                f"{traceback.format_exc()}"
            )
            message = f"unexpected error, see the log: {type(error).__name__}: {error}"
            action = NextAction(failed_rows(task, Outcome.FAILED, message))
        if action.rows is None:
            self._schedule.reschedule(
                task, origin(action.url), action.url, action.wait_s, action.feedback
            )
        else:
            self._record(action.rows)
            self._results.put(action.rows)
            self._schedule.finish(task, action.feedback)
