"""Draw histograms of a partition's trim ratios and face scores.

Contact sheets are in `contact_sheet` and `pages`.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_BINS = 20
_WIDTH, _HEIGHT = 400, 160
_LEFT, _TOP, _BOTTOM = 10, 22, 20
_BACKGROUND, _TEXT_COLOUR, _BAR_COLOUR = (255, 255, 255), (30, 34, 40), (70, 120, 190)


def histograms(table: pa.Table, *, scale: int = 1) -> bytes:
    """Draw histograms of the trim ratios and the face scores, both from 0 to 1.

    Args:
        table: The manifest of `processed_images`.
        scale: Factor by which everything is enlarged, text included.

    Returns:
        A PNG of 800 x 160 pixels times `scale`; a few kilobytes at scale 1.
    """
    ratios = table["trim_ratio"].drop_null().to_numpy()
    scores = pc.list_flatten(table["face_scores"]).to_numpy()
    image = Image.new("RGB", (2 * _WIDTH * scale, _HEIGHT * scale), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    _histogram(draw, 0, "area kept by the trim", ratios, scale)
    _histogram(draw, _WIDTH, "face scores", scores, scale)
    file = io.BytesIO()
    # 8 colours: a third of the bytes.
    image.quantize(8, dither=Image.Dither.NONE).save(file, "PNG", optimize=scale == 1)
    return file.getvalue()


def _histogram(
    draw: ImageDraw.ImageDraw,
    start: int,
    title: str,
    values: NDArray[np.float64],
    scale: int,
) -> None:
    font = ImageFont.load_default(11 * scale)
    heading = f"{title}: {len(values)}"
    if len(values):
        heading += f", mean {np.mean(values):.2f}, 5 % below {np.percentile(values, 5):.2f}"
    draw.text(((start + _LEFT) * scale, 4 * scale), heading, _TEXT_COLOUR, font)
    base = _HEIGHT - _BOTTOM
    width = (_WIDTH - 2 * _LEFT) / _BINS
    counts, _ = np.histogram(values, _BINS, (0, 1))
    for number, count in enumerate(counts.tolist()):
        if count:
            x = start + _LEFT + number * width
            high = max(1.0, (base - _TOP) * count / int(counts.max()))
            bar = x + 1, base - high, x + width - 1, base
            draw.rectangle([side * scale for side in bar], _BAR_COLOUR)
    axis = start + _LEFT, base, start + _WIDTH - _LEFT, base
    draw.line([side * scale for side in axis], _TEXT_COLOUR, scale)
    for value in (0, 0.5, 1):
        x = start + _LEFT + value * (_WIDTH - 2 * _LEFT)
        draw.text((x * scale, (base + 3) * scale), f"{value:g}", _TEXT_COLOUR, font, anchor="ma")
