"""Import what users name in the settings by its dotted path: functions, and an executor."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from imgassets.errors import ImgassetsError


def import_function(
    option: str, path: str, error_class: type[ImgassetsError]
) -> Callable[..., Any]:
    """Import a function.

    Args:
        option: Name of the option that contains the path, for messages.
        path: The dotted path of the function: `package.module.function`.
        error_class: Class of the errors to raise.

    Raises:
        ImgassetsError: The module or the function does not exist, or is not a function; the error
            is an instance of `error_class`.
    """
    function = import_object(option, path, error_class)
    if not callable(function):
        raise error_class(
            f"{option}: {path} is a {type(function).__name__}, not a function; "
            "give the dotted path of a function"
        )
    imported: Callable[..., Any] = function
    return imported


def import_object(option: str, path: str, error_class: type[ImgassetsError]) -> object:
    """Import an object.

    Args:
        option: Name of the option that contains the path, for messages.
        path: The dotted path of the object: `package.module.name`.
        error_class: Class of the error to raise.

    Raises:
        ImgassetsError: The module or the object does not exist; the error is an instance of
            `error_class`.
    """
    module, _, name = path.rpartition(".")
    try:
        found: object = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise error_class(
            f"{option}: {path} cannot be imported: {error}; "
            "install its package, or put its folder on PYTHONPATH"
        ) from None
    return found
