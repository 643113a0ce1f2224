"""The box of a product by the edges that stand out from the background.

Here lives the trim's method `background`; the other, and what is cut off, is in `trim`, and what
counts as an edge in `outline`.

A product has an outline: brightness or colour that changes within a pixel or two. What shops have
behind it changes slowly (gradients, vignettes, lamps on coloured walls, soft shadows), or faintly
all over (grain, paper, plaster). So the box is that of all edges that stand out and are part of a
line of some length: grain and dust are not.

An outline may fade: a pale chain, a strap, a hem in a shadow. So a side of the box moves outwards
as far as fainter traces go on beyond it, counted along the whole side: many faint ones in a row are
an outline where a single one is grain.

On a wall with a grain of its own, what is smoother than the wall is product as well, and the
picture is left as it is where an outline is hardly steeper than that grain; elsewhere some pixels
more are kept. Where the box is suspiciously small, the first condition is relaxed twice. The
constants were chosen on `benchmarks/quality`, by what they cut off and leave there; its README says
on which seeds.
"""

from __future__ import annotations

import cv2
import numpy as np

from imgassets.imaging.image import Box, Pixels
from imgassets.imaging.outline import Mask, Outline, Plane, around, faint, lines, trace
from imgassets.imaging.resize import averaged

_SIDE = 448  # the edges are looked for in a picture of at most this side
_LEAST = 16  # pixels: of a smaller picture nothing can be said
_RELAXED = (1.0, 0.6, 0.36)
_STRICT = 1.5
_CLOSE = 0.045  # of the longer side: a margin so narrow may be a product that fades at the edge

# Fainter traces are followed from a side of the box outwards, row by row (of pixels at half the
# size), till so many rows are without. A row has them if there are more in it than is usual in the
# outer half of that margin, by so many and so many times the chance deviation of the usual number.
_GAP, _MORE, _DEVIATIONS = 2, 2, 3.0

# Pixels that are kept beyond every side of the box on a rough wall, where faint traces drown: a
# product whose stripes are of the wall's brightness lost 2.0 %, and loses 1.4 %.
_ROUGH_MARGIN = 3

# A wall has a grain of its own from so much above the faintest edge on. What is smoother by that
# share, on average over three by three cells of so many pixels, is no wall.
_ROUGH, _SMOOTHER, _CELL = 1.25, 0.45, 8

_NEARLY_WHITE = 235
_SPREAD_STEP = 2  # levels from one pixel to the next: gradients have less, outlines more
_SPREAD = 0.015  # of the box; a straight seam lets nothing through
_ALIKE = 80  # levels: what a lamp makes of one wall from end to end

# A product below the least side of the settings: its own least sides, the shorter and the longer,
# and where its middle must lie (shares of the picture's).
_SMALL, _MIDDLE = (0.03, 0.15), (0.25, 0.75)
_AGREE = 20  # pixels that boxes at two thresholds may differ by: JPEG's blocks are 16


def find_by_background(pixels: Pixels, min_side: float) -> tuple[Box, float] | None:
    """The product's box, and the slope (levels a pixel) that counted as an edge.

    Args:
        pixels: height x width x 3, uint8, BGR.
        min_side: a box with a shorter side (share of the picture's) is believed only where
            nothing else is to be seen: a small product on a plain ground.

    Returns:
        None where no box is believed: the picture is to be left as it is.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < _LEAST:
        return None
    scale = min(1.0, _SIDE / max(height, width))
    size = max(2, round(width * scale)), max(2, round(height * scale))
    small = pixels if scale == 1 else averaged(pixels, size)
    outline = trace(small)
    rough = outline.roughness >= _ROUGH
    smooth = _box_of_smooth(outline.slopes) if rough else None
    tried: list[Box] = []
    for relaxed in _RELAXED:
        box = around(lines(outline, relaxed), smooth)
        if box is None:
            continue
        tried.append(box)
        if box.width >= min_side * size[0] and box.height >= min_side * size[1]:
            break
    else:
        if rough or not tried or not _is_small_product(tried[0], tried[-1], size):
            return None
    if rough and not _nearly_holds(lines(outline, _STRICT), tried[-1]):
        return None
    box = _with_faint(tried[-1], outline, relaxed)
    box = _unless_unsure(box, small[: outline.size[1], : outline.size[0]])
    return _scaled(_to_close_edges(box, size), size, (width, height)), outline.threshold * relaxed


def _with_faint(box: Box, outline: Outline, relaxed: float) -> Box:
    """The box, its sides moved outwards as far as a faint outline goes on in any map."""
    left, top = box.x // 2, box.y // 2
    right, bottom = -(-(box.x + box.width) // 2), -(-(box.y + box.height) // 2)
    moved = [0, 0, 0, 0]
    for seen in faint(outline, relaxed):
        columns, rows = _counts(seen[top:bottom], 0), _counts(seen[:, left:right], 1)
        outwards = columns[:left][::-1], rows[:top][::-1], columns[right:], rows[bottom:]
        moved = [max(so_far, _followed(c)) for so_far, c in zip(moved, outwards, strict=True)]
    # A slope reaches a pixel beyond what makes it.
    by = [2 * rows - 1 if rows else 0 for rows in moved]
    if outline.roughness >= _ROUGH:
        by = [max(pixels, _ROUGH_MARGIN) for pixels in by]
    x, y = max(0, box.x - by[0]), max(0, box.y - by[1])
    end = min(outline.size[0], box.x + box.width + by[2])
    foot = min(outline.size[1], box.y + box.height + by[3])
    return Box(x, y, end - x, foot - y)


def _counts(seen: Mask, axis: int) -> list[int]:
    """How many pixels are seen in each column (axis 0) or row (axis 1)."""
    sums = cv2.reduce(seen.view(np.uint8), axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S)
    return np.asarray(sums, np.int32).ravel().tolist()


def _followed(counts: list[int]) -> int:
    """How many rows a faint outline goes on.

    Args:
        counts: of faint pixels in each row, from the box outwards.
    """
    farther = sorted(counts[len(counts) // 2 :])
    usual = farther[len(farther) // 2] if farther else 0
    least = usual + _DEVIATIONS * usual**0.5 + _MORE
    last = 0
    for number, count in enumerate(counts):
        if count > least:
            last = number + 1
        elif number - last >= _GAP:
            break
    return last


def _box_of_smooth(slopes: Plane) -> Box | None:
    """The box of what is smoother than a rough wall: plain cloth, whose outline the wall drowns."""
    height, width = int(slopes.shape[0]), int(slopes.shape[1])
    size = max(1, width // _CELL), max(1, height // _CELL)
    cells = cv2.resize(slopes.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    cells = np.asarray(cv2.blur(cells, (3, 3)))
    sides = np.concatenate([cells[0], cells[-1], cells[:, 0], cells[:, -1]])
    rows, columns = np.nonzero(cells < (1 - _SMOOTHER) * np.median(sides))
    if rows.size == 0:
        return None
    # One cell more belongs to the average, and corners fill but a part of theirs.
    left, top = max(0, int(columns.min()) - 2), max(0, int(rows.min()) - 2)
    right, bottom = min(size[0], int(columns.max()) + 3), min(size[1], int(rows.max()) + 3)
    return _scaled(Box(left, top, right - left, bottom - top), size, (width, height))


def _nearly_holds(box: Box | None, other: Box) -> bool:
    """Whether a box lacks no more than `_AGREE` pixels of another at any side."""
    if box is None:
        return False
    return (
        box.x - other.x <= _AGREE
        and box.y - other.y <= _AGREE
        and other.x + other.width - box.x - box.width <= _AGREE
        and other.y + other.height - box.y - box.height <= _AGREE
    )


def _to_close_edges(box: Box, size: tuple[int, int]) -> Box:
    """The box, its sides moved to the picture's edge where they are close to it."""
    close = round(_CLOSE * max(size))
    left, top = (side if side > close else 0 for side in (box.x, box.y))
    right, bottom = (
        end if end < full - close else full
        for end, full in zip((box.x + box.width, box.y + box.height), size, strict=True)
    )
    return Box(left, top, right - left, bottom - top)


def _is_small_product(first: Box, last: Box, size: tuple[int, int]) -> bool:
    """Whether a small box is a product, not dust, nor a logo, nor the print of a pale shirt.

    At a third of the threshold nothing else may be seen than at the whole of it.

    Args:
        first: the box at the first threshold.
        last: the box at the last.
        size: width and height of the picture.
    """
    shares = sorted((last.width / size[0], last.height / size[1]))
    middle = (last.x + last.width / 2) / size[0], (last.y + last.height / 2) / size[1]
    return (
        _nearly_holds(first, last)
        and all(share >= least for share, least in zip(shares, _SMALL, strict=True))
        and all(_MIDDLE[0] <= place <= _MIDDLE[1] for place in middle)
    )


def _unless_unsure(box: Box, pixels: Pixels) -> Box:
    """Undo a cut of which edges alone cannot say that it is background.

    Where the product reaches both sides, what is above and below it are two plain areas with
    nothing that joins them, and one may be cloth: a plain skirt that fills the picture's foot. They
    are cut off only if they are of one colour, or nearly white. The same for left and right; but
    people and clothes stand upright, so that an area beside them that runs on into the box, behind
    shoulders and hems, is cut off too.
    """
    height, width = pixels.shape[:2]
    left, top, right, bottom = box.x, box.y, box.x + box.width, box.y + box.height
    if box.width == width:
        first, last = _plain_background(pixels[:top], pixels[bottom:])
        top, bottom = top if first else 0, bottom if last else height
    elif box.height == height:
        first, last = _plain_background(pixels[:, :left], pixels[:, right:])
        left = left if first or _runs_on(pixels, box, (0, height // 2)) else 0
        right = right if last or _runs_on(pixels, box, (width - 1, height // 2)) else width
    return Box(left, top, right - left, bottom - top)


def _runs_on(pixels: Pixels, box: Box, seed: tuple[int, int]) -> bool:
    """Whether what is at a place outside the box spreads over a part of the box."""
    x, y = seed
    if box.x <= x < box.x + box.width and box.y <= y < box.y + box.height:
        return False
    mask = np.zeros((pixels.shape[0] + 2, pixels.shape[1] + 2), np.uint8)
    smooth = cv2.GaussianBlur(pixels, (3, 3), 0)
    # From neighbour to neighbour, so that gradients are followed and outlines are not crossed.
    step = (_SPREAD_STEP,) * 3
    cv2.floodFill(smooth, mask, seed, (0, 0, 0), step, step, 4 | cv2.FLOODFILL_MASK_ONLY)
    inside = mask[1:-1, 1:-1][box.y : box.y + box.height, box.x : box.x + box.width]
    return float(inside.mean()) >= _SPREAD


def _plain_background(first: Pixels, last: Pixels) -> tuple[bool, bool]:
    """Whether each of two opposite strips is background: nearly white, or both of one colour."""
    # Every fourth pixel: a median of all of them takes as long as everything else.
    colours = [
        np.median(part[::4, ::4], axis=(0, 1)) if part.size else None for part in (first, last)
    ]
    white = [colour is None or float(colour.min()) >= _NEARLY_WHITE for colour in colours]
    if colours[0] is not None and colours[1] is not None:
        alike = bool(np.abs(colours[0] - colours[1]).max() <= _ALIKE)
        return white[0] or alike, white[1] or alike
    return white[0], white[1]


def _scaled(box: Box, size: tuple[int, int], full: tuple[int, int]) -> Box:
    """The box in a picture of another size, rounded outwards."""
    across, down = full[0] / size[0], full[1] / size[1]
    x, y = int(box.x * across), int(box.y * down)
    right = min(full[0], -int(-(box.x + box.width) * across // 1))
    bottom = min(full[1], -int(-(box.y + box.height) * down // 1))
    return Box(x, y, right - x, bottom - y)
