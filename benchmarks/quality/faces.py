"""Measure face detection and removal: recall, false detections, and cuts below the chin.

    python -m benchmarks.quality.faces --count 1008 --faceless 504 --seed 2026

All settings are the defaults. "YuNet at 640" is the reference: the same network on the whole image,
decoded at full resolution and scaled to a longer side of 640 pixels with area interpolation.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from benchmarks.quality.people import PHOTOS, SHARES, Labelled, with_face, without_face
from imgassets.imaging.faces import FaceDetector, load_detector
from imgassets.imaging.models import ensure_model
from imgassets.imaging.pipeline import ImageRecord, process_image
from imgassets.settings import FaceSettings, RetailerSettings


class ReferenceDetector:
    """YuNet at 640 pixels, on the whole image in a single pass."""

    def __init__(self, model: Path, min_score: float) -> None:
        """Load the network.

        Args:
            model: path of the ONNX file.
            min_score: minimum score of a detected face.
        """
        self._network = cv2.FaceDetectorYN.create(str(model), "", (320, 320), min_score, 0.3, 5000)

    def finds(self, labelled: Labelled) -> bool:
        """Whether it finds the labelled face, or any face in an image without one."""
        pixels = cv2.imdecode(np.frombuffer(labelled.file, np.uint8), cv2.IMREAD_COLOR)
        scale = 640 / max(pixels.shape[:2])
        size = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
        self._network.setInputSize(size)
        _, found = self._network.detect(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
        boxes = [] if found is None else (np.asarray(found)[:, :4] / scale).tolist()
        return any(_hits(box, labelled) for box in boxes) if labelled.share else bool(boxes)


def _hits(box: list[float], labelled: Labelled) -> bool:
    """Whether the centre of a box is less than half a face height from the labelled centre."""
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    distance = np.hypot(x - labelled.centre[0], y - labelled.centre[1])
    return bool(distance < 0.5 * labelled.face)


def _process(labelled: Labelled, detector: FaceDetector) -> ImageRecord:
    return process_image(labelled.file, RetailerSettings(), detector)[1]


def main() -> None:
    """Generate the images, detect faces and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1008)
    parser.add_argument("--faceless", type=int, default=504)
    parser.add_argument("--seed", type=int, default=2026)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    faces = FaceSettings()
    with tempfile.TemporaryDirectory() as folder:
        model = ensure_model(faces, Path(folder))
    detector, reference = load_detector(model, faces), ReferenceDetector(model, faces.min_score)

    natural = [path for path in sorted(PHOTOS.glob("*.jpg")) if path.stem != "cutout_no_head"]
    found = sum(
        process_image(path.read_bytes(), RetailerSettings(), detector)[1].face_count == 1
        for path in natural
    )
    print(f"natural faces found: {found} of {len(natural)}\n")

    ours: dict[float, list[bool]] = defaultdict(list)
    references: dict[float, list[bool]] = defaultdict(list)
    below: list[float] = []
    for labelled in with_face(arguments.count, arguments.seed):
        record = _process(labelled, detector)
        boxes = [[float(v) for v in box] for box in record.face_boxes or []]
        hit = any(_hits(box, labelled) for box in boxes)
        ours[labelled.share].append(hit)
        references[labelled.share].append(reference.finds(labelled))
        if hit and record.face_cut is not None:
            below.append((record.face_cut - labelled.chin) / labelled.face)
    print("| face height / image height | images | imgassets | YuNet at 640 |\n|---|---|---|---|")
    for share in SHARES:
        print(
            f"| {share:.0%} | {len(ours[share])} | {np.mean(ours[share]):.1%} "
            f"| {np.mean(references[share]):.1%} |"
        )
    cuts = np.array(below)
    print(
        f"\n{len(cuts)} crops: below the labelled chin {np.mean(cuts >= 0):.2%}, of them at most a "
        f"quarter of the face height below it {np.mean(cuts[cuts >= 0] <= 0.25):.2%}; "
        f"distance below the chin in face heights, percentiles 1, 50, 99: "
        f"{', '.join(f'{v:.3f}' for v in np.percentile(cuts, [1, 50, 99]))}"
    )
    _print_false_detections(detector, reference, arguments.faceless, arguments.seed + 1)


def _print_false_detections(
    detector: FaceDetector, reference: ReferenceDetector, count: int, seed: int
) -> None:
    false = reference_false = 0
    for labelled in without_face(count, seed):
        false += bool(_process(labelled, detector).face_count)
        reference_false += reference.finds(labelled)
    print(
        f"\n{count} images without a face: false detections {false}, YuNet at 640 {reference_false}"
    )


if __name__ == "__main__":
    main()
