"""Generate backgrounds like those of catalogue photos, from plain white to textured walls."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Image = NDArray[np.float32]
"""Pixels: height x width x 3, float32, BGR, 0 to 255."""

KINDS = ("white", "off_white", "grey", "gradient", "vignette", "coloured", "textured")


def background(kind: str, width: int, height: int, random: Generator) -> Image:
    """Generate a background with camera noise.

    Args:
        kind: one of `KINDS`.
        width: width in pixels.
        height: height in pixels.
        random: source of random numbers.
    """
    image = np.empty((height, width, 3), np.float32)
    image[:] = _plain(kind, random)
    if kind == "gradient":
        image += _ramp(width, height, random) * random.uniform(25, 70)
    elif kind == "vignette":
        across = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
        down = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
        image -= (across**2 + down**2) * np.float32(random.uniform(8, 25))
    elif kind == "coloured":
        image += _ramp(width, height, random) * random.uniform(5, 20)
    elif kind == "textured":
        image += _texture(width, height, random)
    if kind != "white":
        image += grain(width, height, random, random.uniform(0.3, 1.5))
    return np.clip(image, 0, 255)


def grain(width: int, height: int, random: Generator, sigma: float) -> Image:
    """Generate camera noise, slightly smoothed as by a camera's noise reduction.

    Args:
        width: width in pixels.
        height: height in pixels.
        random: source of random numbers.
        sigma: strength of the noise in grey levels.

    Returns:
        Height x width x 1, float32, to be added to an image.
    """
    noise = random.normal(0, sigma * 1.6, (height, width, 1)).astype(np.float32)
    return cv2.GaussianBlur(noise, (3, 3), 0.7)[:, :, None]


def _plain(kind: str, random: Generator) -> tuple[float, float, float]:
    if kind == "white":
        return (255.0, 255.0, 255.0)
    if kind == "off_white":
        level = random.uniform(238, 252)
        return (level - random.uniform(0, 4), level, level)
    if kind == "coloured":
        colour = cv2.cvtColor(
            np.uint8(
                [[[random.integers(0, 180), random.integers(40, 160), random.integers(90, 235)]]]
            ),
            cv2.COLOR_HSV2BGR,
        )[0, 0]
        return (float(colour[0]), float(colour[1]), float(colour[2]))
    level = random.uniform(120, 235)
    return (level, level, level)


def _ramp(width: int, height: int, random: Generator) -> Image:
    angle = random.uniform(0, 2 * np.pi)
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :]
    down = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    ramp = across * np.float32(np.cos(angle)) + down * np.float32(np.sin(angle))
    return ramp[:, :, None]


def _texture(width: int, height: int, random: Generator) -> Image:
    """Generate the texture of plaster: weak noise at several scales."""
    total = np.zeros((height, width), np.float32)
    for cells in (8, 30, 120):
        rough = random.normal(0, 1, (cells * height // width + 1, cells)).astype(np.float32)
        total += cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
    return total[:, :, None] * np.float32(random.uniform(1.0, 3.0))
