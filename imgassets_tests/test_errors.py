import importlib
import inspect
import pkgutil

import imgassets
from imgassets.errors import ImgassetsError

# The run launcher imports nothing else of the package, and catches its own error.
OUTSIDE_THE_TREE = {"ForkServerError"}


def _exceptions() -> dict[str, type[BaseException]]:
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(imgassets.__path__, "imgassets.")
        if module.name != "imgassets.definitions"  # reads settings while it is imported
    ]
    return {
        name: value
        for module in modules
        for name, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, BaseException) and value.__module__.startswith("imgassets.")
    }


def test_every_exception_of_the_package_is_in_one_tree_and_ends_in_error() -> None:
    found = _exceptions()
    assert {"SettingsError", "FetchError", "UnreadableImageError"} <= set(found)
    assert {name for name in found if not name.endswith("Error")} == set()
    outside = {name for name, value in found.items() if not issubclass(value, ImgassetsError)}
    assert outside == OUTSIDE_THE_TREE


def test_the_base_class_is_public() -> None:
    assert imgassets.ImgassetsError is ImgassetsError
