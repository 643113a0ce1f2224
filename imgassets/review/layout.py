"""The grid of pairs on a contact sheet; without what drawing one imports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """The grid of pairs on a sheet; lengths in pixels.

    Attributes:
        cell: Maximum width and height of an image.
        pairs: Number of pairs per line.
        gap: Distance between images.
        caption: Height of the caption below a pair.
        font_size: Font size of the caption; None leaves its area empty.
        max_key_length: Number of characters of a key that fit into the caption.
    """

    cell: tuple[int, int]
    pairs: int
    gap: int
    caption: int
    font_size: int | None
    max_key_length: int

    @property
    def pitch(self) -> tuple[int, int]:
        """Distance from one pair to the next, horizontal and vertical."""
        return 2 * self.cell[0] + 3 * self.gap, self.cell[1] + self.caption + 2 * self.gap

    def corner(self, number: int) -> tuple[int, int]:
        """Upper left corner of a pair, without the header of the sheet."""
        across, down = self.pitch
        return (
            number % self.pairs * across + self.gap,
            number // self.pairs * down + self.gap,
        )
