"""Tests of the sensors with a real MongoDB, Dagster instance and HTTP server."""

import contextlib
import datetime as dt
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from bson import ObjectId
from pymongo.database import Database

from imgassets.configuration import load_settings
from imgassets.defs import sensors
from imgassets.defs.failed_checks import FailedCheck, tag_run
from imgassets.defs.resources import MongoDBResource
from imgassets.defs.webhook import failure_message
from imgassets.errors import SourceError, WebhookError
from imgassets.sources import mongo_changes, mongodb
from imgassets.sources.mongo_changes import MongoChanges
from imgassets_tests.project import project_defs, project_scope

NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
Products = Database[dict[str, Any]]
Tick = Callable[[], dg.SensorResult]


def document(retailer: object = "Zara", **values: Any) -> dict[str, Any]:
    usual = {"product_retailer": retailer, "product_images": ["http://a"], "scraped_at": NOON}
    return {name: value for name, value in {**usual, **values}.items() if value is not ...}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def option(
    mongodb_uri: str, mongo_database: Products, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], None]]:
    """A function that sets an option of the sensor, which reads this test's database."""

    def set_option(name: str, value: str) -> None:
        monkeypatch.setenv(f"IMGASSETS__{name}", value)
        load_settings.cache_clear()

    monkeypatch.setenv("MONGODB_URI", mongodb_uri)
    set_option("SOURCE__DATABASE", mongo_database.name)
    yield set_option
    load_settings.cache_clear()


@pytest.fixture
def tick(option: Callable[[str, str], None], instance: dg.DagsterInstance) -> Tick:
    """A function that runs one tick of the sensor and applies its result, as the daemon does."""
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
    """Evaluate one tick of the sensor."""
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    return sensors.evaluate_tick(context, project_scope(), MongoDBResource())


def failed_checks(context: Any) -> None:
    """Call the sensor for one run that succeeded."""
    sensor: Any = project_defs().get_repository_def().get_sensor_def("failed_checks")
    sensor(context)


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
    assert "2 retailers; the next ones read the changes from now on" in reason(first)
    assert set(instance.get_dynamic_partitions("retailer")) == {"zara", "nord-sol"}
    assert asked(tick()) == set()


def test_with_start_from_everything_existing_documents_are_run_a_few_per_tick(
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
    assert reason(tick()) == "no changes"


def test_a_partition_waits_until_its_documents_no_longer_change(
    tick: Tick, mongo_database: Products, option: Callable[[str, str], None]
) -> None:
    tick()
    option("SENSOR__SETTLE_S", "3600")
    mongo_database["products"].insert_one(document())
    assert reason(tick()) == (
        "waiting until documents stop changing: 1 changed partition (sensor.settle_s)"
    )
    option("SENSOR__SETTLE_S", "0")
    assert asked(tick()) == {"2026-01-02|zara"}


def test_names_with_one_slug_are_one_retailer(
    tick: Tick, mongo_database: Products, instance: dg.DagsterInstance
) -> None:
    tick()
    mongo_database["products"].insert_many([document("Zara"), document("ZARA "), document("Asos")])
    assert asked(tick()) == {"2026-01-02|asos", "2026-01-02|zara"}
    assert set(instance.get_dynamic_partitions("retailer")) == {"asos", "zara"}


def test_a_collection_per_retailer_is_followed_also_if_it_is_new(
    tick: Tick,
    mongo_database: Products,
    instance: dg.DagsterInstance,
    option: Callable[[str, str], None],
) -> None:
    option("SOURCE__COLLECTION", "products_*")
    mongo_database["products_zara"].insert_one(document(...))
    assert reason(tick()) == (
        f"first scan of {mongo_database.name}.products_*: 1 retailer; the next ones read the "
        "changes from now on"
    )
    mongo_database["products_zara"].insert_one(document(...))
    mongo_database["products_asos"].insert_one(document(...))
    assert asked(tick()) == {"2026-01-02|zara", "2026-01-02|asos"}
    assert set(instance.get_dynamic_partitions("retailer")) == {"zara", "asos"}
    assert reason(tick()) == "no changes"


def test_an_unreachable_mongodb_skips_the_tick_with_a_reason_and_no_change_is_lost(
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
        message = reason(tick())
        assert message.startswith("MongoDB at mongodb://127.0.0.1:9 cannot be reached")
        assert "s3cret" not in message
        assert "\n" not in message
    monkeypatch.setenv("MONGODB_URI", mongodb_uri)
    assert asked(tick()) == {"2026-01-02|zara"}


def test_the_cursor_is_kept_if_the_retailer_names_cannot_be_read(
    tick: Tick, mongo_database: Products, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(_: object) -> set[str]:
        raise SourceError("MongoDB took too long")

    tick()
    mongo_database["products"].insert_one(document())
    with monkeypatch.context() as late:
        late.setattr(MongoChanges, "retailers", too_late)
        result = tick()
    assert reason(result) == "MongoDB took too long"
    assert "2026-01-02|zara" in str(result.cursor)
    assert asked(tick()) == {"2026-01-02|zara"}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["stream", "poll"])
def test_a_tick_during_a_burst_of_100_000_documents_ends_in_time_and_the_next_continues(
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
    # Each tick has time for one page only.
    monkeypatch.setattr(mongo_changes, "READ_SECONDS", 0)
    requested, ticks = set[str](), 0
    while len(requested) < 77:
        result = tick()
        assert not asked(result) & requested
        requested |= asked(result)
        ticks += 1
        assert ticks < 100
    assert ticks > 3
    assert asked(tick()) == set()


def test_after_a_change_of_the_collection_the_sensor_starts_over(
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
    # The runs that it requests are tested with Dagster's daemon in `life`.
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
def test_a_broken_cursor_skips_the_tick_and_says_how_to_reset_it(
    instance: dg.DagsterInstance,
) -> None:
    result = new_documents(instance, cursor="{}")
    assert isinstance(result, dg.SkipReason)
    assert "reset it on the sensor's page" in str(result.skip_message)


def test_for_a_csv_source_the_tick_is_skipped_and_names_the_schedule(
    option: Callable[[str, str], None], instance: dg.DagsterInstance
) -> None:
    option("SOURCE__KIND", "csv")
    option("SOURCE__PATH", "urls.csv")
    result = new_documents(instance)
    assert isinstance(result, dg.SkipReason)
    assert "source.kind is csv" in str(result.skip_message)


@pytest.mark.parametrize(
    ("enabled", "interval", "shown"), [("false", "30", "STOPPED 30"), ("true", "7", "RUNNING 7")]
)
def test_status_and_interval_of_the_sensor_come_from_the_settings(
    enabled: str, interval: str, shown: str
) -> None:
    # In a subprocess, because the definitions read the settings when they are imported.
    program = (
        "from imgassets.definitions import defs; "
        "s = defs.get_repository_def().get_sensor_def('new_documents'); "
        "print(s.default_status.name, s.minimum_interval_seconds)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
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
    """A real HTTP server that records what is posted to it.

    Attributes:
        statuses: The statuses to answer with; the last one is that of all further answers.
        drips: Whether a header is sent every 0.1 s without an end.
    """

    def __init__(self) -> None:
        self.statuses = [200]
        self.drips = False
        self.posted: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                outer.posted.append(json.loads(self.rfile.read(length)))
                statuses = outer.statuses
                self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
                with contextlib.suppress(OSError):
                    while outer.drips:
                        self.flush_headers()
                        self.send_header("X-More", "to come")
                        time.sleep(0.1)
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
    monkeypatch.setattr("imgassets.defs.webhook.PAUSES_S", (0, 0))
    try:
        yield hook
    finally:
        hook.drips = False
        hook.server.shutdown()
        hook.server.server_close()
        thread.join()


@dg.op
def telling() -> None:
    """Fails with a message that is written for users."""
    raise dg.Failure("url_list of 2026-01-02|zara was never materialized; materialize it first")


@dg.op
def leaking() -> None:
    """Fails with the message of a library, which contains a secret."""
    raise ValueError("cannot open mongodb://user:s3cret@host/")


@dg.job(name="catalogue_job")
def failing() -> None:
    """A job with two failures."""
    telling()
    leaking()


@dg.op
def nothing() -> None:
    """Succeeds."""


@dg.job(name="catalogue_job")
def passing() -> None:
    """A job without a failure."""
    nothing()


@dg.job
def theirs() -> None:
    """A job of the same code location that does not belong to imgassets."""
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


def test_a_failed_run_is_posted_with_names_and_messages_but_no_secret(
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


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(name, asset="raw_images")
        for name in ("duplicate_images", "download_success_rate", "raw_files_match_rows")
    ]
)
def their_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Two checks that fail, with a URL in a description, and one that passes."""
    descriptions = {
        "duplicate_images": "12 products share https://shop.example/a.jpg?key=s3cret today",
        "download_success_rate": "3 of 10 URLs gave an image",
        "raw_files_match_rows": "",
    }
    for key in sorted(context.selected_asset_check_keys, key=str):
        text = descriptions[key.name]
        warn = dg.AssetCheckSeverity.WARN
        result = dg.AssetCheckResult(
            passed=not text, check_name=key.name, description=text, severity=warn
        )
        tag_run(context, [(key.name, result)])
        yield result


def checked(instance: dg.DagsterInstance, job: str = "catalogue_job") -> tuple[dg.DagsterRun, Any]:
    """The context of a status sensor after a run with failed checks."""
    defs = dg.Definitions(
        asset_checks=[their_checks],
        jobs=[dg.define_asset_job(job, selection=dg.AssetSelection.all_asset_checks())],
    )
    result = defs.resolve_job_def(job).execute_in_process(instance=instance)
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    context = dg.build_run_status_sensor_context(
        sensor_name="failed_checks",
        dagster_instance=instance,
        dagster_run=run,
        dagster_event=result.get_run_success_event(),
    )
    return run, context


def test_failed_checks_of_a_run_that_succeeded_are_posted_in_one_message_without_urls(
    webhook: Webhook, instance: dg.DagsterInstance
) -> None:
    run, context = checked(instance)
    assert run.tags["imgassets/failed_check"] == "true"
    names = "download_success_rate=warn duplicate_images=warn"
    assert run.tags["imgassets/failed_checks"] == names
    failed_checks(context)
    (message,) = webhook.posted
    assert message["checks"] == {
        "download_success_rate": "3 of 10 URLs gave an image",
        "duplicate_images": "12 products share (URL) today",
    }
    assert message["text"].splitlines() == [
        "imgassets: catalogue_job succeeded, but checks failed",
        "download_success_rate: 3 of 10 URLs gave an image",
        "duplicate_images: 12 products share (URL) today",
        f"run {run.run_id}",
    ]


def test_nothing_is_posted_for_good_runs_other_jobs_and_tags_that_a_retry_inherits(
    webhook: Webhook, instance: dg.DagsterInstance
) -> None:
    _, theirs = checked(instance, job="their_job")
    failed_checks(theirs)
    inherited = {"imgassets/failed_check": "true", "imgassets/failed_checks": "trim_ratios=warn"}
    for tags in ({}, inherited):
        result = passing.execute_in_process(instance=instance, tags=tags)
        failed_checks(
            dg.build_run_status_sensor_context(
                sensor_name="failed_checks",
                dagster_instance=instance,
                dagster_run=result.dagster_run,
                dagster_event=result.get_run_success_event(),
            )
        )
    assert webhook.posted == []


def test_each_run_with_failed_checks_is_posted_once(
    webhook: Webhook, instance: dg.DagsterInstance
) -> None:
    sensor = project_defs().get_repository_def().get_sensor_def("failed_checks")

    def evaluate(cursor: str | None) -> str | None:
        context = dg.build_sensor_context(instance=instance, cursor=cursor)
        return sensor.evaluate_tick(context).cursor

    cursor = evaluate(None)  # from now on
    run, _ = checked(instance)
    for _ in range(3):
        cursor = evaluate(cursor)
    assert [message["run_id"] for message in webhook.posted] == [run.run_id]


def test_a_check_that_passes_in_a_retry_is_removed_from_the_tag(
    instance: dg.DagsterInstance,
) -> None:
    def run(tags: dict[str, str], *, passed: bool) -> dict[str, str]:
        @dg.asset_check(asset="raw_images")
        def trim_ratios(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
            result = dg.AssetCheckResult(passed=passed)
            tag_run(context, [("trim_ratios", result)])
            return result

        selection = dg.AssetSelection.all_asset_checks()
        defs = dg.Definitions(
            asset_checks=[trim_ratios], jobs=[dg.define_asset_job("job", selection)]
        )
        job = defs.resolve_job_def("job")
        done = instance.get_run_by_id(job.execute_in_process(instance=instance, tags=tags).run_id)
        assert done is not None
        return {name: done.tags[name] for name in done.tags if name.startswith("imgassets/")}

    assert run({}, passed=True) == {}
    failed = run({}, passed=False)
    assert failed == {
        "imgassets/failed_check": "true",
        "imgassets/failed_checks": "trim_ratios=error",
    }
    assert run(failed, passed=True) == {
        "imgassets/failed_check": "false",
        "imgassets/failed_checks": "none",
    }


def test_two_steps_that_end_together_leave_the_tags_of_both(tmp_path: Path) -> None:
    """Each step reads the tags before the other has written its own, if nothing prevents that."""
    both = threading.Barrier(2)

    class Slow(SimpleNamespace):
        def get_run_by_id(self, run_id: str) -> dg.DagsterRun | None:
            found = storage.get_run_by_id(run_id)
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(0.5)
            return found

    with dg.DagsterInstance.local_temp(str(tmp_path)) as storage:
        run = passing.execute_in_process(instance=storage).dagster_run
        slow = Slow(add_run_tags=storage.add_run_tags)
        context: Any = SimpleNamespace(run=run, instance=slow)
        results = [
            (name, dg.AssetCheckResult(passed=False))
            for name in ("download_success_rate", "trim_ratios")
        ]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda result: tag_run(context, [result]), results))
        (found,) = storage.get_runs(dg.RunsFilter(tags={"imgassets/failed_check": "true"}))
    names = "download_success_rate=error trim_ratios=error"
    assert found.tags["imgassets/failed_checks"] == names


def test_a_failed_run_is_posted_with_its_failed_checks_once(instance: dg.DagsterInstance) -> None:
    """The description of a check that is also the reason of the failure is not repeated."""
    context = failure(instance)
    reason = "url_list of 2026-01-02|zara was never materialized; materialize it first"
    checks = [FailedCheck("a", "error", reason), FailedCheck("b", "warn", "too few images")]
    failures = context.get_step_failure_events()
    message = failure_message(context.dagster_run, failures, checks)
    assert message["checks"] == {"a": reason, "b": "too few images"}
    assert message["text"].count(reason) == 1
    assert "b: too few images" in message["text"]


def test_without_a_webhook_url_nothing_is_posted(
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
def test_an_error_status_of_the_webhook_is_reported_without_its_url(
    webhook: Webhook, instance: dg.DagsterInstance, status: int
) -> None:
    webhook.statuses = [status]
    with pytest.raises(WebhookError, match=f"WEBHOOK_URL answered with status {status}") as error:
        failed_runs(failure(instance))
    assert "t0ken" not in str(error.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/t0ken", "t0ken", "http://t0ken..host/"])
def test_an_unreachable_webhook_is_reported_without_its_url(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("IMGASSETS_WEBHOOK_URL", url)
    monkeypatch.setattr("imgassets.defs.webhook.PAUSES_S", (0,))
    with pytest.raises(WebhookError, match="cannot reach the webhook") as error:
        failed_runs(failure(instance))
    assert "t0ken" not in str(error.value)
    assert error.value.__context__ is None


@pytest.mark.parametrize(
    ("statuses", "attempts"), [([503, 429, 200], 3), ([500], 3), ([404], 1), ([302], 1)]
)
def test_a_message_is_posted_again_while_the_webhook_is_briefly_out_of_order(
    webhook: Webhook, instance: dg.DagsterInstance, statuses: list[int], attempts: int
) -> None:
    webhook.statuses = list(statuses)
    context = failure(instance)
    refused = statuses[-1] != 200
    with pytest.raises(WebhookError) if refused else contextlib.nullcontext():
        failed_runs(context)
    assert len(webhook.posted) == attempts


def test_an_answer_without_an_end_is_given_up_and_not_requested_again(
    webhook: Webhook, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick that takes over 60 s is stopped, and the next one posts all its messages again."""
    monkeypatch.setattr("imgassets.defs.webhook.TIMEOUT_S", 1)
    webhook.drips = True
    with pytest.raises(WebhookError, match="gave no answer in 1 s"):
        failed_runs(failure(instance))
    assert len(webhook.posted) == 1


def test_an_unreachable_webhook_does_not_block_later_notifications(
    webhook: Webhook, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(cursor: str | None) -> Any:
        context = dg.build_sensor_context(instance=instance, cursor=cursor)
        return (
            project_defs().get_repository_def().get_sensor_def("failed_runs").evaluate_tick(context)
        )

    cursor = evaluate(None).cursor  # from now on
    monkeypatch.setattr("imgassets.defs.webhook.PAUSES_S", ())
    webhook.statuses = [500]
    failure(instance)
    failure(instance)
    result = evaluate(cursor)
    errors = [reaction.error for reaction in result.dagster_run_reactions]
    assert all(error is not None and "with status 500" in error.message for error in errors)
    assert "t0ken" not in repr(errors)
    while len(webhook.posted) < 2:
        result = evaluate(result.cursor)
    webhook.statuses = [200]
    failure(instance)
    result = evaluate(result.cursor)
    assert len(webhook.posted) == 3
    assert [reaction.error for reaction in result.dagster_run_reactions] == [None]
    evaluate(result.cursor)
    assert len(webhook.posted) == 3
