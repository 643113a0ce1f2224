"""Tests of the reports in Dagster, on manifests, real runs and the tags of failed checks."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from imgassets.configuration import load_settings
from imgassets.defs.event_log import runs_of_partitions
from imgassets.defs.failed_checks import FAILED_TAG, NAMES_TAG
from imgassets.defs.reports import runs_of_day
from imgassets.reports.day import day_path, load_days
from imgassets.reports.measure import RetailerRun
from imgassets.sources import listing
from imgassets.storage import Storage
from imgassets_tests.data_root import write_data_root
from imgassets_tests.project import project_defs, project_scope

DATE = "2026-01-02"
LIMIT = 40_000


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("retailer", ["zara", "hm", "asos"])
        yield instance


@pytest.fixture
def data(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """Manifests of zara and hm, and a CSV file that also lists asos on the first day."""
    write_data_root(storage)
    path = tmp_path / "urls.csv"
    lines = [f"http://a/{name}.jpg,{name},{DATE}" for name in ("zara", "hm", "asos")]
    path.write_text("\n".join(["url,retailer,date", *lines]))
    monkeypatch.setenv("IMGASSETS__SOURCE__KIND", "csv")
    monkeypatch.setenv("IMGASSETS__SOURCE__PATH", str(path))
    monkeypatch.setenv("IMGASSETS__CHECKS__MIN_SUCCESS_RATE", "0.6")
    load_settings.cache_clear()
    return storage


def report(instance: dg.DagsterInstance, date: str = DATE) -> dg.ExecuteInProcessResult:
    job = project_defs().resolve_job_def("daily_report_job")
    return job.execute_in_process(instance=instance, partition_key=date)


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    found = event.materialization.metadata
    return {name: found[name].value for name in found} | {
        name: [dict(record.data) for record in value.records]
        for name, value in found.items()
        if isinstance(value, dg.TableMetadataValue)
    }


def test_a_day_is_reported_with_its_culprits_and_its_checks_name_them(
    data: Storage, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGASSETS__UI_PATH_PREFIX", "/prod")
    load_settings.cache_clear()
    result = report(instance)

    found = metadata(result)
    assert len(found["summary"]) < 1_000
    assert "1 missing of 3" in found["summary"]
    retailers = [record["retailer"] for record in found["retailers"]]
    assert retailers == ["hm", "asos", "zara"]
    link = "(/prod/assets/processed_images?view=partitions&partition=2026-01-02%7Casos)"
    assert link in found["problems, with links"]
    assert found["most doubtful images"].startswith("![](data:image/svg+xml")
    assert found["success rates of 30 days"].startswith("![](data:image/svg+xml")
    assert (found["URLs"], found["images"], found["retailers missing"]) == (6, 4, 1)
    assert sum(len(str(value)) for value in found.values()) < LIMIT
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert {check.partition for check in checks.values()} == {None}
    assert {name: check.description for name, check in checks.items() if not check.passed} == {
        "every_retailer_succeeded": (
            "1 of 3 retailers did not succeed on 2026-01-02: hm (success rate 50% (timeout 1))"
        ),
        "nothing_is_missing": (
            "1 missing of 3: no processed images of 2026-01-02, although there are documents: asos"
        ),
    }
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    tags = run.tags
    assert tags[FAILED_TAG] == "true"
    assert tags[NAMES_TAG] == "every_retailer_succeeded=error nothing_is_missing=error"
    assert [*load_days(data, [DATE])] == [DATE]
    # A take-down must know this run, because it shows images.
    assert runs_of_partitions(instance, [f"{DATE}|zara"]) == [result.run_id]
    assert runs_of_partitions(instance, ["2026-01-03|zara"]) == []


def test_the_checks_are_about_the_newest_day_also_when_an_older_one_is_reported_later(
    data: Storage, instance: dg.DagsterInstance
) -> None:
    assert data
    newest = report(instance, "2026-01-03").get_asset_check_evaluations()
    assert all(check.passed for check in newest)
    older = report(instance).get_asset_check_evaluations()
    assert all(check.passed for check in older)
    assert {check.metadata["day"].value for check in older} == {"2026-01-03"}


def test_a_report_without_inline_images_has_none(
    data: Storage, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data
    monkeypatch.setenv("IMGASSETS__REVIEW__INLINE", "false")
    load_settings.cache_clear()
    assert "most doubtful images" not in metadata(report(instance))


def test_an_unreadable_source_fails_the_report_with_its_sentence(
    data: Storage, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assert data
    (tmp_path / "urls.csv").unlink()
    with pytest.raises(dg.Failure, match=r"urls\.csv"):
        report(instance)


def test_a_retailer_is_reported_over_the_days(
    data: Storage, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data
    job = project_defs().resolve_implicit_global_asset_job_def()

    def of_zara() -> dict[str, Any]:
        selected = [dg.AssetKey("retailer_report")]
        return metadata(
            job.execute_in_process(
                instance=instance, asset_selection=selected, partition_key="zara"
            )
        )

    monkeypatch.setattr(listing, "today", lambda: dt.date(2026, 6, 30))
    assert of_zara()["days with data"] == 0
    report(instance, "2026-01-03")
    assert of_zara()["days with data"] == 2
    monkeypatch.setattr(listing, "today", lambda: dt.date(2026, 1, 4))
    found = of_zara()
    assert found["last 30 days"].startswith("![](data:image/webp")
    link = "(/assets/processed_images?view=partitions&partition=2026-01-03%7Czara)"
    assert link in found["days, with links"]
    assert (found["days with data"], found["URLs"]) == (2, 6)


def test_the_newest_run_of_each_partition_and_its_failed_checks_are_found(
    data: Storage, instance: dg.DagsterInstance
) -> None:
    """Zara's first run failed a check; its newest one covers another asset only."""
    assert data
    scope = project_scope()
    tags = {
        "dagster/partition": f"{DATE}|zara",
        "dagster/partition/date": DATE,
        "dagster/partition/retailer": "zara",
    }
    failed = {FAILED_TAG: "true", NAMES_TAG: "download_success_rate=warn trim_ratios=error"}

    def add_run(
        job: str,
        *assets: str,
        status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS,
        checks: frozenset[dg.AssetCheckKey] | None = None,
        more: Mapping[str, str] | None = None,
    ) -> str:
        run = dg.DagsterRun(
            job_name=job,
            run_id=str(uuid.uuid4()),
            tags={**tags, **(more or {})},
            status=status,
            asset_selection=frozenset(map(dg.AssetKey, assets)) or None,
            asset_check_selection=checks,
        )
        return instance.add_run(run).run_id

    def found() -> RetailerRun:
        (run,) = runs_of_day(scope, instance, DATE).values()
        return run

    add_run("catalogue_job", more=failed)
    newest = add_run("__ASSET_JOB", "processed_images")
    add_run("__ASSET_JOB", "url_list")
    warned = {"download_success_rate": "warn"}
    assert found() == RetailerRun(newest, "SUCCESS", warned)
    assert runs_of_day(scope, instance, "2026-01-03") == {}

    # A run that has not ended says nothing yet.
    add_run("catalogue_job", status=dg.DagsterRunStatus.STARTED)
    assert found() == RetailerRun(newest, "SUCCESS", warned, is_active=True)

    # A run of checks only counts for these checks.
    def check(name: str) -> frozenset[dg.AssetCheckKey]:
        return frozenset({dg.AssetCheckKey(dg.AssetKey("raw_images"), name)})

    add_run("__ASSET_JOB", checks=check("duplicate_images"))
    assert found().failed_checks == warned
    add_run("__ASSET_JOB", checks=check("download_success_rate"))
    assert found() == RetailerRun(newest, "SUCCESS", {}, is_active=True)
    again = {FAILED_TAG: "true", NAMES_TAG: "duplicate_images=error"}
    add_run("__ASSET_JOB", checks=check("duplicate_images"), more=again)
    assert found().failed_checks == {"duplicate_images": "error"}


def test_damaged_numbers_of_the_newest_day_fail_the_checks_with_their_path(
    data: Storage, instance: dg.DagsterInstance
) -> None:
    data.write(day_path("2026-01-03"), b"broken")
    with pytest.raises(dg.Failure, match=r"2026-01-03\.parquet is damaged; materialize daily_rep"):
        report(instance)
