"""Tests of reading the settings: precedence of the layers, and messages about errors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imgassets.configuration import load_settings, validate_settings, with_overrides
from imgassets.errors import SettingsError
from imgassets.settings import Bounds, Settings


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mine.yaml"
    monkeypatch.setenv("IMGASSETS_CONFIG", str(path))
    return path


def test_the_file_overrides_the_default_and_the_environment_overrides_both(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("download: {threads: 7, retries: 1}\nresize: {max_side: 100}")
    monkeypatch.setenv("IMGASSETS__DOWNLOAD__THREADS", "64")
    settings = load_settings()
    assert settings.download.threads == 64
    assert settings.download.retries == 1
    assert settings.resize.max_side == 100
    assert settings.encode == Settings().encode


def test_an_empty_imgassets_config_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGASSETS_CONFIG", "")
    assert load_settings() == Settings()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder in which a test can write `config/default.yaml`."""
    (tmp_path / "config").mkdir()
    monkeypatch.setattr("imgassets.configuration.project_root", lambda: tmp_path)
    return tmp_path


def test_default_yaml_is_the_lowest_layer(project: Path, config: Path) -> None:
    default = project / "config" / "default.yaml"
    default.write_text("download: {threads: 5, retries: 5, headers: {A: a}}\nowners: ['team:a']")
    config.write_text("download: {threads: 6, headers: {B: b}}")
    settings = load_settings()
    assert (settings.download.threads, settings.download.retries) == (6, 5)
    assert settings.download.headers == {"A": "a", "B": "b"}
    assert settings.owners == ("team:a",)
    load_settings.cache_clear()
    default.write_text("download: {threads: 0, thread: 5}")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "config/default.yaml: download.thread: there is no such option" in str(caught.value)
    assert "download.threads" not in str(caught.value)
    load_settings.cache_clear()
    default.write_text("[")
    with pytest.raises(SettingsError, match=f"^{default} is not YAML; correct it: "):
        load_settings()


def test_without_default_yaml_one_of_two_bounds_can_be_set_without_the_other(
    project: Path, config: Path
) -> None:
    assert not (project / "config" / "default.yaml").exists()
    config.write_text("checks: {trim_ratio_p05: {max: 0.5}}")
    assert load_settings().checks.trim_ratio_p05 == Bounds(min=0.05, max=0.5)


def test_settings_are_read_once(config: Path) -> None:
    config.write_text("download: {threads: 7}")
    first = load_settings()
    config.write_text("download: {threads: 8}")
    assert load_settings() is first


def test_a_file_is_read_as_utf_8_in_every_locale(config: Path) -> None:
    config.write_text("download: {user_agent: Zoë}", encoding="utf-8")
    assert load_settings().download.user_agent == "Zoë"
    code = (
        "from imgassets.configuration import load_settings; "
        "print(ascii(load_settings().download.user_agent))"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", code],
        env={
            **os.environ,
            "LC_ALL": "C",
            "PYTHONCOERCECLOCALE": "0",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "IMGASSETS_CONFIG": str(config),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "'Zo\\xeb'\n"


def test_an_empty_file_changes_nothing(config: Path) -> None:
    config.write_text("# nothing yet\n")
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("download: {threads: -3}", "{file}: download.threads: got -3; input should be greater"),
        ("download: {threads: many}", "{file}: download.threads: got 'many'; input should be a"),
        ("download: {threads: yes}", "{file}: download.threads: got True; input should not be a b"),
        ("download: {thread: 3}", "{file}: download.thread: there is no such option; allowed: "),
        ("downloads: {}", "{file}: downloads: there is no such option; allowed: "),
        (
            "encode: {format: gif}",
            "{file}: encode.format: got 'gif'; input should be 'jpeg', 'png'",
        ),
        ("trim: {blur: 4}", "{file}: trim.blur: got 4; input should be odd"),
        ("start_date: soon", "{file}: start_date: got 'soon'; input should be a valid date"),
        (
            "checks: {face_share: {min: 0.9, max: 0.1}}",
            "{file}: checks.face_share: got {{'min': 0.9, 'max': 0.1}}; min should not be",
        ),
        (
            "retailers: {zara: {trim: {step: 0}}}",
            "{file}: retailers.zara.trim.step: got 0; input should be greater than 0",
        ),
        (
            "retailers: {zara: {trim: {steps: 1}}}",
            "{file}: retailers.zara.trim.steps: there is no such option; allowed: method",
        ),
        (
            "retailers: {zara: {source: {}}}",
            "{file}: retailers.zara.source: there is no such option; allowed: ",
        ),
        ("retailers: {Zara: {}}", "{file}: retailers.Zara: got 'Zara'; string should match"),
        ("- a list", "{file}, which contains a list; it must contain sections with options, for"),
        ("a: [", "{file}, which is not YAML"),
    ],
)
def test_the_error_of_an_invalid_option_names_file_option_value_and_allowed_values(
    config: Path, text: str, message: str
) -> None:
    config.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert message.format(file=config) in str(caught.value)


def test_all_invalid_options_are_reported_at_once_one_per_line(config: Path) -> None:
    config.write_text("download: {threads: 0, retries: -1}\nencode: {quality: 101}")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    named = (
        f"{config}: download.threads",
        f"{config}: download.retries",
        f"{config}: encode.quality",
    )
    for line, start in zip(str(caught.value).splitlines(), named, strict=True):
        assert line.startswith(f"{start}: got ")


def test_every_invalid_option_of_retailers_and_the_source_is_reported_once(config: Path) -> None:
    config.write_text(
        "source: {kind: csv}\n"
        "retailers:\n"
        "  asos: {trim: {blur: 2}, encode: {quality: 0}}\n"
        "  zara: {checks: {drift: {day: 1}}}\n"
        "  mango: {trim: {blur: 3}}\n"
    )
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value).splitlines() == [
        f"{config}: retailers.asos.trim.blur: got 2; input should be odd",
        f"{config}: retailers.asos.encode.quality: got 0; "
        "input should be greater than or equal to 1",
        f"{config}: retailers.zara.checks.drift.day: there is no such option; allowed: "
        "partitions, days, min_images, success_rate, trim_ratio_mean, untrimmed_share, "
        "face_share",
        "source.path is not set; source.kind is csv, so set it to the path of the file",
    ]


def test_a_python_source_without_a_function_is_an_error(config: Path) -> None:
    config.write_text("source: {kind: python}")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == (
        "source.function is not set; source.kind is python, so set it to the dotted path of your "
        "function (package.module.function)"
    )


@pytest.mark.parametrize(
    ("fields", "name"),
    [("retailer: shops.0.name", "retailer"), ("date: days.1", "date"), ("updated: '0'", "updated")],
)
def test_an_entry_of_a_list_is_no_retailer_or_date_of_mongodb(
    config: Path, fields: str, name: str
) -> None:
    config.write_text(f"source: {{fields: {{{fields}}}}}")
    with pytest.raises(SettingsError, match=f"^source.fields.{name}: .* names an entry of a list"):
        load_settings()
    config.write_text(f"source: {{kind: jsonl, path: a.jl, fields: {{{fields}}}}}")
    load_settings()


def test_tabs_and_line_breaks_can_be_written_without_double_quotes(config: Path) -> None:
    config.write_text("source: {separator: \\n, delimiter: '\\t'}")
    source = load_settings().source
    assert (source.separator, source.delimiter) == ("\n", "\t")


def test_collections_that_are_no_names_are_one_sentence(config: Path) -> None:
    config.write_text("source: {collection: [a, b]}")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == (
        f"{config}: source.collection: got ['a', 'b']; input should be a collection such as "
        "products or products_*, or a mapping from retailers to collections"
    )


@pytest.mark.parametrize("source", ["{kind: python, function: a.b}", "{kind: csv, path: a.csv}"])
def test_a_source_with_its_required_option_is_accepted(config: Path, source: str) -> None:
    config.write_text(f"source: {source}")
    assert load_settings().source.kind in source


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        ("trim: {steps: 1}", "trim.steps", "method, threshold, step, min_side, blur"),
        ("review: {pages: 1}", "review.pages", "max_pages, hide_faces, inline"),
        (
            "retailers: {zara: {review: {pages: 1}}}",
            "retailers.zara.review.pages",
            "max_pages, hide_faces, inline",
        ),
        (
            "retailers: {zara: {sensor: {}}}",
            "retailers.zara.sensor",
            "download, decode, process, faces, resize, trim, encode, checks, review",
        ),
        (
            "start: 2026-01-01",
            "start",
            "download, decode, process, faces, resize, trim, encode, checks, review, "
            "data_root, start_date, partitions, owners, ui_path_prefix, executor, executor_config, "
            "source, sensor, retailers",
        ),
        (
            "source: {fields: {name: x}}",
            "source.fields.name",
            "retailer, images, date, product_id, updated",
        ),
    ],
)
def test_the_error_of_an_unknown_option_lists_the_options_of_its_section(
    config: Path, text: str, path: str, allowed: str
) -> None:
    config.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == f"{config}: {path}: there is no such option; allowed: {allowed}"


def test_the_error_of_an_invalid_option_names_the_highest_layer_that_sets_it(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("download: {threads: 0, retries: 99}")
    monkeypatch.setenv("IMGASSETS__DOWNLOAD__THREADS", "600")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == (
        "environment: download.threads: got '600'; "
        "input should be less than or equal to 512\n"
        f"{config}: download.retries: got 99; input should be less than or equal to 20"
    )


def test_an_invalid_option_that_no_layer_sets_is_attributed_to_the_settings() -> None:
    with pytest.raises(SettingsError, match=r"^settings: trim\.blur: got 2; input should be odd$"):
        validate_settings(
            {"trim": {"blur": 2}}, [("overrides", {"trim": {}}), ("file", {"trim": 3})]
        )


def test_the_error_of_an_unreadable_file_names_it(config: Path) -> None:
    with pytest.raises(SettingsError, match=f"IMGASSETS_CONFIG names {config}, which cannot be"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("IMGASSETS__DOWNLOAD__THREADS", "x", "environment: download.threads: got 'x'; input"),
        ("IMGASSETS__DOWNLOAD__THREAD", "1", "environment: download.thread: there is no such"),
        (
            "IMGASSETS__DOWNLAOD__THREADS",
            "1",
            "environment: IMGASSETS__DOWNLAOD__THREADS: there is no option 'downlaod'; allowed: "
            "download, decode, process, faces, resize, trim, encode, checks, review, data_root, "
            "start_date, partitions, owners, ui_path_prefix, executor, executor_config, source, "
            "sensor, retailers",
        ),
        (
            "IMGASSETS__RETAILERS",
            "{",
            "environment: IMGASSETS__RETAILERS is not valid JSON: Expecting property name",
        ),
        (
            "imgassets__download__HEADERS",
            "{'a': 1}",
            "environment: imgassets__download__HEADERS is not valid JSON: Expecting property name",
        ),
    ],
)
def test_an_invalid_environment_variable_is_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert message in str(caught.value)


def test_a_file_in_another_encoding_is_an_error(config: Path) -> None:
    config.write_bytes("download: {user_agent: Zoë}".encode("latin-1"))
    with pytest.raises(SettingsError, match=f"names {config}, which cannot be read: 'utf-8' codec"):
        load_settings()


def test_an_environment_variable_in_lower_case_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("IMGASSETS__")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("imgassets__download__threads", "5")
    assert load_settings().download.threads == 5


def test_environment_variables_may_be_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("imgassets__Download__threads", "5")
    monkeypatch.setenv("IMGASSETS__DOWNLOAD", '{"retries": 6}')
    monkeypatch.setenv("OTHER__DOWNLOAD__PER_HOST", "7")
    monkeypatch.setenv("IMGASSETS_WEBHOOK_URL", "http://127.0.0.1/")
    settings = load_settings()
    assert settings.download.threads == 5
    assert settings.download.retries == 6
    assert settings.download.per_host == Settings().download.per_host


def test_overrides_of_one_run_are_validated_like_files() -> None:
    settings = Settings.model_validate({"download": {"retries": 7}, "trim": {"blur": 3}})
    changed = with_overrides(settings, {"download": {"threads": 3}})
    assert changed.download.threads == 3
    assert changed.download.retries == 7
    assert changed.trim.blur == 3
    assert settings.download.threads == Settings().download.threads
    with pytest.raises(SettingsError, match=r"overrides: download\.threads: got 0; input should"):
        with_overrides(Settings(), {"download": {"threads": 0}})


@pytest.mark.parametrize("owner", ["data", "team:", "team: data", "@example.com", "a@b"])
def test_an_owner_is_a_team_or_an_email_address(config: Path, owner: str) -> None:
    config.write_text(f'owners: ["team:data", "someone@example.com", "{owner}"]')
    with pytest.raises(SettingsError, match=r"owners\.2: got '"):
        load_settings()


@pytest.mark.parametrize(
    ("options", "later"),
    [
        ({"process": {"steps": ["resize", "trim"]}}, "trim"),
        ({"process": {"steps": ["resize", "remove_face", "trim"]}}, "remove_face and trim"),
        ({"process": {"steps": ["resize", "trim", "shop.sharpen"]}}, "trim"),
        ({"process": {"steps": ["remove_face", "trim", "resize", "shop.sharpen"]}}, None),
        ({"process": {"steps": ["resize", "trim"]}, "trim": {"method": "none"}}, None),
        ({"process": {"steps": ["resize", "remove_face"]}, "faces": {"action": "blur"}}, None),
        ({"process": {"steps": ["trim"]}}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("retailer", [False, True])
def test_steps_that_crop_after_the_resize_are_refused_if_an_exact_size_is_set(
    options: dict[str, Any], later: str | None, retailer: bool
) -> None:
    values = options | {"resize": {"size": [300, 400]}}
    if retailer:
        values = {"retailers": {"zara": values}}
    if later is None:
        validate_settings(values, [])
        return
    with pytest.raises(SettingsError) as caught:
        validate_settings(values, [])
    message = str(caught.value)
    where = "retailers.zara: " if retailer else ""
    expected = f"{where}resize.size is [300, 400], but process.steps runs {later} after resize"
    assert message.startswith(expected)
    assert "put resize last ([" in message
    assert len(message.splitlines()) == 1
