"""Faces that the detector finds only with a further look, on the demo's people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from imgassets.demo import people
from imgassets.imaging.faces import FaceDetector, load_detector
from imgassets.imaging.image import Pixels
from imgassets.imaging.yunet import load_shared_network
from imgassets.settings import FaceSettings
from imgassets_tests.imaging.scenes import (
    ASTRONAUT,
    PORTRAIT_A,
    PORTRAIT_B,
    add_cut_face,
    add_person,
    plain,
)

SIZES = pytest.mark.parametrize("size", [(1000, 1500), (1200, 900), (800, 800)])


class CountingNetwork:
    """YuNet's network, which counts the pixels of its inputs."""

    def __init__(self, model: Path) -> None:
        self._network = load_shared_network(model)
        self.areas: list[int] = []

    def find(self, pixels: Pixels, min_score: float) -> NDArray[np.float32]:
        self.areas.append(pixels.shape[0] * pixels.shape[1])
        return self._network.find(pixels, min_score)


@pytest.mark.parametrize("first_side", [FaceSettings().first_side, None])
@pytest.mark.parametrize("hidden", [0.45, 0.5])
@pytest.mark.parametrize("who", people.STANDING, ids=lambda who: str(who.photo))
@SIZES
def test_a_face_of_which_the_top_edge_leaves_mouth_and_chin_is_found(
    model: Path, size: tuple[int, int], who: people.Person, hidden: float, first_side: int | None
) -> None:
    pixels = plain(*size)
    chin = add_cut_face(pixels, who, hidden)
    (face,) = load_detector(model, FaceSettings(first_side=first_side)).find(pixels)
    whole = chin / (1 - hidden)
    assert face.y + face.height == pytest.approx(chin, abs=0.08 * whole)
    assert face.y < 0.03 * chin


@pytest.mark.parametrize("first_side", [FaceSettings().first_side, None])
@pytest.mark.parametrize("who", [ASTRONAUT, PORTRAIT_B], ids=lambda who: str(who.photo))
def test_without_eyes_and_nose_the_box_crosses_the_top_edge(
    model: Path, who: people.Person, first_side: int | None
) -> None:
    pixels = plain()
    chin = add_cut_face(pixels, who, 0.6)
    (face,) = load_detector(model, FaceSettings(first_side=first_side)).find(pixels)
    assert face.y < -0.2 * chin
    whole = chin / (1 - 0.6)
    assert face.y + face.height == pytest.approx(chin, abs=0.1 * whole)


@SIZES
def test_a_plain_top_row_costs_no_further_call_of_the_network(
    model: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    cut, below_white = plain(*size), plain(*size)
    add_cut_face(cut, PORTRAIT_B, 0.5)
    below_white[:] = cut
    below_white[: size[1] // 50] = 255
    areas = []
    for pixels in (cut, below_white):
        network = CountingNetwork(model)
        detector = load_detector(model, FaceSettings(first_side=None))
        monkeypatch.setattr(detector, "_network", network)
        detector.find(pixels)
        areas.append(network.areas)
    assert [len(calls) for calls in areas] == [2, 1]
    # It looks at a part of the image only.
    assert areas[0][1] < areas[0][0]


def test_a_whole_face_near_the_top_edge_is_found_once(detector: FaceDetector, model: Path) -> None:
    pixels = plain()
    add_person(pixels[40:], PORTRAIT_B, 0.1)
    top = int(np.flatnonzero((pixels != 255).any(axis=(1, 2)))[0])
    pixels = np.ascontiguousarray(np.vstack([pixels[top + 3 :], plain(height=top + 3)]))
    pixels[:20, 300:420] = 40  # a lamp: something has to touch the edge
    for finder in (detector, load_detector(model, FaceSettings(first_side=None))):
        (face,) = finder.find(pixels)
        assert face.y > 0
        assert face.y + face.height < 0.2 * 1500


@pytest.mark.parametrize(
    ("size", "share", "tilt"),
    [
        ((1000, 1500), 0.1, 45),
        ((1000, 1500), 0.14, 55),
        ((1000, 1500), 0.22, 55),
        ((800, 800), 0.1, 55),
        ((1200, 900), 0.18, 55),
    ],
)
def test_an_inclined_head_that_is_missed_at_the_usual_size_is_found_at_a_larger_one(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    share: float,
    tilt: float,
) -> None:
    pixels = plain(*size)
    add_person(pixels, PORTRAIT_A, share, tilt)
    network = CountingNetwork(model)
    detector = load_detector(model, FaceSettings())
    monkeypatch.setattr(detector, "_network", network)
    (face,) = detector.find(pixels)
    first, close, closer = network.areas
    assert close < closer < first
    (same,) = load_detector(model, FaceSettings(first_side=None, min_score=0.5)).find(pixels)
    assert abs(face.x + face.width / 2 - same.x - same.width / 2) < 0.25 * same.width
    assert abs(face.y + face.height - same.y - same.height) < 0.2 * same.height


@SIZES
def test_the_inclined_heads_of_the_demo_are_found(
    detector: FaceDetector, size: tuple[int, int]
) -> None:
    for who in people.PEOPLE:
        for tilt in (25, 30):
            pixels = plain(*size)
            add_person(pixels, who, 0.12, tilt)
            assert len(detector.find(pixels)) == 1
