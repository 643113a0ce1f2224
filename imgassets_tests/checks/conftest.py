from __future__ import annotations

import pytest

from imgassets.storage import Storage
from imgassets_tests.partition_fixture import PartitionFixture


@pytest.fixture
def partition(storage: Storage) -> PartitionFixture:
    """An empty partition in an empty storage."""
    return PartitionFixture(storage)
