"""`processed_images` run by Dagster after `raw_images`, on pictures from a real server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from imgassets.definitions import build_defs
from imgassets.demo.server import CatalogueServer
from imgassets.folders import project_root
from imgassets.manifests import PROCESSED_IMAGES, ProcessedRow, UrlRow, from_table, to_table
from imgassets.storage import Storage, read_table, write_table
from imgassets_tests.rows import PARTITION, url_row

PHOTOS = project_root() / "imgassets" / "demo" / "photos"
NAMES = ("portrait_a.jpg", "cutout_c.jpg", "cutout_no_head.jpg")


@pytest.fixture
def shop() -> Iterator[CatalogueServer]:
    with CatalogueServer(PHOTOS) as server:
        yield server


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("retailer", [PARTITION.retailer])
        yield instance


def materialize(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer, **options: Any
) -> tuple[dg.ExecuteInProcessResult, list[ProcessedRow]]:
    urls = [url_row(number, url=f"{shop.url}/{name}") for number, name in enumerate(NAMES)]
    write_table(storage.partition("url_list", *PARTITION), to_table(urls, UrlRow))
    job = dg.define_asset_job("job", selection=["raw_images", "processed_images"])
    defs = dg.Definitions.merge(build_defs(), dg.Definitions(jobs=[job]))
    overrides = {"download": {"allow_private_addresses": True, "robots": False}, **options}
    result = defs.resolve_job_def("job").execute_in_process(
        instance=instance,
        partition_key=PARTITION.key,
        raise_on_error=False,
        run_config={"resources": {"settings": {"config": {"overrides": overrides}}}},
    )
    folder = storage.partition("processed_images", *PARTITION)
    return result, from_table(read_table(folder), ProcessedRow) if result.success else []


def test_a_run_shows_its_figures_and_pictures(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    result, rows = materialize(instance, storage, shop)
    (event,) = result.asset_materializations_for_node("processed_images")
    metadata: dict[str, Any] = {name: value.value for name, value in event.metadata.items()}
    assert [row.face_count for row in rows] == [1, 1, 0]
    assert metadata["faces found"] == metadata["faces removed"] == 2
    assert metadata["dagster/row_count"] == 3
    assert str(metadata["contact sheet"]).startswith("![](data:image/jpeg;base64,/9j/")
    assert str(metadata["histograms"]).startswith("![](data:image/png;base64,iVBOR")
    assert len(str(metadata["contact sheet"])) < 300_000
    folder = storage.partition("processed_images", *PARTITION)
    assert [column.name for column in metadata["dagster/column_schema"].columns] == (
        PROCESSED_IMAGES.names
    )
    assert next(iter(metadata)) == "contact sheet"
    # What the page plots must be numbers.
    for name in ("pictures", "trim ratio/mean", "trim ratio/p95", "outcome/ok"):
        assert isinstance(event.metadata[name], dg.IntMetadataValue | dg.FloatMetadataValue)
    for name in ("manifest", "pictures made", "contact sheet, file", "full size"):
        assert isinstance(event.metadata[name], dg.PathMetadataValue)
        assert Path(metadata[name]).exists()
    page = f"{folder.address}/review/page_001.jpg"
    assert page in str(metadata["full-size contact sheets"])
    assert metadata["full size"] == f"{folder.address}/review"
    assert Path(page).is_file()
    assert Path(f"{folder.address}/review/histograms.png").is_file()
    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert len(checks) == 9
    assert all(checks.values())


@pytest.mark.parametrize("pages", [0, 1])
def test_as_many_full_size_pages_are_drawn_as_the_settings_allow(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer, pages: int
) -> None:
    result, _ = materialize(instance, storage, shop, review={"max_pages": pages})
    assert result.success
    review = storage.partition("processed_images", *PARTITION) / "review"
    assert [name for name in review.sizes() if name.startswith("page_")] == [
        f"page_{number:03}.jpg" for number in range(1, pages + 1)
    ]


def test_served_bytes_may_go_and_nothing_is_downloaded_twice(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    result, before = materialize(instance, storage, shop, process={"keep_raw": False})
    assert result.success
    raw = storage.partition("raw_images", *PARTITION)
    assert (raw / "images").sizes() == {}
    assert all(check.passed for check in result.get_asset_check_evaluations())

    shop.requests.clear()
    again, after = materialize(instance, storage, shop, process={"keep_raw": False})
    assert again.success
    assert not shop.requests
    assert after == before
    assert all(check.passed for check in again.get_asset_check_evaluations())


def test_a_step_that_cannot_be_imported_is_told(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    result, _ = materialize(instance, storage, shop, process={"steps": ["no_such_package.step"]})
    assert not result.success
    (failure,) = result.get_step_failure_events()
    error = failure.step_failure_data.user_failure_data
    assert error is not None
    assert "no_such_package.step" in str(error.description)
