from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgassets.checks.gallery import MAX_ROWS, MAX_THUMBNAILS, gallery, thumbnail
from imgassets.checks.outcome import Finding
from imgassets.storage import Folder


def _image_file(
    format_: str = "JPEG", size: tuple[int, int] = (600, 900), mode: str = "RGB"
) -> bytes:
    image = Image.new("RGB", size, (200, 30, 30)).convert(mode)
    file = io.BytesIO()
    image.save(file, format_)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def _thumbnails(markdown: str) -> list[Image.Image]:
    found = re.findall(r"!\[\]\(data:image/jpeg;base64,([^)]+)\)", markdown)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_each_row_has_thumbnail_key_and_detail(folder: Folder) -> None:
    folder.write("a.jpg", _image_file())
    markdown = gallery([Finding("key-a", "too | tight", folder, "a.jpg"), Finding("key-b", "lost")])
    head, rule, first, second = markdown.splitlines()
    assert (head, rule) == ("| image | key | |", "|---|---|---|")
    assert first.endswith("| key-a | too \\| tight |")
    assert second == "|  | key-b | lost |"
    (image,) = _thumbnails(first)
    assert image.size == (96, 144)
    red, green, blue = image.convert("RGB").getpixel((48, 72))  # type: ignore[misc]
    assert red > 180
    assert max(green, blue) < 60


def test_missing_and_broken_files_are_shown_as_text(folder: Folder) -> None:
    folder.write("cut.jpg", _image_file()[:800])
    folder.write("text.jpg", b"<html>")
    folder.write("empty.jpg", b"")
    names = ["missing.jpg", "cut.jpg", "text.jpg", "empty.jpg"]
    lines = gallery([Finding("k", "w", folder, name) for name in names]).splitlines()[2:]
    assert lines == ["| missing | k | w |", *["| cannot be shown | k | w |"] * 3]


def test_a_gallery_of_many_images_that_compress_badly_stays_small(folder: Folder) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=95)
    folder.write("noise.jpg", file.getvalue())

    markdown = gallery([Finding(f"key-{n}", "x" * 1000, folder, "noise.jpg") for n in range(5000)])

    assert len(_thumbnails(markdown)) == MAX_THUMBNAILS
    assert markdown.count("| key-") == MAX_ROWS
    assert markdown.endswith(f"and {5000 - MAX_ROWS} more: see the manifest")
    assert len(markdown) < 200_000


@pytest.mark.parametrize(
    ("format_", "mode"),
    [("PNG", "RGBA"), ("PNG", "P"), ("PNG", "L"), ("WEBP", "RGB"), ("JPEG", "CMYK")],
)
def test_every_common_format_and_mode_has_a_thumbnail(format_: str, mode: str) -> None:
    small = Image.open(io.BytesIO(thumbnail(_image_file(format_, (50, 40), mode))))
    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (50, 40))


def test_a_transparent_image_has_a_white_background() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (30, 30), (0, 0, 0, 0)).save(file, "PNG")
    small = Image.open(io.BytesIO(thumbnail(file.getvalue())))
    assert min(small.convert("L").tobytes()) > 250


def test_a_photo_with_exif_orientation_is_shown_upright() -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 100)).save(file, "JPEG", exif=exif)
    assert Image.open(io.BytesIO(thumbnail(file.getvalue()))).size == (48, 144)
