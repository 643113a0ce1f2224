"""The images in which faces are detected again, and the result of an earlier run for the same ones.

A run that changes no image need not detect their faces again, nor import what that takes. The
detection is in `residual`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgassets.manifests import Outcome, ProcessedRow, from_table
from imgassets.settings import RetailerSettings
from imgassets.storage import PartitionFiles, Storage
from imgassets.tables import as_mask

RESULT = "residual_faces.json"
"""The file of a partition's last result, in its review folder."""
_THREADS = 8  # files of an object store that are read at the same time
_VERSION = 1  # increase it when the detection changes, so that it is done again


@dataclass(frozen=True, slots=True)
class ResidualFaces:
    """The images of a partition in which a face is left.

    Attributes:
        checked: Number of images that were checked.
        with_face: Boxes (x, y, width, height) of the found faces, in pixels of the image, by the
            key of the image.
        unreadable: Keys of the images that could not be checked, because the file is missing or
            damaged.
        intact: Whether every file of the sample had the checksum in its row.
    """

    checked: int
    with_face: dict[str, list[list[int]]]
    unreadable: list[str]
    intact: bool


def read_result(
    table: pa.Table,
    partition: PartitionFiles,
    settings: RetailerSettings,
    model: Path,
) -> ResidualFaces | None:
    """Read the result of an earlier run, if it is about the same images and nothing has changed.

    Every file of the sample is read, and must have the checksum in its row.

    Args:
        table: The manifest of `processed_images`.
        partition: The files of the partition.
        settings: The retailer's settings.
        model: The file of the network.

    Returns:
        The result; None if faces have to be detected. If there is no image to check, the result of
        that.

    Raises:
        StorageError: A file cannot be read.
    """
    sample = sample_of(table, settings)
    if not sample:
        return ResidualFaces(0, {}, [], intact=True)
    storage = partition.storage
    try:
        known = json.loads(storage.read(f"{partition.review}/{RESULT}"))
    except (FileNotFoundError, ValueError):
        return None
    if known.pop("state") != _state(sample, settings, model):
        return None
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="residual") as pool:
        unchanged = all(pool.map(lambda row: _is_unchanged(row, storage), sample))
    return ResidualFaces(**known) if unchanged else None


def write_result(
    found: ResidualFaces,
    table: pa.Table,
    partition: PartitionFiles,
    settings: RetailerSettings,
    model: Path,
) -> None:
    """Write a result for `read_result`, unless a file of the sample was not that of its row.

    Args:
        found: The result.
        table: The manifest of `processed_images`.
        partition: The files of the partition.
        settings: The retailer's settings.
        model: The file of the network.

    Raises:
        StorageError: The file cannot be written.
    """
    if not found.intact:
        return
    state = _state(sample_of(table, settings), settings, model)
    text = json.dumps({"state": state, **asdict(found)})
    partition.storage.write(f"{partition.review}/{RESULT}", text.encode())


def sample_of(table: pa.Table, settings: RetailerSettings) -> list[ProcessedRow]:
    """The rows to check with the settings of a retailer; none if these do not remove faces.

    Args:
        table: The manifest of `processed_images`.
        settings: The settings; `checks.residual_sample` is the size of the sample.
    """
    if settings.faces.action == "none" or "remove_face" not in settings.steps:
        return []
    return choose_sample(table, settings.checks.residual_sample)


def _state(sample: Sequence[ProcessedRow], settings: RetailerSettings, model: Path) -> str:
    """A hash of everything that the result depends on."""
    digest = hashlib.sha256(repr((_VERSION, settings.checks.residual_min_score)).encode())
    digest.update(hashlib.sha256(model.read_bytes()).digest())
    for row in sample:
        removed = row.face_cut, row.face_boxes, row.kept_box, row.height
        digest.update(repr((row.key, row.path, row.sha256, *removed)).encode())
    return digest.hexdigest()


def _is_unchanged(row: ProcessedRow, storage: Storage) -> bool:
    try:
        data = storage.read(str(row.path))
    except FileNotFoundError:
        return False
    return hashlib.sha256(data).hexdigest() == row.sha256


def choose_sample(table: pa.Table, size: int) -> list[ProcessedRow]:
    """Choose the rows to check: half of them with a found face, half without, evenly spread.

    A face can be left where one was found, if the cut is too high or there is a second face; most
    faces are left where none was found. If one half has too few rows, the other gets more.

    Args:
        table: The manifest of `processed_images`; rows without an image, images that another
            partition processed, and images that keep a printed face, are left out.
        size: The largest number of rows to return.
    """
    is_wanted = pc.and_(
        pc.and_(pc.equal(table["outcome"], str(Outcome.OK)), pc.is_valid(table["path"])),
        pc.and_(
            pc.is_null(table["reused_from"]),
            pc.not_equal(table["face_rule"], "printed").fill_null(True),
        ),
    )
    wanted = np.flatnonzero(as_mask(is_wanted))
    # By path: several rows may have one image.
    paths = table["path"].take(pa.array(wanted)).combine_chunks().dictionary_encode()
    processed = np.zeros(len(paths.dictionary), np.int64)
    processed[paths.indices.to_numpy()] = wanted
    had_face = as_mask(pc.greater(table["face_count"], 0))[processed]
    with_face, others = processed[had_face], processed[~had_face]
    first = _spread(with_face, max(size // 2, size - len(others)))
    chosen = np.concatenate([first, _spread(others, size - len(first))])
    return from_table(table.take(pa.array(chosen)), ProcessedRow)


def _spread(numbers: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Choose `size` numbers at even distances, or all if there are fewer."""
    if len(numbers) <= size:
        return numbers
    return numbers[len(numbers) * np.arange(size) // size]
