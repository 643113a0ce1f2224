"""Tests that each option of decoding, faces, trim, size and encoding affects the result."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from imgassets.imaging.encode import encode
from imgassets.imaging.faces import load_detector
from imgassets.imaging.image import Pixels
from imgassets.imaging.pipeline import ImageRecord, process_image
from imgassets.imaging.residual import detect_residual_faces
from imgassets.manifests import Outcome, ProcessedRow, to_table
from imgassets.settings import EncodeSettings, RetailerSettings, merge_options
from imgassets.storage import Storage

EXACT = {"encode": {"format": "png"}, "trim": {"method": "none"}, "resize": {"max_side": None}}
"""Options with which the pixels stay as they are unless another option changes them."""


def process(
    data: bytes, model: Path | None = None, **sections: dict[str, Any]
) -> tuple[Pixels | None, ImageRecord]:
    """The pixels (RGB) and the record of one processed image; without a model, faces stay."""
    if model is None:
        sections = {"faces": {"action": "none"}} | sections
    settings = RetailerSettings.model_validate(merge_options(EXACT, sections))
    detector = _no_detector() if model is None else load_detector(model, settings.faces)
    file, record = process_image(data, settings, detector)
    if file is None:
        return None, record
    return np.asarray(PILImage.open(io.BytesIO(file)).convert("RGB")), record


def _no_detector() -> Any:
    """Placeholder for the detector in tests without face detection."""


def png(image: PILImage.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_a_transparent_image_gets_the_background_colour() -> None:
    clear = png(PILImage.new("RGBA", (40, 30), (0, 0, 0, 0)))
    white, _ = process(clear)
    coloured, _ = process(clear, decode={"background": [10, 20, 30]})
    assert white is not None
    assert coloured is not None
    assert (white == 255).all()
    assert (coloured == (10, 20, 30)).all()


@pytest.mark.parametrize(
    ("max_pixels", "outcome"), [(1199, Outcome.TOO_MANY_PIXELS), (1200, Outcome.OK)]
)
def test_an_image_with_more_than_the_maximum_pixels_is_rejected(
    max_pixels: int, outcome: Outcome
) -> None:
    image = png(PILImage.new("RGB", (40, 30)))
    _, record = process(image, decode={"max_pixels": max_pixels})
    assert record.outcome is outcome


def test_only_the_configured_steps_run(photos: dict[str, bytes], model: Path) -> None:
    whole, record = process(photos["portrait_a"], model, process={"steps": ["resize"]})
    assert whole is not None
    assert whole.shape == (1137, 910, 3)
    assert record.face_count is None
    _, cut = process(photos["portrait_a"], model)
    assert cut.face_count == 1


@pytest.mark.parametrize("action", ["crop", "blur", "pixelate", "fill", "none"])
def test_a_face_is_removed_by_the_configured_action(
    photos: dict[str, bytes], model: Path, action: str
) -> None:
    served = np.asarray(PILImage.open(io.BytesIO(photos["portrait_a"])).convert("RGB"))
    pixels, record = process(
        photos["portrait_a"], model, faces={"action": action, "fill": [10, 20, 30]}
    )
    assert pixels is not None
    if action == "none":
        assert record.face_count is None
        assert pixels.shape == served.shape
        return
    assert record.face_action == action
    assert record.face_box is not None
    x, y, width, height = record.face_box
    if action == "crop":
        assert len(pixels) < len(served) - y - height
        return
    assert pixels.shape == served.shape
    face = pixels[y : y + height, x : x + width]
    assert (face != served[y : y + height, x : x + width]).mean() > 0.5
    middle = face[height // 4 : -height // 4, width // 4 : -width // 4]
    filled = bool((middle == (10, 20, 30)).all())
    assert filled is (action == "fill")
    # A pixelated face has edges between its blocks; a blurred one does not.
    sharpest = int(np.abs(np.diff(middle.astype(int), axis=1)).max())
    assert (sharpest > 5) is (action == "pixelate")


def test_a_face_below_the_minimum_score_is_ignored(photos: dict[str, bytes], model: Path) -> None:
    counts = [
        process(photos["cutout_c"], model, faces={"min_score": min_score})[1].face_count
        for min_score in (0.9, 0.97)
    ]
    assert counts == [1, 0]


@pytest.mark.parametrize(("side", "found"), [(64, 0), (200, 1)])
def test_faces_are_detected_at_the_configured_size(
    photos: dict[str, bytes], model: Path, side: int, found: int
) -> None:
    _, record = process(photos["portrait_b"], model, faces={"detect_side": side})
    assert record.face_count == found


def test_a_first_pass_at_too_small_a_size_misses_a_face(
    photos: dict[str, bytes], model: Path
) -> None:
    image = PILImage.new("RGB", (900, 900), "white")
    photo = PILImage.open(io.BytesIO(photos["cutout_c"])).crop((0, 200, 600, 900))
    image.paste(photo.resize((120, 140)), (60, 200))
    counts = [
        process(png(image), model, faces={"first_side": side})[1].face_count for side in (64, None)
    ]
    assert counts == [0, 1]


@pytest.mark.parametrize(
    ("faces", "share", "pixels"),
    [
        ({"margin": 0}, 0, 0),
        ({"margin": 0.5}, 0.5, 0),
        ({"margin": 0.5, "margin_pixels": 0}, 0, 0),
        ({"margin_pixels": 60}, 0, 60),
    ],
)
def test_the_cut_is_below_the_face_by_the_margin(
    photos: dict[str, bytes], model: Path, faces: dict[str, object], share: float, pixels: int
) -> None:
    _, record = process(photos["portrait_b"], model, faces=faces)
    assert record.face_box is not None
    _, y, _, height = record.face_box
    assert record.face_cut == pytest.approx(y + height * (1 + share) + pixels, abs=2)


@pytest.mark.parametrize(
    ("too_close", "removed"), [("skip", False), ("keep", False), ("blur", True)]
)
def test_a_crop_that_leaves_too_little_is_handled_as_configured(
    photos: dict[str, bytes], model: Path, too_close: str, removed: bool
) -> None:
    # 686 of 1137 rows are below the cut.
    _, enough = process(
        photos["portrait_a"], model, faces={"min_left": 0.55, "too_close": too_close}
    )
    assert (enough.outcome, enough.face_action) == (Outcome.OK, "crop")
    served = np.asarray(PILImage.open(io.BytesIO(photos["portrait_a"])).convert("RGB"))
    pixels, record = process(
        photos["portrait_a"], model, faces={"min_left": 0.65, "too_close": too_close}
    )
    assert record.outcome is Outcome.TOO_CLOSE
    assert bool(record.face_removed) is removed
    if too_close == "skip":
        assert pixels is None
        return
    assert pixels is not None
    assert pixels.shape == served.shape
    assert np.array_equal(pixels, served) is (too_close == "keep")


@pytest.mark.parametrize(
    ("resize", "served", "size"),
    [
        ({"max_side": 100}, (400, 200), (100, 50)),
        ({"max_side": 100}, (200, 400), (50, 100)),
        ({"max_side": None}, (600, 500), (600, 500)),
        ({"max_side": 800}, (400, 200), (400, 200)),
        ({"max_side": 800, "enlarge": True}, (400, 200), (800, 400)),
        ({"max_side": 100, "size": [300, 300]}, (400, 200), (300, 300)),
    ],
)
def test_an_image_has_the_configured_size(
    resize: dict[str, object], served: tuple[int, int], size: tuple[int, int]
) -> None:
    pixels, record = process(png(PILImage.new("RGB", served)), resize=resize)
    assert pixels is not None
    assert pixels.shape == (size[1], size[0], 3)
    assert (record.width, record.height) == size


def test_the_default_steps_give_the_exact_size_with_the_background_trimmed() -> None:
    image = PILImage.new("RGB", (800, 600), "white")
    image.paste("red", (300, 100, 500, 500))
    resize = {"size": [120, 200], "enlarge": True, "padding": [0, 0, 255]}
    pixels, record = process(png(image), trim={"method": "background"}, resize=resize)
    assert pixels is not None
    assert pixels.shape == (200, 120, 3)
    assert (record.width, record.height) == (120, 200)
    # The product, which is half as wide as high, is as high as the image: without its background.
    red = (np.abs(pixels.astype(int) - np.array([255, 0, 0])) < 60).all(axis=2)
    assert np.any(red, axis=1).sum() > 180
    assert np.any(red, axis=0).sum() > 90
    assert (pixels[:, 0] == (0, 0, 255)).all()


@pytest.mark.parametrize(
    ("options", "rows"), [({}, 150), ({"enlarge": True}, 300), ({"padding": [1, 2, 3]}, 150)]
)
def test_an_exact_size_is_reached_by_padding_or_by_enlarging(
    options: dict[str, Any], rows: int
) -> None:
    served = png(PILImage.new("RGB", (300, 150), "red"))
    resize = {"size": [600, 600], **options}
    pixels, _ = process(served, resize=resize)
    assert pixels is not None
    red = (pixels == (255, 0, 0)).all(axis=2)
    assert (red.sum(), red.any(axis=1).sum()) == (2 * rows * rows, rows)
    assert (pixels[~red] == options.get("padding", [255, 255, 255])).all()


def test_the_trim_method_of_the_settings_is_used(product: Pixels) -> None:
    served = png(PILImage.fromarray(product))
    boxes = {
        method: process(served, trim={"method": method})[1].trim_box
        for method in ("none", "background", "variance")
    }
    assert boxes == {
        "none": None,
        "background": [67, 87, 106, 166],
        "variance": [68, 89, 104, 163],
    }


@pytest.mark.parametrize(
    "options", [{"format": "jpeg"}, {"format": "jpeg", "optimize": True}, {"format": "webp"}]
)
def test_a_higher_quality_gives_larger_jpeg_and_webp_files(
    photos: dict[str, bytes], options: dict[str, Any]
) -> None:
    pixels = np.asarray(PILImage.open(io.BytesIO(photos["cutout_c"])).convert("RGB"))
    sizes = [
        len(encode(pixels, EncodeSettings(quality=quality, **options), b""))
        for quality in (30, 60, 90, 95, 98)
    ]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("optimize", [False, True])
def test_full_chroma_resolution_is_kept_if_configured(
    photos: dict[str, bytes], optimize: bool
) -> None:
    pixels = np.asarray(PILImage.open(io.BytesIO(photos["cutout_c"])).convert("RGB"))
    sampling = {
        value: PILImage.open(
            io.BytesIO(encode(pixels, EncodeSettings(subsampling=value, optimize=optimize), b""))
        ).layer[0][1:3]  # type: ignore[attr-defined]
        for value in ("4:4:4", "4:2:0")
    }
    assert sampling == {"4:4:4": (1, 1), "4:2:0": (2, 2)}


@pytest.mark.parametrize("format_", ["jpeg", "png"])
def test_optimisation_gives_the_same_image_in_fewer_bytes(
    photos: dict[str, bytes], format_: Any
) -> None:
    pixels = np.asarray(PILImage.open(io.BytesIO(photos["cutout_c"])).convert("RGB"))[:300]
    plain, optimized = (
        encode(pixels, EncodeSettings(format=format_, optimize=optimize), b"")
        for optimize in (False, True)
    )
    assert len(optimized) < len(plain)
    images = (PILImage.open(io.BytesIO(file)).convert("RGB") for file in (plain, optimized))
    first, second = (np.asarray(image).astype(int) for image in images)
    assert np.abs(first - second).mean() < 1


@pytest.fixture
def faces_left(photos: dict[str, bytes], tmp_path: Path) -> tuple[list[ProcessedRow], Storage]:
    """Two processed images that still show faces."""
    storage, rows = Storage(str(tmp_path)), []
    for name in ("cutout_c", "portrait_a"):
        storage.write(f"images/{name}.jpg", photos[name])
        row = ProcessedRow(
            key=name,
            url="http://shop/x",
            retailer="zara",
            date="2026-01-02",
            product_id="1",
            position=0,
            document_id="1",
            outcome=Outcome.OK,
            path=f"images/{name}.jpg",
            sha256=name,
            face_count=1,
        )
        rows.append(row)
    return rows, storage


@pytest.mark.parametrize(
    ("options", "looked_at", "found"),
    [
        ({}, 2, 2),
        ({"residual_sample": 1}, 1, 1),
        ({"residual_sample": 0}, 0, 0),
        ({"residual_min_score": 1}, 2, 0),
    ],
)
def test_the_residual_check_uses_the_sample_size_and_the_score_of_the_settings(
    faces_left: tuple[list[ProcessedRow], Storage],
    model: Path,
    options: dict[str, object],
    looked_at: int,
    found: int,
) -> None:
    rows, storage = faces_left
    settings = RetailerSettings.model_validate({"checks": options})
    residual = detect_residual_faces(
        to_table(rows, ProcessedRow), storage, settings, model, threads=1
    )
    assert (residual.checked, len(residual.with_face)) == (looked_at, found)


@pytest.mark.parametrize("sections", [{"faces": {"action": "none"}}, {"process": {"steps": []}}])
def test_there_is_no_residual_check_if_faces_may_stay(
    faces_left: tuple[list[ProcessedRow], Storage], model: Path, sections: dict[str, object]
) -> None:
    rows, storage = faces_left
    settings = RetailerSettings.model_validate(sections)
    assert (
        detect_residual_faces(
            to_table(rows, ProcessedRow), storage, settings, model, threads=1
        ).checked
        == 0
    )
