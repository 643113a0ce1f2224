"""Place people, cut out of the photographs in `photos/` and recoloured, on backdrops.

Backdrops and products are in `drawing`; the plan of all images is in `catalogue`. The sources of
the photographs are in `photos/CREDITS.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from imgassets.demo.drawing import Mask, Pixels, cast_shadow
from imgassets.demo.products import Colour

PHOTOS = Path(__file__).parent / "photos"


@dataclass(frozen=True)
class Person:
    """A photograph of a person, with the position of the face.

    Attributes:
        photo: File name without suffix.
        face_top: Top of the detected face box, in pixels of the photograph.
        face_height: Height of the face box, in pixels of the photograph.
        face_x: Horizontal centre of the face, in pixels of the photograph.
        reaches_edge: Whether the right edge of the photograph cuts the person, so that the person
            has to be placed at the right edge of the image.
        vivid: Whether the clothes have a saturated colour instead of being almost black.
        rim_light: Whether the edges of the suit are lit in blue.
    """

    photo: str
    face_top: int
    face_height: int
    face_x: int
    reaches_edge: bool = False
    vivid: bool = False
    rim_light: bool = False

    @property
    def chin(self) -> int:
        """Row of the photograph below which there are only clothes and hands."""
        return self.face_top + round(self.face_height * 1.18)


PEOPLE = (
    Person("portrait_a", face_top=93, face_height=329, face_x=490),
    Person("astronaut", face_top=64, face_height=110, face_x=225, vivid=True),
    Person("portrait_b", face_top=164, face_height=207, face_x=466, rim_light=True),
    Person(
        "portrait_c",
        face_top=112,
        face_height=254,
        face_x=360,
        reaches_edge=True,
        rim_light=True,
    ),
)

STANDING = PEOPLE[1:]
"""Those whose face is at most 28 % of an image that they fill from the face downwards."""


def place_person(
    image: Pixels,
    person: Person,
    face_share: float,
    dye: Colour,
    *,
    shadow: float,
    tilt: float = 0.0,
) -> None:
    """Draw a person on a backdrop, in place, aligned to the lower edge.

    Args:
        image: The backdrop.
        person: The person.
        face_share: Height of the face box as a share of the image's height; enlarged if the part
            below the chin would take less than a quarter of the image's height.
        dye: Colour of the clothes (BGR).
        shadow: Strength of the shadow on the backdrop, from 0 (none) to 1.
        tilt: Angle in degrees by which the head is inclined, to the right if positive, in addition
            to the photograph, where some incline it by some 10 degrees to that side. The face stays
            a frontal one: no photograph shows a profile.
    """
    height, width = image.shape[:2]
    photo_height = _photo(person.photo).shape[0]
    scale = max(
        face_share * height / person.face_height, 0.25 * height / (photo_height - person.chin)
    )
    pixels, mask = _dyed(person, dye), _mask(f"{person.photo}_mask")
    if tilt:
        pixels, mask = _tilted(pixels, mask, person, tilt)
    pixels, mask = _scaled(pixels, mask, scale)
    # Keeps the head inside the image, even if `face_share` is large.
    top = max(height - pixels.shape[0], round(0.04 * height) - round(scale * person.face_top * 0.5))
    left = round(width / 2 - scale * person.face_x)
    if person.reaches_edge:
        left = width - pixels.shape[1]
    _paste(image, pixels, mask, left, top, shadow=shadow)


def place_suit_without_head(image: Pixels, fill: float, dye: Colour, *, shadow: float) -> None:
    """Draw a worn suit without its wearer's head on a backdrop, in place.

    Args:
        image: The backdrop.
        fill: Height of the suit as a share of the image's height.
        dye: Colour of the suit (BGR).
        shadow: Strength of the shadow on the backdrop, from 0 (none) to 1.
    """
    height, width = image.shape[:2]
    person = next(p for p in PEOPLE if p.photo == "portrait_b")
    scale = fill * height / (_photo(person.photo).shape[0] - person.chin)
    suit, mask = _scaled(_dyed(person, dye), _mask("portrait_b_no_head_mask"), scale)
    left = round(width / 2 - scale * person.face_x)
    _paste(image, suit, mask, left, height - suit.shape[0], shadow=shadow)


def place_below(image: Pixels, person: Person, row: int, dye: Colour, *, shadow: float) -> None:
    """Draw the part of a person below a row on a backdrop, in place, filling the height.

    Args:
        image: The backdrop, whose upper edge cuts the person.
        person: The person.
        row: First row of the photograph that is drawn, for example the person's chin.
        dye: Colour of the clothes (BGR).
        shadow: Strength of the shadow on the backdrop, from 0 (none) to 1.
    """
    height, width = image.shape[:2]
    photo, mask = _dyed(person, dye)[row:], _mask(f"{person.photo}_mask")[row:]
    scale = height / photo.shape[0]
    pixels, mask = _scaled(photo, mask, scale)
    left = round(width / 2 - scale * person.face_x)
    if person.reaches_edge:
        left = width - pixels.shape[1]
    _paste(image, pixels, mask, left, height - pixels.shape[0], shadow=shadow)


def portrait(person: Person) -> Pixels:
    """Crop the photograph to head and shoulders: 1.6 face heights wide, with its background."""
    unit = person.face_height
    top, bottom = max(0, person.face_top - round(0.55 * unit)), person.face_top + round(1.45 * unit)
    left, right = person.face_x - round(0.8 * unit), person.face_x + round(0.8 * unit)
    return _photo(person.photo)[top:bottom, left:right]


def as_taken(person: Person, width: int, height: int) -> Pixels:
    """The original photograph, scaled and cropped to a size around the face.

    Args:
        person: The person.
        width: Width in pixels.
        height: Height in pixels.
    """
    photo = _photo(person.photo)
    rows, columns = photo.shape[:2]
    scale = max(width / columns, height / rows)
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    large = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=flags)
    left = round(np.clip(scale * person.face_x - width / 2, 0, large.shape[1] - width))
    cut: Pixels = large[:height, left : left + width].astype(np.uint8)
    return np.ascontiguousarray(cut)


def _paste(
    image: Pixels, pixels: Pixels, mask: Mask, left: int, top: int, *, shadow: float
) -> None:
    """Draw masked pixels on an image, in place, clipped to it."""
    height, width = image.shape[:2]
    rows = slice(max(0, -top), min(pixels.shape[0], height - top))
    columns = slice(max(0, -left), min(pixels.shape[1], width - left))
    area = np.s_[rows.start + top : rows.stop + top, columns.start + left : columns.stop + left]
    if shadow:
        whole: Mask = np.zeros((height, width), np.uint8)
        whole[area] = mask[rows, columns]
        cast_shadow(image, whole, shadow)
    cover = (mask[rows, columns].astype(np.float32) / 255)[..., None]
    image[area] = (image[area] * (1 - cover) + pixels[rows, columns] * cover).astype(np.uint8)


def _dyed(person: Person, dye: Colour) -> Pixels:
    """The photograph with the clothes below the chin recoloured; light and folds are kept."""
    photo = _photo(person.photo).astype(np.float32)
    light = photo @ np.array([0.114, 0.587, 0.299], np.float32)
    if person.vivid:
        spread = photo.max(2) - photo.min(2)
        share = np.clip((spread - 60) / 60, 0, 1) * (photo[..., 2] > photo[..., 0] + 40)
        brightness = light / 125
    else:
        # Suits are almost black: dark pixels are recoloured, and brightened to make it visible.
        share = np.clip((95 - photo.max(2)) / 35, 0, 1)
        if person.rim_light:
            blue = photo[..., 0] - photo[..., 2]
            share = np.maximum(share, np.clip((blue - 12) / 20, 0, 1) * (light < 170))
        brightness = np.minimum(0.30 + light / 75, 1.5)
    below = np.clip((np.arange(photo.shape[0]) - person.chin) / 12, 0, 1)[:, None]
    share = cv2.GaussianBlur((share * below).astype(np.float32), (0, 0), 1.2)[..., None]
    cloth = np.array(dye, np.float32) * brightness[..., None]
    dyed: Pixels = np.clip(photo * (1 - share) + cloth * share, 0, 255).astype(np.uint8)
    return dyed


def _tilted(photo: Pixels, mask: Mask, person: Person, degrees: float) -> tuple[Pixels, Mask]:
    """Incline the head: turn it around the throat, less and less from the chin to the shoulders."""
    unit, angle = person.face_height, np.deg2rad(degrees)
    throat = person.face_top + 1.05 * unit
    middle = 0.6 * unit  # from the throat up to the middle of the face
    y, x = np.indices(mask.shape, np.float32)
    y -= throat
    x -= person.face_x
    # The distance from the inclined face, which spares the shoulders; hair above it goes along.
    aside = np.maximum(np.abs(x - np.sin(angle) * middle) - 0.3 * unit, 0)
    below = np.maximum(y + np.cos(angle) * middle, 0)
    share = np.clip((1.1 - np.hypot(aside, below) / unit) / 0.5, 0, 1)
    turn = angle * share**2 * (3 - 2 * share)
    from_x = (np.cos(turn) * x + np.sin(turn) * y + person.face_x).astype(np.float32)
    from_y = (np.cos(turn) * y - np.sin(turn) * x + throat).astype(np.float32)
    pixels = cv2.remap(photo, from_x, from_y, cv2.INTER_LINEAR)
    cover = cv2.remap(mask, from_x, from_y, cv2.INTER_LINEAR)
    return pixels.astype(np.uint8), cover.astype(np.uint8)


def _scaled(photo: Pixels, mask: Mask, scale: float) -> tuple[Pixels, Mask]:
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    pixels = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=flags)
    cover = cv2.resize(mask, (pixels.shape[1], pixels.shape[0]), interpolation=cv2.INTER_LINEAR)
    return pixels.astype(np.uint8), cover.astype(np.uint8)


@cache
def _photo(name: str) -> Pixels:
    return _read(PHOTOS / f"{name}.jpg", cv2.IMREAD_COLOR)


@cache
def _mask(name: str) -> Mask:
    return _read(PHOTOS / f"{name}.png", cv2.IMREAD_GRAYSCALE)


def _read(path: Path, flags: int) -> npt.NDArray[np.uint8]:
    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags)
    if pixels is None:
        raise ValueError(f"{path} cannot be decoded as an image; reinstall imgassets")
    return pixels.astype(np.uint8)
