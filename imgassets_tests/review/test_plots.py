from __future__ import annotations

import io

import numpy as np
from PIL import Image

from imgassets.manifests import ProcessedRow, to_table
from imgassets.review.plots import histograms
from imgassets_tests.rows import processed_row

BAR = (70, 120, 190)


def _row(ratio: float | None, *scores: float) -> ProcessedRow:
    return processed_row(trim_ratio=ratio, face_scores=list(scores) or None)


def _bars(file: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Height of the bars in each column of pixels."""
    image = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
    return np.asarray((image == BAR).all(axis=2).sum(axis=0), np.int64)


def test_the_height_of_a_bar_is_proportional_to_the_frequency_of_its_values() -> None:
    rows = [_row(0.31, 0.96) for _ in range(10)] + [_row(0.92) for _ in range(5)]
    file = histograms(to_table(rows, ProcessedRow))
    bars = _bars(file)
    assert len(file) < 10_000
    often, seldom = bars[10 + 120], bars[10 + 350]
    assert often > 100
    assert abs(often - 2 * seldom) < 4
    assert bars[400 + 10 + 370] > 100
    assert bars[10 + 200] == 0


def test_a_partition_without_values_has_empty_axes() -> None:
    assert _bars(histograms(to_table([], ProcessedRow))).sum() == 0
    assert _bars(histograms(to_table([_row(None)], ProcessedRow))).sum() == 0
