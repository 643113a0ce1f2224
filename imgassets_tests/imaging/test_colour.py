from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as PILImage

from imgassets.imaging.colour import to_srgb
from imgassets_tests.imaging.icc import rgb_profile

SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))


@pytest.mark.parametrize(
    ("gamma", "stored"),
    [
        (2.2, 20),  # sRGB's own curve differs only in the shadows
        (2.6, 100),  # darker everywhere
        (1.8, 100),  # brighter everywhere
    ],
)
def test_a_profile_that_differs_slightly_from_srgb_is_converted(gamma: float, stored: int) -> None:
    linear = (stored / 255) ** (round(gamma * 256) / 256)
    curve = linear * 12.92 if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    converted = to_srgb(PILImage.new("RGB", (4, 4), (stored,) * 3), rgb_profile(SRGB, gamma))
    assert abs(curve * 255 - stored) >= 2
    assert np.abs(converted.astype(float) - curve * 255).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "CMYK", "YCbCr", "HSV"])
def test_images_of_every_mode_become_bgr_pixels(mode: str) -> None:
    colour = PILImage.new("RGB", (4, 4), (200, 100, 50)).convert(mode)
    converted = to_srgb(colour, None)
    expected = np.asarray(colour.convert("RGB"))[:, :, ::-1]
    assert converted.dtype == np.uint8
    assert (converted == expected).all()
