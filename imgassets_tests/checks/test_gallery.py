from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from imgassets.checks.gallery import MAX_ROWS, MAX_THUMBNAILS, gallery, thumbnail
from imgassets.checks.outcome import Finding
from imgassets.markdown import inline_image
from imgassets.storage import Storage


def _image_file(
    format_: str = "JPEG", size: tuple[int, int] = (600, 900), mode: str = "RGB"
) -> bytes:
    image = Image.new("RGB", size, (200, 30, 30)).convert(mode)
    file = io.BytesIO()
    image.save(file, format_)
    return file.getvalue()


def _no_faces(_: bytes) -> list[list[int]]:
    return []


def _gallery(findings: list[Finding], storage: Storage) -> str:
    return gallery(findings, storage, 50_000, _no_faces)


def _thumbnails(markdown: str) -> list[Image.Image]:
    found = re.findall(r"!\[\]\(data:image/webp;base64,([^)]+)\)", markdown)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_each_row_has_thumbnail_key_and_detail(storage: Storage) -> None:
    storage.write("a.jpg", _image_file())
    markdown = _gallery(
        [Finding("key-a", "too | tight", "a.jpg"), Finding("key-b", "lost")], storage
    )
    head, rule, first, second = markdown.splitlines()
    assert (head, rule) == ("| image | key | |", "|---|---|---|")
    assert first.endswith("| key-a | too \\| tight |")
    assert second == "|  | key-b | lost |"
    (image,) = _thumbnails(first)
    assert image.size == (75, 112)
    red, green, blue = image.convert("RGB").getpixel((37, 56))  # type: ignore[misc]
    assert red > 180
    assert max(green, blue) < 60


def test_missing_and_broken_files_are_shown_as_text(storage: Storage) -> None:
    storage.write("cut.jpg", _image_file()[:800])
    storage.write("text.jpg", b"<html>")
    storage.write("empty.jpg", b"")
    names = ["missing.jpg", "cut.jpg", "text.jpg", "empty.jpg"]
    lines = _gallery([Finding("k", "w", name) for name in names], storage).splitlines()[2:]
    whys = ["missing", *["cannot be shown"] * 3]
    assert lines == [
        f"| {why}: {storage.root}/{name} | k | w |" for why, name in zip(whys, names, strict=True)
    ]


def test_thumbnails_that_exceed_the_bytes_are_dropped_and_their_files_named(
    storage: Storage,
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise.repeat(8, 0).repeat(8, 1)).save(file, "JPEG", quality=95)
    storage.write("noise.jpg", file.getvalue())
    storage.write("plain.jpg", _image_file())
    names = ["plain.jpg", *["noise.jpg"] * 4998, "plain.jpg"]
    one = len(inline_image(thumbnail(storage.read("noise.jpg"), []), "webp"))

    max_bytes = 2 * one + 500
    findings = [Finding(f"key-{n}", "x" * 1000, name) for n, name in enumerate(names)]
    markdown = gallery(findings, storage, max_bytes, None)

    lines = markdown.splitlines()[2:]
    assert [len(_thumbnails(line)) for line in lines[:5]] == [1, 1, 1, 0, 0]
    assert lines[3].startswith(f"| {storage.root}/noise.jpg | key-3 |")
    assert sum(map(len, re.findall(r"!\[\]\([^)]*\)", markdown))) <= max_bytes
    assert markdown.count("| key-") == MAX_ROWS
    assert markdown.endswith(f"and {5000 - MAX_ROWS} more: see the manifest")


def test_at_most_twelve_files_have_a_thumbnail_and_the_others_are_named(storage: Storage) -> None:
    storage.write("a.jpg", _image_file())
    lines = _gallery([Finding("k", "w", "a.jpg")] * 15, storage).splitlines()[2:]
    assert [len(_thumbnails(line)) for line in lines] == [1] * MAX_THUMBNAILS + [0] * 3
    assert lines[-1] == f"| {storage.root}/a.jpg | k | w |"


def test_without_bytes_no_file_is_read_and_each_is_named(storage: Storage) -> None:
    finding = Finding("k", "w", "missing.jpg")
    assert gallery([finding], storage, 0, _no_faces).splitlines()[2:] == [
        f"| {storage.root}/missing.jpg | k | w |"
    ]


def _shades(image: Image.Image, box: tuple[int, int, int, int]) -> int:
    """Number of distinct grey levels in a part of an image, in steps of 16."""
    return len(np.unique(np.asarray(image.convert("L").crop(box)) // 16))


def test_faces_are_pixelated_and_everything_else_stays_visible(storage: Storage) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (56, 56), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise.repeat(4, 0).repeat(4, 1)).save(file, "PNG")
    storage.write("a.png", file.getvalue())
    # Scaled by one half: one face known to the manifest, one that the check itself found.
    finding = Finding("k", "w", "a.png", faces=[[120, 120, 80, 80]])

    (hidden,) = _thumbnails(gallery([finding], storage, 50_000, lambda _: [[20, 20, 80, 80]]))
    (shown,) = _thumbnails(gallery([finding], storage, 50_000, None))

    first, second, elsewhere = (12, 12, 48, 48), (62, 62, 98, 98), (62, 12, 98, 48)
    assert _shades(hidden, first) <= 6
    assert _shades(hidden, second) <= 6
    assert _shades(hidden, elsewhere) > 10
    assert min(_shades(shown, box) for box in (first, second)) > 10


def test_an_image_whose_faces_are_unknown_is_not_shown(storage: Storage) -> None:
    storage.write("a.jpg", _image_file())
    markdown = gallery([Finding("k", "w", "a.jpg")], storage, 50_000, lambda _: None)
    assert markdown.splitlines()[2] == (
        f"| not shown, because its faces are unknown: {storage.root}/a.jpg | k | w |"
    )


@pytest.mark.parametrize(
    ("format_", "mode"),
    [("PNG", "RGBA"), ("PNG", "P"), ("PNG", "L"), ("WEBP", "RGB"), ("JPEG", "CMYK")],
)
def test_every_common_format_and_mode_has_a_thumbnail(format_: str, mode: str) -> None:
    small = Image.open(io.BytesIO(thumbnail(_image_file(format_, (50, 40), mode), [])))
    assert (small.format, small.mode, small.size) == ("WEBP", "RGB", (50, 40))


def test_a_transparent_image_has_a_white_background() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (30, 30), (0, 0, 0, 0)).save(file, "PNG")
    small = Image.open(io.BytesIO(thumbnail(file.getvalue(), [])))
    assert min(small.convert("L").tobytes()) > 250


def test_a_photo_with_exif_orientation_is_shown_upright() -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 100)).save(file, "JPEG", exif=exif)
    assert Image.open(io.BytesIO(thumbnail(file.getvalue(), []))).size == (37, 112)
