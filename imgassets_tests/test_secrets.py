"""Tests that the password in MongoDB's address never appears in any output.

For several faults of address and server, the tests search what Dagster stores of runs and ticks,
the output of the commands, and the webhook's messages for the password.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from imgassets.configuration import load_settings
from imgassets.defs.resources import MongoDBResource
from imgassets.defs.webhook import failure_message
from imgassets.doctor import diagnose
from imgassets.sources import mongodb
from imgassets.storage import Storage
from imgassets_tests.project import project_defs
from imgassets_tests.rows import PARTITION

# A valid address without a server; a wrong password; and passwords with unescaped characters, parts
# of which a parser takes for the host or port and quotes in its error.
ADDRESSES = [
    "mongodb://scraper:hush0hush@127.0.0.1:9/?authSource=admin",
    "mongodb://scraper:hush0hush@{server}/",
    "mongodb://scraper:hush0/hush0@127.0.0.1:9/",
    "mongodb://scraper:hush0:hush0@127.0.0.1:9/",
    "mongodb://scraper:hush0@hush0@127.0.0.1:9/",
    "mongodb://scraper:hush0?hush0@127.0.0.1:9/",
    "mongodb://scraper:hush0%hush0@127.0.0.1:9/",
    "mongodb+srv://scraper:hush0hush0@127.0.0.1/",
    "scraper:hush0hush0@127.0.0.1:9",
]


@pytest.fixture(params=ADDRESSES)
def address(
    request: pytest.FixtureRequest,
    mongodb_uri: str,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """An address that does not work, set in MONGODB_URI."""
    assert storage
    server = mongodb_uri.partition("://")[2].partition("/")[0]
    uri = str(request.param).replace("{server}", server)
    monkeypatch.setenv("MONGODB_URI", uri)
    monkeypatch.setattr(mongodb, "SERVER_SELECTION_MS", 200)
    return uri


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance on disk, so that everything it stores can be searched."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.add_dynamic_partitions("retailer", [PARTITION.retailer])
        yield instance


def assert_no_password(text: str, *expected: str) -> None:
    """Assert that the text contains one of the expected words, and no part of the password."""
    assert any(word in text for word in expected), text
    found = re.search(".{0,60}hush0.{0,60}", text)
    assert found is None, found


def test_a_failed_run_and_its_notification_do_not_contain_the_password(
    address: str,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert address
    result = (
        project_defs()
        .resolve_job_def("catalogue_job")
        .execute_in_process(instance=instance, partition_key=PARTITION.key, raise_on_error=False)
    )
    assert not result.success
    failures = result.get_step_failure_events()
    message = json.dumps(failure_message(result.dagster_run, failures))
    assert_no_password(message, "MONGODB_URI", "refused")
    events = "".join(dg.serialize_value(entry) for entry in instance.all_logs(result.run_id))
    assert_no_password(events, "MONGODB_URI", "refused")
    assert_no_password(dg.serialize_value(result.dagster_run), "catalogue_job")
    printed = capfd.readouterr()
    assert_no_password(f"{printed.out} {printed.err} {caplog.text}", " ")
    for file in filter(Path.is_file, tmp_path.rglob("*")):
        assert b"hush0" not in file.read_bytes(), file


def test_a_failed_sensor_tick_does_not_contain_the_password(
    address: str, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    assert address
    with dg.build_sensor_context(
        instance=instance, resources={"imgassets_mongodb": MongoDBResource()}
    ) as context:
        data = (
            project_defs()
            .get_repository_def()
            .get_sensor_def("new_documents")
            .evaluate_tick(context)
        )
    assert_no_password(f"{data.skip_message} {caplog.text}", "MONGODB_URI", "refused")


def test_the_doctor_does_not_print_the_password(address: str) -> None:
    output = " ".join(diagnosis.message for diagnosis in diagnose(lambda: address))
    assert_no_password(output, "MONGODB_URI", "refused")


def test_the_doctor_masks_an_address_that_works(
    mongodb_uri: str, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert storage
    monkeypatch.setenv("IMGASSETS__SOURCE__DATABASE", "empty")
    load_settings.cache_clear()
    # The options of an address can contain secrets too: certificate keys, session tokens.
    address = f"{mongodb_uri.partition('?')[0].rstrip('/')}/?appName=hush0hush0"
    output = " ".join(diagnosis.message for diagnosis in diagnose(lambda: address))
    assert_no_password(output, "has no document")
