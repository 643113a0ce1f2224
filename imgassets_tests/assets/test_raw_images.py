"""`raw_images` run by Dagster: what its configuration changes, and what it shows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from PIL import Image

from imgassets.definitions import build_defs
from imgassets.demo.server import CatalogueServer
from imgassets.manifests import RAW_IMAGES, RawRow, UrlRow, from_table, to_table
from imgassets.storage import Storage, read_table, write_table
from imgassets_tests.rows import PARTITION, url_row


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[CatalogueServer]:
    folder = tmp_path / "shop"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (40, 30), (number * 80, 0, 0)).save(folder / f"{number}.jpg")
    (folder / "page.jpg").write_text("<!doctype html><title>no picture</title>")
    with CatalogueServer(folder) as server:
        yield server


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("retailer", [PARTITION.retailer])
        yield instance


def materialize(
    instance: dg.DagsterInstance,
    storage: Storage,
    shop: CatalogueServer,
    *,
    download: dict[str, Any] | None = None,
    **config: Any,
) -> tuple[dg.ExecuteInProcessResult, list[RawRow]]:
    names = ["0.jpg", "1.jpg", "2.jpg", "page.jpg", "absent.jpg"]
    urls = [url_row(number, url=f"{shop.url}/{name}") for number, name in enumerate(names)]
    write_table(storage.partition("url_list", *PARTITION), to_table(urls, UrlRow))
    job = dg.define_asset_job("job", selection=["raw_images"])
    defs = dg.Definitions.merge(build_defs(), dg.Definitions(jobs=[job]))
    quick = {"allow_private_addresses": True, "retries": 0, "robots": False}
    overrides = {"download": quick | (download or {})}
    result = defs.resolve_job_def("job").execute_in_process(
        instance=instance,
        partition_key=PARTITION.key,
        raise_on_error=False,
        run_config={
            "resources": {"settings": {"config": {"overrides": overrides}}},
            "ops": {"raw_images": {"config": config}},
        },
    )
    folder = storage.partition("raw_images", *PARTITION)
    rows = from_table(read_table(folder), RawRow) if result.success else []
    return result, rows


def test_what_the_page_plots_are_numbers_and_columns_are_explained(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    result, _ = materialize(instance, storage, shop)
    (event,) = result.asset_materializations_for_node("raw_images.collect_manifest")
    for name in ("success rate", "outcome/ok", "bytes", "this run/images per second"):
        assert isinstance(event.metadata[name], dg.IntMetadataValue | dg.FloatMetadataValue)
    for name in ("manifest", "pictures as served"):
        assert Path(str(event.metadata[name].value)).exists()
    columns = {column.name: column for column in shown(result)["dagster/column_schema"].columns}
    assert [*columns] == RAW_IMAGES.names
    assert columns["outcome"].type == "string"
    assert columns["outcome"].constraints.nullable is False
    assert columns["elapsed_ms"].type == "int64"
    assert columns["http_status"].description == (
        "Status of the last answer; none where no answer came."
    )


def shown(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node("raw_images.collect_manifest")
    return {name: value.value for name, value in event.metadata.items()}


@pytest.mark.parametrize(("size", "shards"), [(5, 1), (2, 3)])
def test_urls_are_cut_into_shards_of_the_size_that_is_set(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer, size: int, shards: int
) -> None:
    result, rows = materialize(instance, storage, shop, download={"shard_size": size})
    steps = {event.step_key for event in result.all_events if event.is_step_success}
    assert sum(str(step).startswith("raw_images.download_shard[") for step in steps) == shards
    assert len(rows) == 5


def test_a_run_shows_what_happened(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    result, rows = materialize(instance, storage, shop)
    assert [str(row.outcome) for row in rows] == ["ok"] * 3 + ["not_an_image", "http_error"]
    metadata = shown(result)
    assert metadata["outcome/ok"] == 3
    assert metadata["success rate"] == pytest.approx(0.6)
    assert metadata["this run/pictures"] == 3
    assert metadata["dagster/row_count"] == 5
    assert "| ok | 3 | " + "█" * 40 + " |" in metadata["outcomes"]
    assert "| http_error | 404 | 1 | " in metadata["failures"]
    assert f"127.0.0.1:{shop.port}" in metadata["slowest hosts"]


@pytest.mark.parametrize(
    ("config", "asked"),
    [
        ({}, {"/page.jpg", "/absent.jpg"}),
        ({"retry": ["failed"]}, {"/page.jpg", "/absent.jpg"}),
        ({"retry": ["http_error", "timeout"]}, {"/absent.jpg"}),
        ({"retry": []}, set()),
        (
            {"refresh": True, "retry": []},
            {"/0.jpg", "/1.jpg", "/2.jpg"},
        ),
    ],
)
def test_a_second_run_asks_only_for_what_its_configuration_says(
    instance: dg.DagsterInstance,
    storage: Storage,
    shop: CatalogueServer,
    config: dict[str, Any],
    asked: set[str],
) -> None:
    _, before = materialize(instance, storage, shop)
    shop.requests.clear()
    result, after = materialize(instance, storage, shop, **config)
    assert set(shop.requests) == asked
    assert [(row.key, row.outcome, row.sha256) for row in after] == [
        (row.key, row.outcome, row.sha256) for row in before
    ]
    if config.get("refresh"):
        assert shown(result)["this run/unchanged"] == 3


def test_an_outcome_that_does_not_exist_is_told(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    result, _ = materialize(instance, storage, shop, retry=["http-error"])
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    error = failure.step_failure_data.user_failure_data
    assert error is not None
    assert "raw_images: retry: got 'http-error'; allowed: failed, ok, " in str(error.description)
