"""Tests of jobs, schedules, and the check for retailers without a recent document."""

import datetime as dt
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgassets.configuration import load_settings
from imgassets.sources.listing import Inventory, SourceReport, today
from imgassets.sources.staleness import stale_retailers
from imgassets.storage import Storage
from imgassets_tests.project import project_defs

MORNING = dt.datetime(2026, 2, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance on disk, because the context of a schedule opens it a second time."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def requests(instance: dg.DagsterInstance) -> list[dg.RunRequest | dg.SkipReason]:
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=MORNING)
    every_day: Any = project_defs().get_repository_def().get_schedule_def("every_day")
    evaluated: Any = every_day(context)
    return list(evaluated)


def test_the_daily_schedule_requests_yesterday_of_every_registered_retailer(
    instance: dg.DagsterInstance,
) -> None:
    instance.add_dynamic_partitions("retailer", ["zara", "asos"])
    requested = [r for r in requests(instance) if isinstance(r, dg.RunRequest)]
    assert [r.partition_key for r in requested] == ["2026-01-31|asos", "2026-01-31|zara"]
    assert len({r.run_key for r in requested}) == 2
    assert [r.run_key for r in requested] == [
        r.run_key for r in requests(instance) if isinstance(r, dg.RunRequest)
    ]


def test_the_daily_schedule_is_skipped_with_a_reason_without_retailers(
    instance: dg.DagsterInstance,
) -> None:
    (skip,) = requests(instance)
    assert isinstance(skip, dg.SkipReason)
    assert "imgassets sync" in str(skip.skip_message)


def test_the_daily_schedule_works_inside_the_code_location(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("retailer", ["zara"])
    repository = project_defs().get_repository_def()
    schedule = repository.get_schedule_def("every_day")
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    assert schedule.execution_timezone == "UTC"
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=MORNING, repository_def=repository
    )
    with warnings.catch_warnings():
        # Dagster 1.13 warns about the names of its own tags.
        warnings.simplefilter("ignore", DeprecationWarning)
        data = schedule.evaluate_tick(context)
    assert data.run_requests is not None
    (request,) = data.run_requests
    assert request.tags["dagster/partition/retailer"] == "zara"
    assert request.tags["dagster/partition/date"] == "2026-01-31"


def test_the_report_schedule_requests_the_report_of_yesterday(
    instance: dg.DagsterInstance,
) -> None:
    repository = project_defs().get_repository_def()
    schedule = repository.get_schedule_def("daily_report_schedule")
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=MORNING, repository_def=repository
    )
    (request,) = schedule.evaluate_tick(context).run_requests or []
    assert request.partition_key == "2026-01-31"


def selected(name: str) -> tuple[set[str], set[str]]:
    """The assets that a job materializes, and the checks that it runs."""
    layer = project_defs().resolve_job_def(name).asset_layer
    return (
        {key.to_user_string() for key in layer.executable_asset_keys},
        {key.name for key in layer.asset_graph.asset_check_keys},
    )


def test_the_catalogue_job_materializes_a_partition_with_its_checks() -> None:
    assets, checks = selected("catalogue_job")
    assert assets == {"url_list", "face_model", "raw_images", "processed_images"}
    assert {"every_url_has_a_raw_row", "every_url_has_a_processed_row"} <= checks
    assert "every_retailer_delivers" not in checks


def test_the_report_job_materializes_the_report_of_a_day_with_its_checks() -> None:
    checks = {"every_retailer_succeeded", "nothing_is_missing"}
    assert selected("daily_report_job") == ({"daily_report"}, checks)
    assert not checks & selected("catalogue_job")[1]


def test_the_retry_job_does_not_materialize_the_url_list() -> None:
    assets, checks = selected("retry_failed")
    assert assets == {"face_model", "raw_images", "processed_images"}
    assert checks == selected("catalogue_job")[1]


def test_the_ui_does_not_ask_at_each_launch_of_a_job_about_an_asset_outside_of_it() -> None:
    # It asks about those that were never materialized, which other jobs need not do.
    specs = {spec.key.to_user_string(): spec for spec in project_defs().resolve_all_asset_specs()}
    unpartitioned = {name for name, spec in specs.items() if spec.partitions_def is None}
    for job in project_defs().jobs or ():
        assets, _ = selected(job.name)
        upstream = {dep.asset_key.to_user_string() for name in assets for dep in specs[name].deps}
        # `product_documents` is external: nothing can materialize it.
        assert upstream & unpartitioned - assets <= {"product_documents"}, job.name


def checked(instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    job = project_defs().resolve_job_def("freshness_job")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def test_the_check_fails_and_names_retailers_without_a_recent_document(
    storage: Storage,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert storage
    days = {"Zara": 0, "Asos": 3, "Mango": 4, "Slow": 20}
    path = tmp_path / "urls.csv"
    rows = [f"http://a/{n}.jpg,{n},{today() - dt.timedelta(days=age)}" for n, age in days.items()]
    path.write_text("\n".join(["url,retailer,date", *rows]))
    monkeypatch.setenv("IMGASSETS__SOURCE__KIND", "csv")
    monkeypatch.setenv("IMGASSETS__SOURCE__PATH", str(path))
    monkeypatch.setenv("IMGASSETS__RETAILERS", '{"slow": {"checks": {"max_age_days": 30}}}')
    load_settings.cache_clear()
    instance.add_dynamic_partitions("retailer", ["zara", "gone"])

    failed = checked(instance)
    assert not failed.passed
    assert failed.description == (
        "no recent document of gone, mango; check their scrapers, or raise checks.max_age_days"
    )
    assert failed.metadata["stale"].value == 2
    assert failed.metadata["retailers"].value == 5
    assert f"{today() - dt.timedelta(days=4)}" in str(failed.metadata["stale retailers"].value)
    assert failed.severity is dg.AssetCheckSeverity.ERROR

    warn_only = {"checks": {"severity": {"every_retailer_delivers": "warn"}}}
    for slugs, severity in ((["gone"], "ERROR"), (["gone", "mango"], "WARN")):
        own = json.dumps(
            dict.fromkeys(slugs, warn_only) | {"slow": {"checks": {"max_age_days": 30}}}
        )
        monkeypatch.setenv("IMGASSETS__RETAILERS", own)
        load_settings.cache_clear()
        assert checked(instance).severity.name == severity

    path.write_text("\n".join(["url,retailer,date", *rows[:2], f"http://a,gone,{today()}"]))
    assert checked(instance).passed


@given(
    st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 40), min_size=1, max_size=5)),
    st.integers(0, 40),
)
def test_a_retailer_is_late_if_its_newest_document_is_too_old(
    ages: dict[str, list[int]], allowed: int
) -> None:
    day = dt.date(2026, 3, 1)
    documents = {
        (slug, (day - dt.timedelta(days=age)).isoformat()): 1
        for slug, found in ages.items()
        for age in found
    }
    inventory = Inventory({slug: slug for slug in ages}, documents, SourceReport())
    stale = stale_retailers(inventory, [], lambda _: allowed, day)
    assert {r.slug: r.age_days for r in stale} == {
        slug: min(found) for slug, found in ages.items() if min(found) > allowed
    }
