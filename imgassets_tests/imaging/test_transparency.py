"""The memory that transparency takes, and grey images with transparency and a profile."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from imgassets.imaging.decode import decode
from imgassets.settings import DecodeSettings
from imgassets_tests.imaging.icc import grey_profile

FILES = Path(__file__).with_name("files")
_PEAK = """
import resource, sys
from imgassets.imaging.decode import decode
from imgassets.settings import DecodeSettings
data = open(sys.argv[1], "rb").read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pixels = decode(data, DecodeSettings()).pixels
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def _peak(path: Path) -> int:
    """Memory that decoding a file takes, in KiB, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, path], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_takes_hardly_more_memory_than_an_opaque_image(
    mode: str, tmp_path: Path
) -> None:
    image = PILImage.new("RGBA", (3500, 3000), (200, 30, 40, 255))
    image.paste((0, 0, 0, 0), (0, 0, 1700, 1500))
    image.paste((30, 90, 40, 100), (0, 1500, 1700, 3000))
    opaque, transparent = tmp_path / "opaque.png", tmp_path / "transparent.png"
    image.convert("RGB").save(opaque)
    (image.quantize(8) if mode == "P" else image.convert(mode)).save(transparent)
    with PILImage.open(transparent) as stored:
        assert stored.has_transparency_data
    assert _peak(transparent) <= 1.3 * _peak(opaque)


@pytest.mark.parametrize("size", [(1, 1), (700, 1), (1, 700), (600, 1200), (270_000, 2)])
def test_every_part_of_a_transparent_image_is_blended(size: tuple[int, int]) -> None:
    samples = np.random.default_rng(2).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    file = io.BytesIO()
    PILImage.fromarray(samples).save(file, "PNG", compress_level=0)
    found = decode(file.getvalue(), DecodeSettings(background=(9, 8, 7))).pixels
    opacity = samples[:, :, 3:] / 255
    expected = samples[:, :, 2::-1] * opacity + np.array((7, 8, 9)) * (1 - opacity)
    assert np.abs(found - expected).max() <= 0.51


def test_a_grey_profile_of_a_transparent_grey_image_is_converted() -> None:
    image = PILImage.new("LA", (16, 16), (100, 255))
    image.paste((0, 0), (0, 0, 4, 16))
    image.paste((100, 128), (4, 0, 8, 16))
    file = io.BytesIO()
    image.save(file, "PNG", icc_profile=grey_profile(1.0))
    found = decode(file.getvalue(), DecodeSettings(background=(9, 8, 7))).pixels
    converted = found[8, 12].astype(int)
    assert np.abs(converted - 167).max() <= 1  # the sRGB value of an intensity of 100 / 255
    assert found[8, 2].tolist() == [7, 8, 9]
    half = converted * 128 / 255 + np.array((7, 8, 9)) * 127 / 255
    assert np.abs(found[8, 6] - half).max() <= 1


def test_a_grey_profile_of_a_grey_image_with_a_transparent_level_is_converted() -> None:
    image = PILImage.new("L", (16, 16), 100)
    image.paste(40, (0, 0, 4, 16))
    file = io.BytesIO()
    image.save(file, "PNG", icc_profile=grey_profile(1.0), transparency=40)
    found = decode(file.getvalue(), DecodeSettings(background=(9, 8, 7))).pixels
    assert np.abs(found[8, 12].astype(int) - 167).max() <= 1
    assert found[8, 2].tolist() == [7, 8, 9]


def test_the_trial_file_with_alpha_and_a_grey_profile_is_converted() -> None:
    found = decode((FILES / "greyalpha_icc_g10.png").read_bytes(), DecodeSettings()).pixels
    assert np.abs(found[80, 60].astype(int) - 155).max() <= 1  # of a linear intensity of 82 / 255


def test_the_trial_file_with_a_transparent_16_bit_level_shows_the_background() -> None:
    data = (FILES / "grey16_trns.png").read_bytes()
    found = decode(data, DecodeSettings(background=(9, 8, 7))).pixels
    assert found[5, 5].tolist() == [7, 8, 9]  # the black mark
    assert found[80, 60].tolist() == [82, 82, 82]
    assert (found == (7, 8, 9)).all(axis=2).sum() == 1600
