"""Work on pictures in processes that may crash.

Here lives starting `worker`s, handing pictures out, and finding the one that took a worker down. A
worker has one picture at a time, so that it is the first that was handed out and not answered for.
A worker that takes longer than `process.timeout_s` for one is killed. The picture is tried once
more when all others are done, alone: it may have been killed for the memory that others took, or
been slow because of them. The second time it becomes an outcome.

Processes and not threads: a sixth of the work holds Python's lock, which six threads keep busy.
"""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from imgassets.errors import WorkerError
from imgassets.imaging.worker_protocol import LENGTH_BYTES, Job, row_without_image
from imgassets.launcher.programs import start
from imgassets.manifests import Outcome, ProcessedRow, RawRow

_POLL_S = 0.2  # how often the time limit of an image is checked
# Answers wait in their pipes for so long, that this process takes no core from the workers for
# each; meanwhile they have these pictures to do. Both pipes hold that many rows without blocking.
_GATHER_S, _AHEAD = 0.01, 6
_PIPE_BYTES = 1 << 16


class _Worker:
    """One process, and the pictures that it was given and has not answered for.

    Attributes:
        given: the first is the one that it is at.
        since: clock (`time.monotonic`) at which it began that one.
        ready: whether it has started well.
        gone: whether it has ended.
        stdout: where it answers.
    """

    def __init__(self, job: Job) -> None:
        self.given: deque[RawRow] = deque()
        self.since = time.monotonic()
        self.ready = self.gone = False
        self._held = bytearray()
        self._process = start("imgassets.imaging.worker")
        self.stdout = self._process.stdout
        self._send(job)

    def give(self, raw: RawRow) -> None:
        """Hand out one more picture."""
        if not self.given:
            self.since = time.monotonic()
        self.given.append(raw)
        self._send(raw)

    def rows(self, log: Callable[[str], None]) -> Iterator[ProcessedRow]:
        """The rows that have come.

        Raises:
            ModelError: it cannot load the model.
            StorageError: it cannot read or write.
        """
        for kind, what in self._answers():
            self.since = time.monotonic()
            if kind == "ready":
                self.ready = True
            elif kind == "log":
                log(str(what))
            elif isinstance(what, ProcessedRow):
                self.given.popleft()
                yield what
            elif isinstance(what, Exception):
                raise what

    def is_hung(self, timeout_s: float) -> bool:
        """Whether it has been at one picture for longer than that."""
        return self.ready and bool(self.given) and time.monotonic() - self.since > timeout_s

    def kill(self) -> None:
        """End the process; its pipe then says that it is gone."""
        self._process.kill()

    def _answers(self) -> Iterator[tuple[str, object]]:
        data = os.read(self.stdout.fileno(), _PIPE_BYTES)
        self.gone = not data
        held = self._held
        held += data
        while len(held) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(held[:LENGTH_BYTES])
            if len(held) < end:
                return
            answer: tuple[str, object] = pickle.loads(held[LENGTH_BYTES:end])  # noqa: S301
            del held[:end]
            yield answer

    def end(self) -> int | None:
        """End it, if it is there; its status."""
        self._process.kill()
        status = self._process.wait()
        for pipe in (self._process.stdin, self.stdout):
            with suppress(BrokenPipeError):
                pipe.close()
        return status

    def _send(self, what: Job | RawRow) -> None:
        # Where it has gone, its other pipe says so.
        with suppress(BrokenPipeError):
            pickle.dump(what, self._process.stdin)
            self._process.stdin.flush()


def processed(
    tasks: Sequence[RawRow],
    job: Job,
    processes: int,
    *,
    log: Callable[[str], None],
    idle: Callable[[], None],
) -> Iterator[ProcessedRow]:
    """The rows of pictures, as they are done.

    Args:
        tasks: pictures to make.
        job: what is common to them.
        processes: at work at the same time.
        log: takes lines for a person.
        idle: called several times a second.

    Raises:
        ModelError: the model cannot be loaded.
        StorageError: storage cannot be read or written.
        WorkerError: the only worker, or the last, dies before it takes up any picture.
    """
    suspects: list[RawRow] = []
    for result in _results(tasks, job, processes, log=log, idle=idle):
        if isinstance(result, ProcessedRow):
            yield result
        else:
            suspects.append(result.raw)
            log(f"the imaging process {result.how} on {result.raw.key} ({result.raw.url})")
    if suspects:
        log(f"trying {len(suspects)} pictures again, one at a time")
    for result in _results(suspects, job, 1, log=log, idle=idle):
        if isinstance(result, ProcessedRow):
            yield result
        else:
            outcome = Outcome.TIMEOUT if result.hung else Outcome.CRASHED
            error = f"the imaging process {result.how} on it"
            yield row_without_image(result.raw, job.hash, outcome, error)


@dataclass(frozen=True, slots=True)
class _Death:
    """A worker died, and how, on this picture; or was killed, because it hung."""

    raw: RawRow
    how: str
    hung: bool


def _results(
    tasks: Sequence[RawRow],
    job: Job,
    processes: int,
    *,
    log: Callable[[str], None],
    idle: Callable[[], None],
) -> Iterator[ProcessedRow | _Death]:
    """Each picture's row, or the death of the worker that was at it."""
    waiting = deque(tasks)
    workers: list[_Worker] = []
    hung: set[_Worker] = set()
    timeout_s = job.settings.process.timeout_s
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or any(worker.given for worker in workers):
                for _ in range(min(processes - len(workers), len(waiting))):
                    workers.append(_Worker(job))
                    selector.register(workers[-1].stdout, selectors.EVENT_READ, workers[-1])
                _hand_out(waiting, workers)
                idle()
                hung |= _killed_if_hung(workers, timeout_s)
                ready = selector.select(_POLL_S)
                if ready:
                    time.sleep(_GATHER_S)
                for key, _ in ready:
                    worker = key.data
                    yield from worker.rows(log)
                    if not worker.gone:
                        continue
                    workers.remove(worker)
                    selector.unregister(worker.stdout)
                    how = _told(worker.end())
                    if worker in hung:
                        how = f"took longer than {timeout_s:g} s (process.timeout_s)"
                    if worker.given and worker.ready:
                        yield _Death(worker.given.popleft(), how, worker in hung)
                    waiting.extendleft(reversed(worker.given))
                    if not worker.ready:
                        processes -= 1
                        _tell_of_start(how, processes, log)
        finally:
            for worker in workers:
                worker.end()


def _killed_if_hung(workers: Sequence[_Worker], timeout_s: float) -> set[_Worker]:
    """Kill the workers that have been at one picture for too long; returns them."""
    hung = {worker for worker in workers if worker.is_hung(timeout_s)}
    for worker in hung:
        worker.kill()
    return hung


def _hand_out(waiting: deque[RawRow], workers: Sequence[_Worker]) -> None:
    """Give each worker some pictures ahead; towards the end fewer, so that none waits for one."""
    for ahead in range(_AHEAD):
        for worker in workers:
            if len(worker.given) == ahead and len(waiting) >= ahead * len(workers):
                if not waiting:
                    return
                worker.give(waiting.popleft())


def _tell_of_start(how: str, left: int, log: Callable[[str], None]) -> None:
    """Say that a worker died before it took up a picture; those that are left do its share.

    Raises:
        WorkerError: none is left.
    """
    told = f"an imaging process {how} before it took up a picture"
    if not left:
        raise WorkerError(f"{told}; what it said stands in the log of this process")
    log(f"{told}; {left} {'is' if left == 1 else 'are'} left")


def _told(status: int | None) -> str:
    if status is None:
        return "has gone"
    if status < 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"
