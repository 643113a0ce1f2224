"""Detect faces again in processed images, to find those where a face is left.

This covers one image, or a sample of a partition. The asset check `residual_faces`, which evaluates
the result, is in `imgassets.checks.residual_faces`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgassets.errors import UnreadableImageError
from imgassets.imaging.decode import decode
from imgassets.imaging.faces import Face
from imgassets.imaging.image import Pixels
from imgassets.imaging.resize import shrink_by_area
from imgassets.imaging.yunet import Network, load_shared_network
from imgassets.manifests import Outcome, ProcessedRow, from_table
from imgassets.settings import DecodeSettings, RetailerSettings
from imgassets.storage import Storage
from imgassets.tables import as_mask

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


@dataclass(frozen=True, slots=True)
class ResidualFaces:
    """The images of a partition in which a face is left.

    Attributes:
        checked: Number of images that were checked.
        with_face: Boxes (x, y, width, height) of the found faces, in pixels of the image, by the
            key of the image.
        unreadable: Keys of the images that could not be checked, because the file is missing or
            damaged.
    """

    checked: int
    with_face: dict[str, list[list[int]]]
    unreadable: list[str]


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
    if settings.faces.action == "none" or "remove_face" not in settings.steps:
        return ResidualFaces(0, {}, [])
    network = load_shared_network(model)

    def find_boxes(row: ProcessedRow) -> list[list[int]] | None:
        try:
            pixels = decode(storage.read(str(row.path)), DecodeSettings()).pixels
        except (FileNotFoundError, UnreadableImageError):
            return None
        faces = find_residual_faces(pixels, network, settings.checks.residual_min_score)
        neck_height = _max_neck_height(row)
        return [
            [round(side) for side in (face.x, face.y, face.width, face.height)]
            for face in faces
            if face.y >= 0 or face.height > neck_height
        ]

    sample = choose_sample(table, settings.checks.residual_sample)
    with ThreadPoolExecutor(threads, thread_name_prefix="residual") as pool:
        found = list(zip(sample, pool.map(find_boxes, sample), strict=True))
    unreadable = [row.key for row, boxes in found if boxes is None]
    with_face = {row.key: boxes for row, boxes in found if boxes}
    return ResidualFaces(len(found) - len(unreadable), with_face, unreadable)


def _max_neck_height(row: ProcessedRow) -> float:
    """The height up to which a face at the upper edge is a neck, in pixels of the processed image.

    Below a cut, throat and collar can look like the mouth and chin of a smaller face.
    """
    if row.face_cut is None or not row.face_boxes or not row.kept_box or not row.height:
        return 0.0
    removed = max(height for _, _, _, height in row.face_boxes)
    return _NECK * removed * row.height / row.kept_box[3]


def choose_sample(table: pa.Table, size: int) -> list[ProcessedRow]:
    """Choose the rows to check: half of them with a found face, half without, evenly spread.

    A face can be left where one was found, if the cut is too high or there is a second face; most
    faces are left where none was found. If one half has too few rows, the other gets more.

    Args:
        table: The manifest of `processed_images`; rows without an image, images that another
            partition processed, and images that keep a printed face, are left out.
        size: The largest number of rows to return.
    """
    is_wanted = pc.and_(
        pc.and_(pc.equal(table["outcome"], str(Outcome.OK)), pc.is_valid(table["path"])),
        pc.and_(
            pc.is_null(table["reused_from"]),
            pc.not_equal(table["face_rule"], "printed").fill_null(True),
        ),
    )
    wanted = np.flatnonzero(as_mask(is_wanted))
    # By path: several rows may have one image.
    paths = table["path"].take(pa.array(wanted)).combine_chunks().dictionary_encode()
    processed = np.zeros(len(paths.dictionary), np.int64)
    processed[paths.indices.to_numpy()] = wanted
    had_face = as_mask(pc.greater(table["face_count"], 0))[processed]
    with_face, others = processed[had_face], processed[~had_face]
    first = _spread(with_face, max(size // 2, size - len(others)))
    chosen = np.concatenate([first, _spread(others, size - len(first))])
    return from_table(table.take(pa.array(chosen)), ProcessedRow)


def _spread(numbers: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Choose `size` numbers at even distances, or all if there are fewer."""
    if len(numbers) <= size:
        return numbers
    return numbers[len(numbers) * np.arange(size) // size]
