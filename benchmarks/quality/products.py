"""Generate drawings of products with known masks, to measure the background trim.

Products are shirts, dresses, trousers, bags, shoes, tops with straps of one to three pixels, and
chains. They are plain, striped, checked, knitted and shaded; white on white, dark on dark, and
coloured; with and without a soft shadow; free-standing, or cut by the image's edges as after a crop
below the chin. They are drawn at twice the size, reduced with area interpolation as in the
pipeline, and encoded as JPEG.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchmarks.quality.backgrounds import KINDS, background, grain

SHAPES = ("shirt", "dress", "trousers", "bag", "shoe", "straps", "chain")
TONES = ("white", "light", "dark", "coloured")
LONGER = 448
_SIZES = ((299, 448), (299, 448), (336, 448), (448, 448), (448, 299), (448, 330), (299, 310))
# Minimum contrast between a product's outline and its background, in levels of 0 to 255: a white
# shirt on white paper still has a visible edge.
MIN_CONTRAST = 5.0


@dataclass(frozen=True)
class Product:
    """An image of a product.

    Attributes:
        pixels: input of the trim: height x width x 3, uint8, BGR.
        mask: pixels of the product: height x width, bool.
        kind: background, tone and shape.
        shadow: whether a soft shadow was drawn.
    """

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    kind: tuple[str, str, str]
    shadow: bool


def products(count: int, seed: int) -> Iterator[Product]:
    """Generate images; backgrounds, tones and shapes take turns.

    Args:
        count: number of images.
        seed: seed of the random numbers.
    """
    random = np.random.default_rng(seed)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        tone = TONES[number // len(KINDS) % len(TONES)]
        shape = SHAPES[number // (len(KINDS) * len(TONES)) % len(SHAPES)]
        yield _product(kind, tone, shape, random)


def _product(kind: str, tone: str, shape: str, random: Generator) -> Product:
    width, height = (2 * side for side in _SIZES[random.integers(len(_SIZES))])
    scene = background(kind, width, height, random)
    mask = _outline(shape, width, height, random)
    shadow = bool(random.random() < 0.4)
    if shadow:
        scene = _add_shadow(scene, mask, random)
    cloth = _cloth(tone, scene, mask, random)
    alpha = cv2.GaussianBlur(mask, (3, 3), 0.8)[:, :, None]
    large = cloth * alpha + scene * (1 - alpha)
    size = width // 2, height // 2
    small = cv2.resize(large, size, interpolation=cv2.INTER_AREA)
    area = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
    pixels = np.clip(np.rint(small), 0, 255).astype(np.uint8)
    quality = int(random.integers(82, 97))
    file = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8)
    return Product(decoded, area >= 0.5, (kind, tone, shape), shadow)


def _outline(shape: str, width: int, height: int, random: Generator) -> NDArray[np.float32]:
    """Draw the mask of a product: height x width, float32, 0 or 1."""
    mask = np.zeros((height, width), np.uint8)
    w, h = random.uniform(0.35, 0.8) * width, random.uniform(0.45, 0.85) * height
    x, y = (
        random.uniform(0.08, 0.92 - w / width) * width,
        random.uniform(0.06, 0.94 - h / height) * height,
    )
    if (
        random.random() < 0.25
    ):  # like a person below the chin: cut by the upper edge, or by upper and lower edge
        y, h = -0.02 * height, random.choice([h, 1.05 * height])
    _DRAW[shape](_Pen(mask, x, y, w, h), random)
    return mask.astype(np.float32)


@dataclass(frozen=True)
class _Pen:
    """Draws into a mask; coordinates are relative to the product's box, 0 to 1."""

    mask: NDArray[np.uint8]
    x: float
    y: float
    w: float
    h: float

    def _at(self, points: list[tuple[float, float]]) -> NDArray[np.int32]:
        pixels = np.array(points) * (self.w, self.h) + (self.x, self.y)
        return np.rint(pixels).astype(np.int32)

    def fill(self, *points: tuple[float, float]) -> None:
        cv2.fillPoly(self.mask, [self._at(list(points))], 1)

    def line(self, width: int, *points: tuple[float, float]) -> None:
        cv2.polylines(self.mask, [self._at(list(points))], False, 1, width)

    def oval(self, x: float, y: float, w: float, h: float, value: int = 1) -> None:
        centre = self._at([(x, y)])[0]
        axes = max(1, round(w * self.w / 2)), max(1, round(h * self.h / 2))
        cv2.ellipse(self.mask, (int(centre[0]), int(centre[1])), axes, 0, 0, 360, value, -1)


def _shirt(pen: _Pen, random: Generator) -> None:
    sleeve = random.uniform(0.3, 0.8)
    pen.fill((0.25, 0.05), (0.42, 0), (0.58, 0), (0.75, 0.05), (0.78, 1), (0.22, 1))
    pen.fill((0.27, 0.05), (0, sleeve), (0.14, sleeve + 0.06), (0.3, 0.3))
    pen.fill((0.73, 0.05), (1, sleeve), (0.86, sleeve + 0.06), (0.7, 0.3))


def _dress(pen: _Pen, random: Generator) -> None:
    waist = random.uniform(0.15, 0.3)
    pen.fill((0.3, 0), (0.7, 0), (0.5 + waist, 0.4), (1, 1), (0, 1), (0.5 - waist, 0.4))


def _trousers(pen: _Pen, random: Generator) -> None:
    gap = random.uniform(0.02, 0.2)
    pen.fill((0.15, 0), (0.85, 0), (1, 1), (0.5 + gap, 1), (0.5, 0.35), (0.5 - gap, 1), (0, 1))


def _bag(pen: _Pen, random: Generator) -> None:
    pen.fill((0.05, 0.4), (0.95, 0.4), (1, 1), (0, 1))
    handle = np.linspace(np.pi, 2 * np.pi, 24)
    points = [(0.5 + 0.3 * float(np.cos(t)), 0.42 + 0.42 * float(np.sin(t))) for t in handle]
    pen.line(int(random.integers(3, 14)), *points)


def _shoe(pen: _Pen, _: Generator) -> None:
    pen.oval(0.65, 0.75, 0.7, 0.4)
    pen.fill((0, 0.2), (0.35, 0), (0.6, 0.6), (0.95, 0.8), (1, 0.95), (0, 1))


def _straps(pen: _Pen, random: Generator) -> None:
    pen.fill((0.1, 0.4), (0.9, 0.4), (1, 1), (0, 1))
    strap = int(random.integers(2, 7))  # one to three pixels after the reduction
    for x in (0.25, 0.75):
        pen.line(strap, (x, 0.42), (0.5 + (x - 0.5) * 0.6, 0))


def _chain(pen: _Pen, random: Generator) -> None:
    turn = np.linspace(0, 2 * np.pi, 60)
    points = [(0.5 + 0.5 * float(np.sin(t)), 0.4 - 0.4 * float(np.cos(t))) for t in turn]
    pen.line(int(random.integers(4, 9)), *points)
    pen.oval(0.5, 0.88, 0.3, 0.22)


_DRAW = {
    "shirt": _shirt,
    "dress": _dress,
    "trousers": _trousers,
    "bag": _bag,
    "shoe": _shoe,
    "straps": _straps,
    "chain": _chain,
}


def _add_shadow(
    scene: NDArray[np.float32], mask: NDArray[np.float32], random: Generator
) -> NDArray[np.float32]:
    height, width = mask.shape
    shift = np.array(
        [[1, 0, random.uniform(-0.03, 0.03) * width], [0, 1, random.uniform(0, 0.03) * height]]
    )
    moved = cv2.warpAffine(mask, shift, (width, height))
    soft = cv2.GaussianBlur(moved, (0, 0), random.uniform(0.012, 0.04) * width)
    return np.asarray(scene * (1 - soft[:, :, None] * random.uniform(0.04, 0.25)), np.float32)


def _cloth(
    tone: str, scene: NDArray[np.float32], mask: NDArray[np.float32], random: Generator
) -> NDArray[np.float32]:
    height, width = mask.shape
    behind = scene[mask > 0].mean(axis=0) if mask.any() else scene.mean(axis=(0, 1))
    cloth = np.empty((height, width, 3), np.float32)
    cloth[:] = _colour(tone, behind, random)
    pattern = random.integers(5)
    if pattern == 1:
        period = int(random.integers(8, 60))
        stripes = (np.arange(width if random.random() < 0.5 else height) // period) % 2
        strength = random.uniform(4, 80)
        cloth -= (
            stripes[None, :, None] if stripes.size == width else stripes[:, None, None]
        ) * strength
    elif pattern == 2:
        period = int(random.integers(10, 50))
        rows, columns = np.ogrid[:height, :width]
        cloth -= ((rows // period + columns // period) % 2)[:, :, None] * random.uniform(4, 60)
    elif pattern == 3:
        knit = random.normal(0, random.uniform(2, 10), (height // 3, width // 3)).astype(np.float32)
        cloth += cv2.resize(knit, (width, height), interpolation=cv2.INTER_LINEAR)[:, :, None]
    # Folds and shading.
    folds = random.normal(0, 1, (6, 6)).astype(np.float32)
    cloth += cv2.resize(folds, (width, height), interpolation=cv2.INTER_CUBIC)[:, :, None] * 3
    cloth += grain(width, height, random, 0.8)
    return _with_visible_edge(np.clip(cloth, 0, 255), scene, mask)


def _colour(tone: str, behind: NDArray[np.float32], random: Generator) -> NDArray[np.float32]:
    if tone == "white":
        return np.full(3, random.uniform(236, 250), np.float32)
    if tone == "light":
        return np.clip(behind + random.uniform(-45, -12, 3), 0, 255).astype(np.float32)
    if tone == "dark":
        return np.float32(random.uniform(15, 60)) + random.uniform(-6, 6, 3).astype(np.float32)
    return random.uniform(20, 230, 3).astype(np.float32)


def _with_visible_edge(
    cloth: NDArray[np.float32], scene: NDArray[np.float32], mask: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Darken the product's rim where it has almost the colour of the background.

    A real edge is visible because of the cloth's thickness and its thin shadow.
    """
    inner = cv2.erode(mask, np.ones((7, 7), np.uint8), borderValue=1)
    rim = (mask > 0) & (inner == 0)
    near = np.abs(cloth - scene).max(axis=2) < MIN_CONTRAST
    fade = cv2.GaussianBlur((rim & near).astype(np.float32), (5, 5), 0)[:, :, None]
    return np.asarray(cloth - fade * 2 * MIN_CONTRAST, np.float32)
