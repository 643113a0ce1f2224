"""Worker process that processes images: `python -m imgassets.imaging.worker`.

It reads a pickled `WorkerSetup` and then pickled `Task`s from standard input, processes one image
after the other, and writes its messages to standard output: pickled tuples, each preceded by its
length. It is a separate process so that a crash of the detector or of a decoder does not end the
run. `worker_pool` starts the workers and finds the image that one crashed on.

An object store answers after 20 to 50 ms, longer than an image is processed. There, images are read
ahead and written behind by threads, while one image at a time is processed.
"""

from __future__ import annotations

import ctypes
import faulthandler
import hashlib
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from queue import Queue
from typing import Any, BinaryIO, NamedTuple, NoReturn

import cv2

from imgassets.errors import ModelError, StorageError
from imgassets.imaging.encode import extension
from imgassets.imaging.faces import FaceDetector, load_detector
from imgassets.imaging.pipeline import ImageRecord, process_image
from imgassets.imaging.worker_protocol import LENGTH_BYTES, Task, WorkerSetup
from imgassets.manifests import Outcome
from imgassets.storage import processed_path

# Options of glibc's `mallopt`, and the environment variables that set them.
_MALLOPT = {-1: "MALLOC_TRIM_THRESHOLD_", -3: "MALLOC_MMAP_THRESHOLD_"}
_MALLOC_THRESHOLD_BYTES = 1 << 28
# Number of images that are read ahead and that are written behind. With 10 ms per image, this hides
# a latency of 60 ms. A raw file in memory has at most `download.max_bytes` (50 MB).
_TRANSFERS = 6
_WAITING_EVERY_S = 1.0


class _Processed(NamedTuple):
    """An image that was processed.

    Attributes:
        columns: The columns of its row of `processed_images` that the raw row does not have.
        file: The file to write, and its path.
        log_text: The traceback to log if a step raised an exception.
    """

    columns: dict[str, object]
    file: tuple[str, bytes] | None = None
    log_text: str | None = None


class _Messages:
    """The messages to the process that started this one; thread-safe."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe, self._lock = pipe, threading.Lock()

    def send(self, kind: str, payload: object = None) -> None:
        """Send a message."""
        message = pickle.dumps((kind, payload))
        try:
            with self._lock:
                self._pipe.write(len(message).to_bytes(LENGTH_BYTES) + message)
                self._pipe.flush()
        except BrokenPipeError:
            os._exit(1)  # the run was killed: a traceback would only clutter its terminal

    def send_row(self, processed: _Processed) -> None:
        """Send the row of an image whose file is stored."""
        if processed.log_text is not None:
            self.send("log", processed.log_text)
        self.send("row", processed.columns)

    def wait(self, future: Future[Any]) -> None:
        """Wait for a transfer, and say so every second: the image being processed is not hung."""
        while not wait([future], _WAITING_EVERY_S).done:
            self.send("waiting")


def _read_tasks(tasks: BinaryIO) -> Iterator[Task]:
    """Read tasks until standard input is closed: the run has no more, or has ended."""
    with suppress(EOFError):
        while True:
            yield pickle.load(tasks)  # noqa: S301  (from the process that started this one)


def _process_tasks(setup: WorkerSetup, tasks: BinaryIO, messages: _Messages) -> None:
    """Process images until there are no more tasks."""
    # OpenCV's threads would compete with the other workers for the cores.
    cv2.setNumThreads(1)
    try:
        detector = load_detector(setup.model, setup.settings.faces)
        messages.send("ready")
        if not setup.storage.is_local:
            _process_with_transfers(setup, detector, _read_tasks(tasks), messages)
            return
        for task in _read_tasks(tasks):
            read = partial(setup.storage.read, task.path)
            processed = _process(task, read, setup, detector)
            if processed.file is not None:
                setup.storage.write(*processed.file)
            messages.send_row(processed)
    except (ModelError, StorageError) as error:
        _fail(messages, error)


def _fail(messages: _Messages, error: Exception) -> NoReturn:
    """End this process and the run with an error, without waiting for transfers."""
    messages.send("error", error)
    os._exit(1)


def _process_with_transfers(
    setup: WorkerSetup, detector: FaceDetector, tasks: Iterator[Task], messages: _Messages
) -> None:
    """Process one image after the other, while others are read and written.

    Rows are sent in the order of the tasks, when their files are stored.
    """
    ahead: Queue[tuple[Task, Future[bytes]] | None] = Queue(_TRANSFERS)
    behind: Queue[tuple[_Processed, Future[None] | None] | None] = Queue(_TRANSFERS)

    def read_ahead() -> None:
        try:
            for task in tasks:
                ahead.put((task, pool.submit(setup.storage.read, task.path)))
        finally:
            ahead.put(None)

    def write_behind() -> None:
        while (item := behind.get()) is not None:
            processed, written = item
            if written is not None:
                messages.wait(written)
                try:
                    written.result()
                except StorageError as error:
                    _fail(messages, error)
            messages.send_row(processed)

    with ThreadPoolExecutor(2 * _TRANSFERS, thread_name_prefix="transfer") as pool:
        threads = [threading.Thread(target=target) for target in (read_ahead, write_behind)]
        for thread in threads:
            thread.start()
        while (item := ahead.get()) is not None:
            task, data = item
            messages.wait(data)
            messages.send("begun")
            try:
                processed = _process(task, data.result, setup, detector)
            except StorageError as error:
                _fail(messages, error)
            file = processed.file
            written = None if file is None else pool.submit(setup.storage.write, *file)
            behind.put((processed._replace(file=None), written))
        behind.put(None)
        for thread in threads:
            thread.join()


def _process(
    task: Task, read: Callable[[], bytes], setup: WorkerSetup, detector: FaceDetector
) -> _Processed:
    """Process one image.

    Args:
        task: The image.
        read: Returns the raw file.
        setup: Storage and settings.
        detector: The face detector.

    Raises:
        StorageError: The image cannot be read.
    """
    try:
        data = read()
    except FileNotFoundError:
        return _Processed(_raw_missing(f"{task.path} is missing;"))
    # All days reuse the result for this SHA-256, also after a damaged file is replaced.
    if task.verifies and hashlib.sha256(data).hexdigest() != task.sha256:
        return _Processed(
            _raw_missing(
                f"{task.path} is damaged: its SHA-256 is not that of its row; delete it and"
            )
        )
    try:
        file, record = process_image(data, setup.settings, detector)
    except Exception as error:  # noqa: BLE001  (a failed image does not stop the others)
        error_message = f"{type(error).__name__}: {error}"
        columns: dict[str, object] = {"outcome": Outcome.FAILED, "error": error_message}
        return _Processed(columns, log_text=traceback.format_exc())
    columns = {name: getattr(record, name) for name in ImageRecord.__slots__}
    if file is None:
        return _Processed(columns)
    path = processed_path(task.retailer, task.sha256, setup.settings_hash, extension(file))
    columns |= {"path": path, "sha256": hashlib.sha256(file).hexdigest(), "bytes": len(file)}
    return _Processed(columns, (path, file))


def _raw_missing(reason: str) -> dict[str, object]:
    error_message = f"{reason} materialize raw_images of the partition again"
    return {"outcome": Outcome.RAW_MISSING, "error": error_message}


def _keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of returning it to the system.

    Images differ in size: glibc would return their memory after each image, and request it again,
    zeroed, for the next. Detection alone takes 1.6 times as long then.
    """
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for option, variable in _MALLOPT.items():
            if variable not in os.environ:
                mallopt(option, _MALLOC_THRESHOLD_BYTES)


def main() -> None:
    """Process the images that the process which started this one sends."""
    faulthandler.enable()
    _keep_freed_memory()
    # Redirect what libraries print to standard error, so that it does not mix with messages.
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    tasks = sys.stdin.buffer
    setup: WorkerSetup = pickle.load(tasks)  # noqa: S301  (from the process that started this one)
    try:
        _process_tasks(setup, tasks, _Messages(messages))
    except BaseException:  # noqa: BLE001  (threads may wait for tasks or for the storage)
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    main()
