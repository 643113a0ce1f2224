"""What a run and the processes that work on its pictures tell each other.

Here lives what both need, so that a run imports no decoder and no detector: the job, the hash of
what a picture depends on, the row of a picture that was not made.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from imgassets.imaging.models import model_sha256
from imgassets.imaging.steps import source_hash
from imgassets.manifests import Outcome, ProcessedRow, RawRow
from imgassets.settings import STEPS, RetailerSettings
from imgassets.storage import Folder

# To be raised by whoever changes what comes out of a step for equal input and settings, so that
# pictures are made anew.
VERSION = 5

LENGTH_BYTES = 4  # before each answer of a worker: how long it is, big-endian


@dataclass(frozen=True, slots=True)
class Job:
    """What is common to all pictures of a worker.

    Attributes:
        raw_folder: that the paths of raw rows are relative to.
        folder: of the pictures to make.
        settings: of the retailer.
        hash: of these settings.
        model: the detector's file.
    """

    raw_folder: Folder
    folder: Folder
    settings: RetailerSettings
    hash: str
    model: Path


def row_without_image(raw: RawRow, hash_: str, outcome: Outcome, error: str) -> ProcessedRow:
    """The row of a picture that was not made."""
    return ProcessedRow(
        key=raw.key,
        url=raw.url,
        product_id=raw.product_id,
        raw_sha256=raw.sha256,
        outcome=outcome,
        error=error,
        settings_hash=hash_,
    )


def settings_hash(settings: RetailerSettings) -> str:
    """A short hash of all that a picture depends on but its own bytes: settings, model, version.

    Raises:
        StepError: a step of the user's own cannot be imported.
    """
    parts = settings.model_dump(
        mode="json",
        include={"decode", "process", "faces", "resize", "trim", "encode"},
        exclude={
            "process": {"keep_raw", "timeout_s"},
            "faces": {"model_source", "model_config_source", "model_sha256"},
        },
    )
    parts["model"] = model_sha256(settings.faces)
    parts["own"] = [source_hash(step) for step in settings.process.steps if step not in STEPS]
    text = json.dumps({"version": VERSION, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
