"""Tests of `imgassets.read_manifest`."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pytest

import imgassets
from imgassets.configuration import load_settings
from imgassets.errors import SettingsError, StorageError
from imgassets.manifests import PROCESSED_IMAGES, RAW_IMAGES, URL_LIST
from imgassets.storage import Storage, storage_at
from imgassets_tests.data_root import write_data_root

SCHEMAS = {
    "url_list": URL_LIST,
    "raw_images": RAW_IMAGES,
    "processed_images": PROCESSED_IMAGES,
}


@pytest.fixture
def data_root(tmp_path: Path) -> str:
    """A local data root with four partitions."""
    write_data_root(Storage(str(tmp_path)))
    return str(tmp_path)


def keys(frame: pd.DataFrame) -> list[str]:
    """The rows of a frame, as retailer, day of the month and key."""
    return [f"{row.retailer} {row.date:%d} {row.key}" for row in frame.itertuples(index=False)]


ALL = ["hm 02 a", "hm 02 f", "zara 02 a", "zara 02 b", "zara 02 c", "zara 02 d"]
ALL += ["zara 03 a", "zara 03 e"]


@pytest.mark.parametrize("asset", SCHEMAS)
def test_all_rows_are_read_with_all_columns_by_retailer_and_date(
    data_root: str, asset: str
) -> None:
    frame = imgassets.read_manifest(asset, data_root=data_root)
    assert keys(frame) == ALL
    addresses = [] if asset == "url_list" else ["address"]
    assert list(frame.columns) == [*SCHEMAS[asset].names, *addresses]
    assert list(frame.index) == list(range(len(ALL)))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"retailer": "hm"}, ALL[:2]),
        ({"retailer": ["hm", "zara"]}, ALL),
        ({"retailer": []}, []),
        ({"start": "2026-01-03"}, ALL[6:]),
        ({"end": dt.date(2026, 1, 2)}, ALL[:6]),
        ({"end": "20260102"}, ALL[:6]),
        ({"start": "2026-01-02", "end": "2026-01-02", "retailer": "zara"}, ALL[2:6]),
        ({"start": pd.Timestamp("2026-01-02 23:59"), "end": "2026-01-03"}, ALL),
        ({"outcome": "ok"}, [*ALL[:1], *ALL[2:4], *ALL[5:7]]),
        ({"outcome": ("no_raw", "failed")}, [ALL[1], ALL[4], ALL[7]]),
        ({"outcome": "timeout"}, []),  # an outcome of downloads
        ({"outcome": "ok", "retailer": "zara", "start": "2026-01-03"}, ["zara 03 a"]),
        ({"start": "2027-01-01"}, []),
        ({"end": "2025-12-31"}, []),
    ],
)
def test_filters_select_rows(
    data_root: str, arguments: dict[str, Any], expected: list[str]
) -> None:
    frame = imgassets.read_manifest("processed_images", data_root=data_root, **arguments)
    assert keys(frame) == expected


@pytest.mark.parametrize("arguments", [{"start": "2027-01-01"}, {"outcome": "ok"}])
def test_dtypes_do_not_depend_on_the_selected_rows(
    data_root: str, arguments: dict[str, Any]
) -> None:
    every = imgassets.read_manifest("processed_images", data_root=data_root)
    some = imgassets.read_manifest("processed_images", data_root=data_root, **arguments)
    pd.testing.assert_series_equal(some.dtypes, every.dtypes)


def test_days_compare_with_text_and_numbers_stay_integers(data_root: str) -> None:
    raw = imgassets.read_manifest("raw_images", data_root=data_root)
    assert keys(raw[raw["date"] >= "2026-01-03"]) == ALL[6:]
    assert keys(raw[raw["reused_from"] == "2026-01-02"]) == ["zara 03 a"]
    assert raw["bytes"].sum() == sum(
        Path(address).stat().st_size for address in raw["address"].dropna()
    )
    assert raw.loc[1, "bytes"] is pd.NA
    fetched_at = pd.Timestamp("2026-01-02 03:04:05.678", tz="UTC")
    assert list(raw["fetched_at"].dropna().unique()) == [fetched_at]


def test_null_booleans_are_neither_true_nor_false(data_root: str) -> None:
    made = imgassets.read_manifest("processed_images", data_root=data_root)
    assert len(made[made["face_removed"]]) == 5
    assert len(made[~made["face_removed"]]) == 0


def test_raw_and_processed_rows_join_on_retailer_date_and_key(data_root: str) -> None:
    raw, made = (
        imgassets.read_manifest(asset, data_root=data_root)
        for asset in ("raw_images", "processed_images")
    )
    both = raw.merge(made, on=["retailer", "date", "key"], suffixes=("_raw", "_made"))
    assert keys(both) == ALL
    pd.testing.assert_series_equal(both["path_raw"], both["raw_path"], check_names=False)


def assert_addresses_open(frame: pd.DataFrame) -> None:
    """Assert that the address of each `ok` row opens, and is null in the others."""
    assert list(frame["address"].notna()) == list(frame["outcome"] == "ok")
    for row in frame[frame["outcome"] == "ok"].itertuples():
        with fsspec.open(row.address, "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == row.sha256


@pytest.mark.parametrize("asset", ["raw_images", "processed_images"])
def test_local_addresses_are_absolute_and_open(data_root: str, asset: str) -> None:
    frame = imgassets.read_manifest(asset, data_root=data_root)
    assert all(Path(address).is_absolute() for address in frame["address"].dropna())
    assert_addresses_open(frame)


@pytest.mark.parametrize("asset", ["raw_images", "processed_images"])
def test_addresses_in_an_object_store_open(s3: str, asset: str) -> None:
    root = f"s3://{s3}/some/prefix"
    write_data_root(storage_at(root))
    frame = imgassets.read_manifest(asset, data_root=f"{root}/")
    assert keys(frame) == ALL
    assert frame["address"].dropna().str.startswith(f"{root}/images/").all()
    assert_addresses_open(frame)


def test_an_object_store_has_the_same_rows_as_a_disk(s3: str, data_root: str) -> None:
    write_data_root(storage_at(f"s3://{s3}"))
    local, remote = (
        imgassets.read_manifest("raw_images", data_root=root, start="2026-01-03")
        for root in (data_root, f"s3://{s3}")
    )
    pd.testing.assert_frame_equal(local.drop(columns="address"), remote.drop(columns="address"))


def test_without_a_data_root_that_of_the_settings_is_read(
    data_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGASSETS__DATA_ROOT", data_root)
    load_settings.cache_clear()
    try:
        assert keys(imgassets.read_manifest("raw_images", retailer="hm")) == ALL[:2]
    finally:
        load_settings.cache_clear()


def test_a_column_that_an_older_manifest_lacks_is_null_in_its_rows(data_root: str) -> None:
    partition = storage_at(data_root).partition("2026-01-02", "hm")
    table = partition.read_manifest("raw_images")
    partition.write_manifest("raw_images", table.drop_columns(["etag", "width"]))
    frame = imgassets.read_manifest("raw_images", data_root=data_root)
    assert list(frame["width"].isna()) == [True, True, False, False, True, False, False, False]
    assert list(frame.columns) == [*RAW_IMAGES.names, "address"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"asset": "images"},
            "there is no asset 'images' with manifests; "
            "choose one of: url_list, raw_images, processed_images",
        ),
        ({"outcome": "okay"}, "there is no outcome 'okay'; choose one of: ok, invalid_url, "),
        ({"outcome": ["ok", "404"]}, "there is no outcome '404'; choose one of: ok, "),
        (
            {"asset": "url_list", "outcome": "ok"},
            "url_list has no outcomes; read raw_images or processed_images",
        ),
        (
            {"start": "2026-02-30"},
            "start is '2026-02-30': day is out of range for month; "
            "write a day as YYYY-MM-DD, for example 2026-01-31",
        ),
        ({"end": "yesterday"}, "end is 'yesterday': Invalid isoformat string: 'yesterday'; write"),
        ({"end": 20260102}, "end is 20260102: "),
        (
            {"start": "2026-01-03", "end": dt.date(2026, 1, 2)},
            "start, 2026-01-03, is after end, 2026-01-02; exchange them",
        ),
    ],
)
def test_an_invalid_argument_is_named_with_what_is_allowed(
    data_root: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError) as error:
        imgassets.read_manifest(**{"asset": "raw_images", "data_root": data_root} | arguments)
    assert str(error.value).startswith(message)


def test_the_error_for_an_unknown_retailer_names_those_that_there_are(data_root: str) -> None:
    with pytest.raises(StorageError) as error:
        imgassets.read_manifest("raw_images", data_root=data_root, retailer=["zara", "mango"])
    assert str(error.value) == (
        f"{data_root}/manifests/raw_images has no manifest of the retailer 'mango'; "
        "there are: hm, zara"
    )


def test_the_error_for_an_asset_without_manifests_names_the_assets_that_have_some(
    tmp_path: Path,
) -> None:
    folder = f"{tmp_path}/manifests"
    with pytest.raises(StorageError) as error:
        imgassets.read_manifest("raw_images", data_root=str(tmp_path))
    assert str(error.value) == (
        f"{folder} has no manifests of raw_images; it has manifests of: none"
    )
    write_data_root(storage_at(str(tmp_path)))
    for file in Path(folder, "raw_images").iterdir():
        file.unlink()
    with pytest.raises(StorageError, match=r"manifests of: url_list, processed_images$"):
        imgassets.read_manifest("raw_images", data_root=str(tmp_path))


@pytest.mark.parametrize(
    ("metadata", "named"), [({"imgassets.schema_version": "3"}, "3"), ({}, "none")]
)
def test_a_manifest_of_another_schema_version_is_an_error_that_names_it(
    data_root: str, metadata: dict[str, str], named: str
) -> None:
    table = pa.table({"key": ["a"]}).replace_schema_metadata(metadata)
    storage_at(data_root).partition("2026-01-03", "hm").write_manifest("raw_images", table)
    with pytest.raises(StorageError) as error:
        imgassets.read_manifest("raw_images", data_root=data_root)
    assert str(error.value).startswith(
        f"{data_root}/manifests/raw_images/hm.2026-01-03.parquet has schema version {named}, "
        "but this version of imgassets reads 2; materialize its partition again, "
    )


def test_a_broken_manifest_is_an_error_that_names_it(data_root: str) -> None:
    file = Path(data_root, "manifests/raw_images/hm.2026-01-03.parquet")
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(StorageError, match=r"hm\.2026-01-03\.parquet is broken"):
        imgassets.read_manifest("raw_images", data_root=data_root)


def test_a_partition_before_the_selected_days_is_read_only_if_it_can_have_one_of_them(
    data_root: str,
) -> None:
    manifest = Path(data_root) / "manifests" / "raw_images" / "zara.2026-01-03.parquet"
    manifest.write_bytes(b"broken")

    def read(start: str) -> pd.DataFrame:
        return imgassets.read_manifest("raw_images", data_root=data_root, start=start)

    # The 31 days from 3 January end on 2 February.
    with pytest.raises(StorageError, match=r"zara\.2026-01-03"):
        read("2026-02-02")
    assert read("2026-02-03").empty
