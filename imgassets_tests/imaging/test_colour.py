from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from imgassets.imaging.colour import to_srgb
from imgassets_tests.imaging.icc import rgb_profile

SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))


@pytest.mark.parametrize(
    ("gamma", "stored"),
    [
        (2.2, 20),  # sRGB's own curve differs in the shadows alone
        (2.6, 100),  # darker everywhere
        (1.8, 100),  # brighter everywhere
    ],
)
def test_a_profile_that_is_nearly_srgb_is_converted(gamma: float, stored: int) -> None:
    linear = (stored / 255) ** (round(gamma * 256) / 256)
    curve = linear * 12.92 if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    made = to_srgb(Image.new("RGB", (4, 4), (stored,) * 3), rgb_profile(SRGB, gamma))
    assert abs(curve * 255 - stored) >= 2
    assert np.abs(made.astype(float) - curve * 255).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "CMYK", "YCbCr", "HSV"])
def test_images_of_every_mode_become_pixels_in_blue_green_red(mode: str) -> None:
    colour = Image.new("RGB", (4, 4), (200, 100, 50)).convert(mode)
    made = to_srgb(colour, None)
    expected = np.asarray(colour.convert("RGB"))[:, :, ::-1]
    assert made.dtype == np.uint8
    assert (made == expected).all()
