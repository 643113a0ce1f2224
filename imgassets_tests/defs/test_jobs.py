"""Jobs, schedules and the check that tells who no longer delivers."""

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
from imgassets.sources.lateness import late_retailers
from imgassets.sources.listing import Account, Survey, today
from imgassets.storage import Storage
from imgassets_tests.project import project_defs

MORNING = dt.datetime(2026, 2, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """One on disk: the context of a schedule opens it a second time."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def requests(instance: dg.DagsterInstance) -> list[dg.RunRequest | dg.SkipReason]:
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=MORNING)
    every_day: Any = project_defs().get_repository_def().get_schedule_def("every_day")
    answer: Any = every_day(context)
    return list(answer)


def test_the_daily_schedule_requests_yesterday_of_every_registered_retailer(
    instance: dg.DagsterInstance,
) -> None:
    instance.add_dynamic_partitions("retailer", ["zara", "asos"])
    asked = [r for r in requests(instance) if isinstance(r, dg.RunRequest)]
    assert [r.partition_key for r in asked] == ["2026-01-31|asos", "2026-01-31|zara"]
    assert len({r.run_key for r in asked}) == 2
    assert [r.run_key for r in asked] == [
        r.run_key for r in requests(instance) if isinstance(r, dg.RunRequest)
    ]


def test_the_daily_schedule_says_why_it_requests_nothing(instance: dg.DagsterInstance) -> None:
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
        # Dagster 1.13 finds fault with the names of its own tags.
        warnings.simplefilter("ignore", DeprecationWarning)
        data = schedule.evaluate_tick(context)
    assert data.run_requests is not None
    (request,) = data.run_requests
    assert request.tags["dagster/partition/retailer"] == "zara"
    assert request.tags["dagster/partition/date"] == "2026-01-31"


def selected(name: str) -> tuple[set[str], set[str]]:
    """The assets that a job makes, and the checks that it runs."""
    layer = project_defs().resolve_job_def(name).asset_layer
    return (
        {key.to_user_string() for key in layer.executable_asset_keys},
        {key.name for key in layer.asset_graph.asset_check_keys},
    )


def test_the_catalogue_job_makes_all_of_a_partition_with_its_checks() -> None:
    assets, checks = selected("catalogue_job")
    assert assets == {"url_list", "raw_images", "processed_images"}
    assert {"every_url_has_a_raw_row", "every_url_has_a_processed_row"} <= checks
    assert "every_retailer_delivers" not in checks


def test_the_retry_job_leaves_the_list_of_urls_as_it_is() -> None:
    assets, checks = selected("retry_failed")
    assert assets == {"raw_images", "processed_images"}
    assert checks == selected("catalogue_job")[1]


def checked(instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    job = project_defs().resolve_job_def("freshness_job")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def test_the_check_turns_red_and_names_the_retailers_that_no_longer_deliver(
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
    monkeypatch.setenv("IMGASSETS__SOURCE__CSV_PATH", str(path))
    monkeypatch.setenv("IMGASSETS__RETAILERS", '{"slow": {"checks": {"max_age_days": 30}}}')
    load_settings.cache_clear()
    instance.add_dynamic_partitions("retailer", ["zara", "gone"])

    red = checked(instance)
    assert not red.passed
    assert red.description == "late: gone, mango"
    assert red.metadata["late"].value == 2
    assert red.metadata["retailers"].value == 5
    assert f"{today() - dt.timedelta(days=4)}" in str(red.metadata["late retailers"].value)
    assert red.severity is dg.AssetCheckSeverity.ERROR

    only_warned_of = {"checks": {"severity": {"every_retailer_delivers": "warn"}}}
    for slugs, severity in ((["gone"], "ERROR"), (["gone", "mango"], "WARN")):
        own = json.dumps(
            dict.fromkeys(slugs, only_warned_of) | {"slow": {"checks": {"max_age_days": 30}}}
        )
        monkeypatch.setenv("IMGASSETS__RETAILERS", own)
        load_settings.cache_clear()
        assert checked(instance).severity.name == severity

    path.write_text("\n".join(["url,retailer,date", *rows[:2], f"http://a,gone,{today()}"]))
    assert checked(instance).passed


def test_of_two_names_on_one_partition_nobody_says_late() -> None:
    survey = Survey({}, {}, {"zara": ["ZARA", "Zara"]}, Account())
    assert late_retailers(survey, ["zara"], lambda _: 3, dt.date(2026, 1, 31)) == []


@given(
    st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 40), min_size=1, max_size=5)),
    st.integers(0, 40),
)
def test_a_retailer_is_late_when_even_its_newest_document_is_too_old(
    ages: dict[str, list[int]], allowed: int
) -> None:
    day = dt.date(2026, 3, 1)
    documents = {
        (slug, (day - dt.timedelta(days=age)).isoformat()): 1
        for slug, found in ages.items()
        for age in found
    }
    survey = Survey({slug: slug for slug in ages}, documents, {}, Account())
    late = late_retailers(survey, [], lambda _: allowed, day)
    assert {r.slug: r.age_days for r in late} == {
        slug: min(found) for slug, found in ages.items() if min(found) > allowed
    }
