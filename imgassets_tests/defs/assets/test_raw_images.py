"""Tests of the asset `raw_images`, run by Dagster: its config and its metadata."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from PIL import Image

from imgassets.defs.partitions import Partition
from imgassets.demo.server import CatalogueServer
from imgassets.manifests import Outcome, RawRow, UrlRow, from_table, to_table
from imgassets.settings import merge_options
from imgassets.storage import Storage
from imgassets.takedown import redacted_url, url_sha256
from imgassets_tests.project import project_defs
from imgassets_tests.rows import PARTITION, url_row
from imgassets_tests.takedowns import take_down


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


def list_urls(
    storage: Storage, shop: CatalogueServer, *names: str, partition: Partition = PARTITION
) -> None:
    urls = [
        url_row(number, url=f"{shop.url}/{name}", date=partition.date)
        for number, name in enumerate(names)
    ]
    storage.partition(*partition).write_manifest("url_list", to_table(urls, UrlRow))


def materialize(
    instance: dg.DagsterInstance,
    storage: Storage,
    shop: CatalogueServer,
    options: dict[str, Any] | None = None,
    **config: Any,
) -> tuple[dg.ExecuteInProcessResult, list[RawRow]]:
    list_urls(storage, shop, "0.jpg", "1.jpg", "2.jpg", "page.jpg", "absent.jpg")
    return run(instance, storage, options, **config)


def run(
    instance: dg.DagsterInstance,
    storage: Storage,
    options: dict[str, Any] | None = None,
    *,
    partition: Partition = PARTITION,
    **config: Any,
) -> tuple[dg.ExecuteInProcessResult, list[RawRow]]:
    job = dg.define_asset_job("job", selection=["raw_images"])
    defs = dg.Definitions.merge(project_defs(), dg.Definitions(jobs=[job]))
    download = {"allow_private_addresses": True, "retries": 0, "robots": False, "opt_outs": []}
    overrides = merge_options({"download": download}, options or {})
    result = defs.resolve_job_def("job").execute_in_process(
        instance=instance,
        partition_key=partition.key,
        raise_on_error=False,
        run_config={
            "resources": {"imgassets_settings": {"config": {"overrides": overrides}}},
            "ops": {"raw_images": {"config": config}},
        },
    )
    files = storage.partition(*partition)
    rows = from_table(files.read_manifest("raw_images"), RawRow) if result.success else []
    return result, rows


def test_plotted_metadata_are_numbers_and_stored_once(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    result, _ = materialize(instance, storage, shop)
    (event,) = result.asset_materializations_for_node("raw_images.collect_manifest")
    # The event log has them once.
    outputs = [
        each.step_output_data
        for each in result.all_events
        if each.event_type is dg.DagsterEventType.STEP_OUTPUT
    ]
    assert [output.metadata for output in outputs] == [{}] * len(outputs)
    for name in ("success rate", "outcome/ok", "bytes", "this run/images per second"):
        assert isinstance(event.metadata[name], dg.IntMetadataValue | dg.FloatMetadataValue)
    for name in ("manifest", "raw image files"):
        assert Path(str(event.metadata[name].value)).exists()
    # The columns are those of the definition; here, every run would store them again.
    assert {"dagster/column_schema", "columns"}.isdisjoint(event.metadata)


def shown(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node("raw_images.collect_manifest")
    return {name: value.value for name, value in event.metadata.items()}


@pytest.mark.parametrize(("size", "shards"), [(5, 0), (4, 2), (2, 3)])
def test_urls_that_do_not_fit_into_one_shard_are_downloaded_in_steps_of_the_configured_size(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer, size: int, shards: int
) -> None:
    result, rows = materialize(instance, storage, shop, {"download": {"shard_size": size}})
    of_graph = [step for step in finished_steps(result) if step.startswith("raw_images.")]
    mapped = [f"raw_images.download_shard[shard_{n:04d}]" for n in range(shards)]
    expected = ["raw_images.download_images", *mapped, "raw_images.collect_manifest"]
    assert of_graph == expected
    assert len(rows) == 5
    assert shown(result)["this run/images"] == 3
    # What an op passes on costs events; only the descriptions of several shards are passed on.
    loaded = [event for event in result.all_events if event.event_type_value == "LOADED_INPUT"]
    assert len(loaded) == shards


def finished_steps(result: dg.ExecuteInProcessResult) -> list[str]:
    return [str(event.step_key) for event in result.all_events if event.is_step_success]


def test_a_run_shows_outcomes_failures_and_hosts(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    result, rows = materialize(instance, storage, shop)
    assert [str(row.outcome) for row in rows] == ["ok"] * 3 + ["not_an_image", "http_error"]
    metadata = shown(result)
    assert metadata["outcome/ok"] == 3
    assert metadata["success rate"] == pytest.approx(0.6)
    assert metadata["this run/images"] == 3
    assert metadata["dagster/row_count"] == 5
    assert "| ok | 3 | " + "█" * 22 + " |" in metadata["outcomes"]
    assert "| http_error | 404 | 1 | " in metadata["failures"]
    summary = "raw_images 2026-01-31|zara: 5 URLs, 3 ok, 2 failed (not_an_image 1, http_error 1)"
    assert summary in [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert f"127.0.0.1:{shop.port}" in metadata["slowest hosts"]
    served = sum(row.bytes or 0 for row in rows)
    assert metadata["bytes"] == metadata["this run/bytes"] == served > 0
    assert metadata["outcome/not_an_image"] == metadata["outcome/http_error"] == 1
    lines = metadata["failures"].splitlines()
    assert lines[0] == "| outcome | status | attempts | error | url |"
    assert len(lines) == 4
    assert lines[2].startswith("| not_an_image | 200 | 1 | ")
    assert lines[2].endswith(f" | {shop.url}/page.jpg |")
    manifest = f"{storage.root}/manifests/raw_images/{PARTITION.retailer}.{PARTITION.date}.parquet"
    assert metadata["manifest"] == manifest
    assert metadata["raw image files"] == f"{storage.root}/images/raw/{PARTITION.retailer}"
    assert metadata["reused from other days"] == 0


def test_a_second_run_shows_totals_and_its_own_downloads_separately(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    _, rows = materialize(instance, storage, shop)
    result, _ = materialize(instance, storage, shop)
    metadata = shown(result)
    assert metadata["outcome/ok"] == 3
    assert metadata["bytes"] == sum(row.bytes or 0 for row in rows)
    for name in ("images", "bytes", "images per second", "retries", "unchanged", "changed"):
        assert metadata[f"this run/{name}"] == 0


def test_shards_are_merged_into_one_manifest_and_their_metrics_are_added(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    download = {
        "allow_private_addresses": True,
        "retries": 1,
        "backoff_s": 0.01,
        "robots": False,
        "opt_outs": [],
        "shard_size": 2,
    }
    result, rows = materialize(instance, storage, shop, {"download": download})
    assert [str(row.outcome) for row in rows] == ["ok"] * 3 + ["not_an_image", "http_error"]
    assert [row.key for row in rows] == [f"image-{n}" for n in range(5)]
    assert len(shop.requests) == 5
    steps = [event.step_key for event in result.all_events if event.is_step_success]
    assert sum("download_shard" in str(step) for step in steps) == 3
    metadata = shown(result)
    assert metadata["this run/images"] == 3
    assert metadata["this run/bytes"] == sum(row.bytes or 0 for row in rows)
    assert metadata["slowest hosts"].count(f"127.0.0.1:{shop.port}") == 3


def test_options_of_a_retailer_apply_to_its_partitions(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    own = {"download": {"allow_private_addresses": True, "robots": False, "shard_size": 3}}
    options = {"download": {"robots": True}, "retailers": {PARTITION.retailer: own}}
    result, rows = materialize(instance, storage, shop, options)
    assert [str(row.outcome) for row in rows][:3] == ["ok"] * 3
    assert "/robots.txt" not in shop.requests
    steps = [event.step_key for event in result.all_events if event.is_step_success]
    assert sum("download_shard" in str(step) for step in steps) == 2


def test_a_partition_without_urls_succeeds_with_an_empty_manifest(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    list_urls(storage, shop)
    result, rows = run(instance, storage)
    assert result.success
    assert rows == []
    metadata = shown(result)
    assert metadata["success rate"] == 1
    assert metadata["dagster/row_count"] == 0
    assert metadata["failures"] == metadata["slowest hosts"] == "none"


def failure(result: dg.ExecuteInProcessResult) -> dg.DagsterEvent:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return event


def test_without_a_url_list_the_failure_names_what_to_materialize(
    instance: dg.DagsterInstance, storage: Storage
) -> None:
    result, _ = run(instance, storage)
    data = failure(result).step_failure_data.user_failure_data
    assert data is not None
    assert data.description == (
        f"url_list of {PARTITION.key} was never materialized; materialize it first"
    )


def test_a_broken_url_list_is_a_failure_that_names_it(
    instance: dg.DagsterInstance, storage: Storage
) -> None:
    storage.write(storage.partition(*PARTITION).manifest("url_list"), b"no parquet")
    result, _ = run(instance, storage)
    data = failure(result).step_failure_data.user_failure_data
    assert data is not None
    assert "url_list" in str(data.description)
    assert "is broken" in str(data.description)


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
def test_a_second_run_requests_only_the_urls_that_its_config_selects(
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


def test_a_url_that_was_taken_down_is_removed_without_a_request(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    # Taken down after `url_list` was materialized, so that the URL is still in it.
    list_urls(storage, shop, "0.jpg", "1.jpg")
    sha256 = url_sha256(f"{shop.url}/0.jpg")
    take_down(storage, url_sha256=[sha256])

    for retry in (["failed"], ["removed"]):
        result, (gone, kept) = run(instance, storage, retry=retry)
        assert (gone.outcome, gone.url) == (Outcome.REMOVED, f"removed:{sha256}")
        assert (gone.path, gone.sha256, gone.attempts, gone.fetched_at) == (None, None, 0, None)
        assert (kept.outcome, kept.url) == (Outcome.OK, f"{shop.url}/1.jpg")
        assert shop.requests == {"/1.jpg": 1}
        assert [*storage.find("images")] == [kept.path]
        assert shown(result)["outcome/removed"] == 1
        checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
        assert checks["every_url_has_a_raw_row"]


def test_a_url_that_was_redacted_in_the_url_list_is_removed_without_a_request(
    instance: dg.DagsterInstance, storage: Storage
) -> None:
    url = redacted_url("http://shop/1.jpg")
    storage.partition(*PARTITION).write_manifest("url_list", to_table([url_row(url=url)], UrlRow))
    result, (row,) = run(instance, storage)
    assert result.success
    assert (row.outcome, row.url, row.attempts) == (Outcome.REMOVED, url, 0)


def test_an_image_that_was_taken_down_is_not_stored_again_from_another_url(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer, tmp_path: Path
) -> None:
    image = (tmp_path / "shop" / "0.jpg").read_bytes()
    take_down(storage, image_sha256=[hashlib.sha256(image).hexdigest()])
    list_urls(storage, shop, "0.jpg", "1.jpg")
    _, (gone, kept) = run(instance, storage)
    assert (gone.outcome, gone.path, gone.sha256) == (Outcome.REMOVED, None, None)
    assert [*storage.find("images")] == [kept.path]


def test_a_second_day_with_the_same_urls_takes_over_their_images_without_a_request(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    names = ("0.jpg", "1.jpg", "page.jpg")
    list_urls(storage, shop, *names)
    _, before = run(instance, storage)
    shop.requests.clear()
    next_day = Partition("2026-02-01", PARTITION.retailer)
    list_urls(storage, shop, *names, partition=next_day)

    result, rows = run(instance, storage, partition=next_day)

    assert shop.requests == {"/page.jpg": 1}  # the one that failed
    assert [row.path for row in rows] == [row.path for row in before]
    assert [row.reused_from for row in rows] == [PARTITION.date, PARTITION.date, None]
    assert [row.attempts for row in rows] == [0, 0, 1]
    assert {row.date for row in rows} == {next_day.date}
    assert shown(result)["reused from other days"] == 2
    assert shown(result)["this run/images"] == 0


@pytest.mark.parametrize(
    "download", [{"reuse_days": 0}, {"revalidate_after_days": 0}], ids=["reuse", "revalidate"]
)
def test_the_settings_can_request_the_images_of_other_days_again(
    instance: dg.DagsterInstance,
    storage: Storage,
    shop: CatalogueServer,
    download: dict[str, Any],
) -> None:
    list_urls(storage, shop, "0.jpg")
    _, (before,) = run(instance, storage)
    next_day = Partition("2026-02-01", PARTITION.retailer)
    list_urls(storage, shop, "0.jpg", partition=next_day)
    _, (row,) = run(instance, storage, {"download": download}, partition=next_day)
    assert shop.requests == {"/0.jpg": 2}
    assert (row.outcome, row.path) == (Outcome.OK, before.path)


def test_an_unknown_outcome_in_retry_is_a_failure_that_lists_the_allowed_ones(
    instance: dg.DagsterInstance, storage: Storage, shop: CatalogueServer
) -> None:
    result, _ = materialize(instance, storage, shop, retry=["http-error"])
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    error = failure.step_failure_data.user_failure_data
    assert error is not None
    assert "raw_images: retry: got 'http-error'; allowed: failed, ok, " in str(error.description)
