"""Load and run the steps that users write.

What the built-in steps do is in `removal`, `resize` and `trim`; the order of the steps and the
record of an image are in `pipeline`.

A user's step is a function from `Image` to `Image`, listed in `process.steps` by its dotted path.
It runs in several processes at once, and must not change an image in place. If it uses
`image.crop(box)` and `image.scaled(pixels)`, the manifest still knows which part of the served
image is shown::

    def brighten(image: Image) -> Image:
        return replace(image, pixels=cv2.convertScaleAbs(image.pixels, alpha=1.1))
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import numpy as np

from imgassets.errors import StepError
from imgassets.imaging.image import Image
from imgassets.imports import import_function

UserStep: TypeAlias = Callable[[Image], Image]


@cache
def load_user_step(path: str) -> UserStep:
    """Import the function with this dotted path.

    Raises:
        StepError: The module or the function does not exist, or is not a function.
    """
    step: UserStep = import_function("process.steps", path, StepError)
    return step


def run_user_step(path: str, image: Image) -> Image:
    """Run a user's step on an image, and check what it returns.

    Args:
        path: The dotted path of the step.
        image: The image to pass to the step.

    Raises:
        StepError: The step did not return a valid image.
        Exception: Any error that the step raises.
    """
    result = load_user_step(path)(image)
    if not isinstance(result, Image):
        raise StepError(f"{path} returned a {type(result).__name__}; it must return an Image")
    pixels = result.pixels
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.ndim != 3
        or pixels.shape[2] != 3
        or pixels.size == 0
    ):
        found = f"{getattr(pixels, 'shape', None)} {getattr(pixels, 'dtype', type(pixels))}"
        raise StepError(
            f"{path} returned pixels of {found}; they must be height x width x 3, uint8"
        )
    return result


def source_hash(path: str) -> str:
    """Hash the source of a step's module, so that images are processed again when it changes."""
    step = load_user_step(path)
    try:
        source = inspect.getsource(inspect.getmodule(step) or step)
    except (OSError, TypeError):  # compiled code has no source
        source = ""
    return hashlib.sha256(source.encode()).hexdigest()
