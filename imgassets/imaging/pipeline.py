"""Process one image: decode it, run the steps of the settings, encode it.

This is a pure function from a served file to a training image and a record. Many images, worker
processes and storage are in `partition`; each step has its own module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from imgassets.errors import UnreadableImageError
from imgassets.imaging.decode import decode
from imgassets.imaging.encode import encode
from imgassets.imaging.faces import Face, FaceDetector
from imgassets.imaging.image import Box, Image
from imgassets.imaging.removal import Removal, chin_row, remove_faces
from imgassets.imaging.resize import resize
from imgassets.imaging.steps import run_user_step
from imgassets.imaging.trim import find_trim
from imgassets.manifests import Outcome
from imgassets.settings import RetailerSettings

_TOO_CLOSE_ERROR = "a cut below the chin would leave too little of the image (faces.min_left)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """What was done to one image; the fields are those of `manifests.ProcessedRow`."""

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
    """Process a served image into a training image.

    Args:
        data: The content of the served file.
        settings: The retailer's settings.
        detector: A face detector that belongs to the calling thread.

    Returns:
        The content of the processed file, and the record. The content is None if the served file
        cannot be read as an image, or if the face is too close and such images are skipped.

    Raises:
        Exception: Any error that a user's step raises.
    """
    try:
        image = decode(
            data, settings.decode, lambda width, height: _shrink_factor(width, height, settings)
        )
    except UnreadableImageError as error:
        return None, ImageRecord(outcome=error.outcome, error=str(error))

    record = ImageRecord(outcome=Outcome.OK)
    for step in settings.steps:
        if step == "remove_face":
            without_faces, record = _run_remove_face(image, record, settings, detector)
            if without_faces is None:
                return None, record
            image = without_faces
        elif step == "trim":
            image, record = _run_trim(image, record, settings)
        elif step == "resize":
            image = resize(image, settings.resize)
        else:
            image = run_user_step(step, image)
    untouched = settings.encode.format == "served" and not settings.steps
    file = data if untouched else encode(image.pixels, settings.encode, data)
    return file, replace(
        record,
        width=image.width,
        height=image.height,
        kept_box=image.box_in_original.as_list(),
    )


def find_faces(data: bytes, settings: RetailerSettings, detector: FaceDetector) -> list[list[int]]:
    """Find the faces that `process_image` finds in a served image if no user's step comes before.

    Args:
        data: The content of the served file.
        settings: The retailer's settings.
        detector: A face detector that belongs to the calling thread.

    Returns:
        The box of each face, in the form of `manifests.ProcessedRow.face_boxes`.

    Raises:
        UnreadableImageError: The file cannot be read as an image.
    """
    image = decode(
        data, settings.decode, lambda width, height: _shrink_factor(width, height, settings)
    )
    return [_box_in_original(face, image) for face in detector.find(image.pixels)]


def _shrink_factor(width: int, height: int, settings: RetailerSettings) -> int:
    """Compute by how much an image can be shrunk while decoding, without loss in the result.

    Decoding at half the size costs less, and saves the area filter most of its work. The decoded
    image must still have the detector's input size, and enough pixels for the resize, even if a
    crop removes most of the height.

    Args:
        width: The width of the served image, in pixels.
        height: The height of the served image, in pixels.
        settings: The retailer's settings.

    Returns:
        The factor: 1, 2, 4 or 8.
    """
    steps = settings.steps
    if "resize" not in steps:
        return 1
    before = steps[: steps.index("resize")]
    size = settings.resize.size or (settings.resize.max_side, settings.resize.max_side)
    # A trim or a user's step can leave any small part of the image to the resize.
    if size[0] is None or size[1] is None or not {"remove_face"}.issuperset(before):
        return 1
    detects_faces = "remove_face" in before and settings.faces.action != "none"
    needed = settings.faces.detect_side if detects_faces else 0
    crops = detects_faces and settings.faces.action == "crop"
    height_left = height * settings.faces.min_left if crops else height
    for factor in (8, 4, 2):
        if max(width, height) >= needed * factor and (
            width >= size[0] * factor or height_left >= size[1] * factor
        ):
            return factor
    return 1


def _run_remove_face(
    image: Image, record: ImageRecord, settings: RetailerSettings, detector: FaceDetector
) -> tuple[Image | None, ImageRecord]:
    if settings.faces.action == "none":
        return image, record
    faces = sorted(
        detector.find(image.pixels),
        key=lambda face: chin_row(face, image, settings.faces),
        reverse=True,
    )
    record = replace(record, face_count=len(faces))
    if not faces:
        return image, record
    removal = remove_faces(image, faces, settings.faces)
    return removal.image, _record_faces(record, image, faces, removal)


def _record_faces(
    record: ImageRecord, image: Image, faces: Sequence[Face], removal: Removal
) -> ImageRecord:
    boxes = [_box_in_original(face, image) for face in faces]
    scores = [round(face.score, 4) for face in faces]
    cut = removal.image.box_in_original.y if removal.cropped and removal.image else None
    return replace(
        record,
        outcome=Outcome.TOO_CLOSE if removal.too_close else record.outcome,
        error=_TOO_CLOSE_ERROR if removal.too_close else record.error,
        face_box=boxes[0],
        face_score=scores[0],
        face_boxes=boxes,
        face_scores=scores,
        face_landmarks=[_landmarks_in_original(face, image) for face in faces],
        face_action=removal.action,
        face_rule=removal.rule,
        face_cut=cut,
        face_removed=removal.removed,
    )


def _box_in_original(face: Face, image: Image) -> list[int]:
    """Convert a face's box to pixels of the original image: `[x, y, width, height]`."""
    box = Box(round(face.x), round(face.y), round(face.width), round(face.height))
    return image.to_original(box).as_list()


def _landmarks_in_original(face: Face, image: Image) -> list[int]:
    """Convert a face's landmarks to pixels of the original image, rounded: `[x, y, x, y, …]`."""
    points: list[int] = []
    for x, y in zip(face.landmarks[::2], face.landmarks[1::2], strict=True):
        points.append(round(image.left + x * image.scale_x))
        points.append(round(image.top + y * image.scale_y))
    return points


def _run_trim(
    image: Image, record: ImageRecord, settings: RetailerSettings
) -> tuple[Image, ImageRecord]:
    if settings.trim.method == "none":
        return image, record
    found = find_trim(image.pixels, settings.trim)
    return image.crop(found.box), replace(
        record,
        trim_box=found.box.as_list(),
        trim_threshold=found.threshold,
        trim_ratio=found.box.area / (image.width * image.height),
    )
