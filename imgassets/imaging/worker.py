"""Worker process that processes images: `python -m imgassets.imaging.worker`.

It reads a pickled `WorkerSetup` and then pickled raw rows from standard input, processes one image
after the other, and writes its messages to standard output: pickled tuples, each preceded by its
length. It is a separate process so that a crash of the detector or of a decoder does not end the
run. `worker_pool` starts the workers and finds the image that one crashed on.
"""

from __future__ import annotations

import ctypes
import datetime as dt
import faulthandler
import hashlib
import os
import pickle
import sys
import traceback
from contextlib import suppress
from http import HTTPStatus
from typing import BinaryIO

import cv2

from imgassets.errors import ModelError, StorageError
from imgassets.imaging.encode import extension
from imgassets.imaging.faces import FaceDetector, load_detector
from imgassets.imaging.pipeline import ImageRecord, process_image
from imgassets.imaging.worker_protocol import (
    LENGTH_BYTES,
    WorkerSetup,
    processed_row,
    row_without_image,
)
from imgassets.manifests import Outcome, ProcessedRow, RawRow
from imgassets.storage import processed_path

# Options of glibc's `mallopt`, and the environment variables that set them.
_MALLOPT = {-1: "MALLOC_TRIM_THRESHOLD_", -3: "MALLOC_MMAP_THRESHOLD_"}
_MALLOC_THRESHOLD_BYTES = 1 << 28
_JUST_DOWNLOADED = dt.timedelta(hours=6)


def _read_task(tasks: BinaryIO) -> RawRow | None:
    """Read the next raw row; None if standard input is closed."""
    try:
        raw: RawRow = pickle.load(tasks)  # noqa: S301  (from the process that started this one)
    except EOFError:
        return None
    return raw


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
        while (raw := _read_task(tasks)) is not None:
            row, log_text = _process(raw, setup, detector)
            if log_text is not None:
                _send(messages, "log", log_text)
            _send(messages, "row", row)
    except (ModelError, StorageError) as error:
        _send(messages, "error", error)


def _process(
    raw: RawRow, setup: WorkerSetup, detector: FaceDetector
) -> tuple[ProcessedRow, str | None]:
    """Process one image.

    Args:
        raw: Row of `raw_images`.
        setup: Storage and settings.
        detector: The face detector.

    Returns:
        The row of `processed_images`, and the traceback to log if a step raised an exception.
    """
    try:
        data = setup.storage.read(str(raw.path))
    except FileNotFoundError:
        error_message = f"{raw.path} is missing; materialize raw_images of the partition again"
        return row_without_image(raw, setup.settings_hash, Outcome.RAW_MISSING, error_message), None
    # All days reuse the result for this SHA-256, also after a damaged file is replaced.
    if not _is_just_downloaded(raw) and hashlib.sha256(data).hexdigest() != raw.sha256:
        error_message = (
            f"{raw.path} is damaged: its SHA-256 is not that of its row; delete it and "
            "materialize raw_images of the partition again"
        )
        return row_without_image(raw, setup.settings_hash, Outcome.RAW_MISSING, error_message), None
    try:
        file, record = process_image(data, setup.settings, detector)
    except Exception as error:  # noqa: BLE001  (a failed image does not stop the others)
        log_text = f"{raw.key} ({raw.url}) failed:\n{traceback.format_exc()}"
        error_message = f"{type(error).__name__}: {error}"
        return row_without_image(raw, setup.settings_hash, Outcome.FAILED, error_message), log_text
    path = sha256 = size = None
    if file is not None:
        path = processed_path(raw.retailer, str(raw.sha256), setup.settings_hash, extension(file))
        setup.storage.write(path, file)
        sha256, size = hashlib.sha256(file).hexdigest(), len(file)
    columns = {name: getattr(record, name) for name in ImageRecord.__slots__ if name != "outcome"}
    row = processed_row(
        raw, setup.settings_hash, record.outcome, path=path, bytes=size, sha256=sha256, **columns
    )
    return row, None


def _is_just_downloaded(raw: RawRow) -> bool:
    """Whether the download has just written the file, after it computed its SHA-256.

    To compute it again would take 1 to 2 % of the processing time.
    """
    if not raw.attempts or raw.http_status == HTTPStatus.NOT_MODIFIED or raw.fetched_at is None:
        return False
    return dt.datetime.now(dt.UTC) - raw.fetched_at < _JUST_DOWNLOADED


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
