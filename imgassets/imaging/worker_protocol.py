"""What a run process and its imaging worker processes share: setup, tasks, settings hash, rows.

This module imports no decoder and no detector, because run processes import it. The run's side is
in `worker_pool`, the workers' side in `worker`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from imgassets.imaging.models import model_sha256
from imgassets.imaging.steps import source_hash
from imgassets.manifests import URL_FIELDS, Outcome, ProcessedRow, RawRow
from imgassets.settings import STEPS, RetailerSettings
from imgassets.storage import Storage

# Increase it when a step gives another result for equal input and settings: all images are then
# processed again.
VERSION = 6

LENGTH_BYTES = 4  # size of the length before each message of a worker, big-endian


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """Setup of a worker, sent once before the images.

    Attributes:
        storage: Storage of the raw images, to which processed images are written.
        settings: Settings of the retailer.
        settings_hash: Hash of these settings, from `settings_hash`.
        model: File of the face detector.
    """

    storage: Storage
    settings: RetailerSettings
    settings_hash: str
    model: Path


class Task(NamedTuple):
    """An image to process: what a worker needs of its raw row.

    A row has texts of any length (URL, headers). Tasks are short, so that those of a worker fit
    into its pipe, and the run process never waits for a worker that hangs.

    Attributes:
        path: Path of the raw file.
        sha256: SHA-256 of the raw file, in hexadecimal.
        retailer: Slug of the retailer.
        verifies: Whether to compare the file with its SHA-256.
    """

    path: str
    sha256: str
    retailer: str
    verifies: bool


def processed_row(raw: RawRow, hash_: str, outcome: Outcome, **columns: object) -> ProcessedRow:
    """Build the row of an image.

    Args:
        raw: Row of `raw_images`.
        hash_: Hash of the settings.
        outcome: What happened to the image.
        **columns: Further columns of `ProcessedRow`.
    """
    url_values = {name: getattr(raw, name) for name in URL_FIELDS}
    return ProcessedRow(
        **url_values,
        raw_path=raw.path,
        raw_sha256=raw.sha256,
        outcome=outcome,
        settings_hash=hash_,
        **columns,  # type: ignore[arg-type]
    )


def row_without_image(raw: RawRow, hash_: str, outcome: Outcome, error: str) -> ProcessedRow:
    """Build the row of an image that was not processed.

    Args:
        raw: Row of `raw_images`.
        hash_: Hash of the settings.
        outcome: Why there is no processed image.
        error: Description of the failure, for users.

    Returns:
        The row, without a path.
    """
    return processed_row(raw, hash_, outcome, error=error)


def settings_hash(settings: RetailerSettings) -> str:
    """Hash all that a processed image depends on except its raw bytes: settings, model, version.

    Args:
        settings: Settings of the retailer.

    Returns:
        The first 16 hexadecimal digits of a SHA-256.

    Raises:
        StepError: A user's step cannot be imported.
    """
    parts = settings.model_dump(
        mode="json",
        include={"decode", "process", "faces", "resize", "trim", "encode"},
        exclude={
            "process": {"keep_raw", "timeout_s", "processes", "shard_size"},
            "faces": {"model_source", "model_config_source", "model_sha256"},
        },
    )
    parts["process"]["steps"] = settings.steps
    parts["model"] = model_sha256(settings.faces)
    parts["own"] = [source_hash(step) for step in settings.steps if step not in STEPS]
    text = json.dumps({"version": VERSION, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
