"""Work on pictures in a process that may crash.

Here lives starting `worker`, and finding the picture that took one down: those that were under way
are done again one at a time, so that the culprit is alone when the next worker dies. It becomes an
outcome; all others are done as if nothing had been. A worker has all threads: one process costs
one start, and two threads in it are 1.8 times as fast as one (benchmarks/imaging_speed).
"""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import BinaryIO

from imgassets.imaging.job import LENGTH_BYTES, Job, row_without_picture
from imgassets.manifests import Outcome, ProcessedRow, RawRow
from imgassets.warm.programs import Program, start

_POLL_S = 0.2  # how soon a cancelled run notices
# Answers wait in the pipe for so long, that this process takes no core from the worker for each.
# About a hundred have room there; a worker that is faster waits in turn.
_GATHER_S = 0.03
_PIPE_BYTES = 1 << 16


class Cancelled(Exception):  # noqa: N818  (a person's wish, not a fault)
    """The run was cancelled; what was done is kept."""


class WorkerError(Exception):
    """No worker can be started; the message says why."""


class _Died(Exception):  # noqa: N818
    """The worker is gone, with these pictures under way."""

    def __init__(self, under_way: list[str], status: int | None) -> None:
        super().__init__(_told(status))
        self.under_way = under_way


def processed(
    tasks: Sequence[RawRow],
    job: Job,
    *,
    log: Callable[[str], None],
    cancelled: threading.Event,
    idle: Callable[[], None],
) -> Iterator[ProcessedRow]:
    """The rows of pictures, as they are done.

    Args:
        tasks: pictures to make.
        job: what is common to them.
        log: takes lines for a person.
        cancelled: once set, the work stops.
        idle: called several times a second.

    Raises:
        Cancelled: `cancelled` was set.
        ModelError: the model cannot be loaded.
        StorageError: storage cannot be read or written.
        WorkerError: a worker dies before it takes up any picture.
    """
    left = {raw.key: raw for raw in tasks}
    suspects: list[str] = []
    while left:
        alone = bool(suspects)
        batch = [left[key] for key in suspects] if alone else list(left.values())
        using = replace(job, threads=1) if alone else job
        try:
            for row in _by_one_worker(batch, using, log=log, cancelled=cancelled, idle=idle):
                del left[row.key]
                yield row
            suspects = []
        except _Died as died:
            suspects = [key for key in died.under_way if key in left]
            if not suspects:
                raise WorkerError(
                    f"the imaging process {died} before it took up a picture; "
                    "what it said stands in the log of this process"
                ) from None
            if len(suspects) == 1:
                culprit = left.pop(suspects[0])
                log(f"{culprit.key} ({culprit.url}) crashed the imaging process, which {died}")
                yield row_without_picture(
                    culprit, job.hash, Outcome.CRASHED, f"the imaging process {died} on it"
                )
                suspects = [raw.key for raw in batch if raw.key in left] if alone else []
            else:
                log(f"the imaging process {died}; trying its {len(suspects)} pictures one by one")


def _by_one_worker(
    batch: Sequence[RawRow],
    job: Job,
    *,
    log: Callable[[str], None],
    cancelled: threading.Event,
    idle: Callable[[], None],
) -> Iterator[ProcessedRow]:
    process = start("imgassets.imaging.worker")
    feeder = threading.Thread(target=_feed, args=(process, job, batch), daemon=True)
    feeder.start()
    under_way: list[str] = []
    try:
        for kind, what in _answers(process.stdout):
            if cancelled.is_set():
                raise Cancelled("the run was cancelled; what was done is kept")
            if kind == "row" and isinstance(what, tuple):
                row, started = what
                if started is not None:
                    under_way.append(started)
                if row is not None:
                    under_way.remove(row.key)
                    yield row
            elif kind == "log":
                log(str(what))
            elif kind == "error" and isinstance(what, Exception):
                raise what
            elif kind == "end":
                return
            idle()
        raise _Died(under_way, process.wait())
    finally:
        process.kill()
        process.wait()
        feeder.join()
        for pipe in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()


def _feed(process: Program, job: Job, batch: Sequence[RawRow]) -> None:
    """Hand out the pictures; the pipe holds few, so that little is handed out in vain."""
    with suppress(BrokenPipeError, ValueError):
        pickle.dump(job, process.stdin)
        for raw in batch:
            pickle.dump(raw, process.stdin)
        process.stdin.close()


def _answers(stream: BinaryIO) -> Iterator[tuple[str, object]]:
    """What the worker says until it ends or dies, and `idle` where it says nothing for a while."""
    held = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if not selector.select(_POLL_S):
                yield "idle", None
                continue
            time.sleep(_GATHER_S)
            data = os.read(stream.fileno(), _PIPE_BYTES)
            if not data:
                return
            held += data
            yield from _whole(held)


def _whole(held: bytearray) -> Iterator[tuple[str, object]]:
    """Take the answers that are there as a whole from what was read."""
    while len(held) >= LENGTH_BYTES:
        end = LENGTH_BYTES + int.from_bytes(held[:LENGTH_BYTES])
        if len(held) < end:
            return
        answer: tuple[str, object] = pickle.loads(held[LENGTH_BYTES:end])  # noqa: S301
        del held[:end]
        yield answer


def _told(status: int | None) -> str:
    if status is None:
        return "has gone"
    if status < 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"
