"""Detect faces again in processed images, to find those where a face is left.

This covers one image, or a sample of a partition. Which images are in a sample, and whether they
must be looked at again, is in `residual_sample`; the asset check `residual_faces`, which evaluates
the result, is in `imgassets.checks.residual_faces`.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from imgassets.errors import UnreadableImageError
from imgassets.imaging.decode import decode
from imgassets.imaging.faces import Face
from imgassets.imaging.image import Pixels
from imgassets.imaging.residual_sample import ResidualFaces, sample_of
from imgassets.imaging.resize import shrink_by_area
from imgassets.imaging.yunet import Network, load_shared_network
from imgassets.manifests import ProcessedRow
from imgassets.settings import DecodeSettings, RetailerSettings
from imgassets.storage import Storage

# The look was chosen on real catalogue photographs (benchmarks/quality/residual.py). At 480 px and
# more it finds slightly smaller faces, for more time and more false detections.
_SIDE = 384  # px; longer side of the image as the network sees it
_MAX_ENLARGEMENT = 2.0  # of thumbnails: it shows a face of `_MIN_HEIGHT` at 24 px

# Height of the white band above the image / height of the image. A face of which the upper edge
# shows only mouth and chin looks like one with covered eyes then, which the network finds.
_BAND = 0.2
_WHITE = (255, 255, 255)

# Enlarged, the pattern of a tie looks like faces of 6 to 8 px, with scores up to 0.84 (in the
# demo's images); faces of real people in them are 40 px and more.
_MIN_HEIGHT = 12

# Of the removed face's height: 28 necks in the demo's images look at most 0.65 as high as the face;
# 87 faces in real photographs that are cut in the middle, at least 0.71.
_NECK = 0.69


def find_residual_faces(pixels: Pixels, network: Network, min_score: float) -> list[Face]:
    """Find the faces left in a processed image, also those that its upper edge cuts.

    This is one pass of the network over the whole image, with a white band above it. It shares
    neither scales nor regions nor rules with the detectors of `faces`, whose misses it is to find.

    Args:
        pixels: The processed image; height x width x 3, uint8, BGR.
        network: The network.
        min_score: The lowest score that counts as a face, from 0 to 1.

    Returns:
        The faces, without landmarks, in pixels of the processed image; a face that the upper edge
        cuts begins above it.
    """
    height, width = pixels.shape[:2]
    scale = min(_SIDE / max(height, width), _MAX_ENLARGEMENT)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if scale < 1:
        shown = shrink_by_area(pixels, size)
    else:
        shown = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    band = round(size[1] * _BAND)
    shown = np.asarray(
        cv2.copyMakeBorder(shown, band, 0, 0, 0, cv2.BORDER_CONSTANT, value=_WHITE), np.uint8
    )
    scale_x, scale_y = width / size[0], height / size[1]
    found = [
        Face(x * scale_x, (y - band) * scale_y, w * scale_x, h * scale_y, score)
        for x, y, w, h, *_, score in network.find(shown, min_score).tolist()
    ]
    return [face for face in found if face.height >= _MIN_HEIGHT]


def detect_residual_faces(
    table: pa.Table,
    storage: Storage,
    settings: RetailerSettings,
    model: Path,
    *,
    threads: int,
) -> ResidualFaces:
    """Detect faces again in a sample of a partition's processed images.

    Images that another partition processed are not checked again, and images that keep a printed
    face are not checked. If the settings do not remove faces, no image is checked.

    Args:
        table: The manifest of `processed_images`.
        storage: The storage.
        settings: The retailer's settings; `checks.residual_sample` is the size of the sample.
        model: A file of YuNet, whichever detector the settings name.
        threads: Number of images checked at the same time.

    Returns:
        How many images were checked, and in which of them a face was found.

    Raises:
        ModelError: The model cannot be loaded.
    """
    sample = sample_of(table, settings)
    if not sample:
        return ResidualFaces(0, {}, [], intact=True)
    network = load_shared_network(model)
    others: list[str] = []

    def find_boxes(row: ProcessedRow) -> list[list[int]] | None:
        try:
            data = storage.read(str(row.path))
            if hashlib.sha256(data).hexdigest() != row.sha256:
                others.append(row.key)
            pixels = decode(data, DecodeSettings()).pixels
        except (FileNotFoundError, UnreadableImageError):
            return None
        faces = find_residual_faces(pixels, network, settings.checks.residual_min_score)
        neck_height = _max_neck_height(row)
        return [
            [round(side) for side in (face.x, face.y, face.width, face.height)]
            for face in faces
            if face.y >= 0 or face.height > neck_height
        ]

    with ThreadPoolExecutor(threads, thread_name_prefix="residual") as pool:
        found = list(zip(sample, pool.map(find_boxes, sample), strict=True))
    unreadable = [row.key for row, boxes in found if boxes is None]
    with_face = {row.key: boxes for row, boxes in found if boxes}
    intact = not (unreadable or others)
    return ResidualFaces(len(found) - len(unreadable), with_face, unreadable, intact)


def _max_neck_height(row: ProcessedRow) -> float:
    """The height up to which a face at the upper edge is a neck, in pixels of the processed image.

    Below a cut, throat and collar can look like the mouth and chin of a smaller face.
    """
    if row.face_cut is None or not row.face_boxes or not row.kept_box or not row.height:
        return 0.0
    removed = max(height for _, _, _, height in row.face_boxes)
    return _NECK * removed * row.height / row.kept_box[3]
