"""Steps of a user's own, for the tests."""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import replace

import numpy as np

from imgassets.imaging.image import Box, Image

NOT_A_FUNCTION = 5
MARK = 199
"""A picture whose first pixel is about this blue is one that the steps below stumble on."""


def _marked(picture: Image) -> bool:
    return abs(int(picture.pixels[0, 0, 0]) - MARK) < 8 and picture.pixels[0, 0, 2] < 60


def invert(picture: Image) -> Image:
    return replace(picture, pixels=255 - picture.pixels)


def left_half(picture: Image) -> Image:
    return picture.cut(Box(0, 0, picture.width // 2, picture.height))


def lower_right_narrowed(picture: Image) -> Image:
    """The lower right quarter at a half of its width and a fifth of its height."""
    width, height = picture.width // 2, picture.height // 2
    part = picture.cut(Box(picture.width - width, picture.height - height, width, height))
    return part.scaled(part.pixels[::5, ::2])


def fail_on_marked(picture: Image) -> Image:
    if _marked(picture):
        raise ZeroDivisionError("a bug")
    return picture


def crash_on_marked(picture: Image) -> Image:
    if _marked(picture):
        time.sleep(0.05)  # so that others are under way
        ctypes.string_at(0)  # a segmentation fault
    return picture


def crash_once(picture: Image) -> Image:
    """Dies the first time, as a process does that runs out of memory beside others."""
    path = os.environ["IMGASSETS_TEST_CRASHED"]
    if _marked(picture) and not os.path.exists(path):  # noqa: PTH110
        with open(path, "w"):  # noqa: PTH123
            os.abort()
    return picture


def hang_on_marked(picture: Image) -> Image:
    """Never returns, as a step does that waits for a server."""
    while _marked(picture):
        time.sleep(60)
    return picture


def hang_once(picture: Image) -> Image:
    """Hangs the first time, as a step does on a machine that swaps."""
    path = os.environ["IMGASSETS_TEST_HUNG"]
    if _marked(picture) and not os.path.exists(path):  # noqa: PTH110
        with open(path, "w"):  # noqa: PTH123
            time.sleep(3600)
    return picture


def slowly(picture: Image) -> Image:
    time.sleep(0.1)
    return picture


def floats(picture: Image) -> Image:
    return replace(picture, pixels=picture.pixels.astype(np.float32))


def nothing(_: Image) -> None:
    return None
