"""Tell faces that are printed on a product from the faces of people.

Detecting faces is in `faces`, removing them in `removal`.

The head of a person is at the top of what the image shows. A printed face has the product around
and above it. This can be seen where the background beside the product is plain; elsewhere, every
face counts as a person's. So does a face in a rectangle, which may be a photograph in a frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from imgassets.imaging.faces import Face
from imgassets.imaging.image import Pixels
from imgassets.imaging.resize import shrink, shrink_by_factor

_MAP_SIDE = 224  # px; longer side of the image in which the background is searched
_FLOOD_STEP = 3  # grey levels; larger differences of neighbouring pixels are outlines
_PLAIN_SHARE = 0.9  # of the edges beside and above a face

# A face is printed if, at all of these heights above its box (in face heights), the product is at
# least this many face widths wide. Heads are narrower, or end below the highest: the real people on
# plain backgrounds in benchmarks/quality, with hats, long hair and raised arms.
_ABOVE, _MIN_WIDTH = (0.3, 0.6, 0.9), 1.8

# A face below a person's, no farther aside than this (in that face's widths), is printed only if it
# is on the chest: at most so far aside, and so many face heights below the chin. Elsewhere it may
# be a child who stands before the person.
_BODY_WIDTH, _CHEST_WIDTH, _CHEST_HEIGHT = 2.5, 0.6, 3.0

_MAX_FILL = 0.86  # of the smallest rectangle around it; photographs in a frame fill more


def find_printed_faces(pixels: Pixels, faces: Sequence[Face]) -> list[Face]:
    """Find the faces that are printed on a product.

    Args:
        pixels: The image: height x width x 3, uint8, BGR.
        faces: The detected faces, in pixels of the image.

    Returns:
        Those of the faces that are printed; empty if the background is not plain.
    """
    scale = min(1.0, _MAP_SIDE / max(pixels.shape[:2]))
    low = [face for face in faces if face.y >= max(_ABOVE) * face.height]
    if not low:
        return []
    background = _find_background(pixels, scale)
    printed = [face for face in low if _is_printed(face, background, scale)]
    people = [face for face in faces if face not in printed]
    return [face for face in printed if not any(_may_stand_before(face, p) for p in people)]


def _find_background(pixels: Pixels, scale: float) -> NDArray[np.bool_]:
    """Find the plain region at the upper corners, in the image scaled by `scale`."""
    height, width = pixels.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = pixels
    # Halving first takes a third of the area filter's time at other scales.
    while small.shape[1] >= 2 * size[0] and small.shape[0] >= 2 * size[1]:
        small = shrink_by_factor(small, 2)
    small = shrink(small, size)
    mask = np.zeros((size[1] + 2, size[0] + 2), np.uint8)
    step = (_FLOOD_STEP,) * 3
    for corner in ((0, 0), (size[0] - 1, 0)):
        # Comparing neighbours instead of with the seed follows gradients and stops at outlines.
        cv2.floodFill(small, mask, corner, (0, 0, 0), step, step, 4 | cv2.FLOODFILL_MASK_ONLY)
    return mask[1:-1, 1:-1].astype(np.bool_)


def _is_printed(face: Face, background: NDArray[np.bool_], scale: float) -> bool:
    bottom = max(1, round((face.y + face.height) * scale))
    edges = background[:bottom, 0], background[:bottom, -1], background[0]
    if sum(float(edge.mean()) for edge in edges) < _PLAIN_SHARE * len(edges):
        return False
    middle = round((face.x + face.width / 2) * scale)
    last = len(background) - 1  # a box may begin below it, if only by rounding
    rows = (min(last, round((face.y - share * face.height) * scale)) for share in _ABOVE)
    narrowest = min(_width_at(background[row], middle) for row in rows)
    if narrowest < _MIN_WIDTH * face.width * scale:
        return False
    return _fill(background, (middle, round(face.y * scale))) < _MAX_FILL


def _may_stand_before(face: Face, person: Face) -> bool:
    below = face.y - (person.y + person.height)
    aside = abs(face.x + face.width / 2 - person.x - person.width / 2)
    on_chest = aside <= _CHEST_WIDTH * person.width and below <= _CHEST_HEIGHT * person.height
    return below > 0 and aside <= _BODY_WIDTH * person.width and not on_chest


def _fill(background: NDArray[np.bool_], point: tuple[int, int]) -> float:
    """The share of the smallest rectangle around a product that it fills.

    Args:
        background: height x width: what is not part of a product.
        point: x and y of a pixel of the product.
    """
    contours, _ = cv2.findContours(
        (~background).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    around = [c for c in contours if cv2.pointPolygonTest(c, point, measureDist=False) >= 0]
    if not around:
        return 0.0
    filled = cv2.drawContours(np.zeros(background.shape, np.uint8), around, 0, 1, cv2.FILLED)
    # The rectangle is that of the centres of the outermost pixels.
    _, (width, height), _ = cv2.minAreaRect(around[0])
    return float(np.count_nonzero(filled) / ((width + 1) * (height + 1)))


def _width_at(background: NDArray[np.bool_], middle: int) -> int:
    """The width of what is not background around the middle of a row; 0 if that is background."""
    outside = np.flatnonzero(background)
    left = int(outside[outside <= middle].max(initial=-1))
    right = int(outside[outside >= middle].min(initial=background.size))
    return max(0, right - left - 1)
