"""Draw backdrops and products of the sample catalogue.

The parts of a product are drawn as cloth that is lit from the upper left; their outlines are in
`products`. People, cut out of photographs, are in `people`; the plan of all images in `catalogue`.

Images are BGR, uint8, (height, width, 3); masks are uint8, (height, width), 255 inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from imgassets.demo.products import PRODUCTS, Colour, Part

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]
Backdrop = Literal["white", "grey", "gradient", "spot", "wall"]
Pattern = Literal["plain", "stripes", "checks"]

# Where a T-shirt is printed, in units of its outline: the left edge, the right and the lower one.
_PRINT_LEFT, _PRINT_RIGHT, _PRINT_BOTTOM = 33, 67, 70
_PRINT_COVER = 0.88  # the rest of the light comes from the cloth, so that its folds show

_SHADE_SCALE = 4  # light and shadow are smooth, so they are computed at 1/4 of the size


def backdrop(
    kind: Backdrop, width: int, height: int, colour: Colour, rng: np.random.Generator
) -> Pixels:
    """Draw an empty backdrop.

    Args:
        kind: White and grey are flat; gradient darkens downwards, spot outwards; wall is a
            coloured plane with grain.
        width: Width in pixels.
        height: Height in pixels.
        colour: Colour of the wall and, paler, of gradient and spot (BGR).
        rng: Source of the small variations.
    """
    if kind == "white":
        return np.full((height, width, 3), 255, np.uint8)
    if kind == "grey":
        return np.full((height, width, 3), int(rng.integers(222, 244)), np.uint8)

    y, x = np.mgrid[0 : height // 8, 0 : width // 8].astype(np.float32)
    y, x = y / y.max(), x / x.max()
    pale = np.array(colour, np.float32) * 0.15 + 245 * 0.85
    if kind == "gradient":
        base = pale - (42 * y**1.5)[..., None]
    elif kind == "spot":
        base = pale - (55 * ((x - 0.5) ** 2 + (y - 0.45) ** 2))[..., None]
    else:
        base = np.array(colour, np.float32) * (1.03 - 0.1 * x - 0.06 * y)[..., None]
    smooth = cv2.resize(base, (width, height), interpolation=cv2.INTER_LINEAR)
    # Grain hides the banding of an 8-bit gradient, as in a photograph.
    grain = _grain(height, width, 1.2 if kind != "wall" else 2.5, rng)
    empty: Pixels = np.clip(smooth + grain[..., None], 0, 255).astype(np.uint8)
    return empty


def draw_product(
    image: Pixels,
    name: str,
    colour: Colour,
    pattern: Pattern,
    *,
    rng: np.random.Generator,
    fill: float = 0.68,
    picture: Pixels | None = None,
) -> Mask:
    """Draw a product in the middle of an image, in place.

    Args:
        image: The backdrop to draw on.
        name: Name of the product, one of `PRODUCTS`.
        colour: Colour of the cloth (BGR).
        pattern: Pattern of the cloth.
        rng: Source of folds, grain and a slight rotation.
        fill: Share of the image's width or height that the product may take.
        picture: What is printed on the chest of a T-shirt, if anything; any size.

    Returns:
        The mask of the product.
    """
    parts = PRODUCTS[name]
    place = _placement(parts, image, fill, rng)
    masks: list[Mask] = []
    whole: Mask = np.zeros(image.shape[:2], np.uint8)
    for part in parts:
        mask = _rasterise(part, place, image)
        masks.append(np.minimum(mask, whole) if part.inside else mask)
        whole = np.maximum(whole, masks[-1])
    cast_shadow(image, whole, strength=0.3)
    for part, mask in zip(parts, masks, strict=True):
        tinted = tuple(min(255, int(c * part.tone)) for c in (part.colour or colour))
        woven: Pattern = "plain" if part.plain or part.width is not None else pattern
        _lay_cloth(image, mask, (tinted[0], tinted[1], tinted[2]), woven, unit=place[0, 0], rng=rng)
    if picture is not None:
        _print(image, picture, place)
    return whole


def cast_shadow(image: Pixels, mask: Mask, strength: float) -> None:
    """Draw the shadow of a mask, to its right and below it, in place.

    Args:
        image: The image to darken.
        mask: The mask that casts the shadow.
        strength: Largest share of the brightness that is removed.
    """
    height, width = mask.shape
    small = cv2.resize(mask, (width // 8, height // 8), interpolation=cv2.INTER_AREA)
    shift = np.array([[1, 0, height / 900], [0, 1, height / 500]], np.float32)
    moved = cv2.warpAffine(small, shift, (width // 8, height // 8))
    soft = cv2.GaussianBlur(moved, (0, 0), height / 700)
    dark = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    factor = 255 - cv2.convertScaleAbs(dark, alpha=strength)
    cv2.multiply(image, cv2.merge([factor] * 3), dst=image, scale=1 / 255)


def _placement(
    parts: Sequence[Part], image: Pixels, fill: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """The 2 x 3 transform from units to pixels: centres a product and rotates it slightly."""
    height, width = image.shape[:2]
    points = np.array([point for part in parts for point in part.points])
    low, high = points.min(0), points.max(0)
    scale = float(min(width * fill / (high - low)[0], height * fill / (high - low)[1]))
    turn = np.deg2rad(rng.uniform(-2.5, 2.5))
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    drift = rng.uniform(-0.03, 0.03, 2) * (width, height)
    offset = np.array([width / 2, height / 2]) + drift - linear @ ((low + high) / 2)
    return np.column_stack([linear, offset])


def _rasterise(part: Part, place: npt.NDArray[np.float64], image: Pixels) -> Mask:
    mask: Mask = np.zeros(image.shape[:2], np.uint8)
    points = _rounded(np.array(part.points, float), closed=part.width is None)
    pixels = points @ place[:, :2].T + place[:, 2]
    fixed = np.round(pixels * 16).astype(np.int32)  # 4 fractional bits, see `shift`
    if part.width is None:
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, shift=4)
    else:
        thick = max(1, round(part.width * float(np.hypot(*place[:, 0]))))
        cv2.polylines(mask, [fixed], False, 255, thick, cv2.LINE_AA, shift=4)
    return mask


def _rounded(points: npt.NDArray[np.float64], *, closed: bool) -> npt.NDArray[np.float64]:
    """Round the corners with three iterations of Chaikin's algorithm."""
    for _ in range(3):
        following = np.roll(points, -1, axis=0)
        cut = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], 1)
        if closed:
            points = cut.reshape(-1, 2)
        else:
            points = np.vstack([points[:1], cut[:-1].reshape(-1, 2), points[-1:]])
    return points


def _lay_cloth(
    image: Pixels,
    mask: Mask,
    colour: Colour,
    pattern: Pattern,
    *,
    unit: float,
    rng: np.random.Generator,
) -> None:
    left, top, width, height = cv2.boundingRect(mask)
    if not width or not height:
        return
    area = np.s_[top : top + height, left : left + width]
    light = _light(mask[area], unit, rng)
    cloth = np.empty((height, width, 3), np.float32)
    cloth[:] = colour
    if pattern != "plain":
        cloth *= _pattern(pattern, light, unit)[..., None]
    cloth *= light[..., None]
    cloth += _grain(height, width, 4.0, rng)[..., None]
    cover = (mask[area].astype(np.float32) / 255)[..., None]
    mixed = image[area] * (1 - cover) + np.clip(cloth, 0, 255) * cover
    image[area] = mixed.astype(np.uint8)


def _print(image: Pixels, picture: Pixels, place: npt.NDArray[np.float64]) -> None:
    height, width = image.shape[:2]
    scale = float(np.hypot(*place[:, 0])) * (_PRINT_RIGHT - _PRINT_LEFT) / picture.shape[1]
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    unit = (_PRINT_RIGHT - _PRINT_LEFT) / small.shape[1]
    corner = (_PRINT_LEFT, _PRINT_BOTTOM - unit * small.shape[0])
    to_image = np.column_stack([unit * place[:, :2], place[:, :2] @ corner + place[:, 2]])
    ink = cv2.warpAffine(small, to_image, (width, height))
    area: Mask = np.full(small.shape[:2], 255, np.uint8)
    cover = cv2.warpAffine(area, to_image, (width, height))[..., None] * (_PRINT_COVER / 255)
    image[:] = (image * (1 - cover) + ink * cover).astype(np.uint8)


def _light(mask: Mask, unit: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """The relative brightness of the cloth: darker towards the edges, with vertical folds."""
    height, width = mask.shape
    size = (max(2, width // _SHADE_SCALE), max(2, height // _SHADE_SCALE))
    border = 4
    small = cv2.resize(mask, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    small = np.pad(small, border)
    bulge = cv2.GaussianBlur(small, (0, 0), max(1.0, 2.2 * unit / _SHADE_SCALE))
    slope = cv2.Sobel(bulge, cv2.CV_32F, 1, 0) + cv2.Sobel(bulge, cv2.CV_32F, 0, 1)
    slope = slope[border:-border, border:-border] * (unit / _SHADE_SCALE)
    rough = rng.standard_normal((4, 9)).astype(np.float32)
    fine = rng.standard_normal((7, 18)).astype(np.float32)
    folds = cv2.resize(rough, size, interpolation=cv2.INTER_CUBIC)
    creases = cv2.resize(fine, size, interpolation=cv2.INTER_CUBIC)
    light = (0.97 + 0.16 * slope + 0.045 * folds + 0.027 * creases).astype(np.float32)
    return np.asarray(
        cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR), np.float32
    )


def _pattern(
    pattern: Pattern, light: npt.NDArray[np.float32], unit: float
) -> npt.NDArray[np.float32]:
    """The relative brightness of the pattern, whose lines follow the folds."""
    height, width = light.shape
    rows = np.arange(height, dtype=np.float32)[:, None] + 10 * unit * (light - 1)
    dark = (np.sin(rows / unit * 1.1) > 0.2).astype(np.float32)
    if pattern == "checks":
        columns = np.arange(width, dtype=np.float32)[None, :] + 10 * unit * (light - 1)
        dark = dark * 0.5 + 0.5 * (np.sin(columns / unit * 1.1) > 0.2)
    return 1 - 0.42 * cv2.GaussianBlur(dark, (0, 0), 0.8)


def _grain(
    height: int, width: int, strength: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Noise with standard deviation `strength` in grey levels; one tile is repeated, for speed."""
    tile = rng.standard_normal((256, 256), dtype=np.float32) * strength
    return np.tile(tile, (height // 256 + 1, width // 256 + 1))[:height, :width]
