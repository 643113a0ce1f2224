"""Compose images from the demo's people and drawn products, for tests of faces and prints."""

from __future__ import annotations

import numpy as np
from PIL import Image as PILImage

from imgassets.demo import drawing, people
from imgassets.imaging.image import Pixels

PORTRAIT_A, ASTRONAUT, PORTRAIT_B, PORTRAIT_C = people.PEOPLE
_DYE = (60, 45, 150)


def plain(width: int = 1000, height: int = 1500, level: int = 255) -> Pixels:
    """An image of one grey level."""
    return np.full((height, width, 3), level, np.uint8)


def add_person(
    pixels: Pixels, who: people.Person, face_share: float = 0.15, tilt: float = 0
) -> None:
    """Draw a person, in place; `face_share` is the face's height / the image's height."""
    people.place_person(pixels, who, face_share, _DYE, shadow=0, tilt=tilt)


def add_cut_face(pixels: Pixels, who: people.Person, hidden: float) -> float:
    """Draw a person, in place, of whose face the top edge hides a share from above.

    Returns:
        The row of the chin: the foot of the face box in the whole photograph.
    """
    row = who.face_top + round(hidden * who.face_height)
    people.place_below(pixels, who, row, _DYE, shadow=0)
    with PILImage.open(people.PHOTOS / f"{who.photo}.jpg") as photo:
        photo_height = photo.height
    scale = float(pixels.shape[0]) / (photo_height - row)
    return scale * (who.face_top + who.face_height - row)


def add_print(pixels: Pixels, who: people.Person, fill: float = 0.8) -> None:
    """Draw a T-shirt with a printed portrait, in place."""
    drawing.draw_product(
        pixels,
        "t-shirt",
        _DYE,
        "plain",
        rng=np.random.default_rng(1),
        fill=fill,
        picture=people.portrait(who),
    )
