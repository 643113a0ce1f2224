"""The picture on its way through the steps, and where its pixels come from.

Here lives what the steps pass to each other. What a step does is in the module of that step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]
"""Height x width x 3, BGR, sRGB."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels: left, top, width, height."""

    x: int
    y: int
    width: int
    height: int

    @property
    def area(self) -> int:
        """In pixels."""
        return self.width * self.height

    def as_list(self) -> list[int]:
        """`[x, y, width, height]`, as manifests have it."""
        return [self.x, self.y, self.width, self.height]


@dataclass(frozen=True, slots=True)
class Image:
    """Pixels, and the place that they have in the served picture.

    Attributes:
        pixels: height x width x 3, uint8, BGR, contiguous or a part of such an array.
        left, top: the upper left corner, in pixels of the served picture (as it is seen: its EXIF
            orientation applied).
        scale_x, scale_y: pixels of the served picture that one pixel of this one stands for.
        full: width and height of the served picture.
    """

    pixels: Pixels
    full: tuple[int, int]
    left: float = 0.0
    top: float = 0.0
    scale_x: float = 1.0
    scale_y: float = 1.0

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[0])

    def cut(self, box: Box) -> Image:
        """The part of this picture that lies in a box, without copying it."""
        return replace(
            self,
            pixels=self.pixels[box.y : box.y + box.height, box.x : box.x + box.width],
            left=self.left + box.x * self.scale_x,
            top=self.top + box.y * self.scale_y,
        )

    def scaled(self, pixels: Pixels) -> Image:
        """The same part of the served picture, in another size."""
        return replace(
            self,
            pixels=pixels,
            scale_x=self.scale_x * self.width / pixels.shape[1],
            scale_y=self.scale_y * self.height / pixels.shape[0],
        )

    def padded(self, pixels: Pixels, x: int, y: int) -> Image:
        """This picture within a larger one, its corner at x, y."""
        return replace(
            self, pixels=pixels, left=self.left - x * self.scale_x, top=self.top - y * self.scale_y
        )

    def served(self, box: Box) -> Box:
        """Where a box of this picture lies in the served one, rounded to whole pixels."""
        x = round(self.left + box.x * self.scale_x)
        y = round(self.top + box.y * self.scale_y)
        right = round(self.left + (box.x + box.width) * self.scale_x)
        bottom = round(self.top + (box.y + box.height) * self.scale_y)
        return Box(x, y, right - x, bottom - y)

    @property
    def served_box(self) -> Box:
        """What part of the served picture this shows; padding lies outside of it."""
        box = self.served(Box(0, 0, self.width, self.height))
        x, right = (min(max(v, 0), self.full[0]) for v in (box.x, box.x + box.width))
        y, bottom = (min(max(v, 0), self.full[1]) for v in (box.y, box.y + box.height))
        return Box(x, y, right - x, bottom - y)
