"""Read the settings from YAML files and environment variables, and validate them.

Each layer overrides the one before: `config/default.yaml`; the file that `IMGASSETS_CONFIG` names,
or else `config/imgassets.yaml`; environment variables such as `IMGASSETS__DOWNLOAD__THREADS=64`.
Errors name the option and the layer that sets it. The options are defined in `settings`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from imgassets.errors import SettingsError
from imgassets.folders import project_root
from imgassets.settings import RetailerSettings, Settings, merge_options

CONFIG_VARIABLE = "IMGASSETS_CONFIG"
ENV_PREFIX = "IMGASSETS__"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class SettingsFile:
    """A settings file.

    Attributes:
        path: The path of the file.
        name: The name of the file in messages about an option in it.
        described: The subject of messages about the file itself.
    """

    path: Path
    name: str
    described: str


def settings_files() -> list[SettingsFile]:
    """The files that `load_settings` reads, in descending order of precedence.

    The file that `IMGASSETS_CONFIG` names, or else `config/imgassets.yaml` in the project folder;
    then `config/default.yaml`. The files in the project folder are optional.
    """
    files: list[SettingsFile] = []
    folder = project_root() / "config"
    if named := os.environ.get(CONFIG_VARIABLE):
        described = f"{CONFIG_VARIABLE} names {named}, which"
        files.append(SettingsFile(Path(named), named, described))
    names = ("default.yaml",) if named else ("imgassets.yaml", "default.yaml")
    for name in names:
        path = folder / name
        if path.is_file():
            files.append(SettingsFile(path, f"config/{name}", str(path)))
    return files


@cache
def load_settings() -> Settings:
    """Read the settings; the result is cached for the lifetime of the process.

    Raises:
        SettingsError: A file cannot be read, or an option is unknown, has the wrong type or is out
            of range. The message lists all such options, each with the layer that sets it.
    """
    layers = [("environment", _from_environment())]
    layers += [(file.name, _from_file(file.path, file.described)) for file in settings_files()]
    # Start from the defaults: if only one of two bounds is set, the other keeps its default.
    values = Settings().model_dump()
    for _, layer in reversed(layers):
        values = merge_options(values, layer)
    return validate_settings(values, layers)


def with_overrides(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    """Settings with some options overridden, for example for one run.

    Args:
        settings: The settings to start from; they are not changed.
        overrides: Values by section and option, as in a settings file.

    Raises:
        SettingsError: An override is not valid; the message names it.
    """
    return validate_settings(
        merge_options(settings.model_dump(), overrides), [("overrides", overrides)]
    )


def validate_settings(
    values: Mapping[str, Any], layers: Sequence[tuple[str, Mapping[str, Any]]]
) -> Settings:
    """Validate values that were merged from several layers.

    Args:
        values: The merged values by section and option.
        layers: Name and values of each layer, in descending order of precedence; used in messages.

    Raises:
        SettingsError: Options are not valid; the message names each with the layer that sets it.
    """
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_error_lines(error, (), layers))) from None
    problems = [*_size_problems(settings, "")]
    for slug in settings.retailers:
        try:
            problems += _size_problems(settings.for_retailer(slug), f"retailers.{slug}: ")
        except ValidationError as error:
            problems += _error_lines(error, ("retailers", slug), layers)
    kind = settings.source.kind
    if kind in ("csv", "jsonl", "parquet") and settings.source.path is None:
        problems.append(
            f"source.path is not set; source.kind is {kind}, so set it to the path of the file"
        )
    for name in ("retailer", "date", "updated"):
        path = getattr(settings.source.fields, name)
        # An aggregation of MongoDB reads nothing there, while an index does.
        if kind == "mongodb" and path and any(part.isdecimal() for part in path.split(".")):
            problems.append(
                f"source.fields.{name}: {path} names an entry of a list, which MongoDB cannot "
                "group by; name the list, whose documents must have one value in it"
            )
    if kind == "python" and settings.source.function is None:
        problems.append(
            "source.function is not set; source.kind is python, so set it to the dotted path of "
            "your function (package.module.function)"
        )
    if problems:
        raise SettingsError("\n".join(dict.fromkeys(problems)))
    return settings


def _size_problems(settings: RetailerSettings, where: str) -> Iterator[str]:
    """Say which steps would crop an image after the resize has given it the exact size."""
    steps, size = settings.steps, settings.resize.size
    if size is None or "resize" not in steps:
        return
    crops = {"trim": settings.trim.method != "none", "remove_face": settings.faces.action == "crop"}
    later = [step for step in steps[steps.index("resize") :] if crops.get(step)]
    if later:
        order = [*(step for step in steps if step != "resize"), "resize"]
        yield (
            f"{where}resize.size is {list(size)}, but process.steps runs {' and '.join(later)} "
            "after resize, which crops the image to another size; put resize last "
            f"([{', '.join(order)}]), or set resize.max_side instead of resize.size"
        )


def _from_environment() -> dict[str, Any]:
    named = [name for name in os.environ if name.upper().startswith(ENV_PREFIX)]
    for name in named:
        option = name.removeprefix(ENV_PREFIX).split("__")[0].lower()
        if name.startswith(ENV_PREFIX) and option not in Settings.model_fields:
            raise SettingsError(
                f"environment: {name}: there is no option {option!r}; "
                f"allowed: {', '.join(Settings.model_fields)}"
            )
    if not named:
        return {}
    # Imported only if such a variable is set, because every run imports this module.
    from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

    class FromEnvironment(Settings, BaseSettings):
        """The form of `Settings` for which pydantic-settings reads environment variables."""

        model_config = SettingsConfigDict()

    source = EnvSettingsSource(
        FromEnvironment, env_prefix=ENV_PREFIX, env_nested_delimiter="__", case_sensitive=False
    )
    try:
        return source()
    except ValueError as error:  # pydantic-settings' SettingsError: a value is not valid JSON
        raise SettingsError(_json_message(error, named)) from None


def _json_message(error: ValueError, variables: Sequence[str]) -> str:
    """The message about a variable that is not valid JSON, without its value: it may be a secret.

    Args:
        error: The error of pydantic-settings, which names the section but not the variable.
        variables: Names of the variables that were read.
    """
    cause = error.__cause__
    if not isinstance(cause, json.JSONDecodeError):
        return f"environment: {error}: {cause}"
    name = next(name for name in variables if os.environ[name] == cause.doc)
    return (
        f"environment: {name} is not valid JSON: {cause}; write lists and mappings as JSON, "
        'for example ["a", "b"] or {"a": "b"}'
    )


def _from_file(path: Path, name: str) -> dict[str, Any]:
    try:
        # The C parser is ten times as fast, and every run parses the settings.
        values = yaml.load(path.read_text(encoding="utf-8"), _LOADER)  # noqa: S506  (both are safe)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{name} cannot be read: {error}; correct its path or permissions, or save it in UTF-8"
        ) from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{name} is not YAML; correct it: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(
            f"{name} contains a {type(values).__name__}; it must contain sections with options, "
            "for example download: {threads: 8}"
        )
    return values


def _error_lines(
    error: ValidationError,
    prefix: tuple[str, ...],
    layers: Sequence[tuple[str, Mapping[str, Any]]],
) -> Iterator[str]:
    for problem in error.errors():
        path = (*prefix, *(str(part) for part in problem["loc"] if part != "[key]"))
        where = f"{_layer_of(layers, path)}: {'.'.join(path)}"
        if problem["type"] == "extra_forbidden":
            yield f"{where}: there is no such option; allowed: {', '.join(_options_beside(path))}"
        else:
            allowed = problem["msg"].removeprefix("Value error, ")
            yield f"{where}: got {problem['input']!r}; {allowed[0].lower()}{allowed[1:]}"


def _layer_of(layers: Sequence[tuple[str, Mapping[str, Any]]], path: tuple[str, ...]) -> str:
    for name, layer in layers:
        value: object = layer
        for part in path:
            value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
            if value is _ABSENT:
                break
        else:
            return name
    return "settings"


_ABSENT = object()


def _options_beside(path: tuple[str, ...]) -> list[str]:
    parts = path[2:] if path[0] == "retailers" else path
    model: type[BaseModel] = RetailerSettings if path[0] == "retailers" else Settings
    for part in parts[:-1]:
        model = model.model_fields[part].annotation  # type: ignore[assignment]
    return list(model.model_fields)
