"""Worker process that processes images: `python -m imgassets.imaging.worker`.

It reads a pickled `WorkerSetup` and then pickled `Task`s from standard input, processes one image
after the other, and writes its messages to standard output: pickled tuples, each preceded by its
length. It is a separate process so that a crash of the detector or of a decoder does not end the
run. `worker_pool` starts the workers and finds the image that one crashed on.
"""

from __future__ import annotations

import ctypes
import faulthandler
import hashlib
import os
import pickle
import sys
import traceback
from contextlib import suppress
from typing import BinaryIO

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


def _read_task(tasks: BinaryIO) -> Task | None:
    """Read the next task; None if standard input is closed."""
    try:
        task: Task = pickle.load(tasks)  # noqa: S301  (from the process that started this one)
    except EOFError:
        return None
    return task


def _send(messages: BinaryIO, kind: str, payload: object) -> None:
    message = pickle.dumps((kind, payload))
    try:
        messages.write(len(message).to_bytes(LENGTH_BYTES) + message)
        messages.flush()
    except BrokenPipeError:
        os._exit(1)  # the run was killed: a traceback would only clutter its terminal


def _process_tasks(setup: WorkerSetup, tasks: BinaryIO, messages: BinaryIO) -> None:
    """Process images until standard input is closed: the run has no more, or has ended."""
    # OpenCV's threads would compete with the other workers for the cores.
    cv2.setNumThreads(1)
    try:
        detector = load_detector(setup.model, setup.settings.faces)
        _send(messages, "ready", None)
        while (task := _read_task(tasks)) is not None:
            columns, log_text = _process(task, setup, detector)
            if log_text is not None:
                _send(messages, "log", log_text)
            _send(messages, "row", columns)
    except (ModelError, StorageError) as error:
        _send(messages, "error", error)


def _process(
    task: Task, setup: WorkerSetup, detector: FaceDetector
) -> tuple[dict[str, object], str | None]:
    """Process one image.

    Args:
        task: The image.
        setup: Storage and settings.
        detector: The face detector.

    Returns:
        The columns of its row of `processed_images` that the raw row does not have, and the
        traceback to log if a step raised an exception.
    """
    try:
        data = setup.storage.read(task.path)
    except FileNotFoundError:
        return _raw_missing(f"{task.path} is missing;"), None
    # All days reuse the result for this SHA-256, also after a damaged file is replaced.
    if task.verifies and hashlib.sha256(data).hexdigest() != task.sha256:
        return _raw_missing(
            f"{task.path} is damaged: its SHA-256 is not that of its row; delete it and"
        ), None
    try:
        file, record = process_image(data, setup.settings, detector)
    except Exception as error:  # noqa: BLE001  (a failed image does not stop the others)
        error_message = f"{type(error).__name__}: {error}"
        return {"outcome": Outcome.FAILED, "error": error_message}, traceback.format_exc()
    columns = {name: getattr(record, name) for name in ImageRecord.__slots__}
    if file is not None:
        path = processed_path(task.retailer, task.sha256, setup.settings_hash, extension(file))
        setup.storage.write(path, file)
        columns |= {"path": path, "sha256": hashlib.sha256(file).hexdigest(), "bytes": len(file)}
    return columns, None


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
    _process_tasks(setup, tasks, messages)


if __name__ == "__main__":
    main()
