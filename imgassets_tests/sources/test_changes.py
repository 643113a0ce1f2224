"""What the sensor remembers and when a partition is due: rules alone, no MongoDB."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgassets.errors import SourceError
from imgassets.settings import SensorSettings
from imgassets.sources.changes import (
    Cursor,
    Page,
    PendingPartition,
    Scan,
    StreamPosition,
    due,
    look,
    position,
    read_cursor,
    requested,
    run_key,
    unpartitioned_message,
)
from imgassets.sources.listing import Anomaly, SourceReport

TODAY = dt.date(2026, 1, 31)
ZARA, ASOS = "2026-01-31|zara", "2026-01-31|asos"
OPTIONS = SensorSettings(settle_s=40, max_wait_s=700)


def cursor(**pending: PendingPartition) -> Cursor:
    return Cursor(
        "catalogue.products", StreamPosition(0), {f"2026-01-31|{k}": t for k, t in pending.items()}
    )


def looked(remembered: Cursor, page: Page, now: float) -> Scan:
    return look(remembered, lambda _: iter([page]), now=now, out_of_time=lambda: False)


def names_due(found: Scan, now: float) -> list[str]:
    return list(due(found, OPTIONS, now=now, today=TODAY))


def test_a_cursor_is_read_as_it_was_written() -> None:
    place = StreamPosition(1.5, began=2.5, next=600.0, window={"600|x": (3, 4)})
    written = Cursor("a.b", place, {ZARA: PendingPartition("p", 1, 2)})
    assert read_cursor(written.to_json()) == written


@pytest.mark.parametrize("text", ["", "{}", "17", '{"source": "a.b", "place": {"until": "soon"}}'])
def test_a_broken_cursor_is_told_with_what_to_do(text: str) -> None:
    with pytest.raises(SourceError, match=r"cursor is broken .*; reset it on the sensor's page"):
        read_cursor(text)


def test_a_touched_partition_waits_until_it_was_quiet() -> None:
    first = looked(cursor(), Page(StreamPosition(1), {ZARA: "a"}, more=False), now=100)
    assert names_due(first, 100) == []
    assert names_due(first, 139) == []
    assert names_due(first, 140) == [ZARA]

    again = looked(first.cursor, Page(StreamPosition(2), {ZARA: "b"}, more=False), now=120)
    assert names_due(again, 159) == []
    assert due(again, OPTIONS, now=160, today=TODAY) == {ZARA: PendingPartition("b", 100, 120)}


def test_a_partition_that_never_rests_waits_no_longer_than_the_longest() -> None:
    found = Scan(cursor(zara=PendingPartition("p", 100, 799)), caught_up=True, notes=[])
    assert names_due(found, 799) == []
    assert names_due(found, 800) == [ZARA]


def test_while_changes_are_left_to_read_nothing_counts_as_quiet() -> None:
    found = Scan(cursor(zara=PendingPartition("p", 100, 100)), caught_up=False, notes=[])
    assert names_due(found, 799) == []
    assert names_due(found, 800) == [ZARA]


def test_a_partition_dated_ahead_waits_for_its_day() -> None:
    ahead = Cursor("a.b", StreamPosition(0), {"2026-02-01|zara": PendingPartition("p", 0, 0)})
    found = Scan(ahead, caught_up=True, notes=[])
    assert not due(found, OPTIONS, now=1e6, today=TODAY)
    tomorrow = TODAY + dt.timedelta(days=1)
    assert list(due(found, OPTIONS, now=1e6, today=tomorrow)) == ["2026-02-01|zara"]


def test_those_that_wait_longest_are_due_first() -> None:
    found = Scan(
        cursor(zara=PendingPartition("p", 1, 5), asos=PendingPartition("p", 2, 3)),
        caught_up=True,
        notes=[],
    )
    assert names_due(found, 100) == [ZARA, ASOS]


def test_a_requested_partition_is_forgotten_and_the_others_are_not() -> None:
    before = cursor(zara=PendingPartition("p", 1, 1), asos=PendingPartition("q", 1, 1))
    assert requested(before, {ZARA: PendingPartition("p", 1, 1)}) == cursor(
        asos=PendingPartition("q", 1, 1)
    )


def test_a_run_key_is_the_same_for_the_same_change_and_another_for_a_later_one() -> None:
    assert run_key(ZARA, PendingPartition("p", 1, 2)) == run_key(ZARA, PendingPartition("p", 3, 4))
    assert run_key(ZARA, PendingPartition("p", 1, 2)) != run_key(ZARA, PendingPartition("q", 1, 2))
    assert position("a", "b") == position("a", "b") != position("ab")


def test_a_look_ends_when_its_time_is_up_and_keeps_what_it_read() -> None:
    read = []

    def pages(place: StreamPosition) -> Iterator[Page]:
        for number in range(int(place.until), 5):
            read.append(number)
            yield Page(
                StreamPosition(number + 1), {f"2026-01-0{number + 1}|zara": "p"}, more=number < 4
            )

    first = look(cursor(), pages, now=1, out_of_time=lambda: len(read) == 2)
    assert (first.caught_up, first.cursor.place.until) == (False, 2)
    second = look(first.cursor, pages, now=2, out_of_time=lambda: False)
    assert second.caught_up
    assert read == [0, 1, 2, 3, 4]
    assert len(second.cursor.pending) == 5


def test_what_was_read_before_an_error_is_kept_and_the_error_is_told() -> None:
    def pages(_: StreamPosition) -> Iterator[Page]:
        yield Page(StreamPosition(7), {ZARA: "p"}, more=True)
        raise SourceError("MongoDB is away")

    found = look(cursor(), pages, now=1, out_of_time=lambda: False)
    assert found.cursor.place == StreamPosition(7)
    assert found.notes == ["MongoDB is away"]
    assert not found.caught_up


def test_an_error_before_anything_was_read_is_raised() -> None:
    def pages(_: StreamPosition) -> Iterator[Page]:
        raise SourceError("MongoDB is away")
        yield

    with pytest.raises(SourceError, match="MongoDB is away"):
        look(cursor(), pages, now=1, out_of_time=lambda: False)


def test_documents_without_a_partition_are_counted_with_an_example() -> None:
    report = SourceReport()
    assert unpartitioned_message(report) is None
    report.add(Anomaly.NO_RETAILER, "17", "it is None")
    report.add(Anomaly.NO_RETAILER, "18", "it is None")
    sentence = unpartitioned_message(report)
    assert sentence is not None
    assert "2 no_retailer" in sentence
    assert "17" in sentence


@given(
    st.lists(
        st.tuples(
            st.floats(0, 100),  # seconds since the last look
            st.lists(st.sampled_from("abcd"), max_size=4),  # partitions touched since
            st.booleans(),  # whether more is left to read
        ),
        max_size=40,
    )
)
def test_every_touch_is_followed_by_a_request_and_every_request_follows_a_touch(
    looks: list[tuple[float, list[str], bool]],
) -> None:
    now, waiting, remembered = 0.0, set[str](), cursor()
    # At the end nothing more is touched, and time passes.
    for number, (passed, touched, more) in enumerate([*looks, (1.0, [], False), (1e4, [], False)]):
        now += passed
        names = {f"2026-01-31|{name}": f"{name}{number}" for name in touched}
        waiting |= set(names)
        found = looked(remembered, Page(StreamPosition(now), names, more=more), now)
        asked = due(found, OPTIONS, now=now, today=TODAY)
        assert set(asked) <= waiting
        waiting -= set(asked)
        remembered = requested(found.cursor, asked)
        assert set(remembered.pending) == waiting
    assert waiting == set()
