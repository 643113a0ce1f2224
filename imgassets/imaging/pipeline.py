"""One picture through all steps: decode, the steps of the settings, encode.

Here lives the way of one picture and what is recorded of it, as a pure function. Many pictures,
processes and storage are in `partition`; what the steps do is in their modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from imgassets.errors import UnreadableImageError
from imgassets.imaging.decode import decode
from imgassets.imaging.encode import encode
from imgassets.imaging.faces import Face, FaceDetector
from imgassets.imaging.image import Box, Image
from imgassets.imaging.removal import Removal, chin, remove
from imgassets.imaging.resize import resize
from imgassets.imaging.steps import run_own_step
from imgassets.imaging.trim import find_trim
from imgassets.manifests import Outcome
from imgassets.settings import RetailerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
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
    face_rule: str | None = None
    face_cut: int | None = None
    face_removed: bool | None = None
    trim_box: list[int] | None = None
    trim_threshold: float | None = None
    trim_ratio: float | None = None
    kept_box: list[int] | None = None


def process_image(
    data: bytes, settings: RetailerSettings, detector: FaceDetector
) -> tuple[bytes | None, ImageRecord]:
    """Make a training picture of a served one.

    Args:
        data: the served file.
        settings: of the retailer.
        detector: belongs to the calling thread.

    Returns:
        The picture's file and the record; no file where there is no picture, or it is too close
        and to be skipped.

    Raises:
        Exception: whatever a step of the user's own raises.
    """
    try:
        picture = decode(
            data, settings.decode, lambda width, height: _shrink(width, height, settings)
        )
    except UnreadableImageError as error:
        return None, ImageRecord(outcome=error.outcome, error=str(error))

    record = ImageRecord(outcome=Outcome.OK)
    for step in settings.process.steps:
        if step == "remove_face":
            left, record = _remove_faces(picture, record, settings, detector)
            if left is None:
                return None, record
            picture = left
        elif step == "trim":
            picture, record = _trim(picture, record, settings)
        elif step == "resize":
            picture = resize(picture, settings.resize)
        else:
            picture = run_own_step(step, picture)
    untouched = settings.encode.format == "served" and not settings.process.steps
    file = data if untouched else encode(picture.pixels, settings.encode, data)
    return file, replace(
        record,
        width=picture.width,
        height=picture.height,
        kept_box=picture.served_box.as_list(),
    )


def _shrink(width: int, height: int, settings: RetailerSettings) -> int:
    """By how much a picture may be shrunk while it is decoded, without the result losing detail.

    Decoding at a half costs less, and saves the area filter most of its work. It must leave the
    face detector its size, and the resize enough: also where a crop takes most of the height.
    """
    steps = settings.process.steps
    if "resize" not in steps:
        return 1
    before = steps[: steps.index("resize")]
    size = settings.resize.size or (settings.resize.max_side, settings.resize.max_side)
    # A trim, or a step of the user's own, may leave any small part to the resize.
    if size[0] is None or size[1] is None or not {"remove_face"}.issuperset(before):
        return 1
    looks = "remove_face" in before and settings.faces.action != "none"
    needed = settings.faces.detect_side if looks else 0
    left = height * settings.faces.min_left if looks and settings.faces.action == "crop" else height
    for factor in (8, 4, 2):
        if max(width, height) >= needed * factor and (
            width >= size[0] * factor or left >= size[1] * factor
        ):
            return factor
    return 1


def _remove_faces(
    picture: Image, record: ImageRecord, settings: RetailerSettings, detector: FaceDetector
) -> tuple[Image | None, ImageRecord]:
    if settings.faces.action == "none":
        return picture, record
    faces = sorted(
        detector.find(picture.pixels),
        key=lambda face: chin(face, picture, settings.faces),
        reverse=True,
    )
    record = replace(record, face_count=len(faces))
    if not faces:
        return picture, record
    removal = remove(picture, faces, settings.faces)
    return removal.picture, _with_faces(record, picture, faces, removal)


def _with_faces(
    record: ImageRecord, picture: Image, faces: Sequence[Face], removal: Removal
) -> ImageRecord:
    boxes = [
        picture.served(
            Box(round(face.x), round(face.y), round(face.width), round(face.height))
        ).as_list()
        for face in faces
    ]
    scores = [round(face.score, 4) for face in faces]
    cut = removal.picture.served_box.y if removal.cut and removal.picture else None
    return replace(
        record,
        outcome=Outcome.TOO_CLOSE if removal.too_close else record.outcome,
        error="a cut below the chin leaves too little" if removal.too_close else record.error,
        face_box=boxes[0],
        face_score=scores[0],
        face_boxes=boxes,
        face_scores=scores,
        face_landmarks=[_landmarks(face, picture) for face in faces],
        face_action=removal.action,
        face_rule=removal.rule,
        face_cut=cut,
        face_removed=removal.removed,
    )


def _landmarks(face: Face, picture: Image) -> list[int]:
    places: list[int] = []
    for x, y in zip(face.landmarks[::2], face.landmarks[1::2], strict=True):
        places.append(round(picture.left + x * picture.scale_x))
        places.append(round(picture.top + y * picture.scale_y))
    return places


def _trim(
    picture: Image, record: ImageRecord, settings: RetailerSettings
) -> tuple[Image, ImageRecord]:
    if settings.trim.method == "none":
        return picture, record
    found = find_trim(picture.pixels, settings.trim)
    return picture.cut(found.box), replace(
        record,
        trim_box=found.box.as_list(),
        trim_threshold=found.threshold,
        trim_ratio=found.box.area / (picture.width * picture.height),
    )
