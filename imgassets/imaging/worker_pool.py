"""Process images in worker processes, which may crash or hang.

This module starts `worker` processes, assigns images to them, and finds the image that a worker
crashed on: a worker processes its images one at a time and in order, so it is the first that was
assigned and has no row yet. With an object store, where rows follow when their files are stored, a
worker says which image it has begun with, so it is the last of those. A worker that takes longer
than `process.timeout_s` for one image is killed; waiting for the storage does not count. Such an
image is retried once after all others, alone, because other workers may have used up the memory or
slowed it down. If it fails again, the failure is its outcome.

Processes rather than threads: a sixth of the work holds the GIL, so threads would not scale beyond
six cores.
"""

from __future__ import annotations

import datetime as dt
import os
import pickle
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

from imgassets.errors import WorkerError
from imgassets.imaging.worker_protocol import (
    LENGTH_BYTES,
    Task,
    WorkerSetup,
    processed_row,
    row_without_image,
)
from imgassets.launcher.programs import start
from imgassets.manifests import Outcome, ProcessedRow, RawRow
from imgassets.wording import counted

_POLL_S = 0.2  # interval at which the time limit of images is checked
# A worker has up to so many images at a time, so that this process need not wake up for each row
# and take a core from the workers: it pauses until they have done about half of them.
_MAX_ASSIGNED = 16
_MIN_PAUSE_S, _MAX_PAUSE_S = 0.005, 0.08
_PIPE_BYTES = 1 << 16
_JUST_DOWNLOADED = dt.timedelta(hours=6)


class _Worker:
    """One worker process and the images assigned to it.

    Attributes:
        assigned: Images without a row yet, in the order in which they are processed.
        started_at: Clock (`time.monotonic`, s) of its last message, or at which it got images.
        ready: Whether it has loaded the model.
        exited: Whether it has ended.
        stdout: Pipe from its standard output.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self._settings_hash = setup.settings_hash
        self.assigned: deque[RawRow] = deque()
        self.started_at = time.monotonic()
        self.ready = self.exited = False
        self._begun = 0
        self._buffer = bytearray()
        self._process = start("imgassets.imaging.worker")
        self.stdout = self._process.stdout
        self._send(setup)

    @property
    def waiting(self) -> int:
        """Number of assigned images with which it has not begun, as far as it says so."""
        return len(self.assigned) - self._begun

    def take_suspect(self) -> RawRow:
        """Take the image that it was processing from those that are assigned to it."""
        raw = self.assigned[number := max(self._begun - 1, 0)]
        del self.assigned[number]
        return raw

    def assign(self, images: Sequence[RawRow]) -> None:
        """Send more images to the worker."""
        if not self.assigned:
            self.started_at = time.monotonic()
        self.assigned.extend(images)
        self._send(*map(_task, images))

    def read_rows(self, log: Callable[[str], None]) -> Iterator[ProcessedRow]:
        """Read the messages that have arrived, and yield the rows among them.

        Raises:
            ModelError: The worker cannot load the model.
            StorageError: The worker cannot read or write storage.
        """
        for kind, payload in self._read_messages():
            self.started_at = time.monotonic()
            if kind == "ready":
                self.ready = True
            elif kind == "begun":
                self._begun += 1
            elif kind == "log":
                raw = self.assigned[0]
                log(f"{raw.key} ({raw.url}) failed:\n{payload}")
            elif isinstance(payload, dict):
                raw = self.assigned.popleft()
                self._begun = max(self._begun - 1, 0)
                yield processed_row(raw, self._settings_hash, **payload)
            elif isinstance(payload, Exception):
                raise payload

    def is_hung(self, timeout_s: float) -> bool:
        """Whether it has been processing one image for longer than `timeout_s`."""
        return self.ready and bool(self.assigned) and time.monotonic() - self.started_at > timeout_s

    def kill(self) -> None:
        """Kill the process; its pipe then reports the end."""
        self._process.kill()

    def _read_messages(self) -> Iterator[tuple[str, object]]:
        data = os.read(self.stdout.fileno(), _PIPE_BYTES)
        self.exited = not data
        buffer = self._buffer
        buffer += data
        while len(buffer) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(buffer[:LENGTH_BYTES])
            if len(buffer) < end:
                return
            message: tuple[str, object] = pickle.loads(buffer[LENGTH_BYTES:end])  # noqa: S301
            del buffer[:end]
            yield message

    def stop(self) -> int | None:
        """Kill the process if it is running, and return its exit status."""
        self._process.kill()
        status = self._process.wait()
        for pipe in (self._process.stdin, self.stdout):
            with suppress(BrokenPipeError):
                pipe.close()
        return status

    def _send(self, *payloads: WorkerSetup | Task) -> None:
        # If the worker has exited, its other pipe reports that.
        with suppress(BrokenPipeError):
            for payload in payloads:
                pickle.dump(payload, self._process.stdin)
            self._process.stdin.flush()


def _task(raw: RawRow) -> Task:
    return Task(str(raw.path), str(raw.sha256), raw.retailer, not _is_just_downloaded(raw))


def _is_just_downloaded(raw: RawRow) -> bool:
    """Whether the download has just written the file, after it computed its SHA-256.

    To compute it again would take 1 to 2 % of the processing time.
    """
    if not raw.attempts or raw.http_status == HTTPStatus.NOT_MODIFIED or raw.fetched_at is None:
        return False
    return dt.datetime.now(dt.UTC) - raw.fetched_at < _JUST_DOWNLOADED


def process_all(
    tasks: Sequence[RawRow],
    setup: WorkerSetup,
    processes: int,
    *,
    log: Callable[[str], None],
    idle: Callable[[], None],
) -> Iterator[ProcessedRow]:
    """Process images, and yield the row of each as soon as it is done.

    Args:
        tasks: Rows of the images to process.
        setup: Storage, settings and model for all images.
        processes: Number of workers.
        log: Function that logs a line.
        idle: Function that is called several times per second.

    Yields:
        One row per image, in the order in which they are done.

    Raises:
        ModelError: The model cannot be loaded.
        StorageError: Storage cannot be read or written.
        WorkerError: The only worker, or the last one left, exited before it started on an image.
    """
    suspects: list[RawRow] = []
    for result in _run_workers(tasks, setup, processes, log=log, idle=idle):
        if isinstance(result, ProcessedRow):
            yield result
        else:
            suspects.append(result.raw)
            log(f"the imaging process {result.reason} on {result.raw.key} ({result.raw.url})")
    if suspects:
        log(f"retrying {counted(len(suspects), 'image')}, one at a time")
    for result in _run_workers(suspects, setup, 1, log=log, idle=idle):
        if isinstance(result, ProcessedRow):
            yield result
        else:
            outcome = Outcome.TIMEOUT if result.hung else Outcome.CRASHED
            error = f"the imaging process {result.reason} on this image"
            yield row_without_image(result.raw, setup.settings_hash, outcome, error)


@dataclass(frozen=True, slots=True)
class _WorkerFailure:
    """A worker crashed on an image, or was killed because it hung.

    Attributes:
        raw: Row of the image.
        reason: What happened, as the predicate of a sentence.
        hung: Whether the worker hung.
    """

    raw: RawRow
    reason: str
    hung: bool


def _run_workers(
    tasks: Sequence[RawRow],
    setup: WorkerSetup,
    processes: int,
    *,
    log: Callable[[str], None],
    idle: Callable[[], None],
) -> Iterator[ProcessedRow | _WorkerFailure]:
    """Yield the row of each image, or the failure of the worker that was processing it."""
    waiting = deque(tasks)
    workers: list[_Worker] = []
    hung: set[_Worker] = set()
    pause = _MIN_PAUSE_S
    timeout_s = setup.settings.process.timeout_s
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or any(worker.assigned for worker in workers):
                for _ in range(min(processes - len(workers), len(waiting))):
                    workers.append(_Worker(setup))
                    selector.register(workers[-1].stdout, selectors.EVENT_READ, workers[-1])
                _assign(waiting, workers)
                idle()
                ready = selector.select(_POLL_S)
                if ready and len(waiting) >= _MAX_ASSIGNED * len(workers):
                    time.sleep(pause)
                for key, _ in ready:
                    worker = key.data
                    yield from worker.read_rows(log)
                    if not worker.exited:
                        continue
                    workers.remove(worker)
                    selector.unregister(worker.stdout)
                    reason = _exit_status_text(worker.stop())
                    if worker in hung:
                        reason = f"took longer than {timeout_s:g} s (process.timeout_s)"
                    if worker.assigned and worker.ready:
                        yield _WorkerFailure(worker.take_suspect(), reason, worker in hung)
                    waiting.extendleft(reversed(worker.assigned))
                    if not worker.ready:
                        processes -= 1
                        _report_failed_start(reason, processes, log)
                # After their messages were read: `idle` may have waited for the storage.
                hung |= _kill_hung(workers, timeout_s)
                pause = _next_pause(pause, workers)
        finally:
            for worker in workers:
                worker.stop()


def _kill_hung(workers: Sequence[_Worker], timeout_s: float) -> set[_Worker]:
    """Kill the workers that exceed the time limit of an image, and return them."""
    hung = {worker for worker in workers if worker.is_hung(timeout_s)}
    for worker in hung:
        worker.kill()
    return hung


def _assign(waiting: deque[RawRow], workers: Sequence[_Worker]) -> None:
    """Assign several images to each worker; fewer towards the end, so that no worker runs idle."""
    for worker in workers:
        wanted = min(_MAX_ASSIGNED, 1 + len(waiting) // (2 * len(workers))) - worker.waiting
        images = [waiting.popleft() for _ in range(min(wanted, len(waiting)))]
        if images:
            worker.assign(images)


def _next_pause(pause: float, workers: Sequence[_Worker]) -> float:
    """How long to pause before the next messages are read, in seconds.

    Args:
        pause: The last pause.
        workers: The workers, before more images are assigned to them.
    """
    left = min((worker.waiting for worker in workers), default=0)
    if left < _MAX_ASSIGNED // 4:
        return max(pause / 2, _MIN_PAUSE_S)
    return min(pause * 2, _MAX_PAUSE_S) if left > _MAX_ASSIGNED * 3 // 4 else pause


def _report_failed_start(reason: str, left: int, log: Callable[[str], None]) -> None:
    """Log that a worker exited before it was ready; the others take over its images.

    Args:
        reason: How it exited, as the predicate of a sentence.
        left: Number of other workers.
        log: Function that logs a line.

    Raises:
        WorkerError: There are no other workers.
    """
    message = f"an imaging process {reason} before it started on an image"
    if not left:
        raise WorkerError(
            f"{message}; read its error output above this line in the run's stderr "
            "(Compute logs in the UI); a common cause is too little memory"
        )
    log(f"{message}; {left} left")


def _exit_status_text(status: int | None) -> str:
    if status is None:
        return "exited with unknown status"
    if status < 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-status).name}"
    return f"exited with status {status}"
