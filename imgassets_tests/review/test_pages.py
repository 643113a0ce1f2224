from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from imgassets.imaging.faces import FaceDetector
from imgassets.manifests import Outcome, ProcessedRow, RawRow
from imgassets.review.pages import HISTOGRAMS, IMAGES_PER_PAGE, INDEX, REVIEW, Page, write_review
from imgassets.settings import ReviewSettings
from imgassets.storage import CONTACT_SHEET, Folder

PAGE_1 = "page_001.jpg"


def _row(key: str, **columns: object) -> ProcessedRow:
    values = {
        "outcome": Outcome.OK,
        "path": "images/processed.jpg",
        "face_count": 1,
        "face_score": 0.95,
        "face_scores": [0.95],
        "trim_ratio": 0.6,
    }
    return ProcessedRow(key=key, url="http://shop/x", product_id="1", **(values | columns))  # type: ignore[arg-type]


def _raw(key: str, path: str = "images/raw.jpg") -> RawRow:
    return RawRow(
        key=key,
        url="http://shop/x",
        retailer="zara",
        date="2026-01-02",
        product_id="1",
        position=0,
        document_id="1",
        outcome=Outcome.OK,
        path=path,
    )


class Partition:
    """A partition whose rows share one raw image (white) and one processed image (blue)."""

    def __init__(self, folder: Path) -> None:
        self.raw, self.processed = Folder(str(folder / "raw")), Folder(str(folder / "processed"))
        self.save(self.raw, "raw.jpg", (1000, 1500), (255, 255, 255))
        self.save(self.processed, "processed.jpg", (299, 448), (20, 20, 200))

    @staticmethod
    def save(
        folder: Folder,
        name: str,
        size: tuple[int, int],
        colour: tuple[int, int, int],
        orientation: int = 1,
    ) -> None:
        file = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", size, colour).save(file, "JPEG", exif=exif)
        (folder / "images").write(name, file.getvalue())

    def write(self, rows: list[ProcessedRow], **options: Any) -> list[Page]:
        raw_rows = [_raw(row.key) for row in rows]
        review = ReviewSettings(**options)
        return write_review(
            rows, raw_rows, self.raw, self.processed, title="2026-01-02|zara", options=review
        )

    @property
    def files(self) -> set[str]:
        return set((self.processed / REVIEW).sizes())

    def page(self, name: str = PAGE_1) -> Image.Image:
        return Image.open(io.BytesIO((self.processed / REVIEW).read(name)))


def _near(image: Image.Image, colour: tuple[int, int, int]) -> int:
    distance = np.abs(np.asarray(image, int) - colour).max(axis=2)
    return int((distance < 60).sum())


def _box(image: Image.Image, colour: tuple[int, int, int]) -> list[int]:
    """Left, top, right and bottom of the pixels of a colour."""
    near = np.abs(np.asarray(image, int) - colour).max(axis=2) < 60
    # Ignores single pixels, which are compression artefacts.
    columns, rows = (np.nonzero(near.sum(axis=axis) > 1)[0] for axis in (0, 1))
    return [int(side) for side in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]


def test_a_page_shows_the_processed_image_unscaled_beside_the_boxes(tmp_path: Path) -> None:
    partition = Partition(tmp_path)
    row = _row("a", face_boxes=[[400, 100, 200, 260]], face_cut=380, kept_box=[200, 380, 600, 1120])
    assert partition.write([row]) == [Page(PAGE_1, ["a"])]
    page = partition.page()
    assert abs(_near(page, (20, 20, 200)) - 299 * 448) < 2000
    # The raw image is at (6, 46), scaled by 0.3.
    assert _box(page, (230, 40, 40)) == pytest.approx([126, 76, 186, 154], abs=2)  # the face
    assert _box(page, (255, 140, 0)) == pytest.approx([6, 159, 306, 162], abs=2)  # the cut
    assert _box(page, (0, 150, 70)) == pytest.approx([66, 160, 246, 496], abs=2)  # the kept area
    assert _box(page, (20, 20, 200)) == pytest.approx([312, 47, 611, 495], abs=2)


def test_boxes_are_placed_correctly_on_an_image_with_exif_orientation(tmp_path: Path) -> None:
    partition = Partition(tmp_path)
    partition.save(partition.raw, "raw.jpg", (1500, 1000), (255, 255, 255), orientation=6)
    partition.write([_row("a", path=None, kept_box=[0, 0, 1000, 1500])])
    page = np.asarray(partition.page(), int)
    green = np.abs(page - (0, 150, 70)).max(axis=2) < 60
    rows, columns = np.nonzero(green)
    assert abs(np.ptp(columns) - 299) <= 2
    assert abs(np.ptp(rows) - 449) <= 2


def test_all_images_are_shown_on_as_many_pages_as_needed(tmp_path: Path) -> None:
    partition = Partition(tmp_path)
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
    assert partition.files == {PAGE_1, "page_002.jpg", INDEX, HISTOGRAMS}
    index = json.loads((partition.processed / REVIEW).read(INDEX))
    assert index["pages"] == {page.name: page.keys for page in pages}


def test_max_pages_limits_the_pages_and_keeps_images_of_high_review_priority(
    tmp_path: Path,
) -> None:
    partition = Partition(tmp_path)
    rows = [_row(f"plain-{n}", path=None) for n in range(3 * IMAGES_PER_PAGE)]
    rows[70:70] = [_row("low-score", face_score=0.5, path=None)]
    (page,) = partition.write(rows, max_pages=1)
    assert len(page.keys) == IMAGES_PER_PAGE
    assert page.keys[0] == "low-score"


def test_a_page_of_small_images_has_lower_cells(tmp_path: Path) -> None:
    partition = Partition(tmp_path)
    partition.write([_row("a")])
    high = partition.page().height
    partition.save(partition.raw, "raw.jpg", (160, 240), (255, 255, 255))
    partition.save(partition.processed, "processed.jpg", (93, 140), (20, 20, 200))
    partition.write([_row("b")])
    low = partition.page()
    assert low.height == high - 450 + 240
    assert _near(low, (20, 20, 200)) > 0.9 * 93 * 140


def test_pages_of_an_earlier_run_are_removed(tmp_path: Path) -> None:
    partition = Partition(tmp_path)
    rows = [_row(f"plain-{n}", path=None) for n in range(IMAGES_PER_PAGE + 1)]
    partition.write(rows)
    partition.write(rows[:3])
    assert partition.files == {PAGE_1, INDEX, HISTOGRAMS}
    assert partition.write(rows[:3], max_pages=0) == []
    assert partition.files == {INDEX, HISTOGRAMS}
    partition.write([_row("a", outcome=Outcome.CORRUPT, path=None)])
    assert partition.files == {INDEX}
    assert CONTACT_SHEET not in partition.processed.sizes()


def test_pages_of_unchanged_rows_are_kept_even_if_raw_images_were_removed(
    tmp_path: Path,
) -> None:
    partition = Partition(tmp_path)
    rows = [_row("a"), _row("b")]
    pages = partition.write(rows)
    drawn = (partition.processed / REVIEW).read(PAGE_1)
    (partition.raw / "images").remove("raw.jpg")
    assert partition.write(rows) == pages
    assert (partition.processed / REVIEW).read(PAGE_1) == drawn

    partition.write([rows[0], replace(rows[1], trim_ratio=0.3)])
    assert (partition.processed / REVIEW).read(PAGE_1) != drawn


def test_an_interrupted_run_is_repaired_by_the_next_one(tmp_path: Path) -> None:
    partition = Partition(tmp_path)
    partition.write([_row("a")])
    review = partition.processed / REVIEW
    review.remove(PAGE_1)
    review.write(INDEX, b'{"state": "')
    assert partition.write([_row("a")]) == [Page(PAGE_1, ["a"])]
    assert PAGE_1 in partition.files


def test_histograms_are_written_at_three_times_the_size(tmp_path: Path) -> None:
    partition = Partition(tmp_path)
    partition.write([_row("a", trim_ratio=0.62)])
    plot = Image.open(io.BytesIO((partition.processed / REVIEW).read(HISTOGRAMS)))
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
    (partition.raw / "images").write("raw.jpg", photo)
    # Trimmed by 40 px at the left and at the top, then scaled to one half.
    kept = [40, 40, image.width - 40, image.height - 40]
    processed = image.crop((40, 40, *image.size))
    processed = processed.resize((processed.width // 2, processed.height // 2))
    file = io.BytesIO()
    processed.save(file, "JPEG", quality=95)
    (partition.processed / "images").write("processed.jpg", file.getvalue())
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
    sheet = Image.open(io.BytesIO(partition.processed.read(CONTACT_SHEET)))
    return (
        page.crop((0, 40, 309, page.height)),
        page.crop((309, 40, 620, page.height)),
        sheet,
    )


@pytest.mark.parametrize("name", ["portrait_a", "portrait_b", "portrait_c"])
def test_no_detected_face_is_visible_in_any_review_file(
    tmp_path: Path, photos: dict[str, bytes], detector: FaceDetector, name: str
) -> None:
    partition = Partition(tmp_path)
    before, after, sheet = _write_portrait(partition, photos[name], detector)
    assert [_count_faces(detector, image) for image in (before, after, sheet)] == [0, 0, 0]
    assert _near(before, (230, 40, 40)) > 100  # the box of the face


def test_hide_faces_false_shows_faces_and_a_change_of_it_draws_the_pages_again(
    tmp_path: Path, photos: dict[str, bytes], detector: FaceDetector
) -> None:
    partition = Partition(tmp_path)
    photo = photos["portrait_a"]
    shown = _write_portrait(partition, photo, detector, hide_faces=False)
    assert _count_faces(detector, shown[0]) == 1
    assert _count_faces(detector, shown[1]) == 1
    hidden = _write_portrait(partition, photo, detector)
    assert _count_faces(detector, hidden[0]) == 0
    assert _count_faces(detector, hidden[1]) == 0


def test_a_face_that_was_not_detected_stays_visible(
    tmp_path: Path, photos: dict[str, bytes], detector: FaceDetector
) -> None:
    partition = Partition(tmp_path)
    (partition.raw / "images").write("raw.jpg", photos["portrait_a"])
    partition.write([_row("a", face_count=0, face_score=None, path=None)])
    assert _count_faces(detector, partition.page()) == 1
