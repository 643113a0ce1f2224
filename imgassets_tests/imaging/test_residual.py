from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from imgassets.imaging.faces import load_detector
from imgassets.imaging.image import Pixels
from imgassets.imaging.residual import detect_residual_faces, find_residual_faces
from imgassets.imaging.residual_sample import (
    RESULT,
    ResidualFaces,
    choose_sample,
    read_result,
    write_result,
)
from imgassets.imaging.yunet import Network, load_shared_network
from imgassets.manifests import Outcome, ProcessedRow, to_table
from imgassets.settings import FaceSettings, RetailerSettings
from imgassets.storage import PartitionFiles, Storage


def _pixels(data: bytes) -> Pixels:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)


@pytest.fixture
def network(model: Path) -> Network:
    return load_shared_network(model)


def _row(
    key: str,
    face_count: int | None,
    path: str | None = None,
    reused_from: str | None = None,
    face_rule: str | None = None,
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
        face_rule=face_rule,
        sha256=hashlib.sha256(key.encode()).hexdigest(),
        reused_from=reused_from,
    )


# The cut is at about the eyes; the row of the chin is that of `benchmarks.quality.people`.
@pytest.mark.parametrize(
    ("name", "cut", "chin"),
    [("portrait_a", 250, 433), ("cutout_a", 360, 462), ("cutout_c", 315, 381)],
)
def test_a_face_that_the_upper_edge_cuts_is_found(
    photos: dict[str, bytes], network: Network, name: str, cut: int, chin: int
) -> None:
    pixels = _pixels(photos[name])[cut:]
    (face,) = find_residual_faces(pixels, network, 0.7)
    assert face.y < 0
    assert face.y + face.height == pytest.approx(chin - cut, abs=20)


@pytest.mark.parametrize(("name", "chin"), [("portrait_a", 433), ("cutout_a", 462)])
@pytest.mark.parametrize("below", [-0.05, 0, 0.04, 0.14])
def test_a_cut_near_the_chin_gives_no_alarm(
    photos: dict[str, bytes], network: Network, name: str, chin: int, below: float
) -> None:
    cut = round(chin + below * 200)
    assert find_residual_faces(_pixels(photos[name])[cut:], network, 0.7) == []


def _with_small_face(photos: dict[str, bytes], height: int, width: int) -> Pixels:
    """A face of 12 to 15 px on white."""
    canvas = np.full((height, width, 3), 255, np.uint8)
    photo = _pixels(photos["cutout_c"])[200:]
    small = cv2.resize(photo, None, fx=0.12, fy=0.12, interpolation=cv2.INTER_AREA)
    part = canvas[height // 5 :, width // 14 :]
    small = small[: part.shape[0], : part.shape[1]]
    part[: small.shape[0], : small.shape[1]] = small
    return canvas


@pytest.mark.parametrize("height", [200, 160, 120, 100])
def test_the_smallest_face_is_found_in_a_thumbnail(
    photos: dict[str, bytes], network: Network, height: int
) -> None:
    pixels = _with_small_face(photos, height, height * 7 // 10)
    (face,) = find_residual_faces(pixels, network, 0.7)
    assert 12 <= face.height <= 16


def test_the_result_has_the_share_and_the_boxes_of_images_with_a_face(
    photos: dict[str, bytes], model: Path, tmp_path: Path
) -> None:
    storage = Storage(str(tmp_path))
    rows = []
    for name in ("portrait_a", "cutout_no_head"):
        storage.write(f"images/{name}.jpg", photos[name])
        rows.append(_row(name, 1, f"images/{name}.jpg"))
    rows.append(_row("no-image", None))
    found = detect_residual_faces(
        to_table(rows, ProcessedRow), storage, RetailerSettings(), model, threads=2
    )
    assert (found.checked, [*found.with_face]) == (2, ["portrait_a"])
    ((x, y, width, height),) = found.with_face["portrait_a"]
    assert x < 490 < x + width  # `demo.people` has the position of this face
    assert y < 93 + 329 / 2 < y + height


@pytest.mark.parametrize(("cut_higher", "alarms"), [(0.0, False), (0.4, True)])
def test_a_neck_below_a_cut_is_no_face_but_half_a_face_is(
    catalogue_folder: Path, model: Path, tmp_path: Path, cut_higher: float, alarms: bool
) -> None:
    # In this image, throat and collar look like a mouth and a chin.
    pixels = _pixels((catalogue_folder / "zara/2026/01/03/0008/back.jpg").read_bytes())
    (face,) = load_detector(model, FaceSettings()).find(pixels)
    cut = round(face.y + (1.04 - cut_higher) * face.height)
    rest = pixels[cut:]
    storage = Storage(str(tmp_path))
    storage.write("images/back.png", cv2.imencode(".png", rest)[1].tobytes())
    row = replace(
        _row("back", 1, "images/back.png"),
        width=rest.shape[1],
        height=rest.shape[0],
        face_cut=cut,
        face_boxes=[[round(face.x), round(face.y), round(face.width), round(face.height)]],
        kept_box=[0, cut, rest.shape[1], rest.shape[0]],
    )

    settings = RetailerSettings.model_validate({"checks": {"residual_min_score": 0.6}})

    def with_face(row: ProcessedRow) -> bool:
        found = detect_residual_faces(
            to_table([row], ProcessedRow), storage, settings, model, threads=1
        )
        return bool(found.with_face)

    assert with_face(row) == alarms
    assert with_face(replace(row, face_cut=None))


def test_missing_and_damaged_images_are_listed_and_do_not_stop_the_check(
    photos: dict[str, bytes], model: Path, tmp_path: Path
) -> None:
    storage = Storage(str(tmp_path))
    storage.write("images/whole.jpg", photos["portrait_a"])
    storage.write("images/cut.jpg", photos["portrait_a"][:2000])
    rows = [_row(name, 1, f"images/{name}.jpg") for name in ("gone", "cut", "whole")]
    found = detect_residual_faces(
        to_table(rows, ProcessedRow), storage, RetailerSettings(), model, threads=2
    )
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
    found = detect_residual_faces(
        to_table(rows, ProcessedRow), storage, RetailerSettings(), model, threads=2
    )
    assert (found.checked, [*found.with_face], found.unreadable) == (1, ["own"], [])
    found = detect_residual_faces(
        to_table(rows[:2], ProcessedRow), storage, RetailerSettings(), model, threads=2
    )
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
        to_table([_row("a", 1, "images/a.jpg")], ProcessedRow), storage, settings, model, threads=1
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
    found = detect_residual_faces(to_table(rows, ProcessedRow), storage, settings, model, threads=1)
    assert (found.checked, found.with_face) == (1, {})


class _FakeNetwork(Network):
    """Record the inputs, and find the given faces."""

    def __init__(self, *faces: tuple[float, float, float, float, float]) -> None:
        self.faces = faces
        self.inputs: list[Pixels] = []
        self.min_scores: list[float] = []

    def find(self, pixels: Pixels, min_score: float) -> NDArray[np.float32]:
        self.inputs.append(pixels)
        self.min_scores.append(min_score)
        rows = [[*face[:4], *range(10), face[4]] for face in self.faces]
        return np.array(rows, np.float32).reshape(-1, 15)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((100, 70), (200, 140)),
        ((20, 101), (40, 202)),
        ((192, 192), (384, 384)),
        ((300, 400), (288, 384)),
        ((384, 200), (384, 200)),
        ((768, 1536), (192, 384)),
        ((2000, 1), (384, 1)),
        ((1, 2000), (1, 384)),
    ],
)
def test_the_network_sees_the_whole_image_once_below_a_white_band(
    size: tuple[int, int], shown: tuple[int, int]
) -> None:
    network = _FakeNetwork()
    assert find_residual_faces(np.full((size[1], size[0], 3), 90, np.uint8), network, 0.7) == []
    (pixels,) = network.inputs
    band = round(shown[1] * 0.2)
    assert pixels.shape == (shown[1] + band, shown[0], 3)
    assert np.all(pixels[:band] == 255)
    assert np.all(pixels[band:] == 90)
    assert network.min_scores == [0.7]


def test_faces_are_in_pixels_of_the_image_and_small_ones_do_not_count() -> None:
    pixels = np.zeros((768, 576, 3), np.uint8)  # shown at half size, below a band of 77 px
    network = _FakeNetwork((10, 60, 20, 30, 0.9), (1, 177, 6, 6, 0.8), (1, 177, 6, 5.9, 0.8))
    first, second = find_residual_faces(pixels, network, 0.7)
    assert (first.x, first.y, first.width, first.height) == (20, -34, 40, 60)
    assert first.score == pytest.approx(0.9)
    assert (second.x, second.y, second.width, second.height) == (2, 200, 12, 12)


def test_one_half_of_a_sample_had_a_face_and_both_are_evenly_spread() -> None:
    rows = [_row(f"{n}", int(n % 4 == 0), f"images/{n}.jpg") for n in range(100)]
    had_face = [f"{n}" for n in range(0, 100, 4)]
    others = [f"{n}" for n in range(100) if n % 4]

    def sample(size: int) -> list[str]:
        return [row.key for row in choose_sample(to_table(rows, ProcessedRow), size)]

    assert sample(10) == ["0", "20", "40", "60", "80", "1", "21", "41", "61", "81"]
    assert sample(11) == [*sample(10)[:5], *(others[75 * n // 6] for n in range(6))]
    assert sample(1) == ["1"]
    assert sample(75) == [*had_face, *(others[75 * n // 50] for n in range(50))]
    assert sample(1000) == [*had_face, *others]
    assert sample(0) == []


@pytest.mark.parametrize("with_face", [3, 97])
def test_if_one_half_has_too_few_images_the_other_gets_more(with_face: int) -> None:
    rows = [_row(f"{n}", int(n < with_face), f"images/{n}.jpg") for n in range(100)]
    sample = choose_sample(to_table(rows, ProcessedRow), 20)
    assert len(sample) == len({row.key for row in sample}) == 20
    assert sum(row.face_count == 1 for row in sample) == min(with_face, 17)


def test_reused_images_and_images_that_keep_a_printed_face_are_not_sampled() -> None:
    rows = [_row(f"{n}", n % 2, f"images/{n}.jpg") for n in range(20)]
    reused = [replace(row, reused_from="2026-01-01") for row in rows]
    printed = [replace(row, face_rule="printed", path=f"images/p{row.key}.jpg") for row in rows]
    assert choose_sample(to_table([*reused, *printed, *rows], ProcessedRow), 1000) == choose_sample(
        to_table(rows, ProcessedRow), 1000
    )
    assert choose_sample(to_table([*reused, *printed], ProcessedRow), 1000) == []


def test_an_image_that_keeps_a_printed_face_does_not_count(
    photos: dict[str, bytes], model: Path, tmp_path: Path
) -> None:
    storage = Storage(str(tmp_path))
    storage.write("images/a.jpg", photos["portrait_a"])
    storage.write("images/b.jpg", photos["portrait_b"])
    rows = [
        _row("printed", 1, "images/a.jpg", face_rule="printed"),
        _row("cut", 1, "images/b.jpg", face_rule="lowest_chin"),
    ]
    found = detect_residual_faces(
        to_table(rows, ProcessedRow), storage, RetailerSettings(), model, threads=1
    )
    assert (found.checked, [*found.with_face]) == (1, ["cut"])


def test_a_face_that_was_missed_is_found_where_many_images_had_a_face(
    photos: dict[str, bytes], model: Path, tmp_path: Path
) -> None:
    storage = Storage(str(tmp_path))
    storage.write("images/missed.jpg", photos["portrait_a"])
    rows = [_row("missed", 0, "images/missed.jpg")]
    for number in range(10):
        storage.write(f"images/{number}.jpg", photos["cutout_no_head"])
        rows.append(_row(f"{number}", 1, f"images/{number}.jpg"))
    settings = RetailerSettings.model_validate({"checks": {"residual_sample": 4}})
    found = detect_residual_faces(to_table(rows, ProcessedRow), storage, settings, model, threads=1)
    assert (found.checked, [*found.with_face]) == (4, ["missed"])


def _stored(tmp_path: Path, photos: dict[str, bytes]) -> tuple[PartitionFiles, list[ProcessedRow]]:
    """Store two images, and return the partition and its rows with their checksums."""
    partition = Storage(str(tmp_path)).partition("2026-01-02", "zara")
    rows = []
    for name in ("portrait_a", "cutout_no_head"):
        partition.storage.write(f"images/{name}.jpg", photos[name])
        sha256 = hashlib.sha256(photos[name]).hexdigest()
        rows.append(replace(_row(name, 1, f"images/{name}.jpg"), sha256=sha256))
    return partition, rows


def test_faces_are_not_detected_again_until_something_changes(
    photos: dict[str, bytes], model: Path, tmp_path: Path
) -> None:
    partition, rows = _stored(tmp_path, photos)
    storage, settings = partition.storage, RetailerSettings()
    other_model = tmp_path / "other.onnx"
    other_model.write_bytes(model.read_bytes() + b"\0")
    stricter = RetailerSettings.model_validate({"checks": {"residual_min_score": 0.9}})
    fewer = RetailerSettings.model_validate({"checks": {"residual_sample": 1}})
    keeps = RetailerSettings.model_validate({"faces": {"action": "none"}})

    def read(
        rows: list[ProcessedRow], settings: RetailerSettings = settings, model: Path = model
    ) -> ResidualFaces | None:
        return read_result(to_table(rows, ProcessedRow), partition, settings, model)

    assert read(rows) is None
    found = detect_residual_faces(to_table(rows, ProcessedRow), storage, settings, model, threads=2)
    assert [*found.with_face] == ["portrait_a"]
    write_result(found, to_table(rows, ProcessedRow), partition, settings, model)

    assert read(rows) == found
    assert read([*rows, _row("failed", None)]) == found
    assert read(rows[:1]) is None
    assert read([rows[0], replace(rows[1], sha256="0" * 64)]) is None
    assert read([rows[0], replace(rows[1], face_cut=10)]) is None
    assert read(rows, stricter) is None
    assert read(rows, fewer) is None
    assert read(rows, model=other_model) is None
    assert read(rows, keeps) == ResidualFaces(0, {}, [], intact=True)

    file, image = f"images/{rows[1].key}.jpg", photos["cutout_no_head"]
    storage.write(file, image[:-1])
    assert read(rows) is None
    storage.remove(file)
    assert read(rows) is None
    storage.write(file, image)
    assert read(rows) == found


@pytest.mark.parametrize("damaged", [b"", b"\xff\xd8\xff", None])
def test_the_result_of_images_that_are_not_those_of_their_rows_is_not_kept(
    photos: dict[str, bytes], model: Path, tmp_path: Path, damaged: bytes | None
) -> None:
    partition, rows = _stored(tmp_path, photos)
    settings = RetailerSettings()
    file, image = "images/cutout_no_head.jpg", photos["cutout_no_head"]
    # The last one is readable, but another image.
    partition.storage.write(file, photos["cutout_a"] if damaged is None else damaged)
    found = detect_residual_faces(
        to_table(rows, ProcessedRow), partition.storage, settings, model, threads=2
    )
    write_result(found, to_table(rows, ProcessedRow), partition, settings, model)
    partition.storage.write(file, image)
    assert read_result(to_table(rows, ProcessedRow), partition, settings, model) is None


def test_a_damaged_result_of_an_earlier_run_is_ignored(
    photos: dict[str, bytes], model: Path, tmp_path: Path
) -> None:
    partition, rows = _stored(tmp_path, photos)
    for text in (b"", b'{"state": '):
        partition.storage.write(f"{partition.review}/{RESULT}", text)
        assert (
            read_result(to_table(rows, ProcessedRow), partition, RetailerSettings(), model) is None
        )
