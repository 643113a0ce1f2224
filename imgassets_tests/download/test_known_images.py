"""Tests images that are known already: of other keys, other products and other days."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from imgassets.manifests import Outcome, RawRow, to_table
from imgassets.storage import Storage, processed_path
from imgassets_tests.download.conftest import Partition, path_of, stored, url_row, url_rows
from imgassets_tests.download.images import image_bytes
from imgassets_tests.download.server import Server, answer, with_etag

JPEG = image_bytes()
OTHER = image_bytes(seed=1)
PNG = image_bytes("PNG")
GONE = answer(b"gone", status=404)


def test_a_moved_url_keeps_its_image_even_if_the_shop_no_longer_serves_it(
    partition: Partition, server: Server
) -> None:
    old = server.add("/a.jpg", answer(JPEG))
    (before,) = partition.run(old)
    new = server.add("/b.jpg", answer(OTHER))
    server.add("/a.jpg", answer(b"gone", status=404))

    moved = [replace(row, key=f"moved-{row.key}") for row in url_rows(new, old)]
    first, second = partition.run_rows(moved)

    assert (first.outcome, second.outcome) == (Outcome.OK, Outcome.OK)
    assert second.key == moved[1].key
    assert (second.sha256, second.path) == (before.sha256, before.path)
    assert second.reused_from is None
    assert partition.files == stored(JPEG, OTHER)


def test_an_image_that_another_product_lists_too_is_not_requested_again(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", answer(JPEG))
    partition.run(url)
    server.hits.clear()
    both = [url_row("p-0", url), url_row("q-0", url)]
    rows = partition.run_rows(both)
    assert [row.outcome for row in rows] == [Outcome.OK, Outcome.OK]
    assert not server.hits
    assert partition.files == stored(JPEG)


def test_an_image_whose_url_left_the_catalogue_is_kept(
    partition: Partition, server: Server
) -> None:
    first, second = server.add("/a.jpg", answer(JPEG)), server.add("/b.jpg", answer(OTHER))
    partition.run(first, second)
    for _ in range(2):
        (row,) = partition.run(first)
        assert row.path == path_of(JPEG)
    assert partition.files == stored(JPEG, OTHER)


def test_the_row_of_a_moved_url_has_the_new_catalogue_data(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", answer(PNG, headers={"ETag": '"1"'}))
    partition.run_rows([url_row("a", url)])
    (before,) = partition.manifest
    moved = replace(url_row("b", url, 3), product_id="q", document_id="e")
    new = url_row("c", server.add("/c.jpg", answer(OTHER)))
    assert partition.plan([moved]) == []
    rows = partition.run_rows([moved, new])
    assert rows[0] == replace(
        before,
        key="b",
        position=3,
        product_id="q",
        document_id="e",
        attempts=0,
        elapsed_ms=None,
    )
    assert partition.files == stored(PNG, OTHER)
    assert server.hits == {"/a.jpg": 1, "/c.jpg": 1}


def test_a_url_that_moved_while_a_run_was_killed_is_found_in_the_journal(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", answer(JPEG))
    partition.download([url_row("a", url)])  # killed before the manifest
    server.add("/a.jpg", GONE)
    (row,) = partition.run_rows([url_row("b", url)])
    assert (row.outcome, row.path) == (Outcome.OK, path_of(JPEG))


def test_a_truncated_or_removed_file_is_not_reused(partition: Partition, server: Server) -> None:
    urls = [server.add(f"/{n}.jpg", answer(data)) for n, data in enumerate((JPEG, OTHER))]
    partition.run(*urls)
    partition.storage.write(path_of(JPEG), JPEG[:10])
    partition.storage.remove(path_of(OTHER))
    moved = [url_row("a", urls[0]), url_row("b", urls[1])]
    rows = partition.run_rows(moved)
    assert [row.outcome for row in rows] == [Outcome.OK] * 2
    assert server.hits == {"/0.jpg": 2, "/1.jpg": 2}
    assert partition.files == stored(JPEG, OTHER)


# Other days.

DAY_1, DAY_2, DAY_3 = "2026-01-02", "2026-01-03", "2026-01-04"


def age(partition: Partition, days: float) -> None:
    """Let the images of a partition be downloaded earlier."""
    earlier = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    change(partition, fetched_at=earlier)


def change(partition: Partition, **values: Any) -> None:
    """Change columns of all rows of a manifest."""
    rows = [replace(row, **values) for row in partition.manifest]
    partition.partition_files.write_manifest("raw_images", to_table(rows, RawRow))


def test_an_unchanged_catalogue_is_not_requested_again_on_the_next_days(
    partition: Partition, server: Server
) -> None:
    urls = [server.add(f"/{n}.jpg", data) for n, data in enumerate((JPEG, OTHER, PNG))]
    partition.run(*urls)
    first = partition.manifest
    server.hits.clear()
    for day in (DAY_2, DAY_3):
        rows = partition.on(day).run(*urls)
        assert rows == [
            replace(row, date=day, attempts=0, elapsed_ms=None, reused_from=DAY_1) for row in first
        ]
    assert not server.hits
    assert partition.files == stored(JPEG, OTHER, PNG)
    assert partition.manifest == first


def test_a_run_says_how_many_images_it_took_over(partition: Partition, server: Server) -> None:
    urls = [server.add(f"/{n}.jpg", JPEG) for n in range(3)]
    partition.run(*urls[:2])
    second = partition.on(DAY_2)
    second.run(*urls)
    assert second.log[0] == "2 images downloaded before and not requested again"


def test_a_new_url_and_one_that_failed_are_requested_on_the_next_day(
    partition: Partition, server: Server
) -> None:
    urls = [server.add("/0.jpg", JPEG), server.url("/1.jpg"), server.url("/2.jpg")]
    assert [str(row.outcome) for row in partition.run(*urls[:2])] == ["ok", "http_error"]
    server.add("/1.jpg", OTHER)
    server.add("/2.jpg", PNG)
    rows = partition.on(DAY_2).run(*urls)
    assert [str(row.outcome) for row in rows] == ["ok"] * 3
    assert [row.reused_from for row in rows] == [DAY_1, None, None]
    assert server.hits == {"/0.jpg": 1, "/1.jpg": 2, "/2.jpg": 1}


def test_a_backfill_in_any_order_downloads_each_image_once(
    partition: Partition, server: Server
) -> None:
    urls = [server.add(f"/{n}.jpg", data) for n, data in enumerate((JPEG, OTHER))]
    for day in (DAY_2, DAY_3, DAY_1):
        partition.on(day).run(*urls)
    assert server.hits == {"/0.jpg": 1, "/1.jpg": 1}
    assert {row.reused_from for row in partition.on(DAY_1).manifest} == {DAY_2}
    # Materialized again, the day that downloaded them does not refer to itself.
    assert {row.reused_from for row in partition.on(DAY_2).run(*urls)} == {None}
    partition.storage.remove(partition.on(DAY_2).partition_files.manifest("raw_images"))
    assert {row.reused_from for row in partition.on(DAY_2).run(*urls)} == {None}


@pytest.mark.parametrize(
    ("days", "other", "reused"),
    [
        (30, "2026-02-01", True),
        (30, "2026-02-02", False),
        (30, "2025-12-03", True),
        (30, "2025-12-02", False),
        (1, "2026-01-03", True),
        (1, "2026-01-04", False),
        (0, "2026-01-03", False),
    ],
)
def test_images_are_reused_within_the_days_of_the_settings(
    partition: Partition, server: Server, days: int, other: str, reused: bool
) -> None:
    url = server.add("/a.jpg", JPEG)
    partition.with_settings(reuse_days=days).run(url)
    (row,) = partition.on(other).run(url)
    assert (row.reused_from == DAY_1, server.hits["/a.jpg"]) == (reused, 1 if reused else 2)


def test_images_of_another_retailer_are_not_reused(partition: Partition, server: Server) -> None:
    url = server.add("/a.jpg", JPEG)
    partition.run(url)
    rows = [replace(row, retailer="zara-home") for row in partition.manifest]
    files = partition.storage.partition(DAY_1, "zara-home")
    files.write_manifest("raw_images", to_table(rows, RawRow))
    partition.storage.remove(partition.partition_files.manifest("raw_images"))
    (row,) = partition.on(DAY_2).run(url)
    assert (row.reused_from, server.hits["/a.jpg"]) == (None, 2)


def test_an_image_whose_file_is_lost_is_requested_on_the_next_day(
    partition: Partition, server: Server
) -> None:
    urls = [server.add(f"/{n}.jpg", data) for n, data in enumerate((JPEG, OTHER, PNG))]
    partition.run(*urls)
    partition.storage.remove(path_of(JPEG))
    partition.storage.write(path_of(OTHER), OTHER[:-1])
    rows = partition.on(DAY_2).run(*urls)
    assert [row.reused_from for row in rows] == [None, None, DAY_1]
    assert server.hits == {"/0.jpg": 2, "/1.jpg": 2, "/2.jpg": 1}
    assert partition.files == stored(JPEG, OTHER, PNG)


@pytest.mark.parametrize("days", [6.9, 7.1])
def test_an_old_image_is_revalidated_and_a_young_one_is_not(
    partition: Partition, server: Server, days: float
) -> None:
    url = server.add("/a.jpg", with_etag(JPEG, '"1"'))
    partition.run(url)
    age(partition, days)
    (row,) = partition.on(DAY_2).run(url)
    expected = (200, 0) if days < 7 else (304, 1)
    assert (row.http_status, row.attempts) == expected
    assert (row.outcome, row.reused_from, row.path) == (Outcome.OK, DAY_1, path_of(JPEG))
    assert server.hits["/a.jpg"] == (1 if days < 7 else 2)
    # The revalidation counts: the next day asks nothing.
    (row,) = partition.on(DAY_3).run(url)
    assert (row.attempts, row.reused_from) == (0 if days > 7 else row.attempts, DAY_1)


def test_an_old_image_that_has_changed_is_a_new_file_and_the_old_manifest_stays_true(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", with_etag(JPEG, '"1"'))
    partition.run(url)
    age(partition, 8)
    before = partition.manifest
    server.add("/a.jpg", with_etag(OTHER, '"2"'))
    (row,) = partition.on(DAY_2).run(url)
    assert (row.path, row.etag, row.reused_from) == (path_of(OTHER), '"2"', None)
    assert partition.manifest == before
    assert partition.file(before[0]) == JPEG
    assert partition.files == stored(JPEG, OTHER)


def test_an_old_image_that_cannot_be_revalidated_is_kept(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", JPEG)
    partition.run(url)
    age(partition, 8)
    server.add("/a.jpg", GONE)
    second = partition.on(DAY_2)
    (row,) = second.run(url)
    assert (row.outcome, row.path, row.reused_from) == (Outcome.OK, path_of(JPEG), DAY_1)
    assert row.error == ("could not be refreshed (http_error): the server answered with status 404")
    assert second.reports[0].not_refreshed == 1


def test_a_refresh_asks_with_the_newest_known_etag_whichever_day_fetched_it(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", with_etag(JPEG, '"1"'))
    partition.run(url)
    age(partition, 3)
    server.add("/a.jpg", with_etag(OTHER, '"2"'))
    partition.on(DAY_3).run(url, refresh=True)
    age(partition.on(DAY_3), 2)
    server.requests.clear()
    for day in (DAY_2, DAY_1):
        (row,) = partition.on(day).run(url, refresh=True)
        assert (row.http_status, row.etag, row.path) == (304, '"2"', path_of(OTHER))
        assert row.reused_from == DAY_3
    assert [request["If-None-Match"] for request in server.requests["/a.jpg"]] == ['"2"'] * 2


def test_the_newest_download_of_a_url_is_reused(partition: Partition, server: Server) -> None:
    url = server.add("/a.jpg", JPEG)
    partition.on(DAY_3).run(url)
    age(partition.on(DAY_3), 2)
    server.add("/a.jpg", OTHER)
    partition.on(DAY_2).with_settings(reuse_days=0).run(url)
    (row,) = partition.run(url)
    assert (row.path, row.reused_from) == (path_of(OTHER), DAY_2)


def test_a_broken_manifest_of_another_day_is_ignored(partition: Partition, server: Server) -> None:
    url = server.add("/a.jpg", JPEG)
    partition.run(url)
    broken = partition.on(DAY_2).partition_files.manifest("raw_images")
    partition.storage.write(broken, b"PAR1")
    (row,) = partition.on(DAY_3).run(url)
    assert row.reused_from == DAY_1


def test_a_run_that_was_killed_after_it_took_over_images_continues(
    partition: Partition, server: Server
) -> None:
    urls = [server.add(f"/{n}.jpg", data) for n, data in enumerate((JPEG, OTHER))]
    partition.run(urls[0])
    second = partition.on(DAY_2)
    second.download(url_rows(*urls, date=DAY_2))  # killed before the manifest
    server.hits.clear()
    rows = second.run(*urls)
    assert [row.reused_from for row in rows] == [DAY_1, None]
    assert not server.hits


def test_images_that_are_not_kept_are_downloaded_once(partition: Partition, server: Server) -> None:
    partition.keep_raw = False
    url, other = server.add("/a.jpg", with_etag(JPEG, '"1"')), server.add("/b.jpg", OTHER)
    for row in partition.run(url, other)[:1]:  # the second image is not processed
        processed = processed_path("zara", str(row.sha256), "0" * 16, "jpg")
        partition.storage.write(processed, b"processed")
    for data in (JPEG, OTHER):
        partition.storage.remove(path_of(data))
    rows = partition.on(DAY_2).run(url, other)
    assert [row.reused_from for row in rows] == [DAY_1, None]
    assert server.hits == {"/a.jpg": 1, "/b.jpg": 2}
    # A refresh gets no body.
    (row,) = partition.on(DAY_3).run(url, refresh=True)
    assert (row.http_status, row.path) == (304, path_of(JPEG))
    assert path_of(JPEG) not in partition.files


def test_reuse_works_in_an_object_store(partition: Partition, server: Server, s3: str) -> None:
    partition.storage = Storage(f"s3://{s3}/data")
    urls = [server.add(f"/{n}.jpg", data) for n, data in enumerate((JPEG, OTHER))]
    partition.run(*urls)
    rows = partition.on(DAY_2).run(*urls)
    assert [row.reused_from for row in rows] == [DAY_1] * 2
    assert server.hits == {"/0.jpg": 1, "/1.jpg": 1}
    assert partition.files == stored(JPEG, OTHER)
