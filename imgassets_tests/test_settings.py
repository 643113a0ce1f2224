"""Tests of the options: every way to set them, their limits, and overrides per retailer."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from imgassets.configuration import ENV_PREFIX, load_settings, validate_settings
from imgassets.errors import SettingsError
from imgassets.folders import project_root
from imgassets.settings import Bounds, RetailerSettings, Section, Settings, as_yaml

CHECKSUM = "0123456789abcdef" * 4

OTHER: Mapping[str, tuple[str, object]] = {
    "data_root": ("s3://bucket/images", "s3://bucket/images"),
    "start_date": ("2025-06-30", dt.date(2025, 6, 30)),
    "partitions.period": ("week", "week"),
    "owners": ('["team:data", "a@example.com"]', ("team:data", "a@example.com")),
    "ui_path_prefix": ("/tools", "/tools"),
    "executor": ("dagster.multiprocess_executor", "dagster.multiprocess_executor"),
    "executor_config": ('{"max_concurrent": 4}', {"max_concurrent": 4}),
    "source.kind": ("csv", "csv"),
    "source.database": ("shops", "shops"),
    "source.collection": ('{"zara": "eu.zara"}', {"zara": "eu.zara"}),
    "source.retailer": ("Zara", "Zara"),
    "source.retailer_aliases": ('{"ZARA ES": "zara"}', {"ZARA ES": "zara"}),
    "source.query": ('{"in_stock": true}', {"in_stock": True}),
    "source.fields.retailer": ("shop.name", "shop.name"),
    "source.fields.images": ("media.url", "media.url"),
    "source.fields.date": ("seen.at", "seen.at"),
    "source.fields.product_id": ("sku", "sku"),
    "source.fields.updated": ("changed", "changed"),
    "source.date_format": ("on %d/%m/%Y", "on %d/%m/%Y"),
    "source.separator": ("'|'", "|"),
    "source.base_url": ("https://shop", "https://shop"),
    "source.path": ("urls.csv", "urls.csv"),
    "source.encoding": ("latin-1", "latin-1"),
    "source.delimiter": ("';'", ";"),
    "source.function": ("shops.rows", "shops.rows"),
    "sensor.enabled": ("true", True),
    "sensor.interval_s": ("31", 31),
    "sensor.method": ("poll", "poll"),
    "sensor.start_from": ("everything", "everything"),
    "sensor.settle_s": ("32.5", 32.5),
    "sensor.max_wait_s": ("901.5", 901.5),
    "sensor.overlap_s": ("3601", 3601),
    "sensor.max_runs": ("17", 17),
    "retailers": ('{"asos": {"trim": {"blur": 3}}}', {"asos": {"trim": {"blur": 3}}}),
    "download.client": ("requests", "requests"),
    "download.threads": ("33", 33),
    "download.connect_timeout_s": ("11.5", 11.5),
    "download.read_timeout_s": ("21.5", 21.5),
    "download.total_timeout_s": ("61.5", 61.5),
    "download.retries": ("4", 4),
    "download.backoff_s": ("0.75", 0.75),
    "download.backoff_max_s": ("30.5", 30.5),
    "download.min_bytes": ("129", 129),
    "download.max_bytes": ("50000001", 50_000_001),
    "download.max_pixels": ("80000001", 80_000_001),
    "download.min_pixels": ("17", 17),
    "download.max_redirects": ("6", 6),
    "download.user_agent": ("shop-images (me@example.org)", "shop-images (me@example.org)"),
    "download.headers": ('{"Referer": "http://shop/"}', {"Referer": "http://shop/"}),
    "download.auth": ("bearer ${TOKEN}", "bearer ${TOKEN}"),
    "download.proxy": ("http://proxy:3128", "http://proxy:3128"),
    "download.allow_private_addresses": ("true", True),
    "download.per_host": ("34", 34),
    "download.rate_per_host": ("2.5", 2.5),
    "download.shared_limits": ("redis://cache:6380/1", "redis://cache:6380/1"),
    "download.retry_after_max_s": ("121.5", 121.5),
    "download.crawl_delay_max_s": ("61.5", 61.5),
    "download.breaker_failures": ("35", 35),
    "download.breaker_cooldown_s": ("36.5", 36.5),
    "download.max_refusals": ("201", 201),
    "download.robots": ("false", False),
    "download.opt_outs": ('["noai", "tdm-reservation"]', ("noai", "tdm-reservation")),
    "download.shard_size": ("10001", 10_001),
    "download.reuse_days": ("40", 40),
    "download.revalidate_after_days": ("0.5", 0.5),
    "decode.background": ("[1, 2, 3]", (1, 2, 3)),
    "decode.max_pixels": ("50000002", 50_000_002),
    "process.steps": ('["trim", "my.steps.sharpen"]', ("trim", "my.steps.sharpen")),
    "process.keep_raw": ("false", False),
    "process.timeout_s": ("7.5", 7.5),
    "process.processes": ("3", 3),
    "process.shard_size": ("50001", 50_001),
    "faces.action": ("blur", "blur"),
    "faces.model": ("res10", "res10"),
    "faces.model_source": ("models/faces.onnx", "models/faces.onnx"),
    "faces.model_sha256": (CHECKSUM, CHECKSUM),
    "faces.model_config_source": ("models/faces.pbtxt", "models/faces.pbtxt"),
    "faces.model_config_sha256": (CHECKSUM, CHECKSUM),
    "faces.min_score": ("0.7", 0.7),
    "faces.detect_side": ("640", 640),
    "faces.first_side": ("320", 320),
    "faces.margin": ("0.15", 0.15),
    "faces.margin_pixels": ("12", 12),
    "faces.max_extra_cut": ("0.5", 0.5),
    "faces.min_left": ("0.3", 0.3),
    "faces.too_close": ("keep", "keep"),
    "faces.fill": ("[4, 5, 6]", (4, 5, 6)),
    "resize.max_side": ("512", 512),
    "resize.size": ("[300, 400]", (300, 400)),
    "resize.padding": ("[7, 8, 9]", (7, 8, 9)),
    "resize.enlarge": ("true", True),
    "trim.method": ("variance", "variance"),
    "trim.threshold": ("251.5", 251.5),
    "trim.step": ("26.5", 26.5),
    "trim.min_side": ("0.35", 0.35),
    "trim.blur": ("11", 11),
    "encode.format": ("webp", "webp"),
    "encode.quality": ("94", 94),
    "encode.subsampling": ("'4:4:4'", "4:4:4"),
    "encode.optimize": ("true", True),
    "checks.files_sample": ("102", 102),
    "checks.min_success_rate": ("0.91", 0.91),
    "checks.fatal_success_rate": ("0.11", 0.11),
    "checks.max_duplicates": ("0.11", 0.11),
    "checks.max_products": ("12", 12),
    "checks.trim_ratio_mean": ('{"min": 0.21, "max": 0.91}', Bounds(min=0.21, max=0.91)),
    "checks.trim_ratio_p05": ('{"min": 0.06, "max": 0.92}', Bounds(min=0.06, max=0.92)),
    "checks.trim_ratio_p95": ('{"min": 0.22, "max": 0.93}', Bounds(min=0.22, max=0.93)),
    "checks.untrimmed_share": ('{"min": 0.01, "max": 0.94}', Bounds(min=0.01, max=0.94)),
    "checks.face_share": ('{"min": 0.02, "max": 0.96}', Bounds(min=0.02, max=0.96)),
    "checks.max_residual_faces": ("0.03", 0.03),
    "checks.residual_min_score": ("0.86", 0.86),
    "checks.residual_sample": ("51", 51),
    "checks.max_age_days": ("5", 5),
    "checks.drift.partitions": ("13", 13),
    "checks.drift.days": ("61", 61),
    "checks.drift.min_images": ("22", 22),
    "checks.drift.success_rate": ("0.12", 0.12),
    "checks.drift.trim_ratio_mean": ("0.13", 0.13),
    "checks.drift.untrimmed_share": ("0.23", 0.23),
    "checks.drift.face_share": ("0.24", 0.24),
    "checks.severity.every_url_has_a_raw_row": ("warn", "warn"),
    "checks.severity.raw_files_match_rows": ("warn", "warn"),
    "checks.severity.download_success_rate": ("error", "error"),
    "checks.severity.duplicate_images": ("error", "error"),
    "checks.severity.every_url_has_a_processed_row": ("warn", "warn"),
    "checks.severity.processed_files_match_rows": ("warn", "warn"),
    "checks.severity.trim_ratios": ("error", "error"),
    "checks.severity.face_removal": ("warn", "warn"),
    "checks.severity.residual_faces": ("warn", "warn"),
    "checks.severity.every_retailer_delivers": ("warn", "warn"),
    "checks.severity.drift": ("error", "error"),
    "review.max_pages": ("14", 14),
    "review.hide_faces": ("false", False),
    "review.inline": ("false", False),
}
"""A value other than the default of each option: as YAML text and as a Python value."""

WITH: Mapping[str, dict[str, str]] = {"source.kind": {"source.path": "urls.csv"}}
"""Further options that an option requires."""


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


def options_of(settings: Section, prefix: str = "") -> dict[str, object]:
    """All options of a section and its subsections, by dotted path."""
    found: dict[str, object] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Section) and not isinstance(value, Bounds):
            found |= options_of(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def nested(options: Mapping[str, object]) -> dict[str, Any]:
    """Convert options by dotted path to nested sections, as in a file."""
    result: dict[str, Any] = {}
    for path, value in options.items():
        section = result
        *sections, name = path.split(".")
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    return result


def as_environment(options: Mapping[str, str]) -> dict[str, str]:
    return {
        ENV_PREFIX + path.upper().replace(".", "__"): text.strip("'")
        for path, text in options.items()
    }


DEFAULTS = options_of(Settings())
RETAILERS = options_of(RetailerSettings())


def changed(option: str) -> tuple[dict[str, str], dict[str, object]]:
    """Texts that set an option and those it requires, and the expected values of all options."""
    texts = {**WITH.get(option, {}), option: OTHER[option][0]}
    return texts, DEFAULTS | {path: OTHER[path][1] for path in texts}


def test_every_option_is_tested_with_a_value_other_than_its_default() -> None:
    assert set(OTHER) == set(DEFAULTS)
    assert [option for option, (_, value) in OTHER.items() if value == DEFAULTS[option]] == []


@pytest.mark.parametrize("option", OTHER)
def test_an_option_can_be_set_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    texts, expected = changed(option)
    values = {path: yaml.safe_load(text) for path, text in texts.items()}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(nested(values)))
    monkeypatch.setenv("IMGASSETS_CONFIG", str(tmp_path / "mine.yaml"))
    assert options_of(load_settings()) == expected


@pytest.mark.parametrize("option", OTHER)
def test_an_option_can_be_set_by_an_environment_variable(
    monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    texts, expected = changed(option)
    for name, text in as_environment(texts).items():
        monkeypatch.setenv(name, text)
    assert options_of(load_settings()) == expected


@pytest.mark.parametrize("option", RETAILERS)
def test_an_option_can_be_set_for_one_retailer(option: str) -> None:
    text, value = OTHER[option]
    own = nested({option: yaml.safe_load(text)})
    settings = validate_settings({"retailers": {"zara": own}}, [])
    assert options_of(settings.for_retailer("zara")) == RETAILERS | {option: value}
    assert options_of(settings.for_retailer("mango")) == RETAILERS
    assert options_of(settings) == DEFAULTS | {"retailers": {"zara": own}}


def test_every_common_option_applies_to_retailers_with_and_without_overrides() -> None:
    values = {option: yaml.safe_load(text) for option, (text, _) in OTHER.items()}
    common = {option: value for option, (_, value) in OTHER.items() if option in RETAILERS}
    own = {"zara": {"trim": {"blur": 3}}, "mango": {}}
    settings = validate_settings(nested(values | {"retailers": own}), [])
    assert options_of(settings.for_retailer("zara")) == common | {"trim.blur": 3}
    assert options_of(settings.for_retailer("mango")) == common
    assert options_of(settings.for_retailer("asos")) == common


def test_several_paths_and_addresses_can_be_set_by_environment_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IMGASSETS__SOURCE__FIELDS__IMAGES", '["a", "b.c"]')
    monkeypatch.setenv("IMGASSETS__SOURCE__BASE_URL", '{"zara": "https://zara"}')
    source = load_settings().source
    assert source.fields.image_paths == ("a", "b.c")
    assert (source.base_url_of("zara"), source.base_url_of("mango")) == ("https://zara", None)


def test_one_of_two_bounds_can_be_set_without_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGASSETS__CHECKS__TRIM_RATIO_P05__MAX", "0.5")
    monkeypatch.setenv("IMGASSETS__CHECKS__UNTRIMMED_SHARE", '{"min": 0.1}')
    checks = load_settings().checks
    assert checks.trim_ratio_p05 == Bounds(min=0.05, max=0.5)
    assert checks.untrimmed_share == Bounds(min=0.1, max=0.95)


def test_these_sections_can_be_overridden_per_retailer() -> None:
    sections = {option.split(".")[0] for option in RETAILERS}
    assert sections == {
        "download",
        "decode",
        "process",
        "faces",
        "resize",
        "trim",
        "encode",
        "checks",
        "review",
    }


@pytest.mark.parametrize(
    "option",
    [
        "source.fields.updated",
        "source.retailer",
        "source.date_format",
        "source.separator",
        "source.base_url",
        "source.path",
        "source.encoding",
        "source.delimiter",
        "source.function",
        "download.auth",
        "download.proxy",
        "download.rate_per_host",
        "download.shared_limits",
        "faces.model_sha256",
        "faces.model_config_sha256",
        "faces.first_side",
        "faces.margin_pixels",
        "resize.max_side",
        "resize.size",
        "checks.files_sample",
    ],
)
def test_null_is_accepted_by_optional_options(option: str) -> None:
    settings = validate_settings(nested({option: None}), [])
    assert options_of(settings) == DEFAULTS | {option: None}


def test_these_options_are_null_by_default() -> None:
    off = {option for option, default in DEFAULTS.items() if default is None}
    assert off == {
        "executor",
        "source.fields.updated",
        "source.retailer",
        "source.date_format",
        "source.separator",
        "source.base_url",
        "source.path",
        "source.encoding",
        "source.delimiter",
        "source.function",
        "download.auth",
        "download.proxy",
        "download.rate_per_host",
        "process.processes",
        "download.shared_limits",
        "faces.model_sha256",
        "faces.model_config_sha256",
        "faces.margin_pixels",
        "resize.size",
    }


ABOVE_ZERO = ([0.001], [0, -1])
NOT_NEGATIVE = ([0], [-1])
SHARE = ([0, 1], [-0.001, 1.001])
FROM_ONE = ([1], [0])
SIDE = ([1, 16384], [0, 16385])
COLOUR = ([[0, 0, 0], [255, 255, 255]], [[-1, 0, 0], [0, 0, 256], [0, 0], [0, 0, 0, 0]])
CHECKSUMS = ([CHECKSUM], [CHECKSUM[1:], CHECKSUM + "0", CHECKSUM.upper(), "g" * 64])
SEVERITY = (["warn", "error"], ["info", None])
BOUNDS = ([{"min": 0.5, "max": 0.5}], [{"min": 0.6, "max": 0.5}, {"least": 0.1}, 0.5])

LIMITS: Mapping[str, tuple[list[Any], list[Any]]] = {
    "data_root": (["x"], ["", None]),
    "start_date": (["1999-12-31"], ["31.12.1999"]),
    "partitions.period": (["day", "week", "month"], ["year", "7", None]),
    "owners": ([[], ["team:a"], ["a.b+c%d@e-f.example"]], [["a"], "team:a"]),
    "source.kind": (["mongodb"], ["sql", None]),
    "source.database": (["x", "*", "x_*"], ["", "*_*"]),
    "source.collection": (
        ["x", "a.b", "x_*_y", {"a b": "x", "c": "y.x"}],
        ["", "**", None, [], {"?": "x"}, {"a": ""}, {"a": "*"}, {"a": "x", "b": "x"}, {"a": None}],
    ),
    "source.retailer": (["x", "X & Y", "7"], ["", "?!", 7]),
    "source.retailer_aliases": ([{}, {"X Y": "x", "x-y": "x"}], [{"?": "x"}, {"x": "X"}, ["x"]]),
    "source.fields.images": (["a.b", ["a"], ["a", "b.c"]], [[], "", 3, [3], [""], None]),
    "source.separator": ([" | "], ["", 3, [","]]),
    "source.base_url": (
        ["http://a", "https://a/b?c", {"a-b": "https://a"}],
        ["shop.com", "//shop", "ftp://a", "https:///a", {"A": "https://a"}, {"a": "b"}, 3],
    ),
    "source.encoding": (["utf-16", "cp1252"], ["utf-99", "base64", ""]),
    "source.delimiter": ([","], ["", ",,"]),
    "source.query": ([{}], [[], "x"]),
    "source.date_format": (["%d/%m/%y", "%Y-%m-%d %H:%M %z"], ["", "%d/%m", "%Q", "%H:%M"]),
    "source.function": (["a.b", "a.b_2.c"], ["a", ".b", "a.", "a..b", "a-b.c", "a.b "]),
    "sensor.interval_s": FROM_ONE,
    "sensor.method": (["auto", "stream", "poll"], ["watch"]),
    "sensor.start_from": (["now", "everything"], ["today"]),
    "sensor.settle_s": NOT_NEGATIVE,
    "sensor.max_wait_s": NOT_NEGATIVE,
    "sensor.overlap_s": NOT_NEGATIVE,
    "sensor.max_runs": ([1, 1000], [0, 1001]),
    "download.client": (["curl", "requests"], ["wget"]),
    "download.threads": ([1, 512], [0, 513]),
    "download.connect_timeout_s": ABOVE_ZERO,
    "download.read_timeout_s": ABOVE_ZERO,
    "download.total_timeout_s": ABOVE_ZERO,
    "process.timeout_s": ABOVE_ZERO,
    "process.processes": ([None, 1, 512], [0, 513]),
    "process.shard_size": FROM_ONE,
    "download.retries": ([0, 20], [-1, 21]),
    "download.backoff_s": NOT_NEGATIVE,
    "download.backoff_max_s": NOT_NEGATIVE,
    "download.min_bytes": NOT_NEGATIVE,
    "download.max_bytes": FROM_ONE,
    "download.max_pixels": FROM_ONE,
    "download.min_pixels": NOT_NEGATIVE,
    "download.max_redirects": ([0, 20], [-1, 21]),
    "download.user_agent": (["x"], [""]),
    "download.headers": ([{"A": "b"}], [{"A": 1}, ["A"]]),
    "download.auth": (
        ["basic a:b", "bearer t"],
        ["Basic a:b", "basic ", "digest a:b", "a:b", "no basic a:b"],
    ),
    "download.proxy": (["http://p", "https://p:1"], ["p:1", "socks5://p", "ahttp://p"]),
    "download.per_host": ([1, 512], [0, 513]),
    "download.rate_per_host": ABOVE_ZERO,
    "download.shared_limits": (
        ["redis://a", "rediss://:${P}@a:1/2", "unix:///a"],
        ["a:6379", "http://a", "aredis://a"],
    ),
    "download.retry_after_max_s": NOT_NEGATIVE,
    "download.crawl_delay_max_s": ([0, 86_400], [-0.1, 86_401]),
    "download.breaker_failures": NOT_NEGATIVE,
    "download.breaker_cooldown_s": ABOVE_ZERO,
    "download.max_refusals": NOT_NEGATIVE,
    "download.opt_outs": (
        [[], ["noml", "content-usage"]],
        [["robots"], ["content_usage"], "noai", True],
    ),
    "download.shard_size": FROM_ONE,
    "download.reuse_days": ([0, 3660], [-1, 3661]),
    "download.revalidate_after_days": ([0, 3660], [-0.1, 3660.1]),
    "decode.background": COLOUR,
    "decode.max_pixels": ([1, 89_000_000], [0, 89_000_001]),
    "process.steps": (
        [[], ["trim"], ["resize", "remove_face"], ["a.b", "trim"]],
        [["trim", "trim"], ["sharpen"], ["a."], ["trim "], "trim"],
    ),
    "faces.action": (["crop", "blur", "pixelate", "fill", "none"], ["black"]),
    "faces.model": (["yunet", "res10"], ["haar"]),
    "faces.model_source": (["x"], [""]),
    "faces.model_sha256": CHECKSUMS,
    "faces.model_config_source": (["x"], [""]),
    "faces.model_config_sha256": CHECKSUMS,
    "faces.min_score": SHARE,
    "faces.detect_side": ([64, 4096], [63, 4097]),
    "faces.first_side": ([64, 4096], [63, 4097]),
    "faces.margin": SHARE,
    "faces.margin_pixels": NOT_NEGATIVE,
    "faces.max_extra_cut": NOT_NEGATIVE,
    "faces.min_left": SHARE,
    "faces.too_close": (["skip", "keep", "blur"], ["crop"]),
    "faces.fill": COLOUR,
    "resize.max_side": SIDE,
    "resize.size": ([[1, 16384], [16384, 1]], [[0, 1], [1, 0], [1, 16385], [1], 1]),
    "resize.padding": COLOUR,
    "trim.method": (["background", "variance", "none"], ["edges"]),
    "trim.threshold": ABOVE_ZERO,
    "trim.step": ABOVE_ZERO,
    "trim.min_side": SHARE,
    "trim.blur": ([1, 99], [-1, 0, 2, 98, 101]),
    "encode.format": (["jpeg", "png", "webp", "served"], ["jpg"]),
    "encode.quality": ([1, 100], [0, 101]),
    "encode.subsampling": (["4:4:4", "4:2:0"], ["4:2:2"]),
    "checks.files_sample": NOT_NEGATIVE,
    "checks.min_success_rate": SHARE,
    "checks.fatal_success_rate": SHARE,
    "checks.max_duplicates": SHARE,
    "checks.max_products": FROM_ONE,
    "checks.trim_ratio_mean": BOUNDS,
    "checks.trim_ratio_p05": BOUNDS,
    "checks.trim_ratio_p95": BOUNDS,
    "checks.untrimmed_share": BOUNDS,
    "checks.face_share": BOUNDS,
    "checks.max_residual_faces": SHARE,
    "checks.residual_min_score": SHARE,
    "checks.residual_sample": NOT_NEGATIVE,
    "checks.max_age_days": NOT_NEGATIVE,
    "checks.drift.partitions": ([5], [4]),
    "checks.drift.days": ([1, 3660], [0, 3661]),
    "checks.drift.min_images": FROM_ONE,
    "checks.drift.success_rate": SHARE,
    "checks.drift.trim_ratio_mean": SHARE,
    "checks.drift.untrimmed_share": SHARE,
    "checks.drift.face_share": SHARE,
    **{option: SEVERITY for option in DEFAULTS if option.startswith("checks.severity.")},
    "review.max_pages": ([0, 999], [-1, 1000]),
    "ui_path_prefix": (["", "/a", "/a-1/b.c~d"], ["a", "/", "/a/", "//a", "/a b", "/a)", "/a?b"]),
    "executor": (["a.b", "a.b_1.c"], ["", "a", "a.", ".a", "a b.c"]),
    "executor_config": ([{}, {"a": {"b": 1}}], ["", [], 1]),
    "retailers": (
        [{"a-1-b": {"trim": {}}}],
        [{"A": {}}, {"a b": {}}, {"-a": {}}, {"a": {"source": {}}}, {"a": {"trim": {"blur": 2}}}],
    ),
}
"""By option: accepted values at the limits, and rejected values."""

WITHOUT_LIMITS = {
    *(option for option, default in DEFAULTS.items() if isinstance(default, bool)),
    *(o for o in DEFAULTS if o.startswith("source.fields.") and o != "source.fields.images"),
    "source.path",
}


def test_the_limits_of_every_option_are_tested() -> None:
    assert set(LIMITS) == set(DEFAULTS) - WITHOUT_LIMITS


@pytest.mark.parametrize("option", LIMITS)
def test_an_option_accepts_values_up_to_its_limits_and_rejects_others(option: str) -> None:
    accepted, rejected = LIMITS[option]
    for value in accepted:
        settings = validate_settings(nested({option: value}), [])
        found: Any = settings.model_dump(mode="json")
        for part in option.split("."):
            found = found[part]
        assert found == value
    for value in rejected:
        with pytest.raises(SettingsError, match=rf"settings: {re.escape(option)}\b"):
            validate_settings(nested({option: value}), [])


@pytest.mark.parametrize(
    "option", [option for option, default in DEFAULTS.items() if not isinstance(default, bool)]
)
def test_options_that_are_not_boolean_reject_booleans(option: str) -> None:
    for value in (True, False):
        with pytest.raises(SettingsError, match=r"got (True|False); input should "):
            validate_settings(nested({option: value}), [])


def test_settings_are_immutable() -> None:
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.download.threads = 3  # type: ignore[misc]
    assert settings.download.threads == 32


def test_default_yaml_is_up_to_date() -> None:
    assert (project_root() / "config" / "default.yaml").read_text() == as_yaml()


def test_every_option_has_a_description() -> None:
    assert "None" not in [line.split("#")[-1].strip() for line in as_yaml().splitlines()]


def test_a_retailer_has_the_common_options_except_for_its_overrides() -> None:
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
