from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from imgassets.manifests import Outcome, ProcessedRow, to_table
from imgassets.markdown import CONTACT_SHEET_BYTES
from imgassets.review import contact_sheet as sheets
from imgassets.review.contact_sheet import inline_contact_sheet, review_priority
from imgassets.storage import Storage
from imgassets_tests.rows import processed_row

IMAGE_FILES = Path(__file__).parents[1] / "imaging/files"


def _row(key: str, **columns: Any) -> ProcessedRow:
    values = {"face_count": 1, "face_score": 0.95, "trim_ratio": 0.6}
    paths = {"raw_path": f"raw/{key}.jpg", "path": f"processed/{key}.jpg"}
    return processed_row(key=key, **{**values, **paths, **columns})


def contact_sheet(rows: Sequence[ProcessedRow], storage: Storage, *, hide_faces: bool) -> bytes:
    return sheets.contact_sheet(to_table(rows, ProcessedRow), storage, hide_faces=hide_faces)


def select_rows(rows: Sequence[ProcessedRow], limit: int) -> list[ProcessedRow]:
    table = to_table(rows, ProcessedRow)
    return sheets.select_rows(table, sheets.showable_rows(table), limit)


def _jpeg(size: tuple[int, int], colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG")
    return file.getvalue()


def _near(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    distance = np.abs(np.asarray(sheet, int) - colour).max(axis=2)
    return int((distance < 60).sum())


def test_rows_of_high_review_priority_come_first_then_others_evenly_spread() -> None:
    rows = [_row(f"plain-{n}") for n in range(50)]
    rows[20:20] = [
        _row("low-score", face_score=0.71),
        _row("close-up", outcome=Outcome.TOO_CLOSE),
        _row("tiny-trim", trim_ratio=0.01),
        _row("broken", outcome=Outcome.CORRUPT, face_score=None, trim_ratio=None),
    ]
    assert [row.key for row in select_rows(rows, 12)] == [
        *("close-up", "tiny-trim", "low-score"),
        *(f"plain-{number}" for number in range(5)),
        # Evenly spread over the 45 that are left.
        *(f"plain-{number}" for number in (5, 16, 27, 38)),
    ]
    assert [row.key for row in select_rows(rows[20:24], 12)] == [
        "close-up",
        "tiny-trim",
        "low-score",
    ]


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"face_score": 0.9}, {"face_score": 0.8}),
        ({"face_score": None}, {"face_score": 0.99}),
        ({"trim_ratio": 0.25}, {"trim_ratio": 0.2}),
        ({"trim_ratio": 0.97}, {"trim_ratio": 0.99}),
        ({"trim_ratio": 1.0}, {"trim_ratio": 0.1}),
        ({"trim_ratio": None}, {"trim_ratio": 0.0}),
        ({"trim_ratio": 0.0}, {"outcome": Outcome.TOO_CLOSE}),
        ({"face_score": 0.1, "trim_ratio": 0.0}, {"face_rule": "printed"}),
        ({"face_rule": "printed"}, {"outcome": Outcome.TOO_CLOSE}),
    ],
)
def test_close_ups_printed_faces_low_face_scores_and_extreme_trims_raise_the_review_priority(
    less: dict[str, object], more: dict[str, object]
) -> None:
    unsuspicious = {"face_score": 1.0, "trim_ratio": 0.6}
    assert review_priority(_row("a", **unsuspicious)) == 0
    assert review_priority(_row("a", **unsuspicious | less)) < review_priority(
        _row("a", **unsuspicious | more)
    )


@pytest.mark.parametrize(
    ("columns", "caption"),
    [
        ({}, "a\n1 face 0.95, trim 0.60"),
        ({"face_rule": "printed"}, "a\n1 printed face 0.95, trim 0.60"),
        ({"face_rule": "printed", "face_count": 2}, "a\n2 printed faces 0.95, trim 0.60"),
    ],
)
def test_the_caption_says_that_a_face_is_printed(
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
    columns: dict[str, object],
    caption: str,
) -> None:
    texts: list[str] = []

    def record(
        _draw: ImageDraw.ImageDraw, _corner: object, text: str, *_: object, **__: object
    ) -> None:
        texts.append(text)

    monkeypatch.setattr(ImageDraw.ImageDraw, "multiline_text", record)
    contact_sheet([_row("a", **columns)], storage, hide_faces=True)
    assert texts == [caption]


def test_a_sheet_shows_the_raw_image_with_boxes_and_the_processed_image(
    storage: Storage,
) -> None:
    storage.write("raw/a.jpg", _jpeg((1000, 1500), (255, 255, 255)))
    storage.write("processed/a.jpg", _jpeg((300, 448), (20, 20, 200)))
    row = _row(
        "a",
        face_box=[400, 100, 200, 260],
        face_boxes=[[400, 100, 200, 260]],
        face_cut=380,
        kept_box=[200, 380, 600, 1120],
    )
    sheet = Image.open(io.BytesIO(contact_sheet([row], storage, hide_faces=True)))
    assert 600 <= sheet.width <= 700
    assert _near(sheet, (230, 40, 40)) > 50  # the face
    assert _near(sheet, (255, 140, 0)) > 100  # the cut
    assert _near(sheet, (0, 150, 70)) > 200  # the kept area
    assert _near(sheet, (20, 20, 200)) > 10_000  # the processed image


def test_a_full_sheet_is_small_enough_for_an_event_log(
    storage: Storage, photos: dict[str, bytes]
) -> None:
    for name, data in photos.items():
        storage.write(f"{name}.jpg", data)
    names = list(photos)
    rows = []
    for number in range(30):
        path = f"{names[number % len(names)]}.jpg"
        rows.append(_row(f"{number}-{path}", path=path, raw_path=path))
    sheet = contact_sheet(rows, storage, hide_faces=True)
    assert 10_000 < len(sheet) < 130_000
    text = inline_contact_sheet(sheet, CONTACT_SHEET_BYTES)
    assert len(text) <= CONTACT_SHEET_BYTES
    assert _decode(text).size == (660, 380)  # two lines of three pairs


def _decode(text: str) -> Image.Image:
    data = text.removeprefix("![](data:image/avif;base64,").removesuffix(")")
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


def test_a_sheet_that_compresses_badly_is_cut_to_fit_the_event_log() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (760, 660, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=95, subsampling=0)
    text = inline_contact_sheet(file.getvalue(), CONTACT_SHEET_BYTES)
    assert len(text) <= CONTACT_SHEET_BYTES
    assert _decode(text).size == (660, 190)
    assert inline_contact_sheet(file.getvalue(), 100) == "too large to be shown here"


def test_a_sheet_of_one_line_is_shown_whole(storage: Storage) -> None:
    sheet = contact_sheet([_row("a")], storage, hide_faces=True)
    assert _decode(inline_contact_sheet(sheet, CONTACT_SHEET_BYTES)).size == (660, 190)


@pytest.mark.parametrize(
    "columns",
    [{}, {"path": None, "raw_path": None}, {"path": "damaged.jpg", "raw_path": "damaged.jpg"}],
)
def test_missing_and_damaged_images_leave_an_empty_frame(
    storage: Storage, columns: dict[str, str | None]
) -> None:
    storage.write("damaged.jpg", _jpeg((300, 448), (20, 20, 200))[:800])
    sheet = contact_sheet([_row("a", **columns)], storage, hide_faces=True)
    pixels = np.asarray(Image.open(io.BytesIO(sheet)).convert("L"))
    dark = pixels < 140
    for left in (4, 112):
        assert dark[4, left : left + 104].mean() > 0.9
        assert dark[159, left : left + 104].mean() > 0.9
        assert dark[4:160, left].mean() > 0.9
        assert not dark[10:150, left + 10 : left + 94].any()


# Pillow alone refuses the first two, and turns the third, as its XMP data say.
@pytest.mark.parametrize("name", ["ztxt_bad.png", "phys_short.png", "xmp_orient6_noexif.jpg"])
def test_raw_images_are_shown_as_they_were_processed(storage: Storage, name: str) -> None:
    storage.write(name, (IMAGE_FILES / name).read_bytes())
    row = _row("a", raw_path=name, path=None, kept_box=[0, 0, 240, 320])
    sheet = Image.open(io.BytesIO(contact_sheet([row], storage, hide_faces=True)))
    cell = np.asarray(sheet.convert("RGB"), int)[4:160, 4:108]
    green = np.abs(cell - (0, 150, 70)).max(axis=2) < 60
    down, across = np.nonzero(green)
    # 240 x 320 px, scaled into a cell of 104 x 156 px.
    assert (np.ptp(across) + 1, np.ptp(down) + 1) == pytest.approx((104, 139), abs=1)


def test_images_of_other_days_are_on_the_sheet(storage: Storage) -> None:
    storage.write("processed/a.jpg", _jpeg((300, 448), (20, 20, 200)))
    data = contact_sheet([_row("a", reused_from="2026-01-01")], storage, hide_faces=True)
    assert _near(Image.open(io.BytesIO(data)), (20, 20, 200)) > 10_000


def test_the_sheet_of_a_partition_without_images_says_so(storage: Storage) -> None:
    sheet = Image.open(io.BytesIO(contact_sheet([], storage, hide_faces=True)))
    dark = np.argwhere(np.asarray(sheet.convert("L")) < 140)
    assert len(dark) > 100  # a line of text at the top left
    assert dark.min() >= 4
    assert dark.max(axis=0)[0] < 20
    assert 80 < dark.max(axis=0)[1] < 140
