"""The steps that a picture goes through, by the names that the settings give them.

Here lives what a step is, and finding one. What the steps do is in `removal`, `resize` and `trim`;
their order and the record are in `pipeline`.

A step of your own is a function from `Image` to `Image`, named in `process.steps` by its
dotted path. It runs in several processes at once, and must not change a picture in place. With
`picture.cut(box)` and `picture.scaled(pixels)` the manifest still knows what part of the served
picture is shown::

    def brighten(picture: Image) -> Image:
        return replace(picture, pixels=cv2.convertScaleAbs(picture.pixels, alpha=1.1))
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import numpy as np

from imgassets.errors import StepError
from imgassets.imaging.image import Image

OwnStep: TypeAlias = Callable[[Image], Image]


@cache
def own_step(path: str) -> OwnStep:
    """The function of that dotted path.

    Raises:
        StepError: there is no such module or function.
    """
    module, name = path.rsplit(".", 1)
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise StepError(
            f"process.steps: {path} cannot be imported: {error}; "
            "give the dotted path of a function that this process can import"
        ) from None
    if not callable(function):
        raise StepError(f"process.steps: {path} is a {type(function).__name__}, not a function")
    own: OwnStep = function
    return own


def run_own_step(path: str, picture: Image) -> Image:
    """The picture that a step of the user's own makes of a picture.

    Raises:
        StepError: it gave no picture.
        Exception: whatever the function raises.
    """
    made = own_step(path)(picture)
    if not isinstance(made, Image):
        raise StepError(f"{path} gave a {type(made).__name__}, not a Image")
    pixels = made.pixels
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.ndim != 3
        or pixels.shape[2] != 3
        or pixels.size == 0
    ):
        found = f"{getattr(pixels, 'shape', None)} {getattr(pixels, 'dtype', type(pixels))}"
        raise StepError(f"{path} gave pixels of {found}, not height x width x 3 uint8")
    return made


def source_hash(path: str) -> str:
    """A hash of a step's source, so that pictures are made anew when it changes."""
    try:
        source = inspect.getsource(inspect.getmodule(own_step(path)) or own_step(path))
    except (OSError, TypeError):  # compiled code has none
        source = ""
    return hashlib.sha256(source.encode()).hexdigest()
