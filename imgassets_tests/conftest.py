"""Fixtures that several test modules share: the real servers that tests run against."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import MongoClient

from imgassets.demo.catalogue import build_catalogue
from imgassets.demo.mongod import EmbeddedMongo
from imgassets.settings import load_settings
from imgassets.storage import Storage, open_storage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database


@pytest.fixture(scope="session")
def mongodb_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MongoDB of this test session's own."""
    server = EmbeddedMongo(tmp_path_factory.mktemp("mongodb"))
    try:
        yield server.ensure_running()
    finally:
        server.stop()
        shutil.rmtree(server.folder)  # 300 MB of journal, which pytest would keep for three runs


@pytest.fixture
def mongo_database(mongodb_uri: str) -> Iterator[Database[dict[str, Any]]]:
    """An empty database that no other test has, dropped afterwards."""
    with MongoClient[dict[str, Any]](mongodb_uri, tz_aware=True) as client:
        database = client[f"test_{uuid.uuid4().hex}"]
        try:
            yield database
        finally:
            client.drop_database(database)


@pytest.fixture(scope="session")
def catalogue_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample catalogue's files; tests only read them."""
    folder = tmp_path_factory.mktemp("catalogue")
    build_catalogue(folder)
    return folder


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """An empty data root, which the settings of this test name."""
    monkeypatch.setenv("IMGASSETS__DATA_ROOT", str(tmp_path / "data"))
    load_settings.cache_clear()
    yield open_storage(load_settings())
    load_settings.cache_clear()
