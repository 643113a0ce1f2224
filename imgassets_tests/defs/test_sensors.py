"""The sensors on a real MongoDB, a real Dagster instance and a real HTTP server."""

import datetime as dt
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pytest
from bson import ObjectId
from pymongo.database import Database

from imgassets.configuration import load_settings
from imgassets.defs import sensors
from imgassets.defs.resources import MongoDBResource
from imgassets.defs.webhook import WebhookError
from imgassets.sources import mongo_changes, mongodb
from imgassets.sources.listing import SourceError
from imgassets.sources.mongo_changes import MongoChanges
from imgassets_tests.project import project_defs, project_scope

NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
Products = Database[dict[str, Any]]
Tick = Callable[[], dg.SensorResult]


def document(retailer: object = "Zara", **values: Any) -> dict[str, Any]:
    usual = {"product_retailer": retailer, "product_images": ["http://a"], "scraped_at": NOON}
    return {**usual, **values}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def option(
    mongodb_uri: str, mongo_database: Products, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], None]]:
    """Sets options of the sensor, which follows this test's database."""

    def set_option(name: str, value: str) -> None:
        monkeypatch.setenv(f"IMGASSETS__{name}", value)
        load_settings.cache_clear()

    monkeypatch.setenv("MONGODB_URI", mongodb_uri)
    set_option("SOURCE__DATABASE", mongo_database.name)
    yield set_option
    load_settings.cache_clear()


@pytest.fixture
def tick(option: Callable[[str, str], None], instance: dg.DagsterInstance) -> Tick:
    """One tick of the sensor, whose answer is carried out as the daemon does."""
    option("SENSOR__SETTLE_S", "0")
    cursor: list[str | None] = [None]

    def run() -> dg.SensorResult:
        result = new_documents(instance, cursor[0])
        if isinstance(result, dg.SkipReason):
            return dg.SensorResult(skip_reason=result, cursor=cursor[0])
        assert isinstance(result, dg.SensorResult)
        for request in result.dynamic_partitions_requests or []:
            assert isinstance(request, dg.AddDynamicPartitionsRequest)
            instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
        cursor[0] = result.cursor
        return result

    return run


def new_documents(
    instance: dg.DagsterInstance, cursor: str | None = None
) -> dg.SensorResult | dg.SkipReason:
    """What the sensor answers in one tick."""
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    return sensors.tick(context, project_scope(), MongoDBResource())


def failed_runs(context: Any) -> None:
    """Call the sensor for one failed run."""
    sensor: Any = project_defs().get_repository_def().get_sensor_def("failed_runs")
    sensor(context)


def asked(result: dg.SensorResult) -> set[str]:
    return {str(request.partition_key) for request in result.run_requests or []}


def reason(result: dg.SensorResult) -> str:
    assert result.skip_reason is not None
    return str(result.skip_reason.skip_message)


def test_the_first_tick_registers_retailers_and_launches_nothing(
    tick: Tick, mongo_database: Products, instance: dg.DagsterInstance
) -> None:
    days = [NOON + dt.timedelta(days=day) for day in range(200)]
    mongo_database["products"].insert_many(
        document(name, scraped_at=day) for day in days for name in ("Zara", "Nord & Sol")
    )
    first = tick()
    assert asked(first) == set()
    assert "2 retailers, no partitions wait for a run" in reason(first)
    assert set(instance.get_dynamic_partitions("retailer")) == {"zara", "nord-sol"}
    assert asked(tick()) == set()


def test_a_database_of_years_is_worked_off_a_few_runs_a_tick_where_the_settings_say_so(
    tick: Tick, mongo_database: Products, option: Callable[[str, str], None]
) -> None:
    option("SENSOR__START_FROM", "everything")
    option("SENSOR__MAX_RUNS", "30")
    mongo_database["products"].insert_many(
        document(scraped_at=NOON + dt.timedelta(days=day)) for day in range(70)
    )
    ticks = [asked(tick()) for _ in range(5)]
    assert [len(runs) for runs in ticks] == [0, 30, 30, 10, 0]
    assert len(set().union(*ticks)) == 70


def test_a_new_retailer_is_registered_with_its_first_run(
    tick: Tick, mongo_database: Products, instance: dg.DagsterInstance
) -> None:
    tick()
    assert instance.get_dynamic_partitions("retailer") == []
    mongo_database["products"].insert_many([document(), document(), document("Asos")])
    result = tick()
    assert asked(result) == {"2026-01-02|zara", "2026-01-02|asos"}
    assert set(instance.get_dynamic_partitions("retailer")) == {"zara", "asos"}
    assert reason(tick()) == "nothing has changed"


def test_a_partition_waits_until_its_scraper_has_left_it_alone(
    tick: Tick, mongo_database: Products, option: Callable[[str, str], None]
) -> None:
    tick()
    option("SENSOR__SETTLE_S", "3600")
    mongo_database["products"].insert_one(document())
    assert reason(tick()) == "1 touched partitions wait"
    option("SENSOR__SETTLE_S", "0")
    assert asked(tick()) == {"2026-01-02|zara"}


def test_two_names_on_one_partition_hold_it_back_and_nothing_else(
    tick: Tick, mongo_database: Products, instance: dg.DagsterInstance
) -> None:
    tick()
    products = mongo_database["products"]
    products.insert_many([document("Zara"), document("ZARA"), document("Asos")])
    assert asked(tick()) == {"2026-01-02|asos"}
    assert instance.get_dynamic_partitions("retailer") == ["asos"]
    assert asked(tick()) == set()
    products.update_many({"product_retailer": "ZARA"}, {"$set": {"product_retailer": "Zara"}})
    assert asked(tick()) == {"2026-01-02|zara"}


def test_a_mongodb_that_is_away_is_told_and_nothing_is_missed(
    tick: Tick,
    mongo_database: Products,
    mongodb_uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tick()
    mongo_database["products"].insert_one(document())
    monkeypatch.setattr(mongodb, "SERVER_SELECTION_MS", 200)
    monkeypatch.setenv("MONGODB_URI", "mongodb://user:s3cret@127.0.0.1:9/")
    for _ in range(2):
        told = reason(tick())
        assert told.startswith("MongoDB at mongodb://127.0.0.1:9 cannot be reached")
        assert "s3cret" not in told
        assert "\n" not in told
    monkeypatch.setenv("MONGODB_URI", mongodb_uri)
    assert asked(tick()) == {"2026-01-02|zara"}


def test_what_was_read_is_kept_where_the_names_cannot_be_asked_for(
    tick: Tick, mongo_database: Products, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(_: object) -> dict[str, list[str]]:
        raise SourceError("MongoDB took too long")

    tick()
    mongo_database["products"].insert_one(document())
    with monkeypatch.context() as late:
        late.setattr(MongoChanges, "names", too_late)
        result = tick()
    assert reason(result) == "MongoDB took too long"
    assert "2026-01-02|zara" in str(result.cursor)
    assert asked(tick()) == {"2026-01-02|zara"}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["stream", "poll"])
def test_a_tick_in_a_burst_of_100_000_documents_ends_in_time_and_the_next_goes_on(
    tick: Tick,
    mongo_database: Products,
    option: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    option("SENSOR__METHOD", method)
    option("SENSOR__MAX_RUNS", "1000")
    tick()
    mongo_database["products"].insert_many(
        document(
            f"shop {number % 7}",
            _id=ObjectId(struct.pack(">I", int(time.time()) - number % 3000) + os.urandom(8)),
            scraped_at=NOON + dt.timedelta(days=number % 11),
        )
        for number in range(100_000)
    )
    # No time but for one page a tick: far less than it has.
    monkeypatch.setattr(mongo_changes, "READ_SECONDS", 0)
    asked_for, ticks = set[str](), 0
    while len(asked_for) < 77:
        result = tick()
        assert not asked(result) & asked_for
        asked_for |= asked(result)
        ticks += 1
        assert ticks < 100
    assert ticks > 3
    assert asked(tick()) == set()


def test_another_collection_is_begun_anew(
    tick: Tick, mongo_database: Products, option: Callable[[str, str], None]
) -> None:
    tick()
    mongo_database["others"].insert_one(document("Asos"))
    option("SOURCE__COLLECTION", "others")
    assert asked(tick()) == set()
    mongo_database["others"].insert_one(document("Asos"))
    assert asked(tick()) == {"2026-01-02|asos"}


@pytest.mark.usefixtures("option")
def test_the_sensor_works_inside_the_code_location(
    mongo_database: Products, instance: dg.DagsterInstance
) -> None:
    # Runs that it requests there are tested with Dagster's daemon, in `life`.
    mongo_database["products"].insert_one(document())
    repository = project_defs().get_repository_def()
    with dg.build_sensor_context(
        instance=instance,
        repository_def=repository,
        resources={"imgassets_mongodb": MongoDBResource()},
    ) as context:
        data = repository.get_sensor_def("new_documents").evaluate_tick(context)
    (request,) = data.dynamic_partitions_requests or []
    assert list(request.partition_keys) == ["zara"]


@pytest.mark.usefixtures("option")
def test_a_broken_cursor_is_told(instance: dg.DagsterInstance) -> None:
    told = new_documents(instance, cursor="{}")
    assert isinstance(told, dg.SkipReason)
    assert "reset it on the sensor's page" in str(told.skip_message)


def test_a_source_that_is_no_mongodb_is_left_to_the_schedule(
    option: Callable[[str, str], None], instance: dg.DagsterInstance
) -> None:
    option("SOURCE__KIND", "csv")
    option("SOURCE__CSV_PATH", "urls.csv")
    told = new_documents(instance)
    assert isinstance(told, dg.SkipReason)
    assert "the source is csv" in str(told.skip_message)


@pytest.mark.parametrize(
    ("enabled", "interval", "shown"), [("false", "30", "STOPPED 30"), ("true", "7", "RUNNING 7")]
)
def test_the_sensor_starts_where_and_looks_as_often_as_the_settings_say(
    enabled: str, interval: str, shown: str
) -> None:
    # In a process of its own: definitions read the settings when they are loaded.
    asked = (
        "from imgassets.definitions import defs; "
        "s = defs.get_repository_def().get_sensor_def('new_documents'); "
        "print(s.default_status.name, s.minimum_interval_seconds)"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked],
        env={
            **os.environ,
            "IMGASSETS__SENSOR__ENABLED": enabled,
            "IMGASSETS__SENSOR__INTERVAL_S": interval,
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout == f"{shown}\n"


class Webhook:
    """A real HTTP server that notes what is posted to it."""

    def __init__(self) -> None:
        self.status = 200
        self.posted: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                outer.posted.append(json.loads(self.rfile.read(length)))
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks/t0ken"


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    hook = Webhook()
    thread = threading.Thread(target=hook.server.serve_forever)
    thread.start()
    monkeypatch.setenv("IMGASSETS_WEBHOOK_URL", hook.url)
    try:
        yield hook
    finally:
        hook.server.shutdown()
        hook.server.server_close()
        thread.join()


@dg.op
def telling() -> None:
    """Fails with a sentence that was written to be read."""
    raise dg.Failure("url_list of 2026-01-02|zara was never materialized; materialize it first")


@dg.op
def leaking() -> None:
    """Fails with whatever a library says."""
    raise ValueError("cannot open mongodb://user:s3cret@host/")


@dg.job(name="catalogue_job")
def failing() -> None:
    """A run with two failures."""
    telling()
    leaking()


@dg.job
def theirs() -> None:
    """A job of the same code location that is not one of ours."""
    leaking()


def failure(
    instance: dg.DagsterInstance, job: dg.JobDefinition = failing
) -> dg.RunFailureSensorContext:
    tags = {"dagster/partition": "2026-01-02|zara"}
    result = job.execute_in_process(instance=instance, raise_on_error=False, tags=tags)
    return dg.build_run_status_sensor_context(
        sensor_name="failed_runs",
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        dagster_event=result.get_run_failure_event(),
    ).for_run_failure()


def test_a_failed_run_is_posted_with_names_and_sentences_and_no_secret(
    webhook: Webhook, instance: dg.DagsterInstance
) -> None:
    context = failure(instance)
    failed_runs(context)
    (message,) = webhook.posted
    assert message["job"] == "catalogue_job"
    assert message["partition"] == "2026-01-02|zara"
    assert message["run_id"] == context.dagster_run.run_id
    assert message["steps"] == {
        "telling": "url_list of 2026-01-02|zara was never materialized; materialize it first",
        "leaking": "ValueError",
    }
    assert message["text"].startswith("imgassets: catalogue_job of 2026-01-02|zara failed\n")
    assert "s3cret" not in json.dumps(message)


def test_without_an_address_nothing_is_posted(
    webhook: Webhook, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGASSETS_WEBHOOK_URL", " ")
    failed_runs(failure(instance))
    assert webhook.posted == []


def test_failed_runs_of_other_jobs_are_not_posted(
    webhook: Webhook, instance: dg.DagsterInstance
) -> None:
    failed_runs(failure(instance, theirs))
    assert webhook.posted == []


def test_a_failed_run_of_selected_assets_is_posted(
    webhook: Webhook, instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions("retailer", ["zara"])
    job = project_defs().resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey("raw_images")],
        partition_key="2026-01-02|zara",
        raise_on_error=False,
    )
    failed_runs(
        dg.build_run_status_sensor_context(
            sensor_name="failed_runs",
            dagster_instance=instance,
            dagster_run=result.dagster_run,
            dagster_event=result.get_run_failure_event(),
        ).for_run_failure()
    )
    (message,) = webhook.posted
    assert "url_list of 2026-01-02|zara was never materialized" in message["text"]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_refuses_is_told_without_its_address(
    webhook: Webhook, instance: dg.DagsterInstance, status: int
) -> None:
    webhook.status = status
    with pytest.raises(WebhookError, match=f"IMGASSETS_WEBHOOK_URL answered {status}") as error:
        failed_runs(failure(instance))
    assert "t0ken" not in str(error.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/t0ken", "t0ken", "http://t0ken..host/"])
def test_a_webhook_that_is_down_is_told_without_its_address(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("IMGASSETS_WEBHOOK_URL", url)
    with pytest.raises(WebhookError, match="cannot be reached") as error:
        failed_runs(failure(instance))
    assert "t0ken" not in str(error.value)
    assert error.value.__suppress_context__


def test_a_webhook_that_is_down_harms_neither_the_run_nor_the_failures_after_it(
    webhook: Webhook, instance: dg.DagsterInstance
) -> None:
    def evaluate(cursor: str | None) -> Any:
        context = dg.build_sensor_context(instance=instance, cursor=cursor)
        return (
            project_defs().get_repository_def().get_sensor_def("failed_runs").evaluate_tick(context)
        )

    cursor = evaluate(None).cursor  # from now on
    webhook.status = 500
    failure(instance)
    failure(instance)
    result = evaluate(cursor)
    told = [reaction.error for reaction in result.dagster_run_reactions]
    assert all(error is not None and "answered 500" in error.message for error in told)
    assert "t0ken" not in repr(told)
    while len(webhook.posted) < 2:
        result = evaluate(result.cursor)
    webhook.status = 200
    failure(instance)
    result = evaluate(result.cursor)
    assert len(webhook.posted) == 3
    assert [reaction.error for reaction in result.dagster_run_reactions] == [None]
    evaluate(result.cursor)
    assert len(webhook.posted) == 3
