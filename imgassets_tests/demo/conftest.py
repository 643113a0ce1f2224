from __future__ import annotations

from pathlib import Path

import pytest

from imgassets.demo.catalogue import build_catalogue


@pytest.fixture(scope="session")
def catalogue_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample catalogue's files; tests only read them."""
    folder = tmp_path_factory.mktemp("catalogue")
    build_catalogue(folder)
    return folder
