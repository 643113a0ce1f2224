"""One deployment that all tests of this package share, because it takes half a minute to start."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from pymongo import MongoClient

from imgassets_tests.life import past
from imgassets_tests.life.deployment import Deployment, Shop


@pytest.fixture(scope="package")
def past_shops() -> Iterator[dict[str, Shop]]:
    """The shops of `past`, by name."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(closing(Shop(name))) for name in past.SHOPS}


@pytest.fixture(scope="package")
def deployment(
    tmp_path_factory: pytest.TempPathFactory, mongodb_uri: str, past_shops: dict[str, Shop]
) -> Iterator[Deployment]:
    """A running deployment whose database contains the documents of `past`."""
    with MongoClient[dict[str, Any]](mongodb_uri, tz_aware=True) as client:
        database = client[f"test_{uuid.uuid4().hex}"]
        try:
            deployment = Deployment(
                tmp_path_factory.mktemp("life"), mongodb_uri, database["products"]
            )
            deployment.products.insert_many(past.documents(past_shops))
            with deployment.running():
                yield deployment
        finally:
            client.drop_database(database)


@pytest.fixture
def open_shop() -> Iterator[Callable[[str], Shop]]:
    """A function that opens a shop; the shop is closed after the test."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(closing(Shop(name)))
