"""The outlines of the products in the sample catalogue, as data.

A product is a list of parts, in a coordinate system 100 units wide, drawn from back to front.
Drawing is in `drawing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Part:
    """A part of a product: a filled area, or a line if a width is given.

    Attributes:
        points: Corners in units; a corner given twice stays sharp, others are rounded.
        tone: Brightness of the part, as a factor of the colour.
        width: Width of the line in units; None for a filled area.
        colour: Colour of the part (BGR); None for the product's colour.
        plain: Whether the part is drawn without the product's pattern.
        inside: Whether the part is clipped to the parts before it, as a seam is.
    """

    points: Sequence[Point]
    tone: float = 1.0
    width: float | None = None
    colour: Colour | None = None
    plain: bool = False
    inside: bool = False


def _mirrored(left_half: Sequence[Point]) -> list[Point]:
    """Complete a symmetric outline from its left half; the axis is x = 50."""
    return [*left_half, *((100 - x, y) for x, y in reversed(left_half))]


def _sharp(*corners: Point) -> list[Point]:
    return [corner for corner in corners for _ in range(2)]


def _seam(points: Sequence[Point], tone: float, width: float) -> Part:
    return Part(points, tone, width, inside=True)


_SEAM = 0.82
_STEEL: Colour = (160, 158, 155)
_RUBBER: Colour = (240, 243, 244)

_HANGER = [
    Part([(50, 2), (50, -4), (55, -7), (55, -13), (50, -15), (46, -12)], 1, 0.9, _STEEL),
    Part([(22, 13), (50, 1), (50, 1), (78, 13)], 1, 1.8, (90, 130, 170)),
]
_TSHIRT = [
    Part(
        [*_mirrored([*_sharp((35.2, 6.4)), (42, 9), (50, 10)]), (62, 21), (38, 21)],
        0.55,
        plain=True,
    ),
    Part(
        _mirrored(
            [
                (50, 19),
                (43, 17),
                *_sharp((36, 6)),
                (26, 9),
                (17, 13),
                (9, 26),
                *_sharp((1, 40), (16, 47), (25, 35)),
                (26, 62),
                (25, 85),
                *_sharp((24, 106)),
                (50, 108),
            ]
        )
    ),
    _seam([(36, 6), (41, 15), (50, 19), (59, 15), (64, 6)], 0.9, 2.6),
    _seam([(3, 36), (18, 43)], _SEAM, 0.5),
    _seam([(97, 36), (82, 43)], _SEAM, 0.5),
    _seam([(24.5, 102.5), (50, 104.5), (75.5, 102.5)], _SEAM, 0.5),
    _seam([(25, 35), (23, 22), (26, 9)], _SEAM, 0.45),
    _seam([(75, 35), (77, 22), (74, 9)], _SEAM, 0.45),
]
_SWEATER = [
    Part([*_mirrored([*_sharp((35, 4.5)), (43, 3), (50, 3)]), (60, 15), (40, 15)], 0.5, plain=True),
    Part(
        [
            *_sharp((24, 9)),
            (12, 20),
            (6, 60),
            *_sharp((4, 98), (14, 99)),
            (20, 66),
            *_sharp((28, 36)),
        ],
        0.93,
    ),
    Part(
        [
            *_sharp((76, 9)),
            (88, 20),
            (94, 60),
            *_sharp((96, 98), (86, 99)),
            (80, 66),
            *_sharp((72, 36)),
        ],
        0.93,
    ),
    Part(
        _mirrored(
            [
                (50, 13),
                (43, 11),
                *_sharp((36, 4)),
                (28, 7),
                *_sharp((22, 10)),
                (26, 24),
                (26, 40),
                (25, 80),
                *_sharp((27, 100)),
                (50, 101),
            ]
        )
    ),
    _seam([(36, 4), (41, 10), (50, 13), (59, 10), (64, 4)], 0.85, 3.6),
    _seam([(27, 98), (50, 99), (73, 98)], 0.85, 5),
    _seam([(4, 95), (14, 96)], 0.82, 5),
    _seam([(96, 95), (86, 96)], 0.82, 5),
]
_TROUSERS = [
    Part([*_mirrored([*_sharp((31, 4)), (40, 6), (50, 6.5)]), (50, 10)], 0.55, plain=True),
    Part(
        _mirrored(
            [
                (50, 8),
                *_sharp((30, 4)),
                (26, 22),
                (24, 50),
                *_sharp((26, 118), (43, 118)),
                (46, 70),
                (49, 40),
                (50, 36),
            ]
        )
    ),
    _seam([(30, 6), (50, 9.5), (70, 6)], 0.88, 5),
    _seam([(50, 10), (50.5, 24), (49, 36)], 0.7, 0.5),
    _seam([(33, 10), (29, 19), (26.5, 22)], 0.7, 0.6),
    _seam([(67, 10), (71, 19), (73.5, 22)], 0.7, 0.6),
    _seam([(36, 14), (34, 60), (34, 116)], 0.9, 0.4),
    _seam([(64, 14), (66, 60), (66, 116)], 0.9, 0.4),
    Part([(49.2, 8.2), (50, 8.4), (50.8, 8.6)], 1, 2, (90, 110, 120)),
]
_DRESS = [
    Part([*_mirrored([*_sharp((40, 3)), (44, 6), (50, 7)]), (62, 19), (38, 19)], 0.5, plain=True),
    Part(
        _mirrored(
            [
                (50, 16),
                (44, 13),
                *_sharp((40, 2), (34, 2)),
                (34, 14),
                *_sharp((29, 22)),
                (31, 34),
                (33, 46),
                (27, 66),
                (20, 92),
                *_sharp((15, 116)),
                (32, 120),
                (50, 120),
            ]
        )
    ),
    _seam([(32.5, 45), (50, 48), (67.5, 45)], 0.72, 2.2),
    _seam([(41, 52), (36, 80), (32, 116)], 0.86, 0.7),
    _seam([(58, 52), (62, 80), (67, 117)], 0.86, 0.7),
    _seam([(50, 54), (50, 84), (49, 118)], 0.88, 0.6),
    _seam([(15.6, 113), (32, 117), (50, 117.5), (68, 117), (84.4, 113)], _SEAM, 0.4),
]
_SKIRT = [
    Part([*_mirrored([*_sharp((31, 10)), (40, 12), (50, 12.5)]), (50, 17)], 0.5, plain=True),
    Part(
        _mirrored(
            [(50, 13), *_sharp((30, 10)), (25, 26), (18, 60), *_sharp((10, 92)), (30, 97), (50, 98)]
        )
    ),
    _seam([(30, 12.5), (50, 16), (70, 12.5)], 0.82, 5),
    *(
        _seam([(50 + 6 * k, 19 - abs(k)), (50 + 9 * k, 55), (50 + 13 * k, 96 - abs(k))], 0.84, 0.8)
        for k in (-2.4, -1.6, -0.8, 0, 0.8, 1.6, 2.4)
    ),
]
_SNEAKER = [
    Part(
        [
            *_sharp((4, 46)),
            (2, 34),
            (10, 29),
            (26, 27),
            (40, 19),
            *_sharp((50, 8), (56, 9)),
            (64, 15),
            (76, 16),
            *_sharp((88, 8), (93, 9)),
            (97, 24),
            *_sharp((97, 46)),
        ]
    ),
    Part([*_sharp((4, 46)), (2, 34), (10, 29), (22, 28), (26, 36), *_sharp((26, 46))], 0.88),
    Part([*_sharp((80, 46)), (80, 32), *_sharp((87, 20)), (97, 22), *_sharp((97, 46))], 0.85),
    Part([(51, 9), (64, 17), (76, 18), (92, 9)], 0.7, 2.2, inside=True),
    Part([(38, 25), (46, 38), (62, 45)], 0.8, 0.7, inside=True),
    *(
        Part([(31 + 5 * k, 26 - 4 * k), (39 + 5 * k, 31 - 4 * k)], 1, 1.6, _RUBBER)
        for k in range(4)
    ),
    Part(
        [*_sharp((2, 44)), (2, 52), (9, 53), (60, 53), (96, 52), *_sharp((99, 43))],
        1,
        None,
        _RUBBER,
        plain=True,
    ),
    Part([(3, 49.5), (50, 50.2), (97, 49)], 0.8, 0.7, _RUBBER),
]
_TOTE = [
    Part([(34, 42), (34, 14), (42, 2), (58, 2), (66, 14), (66, 42)], 0.62, 3.2),
    Part(
        [
            *_sharp((14, 36)),
            (12, 70),
            *_sharp((10, 104)),
            (50, 106),
            *_sharp((90, 104)),
            (88, 70),
            *_sharp((86, 36)),
        ]
    ),
    Part([(30, 60), (30, 24), (38, 8), (62, 8), (70, 24), (70, 60)], 0.85, 3.4),
    _seam([(14, 39), (50, 40), (86, 39)], 0.8, 0.6),
    Part([*_sharp((38, 64), (62, 64), (62, 80), (38, 80))], 0.88, plain=True),
    _seam([(39, 66), (61, 66)], 0.7, 0.5),
]

PRODUCTS: dict[str, list[Part]] = {
    "t-shirt": _TSHIRT,
    "t-shirt on a hanger": [*_HANGER, *_TSHIRT],
    "sweater": _SWEATER,
    "trousers": _TROUSERS,
    "dress": _DRESS,
    "skirt": _SKIRT,
    "sneaker": _SNEAKER,
    "tote bag": _TOTE,
}
"""The parts of each product by name, from back to front."""
