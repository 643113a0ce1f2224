"""Tests refreshes and retries: what a later run requests, and which files and rows it keeps."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from imgassets.download.partition import collect, plan
from imgassets.manifests import Outcome, RawRow
from imgassets.storage import mark_removed
from imgassets_tests.download.conftest import Partition, url_row, url_rows
from imgassets_tests.download.failing_storage import failing_writes, is_manifest, is_table
from imgassets_tests.download.images import image_bytes
from imgassets_tests.download.server import Answer, Handler, Server, answer, hang

JPEG = image_bytes()
OTHER = image_bytes(seed=1)
PNG = image_bytes("PNG")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def with_etag(body: bytes, etag: str) -> Answer:
    def found(handler: Handler) -> None:
        if handler.headers["If-None-Match"] == etag:
            handler.head(304, {"ETag": etag})
        else:
            handler.reply(body, headers={"ETag": etag})

    return found


def with_date(body: bytes, date: str) -> Answer:
    def found(handler: Handler) -> None:
        if handler.headers["If-Modified-Since"] == date:
            handler.head(304)
        else:
            handler.reply(body, headers={"Last-Modified": date})

    return found


def refresh(partition: Partition, *urls: str) -> list[RawRow]:
    rows = url_rows(*urls)
    partition.download(rows, refresh=True)
    return collect(rows, partition.folder)


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
    assert partition.files == {"p-0.jpg": JPEG}


def test_a_refresh_replaces_changed_content(partition: Partition, server: Server) -> None:
    url = server.add("/a.jpg", with_etag(JPEG, '"1"'))
    (first,) = partition.run(url)
    server.add("/a.jpg", with_etag(OTHER, '"2"'))
    (again,) = refresh(partition, url)
    assert (again.outcome, again.http_status, again.etag) == (Outcome.OK, 200, '"2"')
    assert again.sha256 != first.sha256
    assert partition.files == {"p-0.jpg": OTHER}
    (report,) = partition.reports
    assert (report.unchanged, report.changed, report.bytes) == (0, 1, len(OTHER))


def test_a_refresh_that_changes_the_format_removes_the_old_file(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", JPEG)
    partition.run(url)
    server.add("/a.jpg", PNG)
    (again,) = refresh(partition, url)
    assert again.path == "images/p-0.png"
    assert partition.files == {"p-0.png": PNG}


def test_a_refresh_of_a_server_without_etags_compares_the_content(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", JPEG)
    partition.run(url)
    path = Path(partition.folder.address, "images", "p-0.jpg")
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
    (again,) = refresh(partition.with_settings(retries=0), url)
    assert (again.outcome, again.sha256, again.path) == (Outcome.OK, first.sha256, first.path)
    assert "could not be refreshed" in str(again.error)
    assert partition.files == {"p-0.jpg": JPEG}
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


def test_after_a_killed_refresh_every_row_has_the_checksum_of_its_file(
    partition: Partition, server: Server
) -> None:
    urls = [server.add(f"/{n}.jpg", JPEG) for n in range(3)]
    partition.run(*urls)
    newer = JPEG[:-3] + bytes([JPEG[-3] ^ 1]) + JPEG[-2:]  # of the same size
    server.add("/1.jpg", newer)
    # The file is replaced, but its row is not written.
    with failing_writes(is_table):
        partition.download(url_rows(*urls), refresh=True)
    assert partition.files["p-1.jpg"] == newer

    server.hits.clear()
    rows = partition.run(*urls)
    assert server.hits == {"/1.jpg": 1}
    assert [row.sha256 for row in rows] == [sha256(body) for body in (JPEG, newer, JPEG)]
    assert partition.files == {"p-0.jpg": JPEG, "p-1.jpg": newer, "p-2.jpg": JPEG}


def test_after_a_killed_refresh_the_next_refresh_requests_the_whole_image(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", with_etag(JPEG, '"1"'))
    partition.run(url)
    newer = JPEG[:-3] + bytes([JPEG[-3] ^ 1]) + JPEG[-2:]
    server.add("/a.jpg", with_etag(newer, '"2"'))
    with failing_writes(is_table):
        partition.download(url_rows(url), refresh=True)
    # The server has the old image again, which is no longer on the disk.
    server.add("/a.jpg", with_etag(JPEG, '"1"'))
    (row,) = refresh(partition, url)
    assert (row.http_status, row.etag, row.sha256) == (200, '"1"', sha256(JPEG))
    assert partition.files == {"p-0.jpg": JPEG}


def test_a_file_of_the_old_format_is_kept_until_a_manifest_names_the_new_one(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", JPEG)
    (before,) = partition.run(url)
    server.add("/a.jpg", PNG)
    partition.download(url_rows(url), refresh=True)
    with failing_writes(is_manifest):
        collect(url_rows(url), partition.folder)
    assert partition.file(before) == JPEG
    (after,) = collect(url_rows(url), partition.folder)
    assert partition.files == {"p-0.png": PNG}
    assert after.path == "images/p-0.png"


def test_different_rows_of_one_url_are_refreshed_with_one_unconditional_request(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", with_etag(JPEG, '"1"'))
    rows = [url_row("a", url), url_row("b", url)]
    partition.run_rows(rows)
    server.add("/a.jpg", with_etag(OTHER, '"2"'))
    partition.download(rows[:1], refresh=True)  # the run is stopped before the row of b
    assert partition.files == {"a.jpg": OTHER, "b.jpg": JPEG}
    collect(rows, partition.folder)
    server.requests.clear()
    partition.download(rows, refresh=True)
    done = collect(rows, partition.folder)
    (request,) = server.requests["/a.jpg"]
    assert request["If-None-Match"] is None
    assert [row.sha256 for row in done] == [sha256(OTHER)] * 2
    assert partition.files == {"a.jpg": OTHER, "b.jpg": OTHER}


@pytest.mark.parametrize("retry", [[], [Outcome.TIMEOUT]])
def test_urls_that_were_never_requested_are_fetched_with_any_retry_option(
    partition: Partition, server: Server, retry: list[Outcome]
) -> None:
    urls = [server.url("/0.jpg"), server.add("/1.jpg", JPEG)]
    partition.download(url_rows(urls[0]))
    before = collect(url_rows(*urls), partition.folder)
    assert [str(row.outcome) for row in before] == ["http_error", "not_fetched"]
    partition.download(url_rows(*urls), retry=retry)
    after = collect(url_rows(*urls), partition.folder)
    assert [str(row.outcome) for row in after] == ["http_error", "ok"]
    assert server.hits == {"/0.jpg": 1, "/1.jpg": 1}


def test_images_removed_on_purpose_are_never_fetched_again(
    partition: Partition, server: Server
) -> None:
    urls = [server.add(f"/{n}.jpg", with_etag(JPEG, '"1"')) for n in range(3)]
    images = partition.folder / "images"
    for n in range(3):  # each run downloads one more image, which is removed
        partition.run(*urls[: n + 1])
        mark_removed(partition.folder, images.sizes())
        for name in images.sizes():
            images.remove(name)
    server.requests.clear()
    before = partition.run(*urls)
    assert not server.requests
    assert [str(row.outcome) for row in before] == ["ok"] * 3

    # A refresh requests them, and gets a body only for the one that has changed.
    server.add("/2.jpg", with_etag(OTHER, '"2"'))
    rows = refresh(partition, *urls)
    assert [row.http_status for row in rows] == [304, 304, 200]
    assert partition.files == {"p-2.jpg": OTHER}


def test_one_url_of_several_products_is_refreshed_once(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", with_etag(JPEG, '"1"'))
    rows = [url_row("a", url), url_row("b", url)]
    partition.run_rows(rows)
    partition.download(rows, refresh=True)
    assert [row.http_status for row in collect(rows, partition.folder)] == [304, 304]


def test_a_refresh_downloads_the_image_for_a_new_product_with_a_known_url(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", with_etag(JPEG, '"1"'))
    rows = [url_row("a", url), url_row("b", url)]
    partition.run_rows(rows[:1])
    # The file that could be copied was removed on purpose, so that the body is needed.
    mark_removed(partition.folder, ["a.jpg"])
    (partition.folder / "images").remove("a.jpg")
    partition.download(rows, refresh=True)
    done = collect(rows, partition.folder)
    assert [(row.outcome, row.http_status) for row in done] == [(Outcome.OK, 200)] * 2
    assert partition.files["b.jpg"] == JPEG
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
    done = collect(rows, partition.folder)
    assert [str(row.outcome) for row in done] == ["http_error", "ok", "ok", "ok"]
    assert [server.hits[f"/{name}.jpg"] for name in ("0", "1", "2", "new")] == [1, 2, 1, 1]
    assert plan(rows, partition.folder, 10, retry=[]) == []
    assert len(plan(rows, partition.folder, 10)) == 1


def test_a_report_counts_outcomes_bytes_and_retries_and_lists_the_slowest_hosts(
    partition: Partition, server: Server
) -> None:
    from imgassets_tests.download.server import in_turn, slow

    partition.run(
        server.add("/a.jpg", slow(0.1, answer(JPEG))),
        server.url("/missing.jpg", host="localhost"),
        server.add("/b.jpg", in_turn(answer(b"", 500), answer(JPEG))),
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
