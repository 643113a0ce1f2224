"""Steps like those that users write, for the tests."""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import replace

import numpy as np

from imgassets.imaging.image import Box, Image

NOT_A_FUNCTION = 5
MARK = 199
"""The steps below fail on images whose first pixel has about this blue, and little red."""


def _marked(image: Image) -> bool:
    return abs(int(image.pixels[0, 0, 0]) - MARK) < 8 and image.pixels[0, 0, 2] < 60


def invert(image: Image) -> Image:
    return replace(image, pixels=255 - image.pixels)


def crop_left_half(image: Image) -> Image:
    return image.crop(Box(0, 0, image.width // 2, image.height))


def narrow_lower_right(image: Image) -> Image:
    """Crop the lower right quarter, at half of its width and a fifth of its height."""
    width, height = image.width // 2, image.height // 2
    part = image.crop(Box(image.width - width, image.height - height, width, height))
    return part.scaled(part.pixels[::5, ::2])


def fail_on_marked(image: Image) -> Image:
    if _marked(image):
        raise ZeroDivisionError("a bug")
    return image


def crash_on_marked(image: Image) -> Image:
    if _marked(image):
        time.sleep(0.05)  # so that other images are in progress
        ctypes.string_at(0)  # a segmentation fault
    return image


def crash_once(image: Image) -> Image:
    """Crash the first time, like a process that runs out of memory next to others."""
    path = os.environ["IMGASSETS_TEST_CRASHED"]
    if _marked(image) and not os.path.exists(path):  # noqa: PTH110
        with open(path, "w"):  # noqa: PTH123
            os.abort()
    return image


def hang_on_marked(image: Image) -> Image:
    """Never return, like a step that waits for a server."""
    while _marked(image):
        time.sleep(60)
    return image


def hang_once(image: Image) -> Image:
    """Hang the first time, like a step on a machine that swaps."""
    path = os.environ["IMGASSETS_TEST_HUNG"]
    if _marked(image) and not os.path.exists(path):  # noqa: PTH110
        with open(path, "w"):  # noqa: PTH123
            time.sleep(3600)
    return image


def sleep_briefly(image: Image) -> Image:
    time.sleep(0.1)
    return image


def record_and_wait(image: Image) -> Image:
    """Append the number in the first pixel to a file, and take as long as a real step."""
    blue, green, _ = (int(value) for value in image.pixels[0, 0])
    with open(os.environ["IMGASSETS_TEST_RECORD"], "a") as file:  # noqa: PTH123
        file.write(f"{green * 256 + blue}\n")
    time.sleep(0.02)
    return image


def record_process(image: Image) -> Image:
    """Append the process id to a file."""
    with open(os.environ["IMGASSETS_TEST_RECORD"], "a") as file:  # noqa: PTH123
        file.write(f"{os.getpid()}\n")
    return image


def return_floats(image: Image) -> Image:
    return replace(image, pixels=image.pixels.astype(np.float32))


def return_none(_: Image) -> None:
    return None
