"""Tests of the asset `processed_images`, run by Dagster with images from a real HTTP server."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from imgassets.defs.partitions import Partition
from imgassets.demo.server import CatalogueServer
from imgassets.folders import project_root
from imgassets.manifests import (
    Outcome,
    ProcessedRow,
    UrlRow,
    from_table,
    to_table,
)
from imgassets.markdown import CONTACT_SHEET_BYTES, HISTOGRAMS_BYTES
from imgassets.storage import Storage
from imgassets_tests.project import project_defs
from imgassets_tests.rows import PARTITION, url_row

NEXT_DAY = Partition("2026-02-01", PARTITION.retailer)
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
    instance: dg.DagsterInstance,
    storage: Storage,
    shop: CatalogueServer,
    names: Sequence[str] = NAMES,
    partition: Partition = PARTITION,
    **options: Any,
) -> tuple[dg.ExecuteInProcessResult, list[ProcessedRow]]:
    urls = [
        url_row(number, url=f"{shop.url}/{name}", date=partition.date)
        for number, name in enumerate(names)
    ]
    files = storage.partition(*partition)
    files.write_manifest("url_list", to_table(urls, UrlRow))
    job = dg.define_asset_job("job", selection=["raw_images", "processed_images"])
    defs = dg.Definitions.merge(project_defs(), dg.Definitions(jobs=[job]))
    overrides = {
        "download": {"allow_private_addresses": True, "robots": False, "opt_outs": []},
        **options,
    }
    result = defs.resolve_job_def("job").execute_in_process(
        instance=instance,
        partition_key=partition.key,
        raise_on_error=False,
        run_config={"resources": {"imgassets_settings": {"config": {"overrides": overrides}}}},
    )
    if not result.success:
        return result, []
    return result, from_table(files.read_manifest("processed_images"), ProcessedRow)


def messages(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> list[str]:
    return [entry.user_message for entry in instance.all_logs(result.run_id)]


def test_a_run_shows_metrics_images_and_file_locations(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    result, rows = materialize(instance, storage, shop)
    (event,) = result.asset_materializations_for_node("processed_images")
    metadata: dict[str, Any] = {name: value.value for name, value in event.metadata.items()}
    assert [row.face_count for row in rows] == [1, 1, 0]
    assert metadata["faces found"] == metadata["faces removed"] == 2
    assert (metadata["images"], metadata["images with a face"]) == (3, 2)
    low, middle, high = sorted(row.trim_ratio or 0 for row in rows)
    assert metadata["trim ratio/median"] == pytest.approx(middle, abs=1e-4)
    assert metadata["trim ratio/mean"] == pytest.approx((low + middle + high) / 3, abs=1e-4)
    p05, p95 = low + 0.1 * (middle - low), high - 0.1 * (high - middle)
    assert metadata["trim ratio/p05"] == pytest.approx(p05, abs=1e-4)
    assert metadata["trim ratio/p95"] == pytest.approx(p95, abs=1e-4)
    assert metadata["outcome/ok"] == 3
    assert metadata["not processed"] == "none"
    assert "raw images removed" not in metadata
    assert metadata["dagster/row_count"] == 3
    assert str(metadata["contact sheet"]).startswith("![](data:image/avif;base64,")
    assert str(metadata["histograms"]).startswith("![](data:image/png;base64,iVBOR")
    assert len(str(metadata["contact sheet"])) <= CONTACT_SHEET_BYTES
    assert len(str(metadata["histograms"])) <= HISTOGRAMS_BYTES
    # The columns are those of the definition; here, every run would store them again.
    assert {"dagster/column_schema", "columns"}.isdisjoint(metadata)
    assert metadata["dagster/size_bytes"] == sum(
        (Path(storage.root) / str(row.path)).stat().st_size for row in rows
    )
    assert "2026-01-31|zara: 3 URLs, 3 ok, 0 failed" in "".join(messages(instance, result))
    assert next(iter(metadata)) == "contact sheet"
    # The UI plots numbers only.
    for name in ("images", "trim ratio/mean", "trim ratio/p95", "outcome/ok"):
        assert isinstance(event.metadata[name], dg.IntMetadataValue | dg.FloatMetadataValue)
    for name in ("manifest", "processed image files", "contact sheet file", "histograms file"):
        assert isinstance(event.metadata[name], dg.PathMetadataValue)
        assert Path(metadata[name]).exists()
    review = f"{storage.root}/{storage.partition(*PARTITION).review}"
    page = f"{review}/page_001.jpg"
    assert page in str(metadata["full-size contact sheets"])
    assert metadata["review folder"] == review
    assert Path(page).is_file()
    assert Path(f"{review}/histograms.png").is_file()
    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert len(checks) == 9
    assert all(checks.values())


def test_without_review_inline_the_event_has_no_image_and_names_the_files(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    # Two products have the same image, and no image may have a face: two checks fail.
    failing = {"max_duplicates": 0, "face_share": {"max": 0}}
    names = ("portrait_a.jpg", "portrait_a.jpg")
    result, rows = materialize(
        instance, storage, shop, names, review={"inline": False}, checks=failing
    )
    (event,) = result.asset_materializations_for_node("processed_images")
    assert {"contact sheet", "histograms"}.isdisjoint(event.metadata)
    for name in ("contact sheet file", "histograms file", "review folder"):
        assert Path(str(event.metadata[name].value)).exists()
    failed = {
        check.check_name: str(check.metadata["images to look at"].value)
        for check in result.get_asset_check_evaluations()
        if not check.passed
    }
    assert set(failed) >= {"duplicate_images", "face_removal"}
    assert f"| {storage.address(str(rows[0].raw_path))} | image-0 |" in failed["duplicate_images"]
    assert f"| {storage.address(str(rows[0].path))} | image-0 |" in failed["face_removal"]
    events = instance.all_logs(result.run_id)
    assert [event for event in events if "data:image" in dg.serialize_value(event)] == []


@pytest.mark.parametrize("pages", [0, 1])
def test_review_max_pages_limits_the_full_size_pages(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer, pages: int
) -> None:
    result, _ = materialize(instance, storage, shop, review={"max_pages": pages})
    assert result.success
    review = storage.partition(*PARTITION).review
    assert [name for name in storage.names(review) if name.startswith("page_")] == [
        f"page_{number:03}.jpg" for number in range(1, pages + 1)
    ]


def test_without_keep_raw_served_files_are_removed_and_not_downloaded_again(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    result, before = materialize(instance, storage, shop, process={"keep_raw": False})
    assert result.success
    assert storage.find("images/raw") == {}
    (event,) = result.asset_materializations_for_node("processed_images")
    assert event.metadata["raw images removed"].value == len(NAMES)
    assert all(check.passed for check in result.get_asset_check_evaluations())

    shop.requests.clear()
    again, after = materialize(instance, storage, shop, process={"keep_raw": False})
    assert again.success
    assert not shop.requests
    assert after == before
    assert all(check.passed for check in again.get_asset_check_evaluations())

    # A new image is downloaded, processed and removed; the earlier ones stay recorded as removed.
    names = (*NAMES, "cutout_a.jpg")
    for asked in (["/cutout_a.jpg"], []):
        shop.requests.clear()
        more, rows = materialize(instance, storage, shop, names, process={"keep_raw": False})
        assert more.success
        assert [*shop.requests] == asked
        assert rows[:3] == before
        assert storage.find("images/raw") == {}


@pytest.mark.parametrize("keep_raw", [True, False])
def test_a_second_day_with_the_same_images_requests_and_processes_none(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer, keep_raw: bool
) -> None:
    process = {"keep_raw": keep_raw}
    _, before = materialize(instance, storage, shop, process=process)
    images = storage.find("images")
    shop.requests.clear()

    result, rows = materialize(instance, storage, shop, partition=NEXT_DAY, process=process)

    assert result.success
    assert not shop.requests
    assert storage.find("images") == images  # with the same times: no file was written again
    assert rows == [replace(row, date=NEXT_DAY.date, reused_from=PARTITION.date) for row in before]
    (event,) = result.asset_materializations_for_node("processed_images")
    assert event.metadata["reused from other days"].value == event.metadata["images"].value == 3
    # The sheet shows all images; the pages are those of the day that processed them.
    assert str(event.metadata["contact sheet"].value).startswith("![](data:image/avif;base64,")
    assert event.metadata["full-size contact sheets"].value == "none"
    assert storage.names(storage.partition(*NEXT_DAY).review) == [
        "contact_sheet.jpg",
        "histograms.png",
        "index.json",
    ]
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert len(checks) == 9
    assert all(check.passed for check in checks.values())
    assert checks["residual_faces"].metadata["images checked"].value == 0


def test_a_second_day_processes_only_its_new_images(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    materialize(instance, storage, shop)
    names = (*NAMES, "cutout_a.jpg")
    result, rows = materialize(instance, storage, shop, names, partition=NEXT_DAY)
    assert [row.reused_from for row in rows] == [PARTITION.date] * 3 + [None]
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert checks["residual_faces"].metadata["images checked"].value == 1
    index = storage.read(f"{storage.partition(*NEXT_DAY).review}/index.json")
    assert json.loads(index)["pages"] == {"page_001.jpg": ["image-3"]}


def test_rows_that_share_an_image_share_its_files(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    names = ("cutout_a.jpg", "cutout_a.jpg", "cutout_a.jpg?size=1")
    result, rows = materialize(instance, storage, shop, names, checks={"max_duplicates": 1})
    assert {(row.outcome, row.raw_path, row.path) for row in rows} == {
        (Outcome.OK, rows[0].raw_path, rows[0].path)
    }
    assert set(storage.find("images")) == {rows[0].raw_path, rows[0].path}
    assert all(check.passed for check in result.get_asset_check_evaluations())


def test_images_that_were_not_processed_are_listed_those_without_a_raw_image_last(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    names = ("portrait_a.jpg", "absent.jpg", "cutout_no_head.jpg")
    result, rows = materialize(
        instance,
        storage,
        shop,
        names,
        decode={"max_pixels": 1_000_000},
        process={"keep_raw": False},
    )
    assert [str(row.outcome) for row in rows] == ["too_many_pixels", "no_raw", "ok"]
    (event,) = result.asset_materializations_for_node("processed_images")
    metadata: dict[str, Any] = {name: value.value for name, value in event.metadata.items()}
    assert (metadata["images"], metadata["dagster/row_count"]) == (1, 3)
    assert metadata["outcome/too_many_pixels"] == metadata["outcome/no_raw"] == 1
    lines = metadata["not processed"].splitlines()
    assert lines[0] == "| outcome | error | key |"
    assert len(lines) == 4
    assert lines[2].startswith("| too_many_pixels | ")
    assert lines[2].endswith(" | image-0 |")
    assert lines[3].startswith("| no_raw | ")
    assert lines[3].endswith(" | image-1 |")
    # The served file is kept if its image was not processed.
    assert metadata["raw images removed"] == 1
    assert [*storage.find("images/raw")] == [rows[0].raw_path]


def test_without_any_processed_image_nothing_is_shown_inline(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    result, rows = materialize(
        instance, storage, shop, ("absent.jpg",), checks={"fatal_success_rate": 0}
    )
    assert [str(row.outcome) for row in rows] == ["no_raw"]
    (event,) = result.asset_materializations_for_node("processed_images")
    assert event.metadata["images"].value == 0
    assert "contact sheet" not in event.metadata
    assert "processed image files" not in event.metadata
    assert event.metadata["manifest"].value


def test_options_of_a_retailer_apply_to_its_images(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    own = {"resize": {"max_side": 64}}
    result, rows = materialize(
        instance,
        storage,
        shop,
        NAMES[1:2],
        resize={"max_side": 96},
        retailers={PARTITION.retailer: own},
    )
    assert result.success
    assert max(rows[0].width or 0, rows[0].height or 0) <= 64


def test_without_raw_images_the_failure_names_what_to_materialize(
    instance: dg.DagsterInstance, storage: Storage
) -> None:
    assert storage
    job = dg.define_asset_job("job", selection=["processed_images"])
    defs = dg.Definitions.merge(project_defs(), dg.Definitions(jobs=[job]))
    result = defs.resolve_job_def("job").execute_in_process(
        instance=instance, partition_key=PARTITION.key, raise_on_error=False
    )
    (failure,) = result.get_step_failure_events()
    error = failure.step_failure_data.user_failure_data
    assert error is not None
    assert error.description == (
        f"raw_images of {PARTITION.key} was never materialized; materialize it first"
    )


def test_a_step_that_cannot_be_imported_is_a_failure_that_names_it(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    result, _ = materialize(instance, storage, shop, process={"steps": ["no_such_package.step"]})
    assert not result.success
    (failure,) = result.get_step_failure_events()
    error = failure.step_failure_data.user_failure_data
    assert error is not None
    assert "no_such_package.step" in str(error.description)
