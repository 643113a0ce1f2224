from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgassets.checks.gallery import MAX_PICTURES, MAX_ROWS, gallery, thumbnail
from imgassets.checks.verdict import Concern
from imgassets.storage import Folder


def _picture(format_: str = "JPEG", size: tuple[int, int] = (600, 900), mode: str = "RGB") -> bytes:
    image = Image.new("RGB", size, (200, 30, 30)).convert(mode)
    file = io.BytesIO()
    image.save(file, format_)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def _pictures(markdown: str) -> list[Image.Image]:
    found = re.findall(r"!\[\]\(data:image/jpeg;base64,([^)]+)\)", markdown)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_each_picture_stands_beside_its_name(folder: Folder) -> None:
    folder.write("a.jpg", _picture())
    markdown = gallery([Concern("key-a", "too | tight", folder, "a.jpg"), Concern("key-b", "lost")])
    head, rule, first, second = markdown.splitlines()
    assert (head, rule) == ("| picture | key | |", "|---|---|---|")
    assert first.endswith("| key-a | too \\| tight |")
    assert second == "|  | key-b | lost |"
    (picture,) = _pictures(first)
    assert picture.size == (96, 144)
    red, green, blue = picture.convert("RGB").getpixel((48, 72))  # type: ignore[misc]
    assert red > 180
    assert max(green, blue) < 60


def test_files_that_are_gone_or_broken_are_told_in_words(folder: Folder) -> None:
    folder.write("cut.jpg", _picture()[:800])
    folder.write("text.jpg", b"<html>")
    folder.write("empty.jpg", b"")
    names = ["gone.jpg", "cut.jpg", "text.jpg", "empty.jpg"]
    lines = gallery([Concern("k", "w", folder, name) for name in names]).splitlines()[2:]
    assert lines == ["| gone | k | w |", *["| cannot be shown | k | w |"] * 3]


def test_a_gallery_of_many_pictures_that_compress_badly_stays_small(folder: Folder) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=95)
    folder.write("noise.jpg", file.getvalue())

    markdown = gallery([Concern(f"key-{n}", "x" * 1000, folder, "noise.jpg") for n in range(5000)])

    assert len(_pictures(markdown)) == MAX_PICTURES
    assert markdown.count("| key-") == MAX_ROWS
    assert markdown.endswith(f"and {5000 - MAX_ROWS} more: see the manifest")
    assert len(markdown) < 200_000


@pytest.mark.parametrize(
    ("format_", "mode"),
    [("PNG", "RGBA"), ("PNG", "P"), ("PNG", "L"), ("WEBP", "RGB"), ("JPEG", "CMYK")],
)
def test_any_usual_picture_has_a_thumbnail(format_: str, mode: str) -> None:
    small = Image.open(io.BytesIO(thumbnail(_picture(format_, (50, 40), mode))))
    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (50, 40))


def test_a_transparent_picture_stands_on_white() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (30, 30), (0, 0, 0, 0)).save(file, "PNG")
    small = Image.open(io.BytesIO(thumbnail(file.getvalue())))
    assert min(small.convert("L").tobytes()) > 250


def test_a_turned_photo_is_shown_upright() -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 100)).save(file, "JPEG", exif=exif)
    assert Image.open(io.BytesIO(thumbnail(file.getvalue()))).size == (48, 144)
