"""Tests of the sensor's cursor and of the rules by which a partition is due, without MongoDB."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgassets.errors import SourceError
from imgassets.settings import SensorSettings
from imgassets.sources.changes import (
    ChangePage,
    Cursor,
    PendingPartition,
    ScanResult,
    StreamPosition,
    change_id,
    due_partitions,
    read_cursor,
    remove_requested,
    run_key,
    scan,
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


def scan_page(before: Cursor, page: ChangePage, now: float) -> ScanResult:
    return scan(before, lambda _: iter([page]), now=now, out_of_time=lambda: False)


def due_names(result: ScanResult, now: float) -> list[str]:
    return list(due_partitions(result, OPTIONS, now=now, today=TODAY))


def test_a_cursor_survives_writing_and_reading() -> None:
    position = StreamPosition(1.5, poll_started=2.5, poll_next=600.0, bins={"600|x": (3, 4)})
    written = Cursor("a.b", position, {ZARA: PendingPartition("p", 1, 2)})
    assert read_cursor(written.to_json()) == written


@pytest.mark.parametrize(
    "text", ["", "{}", "17", '{"source": "a.b", "position": {"read_until": "soon"}}']
)
def test_an_unreadable_cursor_raises_an_error_that_says_how_to_reset_it(text: str) -> None:
    with pytest.raises(SourceError, match=r"cursor is broken .*; reset it on the sensor's page"):
        read_cursor(text)


def test_a_changed_partition_is_due_once_it_did_not_change_for_the_settle_time() -> None:
    first = scan_page(cursor(), ChangePage(StreamPosition(1), {ZARA: "a"}, more=False), now=100)
    assert due_names(first, 100) == []
    assert due_names(first, 139) == []
    assert due_names(first, 140) == [ZARA]

    again = scan_page(first.cursor, ChangePage(StreamPosition(2), {ZARA: "b"}, more=False), now=120)
    assert due_names(again, 159) == []
    assert due_partitions(again, OPTIONS, now=160, today=TODAY) == {
        ZARA: PendingPartition("b", 100, 120)
    }


def test_a_partition_that_keeps_changing_is_due_after_the_maximum_wait() -> None:
    result = ScanResult(cursor(zara=PendingPartition("p", 100, 799)), caught_up=True, notes=[])
    assert due_names(result, 799) == []
    assert due_names(result, 800) == [ZARA]


def test_while_changes_are_unread_only_the_maximum_wait_makes_a_partition_due() -> None:
    result = ScanResult(cursor(zara=PendingPartition("p", 100, 100)), caught_up=False, notes=[])
    assert due_names(result, 799) == []
    assert due_names(result, 800) == [ZARA]


def test_a_partition_dated_in_the_future_waits_for_its_day() -> None:
    ahead = Cursor("a.b", StreamPosition(0), {"2026-02-01|zara": PendingPartition("p", 0, 0)})
    result = ScanResult(ahead, caught_up=True, notes=[])
    assert not due_partitions(result, OPTIONS, now=1e6, today=TODAY)
    tomorrow = TODAY + dt.timedelta(days=1)
    assert list(due_partitions(result, OPTIONS, now=1e6, today=tomorrow)) == ["2026-02-01|zara"]


def test_the_longest_waiting_partitions_are_due_first() -> None:
    result = ScanResult(
        cursor(zara=PendingPartition("p", 1, 5), asos=PendingPartition("p", 2, 3)),
        caught_up=True,
        notes=[],
    )
    assert due_names(result, 100) == [ZARA, ASOS]


def test_only_requested_partitions_are_removed_from_the_cursor() -> None:
    before = cursor(zara=PendingPartition("p", 1, 1), asos=PendingPartition("q", 1, 1))
    assert remove_requested(before, {ZARA: PendingPartition("p", 1, 1)}) == cursor(
        asos=PendingPartition("q", 1, 1)
    )


def test_run_keys_are_equal_for_the_same_change_and_differ_for_a_later_change() -> None:
    assert run_key(ZARA, PendingPartition("p", 1, 2)) == run_key(ZARA, PendingPartition("p", 3, 4))
    assert run_key(ZARA, PendingPartition("p", 1, 2)) != run_key(ZARA, PendingPartition("q", 1, 2))
    assert change_id("a", "b") == change_id("a", "b") != change_id("ab")


def test_a_scan_stops_when_its_time_is_up_and_the_next_scan_continues() -> None:
    read = []

    def pages(position: StreamPosition) -> Iterator[ChangePage]:
        for number in range(int(position.read_until), 5):
            read.append(number)
            yield ChangePage(
                StreamPosition(number + 1), {f"2026-01-0{number + 1}|zara": "p"}, more=number < 4
            )

    first = scan(cursor(), pages, now=1, out_of_time=lambda: len(read) == 2)
    assert (first.caught_up, first.cursor.position.read_until) == (False, 2)
    second = scan(first.cursor, pages, now=2, out_of_time=lambda: False)
    assert second.caught_up
    assert read == [0, 1, 2, 3, 4]
    assert len(second.cursor.pending) == 5


def test_pages_read_before_an_error_are_kept_and_the_error_is_a_note() -> None:
    def pages(_: StreamPosition) -> Iterator[ChangePage]:
        yield ChangePage(StreamPosition(7), {ZARA: "p"}, more=True)
        raise SourceError("MongoDB cannot be reached")

    result = scan(cursor(), pages, now=1, out_of_time=lambda: False)
    assert result.cursor.position == StreamPosition(7)
    assert result.notes == ["MongoDB cannot be reached"]
    assert not result.caught_up


def test_an_error_of_the_first_page_is_raised() -> None:
    def pages(_: StreamPosition) -> Iterator[ChangePage]:
        raise SourceError("MongoDB cannot be reached")
        yield

    with pytest.raises(SourceError, match="MongoDB cannot be reached"):
        scan(cursor(), pages, now=1, out_of_time=lambda: False)


def test_documents_without_a_partition_are_counted_with_an_example() -> None:
    report = SourceReport()
    assert unpartitioned_message(report) is None
    report.add(Anomaly.NO_RETAILER, "17", "the retailer is None")
    report.add(Anomaly.NO_RETAILER, "18", "the retailer is None")
    message = unpartitioned_message(report)
    assert message is not None
    assert "2 no_retailer" in message
    assert "17" in message


@given(
    st.lists(
        st.tuples(
            st.floats(0, 100),  # seconds since the last scan
            st.lists(st.sampled_from("abcd"), max_size=4),  # partitions changed since then
            st.booleans(),  # whether there are unread changes
        ),
        max_size=40,
    )
)
def test_each_change_leads_to_a_request_and_each_request_follows_a_change(
    scans: list[tuple[float, list[str], bool]],
) -> None:
    now, waiting, state = 0.0, set[str](), cursor()
    # At the end, time passes without changes.
    for number, (passed, changed, more) in enumerate([*scans, (1.0, [], False), (1e4, [], False)]):
        now += passed
        names = {f"2026-01-31|{name}": f"{name}{number}" for name in changed}
        waiting |= set(names)
        result = scan_page(state, ChangePage(StreamPosition(now), names, more=more), now)
        requested = due_partitions(result, OPTIONS, now=now, today=TODAY)
        assert set(requested) <= waiting
        waiting -= set(requested)
        state = remove_requested(result.cursor, requested)
        assert set(state.pending) == waiting
    assert waiting == set()
