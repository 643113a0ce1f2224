"""One picture through all steps: decode, remove the face, resize, trim, encode.

Here lives the order of the steps and what is recorded of them, as a pure function. Many pictures,
threads and storage are in `partition`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from imgassets.imaging.decode import NotAnImage, TooManyPixels, Unreadable, decode
from imgassets.imaging.encode import encode
from imgassets.imaging.faces import Face, FaceDetector, crop
from imgassets.imaging.picture import Box, Picture
from imgassets.imaging.resize import resize
from imgassets.imaging.trim import find_by_variance
from imgassets.manifests import Outcome
from imgassets.settings import RetailerSettings

# To be raised by whoever changes what comes out of a step for equal input and settings, so that
# pictures are made anew.
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRecord:
    """What was done to one picture; the fields are those of `manifests.ProcessedRow`."""

    outcome: Outcome
    error: str | None = None
    width: int | None = None
    height: int | None = None
    face_count: int | None = None
    face_box: list[int] | None = None
    face_score: float | None = None
    face_boxes: list[list[int]] | None = None
    face_scores: list[float] | None = None
    face_landmarks: list[list[int]] | None = None
    face_action: str | None = None
    face_cut: int | None = None
    face_removed: bool | None = None
    trim_box: list[int] | None = None
    trim_threshold: float | None = None
    trim_ratio: float | None = None
    kept_box: list[int] | None = None


def settings_hash(settings: RetailerSettings) -> str:
    """A short hash of all that a picture depends on but its own bytes: settings, model, version."""
    parts = settings.model_dump(
        mode="json",
        include={"decode", "faces", "resize", "trim", "encode"},
        exclude={"faces": {"model_source"}},
    )
    text = json.dumps({"version": VERSION, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def process_picture(
    data: bytes, settings: RetailerSettings, detector: FaceDetector
) -> tuple[bytes | None, PictureRecord]:
    """Make a training picture of a served one.

    Args:
        data: the served file.
        settings: of the retailer.
        detector: belongs to the calling thread.

    Returns:
        The picture's file and the record; no file where the outcome is not ok.
    """
    record = PictureRecord(outcome=Outcome.OK)
    try:
        picture = decode(data, settings.decode)
    except NotAnImage as error:
        return None, replace(record, outcome=Outcome.NOT_AN_IMAGE, error=str(error))
    except TooManyPixels as error:
        return None, replace(record, outcome=Outcome.TOO_MANY_PIXELS, error=str(error))
    except Unreadable as error:
        return None, replace(record, outcome=Outcome.CORRUPT, error=str(error))

    left, record = _remove_faces(picture, record, settings, detector)
    if left is None:
        return None, record
    picture = resize(left, settings.resize)
    picture, record = _trim(picture, record, settings)
    file = encode(picture.pixels, settings.encode)
    return file, replace(
        record,
        width=picture.width,
        height=picture.height,
        kept_box=picture.served_box.as_list(),
    )


def _remove_faces(
    picture: Picture, record: PictureRecord, settings: RetailerSettings, detector: FaceDetector
) -> tuple[Picture | None, PictureRecord]:
    if settings.faces.action == "none":
        return picture, record
    faces = sorted(
        detector.find(picture.pixels),
        key=lambda face: face.chin(settings.faces.margin),
        reverse=True,
    )
    record = replace(record, face_count=len(faces))
    if not faces:
        return picture, record
    record = _with_faces(record, picture, faces)
    removal = crop(picture, faces, settings.faces)
    if removal.picture is None:
        return None, replace(
            record,
            outcome=Outcome.TOO_CLOSE,
            error=f"a crop below the chin leaves less than {settings.faces.min_left:.0%} "
            "of the picture's height",
            face_action="none",
            face_removed=False,
        )
    cut = removal.picture.served_box.y
    return removal.picture, replace(record, face_action="crop", face_cut=cut, face_removed=True)


def _with_faces(record: PictureRecord, picture: Picture, faces: Sequence[Face]) -> PictureRecord:
    boxes = [
        picture.served(
            Box(round(face.x), round(face.y), round(face.width), round(face.height))
        ).as_list()
        for face in faces
    ]
    scores = [round(face.score, 4) for face in faces]
    landmarks = [
        [
            round(start + value * scale)
            for value, (start, scale) in zip(
                face.landmarks,
                [(picture.left, picture.scale_x), (picture.top, picture.scale_y)]
                * (len(face.landmarks) // 2),
                strict=True,
            )
        ]
        for face in faces
    ]
    return replace(
        record,
        face_box=boxes[0],
        face_score=scores[0],
        face_boxes=boxes,
        face_scores=scores,
        face_landmarks=landmarks,
    )


def _trim(
    picture: Picture, record: PictureRecord, settings: RetailerSettings
) -> tuple[Picture, PictureRecord]:
    if settings.trim.method == "none":
        return picture, record
    found = find_by_variance(picture.pixels, settings.trim)
    return picture.cut(found.box), replace(
        record,
        trim_box=found.box.as_list(),
        trim_threshold=found.threshold,
        trim_ratio=found.box.area / (picture.width * picture.height),
    )
