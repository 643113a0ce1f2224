"""Tests refreshes and retries: what a later run requests, and which files and rows it keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgassets.manifests import Outcome, RawRow
from imgassets_tests.download.conftest import Partition, path_of, stored, url_row, url_rows
from imgassets_tests.download.failing_storage import failing_writes, is_manifest
from imgassets_tests.download.images import image_bytes
from imgassets_tests.download.server import (
    Answer,
    Server,
    answer,
    hang,
    in_turn,
    slow,
    with_date,
    with_etag,
)

JPEG = image_bytes()
OTHER = image_bytes(seed=1)
PNG = image_bytes("PNG")


def refresh(partition: Partition, *urls: str) -> list[RawRow]:
    return partition.run(*urls, refresh=True)


@pytest.mark.parametrize("found", [with_etag(JPEG, '"1"'), with_date(JPEG, "Fri, 02 Jan 2026")])
def test_a_refresh_of_an_unchanged_image_transfers_no_body(
    partition: Partition, server: Server, found: Answer
) -> None:
    url = server.add("/a.jpg", found)
    (first,) = partition.run(url)
    (again,) = refresh(partition, url)
    assert (again.outcome, again.http_status, again.sha256) == (Outcome.OK, 304, first.sha256)
    assert again.fetched_at > first.fetched_at  # type: ignore[operator]
    assert (again.etag, again.last_modified) == (first.etag, first.last_modified)
    (report,) = partition.reports
    assert (report.unchanged, report.changed, report.bytes) == (1, 0, 0)
    assert partition.files == stored(JPEG)


def test_a_refresh_stores_changed_content_as_a_new_file(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", with_etag(JPEG, '"1"'))
    (first,) = partition.run(url)
    server.add("/a.jpg", with_etag(OTHER, '"2"'))
    (again,) = refresh(partition, url)
    assert (again.outcome, again.http_status, again.etag) == (Outcome.OK, 200, '"2"')
    assert again.sha256 != first.sha256
    assert again.path == path_of(OTHER)
    assert partition.files == stored(JPEG, OTHER)
    (report,) = partition.reports
    assert (report.unchanged, report.changed, report.bytes) == (0, 1, len(OTHER))


def test_a_refresh_that_changes_the_format_names_the_new_file(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", JPEG)
    partition.run(url)
    server.add("/a.jpg", PNG)
    (again,) = refresh(partition, url)
    assert again.path == path_of(PNG)
    assert partition.files == stored(JPEG, PNG)


def test_a_refresh_of_a_server_without_etags_compares_the_content(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", JPEG)
    partition.run(url)
    path = Path(partition.storage.address(path_of(JPEG)))
    written = path.stat().st_mtime_ns
    refresh(partition, url)
    assert partition.reports[0].unchanged == 1
    assert path.stat().st_mtime_ns == written


@pytest.mark.parametrize("found", [answer(b"", 404), answer(b"", 503), answer(b"<html>"), hang])
def test_a_failed_refresh_keeps_the_image(
    partition: Partition, server: Server, found: Answer
) -> None:
    url = server.add("/a.jpg", JPEG)
    (first,) = partition.run(url)
    server.add("/a.jpg", found)
    (again,) = refresh(partition.with_settings(retries=0, read_timeout_s=3), url)
    assert (again.outcome, again.sha256, again.path) == (Outcome.OK, first.sha256, first.path)
    assert "could not be refreshed" in str(again.error)
    assert partition.files == stored(JPEG)
    assert partition.reports[0].not_refreshed == 1
    server.add("/a.jpg", JPEG)
    (again,) = refresh(partition, url)
    assert again.error is None


def test_a_refresh_also_fetches_failed_and_new_urls(partition: Partition, server: Server) -> None:
    urls = [
        server.add("/0.jpg", with_etag(JPEG, '"1"')),
        server.url("/1.jpg"),
        server.url("/2.jpg"),
    ]
    partition.run(*urls[:2])
    server.add("/1.jpg", JPEG)
    server.add("/2.jpg", JPEG)
    rows = refresh(partition, *urls)
    assert [(row.outcome, row.http_status) for row in rows] == [
        (Outcome.OK, 304),
        (Outcome.OK, 200),
        (Outcome.OK, 200),
    ]


def test_a_304_to_an_unconditional_request_is_an_http_error(
    partition: Partition, server: Server
) -> None:
    (row,) = partition.run(server.add("/a.jpg", lambda handler: handler.head(304)))
    assert (row.outcome, row.http_status) == (Outcome.HTTP_ERROR, 304)


def test_an_interrupted_refresh_resumes_where_it_stopped(
    partition: Partition, server: Server
) -> None:
    urls = [server.add(f"/{n}.jpg", with_etag(JPEG, '"1"')) for n in range(4)]
    partition.run(*urls)
    rows = url_rows(*urls)
    partition.download(rows[:2], refresh=True)  # killed before the manifest
    refresh(partition, *urls)
    assert [server.hits[f"/{n}.jpg"] for n in range(4)] == [2, 2, 2, 2]


def test_a_killed_refresh_leaves_the_manifest_and_its_files_as_they_were(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", JPEG)
    partition.run(url)
    before = partition.manifest
    server.add("/a.jpg", PNG)
    partition.download(url_rows(url), refresh=True)
    with failing_writes(is_manifest):
        partition.collect(url_rows(url))
    assert partition.manifest == before
    assert partition.file(before[0]) == JPEG
    (after,) = partition.collect(url_rows(url))
    assert after.path == path_of(PNG)
    assert partition.file(after) == PNG


def test_rows_of_one_url_with_different_images_are_refreshed_with_one_request(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", with_etag(JPEG, '"1"'))
    rows = [url_row("a", url), url_row("b", url)]
    partition.run_rows(rows)
    server.add("/a.jpg", with_etag(OTHER, '"2"'))
    partition.download(rows[:1], refresh=True)  # the run is stopped before the row of b
    partition.collect(rows)
    assert [row.path for row in partition.manifest] == [path_of(OTHER), path_of(JPEG)]
    server.requests.clear()
    done = partition.run_rows(rows, refresh=True)
    (request,) = server.requests["/a.jpg"]
    assert request["If-None-Match"] == '"2"'  # the newer one
    assert [row.path for row in done] == [path_of(OTHER)] * 2


@pytest.mark.parametrize("retry", [[], [Outcome.TIMEOUT]])
def test_urls_that_were_never_requested_are_fetched_with_any_retry_option(
    partition: Partition, server: Server, retry: list[Outcome]
) -> None:
    urls = [server.url("/0.jpg"), server.add("/1.jpg", JPEG)]
    partition.download(url_rows(urls[0]))
    before = partition.collect(url_rows(*urls))
    assert [str(row.outcome) for row in before] == ["http_error", "not_fetched"]
    partition.download(url_rows(*urls), retry=retry)
    after = partition.collect(url_rows(*urls))
    assert [str(row.outcome) for row in after] == ["http_error", "ok"]
    assert server.hits == {"/0.jpg": 1, "/1.jpg": 1}


def test_one_url_of_several_products_is_refreshed_once(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", with_etag(JPEG, '"1"'))
    rows = [url_row("a", url), url_row("b", url)]
    partition.run_rows(rows)
    partition.download(rows, refresh=True)
    assert [row.http_status for row in partition.collect(rows)] == [304, 304]


def test_a_refresh_needs_no_body_for_a_new_product_with_a_known_url(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", with_etag(JPEG, '"1"'))
    rows = [url_row("a", url), url_row("b", url)]
    partition.run_rows(rows[:1])
    done = partition.run_rows(rows, refresh=True)
    assert [(row.outcome, row.http_status) for row in done] == [(Outcome.OK, 304)] * 2
    assert {row.path for row in done} == {path_of(JPEG)}
    assert server.hits == {"/a.jpg": 2}


def test_only_the_outcomes_in_retry_are_tried_again(partition: Partition, server: Server) -> None:
    urls = [
        server.add("/0.jpg", answer(b"", 404)),
        server.add("/1.jpg", b"<html>"),
        server.add("/2.jpg", JPEG),
        server.url("/new.jpg"),
    ]
    partition.run(*urls[:3])
    for n in range(2):
        server.add(f"/{n}.jpg", JPEG)
    server.add("/new.jpg", JPEG)
    rows = url_rows(*urls)
    partition.download(rows, retry={Outcome.NOT_AN_IMAGE})
    done = partition.collect(rows)
    assert [str(row.outcome) for row in done] == ["http_error", "ok", "ok", "ok"]
    assert [server.hits[f"/{name}.jpg"] for name in ("0", "1", "2", "new")] == [1, 2, 1, 1]
    assert partition.plan(rows, retry=[]) == []
    assert len(partition.plan(rows)) == 1


def test_a_report_counts_outcomes_bytes_and_retries_and_lists_the_slowest_hosts(
    partition: Partition, server: Server
) -> None:
    partition.run(
        server.add("/a.jpg", slow(0.1, answer(JPEG))),
        server.url("/missing.jpg", host="localhost"),
        # Browsers read backslashes as slashes.
        server.add("/b.jpg", in_turn(answer(b"", 500), answer(JPEG))).replace("/", "\\"),
        "no url",
    )
    (report,) = partition.reports
    assert report.outcomes == {"ok": 2, "invalid_url": 1, "http_error": 1}
    assert report.bytes == 2 * len(JPEG)
    assert report.retries == 1
    port = server.server_address[1]
    assert [host.host for host in report.slowest_hosts] == [
        f"127.0.0.1:{port}",
        f"localhost:{port}",
    ]
    assert [(host.urls, host.failed) for host in report.slowest_hosts] == [(2, 0), (1, 1)]
    assert report.slowest_hosts[0].mean_ms >= 50
