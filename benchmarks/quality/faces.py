"""How many faces are found, falsely found, and cut off below the chin.

    python -m benchmarks.quality.faces --count 1008 --faceless 504 --seed 2026

All at the settings that pictures are made with. "YuNet at 640" is the same network, shown the whole
picture at full resolution, scaled to a longer side of 640 by area: what the faster way is held to.
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


class Whole:
    """YuNet at 640 without any of our shortcuts."""

    def __init__(self, model: Path, min_score: float) -> None:
        """Load the network."""
        self._network = cv2.FaceDetectorYN.create(str(model), "", (320, 320), min_score, 0.3, 5000)

    def finds(self, labelled: Labelled) -> bool:
        """Whether it finds a face (where there is one: the labelled one)."""
        pixels = cv2.imdecode(np.frombuffer(labelled.file, np.uint8), cv2.IMREAD_COLOR)
        scale = 640 / max(pixels.shape[:2])
        size = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
        self._network.setInputSize(size)
        _, found = self._network.detect(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
        boxes = [] if found is None else (np.asarray(found)[:, :4] / scale).tolist()
        return any(_hits(box, labelled) for box in boxes) if labelled.share else bool(boxes)


def _hits(box: list[float], labelled: Labelled) -> bool:
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    away = np.hypot(x - labelled.centre[0], y - labelled.centre[1])
    return bool(away < 0.5 * labelled.face)


def _processed(labelled: Labelled, detector: FaceDetector) -> ImageRecord:
    return process_image(labelled.file, RetailerSettings(), detector)[1]


def main() -> None:
    """Draw, look, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1008)
    parser.add_argument("--faceless", type=int, default=504)
    parser.add_argument("--seed", type=int, default=2026)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    faces = FaceSettings()
    with tempfile.TemporaryDirectory() as folder:
        model = ensure_model(faces, Path(folder))
    detector, whole = load_detector(model, faces), Whole(model, faces.min_score)

    natural = [path for path in sorted(PHOTOS.glob("*.jpg")) if path.stem != "cutout_no_head"]
    found = sum(
        process_image(path.read_bytes(), RetailerSettings(), detector)[1].face_count == 1
        for path in natural
    )
    print(f"natural faces found: {found} of {len(natural)}\n")

    ours: dict[float, list[bool]] = defaultdict(list)
    theirs: dict[float, list[bool]] = defaultdict(list)
    below: list[float] = []
    for labelled in with_face(arguments.count, arguments.seed):
        record = _processed(labelled, detector)
        boxes = [[float(v) for v in box] for box in record.face_boxes or []]
        hit = any(_hits(box, labelled) for box in boxes)
        ours[labelled.share].append(hit)
        theirs[labelled.share].append(whole.finds(labelled))
        if hit and record.face_cut is not None:
            below.append((record.face_cut - labelled.chin) / labelled.face)
    print("| face height / picture | pictures | imgassets | YuNet at 640 |\n|---|---|---|---|")
    for share in SHARES:
        print(
            f"| {share:.0%} | {len(ours[share])} | {np.mean(ours[share]):.1%} "
            f"| {np.mean(theirs[share]):.1%} |"
        )
    cuts = np.array(below)
    print(
        f"\n{len(cuts)} crops: below the labelled chin {np.mean(cuts >= 0):.2%}, of them at most a "
        f"quarter of the face below it {np.mean(cuts[cuts >= 0] <= 0.25):.2%}; "
        f"percentiles 1, 50, 99 (face heights below the chin): "
        f"{', '.join(f'{v:.3f}' for v in np.percentile(cuts, [1, 50, 99]))}"
    )
    false = theirs_false = 0
    for labelled in without_face(arguments.faceless, arguments.seed + 1):
        false += bool(_processed(labelled, detector).face_count)
        theirs_false += whole.finds(labelled)
    print(
        f"\n{arguments.faceless} pictures without a face: false hits {false}, "
        f"YuNet at 640 {theirs_false}"
    )


if __name__ == "__main__":
    main()
