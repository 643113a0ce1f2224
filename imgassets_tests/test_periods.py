"""Tests of partitions of a day, a week and a month, with a real MongoDB and a real image server."""

from __future__ import annotations

import datetime as dt
import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from bson import ObjectId
from click.testing import CliRunner
from PIL import Image
from pymongo.database import Database

import imgassets
from imgassets.cli import cli
from imgassets.configuration import load_settings
from imgassets.defs.command_line import unknown_partition
from imgassets.defs.partitions import Partition, catalogue_partitions
from imgassets.defs.scope import Scope
from imgassets.demo.server import CatalogueServer
from imgassets.doctor import diagnose, partition_count
from imgassets.manifests import UrlRow, to_table
from imgassets.periods import MAX_DAYS, days_of, first_day, first_days, last_first_days
from imgassets.reports.day import load_days
from imgassets.settings import Period, Settings, SourceSettings
from imgassets.sources.changes import due_partitions, scan
from imgassets.sources.factory import mongodb_address, open_source
from imgassets.sources.listing import Anomaly, day_anomaly
from imgassets.sources.mongo_changes import open_changes
from imgassets.sources.staleness import stale_retailers
from imgassets.sources.table import TableSource
from imgassets.storage import list_manifests, open_storage
from imgassets_tests.project import project_defs

Products = Database[dict[str, Any]]
START = dt.date(2026, 1, 1)  # a Thursday
PERIODS: tuple[Period, ...] = ("day", "week", "month")

# The dates of documents, in several forms, by their days in UTC.
DATES: dict[str, object] = {
    "2025-12-28": dt.datetime(2025, 12, 28, 23, 59, 59, tzinfo=dt.UTC),  # a Sunday
    "2025-12-29": dt.datetime(2025, 12, 29, tzinfo=dt.UTC),
    "2026-01-01": ObjectId.from_datetime(dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)),
    "2026-01-04": "2026-01-05T00:30:00+02:00",
    "2026-01-05": "Mon, 05 Jan 2026 00:00:00 GMT",
    "2026-01-31": 20260131,
    "2026-02-01": "2026-01-31T23:30:00-02:00",
}
# The days of the documents in each partition.
PARTITIONS: dict[Period, dict[str, list[str]]] = {
    "day": {day: [day] for day in DATES if day >= "2026-01-01"},
    "week": {
        "2025-12-29": ["2025-12-29", "2026-01-01", "2026-01-04"],
        "2026-01-05": ["2026-01-05"],
        "2026-01-26": ["2026-01-31", "2026-02-01"],
    },
    "month": {
        "2026-01-01": ["2026-01-01", "2026-01-04", "2026-01-05", "2026-01-31"],
        "2026-02-01": ["2026-02-01"],
    },
}


def settings_of(period: Period, **sections: Any) -> Settings:
    return Settings.model_validate(
        {"start_date": START, "partitions": {"period": period}, **sections}
    )


def documents() -> list[dict[str, Any]]:
    """One document per date, in which its image is named after its day."""
    return [
        {
            "_id": value if isinstance(value, ObjectId) else day,
            "product_retailer": "Zara",
            "product_images": [f"http://shop/{day}.jpg"],
            **({} if isinstance(value, ObjectId) else {"scraped_at": value}),
        }
        for day, value in DATES.items()
    ]


@pytest.mark.parametrize("period", PERIODS)
def test_every_day_is_in_exactly_one_partition_named_by_its_first_day(period: Period) -> None:
    days = [START + dt.timedelta(days=number) for number in range(-400, 800)]
    firsts = first_days(days[0], days[-1], period)
    assert {day for first in firsts for day in days_of(first, period)} >= set(days)
    for first in firsts:
        own = days_of(first, period)
        assert own[0] == first == first_day(first, period)
        assert 1 <= len(own) <= MAX_DAYS
        assert {first_day(day, period) for day in own} == {first}
    assert last_first_days(days[-1], len(firsts), period) == firsts
    assert first_days(START, START - dt.timedelta(days=1), period) == []


@pytest.mark.parametrize("period", PERIODS)
def test_dagster_has_the_partitions_that_days_are_mapped_to(period: Period) -> None:
    dates = catalogue_partitions(START, period).get_partitions_def_for_dimension("date")
    for moment in ("2026-01-04T23:59", "2026-01-05T00:00", "2026-01-31T23:59", "2028-02-29T12:00"):
        now = dt.datetime.fromisoformat(moment).replace(tzinfo=dt.UTC)
        expected = [str(day) for day in first_days(START, now.date(), period)]
        assert list(dates.get_partition_keys(current_time=now)) == expected


@pytest.mark.parametrize("period", PERIODS)
def test_partitions_of_another_period_than_that_of_the_settings_are_refused(
    period: Period,
) -> None:
    for other in PERIODS:
        partitions = catalogue_partitions(START, other)
        if other == period:
            Scope(settings_of(period), (), partitions)
        else:
            sentence = f"a date of the partitions is a {other}, but partitions.period is {period}"
            with pytest.raises(ValueError, match=sentence):
                Scope(settings_of(period), (), partitions)


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        ("2025-12-28", dict.fromkeys(PERIODS, Anomaly.BEFORE_START_DATE)),
        ("2025-12-31", {"day": Anomaly.BEFORE_START_DATE, "month": Anomaly.BEFORE_START_DATE}),
        ("2026-03-05", {}),
        ("2026-03-08", {"day": Anomaly.IN_FUTURE}),
        ("2026-03-31", {"day": Anomaly.IN_FUTURE, "week": Anomaly.IN_FUTURE}),
        ("2026-04-01", dict.fromkeys(PERIODS, Anomaly.IN_FUTURE)),
    ],
)
def test_a_day_has_a_partition_if_its_week_or_month_has_begun(
    day: str, expected: dict[str, Anomaly], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgassets.sources.listing.today", lambda: dt.date(2026, 3, 5))
    for period in PERIODS:
        found = day_anomaly(dt.date.fromisoformat(day), START, period)
        assert found is expected.get(period), period


@pytest.mark.parametrize("period", PERIODS)
def test_survey_listing_and_sensor_agree_on_the_partition_of_each_document(
    mongodb_uri: str, mongo_database: Products, period: Period
) -> None:
    mongo_database["products"].insert_many(documents())
    expected = PARTITIONS[period]
    options = {"source": {"database": mongo_database.name}}
    settings = settings_of(period, sensor={"start_from": "everything"}, **options)
    source = open_source(settings, lambda: mongodb_uri)

    inventory = source.inventory()
    counts = {("zara", first): len(days) for first, days in expected.items()}
    assert inventory.partitions(period) == counts
    listings = {first: source.listing(first, "zara") for first in expected}
    rows = {first: listing.rows for first, listing in listings.items()}
    assert {first: sorted(row.date for row in own) for first, own in rows.items()} == expected
    assert all(row.url == f"http://shop/{row.date}.jpg" for own in rows.values() for row in own)
    assert {("zara", first): each.documents for first, each in listings.items()} == counts

    changes = open_changes(settings, mongodb_uri)
    result = scan(changes.initial_cursor(), changes.pages, now=1e9, out_of_time=lambda: False)
    due = due_partitions(result, settings.sensor, now=2e9, today=dt.date(2026, 3, 1))
    assert set(due) == {f"{first}|zara" for first in expected}

    # The age is that of the newest document, not of its partition.
    (stale,) = stale_retailers(inventory, [], lambda _: 1, dt.date(2026, 2, 3))
    assert (stale.newest, stale.age_days) == ("2026-02-01", 2)


@pytest.mark.parametrize("period", ["week", "month"])
def test_a_sensor_starts_over_if_the_period_was_changed(
    mongodb_uri: str, mongo_database: Products, period: Period
) -> None:
    source = {"source": {"database": mongo_database.name}}
    usual, other = (
        open_changes(settings_of(each, **source), mongodb_uri).initial_cursor().source
        for each in ("day", period)
    )
    assert usual == f"{mongo_database.name}.products"
    assert other == f"{usual} by {period}"


@pytest.mark.parametrize("by_day", [False, True], ids=["all records", "records of a day"])
def test_records_of_a_product_on_several_days_are_several_documents(by_day: bool) -> None:
    records = [
        {"url": f"http://shop/{url}", "retailer": "Zara", "date": day, "product_id": "coat"}
        for day, url in [
            ("2026-01-05", "a"),
            ("2026-01-05", "b"),
            ("2026-01-07", "a"),
            ("2026-01-12", "a"),
        ]
    ]
    asked: list[str | None] = []

    def read_day(date: str | None) -> Iterator[dict[str, str]]:
        asked.append(date)
        yield from records  # more than requested, which is allowed

    source = TableSource(
        read_day if by_day else lambda: records, SourceSettings(), START, period="week"
    )
    listing = source.listing("2026-01-05", "zara")
    assert [(row.date, row.product_id, row.url[-1]) for row in listing.rows] == [
        ("2026-01-05", "coat", "a"),
        ("2026-01-05", "coat", "b"),
        ("2026-01-07", "coat", "a"),
    ]
    assert len({row.key for row in listing.rows}) == 3
    assert listing.documents == source.inventory().partitions("week")["zara", "2026-01-05"] == 2
    week = [f"2026-01-{day:02}" for day in range(5, 12)]
    assert asked == ([*week, None] if by_day else [])


@dataclass
class Deployment:
    """Settings with a period, documents in MongoDB, an image server and a Dagster instance."""

    period: Period
    products: Any
    shop: CatalogueServer
    instance: dg.DagsterInstance

    def insert(self, day: str, *images: str) -> None:
        """Insert a document of a day, as a scraper does that lists the product again."""
        self.products.insert_one(
            {
                "product_retailer": "Zara",
                "product_images": [f"{self.shop.url}/{name}.jpg" for name in images],
                "scraped_at": f"{day}T12:00:00Z",
            }
        )

    def run(self, date: str, *selection: str) -> dg.ExecuteInProcessResult:
        """Materialize assets of a partition."""
        job = dg.define_asset_job("job", selection=list(selection))
        defs = dg.Definitions.merge(project_defs(), dg.Definitions(jobs=[job]))
        key = date if selection == ("daily_report",) else Partition(date, "zara").key
        return defs.resolve_job_def("job").execute_in_process(
            instance=self.instance, partition_key=key
        )


@pytest.fixture(params=["week", "month"])
def deployment(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    mongodb_uri: str,
    mongo_database: Products,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Deployment]:
    monkeypatch.setenv("IMGASSETS__DATA_ROOT", str(tmp_path / "data"))
    for name in "abc":
        (tmp_path / "shop").mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (ord(name), 0, 0)).save(tmp_path / "shop" / f"{name}.jpg")
    (tmp_path / "dagster_home").mkdir()
    monkeypatch.setenv("MONGODB_URI", mongodb_uri)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster_home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("IMGASSETS__SOURCE__DATABASE", mongo_database.name)
    monkeypatch.setenv("IMGASSETS__START_DATE", str(START))
    monkeypatch.setenv("IMGASSETS__PARTITIONS__PERIOD", request.param)
    monkeypatch.setenv("IMGASSETS__DOWNLOAD__ALLOW_PRIVATE_ADDRESSES", "true")
    monkeypatch.setenv("IMGASSETS__DOWNLOAD__ROBOTS", "false")
    monkeypatch.setenv("IMGASSETS__DOWNLOAD__OPT_OUTS", "[]")
    load_settings.cache_clear()
    with (
        CatalogueServer(tmp_path / "shop") as shop,
        dg.DagsterInstance.from_config(str(tmp_path / "dagster_home")) as instance,
    ):
        instance.add_dynamic_partitions("retailer", ["zara"])
        yield Deployment(request.param, mongo_database["products"], shop, instance)
    load_settings.cache_clear()


def test_runs_readers_reports_and_commands_agree_on_the_partitions(
    deployment: Deployment,
) -> None:
    # The partitions of 5 and of 12 January, or of January and February.
    first, second = (
        ("2026-01-05", "2026-01-12")
        if deployment.period == "week"
        else ("2026-01-01", "2026-02-01")
    )
    late = "2026-01-11" if deployment.period == "week" else "2026-01-31"
    deployment.insert("2026-01-06", "a", "b")
    deployment.insert(late, "a")
    deployment.insert(second, "a", "c")

    keys = [f"{first}|zara", f"{second}|zara"]
    status = command("status", "--since", "2026-01-07", "--until", second)
    assert status[-2:] == [f"{key}: no processed images" for key in keys]
    assert f"{deployment.period}s" in "".join(status)
    selected = command("backfill", "--start", "2026-01-07", "--end", late, "--dry-run")
    assert selected == [f"{keys[0]}: no processed images", "1 partition; nothing was launched"]

    assets = ("url_list", "raw_images", "processed_images", "face_model")
    for date in (first, second):
        assert deployment.run(date, *assets).success
    manifests = list_manifests(open_storage(load_settings()), "processed_images")
    assert [each.date for each in manifests] == [first, second]
    assert dict(deployment.shop.requests) == {"/a.jpg": 1, "/b.jpg": 1, "/c.jpg": 1}
    assert named() == [
        ("2026-01-06", "a"),
        ("2026-01-06", "b"),
        (late, "a"),
        (second, "a"),
        (second, "c"),
    ]
    reused = imgassets.read_manifest("raw_images").dropna(subset="reused_from")
    origins = reused[["date", "reused_from"]].astype(str).to_numpy().tolist()
    assert origins == [[second, first]]
    # Rows are selected by their own day.
    assert named(start="2026-01-07", end=late) == [(late, "a")]
    assert named(start=late) == [(late, "a"), (second, "a"), (second, "c")]
    assert named(end="2026-01-06") == [("2026-01-06", "a"), ("2026-01-06", "b")]
    assert named(start="2026-01-07", end="2026-01-08") == []

    assert deployment.run(first, "daily_report").success
    day = load_days(open_storage(load_settings()), [first])[first].by_retailer["zara"]
    assert (day.documents, day.urls, day.images) == (2, 3, 3)
    report = command("report", "--since", "2026-01-06", "--until", "2026-01-08")
    assert report[0].startswith(f"{first} (as of")
    deployment.insert("2026-01-09", "b")
    changed = command("status", "--since", "2026-01-07", "--until", late)[-1]
    assert changed == f"{keys[0]}: 3 documents in the source, 2 when it was made"


def test_weeks_and_months_can_follow_days_and_reuse_their_images(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def set_options(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"IMGASSETS__{name}", value)
        load_settings.cache_clear()

    deployment.insert("2026-01-31", "a", "b")
    set_options(PARTITIONS__PERIOD="day")
    assert deployment.run("2026-01-31", "url_list", "raw_images").success
    deployment.insert("2026-02-02", "a", "c")
    start = "2026-02-02" if deployment.period == "week" else "2026-02-01"
    set_options(PARTITIONS__PERIOD=deployment.period, START_DATE=start)
    assert command("status", "--since", "2026-01-31", "--until", "2026-02-03")[-1] == (
        f"{start}|zara: no processed images"
    )
    assert deployment.run(start, "url_list", "raw_images").success
    assert dict(deployment.shop.requests) == {"/a.jpg": 1, "/b.jpg": 1, "/c.jpg": 1}
    days = [("2026-01-31", "a"), ("2026-01-31", "b"), ("2026-02-02", "a"), ("2026-02-02", "c")]
    assert named() == days
    assert named(start="2026-02-01") == days[2:]


def command(*arguments: str) -> list[str]:
    """The lines that a command of imgassets prints."""
    return CliRunner().invoke(cli, arguments).output.rstrip().splitlines()


def named(start: str | None = None, end: str | None = None) -> list[tuple[str, str]]:
    """Days and image names of the rows of `raw_images`, sorted."""
    rows = imgassets.read_manifest("raw_images", start=start, end=end)
    return sorted(zip(rows["date"].astype(str), rows["url"].str[-5], strict=True))


def test_schedules_request_the_partition_of_yesterday_every_day(deployment: Deployment) -> None:
    repository = project_defs().get_repository_def()
    expected = {"week": ["2026-01-26", "2026-02-02"], "month": ["2026-02-01", "2026-02-01"]}
    requests: dict[str, list[dg.RunRequest]] = {"every_day": [], "daily_report_schedule": []}
    for (name, found), day in itertools.product(requests.items(), (2, 3)):  # Monday, Tuesday
        context = dg.build_schedule_context(
            instance=deployment.instance,
            scheduled_execution_time=dt.datetime(2026, 2, day, 1, tzinfo=dt.UTC),
            repository_def=repository,
        )
        with warnings.catch_warnings():
            # Dagster 1.13 warns about the names of its own tags.
            warnings.simplefilter("ignore", DeprecationWarning)
            data = repository.get_schedule_def(name).evaluate_tick(context)
        found.extend(data.run_requests or [])
    runs, reports = requests.values()
    assert [run.tags["dagster/partition/date"] for run in runs] == expected[deployment.period]
    assert [report.partition_key for report in reports] == expected[deployment.period]
    # The runs of the second day are not taken for those of the first.
    assert len({run.run_key for run in (*runs, *reports)}) == 4


def test_a_key_inside_of_a_week_is_refused_with_the_first_day_of_its_partition() -> None:
    start = dt.date(2025, 12, 29)
    assert unknown_partition("2026-01-07|zara", "url_list", start, "week", ["zara"]) == (
        "there is no partition '2026-01-07|zara': 2026-01-07 is in the partition of the week that "
        "starts on 2026-01-05"
    )


@pytest.mark.parametrize(
    ("retailers", "period", "expected"),
    [
        (1, "day", "ok: 64 (1 retailer x 64 days since start_date); Dagster advises at most"),
        (1000, "day", "warning: 64,000 (1,000 retailers x 64 days since start_date); "),
        (1000, "day", "which these retailers exceed on 2026-04-11; set partitions.period: week"),
        (2000, "day", "warning: 128,000 (2,000 retailers x 64 days since start_date); "),
        (2000, "day", "per asset; set partitions.period: week or month, a later start_date"),
        (1000, "week", "ok: 10,000 (1,000 retailers x 10 weeks since start_date); "),
        (9000, "week", "which these retailers exceed on 2026-03-16; set partitions.period: month"),
        (9000, "month", "ok: 27,000 (9,000 retailers x 3 months since start_date); "),
        (40_000, "month", "warning: 120,000 (40,000 retailers x 3 months since start_date); "),
        (40_000, "month", "per asset; set a later start_date, which hides older partitions"),
        (200_000, "month", "warning: 600,000 (200,000 retailers x 3 months since start_date)"),
    ],
)
def test_doctor_warns_in_time_of_more_partitions_than_dagster_advises(
    retailers: int, period: Period, expected: str
) -> None:
    found = partition_count(settings_of(period), retailers, dt.date(2026, 3, 5))
    assert expected in f"{found.status}: {found.message}"


def test_doctor_warns_of_manifests_of_another_period(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(load_settings())
    for day in ("2025-12-24", "2026-01-07", "2026-01-08"):
        storage.partition(day, "zara").write_manifest("url_list", to_table([], UrlRow))

    def warnings_of_period() -> list[str]:
        load_settings.cache_clear()
        found = diagnose(mongodb_address)
        return [each.message for each in found if "partitions.period was changed" in each.message]

    (found,) = warnings_of_period()
    assert f"2 days since start_date that start no {deployment.period}" in found
    monkeypatch.setenv("IMGASSETS__START_DATE", "2026-02-02")
    assert warnings_of_period() == []
