from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from imgassets.imaging.faces import Face, FaceDetector, load_detector
from imgassets.imaging.image import Pixels
from imgassets.imaging.residual import choose_sample, detect_residual_faces, find_residual_faces
from imgassets.manifests import Outcome, ProcessedRow
from imgassets.settings import FaceSettings, RetailerSettings
from imgassets.storage import Storage


def _pixels(data: bytes) -> Pixels:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)


Detectors = Callable[[int], FaceDetector]


@pytest.fixture
def detectors(model: Path) -> Detectors:
    return lambda side: load_detector(model, FaceSettings(first_side=None, detect_side=side))


def _row(
    key: str, face_count: int | None, path: str | None = None, reused_from: str | None = None
) -> ProcessedRow:
    return ProcessedRow(
        key=key,
        url="http://shop/x",
        retailer="zara",
        date="2026-01-02",
        product_id="1",
        position=0,
        document_id="1",
        outcome=Outcome.OK if path else Outcome.CORRUPT,
        path=path,
        face_count=face_count,
        sha256=hashlib.sha256(key.encode()).hexdigest(),
        reused_from=reused_from,
    )


@pytest.mark.parametrize("name", ["portrait_a", "cutout_c", "astronaut"])
def test_a_residual_face_is_found_upright_and_upside_down(
    photos: dict[str, bytes], detectors: Detectors, name: str
) -> None:
    pixels = _pixels(photos[name])
    (upright, *_) = find_residual_faces(pixels, detectors, 0.85)
    (turned, *_) = find_residual_faces(pixels[::-1, ::-1].copy(), detectors, 0.85)
    assert turned.x + turned.width == pytest.approx(pixels.shape[1] - upright.x, abs=10)
    assert turned.y + turned.height == pytest.approx(pixels.shape[0] - upright.y, abs=10)


def _with_small_face(photos: dict[str, bytes], height: int, width: int) -> Pixels:
    """A face of 12 to 15 px on white."""
    canvas = np.full((height, width, 3), 255, np.uint8)
    photo = _pixels(photos["cutout_c"])[200:]
    small = cv2.resize(photo, None, fx=0.12, fy=0.12, interpolation=cv2.INTER_AREA)
    part = canvas[height // 5 :, width // 14 :]
    small = small[: part.shape[0], : part.shape[1]]
    part[: small.shape[0], : small.shape[1]] = small
    return canvas


def test_a_small_face_is_found_at_the_larger_scale_only(
    photos: dict[str, bytes], detectors: Detectors
) -> None:
    canvas = _with_small_face(photos, 448, 320)
    assert find_residual_faces(canvas, lambda side: detectors(min(side, 448)), 0.85) == []
    (face,) = find_residual_faces(canvas, detectors, 0.85)
    assert 12 <= face.height <= 15


@pytest.mark.parametrize("height", [200, 160, 120, 100])
def test_the_smallest_face_is_found_in_a_thumbnail_without_the_larger_scale(
    photos: dict[str, bytes], detectors: Detectors, height: int
) -> None:
    sides: list[int] = []

    def record_side(side: int) -> FaceDetector:
        sides.append(side)
        return detectors(side)

    (face,) = find_residual_faces(
        _with_small_face(photos, height, height * 7 // 10), record_side, 0.85
    )
    assert 12 <= face.height <= 15
    assert max(sides) <= height * 2.25 + 31


def test_the_result_has_the_share_and_the_boxes_of_images_with_a_face(
    photos: dict[str, bytes], model: Path, tmp_path: Path
) -> None:
    storage = Storage(str(tmp_path))
    rows = []
    for name in ("portrait_a", "cutout_no_head"):
        storage.write(f"images/{name}.jpg", photos[name])
        rows.append(_row(name, 1, f"images/{name}.jpg"))
    rows.append(_row("no-image", None))
    found = detect_residual_faces(rows, storage, RetailerSettings(), model, threads=2)
    assert (found.checked, [*found.with_face]) == (2, ["portrait_a"])
    ((x, y, width, height),) = found.with_face["portrait_a"]
    assert x < 490 < x + width  # `demo.people` has the position of this face
    assert y < 93 + 329 / 2 < y + height


def test_missing_and_damaged_images_are_listed_and_do_not_stop_the_check(
    photos: dict[str, bytes], model: Path, tmp_path: Path
) -> None:
    storage = Storage(str(tmp_path))
    storage.write("images/whole.jpg", photos["portrait_a"])
    storage.write("images/cut.jpg", photos["portrait_a"][:2000])
    rows = [_row(name, 1, f"images/{name}.jpg") for name in ("gone", "cut", "whole")]
    found = detect_residual_faces(rows, storage, RetailerSettings(), model, threads=2)
    assert found.unreadable == ["gone", "cut"]
    assert (found.checked, [*found.with_face]) == (1, ["whole"])


def test_images_that_another_day_processed_are_not_checked_again(
    photos: dict[str, bytes], model: Path, tmp_path: Path
) -> None:
    storage = Storage(str(tmp_path))
    storage.write("images/a.jpg", photos["portrait_a"])
    rows = [
        _row("reused", 1, "images/a.jpg", "2026-01-01"),
        _row("reused-and-gone", 1, "images/gone.jpg", "2026-01-01"),
        _row("own", 1, "images/a.jpg"),
    ]
    found = detect_residual_faces(rows, storage, RetailerSettings(), model, threads=2)
    assert (found.checked, [*found.with_face], found.unreadable) == (1, ["own"], [])
    found = detect_residual_faces(rows[:2], storage, RetailerSettings(), model, threads=2)
    assert (found.checked, found.with_face, found.unreadable) == (0, {}, [])


@pytest.mark.parametrize(
    ("sections", "checked"),
    [
        ({}, 1),
        ({"faces": {"action": "blur"}}, 1),
        ({"process": {"steps": ["trim", "remove_face"]}}, 1),
        ({"faces": {"action": "none"}}, 0),
        ({"process": {"steps": ["trim"]}}, 0),
        ({"checks": {"residual_sample": 0}}, 0),
    ],
)
def test_no_image_is_checked_if_the_settings_do_not_remove_faces(
    photos: dict[str, bytes],
    model: Path,
    tmp_path: Path,
    sections: dict[str, object],
    checked: int,
) -> None:
    storage = Storage(str(tmp_path))
    storage.write("images/a.jpg", photos["portrait_a"])
    settings = RetailerSettings.model_validate(sections)
    found = detect_residual_faces(
        [_row("a", 1, "images/a.jpg")], storage, settings, model, threads=1
    )
    assert (found.checked, len(found.with_face)) == (checked, checked)
    assert ([*found.with_face], found.unreadable) == (["a"] * checked, [])


def test_a_face_below_the_score_of_the_settings_does_not_count(
    photos: dict[str, bytes], model: Path, tmp_path: Path
) -> None:
    storage = Storage(str(tmp_path))
    storage.write("images/a.jpg", photos["portrait_a"])
    settings = RetailerSettings.model_validate({"checks": {"residual_min_score": 0.99}})
    rows = [_row("a", 1, "images/a.jpg")]
    found = detect_residual_faces(rows, storage, settings, model, threads=1)
    assert (found.checked, found.with_face) == (1, {})


class _FakeDetectors:
    """Record all input images and sizes, and find faces in one pass only."""

    def __init__(self, pass_number: int, *faces: Face) -> None:
        self.pass_number, self.faces = pass_number, faces
        self.sides: list[int] = []
        self.images: list[Pixels] = []

    def __call__(self, side: int) -> _FakeDetectors:
        self.sides.append(side)
        return self

    def find(self, pixels: Pixels) -> list[Face]:
        self.images.append(pixels.copy())
        return list(self.faces) if len(self.images) == self.pass_number else []


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
def test_the_passes_are_upright_upside_down_and_larger_for_large_images(
    size: tuple[int, int], sides: list[int]
) -> None:
    pixels = np.random.default_rng(2).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    detectors = _FakeDetectors(0)
    assert find_residual_faces(pixels, detectors, 0.85) == []
    assert detectors.sides == sides
    for image, wanted in zip(detectors.images, [pixels, pixels[::-1, ::-1], pixels], strict=False):
        np.testing.assert_array_equal(image, wanted)


@pytest.mark.parametrize("pass_number", [1, 2, 3])
def test_the_first_pass_that_finds_a_face_is_the_last(pass_number: int) -> None:
    counts = [Face(1, 2, 30, 12, 0.85), Face(5, 5, 30, 40, 0.9)]
    others = [Face(1, 2, 30, 11.9, 0.99), Face(1, 2, 30, 40, 0.84)]
    pixels = np.zeros((400, 300, 3), np.uint8)
    detectors = _FakeDetectors(pass_number, *others, *counts)
    # The second pass sees the image upside down: 300 x 400 px.
    turned = [Face(269, 386, 30, 12, 0.85), Face(265, 355, 30, 40, 0.9)]
    expected = turned if pass_number == 2 else counts
    assert find_residual_faces(pixels, detectors, 0.85) == expected
    assert len(detectors.images) == pass_number
    detectors = _FakeDetectors(pass_number, *others)
    assert find_residual_faces(pixels, detectors, 0.85) == []
    assert len(detectors.images) == 3


def test_a_sample_starts_with_images_that_had_a_face_and_is_evenly_spread() -> None:
    rows = [_row(f"{n}", int(n % 4 == 0), f"images/{n}.jpg") for n in range(100)]
    assert [row.key for row in choose_sample(rows, 5)] == ["0", "20", "40", "60", "80"]
    assert [row.key for row in choose_sample(rows, 25)] == [f"{n}" for n in range(0, 100, 4)]
    more = choose_sample(rows, 40)
    assert [row.key for row in more[:25]] == [f"{n}" for n in range(0, 100, 4)]
    others = [f"{n}" for n in range(100) if n % 4]
    assert [row.key for row in more[25:]] == others[::5]
    assert choose_sample(rows, 1000) == [row for row in rows if row.face_count] + [
        row for row in rows if not row.face_count
    ]
    assert choose_sample(rows, 0) == []
    reused = [replace(row, reused_from="2026-01-01") for row in rows]
    assert choose_sample([*reused, *rows], 1000) == choose_sample(rows, 1000)
    assert choose_sample(reused, 1000) == []
