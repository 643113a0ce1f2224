"""Tests that a killed run loses at most a few seconds of its journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgassets.download import journal
from imgassets.download.exchange import raw_row
from imgassets.manifests import Outcome, RawRow
from imgassets.storage import Folder
from imgassets_tests.download.conftest import journal_rows, url_row
from imgassets_tests.download.failing_storage import failing_removals


class Clock:
    """Fake of the module `time`."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(journal, "time", clock)
    return clock


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def row(number: int, outcome: Outcome = Outcome.TIMEOUT) -> RawRow:
    return raw_row(url_row(f"p-{number}", f"http://shop/{number}.jpg"), outcome)


def test_a_part_is_written_every_two_seconds(folder: Folder, clock: Clock) -> None:
    writer = journal.JournalWriter(folder, "shard_0000")
    for number in range(2):
        writer.add([row(number)])
        clock.now += 1.9
        writer.flush_if_due()
        assert len(journal_rows(folder)) == number
        clock.now += 0.2
        writer.flush_if_due()
        assert len(journal_rows(folder)) == number + 1
    clock.now += 10
    writer.flush_if_due()  # no rows since the last part: no empty part
    assert len(journal.part_names(folder)) == 2


def test_a_run_killed_while_it_merges_parts_keeps_the_last_row_of_each_key(
    folder: Folder,
) -> None:
    writer = journal.JournalWriter(folder, "shard_0000")
    writer.add([row(1)])
    for _ in range(63):
        _flush(writer, row(0))
    with failing_removals(after=3, newest_first=True):
        _flush(writer, row(0, Outcome.CORRUPT))
    assert {key: last.outcome for key, last in journal_rows(folder).items()} == {
        "p-0": Outcome.CORRUPT,
        "p-1": Outcome.TIMEOUT,
    }
    # The parts of the next writer come after all of these.
    _flush(journal.JournalWriter(folder, "shard_0000"), row(1, Outcome.EMPTY))
    assert journal_rows(folder)["p-1"].outcome is Outcome.EMPTY
    journal.remove(folder)
    assert journal_rows(folder) == {}


def _flush(writer: journal.JournalWriter, last: RawRow) -> None:
    writer.add([last])
    writer.flush()
