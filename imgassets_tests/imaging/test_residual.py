from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from imgassets.imaging.faces import Face, FaceDetector, load_detector
from imgassets.imaging.image import Pixels
from imgassets.imaging.residual import check_residual, faces_left, sample
from imgassets.manifests import Outcome, ProcessedRow
from imgassets.settings import FaceSettings, RetailerSettings
from imgassets.storage import Folder


def _pixels(data: bytes) -> Pixels:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)


Eyes = Callable[[int], FaceDetector]


@pytest.fixture
def eyes(model: Path) -> Eyes:
    return lambda side: load_detector(model, FaceSettings(first_side=None, detect_side=side))


def _row(key: str, face_count: int | None, path: str | None = None) -> ProcessedRow:
    return ProcessedRow(
        key=key,
        url="http://shop/x",
        product_id="1",
        outcome=Outcome.OK if path else Outcome.CORRUPT,
        path=path,
        face_count=face_count,
        sha256=hashlib.sha256(key.encode()).hexdigest(),
    )


@pytest.mark.parametrize("name", ["portrait_a", "cutout_c", "astronaut"])
def test_a_face_that_was_left_is_found_upright_and_upside_down(
    photos: dict[str, bytes], eyes: Eyes, name: str
) -> None:
    pixels = _pixels(photos[name])
    assert faces_left(pixels, eyes, 0.85)
    assert faces_left(pixels[::-1, ::-1].copy(), eyes, 0.85)


def _with_small_face(photos: dict[str, bytes], height: int, width: int) -> Pixels:
    """A face of 12 to 15 pixels on white."""
    canvas = np.full((height, width, 3), 255, np.uint8)
    photo = _pixels(photos["cutout_c"])[200:]
    small = cv2.resize(photo, None, fx=0.12, fy=0.12, interpolation=cv2.INTER_AREA)
    part = canvas[height // 5 :, width // 14 :]
    small = small[: part.shape[0], : part.shape[1]]
    part[: small.shape[0], : small.shape[1]] = small
    return canvas


def test_a_small_face_is_found_at_the_larger_scale_alone(
    photos: dict[str, bytes], eyes: Eyes
) -> None:
    canvas = _with_small_face(photos, 448, 320)
    assert faces_left(canvas, lambda side: eyes(min(side, 448)), 0.85) == []
    (face,) = faces_left(canvas, eyes, 0.85)
    assert 12 <= face.height <= 15


@pytest.mark.parametrize("height", [200, 160, 120, 100])
def test_the_smallest_face_that_counts_is_found_in_a_thumbnail_without_a_larger_scale(
    photos: dict[str, bytes], eyes: Eyes, height: int
) -> None:
    sides: list[int] = []

    def eye(side: int) -> FaceDetector:
        sides.append(side)
        return eyes(side)

    (face,) = faces_left(_with_small_face(photos, height, height * 7 // 10), eye, 0.85)
    assert 12 <= face.height <= 15
    assert max(sides) <= height * 2.25 + 31


def test_the_share_of_pictures_with_a_face_is_told_with_their_keys(
    photos: dict[str, bytes], model: Path, tmp_path: Path
) -> None:
    folder = Folder(str(tmp_path))
    rows = []
    for name in ("portrait_a", "cutout_no_head"):
        (folder / "images").write(f"{name}.jpg", photos[name])
        rows.append(_row(name, 1, f"images/{name}.jpg"))
    rows.append(_row("no-picture", None))
    found = check_residual(rows, folder, RetailerSettings(), model, threads=2)
    assert (found.looked_at, found.with_face, found.share) == (2, ["portrait_a"], 0.5)


def test_pictures_that_are_gone_or_broken_are_named_and_stop_nothing(
    photos: dict[str, bytes], model: Path, tmp_path: Path
) -> None:
    folder = Folder(str(tmp_path))
    (folder / "images").write("whole.jpg", photos["portrait_a"])
    (folder / "images").write("cut.jpg", photos["portrait_a"][:2000])
    rows = [_row(name, 1, f"images/{name}.jpg") for name in ("gone", "cut", "whole")]
    found = check_residual(rows, folder, RetailerSettings(), model, threads=2)
    assert found.unreadable == ["gone", "cut"]
    assert (found.looked_at, found.with_face) == (1, ["whole"])


@pytest.mark.parametrize(
    ("sections", "looked_at"),
    [
        ({}, 1),
        ({"faces": {"action": "blur"}}, 1),
        ({"process": {"steps": ["trim", "remove_face"]}}, 1),
        ({"faces": {"action": "none"}}, 0),
        ({"process": {"steps": ["trim"]}}, 0),
        ({"checks": {"residual_sample": 0}}, 0),
    ],
)
def test_nothing_is_looked_at_where_faces_may_stay(
    photos: dict[str, bytes],
    model: Path,
    tmp_path: Path,
    sections: dict[str, object],
    looked_at: int,
) -> None:
    folder = Folder(str(tmp_path))
    (folder / "images").write("a.jpg", photos["portrait_a"])
    settings = RetailerSettings.model_validate(sections)
    found = check_residual([_row("a", 1, "images/a.jpg")], folder, settings, model, threads=1)
    assert (found.looked_at, found.share) == (looked_at, looked_at)
    assert (found.with_face, found.unreadable) == (["a"] * looked_at, [])


def test_a_face_below_the_score_of_the_settings_does_not_count(
    photos: dict[str, bytes], model: Path, tmp_path: Path
) -> None:
    folder = Folder(str(tmp_path))
    (folder / "images").write("a.jpg", photos["portrait_a"])
    settings = RetailerSettings.model_validate({"checks": {"residual_min_score": 0.99}})
    found = check_residual([_row("a", 1, "images/a.jpg")], folder, settings, model, threads=1)
    assert (found.looked_at, found.with_face, found.share) == (1, [], 0)


class _Eyes:
    """Detectors that keep what they are shown; that of one look gives faces."""

    def __init__(self, look: int, *faces: Face) -> None:
        self.look, self.faces = look, faces
        self.sides: list[int] = []
        self.images: list[Pixels] = []

    def __call__(self, side: int) -> _Eyes:
        self.sides.append(side)
        return self

    def find(self, pixels: Pixels) -> list[Face]:
        self.images.append(pixels.copy())
        return list(self.faces) if len(self.images) == self.look else []


@pytest.mark.parametrize(
    ("size", "sides"),
    [
        ((100, 70), [224, 224]),
        ((20, 101), [256, 256]),
        ((180, 100), [416, 416]),
        ((200, 200), [448, 448]),
        ((201, 100), [448, 448, 672]),
        ((100, 2000), [448, 448, 672]),
    ],
)
def test_an_image_is_looked_at_upright_upside_down_and_upright_again_if_it_is_large(
    size: tuple[int, int], sides: list[int]
) -> None:
    pixels = np.random.default_rng(2).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    eyes = _Eyes(0)
    assert faces_left(pixels, eyes, 0.85) == []
    assert eyes.sides == sides
    for seen, wanted in zip(eyes.images, [pixels, pixels[::-1, ::-1], pixels], strict=False):
        np.testing.assert_array_equal(seen, wanted)


@pytest.mark.parametrize("look", [1, 2, 3])
def test_the_first_look_that_finds_a_face_is_the_last(look: int) -> None:
    counts = [Face(1, 2, 30, 12, 0.85), Face(5, 5, 30, 40, 0.9)]
    others = [Face(1, 2, 30, 11.9, 0.99), Face(1, 2, 30, 40, 0.84)]
    pixels = np.zeros((400, 300, 3), np.uint8)
    eyes = _Eyes(look, *others, *counts)
    assert faces_left(pixels, eyes, 0.85) == counts
    assert len(eyes.images) == look
    eyes = _Eyes(look, *others)
    assert faces_left(pixels, eyes, 0.85) == []
    assert len(eyes.images) == 3


def test_a_sample_takes_pictures_that_had_a_face_first_and_spreads() -> None:
    rows = [_row(f"{n}", int(n % 4 == 0), f"images/{n}.jpg") for n in range(100)]
    assert [row.key for row in sample(rows, 5)] == ["0", "20", "40", "60", "80"]
    assert [row.key for row in sample(rows, 25)] == [f"{n}" for n in range(0, 100, 4)]
    more = sample(rows, 40)
    assert [row.key for row in more[:25]] == [f"{n}" for n in range(0, 100, 4)]
    others = [f"{n}" for n in range(100) if n % 4]
    assert [row.key for row in more[25:]] == others[::5]
    assert sample(rows, 1000) == [row for row in rows if row.face_count] + [
        row for row in rows if not row.face_count
    ]
    assert sample(rows, 0) == []
