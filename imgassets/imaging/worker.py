"""The process that works on pictures: `python -m imgassets.imaging.worker`.

Here lives what happens in it: it takes pictures from standard input, one after the other, and says
on standard output (pickled tuples, each after its length) the row of each that is done. It is a
process of its own so that a detector or decoder that crashes takes it down and not the run; who
starts it, and finds out which picture it was, is `isolation`.
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
from imgassets.imaging.encode import suffix
from imgassets.imaging.faces import FaceDetector, load_detector
from imgassets.imaging.pipeline import ImageRecord, process_image
from imgassets.imaging.worker_protocol import LENGTH_BYTES, Job, row_without_image
from imgassets.manifests import Outcome, ProcessedRow, RawRow
from imgassets.storage import IMAGES

# Options of `mallopt`, and the variables that they can be set by as well.
_MALLOPT = {-1: "MALLOC_TRIM_THRESHOLD_", -3: "MALLOC_MMAP_THRESHOLD_"}
_KEPT_BYTES = 1 << 28


def _take(tasks: BinaryIO) -> RawRow | None:
    try:
        raw: RawRow = pickle.load(tasks)  # noqa: S301  (our own parent's)
    except EOFError:
        return None
    return raw


def _tell(answers: BinaryIO, kind: str, what: object) -> None:
    answer = pickle.dumps((kind, what))
    try:
        answers.write(len(answer).to_bytes(LENGTH_BYTES) + answer)
        answers.flush()
    except BrokenPipeError:
        os._exit(1)  # the run was killed: nobody is left to tell, nor to read a traceback


def _serve(job: Job, tasks: BinaryIO, answers: BinaryIO) -> None:
    """Work until standard input ends: the run wants no more, or is gone."""
    # The processes are the parallel ones: OpenCV's threads would only compete with them.
    cv2.setNumThreads(1)
    try:
        detector = load_detector(job.model, job.settings.faces)
        _tell(answers, "ready", None)
        while (raw := _take(tasks)) is not None:
            row, trouble = _processed(raw, job, detector)
            if trouble is not None:
                _tell(answers, "log", trouble)
            _tell(answers, "row", row)
    except (ModelError, StorageError) as error:
        _tell(answers, "error", error)


def _processed(raw: RawRow, job: Job, detector: FaceDetector) -> tuple[ProcessedRow, str | None]:
    """A picture's row, and what a person should read of its failure."""
    try:
        data = job.raw_folder.read(str(raw.path))
    except FileNotFoundError:
        error = f"{raw.path} is gone; materialize raw_images of the partition again"
        return row_without_image(raw, job.hash, Outcome.RAW_MISSING, error), None
    try:
        file, record = process_image(data, job.settings, detector)
    except Exception as error:  # noqa: BLE001  (one picture's failure never stops the others)
        trouble = f"{raw.key} ({raw.url}) failed:\n{traceback.format_exc()}"
        told = f"{type(error).__name__}: {error}"
        return row_without_image(raw, job.hash, Outcome.FAILED, told), trouble
    path = sha256 = size = None
    if file is not None:
        name = f"{raw.key}.{suffix(file)}"
        (job.folder / IMAGES).write(name, file)
        path, sha256 = f"{IMAGES}/{name}", hashlib.sha256(file).hexdigest()
        size = len(file)
    row = ProcessedRow(
        key=raw.key,
        url=raw.url,
        product_id=raw.product_id,
        raw_sha256=raw.sha256,
        settings_hash=job.hash,
        path=path,
        bytes=size,
        sha256=sha256,
        **{name: getattr(record, name) for name in ImageRecord.__slots__},
    )
    return row, None


def _keep_memory() -> None:
    """Keep what pictures leave free, where the C library is glibc.

    Pictures of many sizes come and go: their memory would be handed back to the system after each,
    and asked for again, zeroed, for the next; detection alone takes 1.6 times as long.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, variable in _MALLOPT.items():
            if variable not in os.environ:
                mallopt(option, _KEPT_BYTES)


def main() -> None:
    """Serve the process that started this one."""
    faulthandler.enable()
    _keep_memory()
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    tasks = sys.stdin.buffer
    job: Job = pickle.load(tasks)  # noqa: S301  (our own parent's)
    _serve(job, tasks, answers)


if __name__ == "__main__":
    main()
