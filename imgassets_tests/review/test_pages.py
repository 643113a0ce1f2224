from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from imgassets.imaging.faces import FaceDetector
from imgassets.manifests import Outcome, ProcessedRow, to_table
from imgassets.review.pages import (
    CONTACT_SHEET,
    HISTOGRAMS,
    IMAGES_PER_PAGE,
    INDEX,
    Page,
    write_review,
)
from imgassets.settings import ReviewSettings
from imgassets.storage import Storage
from imgassets_tests.rows import PARTITION, processed_row

PAGE_1 = "page_001.jpg"
RAW, PROCESSED = "raw.jpg", "processed.jpg"


def _row(key: str, **columns: Any) -> ProcessedRow:
    values = {"face_count": 1, "face_score": 0.95, "face_scores": [0.95], "trim_ratio": 0.6}
    return processed_row(key=key, **{"raw_path": RAW, "path": PROCESSED, **values, **columns})


class Partition:
    """A partition whose rows share one raw image (white) and one processed image (blue)."""

    def __init__(self, storage: Storage) -> None:
        self.storage, self.files = storage, storage.partition(*PARTITION)
        self.save(RAW, (1000, 1500), (255, 255, 255))
        self.save(PROCESSED, (299, 448), (20, 20, 200))

    def save(
        self, path: str, size: tuple[int, int], colour: tuple[int, int, int], orientation: int = 1
    ) -> None:
        file = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", size, colour).save(file, "JPEG", exif=exif)
        self.storage.write(path, file.getvalue())

    def write(self, rows: list[ProcessedRow], **options: Any) -> list[Page]:
        return write_review(to_table(rows, ProcessedRow), self.files, ReviewSettings(**options))

    @property
    def names(self) -> set[str]:
        return set(self.storage.names(self.files.review))

    def read(self, name: str) -> bytes:
        return self.storage.read(f"{self.files.review}/{name}")

    def page(self, name: str = PAGE_1) -> Image.Image:
        return Image.open(io.BytesIO(self.read(name)))


@pytest.fixture
def partition(storage: Storage) -> Partition:
    return Partition(storage)


def _near(image: Image.Image, colour: tuple[int, int, int]) -> int:
    distance = np.abs(np.asarray(image, int) - colour).max(axis=2)
    return int((distance < 60).sum())


def _box(image: Image.Image, colour: tuple[int, int, int]) -> list[int]:
    """Left, top, right and bottom of the pixels of a colour."""
    near = np.abs(np.asarray(image, int) - colour).max(axis=2) < 60
    # Ignores single pixels, which are compression artefacts.
    columns, rows = (np.nonzero(near.sum(axis=axis) > 1)[0] for axis in (0, 1))
    return [int(side) for side in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]


def test_a_page_shows_the_processed_image_unscaled_beside_the_boxes(partition: Partition) -> None:
    row = _row("a", face_boxes=[[400, 100, 200, 260]], face_cut=380, kept_box=[200, 380, 600, 1120])
    assert partition.write([row]) == [Page(PAGE_1, ["a"])]
    page = partition.page()
    assert abs(_near(page, (20, 20, 200)) - 299 * 448) < 2000
    # The raw image is at (6, 46), scaled by 0.3.
    assert _box(page, (230, 40, 40)) == pytest.approx([126, 76, 186, 154], abs=2)  # the face
    assert _box(page, (255, 140, 0)) == pytest.approx([6, 159, 306, 162], abs=2)  # the cut
    assert _box(page, (0, 150, 70)) == pytest.approx([66, 160, 246, 496], abs=2)  # the kept area
    assert _box(page, (20, 20, 200)) == pytest.approx([312, 47, 611, 495], abs=2)


def test_boxes_are_placed_correctly_on_an_image_with_exif_orientation(partition: Partition) -> None:
    partition.save(RAW, (1500, 1000), (255, 255, 255), orientation=6)
    partition.write([_row("a", path=None, kept_box=[0, 0, 1000, 1500])])
    page = np.asarray(partition.page(), int)
    green = np.abs(page - (0, 150, 70)).max(axis=2) < 60
    rows, columns = np.nonzero(green)
    assert abs(np.ptp(columns) - 299) <= 2
    assert abs(np.ptp(rows) - 449) <= 2


def test_all_images_are_shown_on_as_many_pages_as_needed(partition: Partition) -> None:
    rows = [_row(f"plain-{n}") for n in range(IMAGES_PER_PAGE)]
    rows += [_row("low-score", face_score=0.5), _row("corrupt", outcome=Outcome.CORRUPT, path=None)]
    pages = partition.write(rows)
    assert [page.name for page in pages] == [PAGE_1, "page_002.jpg"]
    assert pages[0].keys[0] == "low-score"
    keys = [key for page in pages for key in page.keys]
    assert sorted(keys) == sorted(row.key for row in rows if row.key != "corrupt")
    first, second = (partition.page(page.name) for page in pages)
    assert first.width == second.width
    assert first.height > 8 * second.height
    assert partition.names == {PAGE_1, "page_002.jpg", INDEX, HISTOGRAMS, CONTACT_SHEET}
    index = json.loads(partition.read(INDEX))
    assert index["pages"] == {page.name: page.keys for page in pages}


def test_max_pages_limits_the_pages_and_keeps_images_of_high_review_priority(
    partition: Partition,
) -> None:
    rows = [_row(f"plain-{n}", path=None) for n in range(3 * IMAGES_PER_PAGE)]
    rows[70:70] = [_row("low-score", face_score=0.5, path=None)]
    (page,) = partition.write(rows, max_pages=1)
    assert len(page.keys) == IMAGES_PER_PAGE
    assert page.keys[0] == "low-score"


def test_pages_show_only_images_that_the_partition_processed_and_the_sheet_shows_all(
    partition: Partition,
) -> None:
    partition.save("other.jpg", (299, 448), (20, 200, 200))
    reused = [
        _row(f"old-{n}", reused_from="2026-01-01", path="other.jpg", face_score=0.5)
        for n in range(IMAGES_PER_PAGE + 1)
    ]
    assert partition.write([*reused, _row("new"), _row("newer")]) == [
        Page(PAGE_1, ["new", "newer"])
    ]
    page, sheet = partition.page(), partition.page(CONTACT_SHEET)
    assert abs(_near(page, (20, 20, 200)) - 2 * 299 * 448) < 4000
    assert _near(page, (20, 200, 200)) == 0
    assert _near(sheet, (20, 200, 200)) > 10_000


def test_a_partition_that_processed_no_image_has_a_sheet_but_no_page(partition: Partition) -> None:
    partition.write([_row("a")])
    assert partition.write([_row("a", reused_from="2026-01-01")]) == []
    assert partition.names == {INDEX, HISTOGRAMS, CONTACT_SHEET}
    assert json.loads(partition.read(INDEX))["pages"] == {}


def test_review_files_are_below_the_review_folder_of_the_partition(partition: Partition) -> None:
    partition.write([_row("a")])
    folder = f"review/retailer={PARTITION.retailer}/date={PARTITION.date}"
    assert set(partition.storage.find("review")) == {
        f"{folder}/{name}" for name in (PAGE_1, INDEX, HISTOGRAMS, CONTACT_SHEET)
    }


def test_a_page_of_small_images_has_lower_cells(partition: Partition) -> None:
    partition.write([_row("a")])
    high = partition.page().height
    partition.save(RAW, (160, 240), (255, 255, 255))
    partition.save(PROCESSED, (93, 140), (20, 20, 200))
    partition.write([_row("b")])
    low = partition.page()
    assert low.height == high - 450 + 240
    assert _near(low, (20, 20, 200)) > 0.9 * 93 * 140


def test_pages_of_an_earlier_run_are_removed(partition: Partition) -> None:
    rows = [_row(f"plain-{n}", path=None) for n in range(IMAGES_PER_PAGE + 1)]
    partition.write(rows)
    partition.write(rows[:3])
    assert partition.names == {PAGE_1, INDEX, HISTOGRAMS, CONTACT_SHEET}
    assert partition.write(rows[:3], max_pages=0) == []
    assert partition.names == {INDEX, HISTOGRAMS, CONTACT_SHEET}
    partition.write([_row("a", outcome=Outcome.CORRUPT, path=None)])
    assert partition.names == {INDEX}


def test_pages_of_unchanged_rows_are_kept_even_if_raw_images_were_removed(
    partition: Partition,
) -> None:
    rows = [_row("a"), _row("b")]
    pages = partition.write(rows)
    drawn = partition.read(PAGE_1)
    partition.storage.remove(RAW)
    assert partition.write(rows) == pages
    assert partition.read(PAGE_1) == drawn

    partition.write([rows[0], replace(rows[1], trim_ratio=0.3)])
    assert partition.read(PAGE_1) != drawn


def test_an_interrupted_run_is_repaired_by_the_next_one(partition: Partition) -> None:
    partition.write([_row("a")])
    review = partition.files.review
    partition.storage.remove(f"{review}/{PAGE_1}")
    partition.storage.write(f"{review}/{INDEX}", b'{"state": "')
    assert partition.write([_row("a")]) == [Page(PAGE_1, ["a"])]
    assert PAGE_1 in partition.names


def test_histograms_are_written_at_three_times_the_size(partition: Partition) -> None:
    partition.write([_row("a", trim_ratio=0.62)])
    plot = Image.open(io.BytesIO(partition.read(HISTOGRAMS)))
    assert plot.size == (2400, 480)
    bars = (np.asarray(plot.convert("RGB")) == (70, 120, 190)).all(axis=2)
    assert bars[:, 3 * (10 + 12 * 19 + 9)].sum() > 300  # from 0.60 to 0.65


def _count_faces(detector: FaceDetector, image: Image.Image) -> int:
    return len(detector.find(cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)))  # type: ignore[arg-type]


def _write_portrait(
    partition: Partition, photo: bytes, detector: FaceDetector, **options: Any
) -> tuple[Image.Image, Image.Image, Image.Image]:
    """Write a page of an image that was too close and is kept.

    Returns:
        The halves before and after of the page, and the small contact sheet.
    """
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    pixels = np.asarray(image)[:, :, ::-1].copy()
    (face,) = detector.find(pixels)
    box = [round(side) for side in (face.x, face.y, face.width, face.height)]
    partition.storage.write(RAW, photo)
    # Trimmed by 40 px at the left and at the top, then scaled to one half.
    kept = [40, 40, image.width - 40, image.height - 40]
    processed = image.crop((40, 40, *image.size))
    processed = processed.resize((processed.width // 2, processed.height // 2))
    file = io.BytesIO()
    processed.save(file, "JPEG", quality=95)
    partition.storage.write(PROCESSED, file.getvalue())
    row = _row(
        "a",
        outcome=Outcome.TOO_CLOSE,
        face_boxes=[box],
        face_removed=False,
        kept_box=kept,
        width=processed.width,
        height=processed.height,
    )
    partition.write([row], **options)
    page = partition.page()
    sheet = Image.open(io.BytesIO(partition.read(CONTACT_SHEET)))
    return (
        page.crop((0, 40, 309, page.height)),
        page.crop((309, 40, 620, page.height)),
        sheet,
    )


@pytest.mark.parametrize("name", ["portrait_a", "portrait_b", "portrait_c"])
def test_no_detected_face_is_visible_in_any_review_file(
    partition: Partition, photos: dict[str, bytes], detector: FaceDetector, name: str
) -> None:
    before, after, sheet = _write_portrait(partition, photos[name], detector)
    assert [_count_faces(detector, image) for image in (before, after, sheet)] == [0, 0, 0]
    assert _near(before, (230, 40, 40)) > 100  # the box of the face


def test_hide_faces_false_shows_faces_and_a_change_of_it_draws_the_pages_again(
    partition: Partition, photos: dict[str, bytes], detector: FaceDetector
) -> None:
    photo = photos["portrait_a"]
    shown = _write_portrait(partition, photo, detector, hide_faces=False)
    assert _count_faces(detector, shown[0]) == 1
    assert _count_faces(detector, shown[1]) == 1
    hidden = _write_portrait(partition, photo, detector)
    assert _count_faces(detector, hidden[0]) == 0
    assert _count_faces(detector, hidden[1]) == 0


def test_a_face_that_was_not_detected_stays_visible(
    partition: Partition, photos: dict[str, bytes], detector: FaceDetector
) -> None:
    partition.storage.write(RAW, photos["portrait_a"])
    partition.write([_row("a", face_count=0, face_score=None, path=None)])
    assert _count_faces(detector, partition.page()) == 1
