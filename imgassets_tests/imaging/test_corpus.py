"""All image files of two libraries' own tests: outcome, size and colours are as stored.

A change shows what another version of a library, or a change of this project, does to rare files.
"""

from __future__ import annotations

import numpy as np
import pytest

from imgassets_tests.imaging import corpus

TOLERANCE = 2  # levels of a mean colour; rounding differs between processors


def _is_same(found: corpus.Result, stored: corpus.Result) -> bool:
    if found[:3] != stored[:3]:
        return False
    colours = [np.frombuffer(bytes.fromhex(r.colours), np.uint8) for r in (found, stored)]
    return bool((np.abs(np.diff(np.array(colours, int), axis=0)) <= TOLERANCE).all())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Pillow warns of many of these files
@pytest.mark.parametrize("distribution", corpus.FOLDERS)
def test_every_file_of_the_corpus_ends_as_stored(distribution: str) -> None:
    if not any(corpus.FOLDER.glob(f"{distribution}-[0-9]*.tar.gz")):
        pytest.fail(
            f"the corpus is not in {corpus.FOLDER}; run `make .imgassets/corpus/downloaded`, "
            "which needs the package registry"
        )
    stored = {path: row for (name, path), row in corpus.table().items() if name == distribution}
    found = {path: corpus.result(data) for path, data in corpus.files(distribution)}
    assert found.keys() == stored.keys()
    changed = [
        f"{path}: {','.join(found[path])} instead of {','.join(stored[path])}"
        for path in stored
        if not _is_same(found[path], stored[path])
    ]
    assert not changed, "\n".join(changed)
