from __future__ import annotations

import pytest

from imgassets.storage import Storage
from imgassets_tests.arranged import Arranged


@pytest.fixture
def partition(storage: Storage) -> Arranged:
    """A partition of an empty storage."""
    return Arranged(storage)
