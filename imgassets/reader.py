"""Read the manifests of many partitions as one data frame, with the addresses of the files."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from imgassets.configuration import load_settings
from imgassets.errors import SettingsError, StorageError
from imgassets.manifests import (
    OUTCOMES,
    PROCESSED_IMAGES,
    RAW_IMAGES,
    SCHEMA_VERSION,
    URL_LIST,
)
from imgassets.periods import MAX_DAYS
from imgassets.storage import MANIFESTS, PartitionFiles, Storage, list_manifests, storage_at

_SCHEMAS = {
    "url_list": URL_LIST,
    "raw_images": RAW_IMAGES,
    "processed_images": PROCESSED_IMAGES,
}
_THREADS = 32
# Without them, a column's dtype would depend on whether one of the selected rows has a null.
_DTYPES = {
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}


def read_manifest(
    asset: str,
    *,
    data_root: str | None = None,
    retailer: str | Sequence[str] | None = None,
    start: dt.date | str | None = None,
    end: dt.date | str | None = None,
    outcome: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Read the matching rows of an asset, sorted by retailer and partition.

    Args:
        asset: `url_list`, `raw_images` or `processed_images`.
        data_root: A folder, relative to the project folder or absolute, or an fsspec address such
            as `s3://bucket/prefix`; `None` for the one in the settings.
        retailer: Slug or slugs of retailers; `None` for all.
        start: First day, as a date or `YYYY-MM-DD`; `None` for the first that there is. Of a week
            or month that has other days, too, only the rows of the selected days are read.
        end: Last day, inclusive, as a date or `YYYY-MM-DD`; `None` for the last that there is.
        outcome: Outcome or outcomes, such as `ok`, of which to read the rows; `None` for all.

    Returns:
        All columns of the manifest, see `docs/data-contract.md`, and for `raw_images` and
        `processed_images` the column `address`: the path of the row's file as an absolute local
        path or an fsspec address, null where `path` is. Days are `datetime64`; integers and
        booleans are pandas' nullable dtypes, so that dtypes do not depend on the selection. If no
        row matches, the frame is empty and has the same columns and dtypes.

    Raises:
        SettingsError: An argument is not valid, or the settings that name the data root are not.
        StorageError: There is no manifest of the asset or of a retailer, a manifest is broken or of
            another version, or the storage is not reachable or not readable.
        FileNotFoundError: A manifest was deleted meanwhile.
    """
    if asset not in _SCHEMAS:
        raise SettingsError(f"there is no asset {asset!r} with manifests; {_choice(_SCHEMAS)}")
    first = _day("start", start) or dt.date.min
    last = _day("end", end) or dt.date.max
    if first > last:
        raise SettingsError(f"start, {first}, is after end, {last}; exchange them")
    outcomes = _outcomes(asset, outcome)
    storage = storage_at(load_settings().data_root if data_root is None else data_root)
    partitions = _of_days(_partitions(storage, asset, _listed(retailer)), first, last)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="read_manifest") as pool:
        tables = pool.map(
            lambda partition: _read(partition, asset, outcomes, first, last), partitions
        )
        table = pa.concat_tables(
            [_SCHEMAS[asset].empty_table(), *tables], promote_options="default"
        )
    if "path" in table.column_names:
        addresses = pc.binary_join_element_wise(storage.address(""), table["path"], "")
        table = table.append_column("address", addresses)
    frame: pd.DataFrame = table.to_pandas(
        date_as_object=False, types_mapper=_DTYPES.get, use_threads=False
    )
    return frame


def _choice(names: Iterable[str]) -> str:
    return f"choose one of: {', '.join(names)}"


def _listed(value: str | Sequence[str] | None) -> Sequence[str] | None:
    return [value] if isinstance(value, str) else value


def _day(name: str, value: dt.date | str | None) -> dt.date | None:
    if value is None:
        return None
    try:
        return dt.date.fromisoformat(value if isinstance(value, str) else f"{value:%Y-%m-%d}")
    except ValueError as error:
        raise SettingsError(
            f"{name} is {value!r}: {error}; write a day as YYYY-MM-DD, for example 2026-01-31"
        ) from None


def _outcomes(asset: str, outcome: str | Sequence[str] | None) -> pa.Array | None:
    words = _listed(outcome)
    if words is None:
        return None
    if asset == "url_list":
        raise SettingsError("url_list has no outcomes; read raw_images or processed_images")
    if unknown := [word for word in words if word not in OUTCOMES]:
        raise SettingsError(f"there is no outcome {unknown[0]!r}; {_choice(OUTCOMES)}")
    return pa.array(words, pa.string())


def _partitions(
    storage: Storage, asset: str, retailers: Sequence[str] | None
) -> list[PartitionFiles]:
    """The partitions of an asset, of some retailers or of all."""
    found = list_manifests(storage, asset)
    if not found:
        assets = [name for name in _SCHEMAS if list_manifests(storage, name)]
        raise StorageError(
            f"{storage.address(MANIFESTS)} has no manifests of {asset}; it has manifests of: "
            f"{', '.join(assets) or 'none'}"
        )
    if retailers is None:
        return found
    slugs = {partition.retailer for partition in found}
    if missing := [slug for slug in retailers if slug not in slugs]:
        raise StorageError(
            f"{storage.address(f'{MANIFESTS}/{asset}')} has no manifest of the retailer "
            f"{missing[0]!r}; there are: {', '.join(sorted(slugs))}"
        )
    return [partition for partition in found if partition.retailer in retailers]


def _of_days(
    partitions: Sequence[PartitionFiles], first: dt.date, last: dt.date
) -> list[PartitionFiles]:
    """The partitions that can have rows of the days from the first to the last one.

    The name of a manifest does not say how many days it has. So the newest partition of a retailer
    before the first day is one of them, unless even a month would end too early.
    """
    found = []
    for partition, following in zip_longest(partitions, partitions[1:]):
        day = dt.date.fromisoformat(partition.date)
        if day < first and (
            (first - day).days >= MAX_DAYS
            or (
                following is not None
                and following.retailer == partition.retailer
                and dt.date.fromisoformat(following.date) <= first
            )
        ):
            continue
        if day <= last:
            found.append(partition)
    return found


def _read(
    partition: PartitionFiles,
    asset: str,
    outcomes: pa.Array | None,
    first: dt.date,
    last: dt.date,
) -> pa.Table:
    table = partition.read_manifest(asset)
    version = (table.schema.metadata or {}).get(b"imgassets.schema_version", b"none").decode()
    if version != str(SCHEMA_VERSION):
        raise StorageError(
            f"{partition.storage.address(partition.manifest(asset))} has schema version {version}, "
            f"but this version of imgassets reads {SCHEMA_VERSION}; materialize its partition "
            "again, or install the version of imgassets that wrote it"
        )
    is_selected = pc.and_(
        pc.greater_equal(table["date"], first), pc.less_equal(table["date"], last)
    )
    if outcomes is not None:
        is_selected = pc.and_(is_selected, pc.is_in(table["outcome"], outcomes))
    return table.filter(is_selected)
