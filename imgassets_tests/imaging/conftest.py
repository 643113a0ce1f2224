from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import imgassets.demo
from imgassets.imaging.faces import FaceDetector, load_detector
from imgassets.imaging.image import Pixels
from imgassets.imaging.models import ensure_model
from imgassets.settings import FaceSettings


@pytest.fixture(scope="session")
def photos() -> dict[str, bytes]:
    """The demo's photographs, by name."""
    folder = Path(imgassets.demo.__file__).parent / "photos"
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.jpg"))}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_model(FaceSettings(), tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def detector(model: Path) -> FaceDetector:
    return load_detector(model, FaceSettings())


@pytest.fixture
def jpeg() -> Callable[[Pixels], bytes]:
    def encode(pixels: Pixels) -> bytes:
        return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()

    return encode


@pytest.fixture
def product() -> Pixels:
    """A textured product of 100x160 px with its corner at (70, 90), on white, 300x400 px."""
    pixels = np.full((400, 300, 3), 255, np.uint8)
    cloth = np.random.default_rng(1).integers(0, 120, (16, 10, 3), dtype=np.uint8)
    pixels[90:250, 70:170] = cv2.resize(cloth, (100, 160), interpolation=cv2.INTER_NEAREST)
    return pixels
