"""People in the sample catalogue: cut out of photographs, dyed, and set before a backdrop.

Here lives what is done with `photos/`. Backdrops and drawn products are in `drawing`; which
picture shows whom is in `catalogue`. Where the photographs come from is in `photos/CREDITS.md`.
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
    """A photograph, and where in it the face and the clothes are.

    Attributes:
        photo: file name without suffix.
        face_top: of the detector's face box, in pixels of the photograph.
        face_height: likewise.
        face_x: middle of the face, likewise.
        reaches_edge: whether the right edge of the photograph cuts the person, so that the edge
            of a picture has to do so as well.
        vivid: whether the clothes are a saturated colour, not near black.
        rim_light: whether blue light falls on the edges of the suit.
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


def set_before(
    picture: Pixels, person: Person, face_share: float, dye: Colour, *, shadow: float
) -> None:
    """Set a person before a backdrop, in place, standing on the lower edge.

    Args:
        picture: the backdrop.
        person: whom to set there.
        face_share: height of the face box as a share of the picture's height; more where a
            quarter of the picture below the chin would not be filled.
        dye: colour of the clothes (BGR).
        shadow: that the person casts on the backdrop (share; 0: none).
    """
    height, width = picture.shape[:2]
    photo_height = _photo(person.photo).shape[0]
    scale = max(
        face_share * height / person.face_height, 0.25 * height / (photo_height - person.chin)
    )
    pixels, mask = _scaled(_dyed(person, dye), _mask(f"{person.photo}_mask"), scale)
    # A head stays in the picture, whatever the share asked for.
    top = max(height - pixels.shape[0], round(0.04 * height) - round(scale * person.face_top * 0.5))
    left = round(width / 2 - scale * person.face_x)
    if person.reaches_edge:
        left = width - pixels.shape[1]
    _paste(picture, pixels, mask, left, top, shadow=shadow)


def set_without_head(picture: Pixels, fill: float, dye: Colour, *, shadow: float) -> None:
    """Set a worn suit with nobody's head in it before a backdrop, in place.

    Args:
        picture: the backdrop.
        fill: height of the suit as a share of the picture's height.
        dye: colour of the suit (BGR).
        shadow: as of `set_before`.
    """
    height, width = picture.shape[:2]
    person = next(p for p in PEOPLE if p.photo == "portrait_b")
    scale = fill * height / (_photo(person.photo).shape[0] - person.chin)
    suit, mask = _scaled(_dyed(person, dye), _mask("portrait_b_no_head_mask"), scale)
    left = round(width / 2 - scale * person.face_x)
    _paste(picture, suit, mask, left, height - suit.shape[0], shadow=shadow)


def set_from_neck_down(picture: Pixels, person: Person, dye: Colour, *, shadow: float) -> None:
    """Set what is below a person's chin before a backdrop, in place, as the camera frames it.

    Args:
        picture: the backdrop.
        person: whose clothes to show.
        dye: as of `set_before`.
        shadow: as of `set_before`.
    """
    height, width = picture.shape[:2]
    photo, mask = _dyed(person, dye)[person.chin :], _mask(f"{person.photo}_mask")[person.chin :]
    scale = min(width * 0.92 / photo.shape[1], height / photo.shape[0])
    scale = max(scale, height / photo.shape[0])
    pixels, mask = _scaled(photo, mask, scale)
    left = round(width / 2 - scale * person.face_x)
    if person.reaches_edge:
        left = width - pixels.shape[1]
    _paste(picture, pixels, mask, left, height - pixels.shape[0], shadow=shadow)


def as_taken(person: Person, width: int, height: int) -> Pixels:
    """The photograph itself, its middle cut to a size.

    Args:
        person: whose photograph.
        width: in pixels.
        height: in pixels.
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
    picture: Pixels, pixels: Pixels, mask: Mask, left: int, top: int, *, shadow: float
) -> None:
    """Lay masked pixels over a picture, in place; what is outside of it is cut off."""
    height, width = picture.shape[:2]
    rows = slice(max(0, -top), min(pixels.shape[0], height - top))
    columns = slice(max(0, -left), min(pixels.shape[1], width - left))
    area = np.s_[rows.start + top : rows.stop + top, columns.start + left : columns.stop + left]
    if shadow:
        whole: Mask = np.zeros((height, width), np.uint8)
        whole[area] = mask[rows, columns]
        cast_shadow(picture, whole, shadow)
    cover = (mask[rows, columns].astype(np.float32) / 255)[..., None]
    picture[area] = (picture[area] * (1 - cover) + pixels[rows, columns] * cover).astype(np.uint8)


def _dyed(person: Person, dye: Colour) -> Pixels:
    """The photograph with the clothes below the chin in another colour; light and folds stay."""
    photo = _photo(person.photo).astype(np.float32)
    light = photo @ np.array([0.114, 0.587, 0.299], np.float32)
    if person.vivid:
        spread = photo.max(2) - photo.min(2)
        share = np.clip((spread - 60) / 60, 0, 1) * (photo[..., 2] > photo[..., 0] + 40)
        brightness = light / 125
    else:
        # Suits are near black: dyed where they are, lifted a little so that the colour shows.
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
        raise ValueError(f"{path} is no picture; the installation is broken")
    return pixels.astype(np.uint8)
