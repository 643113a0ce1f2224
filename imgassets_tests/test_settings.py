"""Settings: where they come from, and what is said of wrong ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imgassets.configuration import load_settings, with_overrides
from imgassets.folders import project_root
from imgassets.settings import Settings, SettingsError, as_yaml


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


def test_default_yaml_lists_every_option_as_the_code_has_it() -> None:
    assert (project_root() / "config" / "default.yaml").read_text() == as_yaml()


def test_every_option_says_what_it_means() -> None:
    assert "None" not in [line.split("#")[-1].strip() for line in as_yaml().splitlines()]


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


def test_an_empty_file_changes_nothing(config: Path) -> None:
    config.write_text("# nothing yet\n")
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("text", "told"),
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
        ("source: {kind: csv}", "source.csv_path: is not set; source.kind csv needs the path"),
        ("source: {kind: python}", "source.function: is not set"),
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
        ("- a list", "{file}, which should hold keys and values, not a list"),
        ("a: [", "{file}, which is not YAML"),
    ],
)
def test_a_wrong_option_is_told_with_its_file_its_path_its_value_and_what_is_allowed(
    config: Path, text: str, told: str
) -> None:
    config.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert told.format(file=config) in str(caught.value)


def test_all_wrong_options_are_told_at_once(config: Path) -> None:
    config.write_text("download: {threads: 0, retries: -1}\nencode: {quality: 101}")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert len(str(caught.value).splitlines()) == 3


def test_a_file_that_cannot_be_read_is_named(config: Path) -> None:
    with pytest.raises(SettingsError, match=f"IMGASSETS_CONFIG names {config}, which cannot be"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("IMGASSETS__DOWNLOAD__THREADS", "x", "environment: download.threads: got 'x'; input"),
        ("IMGASSETS__DOWNLOAD__THREAD", "1", "environment: download.thread: there is no such"),
        ("IMGASSETS__DOWNLAOD__THREADS", "1", "environment: IMGASSETS__DOWNLAOD__THREADS: there"),
        ("IMGASSETS__RETAILERS", "{", "environment: error parsing value"),
    ],
)
def test_a_wrong_environment_variable_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert told in str(caught.value)


def test_a_retailer_has_the_common_options_but_for_its_own() -> None:
    settings = Settings.model_validate(
        {
            "faces": {"min_score": 0.6},
            "retailers": {"zara": {"faces": {"margin": 0.2}, "checks": {"face_share": {"min": 1}}}},
        }
    )
    zara, other = settings.for_retailer("zara"), settings.for_retailer("mango")
    assert (zara.faces.min_score, zara.faces.margin) == (0.6, 0.2)
    assert (zara.checks.face_share.min, zara.checks.face_share.max) == (1, 1)
    assert (other.faces.min_score, other.faces.margin) == (0.6, Settings().faces.margin)


def test_overrides_of_one_run_are_checked_like_files() -> None:
    changed = with_overrides(Settings(), {"download": {"threads": 3}})
    assert changed.download.threads == 3
    assert changed.download.retries == Settings().download.retries
    with pytest.raises(SettingsError, match=r"overrides: download\.threads: got 0; input should"):
        with_overrides(Settings(), {"download": {"threads": 0}})


@pytest.mark.parametrize("owner", ["data", "team:", "team: data", "@example.com", "a@b"])
def test_an_owner_is_a_team_or_an_address(config: Path, owner: str) -> None:
    config.write_text(f'owners: ["team:data", "someone@example.com", "{owner}"]')
    with pytest.raises(SettingsError, match=r"owners\.2: got '"):
        load_settings()
