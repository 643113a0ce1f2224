"""Generate catalogue images of people with labelled faces, and images without a face.

The photographs of `imgassets.demo` are scaled to a given face height, rotated, mirrored and placed
on backgrounds. The labels below (points along the jaw, and the height of the face from hairline to
chin) were read off the photographs by eye, on a grid, before any detector was run on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

import imgassets.demo
from benchmarks.quality.backgrounds import background

PHOTOS = Path(imgassets.demo.__file__).parent / "photos"
BACKGROUNDS = ("white", "grey", "gradient", "textured")
SHARES = (0.20, 0.15, 0.12, 0.10, 0.08, 0.06, 0.05, 0.04, 0.03)
CANVASES = ((1000, 1500), (1000, 1500), (1200, 1200), (1500, 1000))
MAX_DEGREES = 20.0


@dataclass(frozen=True)
class Person:
    """A photograph with one face.

    Attributes:
        name: name of the file, without extension.
        jaw: x, y of points along the jaw, including the chin, in pixels.
        face: height of the face from hairline to chin, in pixels.
        cutout: whether the person is on a white background, which is replaced by another one.
    """

    name: str
    jaw: tuple[tuple[int, int], ...]
    face: int
    cutout: bool


PEOPLE = (
    Person("portrait_a", ((411, 350), (452, 414), (490, 433), (535, 414), (579, 350)), 335, False),
    Person("portrait_b", ((400, 352), (435, 368), (460, 376), (495, 371), (512, 360)), 211, False),
    Person("portrait_c", ((310, 345), (335, 356), (365, 362), (385, 358), (400, 345)), 249, False),
    Person("astronaut", ((184, 157), (198, 173), (219, 178), (236, 173), (249, 161)), 114, False),
    Person("cutout_a", ((261, 412), (285, 448), (316, 462), (351, 448), (374, 412)), 202, True),
    Person("cutout_c", ((295, 365), (308, 376), (325, 381), (340, 377), (350, 368)), 124, True),
    Person(
        "cutout_astronaut",
        ((219, 475), (232, 499), (255, 508), (284, 499), (305, 475)),
        130,
        True,
    ),
)


@dataclass(frozen=True)
class Labelled:
    """An image with its labels.

    Attributes:
        file: the image as a JPEG file.
        share: face height / image height; 0 without a face.
        chin: row of the lowest point of the jaw, in pixels.
        centre: x, y of the centre of the face, in pixels.
        face: height of the face in pixels; 0 without a face.
        kind: name of the person and kind of background, or `headless`.
    """

    file: bytes
    share: float
    chin: float
    centre: tuple[float, float]
    face: float
    kind: str


Canvases: TypeAlias = tuple[tuple[int, int], ...]
"""Image sizes to choose from: width and height in pixels."""


def with_face(count: int, seed: int, canvases: Canvases = CANVASES) -> Iterator[Labelled]:
    """Generate images with one face each; shares, people and backgrounds take turns.

    Args:
        count: number of images.
        seed: seed of the random numbers.
        canvases: image sizes to choose from.
    """
    random = np.random.default_rng(seed)
    for number in range(count):
        share = SHARES[number % len(SHARES)]
        person = PEOPLE[number // len(SHARES) % len(PEOPLE)]
        kind = BACKGROUNDS[number // (len(SHARES) * len(PEOPLE)) % len(BACKGROUNDS)]
        yield _place(
            person, share, background(kind, *_canvas(canvases, random), random), kind, random
        )


def on_scene(scene: NDArray[np.uint8], number: int) -> Labelled:
    """Place a person in a scene, with the face in its upper part.

    Args:
        scene: height x width x 3, uint8, BGR.
        number: selects the person and the share, and seeds the random numbers.
    """
    return _place(
        PEOPLE[number // len(SHARES) % len(PEOPLE)],
        SHARES[number % len(SHARES)],
        scene.astype(np.float32),
        "scene",
        np.random.default_rng(number),
    )


def without_face(count: int, seed: int, canvases: Canvases = CANVASES) -> Iterator[Labelled]:
    """Generate images of people cropped below the chin, and of a cutout without a head.

    Args:
        count: number of images.
        seed: seed of the random numbers.
        canvases: image sizes to choose from.
    """
    random = np.random.default_rng(seed)
    for number in range(count):
        kind = BACKGROUNDS[number % len(BACKGROUNDS)]
        name = "cutout_no_head"
        person = None
        if number % 3:
            person = PEOPLE[number // 3 % len(PEOPLE)]
            name = person.name
        image, mask = _photograph(name, cutout=person is None or person.cutout)
        if person is not None:
            # Start well below the chin, so that no part of the face is visible.
            start = max(y for _, y in person.jaw) + round(0.12 * person.face)
            image, mask = image[start:], mask[start:]
        yield _headless(image, mask, background(kind, *_canvas(canvases, random), random), random)


def _photograph(name: str, *, cutout: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Read a photograph.

    Returns:
        Pixels (height x width x 3, float32, BGR), and the mask of the person (height x width, 0 to
        1).
    """
    image = cv2.imread(str(PHOTOS / f"{name}.jpg"))
    if image is None:
        raise FileNotFoundError(name)
    mask = np.ones(image.shape[:2], np.float32)
    if cutout:
        white = (image.min(axis=2) >= 245).astype(np.uint8)
        _, labels = cv2.connectedComponents(np.pad(white, 1, constant_values=1), connectivity=4)
        mask = (labels[1:-1, 1:-1] != labels[0, 0]).astype(np.float32)
        mask = cv2.GaussianBlur(cv2.erode(mask, np.ones((3, 3), np.uint8)), (3, 3), 0)
    return image.astype(np.float32), np.asarray(mask, np.float32)


def _transform(scale: float, random: Generator, centre: tuple[float, float]) -> NDArray[np.float64]:
    """A 3 x 3 matrix that rotates and scales about a point, and mirrors half of the time."""
    degrees = random.uniform(-MAX_DEGREES, MAX_DEGREES)
    transform = np.vstack([cv2.getRotationMatrix2D(centre, degrees, scale), (0, 0, 1)])
    if random.random() < 0.5:
        mirror = np.array([[-1, 0, 2 * centre[0]], [0, 1, 0], [0, 0, 1]], dtype=np.float64)
        transform = transform @ mirror
    return np.asarray(transform, np.float64)


def _paste(
    image: NDArray[np.float32],
    mask: NDArray[np.float32],
    transform: NDArray[np.float64],
    scene: NDArray[np.float32],
) -> NDArray[np.float32]:
    size = scene.shape[1], scene.shape[0]
    scale = float(np.sqrt(abs(np.linalg.det(transform[:2, :2]))))
    if scale < 1:  # smooth like area interpolation
        sigma = 0.45 * (1 / scale - 1)
        image = cv2.GaussianBlur(image, (0, 0), max(sigma, 0.01))
        mask = cv2.GaussianBlur(mask, (0, 0), max(sigma, 0.01))
    placed = cv2.warpAffine(image, transform[:2], size, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(mask, transform[:2], size)[:, :, None]
    return np.asarray(placed * alpha + scene * (1 - alpha), np.float32)


def _canvas(canvases: Canvases, random: Generator) -> tuple[int, int]:
    return canvases[random.integers(len(canvases))]


def _place(
    person: Person, share: float, scene: NDArray[np.float32], kind: str, random: Generator
) -> Labelled:
    height, width = scene.shape[:2]
    image, mask = _photograph(person.name, cutout=person.cutout)
    scale = share * height / person.face
    jaw = np.array(person.jaw, np.float64)
    middle = (float(jaw[:, 0].mean()), float(jaw[:, 1].max() - person.face / 2))
    transform = _transform(scale, random, middle)
    # A random position in the upper part in which the whole face is visible.
    face = person.face * scale
    x = random.uniform(face, max(face + 1, width - face))
    y = random.uniform(face * 0.9, max(face, height * 0.45))
    transform = np.array([[1, 0, x - middle[0]], [0, 1, y - middle[1]], [0, 0, 1]]) @ transform
    scene = _paste(image, mask, transform, scene)
    points = np.c_[jaw, np.ones(len(jaw))] @ transform[:2].T
    label = f"{person.name} {kind}"
    return Labelled(_jpeg(scene, random), share, float(points[:, 1].max()), (x, y), face, label)


def _headless(
    image: NDArray[np.float32],
    mask: NDArray[np.float32],
    scene: NDArray[np.float32],
    random: Generator,
) -> Labelled:
    height, width = scene.shape[:2]
    scale = random.uniform(0.4, 1.2) * width / image.shape[1]
    centre = (image.shape[1] / 2, image.shape[0] / 2)
    transform = _transform(scale, random, centre)
    x, y = random.uniform(0.3, 0.7) * width, random.uniform(0.4, 0.8) * height
    transform = np.array([[1, 0, x - centre[0]], [0, 1, y - centre[1]], [0, 0, 1]]) @ transform
    scene = _paste(image, mask, transform, scene)
    return Labelled(_jpeg(scene, random), 0.0, 0.0, (0.0, 0.0), 0.0, "headless")


def _jpeg(scene: NDArray[np.float32], random: Generator) -> bytes:
    quality = int(random.integers(80, 96))
    pixels = np.clip(np.rint(scene), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
