"""Find the box of a product by the edges that stand out from the background: method `background`.

The edge maps are in `outline`; the method `variance`, and the choice between the two, in `trim`.

A product has an outline: luma or chroma changes within a pixel or two. Backgrounds in shops' images
change slowly (gradients, vignettes, uneven light, soft shadows) or weakly everywhere (noise, paper,
plaster). The box is therefore the bounding box of all edges above the background's noise level that
belong to a line of some length, which noise and dust do not.

An outline may fade: a pale chain, a strap, a hem in a shadow. Each side of the box therefore moves
outwards as long as fainter edges continue beyond it, counted per row along the whole side: many
faint edges in a row are an outline, a single one is noise.

On a textured background,

1. regions that are smoother than it belong to the product as well;
2. if the outline is hardly steeper than the noise, the image is not trimmed;
3. otherwise the box gets a margin.

The edges of what surrounds the inner image (hairlines and bars, see `frame`) and of a floor behind
the product (see `floor`) are left out.

If the box is suspiciously small, the threshold is relaxed twice. The constants were chosen with
`benchmarks/quality`, by how much product they cut off and how much background they leave; its
README names the seeds.
"""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np

from imgassets.imaging.floor import find_floor
from imgassets.imaging.frame import (
    find_bars,
    find_hairlines,
    find_padded,
    has_black_border,
    remove,
)
from imgassets.imaging.image import Box, Pixels
from imgassets.imaging.outline import (
    EdgeMaps,
    Mask,
    Plane,
    bounding_box,
    compute_edge_maps,
    erase,
    faint_edge_masks,
    find_edge_box,
)
from imgassets.imaging.resize import shrink_by_area

_Found: TypeAlias = tuple[Box, float | None]

_WORK_SIDE = 448  # maximum side (px) of the image that edges are searched in
_MIN_SIDE = 16  # minimum side (px): smaller images are not trimmed
_RELAXATIONS = (1.0, 0.6, 0.36)  # factors of the noise threshold, tried in turn
_STRICT = 1.5  # factor of the threshold that an outline must exceed on a textured background
_BORDER = 0.03  # of the longer side: a narrower margin may be product that fades at the border

# A row (of pixels at half resolution) beyond the box continues a faint outline if its number of
# faint pixels exceeds the usual one, the median of the outer half of the margin, by `_MIN_EXCESS`
# plus `_DEVIATIONS` times the standard deviation of a random count. `_MAX_GAP` rows without one end
# the outline.
_MAX_GAP, _MIN_EXCESS, _DEVIATIONS = 2, 2, 3.0

# Margin (px) on a textured background, where faint edges are lost in the noise: a product whose
# stripes have the background's brightness lost 2.0 % without it, and loses 1.4 % with it.
_TEXTURED_MARGIN = 3

_TEXTURED = 1.25  # a background is textured from this ratio of the threshold to its minimum on
# A region is product if its mean gradient over 3x3 cells is lower than that of the textured
# background by this share. The side of a cell is in pixels.
_SMOOTHER, _CELL = 0.45, 8

_NEARLY_WHITE = 235
_FLOOD_STEP = 2  # maximum difference (levels) of neighbours: gradients are below, outlines above
_FLOOD_SHARE = 0.015  # minimum flooded share of the box: a straight seam stops the fill
_SAME_COLOUR = 80  # levels: difference that lighting makes between two ends of one background

# A product below the minimum side of the settings: its own minimum shorter and longer side, and the
# range of its centre (shares of the image's sides).
_SMALL_MIN_SIDES, _CENTRE_RANGE = (0.03, 0.15), (0.25, 0.75)
_TOLERANCE = 20  # pixels that boxes at two thresholds may differ by: JPEG blocks are 16 wide


def find_by_background(pixels: Pixels, min_side: float) -> _Found | None:
    """Find the product's box by its edges.

    Args:
        pixels: Image of shape height x width x 3, uint8, BGR.
        min_side: Minimum side of the box as a share of the image's side. A smaller box is accepted
            only if nothing else is visible: a small product on a plain background.

    Returns:
        The box in pixels, and the gradient (levels/pixel) from which on a pixel counted as an edge;
        that is None if only bars beside the inner image are cut off. None instead of both if no box
        is reliable; the image should then be left as it is.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < _MIN_SIDE:
        return None
    scale = min(1.0, _WORK_SIDE / max(height, width))
    size = max(2, round(width * scale)), max(2, round(height * scale))
    small = pixels if scale == 1 else shrink_by_area(pixels, size)
    if min(size) < _MIN_SIDE:
        found = _find_inside(small, min_side)
    else:
        found = _cut_bars(small, _find_within_hairlines(small, min_side), min_side)
    return None if found is None else (_scale_box(found[0], size, (width, height)), found[1])


def _find_within_hairlines(pixels: Pixels, min_side: float) -> _Found | None:
    """Find the product's box in an image that may have hairlines along its borders."""
    size = pixels.shape[1], pixels.shape[0]
    widths = find_hairlines(pixels)
    if not any(widths):
        return _find_inside(pixels, min_side)
    inner = remove(widths, size)
    found = _find_inside(_crop(pixels, inner), min_side)
    if found is None:
        return None
    box = _shift(found[0], inner)
    # A product that the inner image's border cuts off is kept up to the border of the file's image.
    return Box.from_edges(
        0 if box.x == inner.x else box.x,
        0 if box.y == inner.y else box.y,
        size[0] if box.right == inner.right else box.right,
        size[1] if box.bottom == inner.bottom else box.bottom,
    ), found[1]


def _cut_bars(pixels: Pixels, found: _Found | None, min_side: float) -> _Found | None:
    """Cut off bars that a box includes, and the margins of an inner image between two of them."""
    size = pixels.shape[1], pixels.shape[0]
    if found is None:
        inner = remove(find_bars(pixels), size)
        return None if inner == Box(0, 0, *size) else (inner, None)
    box, threshold = found
    if box.height == size[1] and box.x > 0 and box.right < size[0]:
        padded = find_padded(pixels)
        nested = None if padded is None else _find_inside(_crop(pixels, padded), min_side)
        if padded is not None and nested is not None:
            return _shift(nested[0], padded), nested[1]
    if has_black_border(pixels, box):
        inner = remove(find_bars(pixels), size)
        left, top = max(box.x, inner.x), max(box.y, inner.y)
        right, bottom = min(box.right, inner.right), min(box.bottom, inner.bottom)
        if left < right and top < bottom:
            return Box.from_edges(left, top, right, bottom), threshold
    return found


def _crop(pixels: Pixels, box: Box) -> Pixels:
    return np.ascontiguousarray(pixels[box.y : box.bottom, box.x : box.right])


def _shift(box: Box, outer: Box) -> Box:
    """Convert a box in a part of an image to one in the image."""
    return Box(box.x + outer.x, box.y + outer.y, box.width, box.height)


def _find_inside(pixels: Pixels, min_side: float) -> _Found | None:
    """Find the product's box in an image of at most the work size, without hairlines or bars."""
    size = pixels.shape[1], pixels.shape[0]
    maps = compute_edge_maps(pixels)
    first = find_edge_box(maps, 1.0)
    areas = None
    if first is not None and (first.x == 0 or first.right == maps.size[0]):
        areas = find_floor(maps, pixels)
    if areas is not None:
        maps = erase(maps, areas)
        first = find_edge_box(maps, 1.0)
    textured = maps.noise_ratio >= _TEXTURED
    smooth = _box_of_smooth_region(maps.gradient) if textured else None
    candidates: list[Box] = []
    for relaxation in _RELAXATIONS:
        edges = first if relaxation == 1 else find_edge_box(maps, relaxation)
        box = bounding_box(edges, smooth)
        if box is None:
            continue
        candidates.append(box)
        if box.width >= min_side * size[0] and box.height >= min_side * size[1]:
            break
    else:
        if textured or not candidates or not _is_small_product(candidates[0], candidates[-1], size):
            return None
    if textured and not _nearly_contains(find_edge_box(maps, _STRICT), candidates[-1]):
        return None
    box = _extend_to_faint_edges(candidates[-1], maps, relaxation)
    box = _undo_uncertain_cuts(box, pixels[: maps.size[1], : maps.size[0]])
    return _snap_to_border(box, size), maps.threshold * relaxation


def _extend_to_faint_edges(box: Box, maps: EdgeMaps, relaxation: float) -> Box:
    """Move the sides of the box outwards as far as a faint outline continues in any map."""
    left, top = box.x // 2, box.y // 2
    right, bottom = -(-box.right // 2), -(-box.bottom // 2)
    extents = [0, 0, 0, 0]
    for mask in faint_edge_masks(maps, relaxation):
        columns, rows = _projection(mask[top:bottom], 0), _projection(mask[:, left:right], 1)
        outwards = columns[:left][::-1], rows[:top][::-1], columns[right:], rows[bottom:]
        extents = [max(old, _faint_extent(c)) for old, c in zip(extents, outwards, strict=True)]
    # The response of the Sobel kernel reaches a pixel beyond the edge.
    margins = [2 * extent - 1 if extent else 0 for extent in extents]
    if maps.noise_ratio >= _TEXTURED:
        margins = [max(margin, _TEXTURED_MARGIN) for margin in margins]
    left, top = max(0, box.x - margins[0]), max(0, box.y - margins[1])
    right = min(maps.size[0], box.right + margins[2])
    bottom = min(maps.size[1], box.bottom + margins[3])
    return Box.from_edges(left, top, right, bottom)


def _projection(mask: Mask, axis: int) -> list[int]:
    """Number of set pixels in each column (axis 0) or row (axis 1)."""
    sums = cv2.reduce(mask.view(np.uint8), axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S)
    return np.asarray(sums, np.int32).ravel().tolist()


def _faint_extent(counts: list[int]) -> int:
    """Count the rows over which a faint outline continues.

    Args:
        counts: Number of faint pixels in each row, from the box outwards.

    Returns:
        The number of rows from the box to the last row of the outline; 0 if there is none.
    """
    outer = sorted(counts[len(counts) // 2 :])
    usual = outer[len(outer) // 2] if outer else 0
    limit = usual + _DEVIATIONS * usual**0.5 + _MIN_EXCESS
    extent = 0
    for index, count in enumerate(counts):
        if count > limit:
            extent = index + 1
        elif index - extent >= _MAX_GAP:
            break
    return extent


def _box_of_smooth_region(gradient: Plane) -> Box | None:
    """Bounding box of the region that is smoother than a textured background: plain cloth."""
    height, width = int(gradient.shape[0]), int(gradient.shape[1])
    size = max(1, width // _CELL), max(1, height // _CELL)
    cells = cv2.resize(gradient.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    cells = np.asarray(cv2.blur(cells, (3, 3)))
    borders = np.concatenate([cells[0], cells[-1], cells[:, 0], cells[:, -1]])
    rows, columns = np.nonzero(cells < (1 - _SMOOTHER) * np.median(borders))
    if rows.size == 0:
        return None
    # One cell for the radius of the blur, and one because a corner fills only part of its cell.
    left, top = max(0, int(columns.min()) - 2), max(0, int(rows.min()) - 2)
    right, bottom = min(size[0], int(columns.max()) + 3), min(size[1], int(rows.max()) + 3)
    return _scale_box(Box.from_edges(left, top, right, bottom), size, (width, height))


def _nearly_contains(box: Box | None, other: Box) -> bool:
    """Whether a box contains another, with a tolerance of `_TOLERANCE` pixels per side."""
    if box is None:
        return False
    return (
        box.x - other.x <= _TOLERANCE
        and box.y - other.y <= _TOLERANCE
        and other.right - box.right <= _TOLERANCE
        and other.bottom - box.bottom <= _TOLERANCE
    )


def _snap_to_border(box: Box, size: tuple[int, int]) -> Box:
    """Move sides of the box that are close to the image's border onto the border."""
    distance = round(_BORDER * max(size))
    left, top = (side if side > distance else 0 for side in (box.x, box.y))
    right, bottom = (
        end if end < full - distance else full
        for end, full in zip((box.right, box.bottom), size, strict=True)
    )
    return Box.from_edges(left, top, right, bottom)


def _is_small_product(first: Box, last: Box, size: tuple[int, int]) -> bool:
    """Whether a small box is a product rather than dust, a logo or the print of a pale shirt.

    A third of the threshold must give no larger box than the full threshold.

    Args:
        first: The box at the first threshold.
        last: The box at the last threshold.
        size: Width and height of the image in pixels.

    Returns:
        True if the size and the position of the box are those of a product.
    """
    sides = sorted((last.width / size[0], last.height / size[1]))
    centre = (last.x + last.width / 2) / size[0], (last.y + last.height / 2) / size[1]
    return (
        _nearly_contains(first, last)
        and all(side >= minimum for side, minimum in zip(sides, _SMALL_MIN_SIDES, strict=True))
        and all(_CENTRE_RANGE[0] <= at <= _CENTRE_RANGE[1] for at in centre)
    )


def _undo_uncertain_cuts(box: Box, pixels: Pixels) -> Box:
    """Undo cuts of areas that may be product although they contain no edges.

    If the product reaches both the left and the right border, the areas above and below it are not
    connected, and one may be cloth: a plain skirt that fills the bottom of the image. They are cut
    off only if they have the same colour or are nearly white. The same holds for left and right;
    but people and clothes are upright, so an area beside them that continues into the box, behind
    shoulders and hems, is cut off too.

    Args:
        box: The box that the edges gave.
        pixels: The image that the box refers to, shape height x width x 3, uint8, BGR.

    Returns:
        The box, with the sides of uncertain cuts moved to the image's border.
    """
    height, width = pixels.shape[:2]
    left, top, right, bottom = box.x, box.y, box.right, box.bottom
    if box.width == width:
        top_is_background, bottom_is_background = _are_background(pixels[:top], pixels[bottom:])
        top, bottom = top if top_is_background else 0, bottom if bottom_is_background else height
    elif box.height == height:
        left_is_background, right_is_background = _are_background(
            pixels[:, :left], pixels[:, right:]
        )
        if not left_is_background and not _floods_into_box(pixels, box, (0, height // 2)):
            left = 0
        if not right_is_background and not _floods_into_box(pixels, box, (width - 1, height // 2)):
            right = width
    return Box.from_edges(left, top, right, bottom)


def _floods_into_box(pixels: Pixels, box: Box, seed: tuple[int, int]) -> bool:
    """Whether a flood fill from a pixel outside the box covers some of the box."""
    x, y = seed
    if box.x <= x < box.right and box.y <= y < box.bottom:
        return False
    mask = np.zeros((pixels.shape[0] + 2, pixels.shape[1] + 2), np.uint8)
    smooth = cv2.GaussianBlur(pixels, (3, 3), 0)
    # Comparing neighbours instead of with the seed follows gradients and stops at outlines.
    step = (_FLOOD_STEP,) * 3
    cv2.floodFill(smooth, mask, seed, (0, 0, 0), step, step, 4 | cv2.FLOODFILL_MASK_ONLY)
    inside = mask[1:-1, 1:-1][box.y : box.bottom, box.x : box.right]
    return float(inside.mean()) >= _FLOOD_SHARE


def _are_background(first: Pixels, last: Pixels) -> tuple[bool, bool]:
    """Whether each of two opposite strips is background: nearly white, or both of one colour."""
    # Every fourth pixel: a median of all of them takes as long as the rest of the trim.
    colours = [
        np.median(strip[::4, ::4], axis=(0, 1)) if strip.size else None for strip in (first, last)
    ]
    white = [colour is None or float(colour.min()) >= _NEARLY_WHITE for colour in colours]
    if colours[0] is not None and colours[1] is not None:
        same = bool(np.abs(colours[0] - colours[1]).max() <= _SAME_COLOUR)
        return white[0] or same, white[1] or same
    return white[0], white[1]


def _scale_box(box: Box, size: tuple[int, int], full: tuple[int, int]) -> Box:
    """Scale a box from an image of one size to another, rounded outwards."""
    across, down = full[0] / size[0], full[1] / size[1]
    x, y = int(box.x * across), int(box.y * down)
    right = min(full[0], -int(-box.right * across // 1))
    bottom = min(full[1], -int(-box.bottom * down // 1))
    return Box.from_edges(x, y, right, bottom)
