"""Fixtures that several test modules share: servers, databases and storage."""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from hypothesis import settings as hypothesis_settings
from pymongo import MongoClient

from imgassets.configuration import load_settings
from imgassets.demo.catalogue import build_catalogue
from imgassets.demo.mongod import EmbeddedMongo
from imgassets.storage import Storage, open_storage
from imgassets_tests import object_store
from imgassets_tests.object_store import ObjectStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database


# The same examples in each run, however slow the machine is: a failure belongs to the change that
# was tested. `pytest --hypothesis-profile=default` draws others.
hypothesis_settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis_settings.load_profile("repeatable")


def pytest_configure() -> None:
    """Let SIGINT interrupt: a shell starts background processes with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def mongodb_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a MongoDB server that this test session starts and stops."""
    server = EmbeddedMongo(tmp_path_factory.mktemp("mongodb"))
    try:
        yield server.ensure_running()
    finally:
        server.stop()
        shutil.rmtree(
            server.folder
        )  # 300 MB of journal, which pytest would keep for three sessions


@pytest.fixture
def mongo_database(mongodb_uri: str) -> Iterator[Database[dict[str, Any]]]:
    """An empty database for one test, dropped afterwards."""
    with MongoClient[dict[str, Any]](mongodb_uri, tz_aware=True) as client:
        database = client[f"test_{uuid.uuid4().hex}"]
        try:
            yield database
        finally:
            client.drop_database(database)


@pytest.fixture(scope="session")
def catalogue_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sample catalogue; read-only for tests."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # the folder of all workers: one of them builds for the others
    with FileLock(shared / "catalogue.lock"):
        build_catalogue(shared / "catalogue")
    return shared / "catalogue"


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """The storage of an empty data root, to which the settings point during the test."""
    monkeypatch.setenv("IMGASSETS__DATA_ROOT", str(tmp_path / "data"))
    load_settings.cache_clear()
    yield open_storage(load_settings())
    load_settings.cache_clear()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[ObjectStore]:
    """An S3-compatible server that counts its requests."""
    with object_store.running() as server:
        yield server


@pytest.fixture
def s3(s3_server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of an empty bucket; the environment variables point to its server."""
    import s3fs

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    # fsspec caches file systems together with their endpoint.
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"bucket-{uuid.uuid4().hex}"
    s3_server.create_bucket(bucket)
    yield bucket
    s3_server.refusals, s3_server.delay_s = 0, 0
    s3fs.S3FileSystem.clear_instance_cache()
