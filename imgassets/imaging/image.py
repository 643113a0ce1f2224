"""The image that processing steps pass to each other, and its position in the original image.

What a step does is in the step's own module.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]
"""Height x width x 3, uint8, BGR, sRGB."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, in pixels; x and y are its left and top edge."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def from_edges(cls, left: int, top: int, right: int, bottom: int) -> Box:
        """The box between these edges; the pixels at `right` and `bottom` are outside."""
        return cls(left, top, right - left, bottom - top)

    @property
    def right(self) -> int:
        """The column beyond the right edge: x + width."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """The row below the bottom edge: y + height."""
        return self.y + self.height

    @property
    def area(self) -> int:
        """The area, in pixels."""
        return self.width * self.height

    def as_list(self) -> list[int]:
        """`[x, y, width, height]`, the format of manifests."""
        return [self.x, self.y, self.width, self.height]


@dataclass(frozen=True, slots=True)
class Image:
    """Pixels, and their position in the original image.

    The original image is the served one with its EXIF orientation applied.

    Attributes:
        pixels: height x width x 3, uint8, BGR; contiguous, or a view of such an array.
        full_size: Width and height of the original image, in pixels.
        left, top: The upper left corner, in pixels of the original image.
        scale_x, scale_y: Pixels of the original image per pixel of this image.
    """

    pixels: Pixels
    full_size: tuple[int, int]
    left: float = 0.0
    top: float = 0.0
    scale_x: float = 1.0
    scale_y: float = 1.0

    @property
    def width(self) -> int:
        """The width, in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """The height, in pixels."""
        return int(self.pixels.shape[0])

    def crop(self, box: Box) -> Image:
        """The part of this image in a box; its pixels are a view, not a copy."""
        return replace(
            self,
            pixels=self.pixels[box.y : box.bottom, box.x : box.right],
            left=self.left + box.x * self.scale_x,
            top=self.top + box.y * self.scale_y,
        )

    def scaled(self, pixels: Pixels) -> Image:
        """The same part of the original image in another size, with these pixels."""
        return replace(
            self,
            pixels=pixels,
            scale_x=self.scale_x * self.width / pixels.shape[1],
            scale_y=self.scale_y * self.height / pixels.shape[0],
        )

    def padded(self, pixels: Pixels, x: int, y: int) -> Image:
        """This image inside a larger one (`pixels`), with its upper left corner at x, y."""
        return replace(
            self, pixels=pixels, left=self.left - x * self.scale_x, top=self.top - y * self.scale_y
        )

    def to_original(self, box: Box) -> Box:
        """Convert a box in this image to pixels of the original image, rounded."""
        x = round(self.left + box.x * self.scale_x)
        y = round(self.top + box.y * self.scale_y)
        right = round(self.left + box.right * self.scale_x)
        bottom = round(self.top + box.bottom * self.scale_y)
        return Box.from_edges(x, y, right, bottom)

    @property
    def box_in_original(self) -> Box:
        """The part of the original image that this image shows, without padding."""
        box = self.to_original(Box(0, 0, self.width, self.height))
        x, right = (min(max(v, 0), self.full_size[0]) for v in (box.x, box.right))
        y, bottom = (min(max(v, 0), self.full_size[1]) for v in (box.y, box.bottom))
        return Box.from_edges(x, y, right, bottom)
