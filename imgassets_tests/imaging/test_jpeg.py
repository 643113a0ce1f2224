"""JPEG files with faults, written segment by segment."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from imgassets.download.inspection import inspect
from imgassets.errors import UnreadableImageError
from imgassets.imaging import jpeg
from imgassets.imaging.decode import decode
from imgassets.imaging.image import Pixels
from imgassets.manifests import Outcome
from imgassets.settings import DecodeSettings
from imgassets_tests.imaging.icc import DISPLAY_P3, rgb_profile

SETTINGS = DecodeSettings()
FILES = Path(__file__).with_name("files")
SCAN = b"\xff\xda"
PROFILE = rgb_profile(DISPLAY_P3, 2.2)


def _photo(mode: str = "RGB", **options: object) -> bytes:
    """A smooth picture with some texture, 96 x 64 px."""
    levels = np.random.default_rng(5).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    image = PILImage.fromarray(levels).resize((96, 64), PILImage.Resampling.BICUBIC)
    file = io.BytesIO()
    image.convert(mode).save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2) + content


def _insert(data: bytes, marker: bytes, extra: bytes) -> bytes:
    """The file with bytes before the first marker of this kind."""
    pos = data.index(marker)
    return data[:pos] + extra + data[pos:]


def _pixels(data: bytes) -> Pixels:
    assert inspect(data, 10**8).format == "jpeg"
    return decode(data, SETTINGS).pixels


def _icc(number: int, count: int, content: bytes) -> bytes:
    return _segment(0xE2, b"ICC_PROFILE\0" + bytes([number, count]) + content)


def _assert_corrupt(data: bytes) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        decode(data, SETTINGS)
    assert caught.value.outcome is Outcome.CORRUPT


@pytest.mark.parametrize(
    "name", ["sos_params_0_0", "bytes_before_dqt", "empty_icc", "icc_missing_chunk"]
)
def test_the_trial_files_show_their_drawing(name: str) -> None:
    pixels = _pixels((FILES / f"{name}.jpg").read_bytes())
    points = [(200, 5), (5, 5), (60, 80), (180, 80), (60, 240), (180, 240)]
    expected = [250] * 3, [0] * 3, [40, 30, 200], [60, 160, 30], [190, 60, 40], [250, 191, 191]
    assert (
        np.abs(
            [pixels[y, x] - np.array(e) for (x, y), e in zip(points, expected, strict=True)]
        ).max()
        <= 2
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("marker", [b"\xff\xdb", b"\xff\xc4", SCAN, b"\xff\xd9"])
@pytest.mark.parametrize("stray", [b"\0", b"\0" * 2, b"\0" * 5000, b"\xff\xff\xff"])
def test_padding_between_segments_is_ignored(
    mode: str, progressive: bool, marker: bytes, stray: bytes
) -> None:
    whole = _photo(mode, progressive=progressive)
    assert (_pixels(_insert(whole, marker, stray)) == _pixels(whole)).all()


@pytest.mark.parametrize("marker", [b"\xff\xdb", b"\xff\xc4", b"\xff\xc0", SCAN])
@pytest.mark.parametrize("stray", [b"stray", b"\x12\x34", b"\xff\0 \xff\xd3 \xff\x01", b"\xd9"])
def test_stray_bytes_between_segments_are_ignored(marker: bytes, stray: bytes) -> None:
    whole = _photo()
    assert (_pixels(_insert(whole, marker, stray)) == _pixels(whole)).all()


def test_padding_after_every_scan_is_ignored() -> None:
    whole = _photo(progressive=True)
    first = whole.index(SCAN)
    padded = whole[:first] + whole[first:].replace(b"\xff\xc4", b"\0\0\0\0\0\xff\xc4")
    assert padded.count(b"\0\0\0\0\0\xff\xc4") > 2
    assert (_pixels(padded) == _pixels(whole)).all()


@pytest.mark.parametrize("parameters", [b"\0\0\0", b"\0\x3e\0", b"\1\x3f\0", b"\0\x3f\x01"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_parameters_of_a_sequential_scan_are_ignored(mode: str, parameters: bytes) -> None:
    whole = _photo(mode)
    pos = whole.index(SCAN)
    end = pos + 2 + int.from_bytes(whole[pos + 2 : pos + 4])
    changed = whole[: end - 3] + parameters + whole[end:]
    assert (_pixels(changed) == _pixels(whole)).all()


@pytest.mark.parametrize(
    "chunks",
    [
        [_icc(1, 1, b"")],
        [_icc(1, 2, PROFILE)],
        [_icc(2, 2, PROFILE)],
        [_icc(0, 1, PROFILE)],
        [_icc(3, 2, PROFILE)],
        [_icc(1, 0, PROFILE)],
        [_icc(1, 3, PROFILE[:200]), _icc(3, 3, PROFILE[200:])],
        [_segment(0xE2, b"ICC_PROFILE\0")],
        [_segment(0xE2, b"ICC_PROFILE\0\1")],
    ],
)
def test_an_incomplete_profile_is_ignored(chunks: list[bytes]) -> None:
    whole = _photo()
    assert (_pixels(_insert(whole, b"\xff\xdb", b"".join(chunks))) == _pixels(whole)).all()


@pytest.mark.parametrize(
    "chunks",
    [
        [_icc(1, 1, PROFILE), _icc(1, 1, PROFILE)],
        [_icc(1, 1, PROFILE), _icc(1, 1, b"another")],
        [_icc(2, 2, PROFILE[99:]), _icc(1, 2, PROFILE[:99]), _icc(2, 2, PROFILE[99:])],
        [_icc(1, 1, PROFILE), _icc(1, 2, PROFILE)],
        [_icc(2, 3, PROFILE[99:]), _icc(1, 3, PROFILE[:99]), _icc(3, 3, b"")],
    ],
)
def test_a_complete_profile_is_converted_whatever_follows_it(chunks: list[bytes]) -> None:
    whole = _photo()
    converted = _pixels(_photo(icc_profile=PROFILE))
    assert (converted != _pixels(whole)).any()
    assert (_pixels(_insert(whole, b"\xff\xdb", b"".join(chunks))) == converted).all()


@pytest.mark.parametrize("transform", [2, 3, 255])
def test_an_unknown_adobe_transform_of_three_components_means_ycc(transform: int) -> None:
    whole = _photo()
    adobe = _segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))
    without_jfif = whole[:2] + adobe + whole[20:]
    assert whole[2:4] == b"\xff\xe0"
    assert (_pixels(without_jfif) == _pixels(whole)).all()


def test_the_adobe_transform_of_rgb_is_kept_beside_a_fault() -> None:
    whole = _photo(keep_rgb=True)
    assert b"Adobe" in whole
    assert (_pixels(_insert(whole, b"\xff\xdb", b"\0\0\0")) == _pixels(whole)).all()


@pytest.mark.parametrize(
    "jfif",
    [
        *(b"JFIF\0", b"JFIF", b"JFIF\0\1\1", b"JFIF\0\1\1\0\0\1\0\1"),
        # An unknown version.
        *(b"JFIF\0" + version + b"\0\0\1\0\1\0\0" for version in (b"\0\0", b"\2\1", b"\7\7")),
    ],
)
def test_a_short_or_unknown_jfif_segment_is_ignored(jfif: bytes) -> None:
    whole = _photo()
    assert (_pixels(whole[:2] + _segment(0xE0, jfif) + whole[20:]) == _pixels(whole)).all()


@pytest.mark.parametrize(
    "segment",
    [
        _segment(0xEE, b"Adobe"),
        _segment(0xED, b"Photoshop 3.0\x008BIM"),
        _segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04"),
        _segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\2\0\0"),
        _segment(0xE2, b"MPF\0 broken"),
        _segment(0xE2, b"FPXR\0"),
        _segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<broken"),
    ],
)
def test_broken_metadata_of_an_application_is_ignored(segment: bytes) -> None:
    whole = _photo()
    assert (_pixels(_insert(whole, b"\xff\xdb", segment)) == _pixels(whole)).all()


def test_orientation_and_size_are_right_beside_a_fault() -> None:
    exif = PILImage.Exif()
    exif[0x0112] = 6
    whole = _photo(exif=exif)
    image = decode(_insert(whole, SCAN, b"\0\0"), SETTINGS, lambda _w, _h: 2)
    assert image.full_size == (64, 96)
    assert (image.pixels == decode(whole, SETTINGS, lambda _w, _h: 2).pixels).all()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("extra", [b"", _segment(0xFE, b"a comment"), _segment(0xDD, b"\0\0")])
def test_only_files_without_metadata_have_a_plain_size(progressive: bool, extra: bytes) -> None:
    whole = _photo(progressive=progressive)
    assert jpeg.plain_size(_insert(whole, SCAN, extra)) == (96, 64)
    exif = PILImage.Exif()
    exif[0x0112] = 6
    for other in (
        _photo("L"),
        _photo("CMYK"),
        _photo(icc_profile=PROFILE),
        _photo(exif=exif),
        _insert(whole, SCAN, _segment(0xEE, b"Adobe\0\x64\0\0\0\0\2")),
        _insert(whole, b"\xff\xdb", b"\0"),
        whole.replace(b"\0\x11\x08\0\x40", b"\0\x11\x0c\0\x40"),  # 12 bits
        whole[: whole.index(SCAN)],
        whole[: whole.index(SCAN) - 1],
        b"\xff\xd8\xff",
    ):
        assert jpeg.plain_size(other) is None


@pytest.mark.parametrize("marker", [b"\xff\xdb", b"\xff\xc0", b"\xff\xc4", SCAN])
def test_the_orientation_counts_wherever_it_stands_before_the_scan(marker: bytes) -> None:
    exif = PILImage.Exif()
    exif[0x0112] = 6
    image = decode(_insert(_photo(), marker, _segment(0xE1, exif.tobytes())), SETTINGS)
    expected = decode(_photo(exif=exif), SETTINGS)
    assert image.full_size == (64, 96)
    assert (image.pixels == expected.pixels).all()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("fault", [b"", b"\0\0\0"])
def test_a_premature_end_is_corrupt_with_and_without_a_harmless_fault(
    progressive: bool, fault: bytes
) -> None:
    whole = _insert(_photo(progressive=progressive), b"\xff\xdb", fault)
    for cut in (whole[:-2], whole[:-20], whole[: len(whole) // 2]):
        _assert_corrupt(cut)
        _assert_corrupt(cut + b"\xff\xd9" if cut != whole[:-2] else cut)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("fault", [b"", b"\0\0\0"])
@pytest.mark.parametrize(
    "damage", [bytes(300), b"\x55" * 300, b"\xff\xfe\0\x10", b"\xff\xc4\0\3a", b"\xff\xd3", b""]
)
def test_damage_inside_the_scan_is_corrupt_with_and_without_a_harmless_fault(
    mode: str, fault: bytes, damage: bytes
) -> None:
    whole = _insert(_photo(mode), b"\xff\xdb", fault)
    middle = (whole.index(SCAN) + len(whole)) // 2
    _assert_corrupt(whole[:middle] + damage + whole[middle + 300 :])


def test_a_cmyk_file_is_shrunk_like_any_other() -> None:
    whole = _photo("CMYK")
    small = decode(whole, SETTINGS, lambda _w, _h: 4)
    assert small.full_size == (96, 64)
    assert small.pixels.shape == (16, 24, 3)
    means = decode(whole, SETTINGS).pixels.reshape(16, 4, 24, 4, 3).mean(axis=(1, 3))
    assert np.abs(small.pixels - means).mean() < 2


def test_zeros_over_the_end_of_the_scan_are_corrupt() -> None:
    # At this quality the zeros encode the missing blocks, and some are left over.
    whole = _photo(quality=100, subsampling=0)
    start = whole.index(SCAN)
    for share in (0.3, 0.6, 0.9):
        kept = start + int((len(whole) - start) * share)
        _assert_corrupt(whole[:kept] + bytes(len(whole) - 2 - kept) + b"\xff\xd9")


def test_bytes_left_over_from_a_scan_are_corrupt() -> None:
    _assert_corrupt(_insert(_photo(), b"\xff\xd9", b"\x12\x34\x56\x78\x9a" * 4))


def test_text_after_the_scan_is_ignored() -> None:
    whole = _photo()
    assert (_pixels(_insert(whole, b"\xff\xd9", b"written by a camera\n")) == _pixels(whole)).all()


def test_a_second_start_of_image_is_corrupt_as_in_browsers() -> None:
    _assert_corrupt(_insert(_photo(), b"\xff\xdb", b"\xff\xd8"))
